//! Tests of the decoder's limits, with input below, at and above each limit. Further tests check
//! the bounds on the decoder's memory and work. `main.rs` explains the numbers in the names of the
//! tests.

use std::error::Error as _;

use downlink_proto::{
    DecodeError, Decoder, DecoderLimits, EVENT_BYTES_MAX_DEFAULT, LINE_BYTES_MAX_DEFAULT,
};

use crate::{
    allocation::allocations_of,
    check::{comment, message, retry},
    naive::Seen,
    reader::{read_with, take_all},
};

/// Decodes a stream in one chunk, in two chunks cut at every position, and byte by byte. Checks the
/// items and the error. `outcome` is the expected error message, or `None` if no error is expected.
#[track_caller]
fn check(limits: DecoderLimits, stream: &[u8], expected: &[Seen], outcome: Option<&str>) {
    let agrees = |chunks: &[&[u8]]| {
        let (reading, error) = read_with(&mut Decoder::new(limits), chunks.iter().copied());
        assert_eq!(reading.seen, expected, "{chunks:?}");
        let error = error.map(|error| error.to_string());
        assert_eq!(error.as_deref(), outcome, "{chunks:?}");
    };
    agrees(&[stream]);
    for at in 0..=stream.len() {
        let (first, second) = stream.split_at(at);
        agrees(&[first, second]);
    }
    agrees(&stream.chunks(1).collect::<Vec<_>>());
}

#[track_caller]
fn check_line(stream: &str, expected: &[Seen], is_ok: bool) {
    let limits = DecoderLimits::default().line_bytes_max(8);
    let error = "a line of the event stream is longer than 8 bytes";
    check(limits, stream.as_bytes(), expected, (!is_ok).then_some(error));
}

#[track_caller]
fn check_event(stream: &[u8], expected: &[Seen], is_ok: bool) {
    let limits = DecoderLimits::default().event_bytes_max(8);
    let error = "an event of the stream is larger than 8 bytes";
    check(limits, stream, expected, (!is_ok).then_some(error));
}

#[test]
fn rule_10_a_line_may_be_as_long_as_the_limit() {
    check_line("data: a\n\n", &[message("a")], true);
    check_line("data: ab\n\n", &[message("ab")], true);
    check_line("data: ab\r\n\r\n", &[message("ab")], true);
    check_line("data: abc\n\n", &[], false);
    // The decoder returns the error as soon as the line is too long, before the end of the line
    // arrives.
    check_line("data: ab", &[], true);
    check_line("data: abc", &[], false);
    check_line("data: é\n\n", &[message("é")], true);
    check_line("data: aé\n\n", &[], false);
    // The limit applies to every kind of line. A byte order mark at the start of the stream does
    // not count.
    check_line(":1234567\n", &[comment("1234567")], true);
    check_line(":12345678\n", &[], false);
    check_line("123456789\n", &[], false);
    check_line("\u{FEFF}data: ab\n\n", &[message("ab")], true);
    check_line("\u{FEFF}data: abc\n\n", &[], false);
    check_line("\n\u{FEFF}12345\n\n", &[], true);
    check_line("\n\u{FEFF}123456\n\n", &[], false);
}

#[test]
fn rule_10_an_event_may_be_as_large_as_the_limit() {
    check_event(b"data: 1234567\n\n", &[message("1234567")], true);
    check_event(b"data: 12345678\n\n", &[message("12345678")], true);
    check_event(b"data: 123456789\n\n", &[], false);
    // The line feeds between data lines count, because they are part of the data.
    check_event(b"data: 1234\ndata: 678\n\n", &[message("1234\n678")], true);
    check_event(b"data: 1234\ndata: 6789\n\n", &[], false);
    check_event(&b"data\n".repeat(9), &[], true);
    check_event(&b"data\n".repeat(10), &[], false);
    // U+FFFD, which replaces an invalid byte, counts as three bytes.
    check_event(b"data: \xFF\xFF12\n\n", &[message("\u{FFFD}\u{FFFD}12")], true);
    check_event(b"data: \xFF\xFF\xFF\n\n", &[], false);
}

