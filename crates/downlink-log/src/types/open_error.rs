//! Why the log refused to open a reader.

use thiserror::Error;

/// The log refused to open a reader. Nothing changed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum OpenError {
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The log already has the maximum number of readers.
    #[error("there are {subscribers_max} subscriptions, which is the limit")]
    Full {
        /// The limit.
        subscribers_max: usize,
    },
    /// The client already has the maximum number of readers.
    #[error("the client has {subscribers_per_client_max} subscriptions, which is the limit")]
    ClientFull {
        /// The limit.
        subscribers_per_client_max: usize,
    },
    /// The selection names too many topics and patterns.
    #[error("a subscription names at most {selectors_max} topics and patterns, not {selectors}")]
    TooManySelectors {
        /// The number of topics and patterns.
        selectors: usize,
        /// The limit.
        selectors_max: usize,
    },
    /// With this reader, all readers together would name more topics and clients than the limit
    /// allows.
    #[error(
        "the open subscriptions name {subscribed_names_max} topics and clients, which is the limit"
    )]
    TooManyNames {
        /// The limit.
        subscribed_names_max: usize,
    },
    /// With this reader, all readers together would have more patterns than the limit allows.
    #[error("the open subscriptions name {patterns_max} patterns, which is the limit")]
    TooManyPatterns {
        /// The limit.
        patterns_max: usize,
    },
}
