//! One topic: its ring of events, its readers, and its newest offset. A reader compares the newest
//! offset with its cursor, which is the next offset that it reads. The reader locks the ring only
//! if there may be an event to read.

use std::sync::Arc;

use crate::readers::ReaderList;
use crate::sync::{AtomicU64, Mutex, Ordering, RwLock};
use crate::topics::{Lost, Ring};
use crate::types::{Address, Payload, Timestamp};

/// A topic that exists. A topic that nothing uses is collected, which means that it is removed from
/// memory. If its name is used again later, a new `Topic` is made.
///
/// Each client's inbox is a topic, so a log may have very many topics, and the size of this type
/// matters. It is 128 bytes on 64-bit machines, including the two counters of the `Arc`.
#[derive(Debug)]
pub(crate) struct Topic<P> {
    /// In loom's tests, this number identifies the topic, so that a test runs the same way each
    /// time.
    #[cfg(downlink_loom)]
    number: usize,
    pub(crate) address: Address,
    /// The offset of the newest event, and the flag `FINISHED`. Before the first event, the offset
    /// is the floor minus one. The floor is the offset after the last evicted event.
    ///
    /// Once the log is open, this changes only while the ring is locked. A publisher stores this
    /// value (Release) before the log's tail, which is the next offset that readers will see. A
    /// reader loads this value (Acquire) after the tail. So a reader that sees a tail also sees the
    /// newest offset below that tail. If the newest offset is at or above the reader's cursor,
    /// there may be an event to read.
    newest: AtomicU64,
    /// The time at which the queue of evictions by age will check this topic, in milliseconds;
    /// `u64::MAX` if the topic is not in the queue. It is read and changed only while the ring is
    /// locked, so Relaxed is enough.
    queued_for: AtomicU64,
    /// The events. While this lock is held, only two kinds of locks may be taken: the lock of the
    /// queue of evictions by age, and the locks of the lists in which patterns note their newest
    /// events.
    pub(crate) ring: RwLock<Ring<P>>,
    /// The readers that named the topic. A waiting reader registers its waker in a slot. While this
    /// lock is held, only the locks of these slots may be taken.
    pub(crate) readers: Mutex<ReaderList>,
}

/// The flag in `newest` that says that the topic is finished. It is the highest bit. No offset uses
/// this bit, because a log never assigns 2^63 offsets.
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
    pub(crate) fn new(address: Address, lost: Lost) -> Arc<Self> {
        Arc::new(Self {
            #[cfg(downlink_loom)]
            number: crate::sync::next_number(),
            address,
            newest: AtomicU64::new(lost.floor.offset.get() - 1),
            queued_for: AtomicU64::new(u64::MAX),
            ring: RwLock::new(Ring::new(lost)),
            readers: Mutex::new(ReaderList::new()),
        })
    }

    /// Raises the floor of a topic that has no events yet. This must be called only before the log
    /// is open, because it changes `newest` while the ring is not locked.
    pub(crate) fn raise_floor(&self, lost: Lost) {
        self.ring.write().raise_floor(lost);
        self.newest.fetch_max(lost.floor.offset.get() - 1, Ordering::AcqRel);
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire) & !FINISHED
    }

    /// Records the offset of an event that was pushed. The caller must still hold the lock of the
    /// ring.
    pub(crate) fn set_newest(&self, offset: u64) {
        let finished = self.newest.load(Ordering::Relaxed) & FINISHED;
        self.newest.store(offset | finished, Ordering::Release);
    }

    /// Raises the newest offset to at least `offset` after the floor of the ring was raised.
    /// Readers then look into the ring, and find the new floor. The caller must still hold the lock
    /// of the ring.
    pub(crate) fn raise_newest(&self, offset: u64) {
        let newest = self.newest.load(Ordering::Relaxed);
        if newest & !FINISHED < offset {
            self.newest.store(offset | newest & FINISHED, Ordering::Release);
        }
    }

    /// The offset at which the topic was finished, if it is finished. A finished topic gets no more
    /// events. The caller must not hold the lock of the ring.
    pub(crate) fn finished(&self) -> Option<u64> {
        if self.newest.load(Ordering::Acquire) & FINISHED == 0 {
            return None;
        }
        self.ring.read().finish().map(|finish| finish.offset.get())
    }

    /// Records that the finish mark was set or removed. The caller must still hold the lock of the
    /// ring.
    pub(crate) fn set_finished(&self, finished: bool) {
        let newest = self.newest.load(Ordering::Relaxed) & !FINISHED;
        self.newest.store(if finished { newest | FINISHED } else { newest }, Ordering::Release);
    }
}
