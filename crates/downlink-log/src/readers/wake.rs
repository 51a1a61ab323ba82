//! The hint to look again, or to end: two flags and whom to wake, for each subscription.
//!
//! *Register, then look; append, then wake.* A wake-up carries nothing, so one that is doubled costs
//! a look, and two appends before a look are one. The reader registers anew each time it is about to
//! wait.
//!
//! A reader waits by a waker of its own, which is taken out when it is used. Or it is one of many that
//! somebody serves together: then it is known by a key, which stays, and a publisher that wakes ten
//! thousand of them makes one call for each batch and server, and has no waker to fetch, to count and to
//! drop.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::Waker,
};

use smallvec::SmallVec;

use crate::{
    reader::EndReason,
    sync::{AtomicU8, AtomicU32, Mutex, Ordering},
};

/// How many readers are looked at under one hold of a topic's list, and woken after it.
///
/// A hold then lasts a few microseconds; with twice as many the arrays of wakers and keys cost a page
/// of stack, with half as many the lock is taken needlessly often.
pub(crate) const WAKE_BATCH: usize = 64;

/// Serves many readers, and knows each by a key.
pub trait WakeMany: Send + Sync {
    /// Has these readers look again.
    ///
    /// Like a [`Waker`] it is called from any thread and at any time, also for a reader that is gone and
    /// whose key may be another's by then: that one looks in vain. No lock of the log is held. It must
    /// not block, and must not panic.
    fn wake_many(&self, keys: &[u32]);
}

/// Whom a wake-up is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Waits {
    /// Nobody waits: a wake-up now is skipped without a lock.
    Nobody,
    /// Whoever left the waker.
    Alone,
    /// The reader's key is told to whoever serves it.
    AmongMany,
}

/// Where a waiting reader says whom to wake.
///
/// In this order, so that what most need comes first, in 32 bytes.
#[repr(C)]
pub(crate) struct Wake {
    /// A number of [`Waits`].
    ///
    /// The swaps in `take` and in both ways to register pair with each other, and order all that is
    /// below: either `take` sees the
    /// registration, or the registration sees `take`, and with it the tail that was stored before. A
    /// plain store would not do: it would not see what it overwrites.
    waits: AtomicU8,
    /// Why the reader is to end; 0 while it is not. Set (AcqRel) after the log's last append, loaded
    /// (Acquire) before the tail: what was acknowledged is read before the end.
    end: AtomicU8,
    /// The reader's key. Stored (Relaxed) before `many` is set, loaded after that was seen.
    key: AtomicU32,
    /// Who serves the reader among many: set once, before `waits` first says so.
    many: OnceLock<Arc<dyn WakeMany>>,
    /// Protects the waker alone; held for a swap. A waker taken out after another registration of
    /// the same one is woken after it, so that registration is not lost.
    waker: Mutex<Option<Waker>>,
}

impl Wake {
    /// The bytes that nearly every event needs of it.
    #[cfg(all(target_pointer_width = "64", not(any(test, downlink_loom))))]
    pub(crate) const HOT_BYTES: usize = std::mem::offset_of!(Self, waker);

    pub(crate) fn new() -> Self {
        Self {
            waits: AtomicU8::new(Waits::Nobody as u8),
            end: AtomicU8::new(0),
            key: AtomicU32::new(0),
            many: OnceLock::new(),
            waker: Mutex::new(None),
        }
    }

    /// Asks the reader to end. The first reason counts. The caller wakes it.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.end.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Why the reader is to end.
    pub(crate) fn ended(&self) -> Option<EndReason> {
        EndReason::from_number(self.end.load(Ordering::Acquire))
    }

    /// Leaves the waker. The caller looks at the log once more before it waits. Registrations, of
    /// either kind, come one after the other.
    pub(crate) fn register(&self, waker: &Waker) {
        // After a wake-up there is none to compare with.
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

    /// Has the reader woken by its key. False, and nothing changed, if it has been served under another
    /// one before, or by somebody else: then it has to leave a waker. The caller looks at the log once
    /// more before it waits.
    #[must_use = "whoever is refused has to leave a waker"]
    pub(crate) fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        let held = self.many.get_or_init(|| {
            self.key.store(key, Ordering::Relaxed);
            Arc::clone(many)
        });
        if !Arc::ptr_eq(held, many) || self.key.load(Ordering::Relaxed) != key {
            return false;
        }
        // A waker that was left before stays, unused, until another one replaces it.
        self.waits.swap(Waits::AmongMany as u8, Ordering::AcqRel);
        true
    }

    /// Whether nobody waits; only a hint by the time it is seen.
    pub(crate) fn is_awake(&self) -> bool {
        self.waits.load(Ordering::Relaxed) == Waits::Nobody as u8
    }

