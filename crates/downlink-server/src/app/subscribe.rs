//! `GET /events`: subscribes as the query says, and answers with a stream of events.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use downlink::{
    KeepAlive, LastEventId, Sse,
    access::Caller,
    adapters::{SubscriptionFrames, ToFrame},
    http::FrameSource,
    hub::{ClientId, Published, Selection, Start, Subscribe, SubscribeErrorKind, TopicSelector},
    serve::AddressKey,
};
use downlink_access::Proof;
use http_body_util::BodyExt as _;

use super::{
    described::View,
    guard::Sender,
    query::Query,
    reply::{Refused, bad_request, sentence, shown},
    state::App,
};
use crate::{
    access::{Answer, NamesPermit, Question},
    logs::{Logged, Requester},
};

const PARAMETERS: &[&str] =
    &["topic", "client", "start", "last_event_id", "open", "alive", "meta", "refuse_with_status"];

pub(super) async fn subscribe(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(sender): Extension<Sender>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let last = LastEventId::from_request(&headers, query.as_deref());
    let browser = last.is_browser();
    let opened = open(&app, &caller, (&sender, &headers), query.as_deref(), last).await;
    opened.unwrap_or_else(|refused| refused.into_response_for(browser))
}

async fn open(
    app: &App,
    caller: &Caller,
    from: (&Sender, &HeaderMap),
    query: Option<&str>,
    last: LastEventId,
) -> Result<Response, Refused> {
    let parameters = Query::read(query, PARAMETERS)?;
    // The library `downlink` reads this parameter from the same query. This call only checks that
    // the value is valid.
    parameters.flag("refuse_with_status")?;
    let meta = parameters.flag("meta")?.unwrap_or(false);
    let asked = asked(&parameters)?;
    let granted_by_app = ask(app, caller, from, &asked, last.is_browser()).await?;
    let caller = granted_by_app.as_ref().unwrap_or(caller);
    let asked = caller.completed(asked);
    caller.check_subscription(&asked)?;
    let names =
        app.control.count_names(caller, from.0.address, from.0.shares_connection, &asked)?;
    let (subscribe, after) = request(app, &parameters, asked)?;
    let last = after.into_iter().fold(last, LastEventId::or);
    // `GET /clients` and the log show the address and the requester. The key of the address takes 8
    // bytes, whatever the address is.
    let (sender, headers) = from;
    let address = sender.address.ip();
    let key = caller.verified().key();
    let requester = app.requesters.add(Requester::of(sender.peer, address, key, headers));
    let address = address.map_or(0, |ip| AddressKey::of(ip).to_number());
    let opening = subscribe.tag([address, requester.tag()]).resume(last).open();
    let subscription = match opening.await {
        Ok(subscription) => subscription,
        Err(error) => {
            let reason = Logged::Refused(error.to_string().into());
            let mut response = error.into_response();
            response.extensions_mut().insert(reason);
            return Ok(response);
        }
    };
    requester.keep();
    if meta {
        let view = View { control: Arc::clone(&app.control), caller: caller.clone() };
        let described = move |event: Published<String>| view.described(&event);
        let response = respond(app, caller, subscription.into_frames_with(described))?;
        return Ok(holding(names, response));
    }
    Ok(holding(names, respond(app, caller, subscription.into_frames())?))
}

/// Adds a permit to the body of a response. Until the body is dropped, the permit counts the names
/// of its subscription (topics and patterns) for the address of the client. The wrapped body takes
/// some more memory, so a response without a permit keeps its own body.
fn holding(names: Option<NamesPermit>, response: Response) -> Response {
    let Some(names) = names else { return response };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &names;
            frame
        }))
    })
}

/// Asks the app of `--authorize-url` about a subscription without a credential. Returns a caller
/// with the rights that the app grants. Returns `None` without asking in three cases: the request
/// has a valid credential, everything that it asks for is public, or there is no app to ask.
async fn ask(
    app: &App,
    caller: &Caller,
    (sender, headers): (&Sender, &HeaderMap),
    asked: &Selection,
    browser: bool,
) -> Result<Option<Caller>, Refused> {
    let Err(refusal) = caller.check_credential() else { return Ok(None) };
    let is_public = || caller.check_subscription(asked).is_ok();
    if !app.control.asks_an_app() || is_public() {
        return Ok(None);
    }
    // The cookie has a token, but the server cannot fetch the keys to verify the token now. It does
    // not ask the app, because the app may not know the user of this token, and a refusal of the
    // app is final. The refusal here is temporary.
    if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
        return Err(refusal.into());
    }
    // Only the app knows whether the cookies are valid, so a client could try many cookies through
    // the server. If the address of the request has had too many bad credentials, the server
    // refuses the request and does not ask the app.
    if let Some(rates) = app.control.rates() {
        rates.attempt(sender.address, Instant::now())?;
    }
    let question = Question {
        asked,
        address: sender.address.ip(),
        headers,
        may_use_cookies: sender.origin.may_use_cookies(headers, &Method::GET),
    };
    let Some(answer) = app.control.ask(caller, &question, browser).await else { return Ok(None) };
    if matches!(answer, Err(Answer::Unauthenticated))
        && let Some(rates) = app.control.rates()
    {
        rates.failed(sender.address, Instant::now());
    }
    answer.map(Some).map_err(refused_by_app)
}

