//! `POST /events/batch`: publishes one event per line of JSON. Either all events are published, or
//! none.

use std::fmt;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use downlink::{
    access::Caller,
    hub::{self, BATCH_EVENTS_MAX, Batch, BatchError},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{json, value::RawValue};

use super::{
    body, content,
    envelope::{Envelope, PUBLISHER, publisher},
    forward::Forwarded,
    guard::Sender,
    query::Query,
    reply::{self, Refused, bad_request, not_published, sentence, shown},
    state::App,
};
use crate::logs::Logged;

/// The maximum number of topics and clients that all events of a batch name together. In a batch
/// with the maximum number of events, each event can name ten topics and clients. Each name takes
/// memory. The more names a batch has, the longer it locks the hub, which is the log of events.
/// Without this limit, a batch could have millions of names.
const ADDRESSES_MAX: usize = 100_000;

/// After this many lines, the task lets other requests of the same thread run.
const LINES_AT_ONCE: usize = 64;

pub(super) async fn publish(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(sender): Extension<Sender>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    let publisher = publisher(&caller, &headers)?;
    let key = relays_key(&headers)?;
    content::check(&headers)?;
    // The server reads the body only for a client that has a credential and has not reached its
    // limit of publishes. Other clients must not make it read a large body.
    caller.check_credential()?;
    app.control.check_publishes(&caller, sender.address)?;
    let settings = &app.settings;
    let text = body::text(body, settings.batch_bytes_max, settings.body_timeout).await?;
    let mut batch = Batch::new(&app.hub);
    // The line number of each event, for the error messages. Blank lines count too, so the line
    // number may be higher than the number of the event.
    let mut lines = Vec::new();
    let mut addresses = 0;
    for (at, line) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(&text).lines()) {
        if at % LINES_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        if line.trim().is_empty() {
            continue;
        }
        if batch.len() == BATCH_EVENTS_MAX {
            return Err(too_many(BATCH_EVENTS_MAX, "events"));
        }
        let (envelope, data) = parse(line).map_err(|refused| in_line(at, refused))?;
        addresses += envelope.topics.len() + envelope.clients.len();
        if addresses > ADDRESSES_MAX {
            return Err(too_many(ADDRESSES_MAX, "topics and clients"));
        }
        let envelope = envelope.of_publisher(&publisher);
        let to = envelope.addresses().map_err(|refused| in_line(at, refused))?;
        let allowed = caller.check_publish(&to);
        allowed.map_err(|error| in_line(at, error.into()))?;
        let mut publish = envelope.publish(&app.hub, &to);
        if let Some(key) = key {
            publish = publish.idempotency_key(&publisher, &format!("{key}/{}", lines.len()));
        }
        batch.add(publish, data);
        lines.push(at);
    }
    check_not_empty(&batch)?;
    app.control.count_publishes(&caller, sender.address, batch.len())?;
    if let Some(forwarder) = &app.forwarder {
        let forwarded = Forwarded::new("/events/batch", None, &headers, &publisher);
        return forwarder.send(&app.hub, forwarded, text).await;
    }
    let refused = |error| match error {
        BatchError::Event { index, error } => {
            in_line(lines.get(index).copied().unwrap_or_default(), not_published(&error))
        }
        _ => too_many(BATCH_EVENTS_MAX, "events"),
    };
    let receipts = batch.publish().map_err(refused)?;
    let confirmed = BatchError::durable(&receipts).await.map_err(refused)?;
    confirmed.iter().for_each(|confirmed| app.counters.note_confirmed(confirmed));
    let ids: Vec<&str> = confirmed.iter().map(|confirmed| confirmed.id().as_str()).collect();
    let status = reply::published_status(settings);
    let logged = Extension(Logged::Published(ids.len() as u64));
    Ok((status, logged, reply::json(&json!({ "ids": ids }))).into_response())
}

/// The idempotency key of a batch. Only a relay gives one, because it sends a batch again if the
/// answer was lost. Each event of the batch gets a key that is made from this one.
fn relays_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|_| headers.contains_key(PUBLISHER));
    key.map(Some).ok_or_else(|| {
        bad_request(
            "Idempotency-Key is for one event, but the body is a batch: remove the header, and give \
             each event an id.",
        )
    })
}

fn check_not_empty(batch: &Batch<String>) -> Result<(), Refused> {
    match batch.is_empty() {
        true => Err(bad_request("The batch is empty: send one JSON object per line.")),
        false => Ok(()),
    }
}

fn too_many(max: usize, of: &str) -> Refused {
    Refused::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The batch has more than {max} {of}. Send several batches."),
    )
}

