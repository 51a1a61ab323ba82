//! The parts of a log that publishing and reading share.

use crate::history::{Evicted, History};
use crate::sequence::{Epochs, Sequencer};
use crate::types::Payload;

/// All locks, outermost first. While a thread holds a lock, it takes only locks further down this
/// list.
///
/// 1. the sequence, or the names of topics, but never both
/// 2. the table of patterns
/// 3. the index
/// 4. one ring
/// 5. one pattern's rows
/// 6. one of these: a list of readers, the queue of ages, the publisher ids
/// 7. the wake-up slot of one reader
///
/// The queue of commits, the queue of replays and the clock have their own locks. While one of
/// these is locked, no other lock is held. No lock is held while a waker runs, while a payload is
/// dropped, or across an await.
#[derive(Debug)]
pub(crate) struct Core<P> {
    pub(crate) history: History<P>,
    pub(crate) sequencer: Sequencer,
    pub(crate) ids: Epochs,
}

impl<P: Payload> Core<P> {
    /// Cleans up after an expiry: frees the ids of the evicted events, and collects topics that
    /// became empty. The caller must hold no lock.
    pub(crate) fn settle(&self, evicted: Option<Evicted<P>>) {
        if let Some(evicted) = evicted {
            self.sequencer.settle(&self.history, &evicted);
        }
    }
}
