//! Properties that hold for any input. The name of each test has the letter of its property:
//!
//! - a: The decoder reads the events that the encoder wrote.
//! - b: The items and the errors do not depend on the chunks.
//! - c: The memory of the decoder is bounded.
//! - d: A reader gets exactly one event from the frame of an event with data.
//! - e: The decoder agrees with the naive reader.

use downlink_proto::{Decoder, DecoderLimits, Event, EventId, EventType, Frame, Retry};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    allocation::allocations_of,
    naive::{Seen, read_whole},
    reader::read_with,
};

/// Random text with many pieces that have a meaning in an event stream.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => select(vec![
            "\n", "\r", "\r\n", ":", " ", "\t", "\0", "data", "data: x", "id: 9", "event", "retry",
            "\n\n", "\u{FEFF}", "\u{2028}", "\u{85}", "é", "🦀",
        ])
        .prop_map(str::to_owned),
        2 => any::<String>(),
        2 => "[a-z0-9]{0,6}",
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Random bytes with many pieces of event streams, some of them damaged.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => select(vec![
            &b"data"[..], b"data:", b"data: ", b"event: t", b"id", b"id: ", b"id: 1", b"id: \0",
            b"retry: 12", b"retry:", b":", b": c", b" ", b"\n", b"\n", b"\n", b"\r", b"\r", b"\r\n",
            b"\n\n", b"\r\n\r\n", b"\xEF\xBB\xBF", b"\xEF", b"\xBB", b"\xC3\xA9", b"\xC3", b"\xFF",
            b"\xF0\x9F\xA6\x80", b"\xF0\x9F", b"\0", b"x", b"9",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn event() -> impl Strategy<Value = Event> {
    let id = option::of(text().prop_filter_map("not an id", |text| EventId::new(&text).ok()));
    let event_type =
        option::of(text().prop_filter_map("not a type", |text| EventType::new(&text).ok()));
    let retry = option::of(any::<u64>().prop_map(Retry::from_millis));
    (option::of(text()), id, event_type, retry).prop_map(|(data, id, event_type, retry)| {
        let mut event = Event::default();
        if let Some(data) = data {
            event = event.data(data);
        }
        if let Some(id) = id {
            event = event.id(id);
        }
        if let Some(event_type) = event_type {
            event = event.event(event_type);
        }
        if let Some(retry) = retry {
            event = event.retry(retry);
        }
        event
    })
}

/// Cuts the stream at these positions. Each position is taken modulo the length of the stream plus
/// 1, so it is always inside the stream.
fn cut<'a>(stream: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (stream.len() + 1)).collect();
    places.sort_unstable();
    let mut chunks = Vec::new();
    let mut start = 0;
    for place in places {
        chunks.push(&stream[start..place]);
        start = place;
    }
    chunks.push(&stream[start..]);
    chunks
}

fn normalised(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// The items that a reader must find in the frame of this event.
fn seen_of(event: &Event) -> Vec<Seen> {
    let fields = event.fields();
    let retry = fields.retry.map(|retry| Seen::Retry(retry.as_millis()));
    let data = fields.data.map(|data| Seen::Event {
        event_type: fields.event_type.map_or("message", EventType::as_str).to_owned(),
        data: normalised(data),
        last_event_id: fields.id.map_or("", EventId::as_str).to_owned(),
        has_own_id: fields.id.is_some(),
    });
    retry.into_iter().chain(data).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn property_a_an_encoded_event_is_decoded(event in event(), places in vec(any::<usize>(), 0..4)) {
        let frame = event.encode();
        prop_assert_eq!(frame.len(), event.encoded_len());
        prop_assert_eq!(frame.data(), normalised(event.fields().data.unwrap_or_default()));
        let chunks = cut(frame.as_bytes(), &places);
        let (reading, error) = read_with(&mut Decoder::default(), chunks);
        prop_assert_eq!(error, None);
        prop_assert_eq!(reading.seen, seen_of(&event));
        prop_assert_eq!(reading.last_event_id, event.fields().id.map_or("", EventId::as_str));
    }

    #[test]
    fn property_a_a_stamped_event_equals_the_encoded_event(event in event(), offset in any::<u64>()) {
        let stamped = event.encode_unstamped(&EventId::from_static("k3j9x0qa-")).stamp(offset);
        let id = EventId::new(&format!("k3j9x0qa-{offset}")).unwrap();
        prop_assert_eq!(stamped, event.id(id).encode());
    }

    #[test]
    fn property_b_the_items_do_not_depend_on_the_chunks(stream in stream(), places in vec(any::<usize>(), 0..12)) {
        let whole = read_with(&mut Decoder::default(), [&*stream]);
        let cut = read_with(&mut Decoder::default(), cut(&stream, &places));
        prop_assert_eq!(cut, whole);
    }

    #[test]
    fn property_b_errors_do_not_depend_on_the_chunks(
        stream in stream(),
        places in vec(any::<usize>(), 0..12),
        line_bytes_max in 0_usize..20,
        event_bytes_max in 0_usize..20,
    ) {
        let limits = DecoderLimits::default()
            .line_bytes_max(line_bytes_max)
            .event_bytes_max(event_bytes_max);
        let whole = read_with(&mut Decoder::new(limits), [&*stream]);
        let cut = read_with(&mut Decoder::new(limits), cut(&stream, &places));
        prop_assert_eq!(&cut, &whole);
        let unlimited = read_whole(&stream, "").seen;
        prop_assert!(unlimited.starts_with(&whole.0.seen));
        prop_assert!(whole.1.is_some() || unlimited == whole.0.seen);
    }

    #[test]
    fn property_c_the_memory_is_bounded_for_any_bytes(
        stream in vec(prop_oneof![stream(), vec(any::<u8>(), 0..64)], 0..20),
        chunk_len in 1_usize..300,
    ) {
        let stream = stream.concat();
        let limits = DecoderLimits::default().line_bytes_max(64).event_bytes_max(128);
        let (_, used) = allocations_of(|| {
            let mut decoder = Decoder::new(limits);
            for chunk in stream.chunks(chunk_len) {
                let result = decoder.handle_bytes(chunk);
                while decoder.poll_item().is_some() {}
                if result.is_err() {
                    decoder.handle_end();
                }
            }
        });
        // A buffer that grows takes up to three times its limit. The memory for waiting items is
        // proportional to the length of the chunk.
        let bound = 3 * (64 + 128) + 3 * 64 + 150 * chunk_len + 1_024;
        prop_assert!(used.peak <= isize::try_from(bound).unwrap(), "the peak is {} bytes", used.peak);
    }

    #[test]
    fn property_d_an_event_with_any_content_is_read_as_one_event(data in text(), id in text(), event_type in text()) {
        let mut event = Event::new(data.as_str());
        if let Ok(id) = EventId::new(&id) {
            event = event.id(id);
        }
        if let Ok(event_type) = EventType::new(&event_type) {
            event = event.event(event_type);
        }
        let comment = Frame::comment(&id);
        let parts = [comment.as_bytes(), event.encode().into_bytes().as_ref(), b"data: next\n\n"].concat();
        let mut events = read_whole(&parts, "").seen;
        events.retain(|seen| matches!(seen, Seen::Event { .. }));
        prop_assert_eq!(events.len(), 2);
        prop_assert_eq!(&events[..1], &seen_of(&event)[..]);
    }

    #[test]
    fn property_e_the_decoder_agrees_with_the_naive_reader(
        stream in stream(),
        places in vec(any::<usize>(), 0..6),
        id in "[a-z]{0,3}",
    ) {
        let mut decoder = Decoder::default().with_last_event_id(id.as_str());
        let (reading, error) = read_with(&mut decoder, cut(&stream, &places));
        prop_assert_eq!(error, None);
        prop_assert_eq!(reading, read_whole(&stream, &id));
    }
}
