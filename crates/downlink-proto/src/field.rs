//! The values of fields that take one line of an event stream: types, ids and reconnection times.
//!
//! The format cannot escape a line break, so the text after a line break would become a second
//! field. The types of this module reject values with a line break, and an [`Event`](crate::Event)
//! takes only these types. Data and comments may have several lines; the module `text` writes them.

use std::{fmt, str::FromStr, time::Duration};

use crate::text::{self, Decimal};

/// The maximum size of an event type, in bytes.
///
/// A type is a name that a program listens for, and every event of the type repeats this name. A
/// name of more than 128 bytes is most likely a mistake.
pub const EVENT_TYPE_BYTES_MAX: usize = 128;

/// The maximum size of an event id, in bytes.
///
/// A reader sends the id back in a request header, and many servers refuse more than 8 KiB of
/// headers. 1 KiB is enough for any meaningful id, and leaves room for cookies and credentials.
pub const EVENT_ID_BYTES_MAX: usize = 1_024;

/// The value of an `event` field. It selects the listeners that get the event.
///
/// An empty type means no type, and readers then use `message`. The standard allows NUL in an event
/// type. `EventType` refuses NUL, because some readers drop NUL and would see another type.
///
/// Invariant: no CR, LF or NUL; at most [`EVENT_TYPE_BYTES_MAX`] bytes.
///
/// ```
/// use downlink_proto::EventType;
///
/// # fn main() -> Result<(), downlink_proto::InvalidField> {
/// assert_eq!(EventType::new("price")?.as_str(), "price");
/// assert!(EventType::new("price\ndata: forged").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventType(Box<str>);