#[test]
fn rule_10_type_and_id_count_towards_the_size_of_the_event() {
    let seen = [crate::check::event("abc", "345").own_id("12")];
    check_event(b"event: abc\nid: 12\ndata: 345\n\n", &seen, true);
    check_event(b"event: abc\nid: 12\ndata: 3456\n\n", &[], false);
    check_event(b"data: 3456\nid: 12\nevent: abc\n\n", &[], false);
    check_event(b"data: 3456\nevent: abc\nid: 12\n\n", &[], false);
    check_event(b"event: 123456789\n", &[], false);
    check_event(b"id: 123456789\n", &[], false);
    // If a block has several types or ids, only the last type and the last id count. An id with
    // NUL is ignored, so it does not count.
    check_event(b"event: 12345678\nevent: 1234567\nevent: a\n\n", &[], true);
    check_event(b"id: 12345678\nid: 1234567\nid: 123456789\0\n\n", &[], true);
    // The count begins at 0 in each block. An id that an earlier block has set does not count.
    let seen = [message("12345678").kept_id("12345678")];
    check_event(b"id: 12345678\n\ndata: 12345678\n\n", &seen, true);
}

#[test]
fn comments_and_other_fields_do_not_count_towards_the_size_of_the_event() {
    let seen = [comment("a long comment"), retry(1_000_000_000), message("x")];
    check_event(b":a long comment\nretry: 1000000000\nunknown: x x x x\ndata: x\n\n", &seen, true);
}

#[test]
fn items_before_an_exceeded_limit_can_still_be_taken() {
    let mut decoder = Decoder::new(DecoderLimits::default().line_bytes_max(8));
    let error = decoder.handle_bytes(b"id: 1\ndata: a\n\nid: 2\ndata: abc\n\ndata: b\n\n");
    assert!(matches!(error, Err(DecodeError::LineTooLong { bytes_max: 8, .. })));
    assert!(error.unwrap_err().source().is_none());
    assert_eq!(take_all(&mut decoder), [message("a").own_id("1")]);
    assert_eq!(decoder.last_event_id(), "1");
}

#[test]
fn after_an_exceeded_limit_every_call_fails_until_a_new_stream() {
    let mut decoder = Decoder::new(DecoderLimits::default().event_bytes_max(2));
    let error = decoder.handle_bytes(b"id: 1\n\ndata: abc\n\n");
    assert!(matches!(error, Err(DecodeError::EventTooLarge { bytes_max: 2, .. })));
    assert_eq!(decoder.handle_bytes(b"\n\ndata: b\n\n"), error);
    assert_eq!(decoder.handle_bytes(b""), error);
    assert_eq!(take_all(&mut decoder), []);
    decoder.handle_end();
    decoder.handle_bytes(b"data: b\n\n").unwrap();
    assert_eq!(take_all(&mut decoder), [message("b").kept_id("1")]);
}

#[test]
fn a_limit_may_be_zero() {
    let limits = DecoderLimits::default().line_bytes_max(0);
    check(limits, b"\n\r\n\r", &[], None);
    let error = Some("a line of the event stream is longer than 0 bytes");
    check(limits, b"\nx", &[], error);
    let limits = DecoderLimits::default().event_bytes_max(0);
    check(limits, b"data\n\n", &[message("")], None);
    check(limits, b"data\ndata\n", &[], Some("an event of the stream is larger than 0 bytes"));
}

#[test]
fn the_default_limits_apply() {
    let limits = DecoderLimits::default();
    assert_eq!(limits.line_bytes_max, LINE_BYTES_MAX_DEFAULT);
    assert_eq!(limits.event_bytes_max, EVENT_BYTES_MAX_DEFAULT);
    let line = vec![b'x'; LINE_BYTES_MAX_DEFAULT];
    let mut decoder = Decoder::default();
    decoder.handle_bytes(&line).unwrap();
    assert!(decoder.handle_bytes(b"x").is_err());
}

