//! The rule for peers that take no bytes: a write that makes no progress for `write_stall_max`
//! fails.
//!
//! While a write is blocked, the response's body is not polled. So only the code that waits for the
//! write can notice a stall. Four parts of the system wait for writes, and each part measures
//! progress in its own way:
//!
//! - On Linux, the kernel times the writes of TCP sockets (`TCP_USER_TIMEOUT`, see `socket`). The
//!   server then needs no timer for them.
//! - `peer_socket` times every other socket that hyper (the HTTP library) writes to, with a
//!   [`StallTimer`].
//! - `direct` writes event streams without hyper. Each of its drivers (tasks) times the writes that
//!   the kernel does not time.
//! - `http2` times each stream with a [`StallTimer`]. A peer can stall one stream by flow control
//!   while the socket still makes progress.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Times the writes of one socket or stream. `timer` is set only while a write is blocked.
#[derive(Debug)]
pub(super) struct StallTimer {
    /// `None` if the kernel times the writes.
    pub(super) max: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    pub(super) fn new(max: Option<Duration>) -> Self {
        Self { max, timer: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.timer.is_some()
    }

    /// Starts the timer, because a write is blocked.
    pub(super) fn start(&mut self) {
        self.timer = self.max.map(|max| Box::pin(sleep(max)));
    }

    /// Stops the timer, because the peer has taken bytes or there are none to send.
    pub(super) fn stop(&mut self) {
        self.timer = None;
    }

    /// Completes when the write has been blocked for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }
}
