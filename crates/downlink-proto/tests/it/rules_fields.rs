//! Rules 12 to 24 for a decoder (see `main.rs`): from lines to fields ("interpreting an event
//! stream").

use crate::check::{check, comment, event, message, retry};

#[test]
fn rule_12_an_empty_line_ends_a_block() {
    check("data: a\n", &[]);
    check("data: a\n\n", &[message("a")]);
    check("\n\n\ndata: a\n\n\n\n", &[message("a")]);
    // A line with one space is not a blank line, so it does not end the event.
    check("data: a\n \n", &[]);
}

#[test]
fn rule_13_a_line_that_begins_with_a_colon_is_a_comment() {
    check(":\n", &[comment("")]);
    check(":data:x\n\n", &[comment("data:x")]);
    check(": two\n: lines\n", &[comment(" two"), comment(" lines")]);
    check("data: a\n:between\ndata: b\n\n", &[comment("between"), message("a\nb")]);
    check("::\n", &[comment(":")]);
}

#[test]
fn rule_14_the_first_colon_ends_the_name() {
    check("data:a:b:c\n\n", &[message("a:b:c")]);
    check("data::\n\n", &[message(":")]);
    check("event: http://x:1/\nid: a:b\ndata\n\n", &[event("http://x:1/", "").own_id("a:b")]);
}

#[test]
fn rule_15_exactly_one_space_after_the_colon_is_dropped() {
    check("data: a\ndata:  b\ndata:\tc\ndata:d \n\n", &[message("a\n b\n\tc\nd ")]);
    check("id:  1\nevent:  t\ndata:\n\n", &[event(" t", "").own_id(" 1")]);
    // Only U+0020 is removed after the colon. A no-break space is kept.
    check("data:\u{A0}a\n\n", &[message("\u{A0}a")]);
}

#[test]
fn rule_16_a_line_without_a_colon_is_a_field_without_a_value() {
    check("data\n\n", &[message("")]);
    check("event: t\nevent\ndata\n\n", &[message("")]);
    check("retry\n", &[]);
    check("id: 1\n\nid\n\ndata\n\n", &[message("").kept_id("")]);
}

#[test]
fn rule_17_field_names_must_match_exactly() {
    check("Data: a\nDATA: b\n data: c\ndata : d\ndat: e\ndatas: f\n\n", &[]);
    check("Event: t\nEvent : t\nId: 1\nID: 1\nRetry: 5\nretry : 5\ndata: x\n\n", &[message("x")]);
    check("dätä: a\n\n", &[]);
}

#[test]
fn rule_18_unknown_names_are_ignored_within_an_event() {
    check("x: 1\ndata: a\ny\nz:\n\n", &[message("a")]);
    check(b"\xFF\xFE: 1\ndata: a\n\n", &[message("a")]);
}

#[test]
fn rule_19_the_last_type_applies_and_an_empty_type_means_message() {
    check("event: a\nevent: b\ndata\n\n", &[event("b", "")]);
    check("event: a\nevent:\ndata\n\n", &[message("")]);
    check("event:\nevent: b\ndata\n\n", &[event("b", "")]);
    check("data\nevent: after\n\n", &[event("after", "")]);
}

#[test]
fn rule_20_data_lines_are_joined_by_lf() {
    check("data: a\ndata: b\ndata: c\n\n", &[message("a\nb\nc")]);
    check("data: a\nevent: t\nid: 1\ndata: b\n\n", &[event("t", "a\nb").own_id("1")]);
}

#[test]
fn rule_21_an_id_with_nul_is_ignored() {
    check("id: 1\n\nid: \0\ndata: a\n\n", &[message("a").kept_id("1")]);
    check("id: 1\nid: x\0\ndata: a\n\n", &[message("a").own_id("1")]);
    check("id: \0x\ndata: a\n\n", &[message("a")]);
}

#[test]
fn rule_22_an_empty_id_clears_the_last_event_id() {
    check("id: 1\n\nid:\ndata: a\n\n", &[message("a").own_id("")]);
    check("id: 1\n\nid: \ndata: a\n\n", &[message("a").own_id("")]);
    check("id: 1\n\nid\ndata: a\n\n", &[message("a").own_id("")]);
    assert_eq!(check("id: 1\n\nid\n\n", &[]).last_event_id, "");
}

#[test]
fn rule_23_a_retry_field_takes_only_ascii_digits() {
    check("retry: 0\nretry:5\nretry: 007\n", &[retry(0), retry(5), retry(7)]);
    check("retry: +5\nretry: -5\nretry: 5 \nretry:  5\nretry: 5.0\nretry: 5ms\nretry:\n", &[]);
    check("retry: 0x10\nretry: 1e3\nretry: ٣\nretry: 5\0\nretry: \u{FF15}\n", &[]);
    check("retry: 18446744073709551615\n", &[retry(u64::MAX)]);
    check("retry: 18446744073709551616\n", &[retry(u64::MAX)]);
    check(format!("retry: {}1\n", "9".repeat(500)), &[retry(u64::MAX)]);
    check(format!("retry: {}1\n", "0".repeat(500)), &[retry(1)]);
}

#[test]
fn rule_24_a_retry_field_applies_at_once_and_without_data() {
    assert_eq!(check("retry: 5\n", &[retry(5)]).reconnection_time, Some(5));
    assert_eq!(check("retry: 5\n\n", &[retry(5)]).reconnection_time, Some(5));
    assert_eq!(check("data: a\nretry: 5\n", &[retry(5)]).reconnection_time, Some(5));
    check("retry: 5\ndata: a\nretry: 6\n\n", &[retry(5), retry(6), message("a")]);
    // A line without a line end has no effect, because more digits might follow.
    assert_eq!(check("retry: 5", &[]).reconnection_time, None);
}
