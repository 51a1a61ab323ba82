//! Why a subscription was not opened.

use std::{error::Error, fmt};

use downlink_log::{OpenError, store::StoreError};

use super::{InvalidName, publish_error::shown};

/// Nothing was subscribed.
///
/// Where it says `by_browser`, the answer depends on who asked: a browser never comes back from an
/// error, so it gets an empty stream that tells it when to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The hub is closed.
    Closed {
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// The hub drains.
    Draining {
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// The store could not be read.
    Store {
        /// Why.
        error: StoreError,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// There are as many subscriptions as there may be.
    Full {
        /// The limit.
        subscribers_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// The client has as many subscriptions as it may have.
    ClientFull {
        /// The limit.
        subscribers_per_client_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// There is no room for another topic.
    TooManyTopics {
        /// The limit.
        topics_max: usize,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// More topics and patterns than one subscription may have.
    TooManySelectors {
        /// How many.
        selectors: usize,
        /// The limit.
        selectors_max: usize,
    },
    /// A topic or pattern breaks the grammar.
    InvalidSelector {
        /// As it was given.
        selector: String,
        /// What is wrong with it.
        reason: InvalidName,
    },
    /// The client id breaks the grammar.
    InvalidClient {
        /// As it was given.
        client: String,
        /// What is wrong with it.
        reason: InvalidName,
    },
    /// A filter looks at values, and the hub does not keep them.
    FilterNeedsValues,
    /// Every topic is finished, and the client has read all of it. The HTTP answer is 204, after
    /// which an `EventSource` stays away.
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
            OpenError::TooManyTopics { topics_max } => {
                Self::TooManyTopics { topics_max, by_browser }
            }
            _ => Self::Closed { by_browser },
        }
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { .. } => f.write_str("the hub is closed"),
            Self::Store { .. } => f.write_str("the store could not be read"),
            Self::Draining { .. } => f.write_str("the hub is about to go away"),
            Self::Full { subscribers_max, .. } => {
                write!(f, "there are {subscribers_max} subscriptions, which is the limit")
            }
            Self::ClientFull { subscribers_per_client_max, .. } => write!(
                f,
                "the client has {subscribers_per_client_max} subscriptions, which is the limit"
            ),
            Self::TooManyTopics { topics_max, .. } => {
                write!(f, "there are {topics_max} topics, which is the limit")
            }
            Self::TooManySelectors { selectors, selectors_max } => {
                write!(
                    f,
                    "a subscription names at most {selectors_max} topics and patterns, not {selectors}"
                )
            }
            Self::InvalidSelector { selector, .. } => {
                write!(f, "{} is neither a topic nor a pattern", shown(selector))
            }
            Self::InvalidClient { client, .. } => write!(f, "{} is not a client id", shown(client)),
            Self::FilterNeedsValues => {
                f.write_str("a filter needs the hub to keep values: build it with keep_values")
            }
            Self::Finished => f.write_str("every topic is finished and read"),
        }
    }
}

impl Error for SubscribeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::InvalidSelector { reason, .. } | Self::InvalidClient { reason, .. } => {
                Some(reason)
            }
            Self::Store { error, .. } => Some(error),
            _ => None,
        }
    }
}
