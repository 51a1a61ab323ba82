//! The hint to look again, or to end: two flags and one waker for each subscription.
//!
//! *Register, then look; append, then wake.* A wake-up carries nothing, so one that is doubled costs
//! a look, and two appends before a look are one. A waker is taken out when it is used: the reader
//! registers anew each time it is about to wait.

use std::task::Waker;

use crate::{
    reader::EndReason,
    sync::{AtomicBool, AtomicU8, Mutex, Ordering},
};

/// Where a waiting reader leaves its waker.
#[derive(Debug)]
pub(crate) struct Wake {
    /// Set while nobody waits: a wake-up now would find no waker, so it is skipped without a lock.
    ///
    /// The swaps in `take` and `register` pair with each other: either `take` sees the registration,
    /// or the registration sees `take`, and with it the tail that was stored before. A plain store
    /// in `register` would not do: it would not see what it overwrites.
    awake: AtomicBool,
    /// Why the reader is to end; 0 while it is not. Set (AcqRel) after the log's last append, loaded
    /// (Acquire) before the tail: what was acknowledged is read before the end.
    end: AtomicU8,
    /// Protects the waker alone; held for a swap. A waker taken out after another registration of
    /// the same one is woken after it, so that registration is not lost.
    waker: Mutex<Option<Waker>>,
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self { awake: AtomicBool::new(true), end: AtomicU8::new(0), waker: Mutex::new(None) }
    }

    /// Asks the reader to end. The first reason counts. The caller wakes it.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.end.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Why the reader is to end.
    pub(crate) fn ended(&self) -> Option<EndReason> {
        EndReason::from_number(self.end.load(Ordering::Acquire))
    }

    /// Leaves the waker. The caller looks at the log once more before it waits.
    pub(crate) fn register(&self, waker: &Waker) {
        // After a wake-up there is none to compare with.
        let same = !self.awake.load(Ordering::Relaxed)
            && self.waker.lock().as_ref().is_some_and(|held| held.will_wake(waker));
        if !same {
            // Cloned and dropped without the lock: both may be a user's code.
            let waker = waker.clone();
            let old = self.waker.lock().replace(waker);
            drop(old);
        }
        self.awake.swap(false, Ordering::AcqRel);
    }

    /// Whether nobody waits; only a hint by the time it is seen.
    pub(crate) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
    }

    /// Takes the waker of a reader that waits. The caller wakes it with no lock held.
    pub(crate) fn take(&self) -> Option<Waker> {
        if self.awake.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.waker.lock().take()
    }
}
