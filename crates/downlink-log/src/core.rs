//! The parts of a log that both publishers and readers use: the history, the sequence of offsets,
//! and the epochs.

use std::sync::Arc;

use crate::history::{Evicted, History};
use crate::readers::Confirmations;
use crate::sequence::{Epochs, Sequencer};
use crate::types::{Payload, Timestamp};

/// The number of topics that [`Core::retain_all`] lists while it holds the lock of the names. To
/// list them takes some 20 microseconds. With a tenth of this number, the lock would be taken ten
/// times as often.
const TOPICS_LISTED: usize = 256;

/// The shared parts of a log. The list below is the order of the log's locks. While a thread holds
/// a lock of this list, it takes only locks that come later in the list.
///
/// 1. the sequence
/// 2. the names of topics
/// 3. the table of patterns
/// 4. the index of all events
/// 5. the ring of one topic, which holds the topic's events
/// 6. the rows of one pattern, which list the newest events of its topics
/// 7. one of these: a list of readers, the queue of evictions by age, the ids that publishers
///    chose, the retention rules, the epochs and marks of a replica, the backlog of the feeds, the
///    unreadable events of a replica
/// 8. the wake-up slot of one reader
///
/// A replica is a log that copies another log, its upstream. The applier of a replica adds the
/// copied events. Only an applier holds the locks 1 and 2 at the same time.
///
/// Eight locks are not in the list. A thread that holds one of these six holds no other lock: the
/// queue of commits, the outcome of a commit, the queue of replays, the answer to a replay, the
/// reported unreadable events, and the clock. While the questions of a replica to its upstream are
/// locked, only the epochs of the replica may be locked. The lock of the history that a replica
/// uses now is taken before all others. No lock is held while a waker runs, while a payload is
/// dropped, or across an await.
#[derive(Debug)]
pub(crate) struct Core<P> {
    pub(crate) history: History<P>,
    pub(crate) sequencer: Sequencer,
    pub(crate) ids: Epochs,
    /// In a replica, the readers that wait until the replica knows as much as its upstream. `None`
    /// in a log that assigns its own offsets.
    pub(crate) confirmations: Option<Arc<Confirmations>>,
}

impl<P: Payload> Core<P> {
    /// Brings every topic within the retention rules in force, in bounded steps, and evicts all
    /// events that are too old at `now`. The caller must hold no lock.
    pub(crate) fn retain_all(&self, now: Timestamp) {
        self.retain_topics();
        while let Some(evicted) = self.history.expire(now) {
            self.settle(Some(evicted));
        }
    }

    /// Brings every topic within the retention rules in force, in bounded steps, without a look at
    /// the time. The caller must hold no lock.
    pub(crate) fn retain_topics(&self) {
        let history = &self.history;
        let mut topics = vec![Arc::clone(&history.topics.everyone)];
        while let Some(last) = topics.last() {
            for topic in &topics {
                let mut is_within = false;
                while !is_within {
                    let evicted;
                    (evicted, is_within) = history.retain_step(topic);
                    self.settle(Some(evicted));
                }
            }
            topics = history.topics.list_after(&last.address, TOPICS_LISTED);
        }
    }

    /// Cleans up after events were evicted: frees the ids of these events, and removes topics that
    /// became empty. The caller must hold no lock.
    pub(crate) fn settle(&self, evicted: Option<Evicted<P>>) {
        if let Some(evicted) = evicted {
            self.sequencer.settle(&self.history, &evicted);
        }
    }
}
