//! The topics with events or marks to evict by age, and the times.
//!
//! No task runs in the background. Every append, open and read asks here first, and the answer is
//! almost always one atomic load.

use std::{collections::BTreeMap, sync::Arc};

use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::topics::Topic;
use crate::types::Timestamp;

/// The deadline of an empty queue.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Ages<P> {
    /// The earliest deadline, in milliseconds. A caller that sees an older value is early or late
    /// by one look; the queue decides.
    next: AtomicU64,
    /// Ordered by time, then by the topic's identity. Locked under the topic's ring or under no
    /// ring. No lock is taken under it.
    queue: Mutex<Deadlines<P>>,
}

type Deadlines<P> = BTreeMap<(Timestamp, usize), Arc<Topic<P>>>;

impl<P> Ages<P> {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(NEVER), queue: Mutex::new(BTreeMap::new()) }
    }

    /// Whether any event or mark has a deadline.
    pub(crate) fn has_any(&self) -> bool {
        self.next.load(Ordering::Acquire) != NEVER
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.next.load(Ordering::Acquire) <= now.as_millis()
    }

    /// Takes the first topic that is due out of the queue. Its ring is not locked here, so the
    /// topic may have been queued anew meanwhile.
    pub(crate) fn pop_due(&self, now: Timestamp) -> Option<(Timestamp, Arc<Topic<P>>)> {
        let mut queue = self.queue.lock();
        let first = queue.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, _), topic) = first.remove_entry();
        self.publish_next(&queue);
        Some((at, topic))
    }

    /// Queues a topic for the time of its oldest entry or mark; with none it leaves the queue. The
    /// caller holds the topic's ring. If the time has moved later, the queue keeps the earlier one
    /// and looks again then.
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
    use crate::types::{Address, Epoch, LogOptions};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn topic() -> Arc<Topic<&'static str>> {
        let options = LogOptions::new(Epoch::from_random(7));
        Topic::new(Address::Everyone, &options, Lost::NOTHING)
    }

    #[test]
    fn topics_are_due_in_the_order_of_their_times() {
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

    /// A topic for each answer of a model: gone in a moment, while its events might have lived a
    /// day.
    #[test]
    fn a_topic_without_an_age_does_not_wait_in_the_queue() {
        let (ages, topic) = (Ages::new(), topic());
        ages.queue(&topic, Some(at(10)));
        ages.queue(&topic, Some(at(20)));
        assert_eq!(topic.queued_for(), Some(at(10)), "later is found when the earlier time comes");
        ages.queue(&topic, Some(at(5)));
        assert_eq!(ages.queue.lock().len(), 1);
        ages.queue(&topic, None);
        assert!(ages.queue.lock().is_empty() && !ages.has_any());
        assert_eq!(Arc::strong_count(&topic), 1);
    }
}
