//! `GET /events`: from a query to a stream.

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use downlink::{
    KeepAlive, LastEventId, Sse,
    http::FrameSource,
    hub::{Start, Subscribe, Timestamp},
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
    // The library reads it too.
    parameters.flag("refuse_with_status")?;
    let meta = parameters.flag("meta")?.unwrap_or(false);
    let subscribe = request(&app, &parameters)?.resume(last);
    Ok(match subscribe.open().await {
        Ok(subscription) if meta => respond(&app, subscription.into_sse_with(described)),
        Ok(subscription) => respond(&app, subscription.into_sse()),
        Err(error) => IntoResponse::into_response(error),
    })
}

fn respond<S: FrameSource + Send + 'static>(app: &App, mut sse: Sse<S>) -> Response {
    let settings = &app.settings;
    sse = sse.keep_alive(KeepAlive::every(settings.keep_alive));
    if let Some(max_age) = settings.max_age {
        sse = sse.max_age(max_age);
    }
    IntoResponse::into_response(sse)
}

fn request(app: &App, parameters: &Query) -> Result<Subscribe<String>, Refused> {
    let mut subscribe = app.hub.subscribe();
    for topic in parameters.all("topic") {
        subscribe = subscribe.pattern(topic);
    }
    if let Some(client) = parameters.one("client")? {
        subscribe = subscribe.client(client);
    }
    if let Some(start) = parameters.one("start")? {
        subscribe = subscribe.start(parse_start(start)?);
    }
    if let Some(open) = parameters.flag("open")? {
        subscribe = subscribe.open_event(open);
    }
    Ok(subscribe.announce_alive(parameters.flag("alive")?.unwrap_or(false)))
}

fn parse_start(start: &str) -> Result<Start, Refused> {
    let invalid_start = || {
        bad_request(format!(
            "The parameter start is live, earliest, last:<number up to {LAST_MAX}>, since:<RFC 3339 \
             time> or after:<event id>, not {}.",
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
            let millis = u64::try_from(time.as_millisecond()).unwrap_or(0);
            Ok(Start::Since(Timestamp::from_millis(millis)))
        }
        Some(("after", id)) if !id.is_empty() => Ok(Start::After(id.into())),
        _ => Err(invalid_start()),
    }
}

/// The most events that `start=last:` goes back. The start is searched for in memory.
const LAST_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_read() {
        assert_eq!(parse_start("live").unwrap(), Start::Live);
        assert_eq!(parse_start("earliest").unwrap(), Start::Earliest);
        assert_eq!(parse_start("last:50").unwrap(), Start::Last(50));
        assert_eq!(parse_start("after:evt-7").unwrap(), Start::After("evt-7".into()));
        let since = Start::Since(Timestamp::from_millis(1_000));
        assert_eq!(parse_start("since:1970-01-01T00:00:01Z").unwrap(), since);
        assert_eq!(parse_start("since:1970-01-01T01:00:01+01:00").unwrap(), since);
    }

    #[test]
    fn other_starts_are_refused() {
        for start in ["", "Live", "last", "last:", "last:-1", "since:now", "after:", "last:100001"]
        {
            assert!(parse_start(start).is_err(), "{start}");
        }
    }
}
