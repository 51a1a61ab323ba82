//! Encodes any content of the fields. A frame between two other events has to decode as exactly one
//! event, and must not change the other two events. The target checks encoded frames and stamped
//! frames, which are frames that get their offset after they are encoded. A comment has to decode
//! as no event.

#![no_main]

use arbitrary::Arbitrary;
use downlink_proto::{Event, EventId, EventType, Frame};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/downlink-proto/tests/it/naive.rs"]
mod naive;

use naive::{Seen, read_whole};

#[derive(Arbitrary, Debug)]
struct Contents {
    data: String,
    id: String,
    event_type: String,
    retry: u64,
    offset: u64,
}

fuzz_target!(|contents: Contents| {
    let Contents { data, id, event_type, retry, offset } = contents;
    let mut event = Event::new(data.as_str()).retry(downlink_proto::Retry::from_millis(retry));
    match EventType::new(&event_type) {
        Ok(checked) => event = event.event(checked),
        Err(_) => assert!(event_type.contains(['\r', '\n']) || event_type.len() > 128),
    }
    match EventId::new(&id) {
        Ok(checked) => {
            let unstamped = event.encode_unstamped(&checked);
            let len_max = unstamped.len_max();
            let stamped = unstamped.stamp(offset);
            assert!(stamped.len() <= len_max);
            check(&stamped, 1, Some(&format!("{id}{offset}")));
            event = event.id(checked);
            check(&event.encode(), 1, Some(&id));
        }
        Err(_) => {
            let trimmed = id.trim_matches([' ', '\t']);
            assert!(id.contains(['\r', '\n', '\0']) || trimmed != id || id.len() > 1_024);
            check(&event.encode(), 1, None);
        }
    }
    check(&Frame::comment(&data), 0, None);
});

/// Checks that the frame, between two other events, decodes as this many events, that the other two
/// events are unchanged, and that the last event id is `id`.
fn check(frame: &Frame, events: usize, id: Option<&str>) {
    let stream = [b"data: before\n\n", frame.as_bytes(), b"data: after\n\n"].concat();
    assert!(str::from_utf8(&stream).is_ok());
    let reading = read_whole(&stream, "");
    let found: Vec<_> = reading
        .seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Event { data, .. } => Some(data.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), events + 2);
    assert_eq!(found.first(), Some(&"before"));
    assert_eq!(found.last(), Some(&"after"));
    assert_eq!(reading.last_event_id, id.unwrap_or_default());
}
