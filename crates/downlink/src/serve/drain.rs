//! The flag that ends a server.
//!
//! Each server has one [`Drain`]. Its connections wait for [`Drain::begun`]; its event streams check
//! the flag in `outgoing`. Not here: the deadline (see `accept`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::http::Spread;

/// Whether a server is draining, and when the clients of its ended streams return.
#[derive(Debug)]
pub(super) struct Drain {
    /// Stored with Release before the wake-up and loaded with Acquire by the woken task.
    begun: AtomicBool,
    wake: Arc<Notify>,
    reconnection: Spread,
}

impl Drain {
    pub(super) fn new(reconnection: Spread) -> Self {
        Self { begun: AtomicBool::new(false), wake: Arc::new(Notify::new()), reconnection }
    }

    pub(super) fn reconnection(&self) -> Spread {
        self.reconnection
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
    pub(super) fn begun(self: &Arc<Self>) -> Begun {
        let woken = Arc::clone(&self.wake).notified_owned();
        Begun { drain: Arc::clone(self), woken, registered: false }
    }
}

pin_project! {
    /// See [`Drain::begun`].
    pub(super) struct Begun {
        drain: Arc<Drain>,
        #[pin]
        woken: OwnedNotified,
        registered: bool,
    }
}

impl Future for Begun {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Register, then check: a drain that begins in between wakes this task or is seen here.
        if !*this.registered && this.woken.poll(cx).is_pending() {
            *this.registered = true;
        }
        if this.drain.has_begun() { Poll::Ready(()) } else { Poll::Pending }
    }
}
