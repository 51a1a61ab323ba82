//! The flag that ends a server.
//!
//! Each server has one [`Drain`]. Its connections wait for [`Drain::begun`]; its event streams
//! check the flag in `outgoing`. Not here: the deadline (see `accept`).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

use crate::http::Spread;

/// Whether a server is draining, and when the clients of its ended streams return.
#[derive(Debug)]
pub(super) struct Drain {
    /// Stored with Release before the wake-up and loaded with Acquire by the woken task.
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
    /// A connection holds one of these for its whole life. Only the first poll registers, so only
    /// one task may poll it. Each later poll is one load; the shared list of waiters would be one
    /// lock for all connections.
    pub(super) fn begun(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let drain = Arc::clone(self);
        async move {
            let (mut woken, mut registered) = (pin!(drain.wake.notified()), false);
            poll_fn(|cx| {
                // Register, then check: a drain that begins in between wakes this task or is seen
                // here.
                registered = registered || woken.as_mut().poll(cx).is_pending();
                if drain.has_begun() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}
