//! Hazards e03 to e20: values that a reader would misread if the encoder wrote them without care.
//! `main.rs` explains these numbers. Hazards e01, e02 and e21 to e23 are about the checks of ids
//! and types, which come before the encoder. The module `fields` tests these checks.
//!
//! e24 and e25 are about HTTP, which this crate does not use, so they have no test in this crate.

use std::time::Duration;

use downlink_proto::{Event, EventId, EventType, Frame, Retry};

use crate::{
    check::{check, comment, event, message, retry},
    naive::Seen,
};

fn id(text: &str) -> EventId {
    EventId::new(text).unwrap()
}

fn event_type(text: &str) -> EventType {
    EventType::new(text).unwrap()
}

/// Checks the bytes of a frame, and the items that a reader finds in them.
#[track_caller]
fn check_frame(frame: impl Into<Frame>, bytes: &str, expected: &[Seen]) {
    let frame = frame.into();
    assert_eq!(
        frame.as_bytes().escape_ascii().to_string(),
        bytes.as_bytes().escape_ascii().to_string()
    );
    assert_eq!(frame.len(), bytes.len());
    check(frame.as_bytes(), expected);
}

#[test]
fn e03_each_line_of_data_becomes_a_data_field() {
    check_frame(Event::new("a\nb"), "data: a\ndata: b\n\n", &[message("a\nb")]);
    check_frame(Event::new("a\n\nb"), "data: a\ndata: \ndata: b\n\n", &[message("a\n\nb")]);
    check_frame(
        Event::new("x\n\nid: 6\ndata: forged"),
        "data: x\ndata: \ndata: id: 6\ndata: data: forged\n\n",
        &[message("x\n\nid: 6\ndata: forged")],
    );
}

#[test]
fn e04_a_lone_cr_in_data_is_a_line_break() {
    check_frame(Event::new("a\rb"), "data: a\ndata: b\n\n", &[message("a\nb")]);
    check_frame(Event::new("\r\r"), "data: \ndata: \ndata: \n\n", &[message("\n\n")]);
}

#[test]
fn e05_crlf_in_data_is_one_line_break() {
    check_frame(Event::new("a\r\nb"), "data: a\ndata: b\n\n", &[message("a\nb")]);
    check_frame(Event::new("a\n\rb"), "data: a\ndata: \ndata: b\n\n", &[message("a\n\nb")]);
    check_frame(Event::new("\r\r\n"), "data: \ndata: \ndata: \n\n", &[message("\n\n")]);
}

#[test]
fn e06_a_line_break_at_the_end_of_data_is_kept() {
    check_frame(Event::new("a\n"), "data: a\ndata: \n\n", &[message("a\n")]);
    check_frame(Event::new("a\r\n"), "data: a\ndata: \n\n", &[message("a\n")]);
    check_frame(Event::new("\n"), "data: \ndata: \n\n", &[message("\n")]);
}

#[test]
fn e07_empty_data_is_one_line() {
    check_frame(Event::new(""), "data: \n\n", &[message("")]);
}

#[test]
fn e08_an_event_may_have_no_data() {
    check_frame(Event::default(), "\n", &[]);
    check_frame(Event::default().id(id("1")), "id: 1\n\n", &[]);
    check_frame(Event::default().event(event_type("t")), "event: t\n\n", &[]);
    check_frame(Frame::retry(Duration::from_secs(1)), "retry: 1000\n\n", &[retry(1_000)]);
    check_frame(Frame::comment("c"), ": c\n\n", &[comment(" c")]);
    assert_ne!(Event::default(), Event::new(""));
    assert_eq!(Event::default().data(""), Event::new(""));
}

#[test]
fn e09_a_space_at_the_beginning_of_a_value_is_kept() {
    check_frame(Event::new(" a"), "data:  a\n\n", &[message(" a")]);
    check_frame(Event::new(" "), "data:  \n\n", &[message(" ")]);
    let typed = Event::new("").event(event_type(" t"));
    check_frame(typed, "event:  t\ndata: \n\n", &[event(" t", "")]);
}