impl EventType {
    /// Makes an event type from text.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] if the text holds CR, LF or NUL or is longer than [`EVENT_TYPE_BYTES_MAX`].
    pub fn new(value: &str) -> Result<Self, InvalidField> {
        check("event", value, EVENT_TYPE_BYTES_MAX)?;
        Ok(Self(value.into()))
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of an `id` field. A reader sends an id back to resume after the event with this id.
///
/// The empty id is legal and clears the reader's last event id. An id may have characters that are
/// not ASCII, as the standard allows. Readers send such an id as raw UTF-8 bytes in a header, and
/// some proxies refuse a request with such a header.
///
/// Invariant: an id has no CR or LF, because these characters would end its line. It has no NUL,
/// because a reader ignores an id with NUL, and would silently resume after an older event. It has
/// no space or tab at either end, because HTTP trims header values, and readers would send back a
/// different id. It has at most [`EVENT_ID_BYTES_MAX`] bytes.
///
/// ```
/// use downlink_proto::EventId;
///
/// # fn main() -> Result<(), downlink_proto::InvalidField> {
/// assert_eq!(EventId::new("order 7")?.as_str(), "order 7");
/// assert!(EventId::new(" 7").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId(Box<str>);

impl EventId {
    /// Makes an event id from text.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] if the text holds CR, LF or NUL, begins or ends with a space or a tab, or
    /// is longer than [`EVENT_ID_BYTES_MAX`].
    pub fn new(value: &str) -> Result<Self, InvalidField> {
        check("id", value, EVENT_ID_BYTES_MAX)?;
        let mut ends = value.char_indices().take(1).chain(value.char_indices().next_back());
        match ends.find(|(_, end)| matches!(end, ' ' | '\t')) {
            Some((at, _)) => {
                Err(InvalidField { field: "id", reason: InvalidReason::OuterSpace { at } })
            }
            None => Ok(Self(value.into())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the length. Also checks that no character would end the line or make readers ignore the
/// field.
fn check(field: &'static str, value: &str, bytes_max: usize) -> Result<(), InvalidField> {
    let bytes = value.len();
    let broken = || value.char_indices().find(|(_, found)| matches!(found, '\r' | '\n' | '\0'));
    let reason = if bytes > bytes_max {
        InvalidReason::TooLong { bytes, bytes_max }
    } else if let Some((at, character)) = broken() {
        InvalidReason::Character { at, character }
    } else {
        return Ok(());
    };
    Err(InvalidField { field, reason })
}

macro_rules! text_conversions {
    ($field:ident) => {
        impl $field {
            /// Makes the value from a literal.
            ///
            /// # Panics
            ///
            /// Panics if [`new`](Self::new) would return an error. Use this function only for
            /// literals. A mistake in a literal shows when the code runs for the first time.
            ///
            /// ```
            /// use downlink_proto::{Event, EventId, EventType};
            ///
            /// let event = Event::new("7").event(EventType::from_static("tick"));
            /// let event = event.id(EventId::from_static("start"));
            /// assert_eq!(event.encode().as_bytes(), b"event: tick\nid: start\ndata: 7\n\n");
            /// ```
            #[must_use]
            #[track_caller]
            pub fn from_static(literal: &'static str) -> Self {
                match Self::new(literal) {
                    Ok(value) => value,
                    Err(error) => panic!("{error}"),
                }
            }
        }

        impl fmt::Display for $field {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $field {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl FromStr for $field {
            type Err = InvalidField;

            fn from_str(value: &str) -> Result<Self, InvalidField> {
                Self::new(value)
            }
        }
    };
}

text_conversions!(EventType);
text_conversions!(EventId);

/// The error for a text that cannot be an event type or an event id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the `{field}` field {reason}")]
#[non_exhaustive]
pub struct InvalidField {
    /// The field's name in the standard: `event` or `id`.
    pub field: &'static str,
    /// The reason why the value was refused, with the position of the mistake or the size of the
    /// value.
    pub reason: InvalidReason,
}

/// The reason why a value was refused. The message of [`InvalidField`] names the field, and then
/// contains the text that `Display` writes for this reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReason {
    /// The value has a character that would end the line, or make readers ignore the field.
    #[error("cannot carry {} (byte {at}); remove it", name_of(*character))]
    #[non_exhaustive]
    Character {
        /// The position of the character, in bytes from the start of the value.
        at: usize,
        /// CR, LF or NUL.
        character: char,
    },
    /// The value begins or ends with a space or a tab, which HTTP would cut off.
    #[error("begins or ends with a space or tab (byte {at}), which HTTP would cut off; trim it")]
    #[non_exhaustive]
    OuterSpace {
        /// The position of the space or tab, in bytes from the start of the value.
        at: usize,
    },
    /// The value has more bytes than the field may have.
    #[error("has {bytes} bytes, and at most {bytes_max} are allowed; shorten it")]
    #[non_exhaustive]
    TooLong {
        /// The length of the value, in bytes.
        bytes: usize,
        /// The maximum length of the value, in bytes.
        bytes_max: usize,
    },
}

fn name_of(character: char) -> &'static str {
    match character {
        '\r' => "a carriage return",
        '\n' => "a line feed",
        _ => "a NUL",
    }
}

/// The value of a `retry` field: a reconnection time in whole milliseconds. A reader waits this
/// long before it reconnects.
///
/// The conversion from a [`Duration`] rounds up to whole milliseconds, so a short wait never
/// becomes zero. A duration that is too long for a `u64` becomes the maximum.
///
/// ```
/// use std::time::Duration;
/// use downlink_proto::Retry;
///
/// assert_eq!(Retry::from(Duration::from_micros(1_500)).as_millis(), 2);
/// assert_eq!(Retry::from_millis(3_000).as_duration(), Duration::from_secs(3));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Retry(u64);

impl Retry {
    /// Makes a reconnection time from milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The time in milliseconds, as on the wire.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time as a [`Duration`].
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Parses a `retry` value: one or more ASCII digits. `None` for any other value.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let digits = value.iter().map(|digit| u64::from(digit.wrapping_sub(b'0')));
        let millis = digits.fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(digit));
        is_number.then_some(Self(millis))
    }

    /// The number of bytes that [`write_line`](Self::write_line) writes.
    pub(crate) fn line_len(self) -> usize {
        text::line_len("retry", Decimal::new(self.0).as_bytes().len())
    }

    /// Writes the `retry` field.
    pub(crate) fn write_line(self, out: &mut Vec<u8>) {
        text::write_line("retry", Decimal::new(self.0).as_str(), out);
    }
}

impl From<Duration> for Retry {
    fn from(duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

impl From<Retry> for Duration {
    fn from(retry: Retry) -> Self {
        retry.as_duration()
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
