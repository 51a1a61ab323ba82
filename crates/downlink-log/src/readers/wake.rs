//! The wake-up of one reader: the hint to look again, or to end.
//!
//! *Register, then look; append, then wake.* A wake-up carries nothing. A second one costs only a
//! look, and two appends before a look need only one. The reader registers anew each time before it
//! waits.
//!
//! A reader waits by a waker of its own, which the wake-up takes out. Or a server of many readers
//! registers it by a key, which stays: a publisher that wakes ten thousand of them makes one call
//! for each batch and server, and has no waker to fetch, to count or to drop.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::Waker,
};

use smallvec::SmallVec;

use crate::sync::{AtomicU8, AtomicU32, Mutex, Ordering};
use crate::types::EndReason;

/// Readers looked at under one hold of a list, and woken after it.
///
/// A hold then lasts a few microseconds; with twice as many the arrays of wakers and keys cost a
/// page of stack, with half as many the lock is taken needlessly often.
pub(crate) const WAKE_BATCH: usize = 64;

/// Serves many readers, and knows each by a key.
pub trait WakeMany: Send + Sync {
    /// Makes these readers look again.
    ///
    /// Like a [`Waker`] it is called from any thread and at any time, also for a reader that is
    /// gone. Its key may belong to another reader by then, which then looks without need. No lock
    /// of the log is held. The call must not block and must not panic.
    fn wake_many(&self, keys: &[u32]);
}

/// How a reader waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Waits {
    /// It does not wait: a wake-up now is skipped without a lock.
    Nobody,
    /// By its own waker.
    Alone,
    /// By its key, at a server of many.
    AmongMany,
}

/// The slot in which a waiting reader registers.
///
/// The order of the fields keeps those that a wake-up usually needs in the first 32 bytes.
#[repr(C)]
pub(crate) struct WakeSlot {
    /// A number of [`Waits`].
    ///
    /// The swaps in `take` and in both ways to register pair with each other and order the fields
    /// below: either `take` sees the registration, or the registration sees `take`, and with it the
    /// tail that was stored before. A plain store would not see the value that it overwrites.
    waits: AtomicU8,
    /// Why the reader must end; 0 while it need not. Set (AcqRel) after the log's last append,
    /// loaded (Acquire) before the tail, so acknowledged events are read before the end.
    end: AtomicU8,
    /// The reader's key. Stored (Relaxed) before `many` is set, loaded after that was seen.
    key: AtomicU32,
    /// The server of many: set once, before `waits` first says `AmongMany`.
    many: OnceLock<Arc<dyn WakeMany>>,
    /// Protects the waker alone; held for a swap. A waker taken out after another registration of
    /// the same one is woken after it, so that registration is not lost.
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

    /// Asks the reader to end; the first reason counts. The caller wakes the reader.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.end.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Why the reader must end.
    pub(crate) fn ended(&self) -> Option<EndReason> {
        EndReason::from_number(self.end.load(Ordering::Acquire))
    }

    /// Registers a waker. The caller looks at the log once more before it waits. Registrations, of
    /// either kind, never run at the same time.
    pub(crate) fn register(&self, waker: &Waker) {
        // After a wake-up there is no waker to compare with.
        let same = self.waits.load(Ordering::Relaxed) == Waits::Alone as u8
            && self.waker.lock().as_ref().is_some_and(|held| held.will_wake(waker));
        if !same {
            // Cloned and dropped without the lock: both may be a user's code.
            let waker = waker.clone();
            let old = self.waker.lock().replace(waker);
            drop(old);
        }
        self.waits.swap(Waits::Alone as u8, Ordering::AcqRel);
    }

    /// Registers the reader's key at a server of many. `false`, and nothing changed, if it was
    /// registered under another key or at another server before: then the caller registers a waker.
    /// The caller looks at the log once more before it waits.
    #[must_use = "if it is refused, register a waker"]
    pub(crate) fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        let held = self.many.get_or_init(|| {
            self.key.store(key, Ordering::Relaxed);
            Arc::clone(many)
        });
        if !Arc::ptr_eq(held, many) || self.key.load(Ordering::Relaxed) != key {
            return false;
        }
        // An older waker stays, unused, until another one replaces it.
        self.waits.swap(Waits::AmongMany as u8, Ordering::AcqRel);
        true
    }

    /// Whether the reader does not wait. Only a hint: it may change at once.
    pub(crate) fn is_awake(&self) -> bool {
        self.waits.load(Ordering::Relaxed) == Waits::Nobody as u8
    }

    /// Takes the registration out, if the reader waits. The caller wakes the batch with no lock
    /// held.
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

/// Waiting readers that were taken out, at most a batch.
#[derive(Default)]
#[must_use = "the readers wait until they are woken"]
pub(crate) struct WakeBatch {
    wakers: SmallVec<[Waker; WAKE_BATCH]>,
    /// The servers of the others, each once; hardly more than there are processors.
    servers: SmallVec<[Arc<dyn WakeMany>; 4]>,
    /// The place of the server in `servers`, and the reader's key.
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

    /// Wakes the readers. A waker that panics loses the wake-ups after it; the wakers of runtimes
    /// do not panic.
    pub(crate) fn wake(&mut self) {
        for (place, server) in self.servers.iter().enumerate() {
            let its = self.keys.iter().filter(|(of, _)| *of as usize == place);
            let keys: SmallVec<[u32; WAKE_BATCH]> = its.map(|(_, key)| *key).collect();
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

    /// Records the keys that were woken.
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

    /// Wakes the waiting readers, and gives the keys that were woken.
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
    fn a_key_stays_and_another_is_refused() {
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
    fn the_last_registration_is_woken() {
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
