//! Locks and atomics, from `parking_lot` and the standard library, or from loom in its tests.
//!
//! Both give the same few methods, so that the code under test is the code that runs.

#[cfg(not(downlink_loom))]
pub(crate) use {
    parking_lot::Condvar,
    std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(not(any(downlink_loom, test)))]
pub(crate) use parking_lot::{Mutex, RwLock};

#[cfg(all(test, not(downlink_loom)))]
pub(crate) use self::counted::{Mutex, RwLock, locks_taken};

#[cfg(downlink_loom)]
pub(crate) use {
    self::model::{Condvar, Mutex, RwLock, next_number},
    loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, not(downlink_loom)))]
mod counted {
    //! `parking_lot`'s locks, and how often this thread has taken one.

    use std::cell::Cell;

    use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    thread_local! {
        static TAKEN: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn locks_taken() -> usize {
        TAKEN.get()
    }

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            TAKEN.set(TAKEN.get() + 1);
            self.0.lock()
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(parking_lot::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            TAKEN.set(TAKEN.get() + 1);
            self.0.read()
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            TAKEN.set(TAKEN.get() + 1);
            self.0.write()
        }
    }
}

#[cfg(downlink_loom)]
mod model {
    //! loom's locks with `parking_lot`'s signatures. Poisoning cannot happen: a panic ends the model.

    use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    /// Larger each time. No step of a model, as loom's own atomics would be.
    pub(crate) fn next_number() -> usize {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a panic ends the model")
        }
    }

    /// Wakes nobody: models take the writer's steps themselves.
    #[derive(Debug)]
    pub(crate) struct Condvar;

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn notify_one(&self) {}

        pub(crate) fn notify_all(&self) {}

        pub(crate) fn wait_for<G>(&self, _: &mut G, _: std::time::Duration) -> TimedOut {
            TimedOut
        }

        pub(crate) fn wait_until<G>(&self, _: &mut G, _: std::time::Instant) -> TimedOut {
            TimedOut
        }
    }

    /// In a model no time passes, so every wait with a limit is over.
    pub(crate) struct TimedOut;

    impl TimedOut {
        pub(crate) fn timed_out(&self) -> bool {
            true
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect("a panic ends the model")
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect("a panic ends the model")
        }
    }
}
