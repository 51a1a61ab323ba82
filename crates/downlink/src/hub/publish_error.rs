//! Why an event was not published.

use std::time::Duration;

use downlink_log::{AppendError, store::StoreError};
use downlink_proto::InvalidField;
use thiserror::Error;

use super::{EncodeError, InvalidName};

/// The shortest reconnection time that an event may give its readers. With 0, all browsers that get
/// it would connect again without a pause as soon as their stream ends.
pub const RETRY_MIN: Duration = Duration::from_millis(50);

/// The longest reconnection time that an event may give its readers. A browser that waits for longer
/// is gone: nothing else makes it connect again.
pub const RETRY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Nothing was published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic breaks the grammar.
    #[error("{} is not a topic", shown(topic))]
    InvalidTopic {
        /// As it was given.
        topic: String,
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
    /// The event type cannot be sent.
    #[error("the event type cannot be sent")]
    InvalidType(#[source] InvalidField),
    /// The event type is one of ours or of the browser's.
    #[error(
        "the event type {} is reserved, as are open, error and whatever begins with `downlink.`",
        shown(event_type)
    )]
    ReservedType {
        /// As it was given.
        event_type: String,
    },
    /// The reconnection time is shorter than [`RETRY_MIN`] or longer than
    /// [`RETRY_MAX`].
    #[error(
        "a reconnection time is from {} ms to {} ms, this one has {} ms",
        RETRY_MIN.as_millis(), RETRY_MAX.as_millis(), retry.as_millis()
    )]
    InvalidRetry {
        /// As it was given.
        retry: Duration,
    },
    /// The id is not 1 to 128 visible ASCII characters, or is `earliest`, or has the form of the
    /// hub's own ids.
    #[error(
        "{} is not an event id: 1 to 128 visible ASCII characters, not `earliest`, and not of the form \
         that the hub's own ids have",
        shown(id)
    )]
    InvalidId {
        /// As it was given.
        id: String,
    },
    /// The idempotency key is not 1 to 255 bytes long.
    #[error("an idempotency key has 1 to 255 bytes, this one has {bytes}")]
    InvalidKey {
        /// Bytes of the key.
        bytes: usize,
    },
    /// The credential of an idempotency key is longer than 256 bytes.
    #[error("a credential has at most 256 bytes, this one has {bytes}")]
    InvalidCredential {
        /// Bytes of the credential.
        bytes: usize,
    },
    /// The event has more addresses than one event may have.
    #[error("an event is for at most {addresses_max} topics and clients")]
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
        /// Bytes of its frame.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed,
    /// The topic is finished.
    #[error("the topic is finished")]
    Finished,
    /// Only topics can be finished, and the event is also for clients or everyone.
    #[error("only topics can be finished, and this event is also for clients or everyone")]
    LastNeedsTopics,
    /// The id belongs to an event with other content.
    #[error("the id belongs to another event")]
    IdTaken,
    /// The idempotency key was used for an event with other content.
    #[error("the idempotency key was used for another event")]
    KeyReused,
    /// There are as many topics with events as allowed.
    #[error("there are {topics_max} topics, which is the limit")]
    TooManyTopics {
        /// The limit.
        topics_max: usize,
    },
    /// Too many events wait for the store. This event is valid: try again in a moment.
    #[error("too many events wait for the store")]
    Busy,
    /// The store did not keep the event. After an error that [`is_final`](StoreError::is_final) it
    /// takes nothing until the hub is made anew, and only that shows whether this event was kept.
    /// Reading goes on.
    #[error("the event was not {}", if .0.is_final() { "confirmed" } else { "kept" })]
    Store(#[source] StoreError),
}

impl PublishError {
    /// The error, and the number of its draft in the batch.
    pub(super) fn from_append(error: AppendError) -> (usize, Self) {
        match error {
            AppendError::Finished { draft } => (draft, Self::Finished),
            AppendError::IdTaken { draft } => (draft, Self::IdTaken),
            AppendError::KeyReused { draft } => (draft, Self::KeyReused),
            AppendError::TooManyTopics { draft, topics_max } => {
                (draft, Self::TooManyTopics { topics_max })
            }
            AppendError::Busy => (0, Self::Busy),
            AppendError::Store(error) => (0, Self::Store(error)),
            _ => (0, Self::Closed),
        }
    }
}

/// Foreign text for an error message: escaped, and cut if it is long.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}
