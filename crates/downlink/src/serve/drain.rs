//! The flag that tells a server to drain, which means to shut down gracefully.
//!
//! Each server has one [`Drain`]. The server's connections wait for [`Drain::begun`]. The server's
//! event streams check the flag in `outgoing`. The deadline of a drain is in `accept`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

use crate::http::Spread;

/// Whether a server is draining, and the range from which it picks the reconnection times for the
/// clients whose streams it ends.
#[derive(Debug)]
pub(super) struct Drain {
    /// The flag is stored with Release before the wake-up. The woken task loads it with Acquire.
    begun: AtomicBool,
    wake: Notify,
    pub(super) reconnection: Spread,
}

impl Drain {
    pub(super) fn new(reconnection: Spread) -> Self {
        Self { begun: AtomicBool::new(false), wake: Notify::new(), reconnection }
    }

    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Completes when the drain begins.
    ///
    /// A connection keeps one of these futures as long as it lives. Only one task may poll the
    /// future, because only the first poll registers the task. Each later poll only loads the flag.
    /// If each poll used the shared list of waiters, all connections would compete for one lock.
    pub(super) fn begun(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let drain = Arc::clone(self);
        async move {
            let (mut woken, mut registered) = (pin!(drain.wake.notified()), false);
            poll_fn(|cx| {
                // The task registers first and then checks the flag. If a drain begins in between,
                // the drain wakes the task, or the check sees the flag.
                registered = registered || woken.as_mut().poll(cx).is_pending();
                if drain.has_begun() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}
