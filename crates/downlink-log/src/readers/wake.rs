//! The wake-up of one reader: a hint to read the log again, or to end.
//!
//! Before each wait, a reader registers for a wake-up and then reads the log once more. A publisher
//! first appends an event and then wakes the registered readers. So either the reader's last read
//! finds the event, or the publisher wakes the reader. A wake-up carries no data, so one wake-up is
//! enough for several appends, and a needless wake-up only causes one needless read.
//!
//! Each reader has a slot, in which it registers in one of two ways. It can put a waker into the
//! slot, and the next wake-up takes the waker out. Or it can put a server of many readers into the
//! slot, together with the key by which this server knows the reader. The server and the key stay
//! in the slot. A publisher wakes readers in batches, and calls such a server once for each batch.
//! One call for a batch is faster than loading, calling and dropping a waker for each reader.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::Waker,
};

use smallvec::SmallVec;

use crate::sync::{AtomicU8, AtomicU32, Mutex, Ordering};
use crate::types::EndReason;

/// The number of readers in one batch. A publisher takes the readers of a batch from a list while
/// the list is locked, and wakes them after it has unlocked the list.
///
/// While a publisher takes 64 readers from a list, the list is locked for a few microseconds. With
/// batches of half this size, the list would be locked needlessly often. With twice this size, the
/// arrays of wakers and keys would take about 4 KiB of the stack.
pub(crate) const WAKE_BATCH: usize = 64;

/// A server of many readers. It knows each of its readers by a key. To wake some of its readers,
/// the log passes their keys to the server.
pub trait WakeMany: Send + Sync {
    /// Makes the readers with these keys read again.
    ///
    /// Like a [`Waker`], this can be called from any thread and at any time, even with the key of a
    /// reader that has left. If the key now belongs to another reader, that reader reads once
    /// without need. The caller holds no lock of the log. The call must not block and must not
    /// panic.
    fn wake_many(&self, keys: &[u32]);
}

/// How a reader waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Waits {
    /// The reader does not wait, so a wake-up does nothing.
    Nobody,
    /// The reader waits, and its waker is in the slot.
    Alone,
    /// The reader waits, and a server of many readers wakes it by its key.
    AmongMany,
}

/// The slot in which a waiting reader registers.
///
/// The order of the fields puts the fields that a wake-up usually needs into the first 32 bytes.
#[repr(C)]
pub(crate) struct WakeSlot {
    /// The number of a [`Waits`] variant.
    ///
    /// The swaps in `take`, `register` and `register_with` pair with each other and order the
    /// accesses to the fields below. If a publisher's swap in `take` comes after the reader's swap,
    /// the publisher sees the registration. If the publisher's swap comes first, the reader sees
    /// the log's new tail, which the publisher stored before its swap. The tail is the next offset
    /// that readers will see. A plain store does not read the value that it overwrites. So with a
    /// plain store instead of the reader's swap, the reader might not see the new tail.
    waits: AtomicU8,
    /// The reason why the reader must end, or 0. The reason is set (AcqRel) after the log's last
    /// append. The reader loads the reason (Acquire) before it loads the tail. So before the reader
    /// ends, it reads all events whose publishers have got their answers.
    end: AtomicU8,
    /// The reader's key at its server. Relaxed is enough, because the key is stored before `many`
    /// is set, and loaded only when `many` is set.
    key: AtomicU32,
    /// The server of many readers that serves this reader. It is set once, before `waits` is first
    /// set to `AmongMany`.
    many: OnceLock<Arc<dyn WakeMany>>,
    /// The lock protects only the waker, and is held only for a moment. While a wake-up is under
    /// way, the reader may register again, and the wake-up may then take the newly registered waker
    /// out of the slot. No wake-up is lost, because the wake-up then wakes the newly registered
    /// waker.
    waker: Mutex<Option<Waker>>,
}

