//! Encodes any valid event after any comment. The decoder has to return the same comment and the
//! same event. Only the line breaks in the data may differ.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use downlink_proto::{Decoder, Event, EventId, EventType, Frame};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/downlink-proto/tests/it/naive.rs"]
mod naive;
#[path = "../../crates/downlink-proto/tests/it/reader.rs"]
mod reader;

use naive::{Reading, Seen};

#[derive(Arbitrary, Debug)]
struct Parts {
    data: Option<String>,
    id: Option<String>,
    event_type: Option<String>,
    retry: Option<Duration>,
    comment: Option<String>,
}

fuzz_target!(|parts: Parts| {
    let event = build(&parts);
    let mut stream = parts
        .comment
        .as_deref()
        .map_or(Vec::new(), |text| Frame::comment(text).as_bytes().to_vec());
    let comment_len = stream.len();
    event.encode_into(&mut stream);
    assert_eq!(stream.len() - comment_len, event.encoded_len());
    assert_eq!(stream[comment_len..], *event.encode().as_bytes());

    let (reading, error) = reader::read_with(&mut Decoder::default(), [&*stream]);
    assert_eq!(error, None);
    assert_eq!(reading, expected(&parts, &event));
    assert_eq!(reading, naive::read_whole(&stream, ""));
});

/// Makes an event from the valid parts.
fn build(parts: &Parts) -> Event {
    let mut event = Event::default();
    if let Some(data) = &parts.data {
        event = event.data(data.as_str());
    }
    if let Some(Ok(id)) = parts.id.as_deref().map(EventId::new) {
        event = event.id(id);
    }
    if let Some(Ok(event_type)) = parts.event_type.as_deref().map(EventType::new) {
        event = event.event(event_type);
    }
    if let Some(retry) = parts.retry {
        event = event.retry(retry);
    }
    event
}

fn expected(parts: &Parts, event: &Event) -> Reading {
    let normalise = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    let fields = event.fields();
    let id = fields.id.map_or("", EventId::as_str);
    let mut seen = Vec::new();
    if let Some(text) = &parts.comment {
        let text = normalise(text);
        seen.extend(text.split('\n').map(|line| Seen::Comment(format!(" {line}"))));
    }
    let reconnection_time = parts
        .retry
        .map(|retry| u64::try_from(retry.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
    seen.extend(reconnection_time.map(Seen::Retry));
    if let Some(data) = fields.data {
        seen.push(Seen::Event {
            event_type: fields.event_type.map_or("message", EventType::as_str).to_owned(),
            data: normalise(data),
            last_event_id: id.to_owned(),
            has_own_id: fields.id.is_some(),
        });
    }
    Reading { seen, last_event_id: id.to_owned(), reconnection_time }
}
