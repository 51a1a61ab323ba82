//! Rules 1 to 11 for a decoder (see `main.rs`): from bytes to lines ("parsing an event stream").

use downlink_proto::Decoder;

use crate::{
    check::{check, comment, message},
    reader::take_all,
};

#[test]
fn rule_01_bytes_are_read_as_utf_8_and_invalid_bytes_are_replaced() {
    check("data: grüße 日本 🦀\n\n", &[message("grüße 日本 🦀")]);
    check(b"data: a\xFFb\n\n", &[message("a\u{FFFD}b")]);
    // A line end in the middle of a multi-byte character ends the line. U+FFFD replaces the
    // incomplete character.
    check(b"data: a\xE6\x97\ndata: b\n\n", &[message("a\u{FFFD}\nb")]);
    // In an encoded surrogate and in an overlong encoding, U+FFFD replaces each byte.
    check(b"data: \xED\xA0\x80\n\n", &[message("\u{FFFD}\u{FFFD}\u{FFFD}")]);
    check(b"data: \xC0\xAF\n\n", &[message("\u{FFFD}\u{FFFD}")]);
    check(b":\xFF\n", &[comment("\u{FFFD}")]);
    check(
        b"id: \xFF\nevent: \xFF\ndata\n\n",
        &[crate::check::event("\u{FFFD}", "").own_id("\u{FFFD}")],
    );
}

#[test]
fn rule_02_one_byte_order_mark_at_the_start_is_dropped() {
    check("\u{FEFF}data: a\n\n", &[message("a")]);
    check("\u{FEFF}\ndata: a\n\n", &[message("a")]);
    check("\u{FEFF}", &[]);
    check("\u{FEFF}:\n", &[comment("")]);
}

#[test]
fn rule_03_any_other_byte_order_mark_is_text() {
    check("\u{FEFF}\u{FEFF}data: a\n\n", &[]);
    check("\n\u{FEFF}data: a\n\n", &[]);
    check("data: \u{FEFF}a\n\n", &[message("\u{FEFF}a")]);
    // An incomplete byte order mark is not removed. It becomes part of the first line.
    check(b"\xEF\xBBdata: a\n\ndata: b\n\n", &[message("b")]);
    check(b"\xEF\n\xBB\xBFdata: a\n\ndata: b\n\n", &[message("b")]);
}

#[test]
fn rule_04_each_stream_may_begin_with_a_byte_order_mark() {
    let mut decoder = Decoder::default();
    for end in ["\n\n", "\n", "\r", ""] {
        decoder.handle_bytes(format!("\u{FEFF}data: a\n\ndata: b{end}").as_bytes()).unwrap();
        let with_b = end == "\n\n";
        let expected = if with_b { vec![message("a"), message("b")] } else { vec![message("a")] };
        assert_eq!(take_all(&mut decoder), expected, "{end:?}");
        decoder.handle_end();
    }
    // If a stream ends after an incomplete byte order mark, these bytes are discarded like any
    // unfinished line.
    decoder.handle_bytes(b"\xEF\xBB").unwrap();
    decoder.handle_end();
    decoder.handle_bytes(b"\xBFdata: a\n\ndata: b\n\n").unwrap();
    assert_eq!(take_all(&mut decoder), [message("b")]);
}

#[test]
fn rule_05_lf_cr_and_crlf_end_lines() {
    check("data: a\n\ndata: b\n\n", &[message("a"), message("b")]);
    check("data: a\r\rdata: b\r\r", &[message("a"), message("b")]);
    check("data: a\r\n\r\ndata: b\r\n\r\n", &[message("a"), message("b")]);
    check("data: a\rdata: b\ndata: c\r\ndata: d\n\r", &[message("a\nb\nc\nd")]);
    check("data: a\n\r\ndata: b\r\n\n", &[message("a"), message("b")]);
}

#[test]
fn rule_06_crlf_in_two_chunks_is_one_line_end() {
    let mut decoder = Decoder::default();
    decoder.handle_bytes(b"data: a\r").unwrap();
    decoder.handle_bytes(b"").unwrap();
    decoder.handle_bytes(b"\n").unwrap();
    assert_eq!(take_all(&mut decoder), []);
    decoder.handle_bytes(b"\n").unwrap();
    assert_eq!(take_all(&mut decoder), [message("a")]);
}

#[test]
fn rule_07_a_cr_ends_its_line_at_once() {
    let mut decoder = Decoder::default();
    decoder.handle_bytes(b"data: a\r\r").unwrap();
    assert_eq!(take_all(&mut decoder), [message("a")]);
    decoder.handle_bytes(b"\n: c\r").unwrap();
    assert_eq!(take_all(&mut decoder), [comment(" c")]);
    // The previous stream ended with CR. An LF at the start of the next stream is a complete line
    // end, not the second half of a CRLF.
    decoder.handle_end();
    decoder.handle_bytes(b"data: b\r").unwrap();
    decoder.handle_end();
    decoder.handle_bytes(b"\ndata: c\n\n").unwrap();
    assert_eq!(take_all(&mut decoder), [message("c")]);
}

#[test]
fn rule_08_no_other_character_ends_a_line() {
    let text = "a\u{2028}b\u{2029}c\u{85}d\u{0B}e\u{0C}f";
    check(format!("data: {text}\n\n"), &[message(text)]);
}

#[test]
fn rule_09_nul_is_legal_in_data_comments_types_and_names() {
    let seen = [comment("\0c"), crate::check::event("t\0", "\0")];
    check(":\0c\nevent: t\0\ndata: \0\nda\0ta: x\n\n", &seen);
}

/// The module `limits` tests the maximum length of a line and the decoder's memory.
#[test]
fn rule_10_a_line_may_be_long() {
    let text = "x".repeat(70 * 1_024);
    let mut decoder = Decoder::default();
    for chunk in format!("data: {text}\n\n").as_bytes().chunks(1_000) {
        decoder.handle_bytes(chunk).unwrap();
    }
    assert_eq!(take_all(&mut decoder), [message(&text)]);
}

#[test]
fn rule_11_the_items_do_not_depend_on_the_chunks() {
    let stream = "\u{FEFF}: hé\r\nretry: 20\revent: ü\r\nid: é\r\ndata: a\r\rdata: 🦀\n\r\n";
    let seen = [
        comment(" hé"),
        crate::check::retry(20),
        crate::check::event("ü", "a").own_id("é"),
        message("🦀").kept_id("é"),
    ];
    check(stream, &seen);
    for len in 1..stream.len() {
        let mut decoder = Decoder::default();
        for chunk in stream.as_bytes().chunks(len) {
            decoder.handle_bytes(chunk).unwrap();
        }
        assert_eq!(take_all(&mut decoder), seen, "the items differ with chunks of {len} bytes");
    }
}
