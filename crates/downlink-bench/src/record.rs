//! The record in a payload, which identifies the event: run, number, due time.
//!
//! A record has only letters and digits, so encoding it as JSON, as a form or as an event stream
//! does not change it. The scanner finds the records in a stream of bytes, even if a record arrives
//! in several pieces. It ignores all other bytes.

use memchr::memmem::Finder;

/// The first bytes of a record, which are unlikely in any other text.
const MARKER: &[u8] = b"DlBenchRec";
/// The number of hexadecimal digits of the run, the event's number and the due time.
const DIGITS: [usize; 3] = [8, 12, 16];

/// The length of a record, which is also the minimum length of a payload.
pub(super) const RECORD_BYTES: usize = MARKER.len() + DIGITS[0] + DIGITS[1] + DIGITS[2];

/// The record of one published event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EventRecord {
    /// The run of the load tool that published the event.
    pub(super) run: u32,
    /// The event's number in the run, from 0.
    pub(super) number: u64,
    /// The time at which the event was due, in nanoseconds since the start of the run.
    pub(super) due_ns: u64,
}

impl EventRecord {
    /// The text of the record. If it is shorter than `bytes`, dots fill the payload to this length.
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

/// Finds records. All streams share one scanner.
#[derive(Debug)]
pub(super) struct Scanner {
    marker: Finder<'static>,
}

/// The last bytes of one stream, if they may be the beginning of a record.
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

    /// Keeps the last bytes of `bytes` that may be the beginning of a record.
    fn keep(&mut self, bytes: &[u8]) {
        let from = bytes.len().saturating_sub(self.bytes.len());
        // The first comparison is much faster than the second, and excludes most bytes.
        let begins = |at: &usize| bytes[*at] == MARKER[0] && may_begin(&bytes[*at..]);
        let start = (from..bytes.len()).find(begins).unwrap_or(bytes.len());
        let kept = &bytes[start..];
        self.bytes[..kept.len()].copy_from_slice(kept);
        self.length = kept.len() as u8;
    }
}

/// True if the bytes begin with the marker. If there are fewer bytes than the marker has, they have
/// to be the first bytes of the marker.
fn may_begin(bytes: &[u8]) -> bool {
    let length = bytes.len().min(MARKER.len());
    bytes[..length] == MARKER[..length]
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { marker: Finder::new(MARKER) }
    }

    /// Calls `found` for each record that ends in `bytes`. `bytes` must be the next bytes of the
    /// stream to which `carry` belongs.
    pub(super) fn scan(&self, carry: &mut Carry, bytes: &[u8], mut found: impl FnMut(EventRecord)) {
        let mut from = 0;
        if carry.length > 0 {
            let Some(read) = self.scan_seam(carry, bytes, &mut found) else { return };
            from = read;
        }
        let rest = from + self.scan_whole(&bytes[from..], &mut found);
        carry.keep(&bytes[rest..]);
    }

    /// Scans the seam (the kept bytes and the next bytes) for records that begin in the kept bytes.
    /// Returns how many of `bytes` belong to these records. Returns `None` if all of `bytes` have
    /// been scanned.
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

    /// Calls `found` for each complete record, and returns the end of the last record.
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
    fn a_payload_has_the_requested_length_but_is_never_shorter_than_its_record() {
        assert_eq!(record(1).payload(100).len(), 100);
        assert_eq!(record(1).payload(RECORD_BYTES).len(), RECORD_BYTES);
        assert_eq!(record(1).payload(0).len(), RECORD_BYTES);
    }

    #[test]
    fn records_are_found_if_the_stream_is_cut_at_any_two_places() {
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
    fn records_are_found_if_each_byte_arrives_alone() {
        let text = record(7).payload(200) + &record(8).payload(200);
        let pieces: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(scanned(&pieces), [record(7), record(8)]);
    }

    #[test]
    fn a_marker_without_hexadecimal_digits_is_not_a_record() {
        let text = record(1).payload(RECORD_BYTES).replace("0000", "00g0");
        assert_eq!(scanned(&[text.as_bytes(), text.as_bytes()]), []);
    }
}