#[test]
fn e10_an_empty_type_means_no_type() {
    let event = Event::new("a").event(event_type(""));
    assert_eq!(event.fields().event_type, None);
    assert_eq!(event, Event::new("a"));
    check_frame(event, "data: a\n\n", &[message("a")]);
    let taken_back = Event::new("a").event(event_type("t")).event(event_type(""));
    assert_eq!(taken_back, Event::new("a"));
}

#[test]
fn e11_an_empty_id_is_written() {
    let event = Event::new("a").id(id(""));
    assert_ne!(event, Event::new("a"));
    assert_eq!(event.fields().id, Some(&id("")));
    check_frame(event, "id: \ndata: a\n\n", &[message("a").own_id("")]);
}

#[test]
fn e12_each_line_of_a_comment_becomes_a_comment_line() {
    let seen = [comment(" a"), comment(" b"), comment(" c"), comment(" d")];
    check_frame(Frame::comment("a\nb\rc\r\nd"), ": a\n: b\n: c\n: d\n\n", &seen);
    check_frame(Frame::comment(""), ": \n\n", &[comment(" ")]);
    let forged = [comment(" "), comment(" "), comment(" data: forged"), comment(" "), comment(" ")];
    check_frame(
        Frame::comment("\n\ndata: forged\n\n"),
        ": \n: \n: data: forged\n: \n: \n\n",
        &forged,
    );
}

/// A blank line ends an event. So a frame must have exactly one blank line, at its end. Then no
/// frame can become part of another frame, and frames may be sent in any order.
#[test]
fn e13_a_frame_has_one_blank_line_at_its_end() {
    let full = Event::new("a\n\nb").event(event_type("t")).id(id("")).retry(Retry::from_millis(1));
    for frame in [full.encode(), Frame::comment("a\n\nb"), Event::new("\n").encode()] {
        let text = str::from_utf8(frame.as_bytes()).unwrap();
        assert_eq!(text.find("\n\n"), Some(text.len() - 2), "{text:?}");
    }
    check("data: a\n: c\n\ndata: b\n\n", &[comment(" c"), message("a"), message("b")]);
}

#[test]
fn e14_a_retry_is_written_as_digits() {
    let seen = [retry(u64::MAX)];
    check_frame(Frame::retry(Duration::MAX), "retry: 18446744073709551615\n\n", &seen);
    check_frame(Frame::retry(Duration::ZERO), "retry: 0\n\n", &[retry(0)]);
    check_frame(Frame::retry(Duration::from_micros(1)), "retry: 1\n\n", &[retry(1)]);
    check_frame(Event::default().retry(Retry::from_millis(10)), "retry: 10\n\n", &[retry(10)]);
}

#[test]
fn e15_a_byte_order_mark_at_the_start_of_data_is_kept() {
    check_frame(Event::new("\u{FEFF}a"), "data: \u{FEFF}a\n\n", &[message("\u{FEFF}a")]);
    check_frame(Frame::comment("\u{FEFF}"), ": \u{FEFF}\n\n", &[comment(" \u{FEFF}")]);
}

#[test]
fn e16_frames_are_valid_utf_8() {
    let frame = Event::new("é\u{10FFFF}").event(event_type("ü")).encode();
    assert_eq!(str::from_utf8(frame.as_bytes()), Ok("event: ü\ndata: é\u{10FFFF}\n\n"));
}

#[test]
fn e17_nul_and_separators_that_end_no_line_are_kept_in_data() {
    let text = "\0a\u{2028}b\u{2029}c\u{85}d\u{0B}e\u{0C}f\u{1B}";
    check_frame(Event::new(text), &format!("data: {text}\n\n"), &[message(text)]);
}

