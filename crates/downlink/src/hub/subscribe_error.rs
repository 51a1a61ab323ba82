//! Why a subscription was not opened.

use downlink_log::{OpenError, store::StoreError};
use thiserror::Error;

use super::{InvalidName, publish_error::shown};

/// Nothing was subscribed.
///
/// Where it says `by_browser`, the answer depends on who asked: a browser never comes back from an
/// error, so it gets an empty stream that tells it when to.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed {
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// The hub drains.
    #[error("the hub is about to go away")]
    Draining {
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// The store could not be read.
    #[error("the store could not be read")]
    Store {
        /// Why.
        #[source]
        error: StoreError,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// There are as many subscriptions as there may be.
    #[error("there are {subscribers_max} subscriptions, which is the limit")]
    Full {
        /// The limit.
        subscribers_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// The client has as many subscriptions as it may have.
    #[error("the client has {subscribers_per_client_max} subscriptions, which is the limit")]
    ClientFull {
        /// The limit.
        subscribers_per_client_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// All subscriptions together name as many topics and clients as allowed.
    #[error("{subscribed_names_max} topics and clients are subscribed to, which is the limit")]
    TooManyNames {
        /// The limit.
        subscribed_names_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// All subscriptions together have as many patterns as allowed.
    #[error("{patterns_max} patterns are subscribed to, which is the limit")]
    TooManyPatterns {
        /// The limit.
        patterns_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// More topics and patterns than one subscription may have.
    #[error("a subscription names at most {selectors_max} topics and patterns, not {selectors}")]
    TooManySelectors {
        /// How many.
        selectors: usize,
        /// The limit.
        selectors_max: usize,
    },
    /// A topic or pattern breaks the grammar.
    #[error("{} is neither a topic nor a pattern", shown(selector))]
    InvalidSelector {
        /// As it was given.
        selector: String,
        /// What is wrong with it.
        #[source]
        reason: InvalidName,
    },
    /// The client id breaks the grammar.
    #[error("{} is not a client id", shown(client))]
    InvalidClient {
        /// As it was given.
        client: String,
        /// What is wrong with it.
        #[source]
        reason: InvalidName,
    },
    /// A filter looks at values, and the hub does not keep them.
    #[error("a filter needs the hub to keep values: build it with keep_values")]
    FilterNeedsValues,
    /// Every topic is finished, and the client has read all of it. The HTTP answer is 204, after
    /// which an `EventSource` stays away.
    #[error("every topic is finished and read")]
    Finished,
}

impl SubscribeError {
    pub(super) fn from_open(error: OpenError, by_browser: bool) -> Self {
        match error {
            OpenError::Full { subscribers_max } => Self::Full { subscribers_max, by_browser },
            OpenError::ClientFull { subscribers_per_client_max } => {
                Self::ClientFull { subscribers_per_client_max, by_browser }
            }
            OpenError::TooManySelectors { selectors, selectors_max } => {
                Self::TooManySelectors { selectors, selectors_max }
            }
            OpenError::TooManyNames { subscribed_names_max } => {
                Self::TooManyNames { subscribed_names_max, by_browser }
            }
            OpenError::TooManyPatterns { patterns_max } => {
                Self::TooManyPatterns { patterns_max, by_browser }
            }
            _ => Self::Closed { by_browser },
        }
    }
}
