//! Drafts, the answers to an append, and the errors of an append.

use smallvec::SmallVec;
use thiserror::Error;

use crate::store::StoreError;
use crate::types::{Address, Cursor, Epoch, Fingerprint, IdempotencyKey, Offset, Payload};

/// An event before it gets its offset.
#[derive(Debug)]
pub struct Draft<P: Payload> {
    /// The recipients. An address that is named twice counts once. A draft without addresses gets
    /// an offset, but no reader gets its event.
    pub to: SmallVec<[Address; 1]>,
    /// The id that the publisher gave. It must not resemble a cursor, and must be the same as the
    /// payload's [`publisher_id`](Payload::publisher_id). Ignored without a payload.
    pub id: Option<Box<str>>,
    /// The idempotency key: drafts with the same key are appended only once. A log remembers a key
    /// for 10 minutes, but at most 65,536 keys. The caller bounds the key's length.
    pub key: Option<IdempotencyKey>,
    /// The fingerprint of the content. Only used if there is an id or a key.
    pub fingerprint: Fingerprint,
    /// Whether the event finishes its topics, which may be inboxes or everyone's topic. A finished
    /// topic refuses events for as long as [`finished_keep`](crate::RetentionRules::finished_keep)
    /// says.
    pub finish: bool,
    /// The bytes for the store, if the log has one. The log does not look into them.
    pub body: Option<Vec<u8>>,
    /// The payload before its offset is known; `None` for a finish mark alone.
    pub payload: Option<P::Draft>,
}

/// Drafts that are appended together; usually one.
pub type Drafts<P> = SmallVec<[Draft<P>; 1]>;

/// The answer to one draft.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// The offset of the event.
    pub offset: Offset,
    /// The epoch in which the event was appended.
    pub epoch: Epoch,
    /// The number of distinct subscriptions that get the event.
    pub matched: usize,
    /// Whether this is the answer to an earlier append with the same id or key.
    pub repeated: bool,
}

impl Appended {
    /// The id of the event, as a cursor.
    pub fn id(&self) -> Cursor {
        Cursor { epoch: self.epoch, next: Offset::new(self.offset.get() + 1) }
    }
}

/// The answers to a batch, one for each draft.
pub type Answers = SmallVec<[Appended; 1]>;

/// Nothing of a batch was appended.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The topic is finished.
    #[error("the topic is finished")]
    Finished {
        /// The number of the draft in the batch, from 0.
        draft: usize,
    },
    /// The id belongs to an event with other content.
    #[error("the id belongs to another event")]
    IdTaken {
        /// The number of the draft in the batch, from 0.
        draft: usize,
    },
    /// The idempotency key was used for an event with other content.
    #[error("the idempotency key was used for another event")]
    KeyReused {
        /// The number of the draft in the batch, from 0.
        draft: usize,
    },
    /// As many topics have events as the limit allows.
    #[error("there are {topics_max} topics, which is the limit")]
    TooManyTopics {
        /// The number of the draft in the batch, from 0.
        draft: usize,
        /// The limit.
        topics_max: usize,
    },
    /// As many events wait for the store as the limit allows. The caller may try again in a moment.
    #[error("too many events wait for the store")]
    Busy,
    /// The store accepts no events, or did not answer.
    #[error("the store takes no events")]
    Store(#[from] StoreError),
}