fn in_line(at: usize, refused: Refused) -> Refused {
    refused.map_detail(|why| format!("Line {at}: {why} Nothing of the batch was published."))
}

/// One line of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: Option<String>,
    #[serde(default)]
    topics: Names,
    client: Option<String>,
    #[serde(default)]
    clients: Names,
    #[serde(default)]
    everyone: bool,
    event: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    #[serde(default)]
    last: bool,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A list of topics or clients in one line. The list stores at most one name more than an event may
/// have. This extra name is enough to refuse the event. Further names are skipped, because a line
/// may have millions of names, and a stored name takes more memory than its text.
#[derive(Debug, Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while self.0.len() <= hub::ADDRESSES_MAX
            && let Some(name) = list.next_element()?
        {
            self.0.push(name);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self)
    }
}

fn parse(line: &str) -> Result<(Envelope, String), Refused> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| not_an_event(&error))?;
    let data = data_of(line.data)?;
    let envelope = Envelope {
        topics: line.topic.into_iter().chain(line.topics.0).collect(),
        clients: line.client.into_iter().chain(line.clients.0).collect(),
        everyone: line.everyone,
        event_type: line.event,
        id: line.id,
        retry_ms: line.retry,
        last: line.last,
        publisher: String::new(),
    };
    Ok((envelope, data))
}

/// The refusal for a line that is not an event. The JSON parser sees only this line, so its message
/// always says "line 1". This function removes these words. It also shortens the message, which may
/// quote the whole line.
fn not_an_event(error: &serde_json::Error) -> Refused {
    /// The maximum length of the message. A message that lists all field names is shorter.
    const MESSAGE_CHARS_MAX: usize = 200;
    let sentence = sentence(error);
    let message = sentence.rsplit_once(" at line ").map_or(&*sentence, |(message, _)| message);
    let message: String = match message.split_once('`') {
        // The first quoted name comes from the client, so it is escaped.
        Some((before, after)) => {
            let (name, after) = after.rsplit_once("`, expected").unwrap_or((after, ""));
            let name = shown(name.trim_end_matches('`'));
            let expected = if after.is_empty() { "" } else { ", expected" };
            format!("{before}{name}{expected}{after}")
        }
        None => message.to_owned(),
    };
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    bad_request(format!("{message} (column {}).", error.column()))
}

/// The data of an event with this JSON value. If the value is a string, the data is the text of the
/// string. For any other value, the data is the JSON text without white space between its tokens.
fn data_of(value: &RawValue) -> Result<String, Refused> {
    let json = value.get();
    if json.starts_with('"') {
        return serde_json::from_str(json).map_err(|error| not_an_event(&error));
    }
    Ok(compact(json))
}

/// Removes the white space between the tokens of a JSON text. The tokens do not change, so a large
/// number keeps every digit.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_between_tokens_is_removed() {
        assert_eq!(compact("{ \"a b\" : [ 1 , 2 ] }"), "{\"a b\":[1,2]}");
        assert_eq!(compact(r#"{"a": "x \" y", "b": 1}"#), r#"{"a":"x \" y","b":1}"#);
        assert_eq!(compact(r#"["\\", 2]"#), r#"["\\",2]"#);
        assert_eq!(compact("12345678901234567890.10"), "12345678901234567890.10");
    }

    fn data(json: &str) -> String {
        data_of(serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn the_text_of_a_string_is_the_data() {
        assert_eq!(data(r#""a\nb""#), "a\nb");
        assert_eq!(data("[ 1, 2 ]"), "[1,2]");
        assert_eq!(data("null"), "null");
    }

    fn wrong(line: &str) -> String {
        format!("{:?}", parse(line).unwrap_err())
    }

    #[test]
    fn half_of_a_surrogate_pair_is_refused() {
        assert!(wrong(r#"{"topic":"a","data":"\ud800"}"#).contains("400"));
        assert_eq!(data(r#""\ud83d\ude00""#), "\u{1f600}");
    }

    #[test]
    fn a_quote_of_a_line_in_an_error_is_short_and_escaped() {
        let long = wrong(&format!("{{\"{}\u{7f}\":1}}", "n".repeat(1 << 20)));
        assert!(long.len() < 500, "{} bytes", long.len());
        assert!(long.contains("Unknown field") && long.contains("`topics`"), "{long}");
        assert!(wrong(r#"{"topic":"a"}"#).contains("Missing field \\\"data\\\" (column 13)."));
        assert!(wrong(r#"{"topic":7,"data":1}"#).contains("expected a string"));
    }
}
