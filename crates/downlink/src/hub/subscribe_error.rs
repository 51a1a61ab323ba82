//! Why a subscription was not opened.

use std::{error::Error, fmt};

use downlink_log::{OpenError, store::StoreError};

use super::{InvalidName, publish_error::shown};

/// Nothing was subscribed. [`kind`](Self::kind) says why.
///
/// As a response it also depends on the client. A browser never comes back after an error status, so
/// it gets an empty stream with a reconnection time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscribeError {
    pub(super) kind: SubscribeErrorKind,
    /// Whether a browser asked. Only the response depends on it.
    pub(crate) by_browser: bool,
}

impl SubscribeError {
    /// What happened.
    pub fn kind(&self) -> &SubscribeErrorKind {
        &self.kind
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for SubscribeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// What happened to a subscription that was not opened.
#[derive(Clone, Debug, Eq, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SubscribeErrorKind {
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed,
    /// The hub drains.
    #[error("the hub is about to go away")]
    Draining,
    /// The store could not be read.
    #[error("the store could not be read")]
    Store(#[source] StoreError),
    /// A limit is reached: that of this subscription, of its client, or of all subscriptions.
    #[error("{0}")]
    AtLimit(OpenError),
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

impl SubscribeErrorKind {
    /// Whether the hub refused a subscription that was valid.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Closed | Self::Draining | Self::Store(_) | Self::AtLimit(_))
    }
}
