//! The example streams v01 to v25. Some are from the web platform tests, and the others were
//! written for this crate. `check` cuts each stream at every position.

use downlink_proto::{Decoder, Retry};

use crate::{
    check::{check, check_after, event, message, retry},
    naive::Seen,
    reader::take_all,
};

const BOM: &str = "\u{FEFF}";

/// Checks the items that the decoder returns after each chunk. The decoder must return an item as
/// soon as the chunk that completes the item has arrived.
#[track_caller]
fn check_at_once(chunks: &[(&[u8], &[Seen])]) {
    let mut decoder = Decoder::default();
    for (chunk, expected) in chunks {
        decoder.handle_bytes(chunk).unwrap();
        assert_eq!(
            take_all(&mut decoder),
            *expected,
            "the items differ after the chunk {}",
            chunk.escape_ascii()
        );
    }
}

#[test]
fn v01_misspelt_fields_are_ignored() {
    check(
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n \
         data:32\ndata:4\n\n",
        &[message("\0\n 2\n1\n3\n\n4")],
    );
}

#[test]
fn v02_blocks_with_empty_data_are_events() {
    check("data:\n\ndata\ndata\n\ndata:test\n\n", &[message(""), message("\n"), message("test")]);
}

#[test]
fn v03_a_later_byte_order_mark_is_text() {
    check(format!("{BOM}data:1\n\n{BOM}data:2\n\ndata:3\n\n"), &[message("1"), message("3")]);
}

#[test]
fn v04_a_second_byte_order_mark_is_text() {
    check(format!("{BOM}{BOM}data:1\n\ndata:2\n\ndata:3\n\n"), &[message("2"), message("3")]);
}

#[test]
fn v05_line_ends_may_be_mixed_and_a_final_cr_ends_its_line_at_once() {
    check("data:test\r\ndata\ndata:test\r\n\r", &[message("test\n\ntest")]);
    check_at_once(&[(b"data:test\r\ndata\ndata:test\r\n\r", &[message("test\n\ntest")])]);
}

#[test]
fn v06_one_space_is_dropped_and_a_tab_stays() {
    check("data:\ttest\rdata: \ndata:test\n\n", &[message("\ttest\n\ntest")]);
}

#[test]
fn v07_unknown_fields_and_comments_do_not_separate_data_lines() {
    let seen = [crate::check::comment("comment"), message("test\n\ntest")];
    check("data:test\n data\ndata\nfoobar:xxx\njustsometext\n:comment\ndata:test\n\n", &seen);
}

#[test]
fn v08_a_retry_value_may_have_a_leading_zero() {
    let reading = check("retry:03000\ndata:x\n\n", &[retry(3_000), message("x")]);
    assert_eq!(reading.reconnection_time, Some(3_000));
}

#[test]
fn v09_a_retry_value_with_a_letter_is_ignored() {
    let reading = check("retry:3000\nretry:1000x\ndata:x\n\n", &[retry(3_000), message("x")]);
    assert_eq!(reading.reconnection_time, Some(3_000));
}

#[test]
fn v10_an_empty_retry_value_is_ignored() {
    let reading = check("retry:3000\nretry\ndata:x\n\n", &[retry(3_000), message("x")]);
    assert_eq!(reading.reconnection_time, Some(3_000));
}

#[test]
fn v11_an_empty_type_means_message() {
    check("event: \ndata:data\n\n", &[message("data")]);
}

#[test]
fn v12_a_type_applies_to_only_one_event() {
    check("event:test\ndata:x\n\ndata:x\n\n", &[event("test", "x"), message("x")]);
}

#[test]
fn v13_a_type_without_data_does_not_apply_to_the_next_event() {
    check("event:a\n\ndata:x\n\n", &[message("x")]);
}

#[test]
fn v14_an_id_applies_until_an_empty_id() {
    let seen = [message("a").own_id("1"), message("b").kept_id("1"), message("c").own_id("")];
    check("id:1\ndata:a\n\ndata:b\n\nid\ndata:c\n\n", &seen);
}

#[test]
fn v15_an_id_without_data_sets_the_last_event_id() {
    check("id:1\n\ndata:b\n\n", &[message("b").kept_id("1")]);
}

#[test]
fn v16_an_id_with_nul_is_ignored() {
    check("id:1\nid:2\0x\ndata:a\n\n", &[message("a").own_id("1")]);
}

#[test]
fn v17_the_id_of_an_unfinished_event_is_discarded() {
    let reading = check("id:1\ndata:a\n\nid:2\ndata:b", &[message("a").own_id("1")]);
    assert_eq!(reading.last_event_id, "1");
    check_after(&reading.last_event_id, "data:c\n\n", &[message("c").kept_id("1")]);
}

#[test]
fn v18_comments_may_be_empty_or_have_nul_or_colons() {
    let seen = [
        message("x"),
        crate::check::comment("c\0"),
        crate::check::comment(""),
        crate::check::comment("data:fail"),
        message("y"),
    ];
    check("data:x\n\n:c\0\n:\ndata:y\n:data:fail\r\n\n", &seen);
}

#[test]
fn v19_crlf_may_be_cut_between_chunks() {
    check("data:a\r\ndata:b\r\n\r\n", &[message("a\nb")]);
    check_at_once(&[(b"data:a\r", &[]), (b"\ndata:b\r\n", &[]), (b"\r\n", &[message("a\nb")])]);
}

#[test]
fn v20_two_cr_end_an_event_at_once_and_an_lf_after_them_adds_nothing() {
    check_at_once(&[
        (b"data:a\r\r", &[message("a")]),
        (b"\n", &[]),
        (b"data:b\r\r\n", &[message("b")]),
        (b"\n", &[]),
    ]);
}

#[test]
fn v21_a_character_may_be_cut_between_chunks() {
    check("data: é\n\n", &[message("é")]);
    check_at_once(&[(b"data: \xC3", &[]), (b"\xA9\n\n", &[message("é")])]);
}

#[test]
fn v22_an_invalid_byte_becomes_a_replacement_character() {
    check(b"data:\xff\n\n", &[message("\u{FFFD}")]);
}

#[test]
fn v23_a_comment_may_have_two_kibibytes() {
    let text = "x".repeat(2_048);
    check(format!(":{text}\ndata:x\n\n"), &[crate::check::comment(&text), message("x")]);
}

#[test]
fn v24_a_retry_value_above_64_bits_becomes_the_maximum() {
    let seen = [retry(u64::MAX), message("x")];
    check("retry:18446744073709551616\ndata:x\n\n", &seen);
    assert_eq!(Retry::from_millis(u64::MAX).as_millis(), u64::MAX);
}

/// This test checks only the event. Tests in `src/lines.rs` check that each byte is searched for a
/// line end only once.
#[test]
fn v25_an_event_of_ten_mebibytes_is_read_in_chunks_of_ten_bytes() {
    let text = "0123456789abcde\n".repeat(10 * 1_024 * 1_024 / 16);
    let stream = downlink_proto::Event::new(text.as_str()).encode();
    let mut decoder = Decoder::default();
    for chunk in stream.as_bytes().chunks(10) {
        decoder.handle_bytes(chunk).unwrap();
    }
    let seen = take_all(&mut decoder);
    assert!(
        seen == [message(&text)],
        "the decoder returns wrong data, or {} items instead of one",
        seen.len()
    );
}
