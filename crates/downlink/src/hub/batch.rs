//! Several events at once: all or nothing, next to each other in the sequence.

use downlink_log::Drafts;
use thiserror::Error;

use super::{Confirmed, Hub, Publish, PublishError, Receipt, publish::given_id};

/// Events in one batch. They are appended under one hold of a lock, a few milliseconds at most.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// Events that are published together: all or none, next to each other in the sequence.
///
/// # Limits
///
/// At most [`BATCH_EVENTS_MAX`] events, each with the limits of a [`Publish`].
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
    /// An empty batch for this hub.
    pub fn new(hub: &Hub<T>) -> Self {
        Self { hub: hub.clone(), events: Vec::new() }
    }

    /// Adds an event.
    pub fn add(&mut self, publish: Publish<T>, value: T) {
        self.events.push((publish, value));
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Publishes all of them, and gives their receipts in order.
    ///
    /// # Errors
    ///
    /// [`BatchError`] names the invalid event and the reason; then nothing was published.
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
        let submitted = self.hub.append(drafts).map_err(failed)?;
        let given = given.into_iter().enumerate();
        Ok(given.map(|(draft, id)| Receipt::of(&submitted, draft, id)).collect())
    }
}

/// Nothing of a batch was published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// More events than a batch may have.
    #[error("the batch has {events} events, at most {BATCH_EVENTS_MAX} are allowed")]
    TooMany {
        /// How many.
        events: usize,
    },
    /// One event cannot be published.
    #[error("event {} of the batch", index + 1)]
    Event {
        /// Which, counting from 0.
        index: usize,
        /// Why.
        #[source]
        error: PublishError,
    },
}

impl BatchError {
    /// Waits for all events of a batch, given all its receipts.
    ///
    /// # Errors
    ///
    /// The error names the event of the batch; then nothing was published.
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
