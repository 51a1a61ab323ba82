//! One topic: its ring, its readers, and its newest offset, which spares readers the ring's lock.

use std::sync::Arc;

use crate::readers::ReaderList;
use crate::sync::{AtomicU64, Mutex, Ordering, RwLock};
use crate::topics::{Lost, Ring};
use crate::types::{Address, LogOptions, Payload, Timestamp};

/// A topic that exists. After collection the same name is another one.
///
/// Each client's inbox is one, so its size counts: 128 bytes with the `Arc`'s counts, on 64-bit
/// machines.
#[derive(Debug)]
pub(crate) struct Topic<P> {
    /// Orders topics by their making, not by address, so that a model runs the same each time.
    #[cfg(downlink_loom)]
    number: usize,
    pub(crate) address: Address,
    /// The newest offset pushed or, before the first, the floor less one; and `FINISHED`.
    ///
    /// Changed under the ring's lock once the log has begun. Stored before the log's tail is
    /// (Release) and loaded after it (Acquire): a reader that sees a tail sees the newest offset
    /// below it. If that is at or above the reader's cursor, there may be an event to read.
    newest: AtomicU64,
    /// The earliest deadline that the expiry queue holds for this topic, in milliseconds;
    /// `u64::MAX` if none. Changed under the ring's lock. The queue reads it without that lock. It
    /// may then keep an entry too long, but drops none too early: the time is stored here before
    /// the entry enters the queue, and the queue's lock orders the two.
    queued_for: AtomicU64,
    /// The history. Under its lock only the rows of patterns and the expiry queue are locked.
    pub(crate) ring: RwLock<Ring<P>>,
    /// The readers that named the topic. Under its lock only the readers' wake-ups are locked.
    pub(crate) readers: Mutex<ReaderList>,
}

/// Beside the newest offset: the topic is finished. No log assigns offsets that high.
const FINISHED: u64 = 1 << 63;

impl<P> Topic<P> {
    pub(crate) fn is_inbox(&self) -> bool {
        matches!(self.address, Address::Client(_))
    }

    /// Unique among the topics that exist.
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

    /// Raises the floor of a topic that has nothing yet. Only for a log that has not begun: the two
    /// changes are not under one hold of the ring's lock.
    pub(crate) fn raise_floor(&self, lost: Lost) {
        self.ring.write().raise_floor(lost);
        self.newest.fetch_max(lost.floor.offset.get() - 1, Ordering::AcqRel);
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire) & !FINISHED
    }

    /// The caller holds the ring's lock and has pushed this offset.
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

    /// The caller holds the ring's lock and has set or removed its finish mark.
    pub(crate) fn set_finished(&self, finished: bool) {
        let newest = self.newest.load(Ordering::Relaxed) & !FINISHED;
        self.newest.store(if finished { newest | FINISHED } else { newest }, Ordering::Release);
    }

    /// When the oldest entry or mark of a ring is due for eviction by age, if ever.
    pub(crate) fn deadline(ring: &Ring<P>, options: &LogOptions) -> Option<Timestamp> {
        let age_max = options.retention.rule(ring.rule).age_max;
        let front = ring.front().and_then(|entry| age_max.map(|age| entry.at.after(age)));
        let finish = ring.finish().map(|finish| finish.at.after(options.retention.finished_keep));
        front.into_iter().chain(finish).min().filter(|at| at.as_millis() < u64::MAX)
    }
}
