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
    #[error("too many subscriptions are open: the limit is {subscribers_max}")]
    Full {
        /// The limit.
        subscribers_max: usize,
    },
    /// The client already has the maximum number of readers.
    #[error(
        "the client has too many open subscriptions: the limit is {subscribers_per_client_max}"
    )]
    ClientFull {
        /// The limit.
        subscribers_per_client_max: usize,
    },
    /// The selection names too many topics and patterns.
    #[error("the subscription names {selectors} topics and patterns: the limit is {selectors_max}")]
    TooManySelectors {
        /// The number of topics and patterns.
        selectors: usize,
        /// The limit.
        selectors_max: usize,
    },
    /// With this reader, all readers together would name more topics and clients than the limit
    /// allows.
    #[error(
        "all open subscriptions together name too many topics and clients: the limit is \
         {subscribed_names_max}"
    )]
    TooManyNames {
        /// The limit.
        subscribed_names_max: usize,
    },
    /// With this reader, all readers together would have more patterns than the limit allows.
    #[error("all open subscriptions together have too many patterns: the limit is {patterns_max}")]
    TooManyPatterns {
        /// The limit.
        patterns_max: usize,
    },
}
