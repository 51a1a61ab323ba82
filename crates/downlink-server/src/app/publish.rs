//! `POST /events`: from a request to an event.

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::Response,
};
use downlink::hub::{Publish, Receipt};
use serde_json::json;

use super::{
    App, body,
    query::Query,
    reply::{self, Refused, bad_request},
    streaming::{self, Format},
};

const PARAMETERS: &[&str] = &[
    "topic",
    "client",
    "everyone",
    "event",
    "id",
    "retry",
    "last",
    "finish_on_end",
];

/// Parameters that say something of one event, and nothing of a stream of them.
const OF_ONE_EVENT: [&str; 4] = ["event", "id", "retry", "last"];

pub(super) async fn publish(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let query = Query::read(query.as_deref(), PARAMETERS)?;
    let to = address(&app, &query)?;
    let key = idempotency_key(&headers)?;
    if let Some(format) = format(&headers) {
        let wrong = OF_ONE_EVENT.iter().find(|name| query.all(name).next().is_some());
        if let Some(name) = wrong {
            return Err(bad_request(format!("{name} is for one event, and the body is a stream.")));
        }
        if key.is_some() {
            return Err(bad_request("Idempotency-Key is for one event; the body is a stream."));
        }
        let finish = query.flag("finish_on_end")?.unwrap_or(false);
        return streaming::publish(&app, &query, format, finish, body).await;
    }
    if query.all("finish_on_end").next().is_some() {
        return Err(bad_request(
            "finish_on_end is for a stream: send it as text/event-stream or \
             application/x-ndjson, or use last=true for one event.",
        ));
    }
    let mut publish = describe(to, &query)?;
    if let Some(key) = key {
        publish = publish.idempotency_key("", key);
    }
    let pause_max = app.settings.body_timeout;
    let data = body::text(body, app.settings.event_bytes_max, pause_max).await?;
    let receipt = publish.publish(data).map_err(|error| error.to_problem())?;
    Ok(answer(&receipt))
}

/// Whom the event is for.
pub(super) fn address(app: &App, query: &Query) -> Result<Publish<String>, Refused> {
    let (topics, clients) = (query.all("topic"), query.all("client"));
    let everyone = query.flag("everyone")?.unwrap_or(false);
    let mut to: Option<Publish<String>> = everyone.then(|| app.hub.to_everyone());
    for topic in topics {
        to = Some(match to {
            Some(to) => to.and_to(topic),
            None => app.hub.to(topic),
        });
    }
    for client in clients {
        to = Some(match to {
            Some(to) => to.and_to_client(client),
            None => app.hub.to_client(client),
        });
    }
    to.ok_or_else(|| {
        bad_request("Say whom it is for: add ?topic=NAME, ?client=ID or ?everyone to the address.")
    })
}

fn describe(mut publish: Publish<String>, query: &Query) -> Result<Publish<String>, Refused> {
    if let Some(event_type) = query.one("event")? {
        publish = publish.event(event_type);
    }
    if let Some(id) = query.one("id")? {
        publish = publish.id(id);
    }
    if let Some(millis) = query.number("retry")? {
        publish = publish.retry(std::time::Duration::from_millis(millis));
    }
    if query.flag("last")?.unwrap_or(false) {
        publish = publish.last();
    }
    Ok(publish)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    key.to_str().map(Some).map_err(|_| bad_request("Idempotency-Key has to be visible ASCII."))
}

fn format(headers: &HeaderMap) -> Option<Format> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "text/event-stream" => Some(Format::EventStream),
        "application/x-ndjson" => Some(Format::Lines),
        _ => None,
    }
}

fn answer(receipt: &Receipt) -> Response {
    reply::json(&json!({ "id": receipt.id().as_str(), "subscribers": receipt.matched() }))
}
