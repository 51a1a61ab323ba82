//! Why an event was not published.

use std::{error::Error, fmt};

use downlink_log::{AppendError, store::StoreError};
use downlink_proto::InvalidField;

use super::{EncodeError, InvalidName};

/// Nothing was published.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic breaks the grammar.
    InvalidTopic {
        /// As it was given.
        topic: String,
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
    /// The event type cannot be sent.
    InvalidType(InvalidField),
    /// The event type would be taken for one of ours or the browser's.
    ReservedType {
        /// As it was given.
        event_type: String,
    },
    /// The id is not 1 to 128 visible ASCII characters, or has the form of the hub's own ids.
    InvalidId {
        /// As it was given.
        id: String,
    },
    /// The idempotency key is not 1 to 255 bytes long.
    InvalidKey {
        /// Bytes of the key.
        bytes: usize,
    },
    /// The credential of an idempotency key is longer than 256 bytes.
    InvalidCredential {
        /// Bytes of the credential.
        bytes: usize,
    },
    /// The event is for more addresses than one event may be.
    TooManyAddresses {
        /// The limit.
        addresses_max: usize,
    },
    /// The value could not be encoded.
    Encode(EncodeError),
    /// The event is larger than the limit.
    TooLarge {
        /// Bytes of its frame.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The hub is closed.
    Closed,
    /// The topic is finished.
    Finished,
    /// Only topics can be finished, and the event is also for clients or everyone.
    LastNeedsTopics,
    /// The id belongs to an event that says something else.
    IdTaken,
    /// The idempotency key was used for an event that says something else.
    KeyReused,
    /// There is no room for another topic.
    TooManyTopics {
        /// The limit.
        topics_max: usize,
    },
    /// Too many events wait for the store. Nothing is wrong with this one: try again in a moment.
    Busy,
    /// The store did not keep the event, or takes none. After an error that
    /// [`is_final`](StoreError::is_final) it takes nothing until the hub is made anew; reading goes
    /// on.
    Store(StoreError),
}

impl PublishError {
    /// The error, and which draft of a batch it is about.
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

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidTopic { topic, .. } => write!(f, "{} is not a topic", shown(topic)),
            Self::InvalidClient { client, .. } => write!(f, "{} is not a client id", shown(client)),
            Self::InvalidType(_) => f.write_str("the event type cannot be sent"),
            Self::ReservedType { event_type } => write!(
                f,
                "the event type {} is reserved, as are open, error and whatever begins with \
                 `downlink.`",
                shown(event_type)
            ),
            Self::InvalidId { id } => write!(
                f,
                "{} is not an event id: 1 to 128 visible ASCII characters, and not of the form \
                 that the hub's own ids have",
                shown(id)
            ),
            Self::InvalidKey { bytes } => {
                write!(f, "an idempotency key has 1 to 255 bytes, this one has {bytes}")
            }
            Self::InvalidCredential { bytes } => {
                write!(f, "a credential has at most 256 bytes, this one has {bytes}")
            }
            Self::TooManyAddresses { addresses_max } => {
                write!(f, "an event is for at most {addresses_max} topics and clients")
            }
            Self::Encode(_) => f.write_str("the value could not be encoded"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "the event has {bytes} bytes, at most {bytes_max} are allowed")
            }
            Self::Closed => f.write_str("the hub is closed"),
            Self::Finished => f.write_str("the topic is finished"),
            Self::LastNeedsTopics => f.write_str(
                "only topics can be finished, and this event is also for clients or everyone",
            ),
            Self::IdTaken => f.write_str("the id belongs to another event"),
            Self::KeyReused => f.write_str("the idempotency key was used for another event"),
            Self::TooManyTopics { topics_max } => {
                write!(f, "there are {topics_max} topics, which is the limit")
            }
            Self::Busy => f.write_str("too many events wait for the store"),
            Self::Store(_) => f.write_str("the event was not kept"),
        }
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::InvalidTopic { reason, .. } | Self::InvalidClient { reason, .. } => Some(reason),
            Self::InvalidType(reason) => Some(reason),
            Self::Store(error) => Some(error),
            Self::Encode(EncodeError(cause)) => Some(cause.as_ref()),
            _ => None,
        }
    }
}

/// Foreign text in an error: escaped, and short however long it is.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}
