//! Rules 25 to 35 for a decoder (see `main.rs`). They are about complete events (dispatch), ids,
//! and the end of a stream.
//!
//! Rule 34 has no test. It is about the origin of an event, which a client knows and a decoder does
//! not.

use downlink_proto::Decoder;

use crate::{
    check::{check, check_after, comment, event, message},
    reader::take_all,
};

#[test]
fn rule_25_a_block_with_only_an_id_sets_the_last_event_id() {
    assert_eq!(check("id: 1\n\n", &[]).last_event_id, "1");
    assert_eq!(
        check("data: a\nid: 1\n\nid: 2\nevent: t\n\n", &[message("a").own_id("1")]).last_event_id,
        "2"
    );
    assert_eq!(check("id: 1\n", &[]).last_event_id, "");
}

#[test]
fn rule_26_later_events_and_streams_keep_the_id() {
    check(
        "id: 1\ndata: a\n\ndata: b\n\ndata: c\n\n",
        &[message("a").own_id("1"), message("b").kept_id("1"), message("c").kept_id("1")],
    );
    check_after(
        "7",
        "data: a\n\nid: 8\ndata: b\n\n",
        &[message("a").kept_id("7"), message("b").own_id("8")],
    );
    assert_eq!(check_after("7", "", &[]).last_event_id, "7");

    let mut decoder = Decoder::default();
    decoder.handle_bytes(b"id: 1\ndata: a\n\n").unwrap();
    decoder.handle_end();
    decoder.handle_bytes(b"data: b\n\n").unwrap();
    assert_eq!(take_all(&mut decoder), [message("a").own_id("1"), message("b").kept_id("1")]);
}

#[test]
fn rule_27_a_block_without_data_gives_no_event() {
    check("event: t\nid: 1\nretry: x\nfoo: bar\n\n", &[]);
    check("\n\n\n", &[]);
}

#[test]
fn rule_28_a_block_with_empty_data_gives_an_event() {
    check("data\n\n", &[message("")]);
    check("data:\n\n", &[message("")]);
    check("data: \n\n", &[message("")]);
}

#[test]
fn rule_29_exactly_one_line_feed_is_removed_at_the_end_of_data() {
    check("data\ndata\n\n", &[message("\n")]);
    check("data: a\ndata\ndata\n\n", &[message("a\n\n")]);
}

#[test]
fn rule_30_an_event_without_a_type_has_the_type_message() {
    check("data: a\n\n", &[message("a")]);
    check("event: t\ndata: a\n\ndata: b\n\n", &[event("t", "a"), message("b")]);
    check("event: message\ndata: a\n\n", &[message("a")]);
}

#[test]
fn rule_31_a_type_does_not_apply_to_the_next_event() {
    check("event: t\n\ndata: a\n\n", &[message("a")]);
    check("event: t\nid: 1\n\ndata: a\n\n", &[message("a").kept_id("1")]);
    check("event: t\n: c\n\ndata: a\n\n", &[comment(" c"), message("a")]);
}

#[test]
fn rule_32_an_unfinished_event_is_discarded_at_the_end() {
    for unfinished in ["data: b", "data: b\n", "event: t\ndata: b\n", "event: t\n", "dat"] {
        let mut decoder = Decoder::default();
        decoder.handle_bytes(b"data: a\n\n").unwrap();
        decoder.handle_bytes(unfinished.as_bytes()).unwrap();
        decoder.handle_end();
        decoder.handle_bytes(b"\ndata: c\n\n").unwrap();
        assert_eq!(take_all(&mut decoder), [message("a"), message("c")], "{unfinished:?}");
    }
}

#[test]
fn rule_33_the_id_of_an_unfinished_event_is_discarded() {
    for unfinished in ["id: 2\ndata: b\n", "id: 2\n", "id: 2", "id\n"] {
        let mut decoder = Decoder::default();
        decoder.handle_bytes(b"id: 1\ndata: a\n\n").unwrap();
        decoder.handle_bytes(unfinished.as_bytes()).unwrap();
        assert_eq!(take_all(&mut decoder), [message("a").own_id("1")]);
        assert_eq!(decoder.last_event_id(), "1", "wrong id before the end of {unfinished:?}");
        decoder.handle_end();
        assert_eq!(decoder.last_event_id(), "1", "wrong id after the end of {unfinished:?}");
        decoder.handle_bytes(b"\ndata: c\n\n").unwrap();
        assert_eq!(take_all(&mut decoder), [message("c").kept_id("1")]);
    }
}

#[test]
fn rule_35_many_events_in_one_chunk_are_returned_in_order() {
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let stream: String = numbers.iter().map(|number| format!("data: {number}\n\n")).collect();
    let expected: Vec<_> = numbers.iter().map(|number| message(number)).collect();
    check(stream, &expected);
}

/// A reader may stop after some events of a chunk and reconnect. After the reconnect, the server
/// must send the remaining events of the chunk again. So the decoder's last event id must not yet
/// be the id of an event that the reader has not taken.
#[test]
fn events_that_were_not_taken_do_not_set_the_last_event_id() {
    let mut decoder = Decoder::default();
    decoder.handle_bytes(b"id: 1\ndata: a\n\nid: 2\n\nretry: 9\nid: 3\ndata: b\n\n").unwrap();
    assert_eq!((decoder.last_event_id(), decoder.reconnection_time()), ("", None));
    decoder.poll_item();
    assert_eq!((decoder.last_event_id(), decoder.reconnection_time()), ("1", None));
    decoder.poll_item();
    assert_eq!(decoder.last_event_id(), "2");
    assert_eq!(decoder.reconnection_time().map(|time| time.as_millis()), Some(9));
    decoder.poll_item();
    assert_eq!(decoder.last_event_id(), "3");
    assert_eq!(decoder.poll_item(), None);
}
