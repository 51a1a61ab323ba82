//! `GET /events`: subscribes as the query says, and answers with a stream of events.

use std::time::SystemTime;

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use downlink::{
    KeepAlive, LastEventId, Sse,
    http::FrameSource,
    hub::{Start, Subscribe},
};

use super::{
    described::described,
    query::Query,
    reply::{Refused, bad_request, shown},
    state::App,
};

const PARAMETERS: &[&str] =
    &["topic", "client", "start", "last_event_id", "open", "alive", "meta", "refuse_with_status"];

pub(super) async fn subscribe(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let parameters = Query::read(query.as_deref(), PARAMETERS)?;
    let last = LastEventId::from_request(&headers, query.as_deref());
    // The library `downlink` reads this parameter from the same query. This call only checks that
    // the value is valid.
    parameters.flag("refuse_with_status")?;
    let meta = parameters.flag("meta")?.unwrap_or(false);
    let (subscribe, after) = request(&app, &parameters)?;
    let last = after.into_iter().fold(last, LastEventId::or);
    Ok(match subscribe.resume(last).open().await {
        Ok(subscription) if meta => respond(&app, subscription.into_sse_with(described)),
        Ok(subscription) => respond(&app, subscription.into_sse()),
        Err(error) => error.into_response(),
    })
}

fn respond<S: FrameSource + Send + 'static>(app: &App, mut sse: Sse<S>) -> Response {
    let settings = &app.settings;
    sse = sse.keep_alive(KeepAlive::new().interval(settings.keep_alive));
    if let Some(max_age) = settings.max_age {
        sse = sse.max_age(max_age);
    }
    sse.into_response()
}

/// The subscription that the query describes, and the id of `start=after:`.
fn request<'a>(
    app: &App,
    parameters: &'a Query,
) -> Result<(Subscribe<String>, Option<&'a str>), Refused> {
    let mut subscribe = app.hub.subscribe();
    for topic in parameters.all("topic") {
        subscribe = subscribe.pattern(topic);
    }
    if let Some(client) = parameters.one("client")? {
        subscribe = subscribe.client(client);
    }
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
