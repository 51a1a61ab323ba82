//! The parts of a log that publishing and reading share.

use crate::history::{Evicted, History};
use crate::sequence::{Epochs, Sequencer};
use crate::types::Payload;

/// Locks, outermost first. While a thread holds a lock, it takes only locks further down this list.
///
/// 1. the sequence, or the names of topics; never both
/// 2. the table of patterns
/// 3. the index
/// 4. one ring
/// 5. one pattern's rows
/// 6. one list of readers, the queue of ages, publisher ids; one at a time
/// 7. one reader's wake-up
///
/// The queue of commits, the queue of replays and the clock are locked alone. No lock is held while
/// a waker runs, while a payload is dropped, or across an await.
#[derive(Debug)]
pub(crate) struct Core<P> {
    pub(crate) history: History<P>,
    pub(crate) sequencer: Sequencer,
    pub(crate) ids: Epochs,
}

impl<P: Payload> Core<P> {
    /// Settles the events that an expiry evicted, if any. Called with no lock held.
    pub(crate) fn settle(&self, evicted: Option<Evicted<P>>) {
        if let Some(evicted) = evicted {
            self.sequencer.settle(&self.history, &evicted);
        }
    }
}
