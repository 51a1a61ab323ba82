//! Locks and atomics. In production they come from `parking_lot` and the standard library. In the
//! tests with loom, which tries all orders of the threads' steps, they come from loom.
//!
//! Both kinds have the same methods here, so loom tests the code that runs in production.

#[cfg(not(downlink_loom))]
pub(crate) use {
    parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard},
    std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(downlink_loom)]
pub(crate) use {
    self::model::{Condvar, Mutex, MutexGuard, RwLock, next_number},
    loom::sync::RwLockReadGuard,
    loom::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(downlink_loom)]
mod model {
    //! loom's locks with `parking_lot`'s signatures. A model is one test under loom. A panic ends
    //! the model, so no other thread takes a lock that the panic has poisoned.

    use std::ops::{Deref, DerefMut};

    use loom::sync::{RwLockReadGuard, RwLockWriteGuard};

    /// Returns a larger number at each call. The counter is not an atomic of loom, so it adds no
    /// step to a model.
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
            MutexGuard(Some(self.0.lock().expect("a panic ends the model")))
        }
    }

    /// The guard of loom's mutex. It is `None` only while `wait_for` waits.
    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_deref().expect("the guard is not used during a wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_deref_mut().expect("the guard is not used during a wait")
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Waits for a notification, and ignores the duration, because no time passes in a model.
        /// If the thread is never notified, loom reports a deadlock.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: std::time::Duration) {
            let held = guard.0.take();
            guard.0 = held.map(|held| self.0.wait(held).expect("a panic ends the model"));
        }

        /// Returns at once, so code that needs the full wait fails in a model.
        pub(crate) fn wait_until<T>(&self, _: &mut MutexGuard<'_, T>, _: std::time::Instant) {}
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
