//! How a batch gets into a store: it waits in a queue, a thread writes it together with other
//! batches, and its publisher gets the outcome.

pub(crate) mod group;
pub(crate) mod outage;
pub(crate) mod outcome;
pub(crate) mod pacing;
pub(crate) mod queue;
pub(crate) mod restore;
pub(crate) mod times;
pub(crate) mod writer;

pub(crate) use group::CommitGroup;
pub(crate) use outage::{OnReport, Outages, StoreReport};
pub(crate) use outcome::Commit;
pub(crate) use pacing::CommitPacing;
pub(crate) use queue::{CommitQueue, Queue, Queued, Refusals, StoreTotals};
pub(crate) use restore::restore;
pub(crate) use times::CommitTimes;
pub(crate) use writer::{RELAXED_WITHIN, Shared, StoreClock, Writer};
