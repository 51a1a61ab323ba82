//! Age: which topic has something due for eviction, and when.
//!
//! Nothing runs in the background. Every append, open and read asks first; almost always the answer
//! is one atomic load.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use crate::{
    evict::Evicted,
    log::{Payload, Shared},
    offset::Timestamp,
    ring::Ring,
    sync::{AtomicU64, Mutex, Ordering},
    topic::TopicLog,
};

#[derive(Debug)]
pub(crate) struct Expiry<P> {
    /// The earliest deadline, in milliseconds. A reader that sees an older value is early or late by
    /// one look; the queue decides.
    next: AtomicU64,
    queue: Mutex<Queue<P>>,
}

#[derive(Debug)]
struct Queue<P> {
    dues: BinaryHeap<Reverse<Due<P>>>,
    /// At this length stale entries are looked for: twice what was left the last time.
    tidy_at: usize,
    next_turn: u64,
}

/// The time of nothing.
const NEVER: u64 = u64::MAX;

/// Entries among which stale ones are not worth looking for.
const SLACK: usize = 64;

/// A topic that has something to evict at a time. One whose topic expects another time is stale.
#[derive(Debug)]
struct Due<P> {
    at: Timestamp,
    /// Among those of one time, first come, first served.
    turn: u64,
    topic: Arc<TopicLog<P>>,
}

impl<P> Expiry<P> {
    pub(crate) fn new() -> Self {
        let queue = Queue { dues: BinaryHeap::new(), tidy_at: SLACK, next_turn: 0 };
        Self { next: AtomicU64::new(NEVER), queue: Mutex::new(queue) }
    }

    fn push(&self, at: Timestamp, topic: Arc<TopicLog<P>>) {
        let mut queue = self.queue.lock();
        if queue.dues.len() >= queue.tidy_at {
            queue.tidy();
        }
        let turn = queue.next_turn;
        queue.next_turn += 1;
        queue.dues.push(Reverse(Due { at, turn, topic }));
        self.publish_next(&queue);
    }

    fn pop_due(&self, now: Timestamp) -> Option<Due<P>> {
        let mut queue = self.queue.lock();
        let due = queue.dues.peek().is_some_and(|Reverse(due)| due.at <= now);
        let due = due.then(|| queue.dues.pop()).flatten();
        self.publish_next(&queue);
        due.map(|Reverse(due)| due)
    }

    fn publish_next(&self, queue: &Queue<P>) {
        let next = queue.dues.peek().map_or(NEVER, |Reverse(due)| due.at.as_millis());
        self.next.store(next, Ordering::Release);
    }
}

impl<P> Queue<P> {
    /// Drops stale entries, which else would hold topics that are gone until their time comes.
    fn tidy(&mut self) {
        self.dues.retain(|Reverse(due)| due.topic.queued_for() == Some(due.at));
        self.tidy_at = SLACK.max(2 * self.dues.len());
    }
}

impl<P: Payload> Shared<P> {
    /// Evicts everything whose time has come.
    pub(crate) fn expire(&self, now: Timestamp) {
        self.expire_by(|| now);
    }

    /// The same by a clock that is looked at only if something has an age to reach.
    pub(crate) fn expire_by(&self, now: impl FnOnce() -> Timestamp) {
        let next = self.expiry.next.load(Ordering::Acquire);
        if next == NEVER {
            return;
        }
        let now = now();
        if next <= now.as_millis() {
            self.evict_due(now);
        }
    }

    fn evict_due(&self, now: Timestamp) {
        let mut evicted = Evicted::new();
        while let Some(due) = self.expiry.pop_due(now) {
            self.expire_topic(&due, now, &mut evicted);
        }
        self.settle(&mut evicted);
        self.tidy_index();
    }

    fn expire_topic(&self, due: &Due<P>, now: Timestamp, evicted: &mut Evicted<P>) {
        let topic = &due.topic;
        let mut ring = topic.ring.write();
        if topic.queued_for() != Some(due.at) {
            return;
        }
        let finished_keep = self.options.finished_keep;
        if ring.finish().is_some_and(|finish| finish.at.after(finished_keep) <= now) {
            ring.set_finish(None);
            topic.set_finished(false);
            self.finished.fetch_sub(1, Ordering::Relaxed);
            while self.evict_one(topic, &mut ring, evicted) {}
            evicted.note_empty(topic);
        }
        if let Some(age) = self.options.retention.rule(ring.rule).age_max {
            while ring.front().is_some_and(|entry| entry.at.after(age) <= now) {
                self.evict_one(topic, &mut ring, evicted);
            }
        }
        topic.set_queued_for(None);
        self.queue_expiry(topic, &ring);
    }

    /// Puts a topic into the queue for the earliest thing it has to evict.
    pub(crate) fn queue_expiry(&self, topic: &Arc<TopicLog<P>>, ring: &Ring<P>) {
        let Some(at) = TopicLog::deadline(ring, &self.options) else { return };
        if topic.queued_for().is_none_or(|queued| at < queued) {
            topic.set_queued_for(Some(at));
            self.expiry.push(at, Arc::clone(topic));
        }
    }
}

impl<P> Ord for Due<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

impl<P> PartialOrd for Due<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Due<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Due<P> {}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Address, Draft, Epoch, Fingerprint, Log, LogOptions, Offset, Topic};

    impl Log<&'static str> {
        fn finish(&self, now: Timestamp, name: &str) {
            let stamp: fn(Offset, Timestamp) -> &'static str = |_, _| "answer";
            let draft = Draft {
                to: [Address::Topic(Topic::new(name).expect("a valid topic"))]
                    .into_iter()
                    .collect(),
                id: None,
                key: None,
                fingerprint: Fingerprint::default(),
                finish: true,
                body: None,
                stamp: Some(stamp),
            };
            let (_, wakes) =
                self.append(now, [draft].into_iter().collect()).expect("an open topic");
            wakes.wake();
        }
    }

    /// A topic for each answer of a model: gone in a moment, while its events might have lived a day.
    #[test]
    fn topics_that_went_early_do_not_wait_in_the_queue() {
        let mut options = LogOptions::new(Epoch::from_random(7));
        options.finished_keep = Duration::from_millis(1);
        let log: Log<&'static str> = Log::new(options);
        for second in 0..1_000 {
            log.finish(Timestamp::from_millis(second * 1_000), &format!("answer/{second}"));
        }
        assert_eq!(log.totals(Timestamp::from_millis(1_000_000)).topics, 0);
        assert!(log.0.expiry.queue.lock().dues.len() <= SLACK + 2);
    }
}
