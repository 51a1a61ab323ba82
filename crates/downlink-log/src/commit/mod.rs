//! The way of a batch through a store: queue, group commit, outcome.

pub(crate) mod group;
pub(crate) mod outcome;
pub(crate) mod pacing;
pub(crate) mod queue;
pub(crate) mod restore;
pub(crate) mod writer;

pub(crate) use group::{Group, Planned};
pub(crate) use outcome::{Commit, Outcome};
pub(crate) use pacing::{CommitPacing, LastCommit};
pub(crate) use queue::{CommitQueue, Queue, Queued, Size};
pub(crate) use restore::restore;
pub(crate) use writer::{StoreClock, Writer};
