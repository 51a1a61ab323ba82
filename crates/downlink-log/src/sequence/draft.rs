//! The drafts that go into an append, and the answers or the error that come out of it. A draft is
//! an event that has no offset yet.

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
    /// The event id that the publisher chose, if any. It must not [resemble a
    /// cursor](crate::resembles_cursor), and must be the same as the payload's
    /// [`publisher_id`](Payload::publisher_id). It is ignored if there is no payload.
    pub id: Option<Box<str>>,
    /// The idempotency key: of several drafts with the same key, only the first is appended. A log
    /// keeps a key for 10 minutes, and at most 65,536 keys in total. The caller must limit the
    /// key's length.
    pub key: Option<IdempotencyKey>,
    /// The fingerprint, which is a hash of the content. It is used only if there is an id or a key.
    /// If an earlier event has the same id or key, equal fingerprints show that the draft repeats
    /// this event.
    pub fingerprint: Fingerprint,
    /// Whether this is the last event for its addresses. After it, these addresses refuse events
    /// until the time [`finished_keep`](crate::RetentionRules::finished_keep) has passed.
    pub finish: bool,
    /// The bytes that the store keeps, if the log has a store. The log does not interpret them.
    pub body: Option<Vec<u8>>,
    /// The payload before its offset is known. `None` if the draft only finishes its topics.
    pub payload: Option<P::Draft>,
}

/// Drafts that are appended together. Usually there is only one.
pub type Drafts<P> = SmallVec<[Draft<P>; 1]>;

/// The answer to one draft.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// The offset of the event.
    pub offset: Offset,
    /// The epoch in which the event was appended. An epoch is a period in which the offsets of a
    /// log are unique.
    pub epoch: Epoch,
    /// The number of distinct subscriptions that get the event.
    pub matched: usize,
    /// True if the draft was not appended, because it repeats an earlier event with the same id or
    /// key. `offset` is then the offset of the earlier event.
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

/// Why an append failed. Nothing of the batch was appended, with two exceptions: after
/// [`OutcomeUnknown`](Self::OutcomeUnknown) and after a [final](StoreError::is_final) error of the
/// store, the batch may have been appended.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The log is a replica, which gets its events from another log, its upstream. Publish to the
    /// upstream.
    #[error("the log is a replica: publish to its upstream")]
    ReadOnly,
    /// A topic of the draft is finished.
    #[error("a topic of the event is finished, so it accepts no more events")]
    Finished {
        /// The number of the draft in the batch, from 0.
        draft: usize,
    },
    /// A kept event with other content has the same id.
    #[error("the id belongs to an event with other content")]
    IdTaken {
        /// The number of the draft in the batch, from 0.
        draft: usize,
    },
    /// The idempotency key was used for an event with other content.
    #[error("the idempotency key was used for an event with other content")]
    KeyReused {
        /// The number of the draft in the batch, from 0.
        draft: usize,
    },
    /// With the topics of this draft, the log would have more topics than the limit allows. Only
    /// topics that have events or are finished count.
    #[error("too many topics have events or are finished: the limit is {topics_max}")]
    TooManyTopics {
        /// The number of the draft in the batch, from 0.
        draft: usize,
        /// The limit.
        topics_max: usize,
    },
    /// With this batch, more events or bytes would wait for the store than the limits allow. The
    /// caller may try again in a moment.
    #[error(
        "too many events wait for the store (at most 65,536 events and 64 MiB): try again in a moment"
    )]
    Busy,
    /// The engine of the cluster, which orders the events of all nodes, did not take the batch in
    /// time. Nothing was appended.
    #[error("the engine of the cluster does not answer: try again")]
    EngineAway,
    /// The engine of the cluster has no room. Nothing was appended.
    #[error("the engine of the cluster is full")]
    EngineFull,
    /// The engine of the cluster did not answer, and may have the batch. The batch may be appended
    /// now or later. Repeat the publish with the same idempotency keys.
    #[error("it is not known whether the engine of the cluster has the event")]
    OutcomeUnknown,
    /// The batch is too large for the engine, which takes each batch as one entry.
    #[error("the batch does not fit into one entry of the cluster's engine")]
    EntryTooLarge,
    /// The store accepts no events, or did not answer.
    #[error("the store accepts no events at present")]
    Store(#[from] StoreError),
}
