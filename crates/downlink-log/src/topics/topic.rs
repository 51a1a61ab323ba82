//! One topic: its ring, its readers, and its newest offset. With the newest offset, most reads need
//! not lock the ring.

use std::sync::Arc;

use crate::readers::ReaderList;
use crate::sync::{AtomicU64, Mutex, Ordering, RwLock};
use crate::topics::{Lost, Ring};
use crate::types::{Address, LogOptions, Payload, Timestamp};

/// A topic that exists. If a topic is collected and its name is used again, the name has another
/// `Topic`.
///
/// Each client's inbox is a topic, so the size of this type matters. It is 128 bytes on 64-bit
/// machines, with the counts of the `Arc`.
#[derive(Debug)]
pub(crate) struct Topic<P> {
    /// Orders topics by their creation instead of their address, so that a loom model runs the same
    /// way each time.
    #[cfg(downlink_loom)]
    number: usize,
    pub(crate) address: Address,
    /// The newest offset that was pushed, and the flag `FINISHED`. Before the first push, the
    /// offset is the floor minus one.
    ///
    /// Once the log has begun, this changes only while the ring is locked. It is stored (Release)
    /// before the log's tail is stored, and loaded (Acquire) after the tail is loaded. So a reader
    /// that sees a tail also sees the newest offset below it. If the newest offset is at or above
    /// the reader's cursor, there may be an event to read.
    newest: AtomicU64,
    /// The deadline that the expiry queue holds for this topic, in milliseconds; `u64::MAX` if
    /// none. It is read and changed only while the ring is locked, so Relaxed is enough.
    queued_for: AtomicU64,
    /// The history. While this is locked, only the rows of patterns and the expiry queue may be
    /// locked.
    pub(crate) ring: RwLock<Ring<P>>,
    /// The readers that named the topic. While this is locked, only the readers' wake-ups may be
    /// locked.
    pub(crate) readers: Mutex<ReaderList>,
}

/// The flag in `newest` that says that the topic is finished. No log assigns offsets that high.
const FINISHED: u64 = 1 << 63;

impl<P> Topic<P> {
    pub(crate) fn is_inbox(&self) -> bool {
        matches!(self.address, Address::Client(_))
    }

    /// A number that is unique among the topics that exist.
    #[cfg(not(downlink_loom))]
    pub(crate) fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    #[cfg(downlink_loom)]
    pub(crate) fn identity(&self) -> usize {
        self.number
    }

    pub(crate) fn queued_for(&self) -> Option<Timestamp> {
        let at = self.queued_for.load(Ordering::Relaxed);
        (at < u64::MAX).then_some(Timestamp::from_millis(at))
    }

    pub(crate) fn set_queued_for(&self, at: Option<Timestamp>) {
        self.queued_for.store(at.map_or(u64::MAX, Timestamp::as_millis), Ordering::Relaxed);
    }
}

impl<P: Payload> Topic<P> {
    pub(crate) fn new(address: Address, options: &LogOptions, lost: Lost) -> Arc<Self> {
        let rule = options.retention.number_of(&address);
        Arc::new(Self {
            #[cfg(downlink_loom)]
            number: crate::sync::next_number(),
            address,
            newest: AtomicU64::new(lost.floor.offset.get() - 1),
            queued_for: AtomicU64::new(u64::MAX),
            ring: RwLock::new(Ring::new(rule, lost)),
            readers: Mutex::new(ReaderList::new()),
        })
    }

    /// Raises the floor of a topic that has no events yet. Only for a log that has not begun: the
    /// ring is not locked during the second of the two changes.
    pub(crate) fn raise_floor(&self, lost: Lost) {
        self.ring.write().raise_floor(lost);
        self.newest.fetch_max(lost.floor.offset.get() - 1, Ordering::AcqRel);
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire) & !FINISHED
    }

    /// Records a pushed offset. The caller still holds the ring's lock.
    pub(crate) fn set_newest(&self, offset: u64) {
        let finished = self.newest.load(Ordering::Relaxed) & FINISHED;
        self.newest.store(offset | finished, Ordering::Release);
    }

    /// The offset of the finish mark. Called without the ring's lock.
    pub(crate) fn finished(&self) -> Option<u64> {
        if self.newest.load(Ordering::Acquire) & FINISHED == 0 {
            return None;
        }
        self.ring.read().finish().map(|finish| finish.offset.get())
    }

    /// Records that the finish mark was set or removed. The caller still holds the ring's lock.
    pub(crate) fn set_finished(&self, finished: bool) {
        let newest = self.newest.load(Ordering::Relaxed) & !FINISHED;
        self.newest.store(if finished { newest | FINISHED } else { newest }, Ordering::Release);
    }

    /// The time at which the oldest entry or the mark of a ring is due for eviction by age, if
    /// ever.
    pub(crate) fn deadline(ring: &Ring<P>, options: &LogOptions) -> Option<Timestamp> {
        let age_max = options.retention.rule(ring.rule).age_max;
        let front = ring.front().and_then(|entry| age_max.map(|age| entry.at.after(age)));
        let finish = ring.finish().map(|finish| finish.at.after(options.retention.finished_keep));
        front.into_iter().chain(finish).min().filter(|at| at.as_millis() < u64::MAX)
    }
}
