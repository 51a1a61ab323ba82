//! The rule for peers that take no bytes: a write that makes no progress for `write_stall_max`
//! fails.
//!
//! While a write is blocked, the response's body is not polled, so only the owner of the write can
//! notice a stall. There are four owners, and each notices progress in its own way:
//!
//! - On Linux, the kernel times the writes of TCP sockets (`TCP_USER_TIMEOUT`, see `socket`). The
//!   server then needs no timer for them.
//! - `peer_socket` times every other socket that hyper writes to, with a [`StallTimer`].
//! - `direct` times such sockets with the timers of its driver.
//! - `http2` times each stream with a [`StallTimer`], since flow control hides a stall of one
//!   stream from the socket.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Times the writes of one socket or stream. It has a timer only while a write is blocked.
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
