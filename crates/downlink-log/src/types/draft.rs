//! What is appended, what comes of it, and what refuses it.

use std::fmt;

use smallvec::SmallVec;

use crate::{
    address::Address,
    given::{Fingerprint, IdempotencyKey},
    offset::Offset,
    store::StoreError,
    ticket::Commit,
};

/// An event before it has an offset.
#[derive(Debug)]
pub struct Draft<F> {
    /// Whom it is for. An address named twice counts once; with none at all an offset is used up,
    /// and nobody gets anything.
    pub to: SmallVec<[Address; 1]>,
    /// The id its publisher gave, which must not resemble a cursor. What the payload says its
    /// [`given_id`](crate::Payload::given_id) is. Ignored without a payload.
    pub id: Option<Box<str>>,
    /// The key under which it is to be appended only once. Remembered for 10 minutes, together with
    /// 65,535 others; its length is for the caller to bound.
    pub key: Option<IdempotencyKey>,
    /// What it says. Only looked at if there is an id or a key.
    pub fingerprint: Fingerprint,
    /// Whether its topics are finished with it: they refuse events for as long as
    /// [`finished_keep`](crate::LogOptions::finished_keep) says. Inboxes and everyone's topic too.
    pub finish: bool,
    /// What a store keeps of the event, if the log has one; opaque here.
    pub body: Option<Vec<u8>>,
    /// Makes the payload once the offset is known, under the sequence lock: short, no user's code,
    /// no call into the log. If it panics, nothing is appended. `None` for a finish mark alone.
    pub stamp: Option<F>,
}

/// Where a draft went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Its offset.
    pub offset: Offset,
    /// Distinct subscriptions that it was for.
    pub matched: usize,
    /// Whether this is the answer to an earlier append with the same id or key.
    pub repeated: bool,
}

/// Nothing of a batch was appended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is closed.
    Closed,
    /// The topic is finished.
    Finished {
        /// Which draft of the batch.
        draft: usize,
    },
    /// The id belongs to an event that says something else.
    IdTaken {
        /// Which draft of the batch.
        draft: usize,
    },
    /// The idempotency key was used for an event that says something else.
    KeyReused {
        /// Which draft of the batch.
        draft: usize,
    },
    /// There is no room for another topic.
    TooManyTopics {
        /// Which draft of the batch.
        draft: usize,
        /// The limit.
        topics_max: usize,
    },
    /// More events wait for the store than may: try again in a moment.
    Busy,
    /// The store takes nothing, or did not answer.
    Store(StoreError),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the log is closed"),
            Self::Finished { .. } => f.write_str("the topic is finished"),
            Self::IdTaken { .. } => f.write_str("the id belongs to another event"),
            Self::KeyReused { .. } => f.write_str("the idempotency key was used for another event"),
            Self::TooManyTopics { topics_max, .. } => {
                write!(f, "there are {topics_max} topics, which is the limit")
            }
            Self::Busy => f.write_str("too many events wait for the store"),
            Self::Store(_) => f.write_str("the store takes no events"),
        }
    }
}

impl std::error::Error for AppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What became of a batch for now.
#[derive(Clone, Debug)]
#[must_use]
pub struct Submitted {
    /// One for each draft. Until `commit` is ready, `matched` may be 0, and the offsets are certain
    /// only then.
    pub answers: Answers,
    /// The commit that the batch waits for; `None` if there is nothing to wait for.
    pub commit: Option<Commit>,
    /// The store is slower than those who append, and more than half of what may wait for it does: who
    /// appends on without waiting for a commit is soon told that the log is busy. False once the
    /// store has refused, such as on a full disk.
    pub is_behind: bool,
}

/// The answers to a batch, one for each draft.
pub type Answers = SmallVec<[Appended; 1]>;
