//! The position of an event in a log: the offset, the epoch, the cursor, and the event id that
//! clients see.
//!
//! A cursor contains the next offset to read. The id of a cursor contains the offset before that,
//! which is the last offset that was delivered. So `<epoch>-0` is the id of a reader that has read
//! nothing.

use std::fmt;
use std::time::{Duration, SystemTime};

/// The position of an event in a log. Offsets are unique in one epoch and increase strictly from 1.
///
/// A log may skip offsets. A skipped offset does not mean that an event is missing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Offset(u64);

impl Offset {
    /// The first offset that a log assigns.
    pub const FIRST: Self = Self(1);

    /// The offset with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch. Converts to and from [`SystemTime`].
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use downlink_log::Timestamp;
///
/// let an_hour_ago = SystemTime::now() - Duration::from_secs(3_600);
/// let since = Timestamp::from(an_hour_ago);
/// assert!(SystemTime::from(since) <= an_hour_ago);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time this many milliseconds after 1970-01-01 UTC.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds after 1970-01-01 UTC.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time that is `span` after this time, but at most the largest time stamp.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The last millisecond of the year 9999. Some systems cannot represent times that are much later.
const SYSTEM_TIME_MAX_MS: u64 = 253_402_300_799_999;

impl From<SystemTime> for Timestamp {
    /// Rounds down to whole milliseconds. A time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self(0).after(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl From<Timestamp> for SystemTime {
    /// A time after the year 9999 becomes the end of that year.
    fn from(time: Timestamp) -> Self {
        SystemTime::UNIX_EPOCH + Duration::from_millis(time.0.min(SYSTEM_TIME_MAX_MS))
    }
}

/// A period in which the offsets of a log are unique. Its name is eight characters of `[0-9a-z]`. A
/// log gets a new epoch whenever it may have lost history.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Epoch([u8; Self::LEN]);

impl Epoch {
    /// The number of characters of an epoch. There are 36^8 = 2.8 · 10^12 epochs, so two random
    /// epochs of one hub are practically never equal.
    pub const LEN: usize = 8;

    /// The epoch made from random bits.
    pub fn from_random(mut random: u64) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        Self(std::array::from_fn(|_| {
            let digit = DIGITS[(random % 36) as usize];
            random /= 36;
            digit
        }))
    }

    /// The epoch with this text, or `None` if the text is not eight characters of `[0-9a-z]`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()).then_some(Self(bytes))
    }

    /// The eight characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// An epoch and the next offset to read. A cursor is written as an id, which consists of the epoch,
/// `-`, and the offset before `next`.
///
/// ```
/// use downlink_log::{Cursor, Epoch, Offset};
/// let cursor = Cursor::parse_id("k3j9x0qa-41").ok_or("not a cursor")?;
/// assert_eq!(cursor.next, Offset::new(42));
/// assert_eq!(cursor.to_string(), "k3j9x0qa-41");
/// assert_eq!(Cursor::parse_id("evt-7"), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cursor {
    /// The epoch that the offset belongs to.
    pub epoch: Epoch,
    /// The next offset to read.
    pub next: Offset,
}

impl Cursor {
    /// The cursor after the event with this id. `None` if no log writes such an id.
    pub fn parse_id(id: &str) -> Option<Self> {
        let (epoch, offset) = split_id(id)?;
        let canonical = offset == "0" || !offset.starts_with('0');
        let last: u64 = offset.parse().ok().filter(|_| canonical)?;
        Some(Self { epoch, next: Offset(last.checked_add(1)?) })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.next.get().saturating_sub(1))
    }
}

/// Whether an id consists of an epoch, `-` and digits, like the ids that a log writes. The number
/// may have leading zeros or be too large, so [`Cursor::parse_id`] refuses some ids for which this
/// function returns `true`.
///
/// Publishers must not give such ids to events, because a log would take them for cursors.
pub fn resembles_cursor(id: &str) -> bool {
    split_id(id).is_some()
}

fn split_id(id: &str) -> Option<(Epoch, &str)> {
    let (epoch, offset) = id.split_once('-')?;
    let digits = !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_digit());
    digits.then_some((Epoch::parse(epoch)?, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_convert_to_and_from_system_time() {
        for millis in [0, 1, 1_700_000_000_123, SYSTEM_TIME_MAX_MS] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
        let below_a_milli = SystemTime::UNIX_EPOCH + Duration::from_micros(1_999);
        assert_eq!(Timestamp::from(below_a_milli), Timestamp(1));
        assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), Timestamp(0));
        let end = SystemTime::from(Timestamp(SYSTEM_TIME_MAX_MS));
        assert_eq!(SystemTime::from(Timestamp(SYSTEM_TIME_MAX_MS + 1)), end);
        assert_eq!(SystemTime::from(Timestamp(u64::MAX)), end);
    }

    #[test]
    fn the_id_of_a_cursor_is_parsed_to_the_same_cursor() {
        let cursor = Cursor { epoch: Epoch::from_random(12345), next: Offset(8) };
        assert_eq!(Cursor::parse_id(&cursor.to_string()), Some(cursor));
    }

    #[test]
    fn ids_that_no_log_writes_are_not_cursors() {
        for id in
            ["", "evt-7", "k3j9x0qa", "k3j9x0qa-", "k3j9x0qa-7x", "K3j9x0qa-7", "k3j9x0qa-+7", "-7"]
        {
            assert_eq!(Cursor::parse_id(id), None, "{id}");
            assert!(!resembles_cursor(id), "{id}");
        }
    }

    #[test]
    fn ids_with_too_large_numbers_or_leading_zeros_only_resemble_cursors() {
        for id in ["k3j9x0qa-18446744073709551615", "k3j9x0qa-99999999999999999999", "k3j9x0qa-07"]
        {
            assert_eq!(Cursor::parse_id(id), None, "{id}");
            assert!(resembles_cursor(id), "{id}");
        }
    }

    #[test]
    fn the_longest_id_has_29_bytes() {
        let cursor = Cursor { epoch: Epoch::from_random(u64::MAX), next: Offset(u64::MAX) };
        assert_eq!(cursor.to_string().len(), 29);
    }

    #[test]
    fn epochs_have_eight_characters() {
        assert_eq!(Epoch::from_random(0).as_str(), "00000000");
        assert_eq!(Epoch::from_random(u64::MAX).as_str().len(), Epoch::LEN);
    }
}
