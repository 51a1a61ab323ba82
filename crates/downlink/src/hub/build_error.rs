//! Why a hub cannot be made.

use std::path::PathBuf;

use downlink_log::store::StoreError;
use thiserror::Error;

use super::InvalidName;

/// Why a hub cannot be built with these settings, or cannot get these retention rules.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HubError {
    /// No encoding was chosen.
    #[error("no encoding was chosen: call json, text or encode_with on the builder")]
    NoEncoding,
    /// The selector of a retention rule is neither a topic nor a pattern.
    #[error("{selector:?} is neither a topic nor a pattern")]
    InvalidSelector {
        /// The selector.
        selector: String,
        /// The rule that the selector breaks.
        #[source]
        reason: InvalidName,
    },
    /// A retention rule keeps no event, so readers would have nothing to read.
    #[error("a retention rule keeps no event: events_max must be at least 1")]
    NoEvents,
    /// The limit of one event is larger than the limit of the whole hub.
    #[error(
        "an event may have {event_bytes_max} bytes, but the whole hub only {bytes_max}: lower \
         event_bytes_max, or raise bytes_max of the limits"
    )]
    EventAboveHub {
        /// The limit of one event in bytes.
        event_bytes_max: usize,
        /// The limit of the hub in bytes.
        bytes_max: usize,
    },
    /// The limit of one event is higher than any hub allows.
    #[error(
        "an event may have {event_bytes_max} bytes, but at most {ceiling} are possible: \
         lower event_bytes_max"
    )]
    EventAboveCeiling {
        /// The limit of one event in bytes.
        event_bytes_max: usize,
        /// The highest possible limit.
        ceiling: usize,
    },
    /// The range of reconnection times is empty, because its end is before its start.
    #[error("the end of the range drain_spread is before its start")]
    EmptySpread,
    /// The hub has a store and keeps the app's values in memory (`keep_values`). It needs a
    /// function that makes values from stored events, but has none.
    #[error(
        "a hub with a store and keep_values needs decode_values or decode_json to read its values"
    )]
    ValuesNeedDecoding,
    /// The hub cannot follow its upstream.
    #[cfg(feature = "relay")]
    #[error("cannot follow the upstream: {0}")]
    Upstream(String),
    /// A node of a cluster cannot be started, or a cluster cannot be grown from a single server.
    #[cfg(feature = "cluster")]
    #[error("the node of a cluster cannot be made: {0}")]
    Cluster(String),
    /// The operating system has no random bytes. The hub needs them for the epoch in its event ids,
    /// and for the key with which it hashes the contents of events.
    #[error("cannot get random bytes from the operating system ({reason})")]
    NoRandomBytes {
        /// The error message of the operating system.
        reason: Box<str>,
    },
    /// The store could not be opened.
    #[error("the store {} could not be opened", file.display())]
    Store {
        /// The file of the store.
        file: PathBuf,
        /// The reason.
        #[source]
        error: StoreError,
    },
}
