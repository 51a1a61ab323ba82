//! Drafts, the answers to an append, and its errors.

use smallvec::SmallVec;
use thiserror::Error;

use crate::store::StoreError;
use crate::types::{Address, Cursor, Epoch, Fingerprint, IdempotencyKey, Offset, Payload};

/// An event before it has an offset.
#[derive(Debug)]
pub struct Draft<P: Payload> {
    /// The recipients. An address named twice counts once. A draft without addresses uses up an
    /// offset, and no reader gets it.
    pub to: SmallVec<[Address; 1]>,
    /// The id its publisher gave, which must not resemble a cursor: the same as the payload's
    /// [`publisher_id`](Payload::publisher_id). Ignored without a payload.
    pub id: Option<Box<str>>,
    /// The key under which it is appended only once. Remembered for 10 minutes, together with
    /// 65,535 others; the caller bounds its length.
    pub key: Option<IdempotencyKey>,
    /// Its content. Only used if there is an id or a key.
    pub fingerprint: Fingerprint,
    /// Whether it finishes its topics: they refuse events for as long as
    /// [`finished_keep`](crate::RetentionRules::finished_keep) says. Inboxes and everyone's topic too.
    pub finish: bool,
    /// The bytes for the store, if the log has one; opaque here.
    pub body: Option<Vec<u8>>,
    /// The payload before its offset is known; `None` for a finish mark alone.
    pub payload: Option<P::Draft>,
}

/// Several drafts that are appended together; usually one.
pub type Drafts<P> = SmallVec<[Draft<P>; 1]>;

/// The answer to one draft.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Its offset.
    pub offset: Offset,
    /// The life of the log that it was appended in.
    pub epoch: Epoch,
    /// Distinct subscriptions that get it.
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
        /// Which draft of the batch.
        draft: usize,
    },
    /// The id belongs to an event with other content.
    #[error("the id belongs to another event")]
    IdTaken {
        /// Which draft of the batch.
        draft: usize,
    },
    /// The idempotency key was used for an event with other content.
    #[error("the idempotency key was used for another event")]
    KeyReused {
        /// Which draft of the batch.
        draft: usize,
    },
    /// There are as many topics with events as allowed.
    #[error("there are {topics_max} topics, which is the limit")]
    TooManyTopics {
        /// Which draft of the batch.
        draft: usize,
        /// The limit.
        topics_max: usize,
    },
    /// As many events wait for the store as allowed: try again in a moment.
    #[error("too many events wait for the store")]
    Busy,
    /// The store takes nothing, or did not answer.
    #[error("the store takes no events")]
    Store(#[from] StoreError),
}
