//! The hint to look again: one flag and one waker for each subscription.
//!
//! *Register, then look; append, then wake.* A wake-up carries nothing, so one that is doubled costs
//! a look, and two appends before a look are one. A waker is taken out when it is used: the reader
//! registers anew each time it is about to wait.

use std::task::Waker;

use crate::sync::{AtomicBool, Mutex, Ordering};

/// Where a waiting reader leaves its waker.
#[derive(Debug)]
pub(crate) struct Wake {
    /// Set while nobody waits: a wake-up now would find no waker, so it is skipped without a lock.
    ///
    /// The swaps in `take` and `register` pair with each other: either `take` sees the registration,
    /// or the registration sees `take`, and with it the tail that was stored before. A plain store
    /// in `register` would not do: it would not see what it overwrites.
    awake: AtomicBool,
    /// Protects the waker alone; held for a swap. A waker taken out after another registration of
    /// the same one is woken after it, so that registration is not lost.
    waker: Mutex<Option<Waker>>,
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self { awake: AtomicBool::new(true), waker: Mutex::new(None) }
    }

    /// Leaves the waker. The caller looks at the log once more before it waits.
    pub(crate) fn register(&self, waker: &Waker) {
        let same = self.waker.lock().as_ref().is_some_and(|held| held.will_wake(waker));
        if !same {
            // Cloned and dropped without the lock: both may be a user's code.
            let waker = waker.clone();
            let old = self.waker.lock().replace(waker);
            drop(old);
        }
        self.awake.swap(false, Ordering::AcqRel);
    }

    /// Takes the waker of a reader that waits. The caller wakes it with no lock held.
    pub(crate) fn take(&self) -> Option<Waker> {
        if self.awake.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.waker.lock().take()
    }
}
