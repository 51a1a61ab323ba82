//! The progress of the current request and response on a connection.
//!
//! A connection may take its socket back from hyper (the HTTP library) only at certain moments, and
//! hyper does not report these moments. The bodies of the requests, the bodies of the responses and
//! the socket each see a part of the progress, and record it here. All of them run in one task. If
//! the task moves to another thread, the move itself orders their memory accesses. So Relaxed is
//! enough for these atomics.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// The first stage: no handover of a response to a driver has begun. A driver is a task that writes
/// event streams without hyper (see `direct`). The next constants are the later stages, in order.
const NONE: u8 = 0;
/// The body of the response is parked: it waits for the handover, and hyper has an empty stub
/// instead.
const PARKED: u8 = 1;
/// hyper has polled the stub, so the head of the response is at least in hyper's buffer.
const ASKED: u8 = 2;
/// hyper has flushed the socket after that poll, so the head is written.
const WRITTEN: u8 = 3;

/// The progress of the current request and response on one connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: AtomicU8,
    /// The number of requests that have begun, which is also the number of the current request.
    requests: AtomicU32,
    /// The number of requests whose answer has ended. An answer ends when hyper has taken its whole
    /// body or gives up.
    answered: AtomicU32,
    /// Whether hyper may still hold a part of the last answer in its buffer.
    unsent: AtomicBool,
    /// The number of the last request whose body was read to its end.
    read: AtomicU32,
    /// Whether a part of the next request's head has arrived.
    head_began: AtomicBool,
    /// Whether the app is still reading the body of a request. The app may do so even after it has
    /// answered.
    body_is_open: AtomicBool,
    upgrading: AtomicBool,
}

/// The input that a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Awaited {
    /// The head of the first request, or the rest of a later head that has partly arrived.
    Head,
    /// Another request, which may never come.
    Request,
    /// Nothing, because a request is in progress.
    Nothing,
}

impl Progress {
    /// The progress of a connection that a driver has given back. The connection had one request,
    /// and the driver has written the answer.
    pub(super) fn of_a_kept_connection() -> Self {
        Self { requests: AtomicU32::new(1), answered: AtomicU32::new(1), ..Self::default() }
    }

    /// Records that a request begins, and returns its number.
    pub(super) fn begin_request(&self) -> u32 {
        self.stage.store(NONE, Ordering::Relaxed);
        self.head_began.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Records that the body of a request begins (true), or that it was read to its end or dropped
    /// (false).
    pub(super) fn note_body(&self, is_open: bool) {
        self.body_is_open.store(is_open, Ordering::Relaxed);
    }

    fn is_between_requests(&self) -> bool {
        self.is_idle() && !self.body_is_open.load(Ordering::Relaxed)
    }

    /// Records that the socket returned some input.
    pub(super) fn note_input(&self) {
        if self.is_between_requests() {
            self.head_began.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn awaited(&self) -> Awaited {
        if !self.is_between_requests() {
            Awaited::Nothing
        } else if self.was_asked() && !self.head_began.load(Ordering::Relaxed) {
            Awaited::Request
        } else {
            Awaited::Head
        }
    }

    /// Whether the peer has sent a request.
    pub(super) fn was_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    pub(super) fn note_answered(&self) {
        self.unsent.store(true, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all requests are answered and hyper's buffer has been flushed since the last answer.
    pub(super) fn is_idle(&self) -> bool {
        !self.unsent.load(Ordering::Relaxed)
            && self.requests.load(Ordering::Relaxed) == self.answered.load(Ordering::Relaxed)
    }

    /// Records that the body of a request was read to its end. The record does not count for later
    /// requests.
    pub(super) fn note_read(&self, number: u32) {
        self.read.fetch_max(number, Ordering::Relaxed);
    }

    pub(super) fn was_read(&self, number: u32) -> bool {
        self.read.load(Ordering::Relaxed) == number
    }

    /// Records that the connection is upgraded to another protocol.
    pub(super) fn note_upgrade(&self) {
        self.upgrading.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Relaxed)
    }

    pub(super) fn note_parked(&self) {
        self.stage.store(PARKED, Ordering::Relaxed);
    }

    pub(super) fn note_asked(&self) {
        if self.stage.load(Ordering::Relaxed) == PARKED {
            self.stage.store(ASKED, Ordering::Relaxed);
        }
    }

    /// Records that hyper's buffer was flushed.
    pub(super) fn note_flushed(&self) {
        self.unsent.store(false, Ordering::Relaxed);
        if self.stage.load(Ordering::Relaxed) == ASKED {
            self.stage.store(WRITTEN, Ordering::Relaxed);
        }
    }

    /// Whether the head of a parked response is written. Its body is not yet written at this stage.
    pub(super) fn is_head_written(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == WRITTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_counts_as_written_only_after_all_stages_in_their_order() {
        let progress = Progress::default();
        progress.begin_request();
        progress.note_asked();
        progress.note_flushed();
        assert!(!progress.is_head_written());
        progress.note_parked();
        progress.note_flushed();
        assert!(!progress.is_head_written(), "the flush was for an earlier answer");
        progress.note_asked();
        assert!(!progress.is_head_written());
        progress.note_flushed();
        assert!(progress.is_head_written());
        progress.begin_request();
        assert!(!progress.is_head_written());
    }

    #[test]
    fn a_connection_is_idle_between_an_answer_and_the_next_request() {
        let progress = Progress::default();
        assert!(progress.is_idle() && !progress.was_asked());
        assert_eq!(progress.awaited(), Awaited::Head);
        progress.begin_request();
        assert!(!progress.is_idle());
        progress.note_answered();
        assert!(!progress.is_idle(), "the answer may not be sent yet");
        progress.note_flushed();
        assert!(progress.is_idle() && progress.was_asked());
        assert_eq!(progress.awaited(), Awaited::Request);
        progress.note_input();
        assert_eq!(progress.awaited(), Awaited::Head);
        progress.begin_request();
        progress.note_input();
        assert_eq!(progress.awaited(), Awaited::Nothing);
        // The body of a request may still be read after the answer.
        progress.note_body(true);
        progress.note_answered();
        progress.note_flushed();
        progress.note_input();
        assert_eq!(progress.awaited(), Awaited::Nothing);
        progress.note_body(false);
        assert_eq!(progress.awaited(), Awaited::Request);
        let kept = Progress::of_a_kept_connection();
        assert_eq!(kept.awaited(), Awaited::Request);
        assert!(kept.is_idle() && kept.was_asked());
        let next = kept.begin_request();
        assert!(!kept.is_idle() && !kept.was_read(next));
    }

    #[test]
    fn the_body_of_an_earlier_request_does_not_count_for_a_later_one() {
        let progress = Progress::default();
        let first = progress.begin_request();
        let second = progress.begin_request();
        progress.note_read(first);
        assert!(!progress.was_read(second));
        progress.note_read(second);
        assert!(progress.was_read(second));
    }
}
