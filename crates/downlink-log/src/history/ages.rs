//! The queue of evictions by age. A topic's deadline is the time at which its oldest event or its
//! finish mark becomes too old. A finish mark says that a topic gets no more events. The queue has
//! all topics that have a deadline, and the topic with the earliest deadline is first.
//!
//! No thread waits for a deadline. Instead, every append, open and read first checks whether a
//! deadline has passed. This check is almost always one atomic load.

use std::{collections::BTreeMap, sync::Arc};

use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::topics::Topic;
use crate::types::Timestamp;

/// The deadline of an empty queue.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Ages<P> {
    /// The earliest deadline in the queue, in milliseconds. It is read without the lock, so a
    /// caller may read an old value. Such a caller looks into the queue needlessly, or leaves an
    /// eviction to the next call.
    next: AtomicU64,
    /// Ordered by deadline, then by [`Topic::identity`]. Each topic has a ring, which holds its
    /// events. A thread that takes the lock of the queue may hold the lock of one ring: the ring of
    /// the topic that it puts into the queue. While the queue is locked, no other lock is taken.
    queue: Mutex<Deadlines<P>>,
}

type Deadlines<P> = BTreeMap<(Timestamp, usize), Arc<Topic<P>>>;

impl<P> Ages<P> {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(NEVER), queue: Mutex::new(BTreeMap::new()) }
    }

    /// Whether any topic is in the queue.
    pub(crate) fn has_any(&self) -> bool {
        self.next.load(Ordering::Acquire) != NEVER
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.next.load(Ordering::Acquire) <= now.as_millis()
    }

    /// Takes the topic with the earliest deadline out of the queue, if that deadline has passed.
    /// The caller has not locked the topic's ring, so another thread may put the topic back before
    /// this returns.
    pub(crate) fn pop_due(&self, now: Timestamp) -> Option<(Timestamp, Arc<Topic<P>>)> {
        let mut queue = self.queue.lock();
        let first = queue.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, _), topic) = first.remove_entry();
        self.publish_next(&queue);
        Some((at, topic))
    }

    /// Puts a topic into the queue with the deadline `at`. `None` takes the topic out of the queue.
    /// The caller must hold the lock of the topic's ring. If the topic is in the queue with an
    /// earlier time, it keeps that time, and is checked at that time.
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

    fn publish_next(&self, queue: &Deadlines<P>) {
        let next = queue.keys().next().map_or(NEVER, |(at, _)| at.as_millis());
        self.next.store(next, Ordering::Release);
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::topics::Lost;
    use crate::types::Address;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn topic() -> Arc<Topic<&'static str>> {
        Topic::new(Address::Everyone, Lost::NOTHING)
    }

    #[test]
    fn topics_are_due_in_the_order_of_their_deadlines() {
        let (ages, first, second) = (Ages::new(), topic(), topic());
        ages.queue(&second, Some(at(20)));
        ages.queue(&first, Some(at(10)));
        assert!(!ages.is_due(at(9)) && ages.is_due(at(10)));
        let due = |now| ages.pop_due(at(now)).map(|(at, topic)| (at.as_millis(), topic.identity()));
        assert_eq!(due(9), None);
        assert_eq!(due(30), Some((10, first.identity())));
        assert_eq!(due(30), Some((20, second.identity())));
        assert!(due(30).is_none() && !ages.has_any());
    }

    /// An app may use one topic for each answer of a language model. Such a topic is used only for
    /// a moment, but its deadline may be a day away. If the topic stayed in the queue until its
    /// deadline although its events were already evicted, the queue would become long.
    #[test]
    fn a_topic_without_a_deadline_leaves_the_queue() {
        let (ages, topic) = (Ages::new(), topic());
        ages.queue(&topic, Some(at(10)));
        ages.queue(&topic, Some(at(20)));
        assert_eq!(topic.queued_for(), Some(at(10)), "the queue keeps the earlier time");
        ages.queue(&topic, Some(at(5)));
        assert_eq!(ages.queue.lock().len(), 1);
        ages.queue(&topic, None);
        assert!(ages.queue.lock().is_empty() && !ages.has_any());
        assert_eq!(Arc::strong_count(&topic), 1);
    }
}
