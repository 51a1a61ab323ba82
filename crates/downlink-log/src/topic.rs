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
    /// The history. A leaf lock.
    pub(crate) ring: RwLock<Ring<P>>,
    /// Who reads it. A leaf lock but for the wakers' slots.
    pub(crate) watchers: Mutex<Watchers<P>>,
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

    /// When the oldest thing of a ring is due for eviction by age, if ever.
    pub(crate) fn deadline(
        &self,
        ring: &Ring<P>,
        finished_keep: std::time::Duration,
    ) -> Option<Timestamp> {
        let front =
            ring.front().and_then(|entry| self.retention.age_max.map(|age| entry.at.after(age)));
        let finish = ring.finished_at().map(|at| at.after(finished_keep));
        match (front, finish) {
            (Some(front), Some(finish)) => Some(front.min(finish)),
            (front, finish) => front.or(finish),
        }
    }
}
