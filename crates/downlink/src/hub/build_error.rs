//! Why a hub cannot be made.

use std::{fmt, time::Duration};

use downlink_log::store::StoreError;

use super::InvalidName;

/// A hub cannot be as it was asked to be.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HubError {
    /// A retention rule is for something that is neither a topic nor a pattern.
    InvalidSelector {
        /// The selector.
        selector: String,
        /// What is wrong with it.
        reason: InvalidName,
    },
    /// A retention rule keeps no event: readers would have nothing to read.
    NoEvents,
    /// An event may be larger than all history together.
    EventAboveHub {
        /// The limit of one event in bytes.
        event_bytes_max: usize,
        /// The limit of the hub in bytes.
        bytes_max: usize,
    },
    /// The span of reconnection times is empty.
    EmptySpread,
    /// A hub with a store keeps values and was not told how to read them back.
    ValuesNeedDecoding,
    /// The store could not be opened.
    Store(StoreError),
    /// The hub would linger for too long.
    LingerTooLong {
        /// What was asked for.
        linger: Duration,
        /// The longest.
        linger_max: Duration,
    },
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidSelector { selector, .. } => {
                write!(f, "{selector:?} is neither a topic nor a pattern")
            }
            Self::NoEvents => {
                f.write_str("a retention rule keeps no event; events_max is at least 1")
            }
            Self::EventAboveHub { event_bytes_max, bytes_max } => write!(
                f,
                "an event of {event_bytes_max} bytes does not fit into a hub of {bytes_max} bytes"
            ),
            Self::EmptySpread => f.write_str("drain_spread ends before it begins"),
            Self::ValuesNeedDecoding => f.write_str(
                "a store with keep_values needs decode_values, or decode_json, to read them back",
            ),
            Self::Store(_) => f.write_str("the store could not be opened"),
            Self::LingerTooLong { linger, linger_max } => {
                write!(f, "a linger of {linger:?} is too long; it is at most {linger_max:?}")
            }
        }
    }
}

impl std::error::Error for HubError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidSelector { reason, .. } => Some(reason),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}
