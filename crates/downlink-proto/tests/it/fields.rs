//! Tests of ids, types and other values that are checked when they are made. They show which texts
//! are accepted or refused, and the error messages. `main.rs` explains the numbers in the names of
//! the tests.

use std::{error::Error as _, time::Duration};

use downlink_proto::{
    EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX, EventId, EventType, InvalidField, InvalidReason,
    Retry,
};

/// The error message for a value that must be refused.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, InvalidField>) -> String {
    let error = result.unwrap_err();
    assert!(error.source().is_none());
    error.to_string()
}

#[test]
fn a_type_may_be_any_text_on_one_line() {
    for text in ["", "note", " outer ", "a:b", "é🦀", "\u{2028}", "\u{FEFF}", ": c"] {
        assert_eq!(EventType::new(text).unwrap().as_str(), text);
    }
}

#[test]
fn e01_a_type_must_not_have_line_breaks_or_nul() {
    assert_eq!(
        refused(EventType::new("ab\ndata: forged")),
        "the `event` field cannot carry a line feed (byte 2); remove it"
    );
    assert_eq!(
        refused(EventType::new("é\r")),
        "the `event` field cannot carry a carriage return (byte 2); remove it"
    );
    assert_eq!(
        refused(EventType::new("a\0")),
        "the `event` field cannot carry a NUL (byte 1); remove it"
    );
}

/// The message of a panic.
#[track_caller]
fn panic_of<T: std::fmt::Debug>(make: fn() -> T) -> String {
    *std::panic::catch_unwind(make).unwrap_err().downcast::<String>().unwrap()
}

#[test]
fn from_static_makes_the_same_value_as_new_and_panics_if_new_fails() {
    assert_eq!(EventType::from_static("tick"), EventType::new("tick").unwrap());
    assert_eq!(EventId::from_static("a b"), EventId::new("a b").unwrap());
    assert_eq!(panic_of(|| EventType::from_static("a\n")), refused(EventType::new("a\n")));
    assert_eq!(panic_of(|| EventId::from_static(" 7")), refused(EventId::new(" 7")));
}

#[test]
fn an_id_may_be_any_text_on_one_line() {
    for text in ["", "1", "a b", "é🦀", "\u{2028}", "\u{A0}x\u{A0}", "a:b"] {
        assert_eq!(EventId::new(text).unwrap().as_str(), text);
    }
}

#[test]
fn e02_an_id_must_not_have_line_breaks_or_nul() {
    assert_eq!(
        refused(EventId::new("1\n")),
        "the `id` field cannot carry a line feed (byte 1); remove it"
    );
    assert_eq!(
        refused(EventId::new("\r1")),
        "the `id` field cannot carry a carriage return (byte 0); remove it"
    );
    assert_eq!(
        refused(EventId::new("12\0")),
        "the `id` field cannot carry a NUL (byte 2); remove it"
    );
}

#[test]
fn e23_an_id_must_not_begin_or_end_with_a_space_or_tab() {
    let refusal = |at| {
        format!(
            "the `id` field begins or ends with a space or tab (byte {at}), which HTTP would cut \
             off; trim it"
        )
    };
    assert_eq!(refused(EventId::new(" 1")), refusal(0));
    assert_eq!(refused(EventId::new("12 ")), refusal(2));
    assert_eq!(refused(EventId::new("\t1")), refusal(0));
    assert_eq!(refused(EventId::new("1\t")), refusal(1));
    assert_eq!(refused(EventId::new(" ")), refusal(0));
}

#[test]
fn e22_an_id_may_have_characters_that_are_not_ascii() {
    assert_eq!(EventId::new("…").unwrap().as_str(), "…");
}

#[test]
fn e21_an_id_may_be_as_long_as_the_limit() {
    let max = EVENT_ID_BYTES_MAX;
    assert!(EventId::new(&"x".repeat(max - 1)).is_ok());
    assert!(EventId::new(&"x".repeat(max)).is_ok());
    assert_eq!(
        refused(EventId::new(&"x".repeat(max + 1))),
        "the `id` field has 1025 bytes, and at most 1024 are allowed; shorten it"
    );
    // The limit counts bytes, not characters.
    assert!(EventId::new(&"é".repeat(max / 2)).is_ok());
    assert!(EventId::new(&"é".repeat(max / 2 + 1)).is_err());
}

#[test]
fn a_type_may_be_as_long_as_the_limit() {
    let max = EVENT_TYPE_BYTES_MAX;
    assert!(EventType::new(&"x".repeat(max - 1)).is_ok());
    assert!(EventType::new(&"x".repeat(max)).is_ok());
    assert_eq!(
        refused(EventType::new(&"x".repeat(max + 1))),
        "the `event` field has 129 bytes, and at most 128 are allowed; shorten it"
    );
}

#[test]
fn an_error_gives_the_reason_and_the_position() {
    let Err(InvalidField { field: "id", reason, .. }) = EventId::new("a\0") else {
        panic!("an id with NUL was accepted");
    };
    assert!(matches!(reason, InvalidReason::Character { at: 1, character: '\0', .. }));
    let reason = EventId::new("a ").unwrap_err().reason;
    assert!(matches!(reason, InvalidReason::OuterSpace { at: 1, .. }));
    let reason = EventType::new(&"x".repeat(200)).unwrap_err().reason;
    assert!(matches!(reason, InvalidReason::TooLong { bytes: 200, bytes_max: 128, .. }));
}

#[test]
fn all_conversions_check_the_text() {
    assert_eq!("a".parse::<EventId>().unwrap().as_ref(), "a");
    assert_eq!("t".parse::<EventType>().unwrap().to_string(), "t");
    assert!("\n".parse::<EventId>().is_err());
    assert!("\n".parse::<EventType>().is_err());
}

#[test]
fn e14_a_duration_is_rounded_up_to_whole_milliseconds() {
    let millis = |duration: Duration| Retry::from(duration).as_millis();
    assert_eq!(millis(Duration::ZERO), 0);
    assert_eq!(millis(Duration::from_nanos(1)), 1);
    assert_eq!(millis(Duration::from_nanos(999_999)), 1);
    assert_eq!(millis(Duration::from_millis(1)), 1);
    assert_eq!(millis(Duration::from_nanos(1_000_001)), 2);
    assert_eq!(millis(Duration::from_secs(3)), 3_000);
    assert_eq!(millis(Duration::from_millis(u64::MAX - 1)), u64::MAX - 1);
    assert_eq!(millis(Duration::from_millis(u64::MAX)), u64::MAX);
    assert_eq!(millis(Duration::from_millis(u64::MAX) + Duration::from_nanos(1)), u64::MAX);
    assert_eq!(millis(Duration::MAX), u64::MAX);
}

#[test]
fn a_retry_time_converts_to_a_duration_and_prints_its_milliseconds() {
    assert_eq!(Duration::from(Retry::from_millis(1_500)), Duration::from_millis(1_500));
    assert_eq!(Retry::from_millis(7).to_string(), "7 ms");
}