/// Decodes a stream in chunks of this length, and drops each item at once. Returns the peak memory
/// of the decoder.
fn peak(limits: DecoderLimits, stream: &[u8], chunk_len: usize) -> usize {
    let (_, used) = allocations_of(|| {
        let mut decoder = Decoder::new(limits);
        for chunk in stream.chunks(chunk_len) {
            let result = decoder.handle_bytes(chunk);
            while decoder.poll_item().is_some() {}
            if result.is_err() {
                break;
            }
        }
    });
    usize::try_from(used.peak).unwrap()
}

/// A growing buffer takes up to three times its old size, because the old buffer and a new buffer
/// of twice the size are in memory at the same time.
const GROWTH: usize = 3;

#[test]
fn rule_10_memory_is_bounded_by_the_limits_and_the_chunk() {
    let limits = DecoderLimits::default().line_bytes_max(4_096).event_bytes_max(16_384);
    // Each invalid byte of a line becomes U+FFFD, which takes three bytes. So the decoded text may
    // be three times as long as the line.
    let bound = GROWTH * (4_096 + 16_384) + 3 * 4_096 + 1_024;
    for endless in [
        &b"x"[..],
        b"data: x\n",
        b"data\n",
        b"data: \xFF\xFF\xFF\xFF\xFF\xFF\n",
        b"\xFF",
        b"id: 1\n",
        b"event: t\n",
        b": c\n",
        b":\n",
        b"unknown\n",
        b"retry: 5\n",
        b"id: 1\n\n",
        b"data: a\n\n",
        b"\r\n",
    ] {
        let stream = endless.repeat(2_000_000 / endless.len());
        let peak = peak(limits, &stream, 64);
        assert!(peak <= bound, "the decoder takes {peak} bytes for {}", endless.escape_ascii());
    }
}

/// The items of a chunk wait in a queue. So the memory for a chunk of tiny items is proportional to
/// the length of the chunk.
#[test]
fn memory_for_waiting_items_is_linear_in_the_length_of_the_chunk() {
    for endless in [&b":\n"[..], b"id\n\n", b"id: 1\n\n", b"data\n\n", b"retry:5\n"] {
        let stream = endless.repeat(40_000 / endless.len());
        let peak = peak(DecoderLimits::default(), &stream, stream.len());
        assert!(
            peak <= stream.len() * 150,
            "the decoder takes {peak} bytes for {}",
            endless.escape_ascii()
        );
    }
}

#[test]
fn the_memory_of_a_long_line_is_released() {
    let mut decoder = Decoder::default();
    let long = format!("data: {}\n\n", "x".repeat(1_000_000));
    let ((), used) = allocations_of(|| {
        for chunk in long.as_bytes().chunks(1_000) {
            decoder.handle_bytes(chunk).unwrap();
        }
        while decoder.poll_item().is_some() {}
        decoder.handle_bytes(b"data: short\n\n").unwrap();
        while decoder.poll_item().is_some() {}
    });
    assert!(used.peak > 1_000_000);
    assert!(used.live < 100_000, "the decoder still holds {} bytes", used.live);
}

#[test]
fn the_memory_of_a_chunk_of_many_items_is_released() {
    let chunk = b":\n".repeat(20_000);
    let (decoder, used) = allocations_of(|| {
        let mut decoder = Decoder::default();
        decoder.handle_bytes(&chunk).unwrap();
        while decoder.poll_item().is_some() {}
        decoder
    });
    assert!(used.peak > 1_000_000);
    assert!(used.live < 10_000, "the decoder still holds {} bytes", used.live);
    drop(decoder);
}

/// The number of allocated bytes grows linearly with the size of an event, not quadratically.
#[test]
fn v25_allocated_memory_grows_linearly_with_the_size_of_the_event() {
    let bytes_for = |len: usize| {
        let stream = format!("data: {}\n\n", "x".repeat(len));
        let (reading, used) = allocations_of(|| {
            let mut decoder = Decoder::default();
            for chunk in stream.as_bytes().chunks(10) {
                decoder.handle_bytes(chunk).unwrap();
            }
            decoder.poll_item()
        });
        assert!(reading.is_some());
        used.bytes
    };
    let (small, large) = (bytes_for(1 << 20), bytes_for(10 << 20));
    assert!(
        large < small * 25,
        "a small event allocates {small} bytes; an event ten times as large allocates {large}"
    );
}
