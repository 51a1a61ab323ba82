//! `POST /events`: publishes the body of a request, as one event or as a stream of events.

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use downlink::{access::Caller, hub::Confirmed};
use serde_json::json;

use super::{
    body, content,
    envelope::{Envelope, publisher},
    foreign::Foreign,
    forward::Forwarded,
    guard::Sender,
    query::Query,
    reply::{self, Refused, bad_request, not_published},
    state::App,
    streaming::{self, Stream},
};
use crate::logs::Logged;

const PARAMETERS: &[&str] = &[
    "topic",
    "client",
    "everyone",
    "event",
    "id",
    "retry",
    "last",
    "finish_on_end",
    "ids",
    "types",
];

/// Parameters that apply only to a stream. With a single event, they are an error.
const OF_A_STREAM: [&str; 3] = ["finish_on_end", "ids", "types"];

/// Parameters that apply only to a single event. With a stream, they are an error.
const OF_ONE_EVENT: [&str; 4] = ["event", "id", "retry", "last"];

pub(super) async fn publish(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(sender): Extension<Sender>,
    RawQuery(raw_query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let query = Query::read(raw_query.as_deref(), PARAMETERS)?;
    content::check(&headers)?;
    let publisher = publisher(&caller, &headers)?;
    let envelope = Envelope::of_query(&query)?.of_publisher(&publisher);
    let addresses = envelope.addresses()?;
    caller.check_publish(&addresses)?;
    let key = idempotency_key(&headers)?;
    if let Some(format) = content::stream_format(&headers) {
        check_stream(&query, key)?;
        let foreign = Foreign::of_query(&query, format)?;
        let finish = query.flag("finish_on_end")?.unwrap_or(false);
        let address = sender.address;
        let stream = Stream { caller, address, envelope, addresses, format, foreign, finish, body };
        return streaming::publish(&app, stream).await;
    }
    if let Some(name) = OF_A_STREAM.iter().find(|name| query.is_given(name)) {
        return Err(bad_request(format!(
            "The parameter {name} is for a stream: send the body as text/event-stream or \
             application/x-ndjson, or use last=true for one event.",
        )));
    }
    let mut publish = envelope.publish(&app.hub, &addresses);
    if let Some(key) = key {
        publish = publish.idempotency_key(&envelope.publisher, key);
    }
    app.control.check_publishes(&caller, sender.address)?;
    let settings = &app.settings;
    let data = body::text(body, settings.event_bytes_max, settings.body_timeout).await?;
    content::check_no_form(&headers, &data)?;
    // The rights may have ended while the body arrived.
    caller.check_publish(&addresses)?;
    app.control.count_publishes(&caller, sender.address, 1)?;
    if let Some(forwarder) = &app.forwarder {
        let forwarded = Forwarded::new("/events", raw_query.as_deref(), &headers, &publisher);
        return forwarder.send(&app.hub, forwarded, data).await;
    }
    let receipt = publish.publish(data).map_err(|error| not_published(&error))?;
    let (status, confirmed) = reply::confirmed(settings, &receipt).await?;
    app.counters.note_confirmed(&confirmed);
    Ok((status, Extension(Logged::Published(1)), answer(&confirmed)).into_response())
}

fn check_stream(query: &Query, key: Option<&str>) -> Result<(), Refused> {
    if let Some(name) = OF_ONE_EVENT.iter().find(|name| query.is_given(name)) {
        return Err(bad_request(format!(
            "The parameter {name} is for one event, but the body is a stream: remove it."
        )));
    }
    if key.is_some() {
        return Err(bad_request(
            "Idempotency-Key is for one event, but the body is a stream: remove the header.",
        ));
    }
    Ok(())
}

/// The key that the publisher has given to its request.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let key = key.to_str().ok().filter(|_| more.is_none());
    key.map(Some).ok_or_else(|| bad_request("Send only one Idempotency-Key, in visible ASCII."))
}

/// The answer to the publish of one event, or to a finish.
pub(super) fn answer(confirmed: &Confirmed) -> Response {
    let mut answer = json!({ "id": confirmed.id().as_str(), "subscribers": confirmed.matched() });
    if confirmed.is_repeated() {
        answer["repeated"] = true.into();
    }
    reply::json(&answer)
}