impl WakeSlot {
    pub(crate) fn new() -> Self {
        Self {
            waits: AtomicU8::new(Waits::Nobody as u8),
            end: AtomicU8::new(0),
            key: AtomicU32::new(0),
            many: OnceLock::new(),
            waker: Mutex::new(None),
        }
    }

    /// Tells the reader to end. If this is called twice, the first reason counts. After this call,
    /// the caller must wake the reader.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.end.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The reason why the reader must end, if any.
    pub(crate) fn ended(&self) -> Option<EndReason> {
        EndReason::from_number(self.end.load(Ordering::Acquire))
    }

    /// Registers a waker. The caller must read the log once more before it waits. Two registrations
    /// of one reader, of either kind, must not run at the same time.
    pub(crate) fn register(&self, waker: &Waker) {
        // If the last wake-up has taken the waker out, the slot has no waker to compare with.
        let same = self.waits.load(Ordering::Relaxed) == Waits::Alone as u8
            && self.waker.lock().as_ref().is_some_and(|held| held.will_wake(waker));
        if !same {
            // The waker is cloned and the old waker is dropped while no lock is held, because both
            // may run the app's code.
            let waker = waker.clone();
            let old = self.waker.lock().replace(waker);
            drop(old);
        }
        self.waits.swap(Waits::Alone as u8, Ordering::AcqRel);
    }

    /// Registers the reader's key with a server of many readers. Returns `false` and changes
    /// nothing if the reader was registered before with another key or another server. In that case
    /// the caller must register a waker. After a registration, the caller must read the log once
    /// more before it waits.
    #[must_use = "if this returns `false`, register a waker"]
    pub(crate) fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        let held = self.many.get_or_init(|| {
            self.key.store(key, Ordering::Relaxed);
            Arc::clone(many)
        });
        if !Arc::ptr_eq(held, many) || self.key.load(Ordering::Relaxed) != key {
            return false;
        }
        // A waker that was registered before stays in the slot, unused, until another waker
        // replaces it.
        self.waits.swap(Waits::AmongMany as u8, Ordering::AcqRel);
        true
    }

    /// True if the reader does not wait. This is only a hint, because it may change at any moment.
    pub(crate) fn is_awake(&self) -> bool {
        self.waits.load(Ordering::Relaxed) == Waits::Nobody as u8
    }

    /// If the reader waits, moves its registration into `batch`. The caller must wake the batch,
    /// and must hold no lock then.
    pub(crate) fn take(&self, batch: &mut WakeBatch) {
        let waits = self.waits.swap(Waits::Nobody as u8, Ordering::AcqRel);
        if waits == Waits::AmongMany as u8 {
            if let Some(many) = self.many.get() {
                batch.add(many, self.key.load(Ordering::Relaxed));
            }
        } else if waits == Waits::Alone as u8 {
            batch.wakers.extend(self.waker.lock().take());
        }
    }
}

impl fmt::Debug for WakeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeSlot").field("waits", &self.waits).finish_non_exhaustive()
    }
}

/// The registrations of at most [`WAKE_BATCH`] readers that were waiting. The wakers have been
/// taken out of the readers' slots.
#[derive(Default)]
#[must_use = "the readers wait until they are woken"]
pub(crate) struct WakeBatch {
    wakers: SmallVec<[Waker; WAKE_BATCH]>,
    /// The servers of the readers that wait with a key, each server once. There are rarely more
    /// servers than processors.
    servers: SmallVec<[Arc<dyn WakeMany>; 4]>,
    /// For each reader that waits with a key: the index of its server in `servers`, and the key.
    keys: SmallVec<[(u32, u32); WAKE_BATCH]>,
}

impl WakeBatch {
    fn add(&mut self, many: &Arc<dyn WakeMany>, key: u32) {
        let place = self.servers.iter().position(|server| Arc::ptr_eq(server, many));
        let place = place.unwrap_or_else(|| {
            self.servers.push(Arc::clone(many));
            self.servers.len() - 1
        });
        self.keys.push((place as u32, key));
    }