#[test]
fn e18_every_frame_ends_with_a_blank_line() {
    for frame in [
        Event::default().encode(),
        Event::new("a").encode(),
        Event::new("a\n").encode(),
        Frame::comment(""),
        Frame::comment("a\n"),
        Frame::retry(Duration::ZERO),
        Event::new("a").encode_unstamped(&id("")).stamp(0),
        Frame::from(&Event::new("a")),
    ] {
        let stream = [frame.as_bytes(), b"data: next\n\n"].concat();
        let seen = crate::naive::read_whole(&stream, "").seen;
        assert!(matches!(seen.last(), Some(Seen::Event { data, .. }) if data == "next"));
        assert!(frame.as_bytes().ends_with(b"\n\n") || frame.as_bytes() == b"\n");
    }
}

#[test]
fn e20_a_long_line_stays_one_line() {
    let text = "x".repeat(70 * 1_024);
    assert_eq!(
        Event::new(text.as_str()).encode().as_bytes(),
        format!("data: {text}\n\n").as_bytes()
    );
}

#[test]
fn fields_are_written_in_a_fixed_order() {
    let event =
        Event::new("a\nb").retry(Duration::from_millis(5)).id(id("7")).event(event_type("t"));
    let seen = [retry(5), crate::check::event("t", "a\nb").own_id("7")];
    check_frame(&event, "event: t\nid: 7\nretry: 5\ndata: a\ndata: b\n\n", &seen);
}

#[test]
fn the_fields_of_an_event_can_be_read() {
    let event = Event::new("a\r\n").retry(Retry::from_millis(5)).id(id("7")).event(event_type("t"));
    let fields = event.fields();
    assert_eq!((fields.data, fields.retry), (Some("a\r\n"), Some(Retry::from_millis(5))));
    assert_eq!((fields.id, fields.event_type), (Some(&id("7")), Some(&event_type("t"))));
    let default = Event::default();
    let fields = default.fields();
    assert_eq!((fields.data, fields.id), (None, None));
    assert_eq!((fields.event_type, fields.retry), (None, None));
}

/// Programs keep thousands of events in memory, so an `Event` must be small.
#[cfg(target_pointer_width = "64")]
#[test]
fn an_event_takes_72_bytes() {
    assert_eq!(size_of::<Event>(), 72);
}

#[test]
fn encoding_into_a_buffer_appends_to_the_buffer() {
    let mut out = b": x\n\n".to_vec();
    Event::new("a").encode_into(&mut out);
    Event::new("b").encode_into(&mut out);
    assert_eq!(out, b": x\n\ndata: a\n\ndata: b\n\n");
}

#[test]
fn clones_of_a_frame_share_its_bytes() {
    let frame = Frame::from(Event::new("a"));
    let clone = frame.clone();
    assert_eq!(clone.as_ref().as_ptr(), frame.as_bytes().as_ptr());
    assert_eq!(clone, frame);
    assert_eq!(bytes::Bytes::from(clone), frame.into_bytes());
}

#[cfg(feature = "json")]
mod json {
    use std::{collections::BTreeMap, error::Error as _};

    use super::*;

    #[test]
    fn e19_json_is_compact() {
        let value = BTreeMap::from([("text", "two\nlines"), ("user", "ann")]);
        check_frame(
            Event::json(&value).unwrap(),
            "data: {\"text\":\"two\\nlines\",\"user\":\"ann\"}\n\n",
            &[message(r#"{"text":"two\nlines","user":"ann"}"#)],
        );
        assert_eq!(Event::json("unsized").unwrap().fields().data, Some("\"unsized\""));
    }

    #[test]
    fn a_value_that_cannot_be_written_as_json_is_an_error() {
        let error = Event::json(&BTreeMap::from([((1, 2), 3)])).unwrap_err();
        assert_eq!(error.to_string(), "the value cannot be written as JSON");
        assert_eq!(error.source().unwrap().to_string(), "key must be a string");
    }
}
