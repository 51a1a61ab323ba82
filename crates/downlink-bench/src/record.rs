//! The record in a payload, which identifies a delivery: run, number, due time.
//!
//! A record has letters and digits only, so it survives JSON, forms and every encoding of a line. The
//! scanner finds records in a stream of bytes however it is cut, and ignores all other bytes.

use memchr::memmem::Finder;

/// The begin of a record; unlikely in any other text.
const MARKER: &[u8] = b"DlBenchRec";
/// Digits of the run, the number and the time, all hexadecimal.
const DIGITS: [usize; 3] = [8, 12, 16];

/// The length of a record, and so of the shortest payload.
pub(super) const RECORD_BYTES: usize = MARKER.len() + DIGITS[0] + DIGITS[1] + DIGITS[2];

/// One published event, as its payload identifies it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EventRecord {
    /// The run of the program that published it.
    pub(super) run: u32,
    /// Its number in the run, from 0.
    pub(super) number: u64,
    /// When it was due, in nanoseconds since the start of the run.
    pub(super) due_ns: u64,
}

impl EventRecord {
    /// Its text, filled up to the size of a payload.
    pub(super) fn payload(self, bytes: usize) -> String {
        let marker = MARKER.escape_ascii();
        let mut text = format!("{marker}{:08x}{:012x}{:016x}", self.run, self.number, self.due_ns);
        text.extend(std::iter::repeat_n('.', bytes.saturating_sub(RECORD_BYTES)));
        text
    }

    /// Reads the digits after a marker.
    fn parse(digits: &[u8]) -> Option<Self> {
        let (run, rest) = digits.split_at_checked(DIGITS[0])?;
        let (number, due) = rest.split_at_checked(DIGITS[1])?;
        let run = u32::try_from(hexadecimal(run)?).ok()?;
        Some(Self { run, number: hexadecimal(number)?, due_ns: hexadecimal(due)? })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// Finds records; shared by all streams.
#[derive(Debug)]
pub(super) struct Scanner {
    marker: Finder<'static>,
}

/// The last bytes of one stream, if they may begin a record.
#[derive(Debug)]
pub(super) struct Carry {
    bytes: [u8; RECORD_BYTES - 1],
    length: u8,
}

impl Default for Carry {
    fn default() -> Self {
        Self { bytes: [0; RECORD_BYTES - 1], length: 0 }
    }
}

impl Carry {
    fn kept(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Keeps the end of `bytes` that may begin a record.
    fn keep(&mut self, bytes: &[u8]) {
        let from = bytes.len().saturating_sub(self.bytes.len());
        // Few bytes pass the first comparison, which is much cheaper than the second.
        let begins = |at: &usize| bytes[*at] == MARKER[0] && may_begin(&bytes[*at..]);
        let start = (from..bytes.len()).find(begins).unwrap_or(bytes.len());
        let kept = &bytes[start..];
        self.bytes[..kept.len()].copy_from_slice(kept);
        self.length = kept.len() as u8;
    }
}

/// Whether the bytes begin with the marker, or with a part of it if they are shorter.
fn may_begin(bytes: &[u8]) -> bool {
    let length = bytes.len().min(MARKER.len());
    bytes[..length] == MARKER[..length]
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { marker: Finder::new(MARKER) }
    }

    /// Reports the records that end in `bytes`, the next of the stream that `carry` belongs to.
    pub(super) fn scan(&self, carry: &mut Carry, bytes: &[u8], mut found: impl FnMut(EventRecord)) {
        let mut from = 0;
        if carry.length > 0 {
            let Some(read) = self.scan_seam(carry, bytes, &mut found) else { return };
            from = read;
        }
        let rest = from + self.scan_whole(&bytes[from..], &mut found);
        carry.keep(&bytes[rest..]);
    }

    /// Scans the kept bytes together with the next ones. Returns the number of `bytes` that belong to a
    /// record found here, or nothing if all of them together may still begin one.
    fn scan_seam(
        &self,
        carry: &mut Carry,
        bytes: &[u8],
        found: &mut impl FnMut(EventRecord),
    ) -> Option<usize> {
        let mut seam = [0; 2 * RECORD_BYTES];
        let kept = carry.kept().len();
        let more = bytes.len().min(RECORD_BYTES - 1);
        seam[..kept].copy_from_slice(carry.kept());
        seam[kept..kept + more].copy_from_slice(&bytes[..more]);
        let seam = &seam[..kept + more];
        let read = self.scan_whole(seam, found);
        carry.length = 0;
        if more == bytes.len() {
            carry.keep(&seam[read..]);
            return None;
        }
        Some(read.saturating_sub(kept))
    }

    /// Reports every whole record and returns the end of the last one.
    fn scan_whole(&self, bytes: &[u8], found: &mut impl FnMut(EventRecord)) -> usize {
        let mut read = 0;
        while let Some(at) = self.marker.find(&bytes[read..]) {
            let digits = read + at + MARKER.len();
            let end = read + at + RECORD_BYTES;
            let Some(text) = bytes.get(digits..end) else { break };
            match EventRecord::parse(text) {
                Some(record) => {
                    found(record);
                    read = end;
                }
                None => read = digits,
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> EventRecord {
        EventRecord { run: 0xdead_beef, number, due_ns: 123_456_789 + number }
    }

    fn scanned(pieces: &[&[u8]]) -> Vec<EventRecord> {
        let (scanner, mut carry, mut found) = (Scanner::new(), Carry::default(), Vec::new());
        for piece in pieces {
            scanner.scan(&mut carry, piece, |record| found.push(record));
        }
        found
    }

    #[test]
    fn a_payload_is_as_long_as_asked_and_at_least_its_record() {
        assert_eq!(record(1).payload(100).len(), 100);
        assert_eq!(record(1).payload(RECORD_BYTES).len(), RECORD_BYTES);
        assert_eq!(record(1).payload(0).len(), RECORD_BYTES);
    }

    #[test]
    fn records_are_found_wherever_the_stream_is_cut() {
        let text = format!(
            "id: 1\ndata: {}\n\ndata: DlBenDlBenchRecDl{}\n\n{}",
            record(1).payload(60),
            record(2).payload(0),
            record(3).payload(0)
        );
        let bytes = text.as_bytes();
        let expected: Vec<_> = (1..=3).map(record).collect();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(scanned(&pieces), expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn records_are_found_byte_by_byte() {
        let text = record(7).payload(200) + &record(8).payload(200);
        let pieces: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(scanned(&pieces), [record(7), record(8)]);
    }

    #[test]
    fn a_marker_without_digits_is_no_record() {
        let text = record(1).payload(RECORD_BYTES).replace("0000", "00g0");
        assert_eq!(scanned(&[text.as_bytes(), text.as_bytes()]), []);
    }
}
