//! Why a subscription was not opened.

use downlink_log::{OpenError, store::StoreError};
use thiserror::Error;

use super::{InvalidName, publish_error::shown};

/// Nothing was subscribed.
///
/// `by_browser` decides the HTTP answer. A browser never comes back after an error status, so it
/// gets an empty stream with a reconnection time.
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
    /// A limit is reached: that of this subscription, of its client, or of all subscriptions.
    #[error("{error}")]
    AtLimit {
        /// Which.
        error: OpenError,
        /// Whether a browser asked.
        by_browser: bool,
    },
    /// A topic or pattern breaks the grammar.
    #[error("{} is neither a topic nor a pattern", shown(selector))]
    InvalidSelector {
        /// As it was given.
        selector: String,
        /// The rule that it breaks.
        #[source]
        reason: InvalidName,
    },
    /// The client id breaks the grammar.
    #[error("{} is not a client id", shown(client))]
    InvalidClient {
        /// As it was given.
        client: String,
        /// The rule that it breaks.
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
