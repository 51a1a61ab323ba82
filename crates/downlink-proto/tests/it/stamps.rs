//! Tests of stamped frames. The id of such a frame ends with an offset, which is the number of the
//! event in its log. The frame is first encoded without the offset. Later, the offset is written
//! into the frame (stamping).

use downlink_proto::{Event, EventId, EventType, Retry};

use crate::{allocation::allocations_of, check::check, naive::Seen};

fn id(text: &str) -> EventId {
    EventId::new(text).unwrap()
}

fn full() -> Event {
    Event::new("a\nb").event(EventType::from_static("note")).retry(Retry::from_millis(5))
}

/// Checks that stamping a frame gives the same bytes as encoding the event with the complete id.
#[track_caller]
fn check_stamp(event: &Event, prefix: &str, offset: u64) {
    let unstamped = event.encode_unstamped(&id(prefix));
    let len_max = unstamped.len_max();
    let stamped = unstamped.stamp(offset);
    let encoded = event.clone().id(id(&format!("{prefix}{offset}"))).encode();
    assert_eq!(stamped, encoded, "{:?}", str::from_utf8(stamped.as_bytes()));
    let digits = offset.to_string().len();
    assert_eq!(stamped.len() + 20 - digits, len_max);
}

#[test]
fn a_stamped_frame_equals_the_encoded_event_with_the_complete_id() {
    for offset in [0, 1, 9, 10, 99, 100, 12_345_678, 999_999_999_999, u64::MAX / 2, u64::MAX] {
        check_stamp(&full(), "k3j9x0qa-", offset);
        check_stamp(&Event::new(""), "k3j9x0qa-", offset);
        check_stamp(&Event::default(), "", offset);
        check_stamp(&full(), "é", offset);
    }
}

#[test]
fn a_stamped_frame_has_the_expected_bytes() {
    let frame = full().encode_unstamped(&id("k3j9x0qa-")).stamp(17);
    assert_eq!(
        str::from_utf8(frame.as_bytes()),
        Ok("event: note\nid: k3j9x0qa-17\nretry: 5\ndata: a\ndata: b\n\n")
    );
}

#[test]
fn stamping_ignores_the_id_of_the_event() {
    let event = Event::new("a").id(id("own"));
    let frame = event.encode_unstamped(&id("p-")).stamp(3);
    assert_eq!(frame.as_bytes(), b"id: p-3\ndata: a\n\n");
}

#[test]
fn the_prefix_of_an_id_may_be_as_long_as_an_id() {
    let prefix = "p".repeat(downlink_proto::EVENT_ID_BYTES_MAX);
    let frame = Event::new("a").encode_unstamped(&id(&prefix)).stamp(u64::MAX);
    let expected = Seen::Event {
        event_type: "message".into(),
        data: "a".into(),
        last_event_id: format!("{prefix}{}", u64::MAX),
        has_own_id: true,
    };
    check(frame.as_bytes(), &[expected]);
}

#[test]
fn stamping_and_the_first_clones_do_not_allocate() {
    for event in [full(), Event::new("x".repeat(100_000)), Event::default()] {
        let unstamped = event.encode_unstamped(&id("k3j9x0qa-"));
        let (clones, used) = allocations_of(|| {
            let frame = unstamped.stamp(123_456);
            [frame.clone(), frame.clone(), frame]
        });
        assert_eq!(used.count, 0);
        assert_eq!(clones[0], clones[2]);
    }
}

#[test]
fn encoding_allocates_once_with_the_exact_size() {
    let event = full().id(id("7"));
    let (frame, used) = allocations_of(|| event.encode());
    assert_eq!((used.count, used.bytes), (1, frame.len()));

    // An unstamped frame also allocates its reference count, so that stamping allocates nothing.
    let prefix = id("k3j9x0qa-");
    let (unstamped, used) = allocations_of(|| event.encode_unstamped(&prefix));
    assert_eq!(used.count, 2);
    assert!(used.bytes <= unstamped.len_max() + 64, "encoding allocates {} bytes", used.bytes);
}
