//! Why a subscription was not opened.

use std::{error::Error, fmt};

use downlink_log::{OpenError, store::StoreError};

use super::{InvalidName, publish_error::shown};

/// Why a subscription was not opened. [`kind`](Self::kind) has the reason.
///
/// The response to the client depends on the reason and on the client. A browser never reconnects
/// after an error status, so it may get an empty stream with a reconnection time instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscribeError {
    pub(super) kind: SubscribeErrorKind,
    /// Whether the client is a browser. Only the response depends on this.
    pub(crate) by_browser: bool,
}

impl SubscribeError {
    /// The reason.
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

/// The reason why a subscription was not opened.
#[derive(Clone, Debug, Eq, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum SubscribeErrorKind {
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed,
    /// The hub is draining.
    #[error("the hub is draining and accepts no new subscriptions")]
    Draining,
    /// The hub follows an upstream and cannot reach it. Only the upstream knows where the client
    /// must continue.
    #[error("the upstream of this relay is away, and only it knows the client's last event id")]
    UpstreamAway,
    /// The store could not be read.
    #[error("the store could not be read")]
    Store(#[source] StoreError),
    /// A limit is reached: the limit of this subscription, of its client, or of all subscriptions
    /// together.
    #[error("{0}")]
    AtLimit(OpenError),
    /// A topic or pattern breaks a rule for topics and patterns.
    #[error("{} is neither a topic nor a pattern", shown(selector))]
    InvalidSelector {
        /// The text that the caller passed as the topic or pattern.
        selector: String,
        /// The rule that the text breaks.
        #[source]
        reason: InvalidName,
    },
    /// The client id breaks a rule for client ids.
    #[error("{} is not a client id", shown(client))]
    InvalidClient {
        /// The text that the caller passed as the client id.
        client: String,
        /// The rule that the text breaks.
        #[source]
        reason: InvalidName,
    },
    /// The subscription has a filter, but the hub does not keep the values that the filter needs.
    #[error("a filter needs the hub to keep values: build it with keep_values")]
    FilterNeedsValues,
    /// Every topic is finished, and the client has read all events. The response has the status
    /// 204, after which an `EventSource` does not reconnect.
    #[error("every topic is finished, and the client has read all events")]
    Finished,
}

impl SubscribeErrorKind {
    /// Whether the hub refused a valid subscription.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Closed | Self::Draining | Self::UpstreamAway | Self::Store(_) | Self::AtLimit(_)
        )
    }
}
