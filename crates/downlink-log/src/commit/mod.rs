//! The way of a batch through a store: queue, group commit, outcome.

pub(crate) mod group;
pub(crate) mod outcome;
pub(crate) mod pacing;
pub(crate) mod queue;
pub(crate) mod restore;
pub(crate) mod writer;

pub(crate) use outcome::{Commit, Outcome};
pub(crate) use queue::CommitQueue;
pub(crate) use restore::restore;
pub(crate) use writer::{StoreClock, Writer};
