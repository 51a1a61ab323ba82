//! Which topic has something due for eviction by age, and when.
//!
//! Nothing runs in the background. Every append, open and read asks first; almost always the answer
//! is one atomic load.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    sync::{AtomicU64, Mutex, Ordering},
    topics::topic::Topic,
    types::offset::Timestamp,
};

/// The time of nothing.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Ages<P> {
    /// The earliest deadline, in milliseconds. A caller that sees an older value is early or late by
    /// one look; the queue decides.
    next: AtomicU64,
    /// By time and the topic's identity. Locked under the topic's ring, or alone.
    queue: Mutex<Due<P>>,
}

type Due<P> = BTreeMap<(Timestamp, usize), Arc<Topic<P>>>;

impl<P> Ages<P> {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(NEVER), queue: Mutex::new(BTreeMap::new()) }
    }

    /// Whether something has an age to reach.
    pub(crate) fn has_any(&self) -> bool {
        self.next.load(Ordering::Acquire) != NEVER
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.next.load(Ordering::Acquire) <= now.as_millis()
    }

    /// Takes the first topic that is due out of the queue. Its ring is not locked here, so the topic
    /// may have been queued anew meanwhile.
    pub(crate) fn pop_due(&self, now: Timestamp) -> Option<(Timestamp, Arc<Topic<P>>)> {
        let mut queue = self.queue.lock();
        let first = queue.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, _), topic) = first.remove_entry();
        self.publish_next(&queue);
        Some((at, topic))
    }

    /// Queues a topic for the time of its oldest entry or mark; with none it leaves the queue. The
    /// caller holds the topic's ring. A time that moved later is found when the earlier one comes.
    pub(crate) fn queue(&self, topic: &Arc<Topic<P>>, at: Option<Timestamp>) {
        let queued = topic.queued_for();
        let is_early_enough = match (queued, at) {
            (Some(queued), Some(at)) => queued <= at,
            (None, None) => true,
            _ => false,
        };
        if is_early_enough {
            return;
        }
        topic.set_queued_for(at);
        let mut queue = self.queue.lock();
        if let Some(queued) = queued {
            queue.remove(&(queued, topic.identity()));
        }
        if let Some(at) = at {
            queue.insert((at, topic.identity()), Arc::clone(topic));
        }
        self.publish_next(&queue);
    }

    fn publish_next(&self, queue: &Due<P>) {
        let next = queue.keys().next().map_or(NEVER, |(at, _)| at.as_millis());
        self.next.store(next, Ordering::Release);
    }
}
