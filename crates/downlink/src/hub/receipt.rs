//! The receipt of a publish, and the event's id once the id is certain.

use std::future::poll_fn;

use downlink_log::{Appended, Commit, Offset, Submitted};
use downlink_proto::EventId;

use super::{PublishError, record::cursor_id};

/// The receipt of a publish.
///
/// In a hub without a store, the event has its id and offset at once. In a hub with a store, the
/// event gets them when the store commits it. In a node of a cluster, the event gets them when the
/// engine of the cluster, which orders the events of all nodes, has it. In both cases,
/// [`durable`](Self::durable) waits for this and returns the id and the offset, and the getters of
/// the receipt always return `None`.
#[derive(Clone, Debug)]
pub struct Receipt(ReceiptState);

#[derive(Clone, Debug)]
enum ReceiptState {
    Confirmed(Confirmed),
    /// The event waits for a commit. `draft` is its index in the batch.
    Queued {
        commit: Commit,
        draft: usize,
        given: Option<EventId>,
    },
}

/// The final result of a publish, with the id and the offset of the event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Confirmed {
    id: EventId,
    offset: Offset,
    matched: usize,
    repeated: bool,
}

impl Receipt {
    /// The receipt of one draft (an event of the batch). `given` is the id that the publisher gave.
    pub(super) fn of(submitted: &Submitted, draft: usize, given: Option<EventId>) -> Self {
        Self(match submitted {
            Submitted::Appended(answers) => {
                ReceiptState::Confirmed(Confirmed::of(answers[draft], given))
            }
            Submitted::Queued(commit) => {
                ReceiptState::Queued { commit: commit.clone(), draft, given }
            }
        })
    }

    fn confirmed(&self) -> Option<&Confirmed> {
        match &self.0 {
            ReceiptState::Confirmed(confirmed) => Some(confirmed),
            ReceiptState::Queued { .. } => None,
        }
    }

    /// The id that subscribers see. In a hub with a store, and in a node of a cluster, this is
    /// always `None`: see [`durable`](Self::durable).
    pub fn id(&self) -> Option<&EventId> {
        self.confirmed().map(Confirmed::id)
    }

    /// The event's position in the hub's sequence of events. `None` if [`id`](Self::id) is `None`.
    pub fn offset(&self) -> Option<Offset> {
        self.confirmed().map(Confirmed::offset)
    }

    /// How many distinct subscriptions get the event. `None` if [`id`](Self::id) is `None`.
    pub fn matched(&self) -> Option<usize> {
        self.confirmed().map(Confirmed::matched)
    }

    /// Whether the event was already published earlier, with the same id or idempotency key. In
    /// that case, this is the receipt of the earlier event. `None` if [`id`](Self::id) is `None`.
    pub fn is_repeated(&self) -> Option<bool> {
        self.confirmed().map(Confirmed::is_repeated)
    }

    /// Waits until the store has committed the event, or in a node of a cluster, until the engine
    /// has the event and the node has read it back. From then on, subscriptions can see the event.
    /// With a store, it survives a crash as far as the store's [`Durability`](super::Durability)
    /// promises.
    ///
    /// In a hub in memory that is no node of a cluster, this returns at once, and the event does
    /// not survive a crash.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if the event was not published: it conflicts with an earlier event, or the
    /// store or the engine did not take it. After [`PublishError::OutcomeUnknown`], the event may
    /// be published now or later.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the publish.
    pub async fn durable(&self) -> Result<Confirmed, PublishError> {
        self.outcome().await.map_err(|(_, error)| error)
    }

    /// Does the same as [`durable`](Self::durable). An error also has the index of the failed event
    /// in the batch.
    pub(super) async fn outcome(&self) -> Result<Confirmed, (usize, PublishError)> {
        match &self.0 {
            ReceiptState::Confirmed(confirmed) => Ok(confirmed.clone()),
            ReceiptState::Queued { commit, draft, given } => {
                let own = poll_fn(|cx| commit.poll(cx.waker(), |answers| answers[*draft])).await;
                Ok(Confirmed::of(own.map_err(PublishError::from_append)?, given.clone()))
            }
        }
    }
}

impl Confirmed {
    fn of(answer: Appended, given: Option<EventId>) -> Self {
        let id = given.unwrap_or_else(|| cursor_id(answer.id()));
        let Appended { offset, matched, repeated, .. } = answer;
        Self { id, offset, matched, repeated }
    }

    /// The id that subscribers see.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// The event's position in the hub's sequence of events.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// How many distinct subscriptions get the event.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Whether the event was already published earlier, with the same id or idempotency key.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }
}