fn refused_by_app(answer: Answer) -> Refused {
    let (status, code, detail) = match answer {
        Answer::Unauthenticated => {
            let detail = "The app does not know the user of this request: log in first.";
            (StatusCode::UNAUTHORIZED, "app_unauthenticated", detail)
        }
        Answer::Forbidden => {
            let detail = "The app does not allow this subscription.";
            (StatusCode::FORBIDDEN, "app_denied", detail)
        }
        Answer::Unavailable => {
            let detail = "The app does not answer at the moment. Try again in a few seconds.";
            (StatusCode::SERVICE_UNAVAILABLE, "app_unavailable", detail)
        }
    };
    let refused = Refused::new(status, detail).code(code);
    if status == StatusCode::UNAUTHORIZED { refused.challenge("Bearer") } else { refused }
}

/// Answers with a stream that ends when the rights of the caller end.
fn respond<F>(
    app: &App,
    caller: &Caller,
    frames: SubscriptionFrames<String, F>,
) -> Result<Response, Refused>
where
    F: ToFrame<String> + Send + Unpin + 'static,
{
    // A development server and an admin socket give every right without a credential. Such rights
    // never end, so this stream needs no check of its rights.
    if app.role.gives_all_rights() && caller.verified().proof() == Proof::Trusted {
        return Ok(configured(app, Sse::new(frames)));
    }
    Ok(configured(app, caller.stream(&app.hub, frames)?))
}

fn configured<S: FrameSource + Send + 'static>(app: &App, sse: Sse<S>) -> Response {
    let settings = &app.settings;
    let sse = sse.keep_alive(KeepAlive::new().interval(settings.keep_alive));
    let sse = settings.max_age.into_iter().fold(sse, Sse::max_age);
    let mut response = sse.into_response();
    response.extensions_mut().insert(Logged::Stream);
    response
}

/// The topics, patterns and client that the query names.
fn asked(parameters: &Query) -> Result<Selection, Refused> {
    let refused = |kind: SubscribeErrorKind| bad_request(sentence(&kind));
    let mut asked = Selection::default();
    for topic in parameters.all("topic") {
        let selector = TopicSelector::parse(topic).map_err(|reason| {
            refused(SubscribeErrorKind::InvalidSelector { selector: topic.to_owned(), reason })
        });
        asked.selectors.push(selector?);
    }
    if let Some(client) = parameters.one("client")? {
        let client = ClientId::new(client).map_err(|reason| {
            refused(SubscribeErrorKind::InvalidClient { client: client.to_owned(), reason })
        });
        asked.client = Some(client?);
    }
    Ok(asked)
}

/// The subscription that the query describes. The second value is the event id of the parameter
/// `start=after:<event id>`, if the query has it.
fn request<'a>(
    app: &App,
    parameters: &'a Query,
    asked: Selection,
) -> Result<(Subscribe<String>, Option<&'a str>), Refused> {
    let mut subscribe = app.hub.subscribe().selection(asked);
    let mut after = None;
    if let Some(start) = parameters.one("start")? {
        match start.strip_prefix("after:") {
            Some(id) if !id.is_empty() => after = Some(id),
            _ => subscribe = subscribe.start(parse_start(start)?),
        }
    }
    if let Some(open) = parameters.flag("open")? {
        subscribe = subscribe.open_event(open);
    }
    Ok((subscribe.announce_alive(parameters.flag("alive")?.unwrap_or(false)), after))
}

fn parse_start(start: &str) -> Result<Start, Refused> {
    let invalid_start = || {
        bad_request(format!(
            "The parameter start must be live, earliest, last:<number up to {LAST_MAX}>, \
             since:<RFC 3339 time> or after:<event id>, not {}.",
            shown(start)
        ))
    };
    match start.split_once(':') {
        None if start == "live" => Ok(Start::Live),
        None if start == "earliest" => Ok(Start::Earliest),
        Some(("last", count)) => {
            let count = count.parse().ok().filter(|count| *count <= LAST_MAX);
            count.map(Start::Last).ok_or_else(invalid_start)
        }
        Some(("since", time)) => {
            let time: jiff::Timestamp = time.parse().map_err(|_| invalid_start())?;
            Ok(Start::Since(SystemTime::from(time).into()))
        }
        _ => Err(invalid_start()),
    }
}

/// The maximum number of events that a client may ask for with `start=last:`. The server walks back
/// over all these events in memory before it sends the first event. For a larger number, the walk
/// would take too long.
const LAST_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use downlink::hub::Timestamp;

    use super::*;

    #[test]
    fn every_form_of_start_is_parsed() {
        let is = |text, start| assert_eq!(parse_start(text).unwrap(), start);
        is("live", Start::Live);
        is("earliest", Start::Earliest);
        is("last:50", Start::Last(50));
        let since = Start::Since(Timestamp::from_millis(1_000));
        is("since:1970-01-01T00:00:01Z", since);
        is("since:1970-01-01T01:00:01+01:00", since);
    }

    #[test]
    fn invalid_starts_are_refused() {
        for start in ["", "Live", "last", "last:", "last:-1", "since:now", "after:", "last:100001"]
        {
            assert!(parse_start(start).is_err(), "{start}");
        }
    }
}
