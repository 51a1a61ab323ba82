//! Why an event was not published.

use std::time::Duration;

use downlink_log::{AppendError, store::StoreError};
use downlink_proto::InvalidField;
use thiserror::Error;

use super::{EncodeError, InvalidName};

/// The shortest reconnection time that an event may give its readers. With 0, all browsers that got
/// the event would reconnect without a pause when their streams end.
pub const RETRY_MIN: Duration = Duration::from_millis(50);

/// The longest reconnection time that an event may give its readers. A browser with a longer time
/// would practically never reconnect, and the server cannot change the time until the browser
/// reconnects.
pub const RETRY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why an event was not published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic breaks a rule for topics.
    #[error("{} is not a topic", shown(topic))]
    InvalidTopic {
        /// The text that the caller passed as the topic.
        topic: String,
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
    /// The event type cannot be sent.
    #[error("the event type cannot be sent")]
    InvalidType(#[source] InvalidField),
    /// The event type is reserved for the hub or the browser.
    #[error(
        "the event type {} is reserved, like `open`, `error` and all types that begin with \
         `downlink.`",
        shown(event_type)
    )]
    ReservedType {
        /// The event type.
        event_type: String,
    },
    /// The reconnection time is shorter than [`RETRY_MIN`] or longer than [`RETRY_MAX`].
    #[error(
        "a reconnection time is from {} ms to {} ms, but this one is {} ms",
        RETRY_MIN.as_millis(), RETRY_MAX.as_millis(), retry.as_millis()
    )]
    InvalidRetry {
        /// The reconnection time.
        retry: Duration,
    },
    /// The id is invalid. A valid id has 1 to 128 visible ASCII characters. It is not `earliest`,
    /// and does not have the form of the hub's own ids.
    #[error(
        "{} is not an event id: use 1 to 128 visible ASCII characters, but not `earliest` and not \
         the form of the hub's own ids",
        shown(id)
    )]
    InvalidId {
        /// The text that the caller passed as the id.
        id: String,
    },
    /// The idempotency key is not 1 to 255 bytes long.
    #[error("an idempotency key has 1 to 255 bytes, but this one has {bytes}")]
    InvalidKey {
        /// The size of the key in bytes.
        bytes: usize,
    },
    /// The credential of an idempotency key is longer than 256 bytes.
    #[error("the credential of an idempotency key has {bytes} bytes, at most 256 are allowed")]
    InvalidCredential {
        /// The size of the credential in bytes.
        bytes: usize,
    },
    /// The event has more addresses than one event may have.
    #[error("the event has too many topics and clients: the limit is {addresses_max}")]
    TooManyAddresses {
        /// The limit.
        addresses_max: usize,
    },
    /// The value could not be encoded.
    #[error(transparent)]
    Encode(EncodeError),
    /// The event is larger than the limit.
    #[error("the event has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// The size of the event's frame in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed,
    /// The hub follows another hub, its upstream. For a message between nodes: the hub is no node
    /// of a cluster.
    #[error("the hub is a relay, which accepts no events: publish to its upstream")]
    ReadOnly,
    /// The hub is no node of a cluster, so it cannot send a message to other nodes.
    #[error("the hub is no node of a cluster")]
    NotInCluster,
    /// A topic of the event is finished.
    #[error("a topic of the event is finished, so it accepts no more events")]
    Finished,
    /// The event is marked as the last one of its topics, but it is also for clients or everyone.
    /// Only topics can be finished.
    #[error("only topics can be finished, but this event is also for clients or everyone")]
    LastNeedsTopics,
    /// The id belongs to an event with other content.
    #[error("the id belongs to an event with other content")]
    IdTaken,
    /// The idempotency key was used for an event with other content.
    #[error("the idempotency key was used for an event with other content")]
    KeyReused,
    /// The number of topics that have events or are finished is at its limit.
    #[error("too many topics have events or are finished: the limit is {topics_max}")]
    TooManyTopics {
        /// The limit.
        topics_max: usize,
    },
    /// Too many events wait for the store, or for the engine of the cluster, which orders the
    /// events of all nodes. The event is valid: publish it again in a moment.
    #[error(
        "too many events wait to be kept (at most 65,536 events and 64 MiB): try again in a moment"
    )]
    Busy,
    /// The engine of the cluster did not take the event in time, so it was not published: publish
    /// it again.
    #[error(
        "the engine of the cluster does not answer, and the event was not published: try again"
    )]
    EngineAway,
    /// The engine of the cluster has no room, so the event was not published.
    #[error("the engine of the cluster is full: give its stream more room")]
    EngineFull,
    /// The engine of the cluster did not answer in time, and may have the event. The event may be
    /// published now or later. Publish it again with the same idempotency key.
    #[error(
        "the engine of the cluster did not answer in time: the event may be published now or later, \
         so repeat it with the same idempotency key"
    )]
    OutcomeUnknown,
    /// The event, or its batch, does not fit into one entry of the cluster's engine. Or a message
    /// between nodes is too large.
    #[error(
        "the events that are published together do not fit into one entry of the cluster's engine"
    )]
    EntryTooLarge,
    /// The store did not confirm the event. If the error [`is_final`](StoreError::is_final), the
    /// store accepts no events until the program builds the hub again. Until then, it is unknown
    /// whether the store kept this event. If the error is not final, the store did not keep the
    /// event. Subscriptions can still read in both cases.
    #[error("the event was not {}", if .0.is_final() { "confirmed" } else { "kept" })]
    Store(#[source] StoreError),
}

impl PublishError {
    /// Converts an error of the log, which keeps the events of a hub. Also returns the index of the
    /// draft (the event in the batch) that caused the error.
    pub(super) fn from_append(error: AppendError) -> (usize, Self) {
        match error {
            AppendError::Finished { draft } => (draft, Self::Finished),
            AppendError::IdTaken { draft } => (draft, Self::IdTaken),
            AppendError::KeyReused { draft } => (draft, Self::KeyReused),
            AppendError::TooManyTopics { draft, topics_max } => {
                (draft, Self::TooManyTopics { topics_max })
            }
            AppendError::ReadOnly => (0, Self::ReadOnly),
            AppendError::Busy => (0, Self::Busy),
            AppendError::EngineAway => (0, Self::EngineAway),
            AppendError::EngineFull => (0, Self::EngineFull),
            AppendError::OutcomeUnknown => (0, Self::OutcomeUnknown),
            AppendError::EntryTooLarge => (0, Self::EntryTooLarge),
            AppendError::Store(error) => (0, Self::Store(error)),
            _ => (0, Self::Closed),
        }
    }
}

/// Makes a caller's text safe for an error message: escapes it, and shortens it if it is long.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}