    /// Wakes the readers. If a waker panics, the readers after it are not woken. This does not
    /// happen with the wakers of async runtimes, which do not panic.
    pub(crate) fn wake(&mut self) {
        for (place, server) in self.servers.iter().enumerate() {
            let of_server = self.keys.iter().filter(|(of, _)| *of as usize == place);
            let keys: SmallVec<[u32; WAKE_BATCH]> = of_server.map(|(_, key)| *key).collect();
            server.wake_many(&keys);
        }
        self.wakers.drain(..).for_each(Waker::wake);
    }

    #[cfg(all(test, not(downlink_loom)))]
    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.keys.is_empty()
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{self, Waker},
    };

    use super::*;

    /// A server that records the keys of the readers that the log wakes.
    struct RecordedKeys(Mutex<Vec<u32>>);

    impl WakeMany for RecordedKeys {
        fn wake_many(&self, keys: &[u32]) {
            self.0.lock().extend_from_slice(keys);
        }
    }

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl task::Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes the waiting readers, and returns the keys of the readers that were woken with a key.
    fn woken(wakes: &[&WakeSlot], recorded: &RecordedKeys) -> Vec<u32> {
        let mut woken = WakeBatch::default();
        wakes.iter().for_each(|wake| wake.take(&mut woken));
        woken.wake();
        std::mem::take(&mut *recorded.0.lock())
    }

    fn many() -> (Arc<RecordedKeys>, Arc<dyn WakeMany>) {
        let recorded = Arc::new(RecordedKeys(Mutex::new(Vec::new())));
        (Arc::clone(&recorded), recorded)
    }

    #[test]
    fn readers_of_one_server_are_woken_together_and_once() {
        let (recorded, many) = many();
        let (first, second) = (WakeSlot::new(), WakeSlot::new());
        assert!(first.register_with(&many, 7) && second.register_with(&many, 9));
        assert_eq!(woken(&[&first, &second], &recorded), [7, 9]);
        assert_eq!(woken(&[&first, &second], &recorded), [0; 0], "no reader waits");
        assert!(first.register_with(&many, 7));
        assert_eq!(woken(&[&first, &second], &recorded), [7]);
    }

    #[test]
    fn a_reader_keeps_its_first_key_and_server() {
        let ((recorded, ours), (other_keys, others)) = (many(), many());
        let wake = WakeSlot::new();
        assert!(wake.register_with(&ours, 7));
        assert!(!wake.register_with(&ours, 8) && !wake.register_with(&others, 7));
        assert_eq!(woken(&[&wake], &recorded), [7]);
        assert_eq!(woken(&[&wake], &other_keys), [0; 0]);
    }

    #[test]
    fn each_server_wakes_its_own_readers() {
        let ((recorded, ours), (other_keys, others)) = (many(), many());
        let wakes: Vec<WakeSlot> = (0..6).map(|_| WakeSlot::new()).collect();
        for (key, wake) in (10..).zip(&wakes) {
            assert!(wake.register_with(if key % 2 == 0 { &ours } else { &others }, key));
        }
        let all: Vec<&WakeSlot> = wakes.iter().collect();
        assert_eq!(woken(&all, &recorded), [10, 12, 14]);
        assert_eq!(*other_keys.0.lock(), [11, 13, 15]);
    }

    #[test]
    fn a_wake_up_uses_only_the_last_registration() {
        let (recorded, many) = many();
        let count = Arc::new(WakeCount::default());
        let waker = Waker::from(Arc::clone(&count));
        let wake = WakeSlot::new();
        wake.register(&waker);
        assert!(wake.register_with(&many, 7));
        assert_eq!((woken(&[&wake], &recorded), count.0.load(Ordering::Relaxed)), (vec![7], 0));
        assert!(wake.register_with(&many, 7));
        wake.register(&waker);
        assert_eq!((woken(&[&wake], &recorded), count.0.load(Ordering::Relaxed)), (vec![], 1));
    }
}
