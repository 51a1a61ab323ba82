//! Batches of events. A batch is published completely or not at all, and its events have
//! consecutive offsets.

use downlink_log::Drafts;
use thiserror::Error;

use super::{Confirmed, Hub, Publish, PublishError, Receipt, publish::given_id};

/// The maximum number of events in one batch. Other publishers wait while a batch is appended. With
/// this limit, they wait for at most a few milliseconds.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// Events that are published together, completely or not at all. They have consecutive offsets.
///
/// # Limits
///
/// A batch has at most [`BATCH_EVENTS_MAX`] events. The limits of a [`Publish`] apply to each
/// event.
///
/// # Examples
///
/// ```
/// use downlink::hub::{Batch, Hub};
///
/// let hub = Hub::<String>::text();
/// let mut batch = Batch::new(&hub);
/// batch.add(hub.to("a"), "one".to_owned());
/// batch.add(hub.to("b").event("note"), "two".to_owned());
/// let receipts = batch.publish()?;
/// assert_eq!(receipts.len(), 2);
/// # Ok::<(), downlink::hub::BatchError>(())
/// ```
#[must_use = "nothing is published until `publish` is called"]
#[derive(Debug)]
pub struct Batch<T: Send + Sync + 'static> {
    hub: Hub<T>,
    events: Vec<(Publish<T>, T)>,
}

impl<T: Send + Sync + 'static> Batch<T> {
    /// Makes an empty batch for this hub.
    pub fn new(hub: &Hub<T>) -> Self {
        Self { hub: hub.clone(), events: Vec::new() }
    }

    /// Adds an event.
    pub fn add(&mut self, publish: Publish<T>, value: T) {
        self.events.push((publish, value));
    }

    /// The number of events in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the batch has no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Publishes all events, and returns their receipts in the same order.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if the batch has too many events, or if one event cannot be published. After
    /// an error, no event was published.
    pub fn publish(self) -> Result<Vec<Receipt>, BatchError> {
        if self.events.len() > BATCH_EVENTS_MAX {
            return Err(BatchError::TooMany { events: self.events.len() });
        }
        if self.events.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |(index, error)| BatchError::Event { index, error };
        let drafts = self.events.into_iter().enumerate().map(|(index, (publish, value))| {
            publish.into_draft(value).map_err(|error| failed((index, error)))
        });
        let drafts = drafts.collect::<Result<Drafts<_>, _>>()?;
        let given: Vec<_> = drafts.iter().map(given_id).collect();
        let submitted = self.hub.append(drafts, None).map_err(failed)?;
        let given = given.into_iter().enumerate();
        Ok(given.map(|(draft, id)| Receipt::of(&submitted, draft, id)).collect())
    }
}

/// Why a batch was not published. None of its events was published, unless the error of the event
/// says that the outcome is not known (see [`PublishError`]).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The batch has more than [`BATCH_EVENTS_MAX`] events.
    #[error("the batch has {events} events, at most {BATCH_EVENTS_MAX} are allowed")]
    TooMany {
        /// The number of events in the batch.
        events: usize,
    },
    /// One event cannot be published.
    #[error("event {} of the batch cannot be published", index + 1)]
    Event {
        /// The index of the event in the batch, counted from 0.
        index: usize,
        /// Why the event was not published.
        #[source]
        error: PublishError,
    },
}

impl BatchError {
    /// Waits until the store has committed all events of a batch, or in a node of a cluster, until
    /// the node has them. In every other hub, this returns at once. Pass all receipts of the batch
    /// in `receipts`.
    ///
    /// # Errors
    ///
    /// [`BatchError::Event`] names the event that failed. After an error, no event of the batch was
    /// published, unless the error says that the outcome is not known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn durable(receipts: &[Receipt]) -> Result<Vec<Confirmed>, Self> {
        let mut confirmed = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let outcome = receipt.outcome().await;
            confirmed.push(outcome.map_err(|(index, error)| Self::Event { index, error })?);
        }
        Ok(confirmed)
    }
}
