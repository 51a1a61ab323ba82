//! One topic: its ring, its readers, and two numbers that spare a reader the ring's lock.

use std::sync::Arc;

use crate::{
    address::Address,
    forgotten::Floor,
    log::Payload,
    offset::Timestamp,
    retention::Retention,
    ring::Ring,
    sync::{AtomicU64, Mutex, Ordering, RwLock},
    watcher::Watchers,
};

/// A topic that exists. After collection the same name is another one, with another number.
#[derive(Debug)]
pub(crate) struct TopicLog<P> {
    /// Unique in one log, in the order of creation.
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) retention: Retention,
    /// The newest offset pushed or, before the first, the floor less one.
    ///
    /// Stored before the log's tail is (Release) and loaded after it (Acquire): who sees a tail sees
    /// the newest offset below it. At or above a reader's cursor: there is something to look at.
    newest: AtomicU64,
    /// The offset of the finish mark; 0 while the topic is not finished. Ordered by the tail too.
    finished: AtomicU64,
    /// The earliest deadline that the expiry queue holds for this topic, in milliseconds;
    /// `u64::MAX` if none. Changed under the ring's lock; read without it by the queue alone, which
    /// may keep an entry too long by that and drops none too early: an entry is in the queue (its
    /// lock orders this) after its time is here.
    queued_for: AtomicU64,
    /// The history. Under its lock only the expiry queue is locked.
    pub(crate) ring: RwLock<Ring<P>>,
    /// Who reads it. Under its lock only wakers' slots are locked.
    pub(crate) watchers: Mutex<Watchers<P>>,
}

impl<P> TopicLog<P> {
    pub(crate) fn queued_for(&self) -> Option<Timestamp> {
        let at = self.queued_for.load(Ordering::Relaxed);
        (at < u64::MAX).then_some(Timestamp::from_millis(at))
    }

    pub(crate) fn set_queued_for(&self, at: Option<Timestamp>) {
        self.queued_for.store(at.map_or(u64::MAX, Timestamp::as_millis), Ordering::Relaxed);
    }
}

impl<P: Payload> TopicLog<P> {
    pub(crate) fn new(
        number: u64,
        address: Address,
        retention: Retention,
        floor: Floor,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            address,
            retention,
            newest: AtomicU64::new(floor.offset - 1),
            finished: AtomicU64::new(0),
            queued_for: AtomicU64::new(u64::MAX),
            ring: RwLock::new(Ring::new(floor)),
            watchers: Mutex::new(Watchers::new()),
        })
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    pub(crate) fn set_newest(&self, offset: u64) {
        self.newest.store(offset, Ordering::Release);
    }

    pub(crate) fn finished(&self) -> Option<u64> {
        Some(self.finished.load(Ordering::Acquire)).filter(|&offset| offset > 0)
    }

    pub(crate) fn set_finished(&self, offset: Option<u64>) {
        self.finished.store(offset.unwrap_or(0), Ordering::Release);
    }

    /// When the oldest thing of a ring is due for eviction by age, if ever. At the end of time
    /// nothing is.
    pub(crate) fn deadline(
        &self,
        ring: &Ring<P>,
        finished_keep: std::time::Duration,
    ) -> Option<Timestamp> {
        let front =
            ring.front().and_then(|entry| self.retention.age_max.map(|age| entry.at.after(age)));
        let finish = ring.finished_at().map(|at| at.after(finished_keep));
        front.into_iter().chain(finish).min().filter(|at| at.as_millis() < u64::MAX)
    }
}
