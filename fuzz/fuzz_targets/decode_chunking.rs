//! Decodes any bytes in any chunks. The decoder has to find the same events as the naive reader,
//! which gets the whole stream at once. This also holds for a second stream after the first. If the
//! stream exceeds a limit, the decoder has to stop at the same place, whatever the size of the
//! chunks.
//!
//! The input is one byte, the lengths of the chunks, and the stream. The low four bits of the byte
//! are the number of lengths. Its highest bit chooses small limits. The lengths are used in turn; a
//! length of 0 makes an empty chunk.

#![no_main]

use downlink_proto::{DecodeError, Decoder, DecoderLimits};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/downlink-proto/tests/it/naive.rs"]
mod naive;
#[path = "../../crates/downlink-proto/tests/it/reader.rs"]
mod reader;

use naive::read_whole;
use reader::read_with;

fuzz_target!(|input: &[u8]| {
    let Some((head, rest)) = input.split_first() else { return };
    let Some((lengths, stream)) = rest.split_at_checked(usize::from(head & 0x0F)) else { return };
    let chunks = cut(stream, lengths);
    if head & 0x80 == 0 {
        check_against_naive_reader(stream, &chunks);
    } else {
        check_limits(stream, &chunks);
    }
});

/// Cuts the stream into chunks of these lengths, which are used in turn. If all lengths are 0, the
/// stream is one chunk.
fn cut<'a>(stream: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    if lengths.iter().all(|length| *length == 0) {
        return vec![stream];
    }
    let mut rest = stream;
    let mut chunks = Vec::new();
    for length in lengths.iter().cycle() {
        let (chunk, after) = rest.split_at(usize::from(*length).min(rest.len()));
        chunks.push(chunk);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    chunks
}

fn check_against_naive_reader(stream: &[u8], chunks: &[&[u8]]) {
    let mut decoder = Decoder::default();
    let (first, error) = read_with(&mut decoder, chunks.iter().copied());
    assert_eq!(error, None);
    assert_eq!(first, read_whole(stream, ""));

    let (second, error) = read_with(&mut decoder, chunks.iter().copied());
    assert_eq!(error, None);
    let mut expected = read_whole(stream, &first.last_event_id);
    // The decoder keeps the reconnection time and the last event id after the end of a stream.
    expected.reconnection_time = expected.reconnection_time.or(first.reconnection_time);
    assert_eq!(second, expected);
}

fn check_limits(stream: &[u8], chunks: &[&[u8]]) {
    let limits = DecoderLimits::default().line_bytes_max(12).event_bytes_max(9);
    let whole = read_with(&mut Decoder::new(limits), [stream]);
    assert_eq!(read_with(&mut Decoder::new(limits), chunks.iter().copied()), whole);

    let is_line_too_long =
        stream.split(|byte| matches!(byte, b'\r' | b'\n')).enumerate().any(|(number, line)| {
            let mark: &[u8] = if number == 0 { b"\xEF\xBB\xBF" } else { b"" };
            let line = line.strip_prefix(mark).unwrap_or(line);
            line.len() > 12
        });
    match whole.1 {
        None => {
            assert!(!is_line_too_long, "a line over the limit passed");
            assert_eq!(whole.0, read_whole(stream, ""));
        }
        Some(error) => {
            let is_line_error = matches!(error, DecodeError::LineTooLong { bytes_max: 12, .. });
            assert!(is_line_too_long || !is_line_error, "no line is over the limit");
            assert!(read_whole(stream, "").seen.starts_with(&whole.0.seen));
        }
    }
}