    /// Takes whom to wake, if the reader waits. The caller wakes them with no lock held.
    pub(crate) fn take(&self, woken: &mut Woken) {
        let waits = self.waits.swap(Waits::Nobody as u8, Ordering::AcqRel);
        if waits == Waits::AmongMany as u8 {
            if let Some(many) = self.many.get() {
                woken.add(many, self.key.load(Ordering::Relaxed));
            }
        } else if waits == Waits::Alone as u8 {
            woken.wakers.extend(self.waker.lock().take());
        }
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("waits", &self.waits).finish_non_exhaustive()
    }
}

/// Readers that were found waiting, a batch at most.
#[derive(Default)]
#[must_use = "the readers wait until they are woken"]
pub(crate) struct Woken {
    wakers: SmallVec<[Waker; WAKE_BATCH]>,
    /// Who serves the others: each once, and hardly more than there are processors.
    servers: SmallVec<[Arc<dyn WakeMany>; 4]>,
    /// By the place of who serves it, the key of each.
    keys: SmallVec<[(u32, u32); WAKE_BATCH]>,
}

impl Woken {
    fn add(&mut self, many: &Arc<dyn WakeMany>, key: u32) {
        let place = self.servers.iter().position(|server| Arc::ptr_eq(server, many));
        let place = place.unwrap_or_else(|| {
            self.servers.push(Arc::clone(many));
            self.servers.len() - 1
        });
        self.keys.push((place as u32, key));
    }

    /// Wakes them. A waker that panics takes the wake-ups after it with it; the wakers of runtimes do
    /// not.
    pub(crate) fn wake(self) {
        for (place, server) in self.servers.iter().enumerate() {
            let its = self.keys.iter().filter(|(of, _)| *of as usize == place);
            let keys: SmallVec<[u32; WAKE_BATCH]> = its.map(|(_, key)| *key).collect();
            server.wake_many(&keys);
        }
        self.wakers.into_iter().for_each(Waker::wake);
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

    /// The keys that were told.
    struct Told(Mutex<Vec<u32>>);

    impl WakeMany for Told {
        fn wake_many(&self, keys: &[u32]) {
            self.0.lock().extend_from_slice(keys);
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes whoever waits; says which keys were told.
    fn woken(wakes: &[&Wake], told: &Told) -> Vec<u32> {
        let mut woken = Woken::default();
        wakes.iter().for_each(|wake| wake.take(&mut woken));
        woken.wake();
        std::mem::take(&mut *told.0.lock())
    }

    fn many() -> (Arc<Told>, Arc<dyn WakeMany>) {
        let told = Arc::new(Told(Mutex::new(Vec::new())));
        (Arc::clone(&told), told)
    }

    #[test]
    fn readers_that_are_served_together_are_told_together_and_once() {
        let (told, many) = many();
        let (first, second) = (Wake::new(), Wake::new());
        assert!(first.register_with(&many, 7) && second.register_with(&many, 9));
        assert_eq!(woken(&[&first, &second], &told), [7, 9]);
        assert_eq!(woken(&[&first, &second], &told), [0; 0], "nobody waits");
        assert!(first.register_with(&many, 7));
        assert_eq!(woken(&[&first, &second], &told), [7]);
    }

    #[test]
    fn a_key_stays_and_another_is_refused() {
        let ((told, ours), (others_told, others)) = (many(), many());
        let wake = Wake::new();
        assert!(wake.register_with(&ours, 7));
        assert!(!wake.register_with(&ours, 8) && !wake.register_with(&others, 7));
        assert_eq!(woken(&[&wake], &told), [7]);
        assert_eq!(woken(&[&wake], &others_told), [0; 0]);
    }

    #[test]
    fn each_server_is_told_of_its_own_readers() {
        let ((told, ours), (others_told, others)) = (many(), many());
        let wakes: Vec<Wake> = (0..6).map(|_| Wake::new()).collect();
        for (key, wake) in (10..).zip(&wakes) {
            assert!(wake.register_with(if key % 2 == 0 { &ours } else { &others }, key));
        }
        let all: Vec<&Wake> = wakes.iter().collect();
        assert_eq!(woken(&all, &told), [10, 12, 14]);
        assert_eq!(*others_told.0.lock(), [11, 13, 15]);
    }

    #[test]
    fn who_registered_last_is_woken() {
        let (told, many) = many();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let wake = Wake::new();
        wake.register(&waker);
        assert!(wake.register_with(&many, 7));
        assert_eq!((woken(&[&wake], &told), count.0.load(Ordering::Relaxed)), (vec![7], 0));
        assert!(wake.register_with(&many, 7));
        wake.register(&waker);
        assert_eq!((woken(&[&wake], &told), count.0.load(Ordering::Relaxed)), (vec![], 1));
    }
}
