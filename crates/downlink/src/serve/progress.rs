//! The progress of the request and the response under way on a connection.
//!
//! A connection may take its socket back from hyper only at certain moments. The requests' bodies,
//! the responses' bodies and the socket each see a part of that, and record it here. All of them
//! run in one task, or move to another with the ordering that a move brings. So the order of memory
//! does not matter for these numbers (Relaxed).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// The stages before the handover of a response, in order.
const NONE: u8 = 0;
/// Its body is parked.
const PARKED: u8 = 1;
/// hyper has polled the stub in its place, so the head is in hyper's buffer or beyond.
const ASKED: u8 = 2;
/// hyper has flushed the socket after that, so the head is written.
const WRITTEN: u8 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: AtomicU8,
    /// Requests that have begun; also the number of the one under way.
    requests: AtomicU32,
    /// Requests whose answer has ended: hyper has all of its body, or has given up.
    answered: AtomicU32,
    /// Whether a part of the last answer may not be in the kernel yet.
    unsent: AtomicBool,
    /// The number of the last request whose body was read to its end.
    read: AtomicU32,
    /// Whether a part of the next request's head has come.
    head_began: AtomicBool,
    /// Whether the body of a request is still being read, perhaps after its answer.
    body_is_open: AtomicBool,
    upgrading: AtomicBool,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Awaited {
    /// The head of a request: of the first one, or the rest of one that has begun.
    Head,
    /// Another request, which may come or not.
    Request,
    /// Nothing: a request is under way.
    Nothing,
}

impl Progress {
    /// The progress of a connection after an answer on the direct path.
    pub(super) fn of_a_kept_connection() -> Self {
        Self { requests: AtomicU32::new(1), answered: AtomicU32::new(1), ..Self::default() }
    }

    /// A request begins, and gets a number.
    pub(super) fn begin_request(&self) -> u32 {
        self.stage.store(NONE, Ordering::Relaxed);
        self.head_began.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The body of a request begins, or was read to its end, or dropped.
    pub(super) fn note_body(&self, is_open: bool) {
        self.body_is_open.store(is_open, Ordering::Relaxed);
    }

    fn is_between_requests(&self) -> bool {
        self.is_idle() && !self.body_is_open.load(Ordering::Relaxed)
    }

    /// The socket has given some input.
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

    /// Whether a request has come.
    pub(super) fn was_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    pub(super) fn note_answered(&self) {
        self.unsent.store(true, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether no request waits for its answer or for the rest of it.
    pub(super) fn is_idle(&self) -> bool {
        !self.unsent.load(Ordering::Relaxed)
            && self.requests.load(Ordering::Relaxed) == self.answered.load(Ordering::Relaxed)
    }

    /// The body of a request was read to its end. An end that comes after the response has no
    /// effect.
    pub(super) fn note_read(&self, number: u32) {
        self.read.fetch_max(number, Ordering::Relaxed);
    }

    pub(super) fn was_read(&self, number: u32) -> bool {
        self.read.load(Ordering::Relaxed) == number
    }

    /// The connection becomes another protocol's.
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

    /// hyper's buffer is written.
    pub(super) fn note_flushed(&self) {
        self.unsent.store(false, Ordering::Relaxed);
        if self.stage.load(Ordering::Relaxed) == ASKED {
            self.stage.store(WRITTEN, Ordering::Relaxed);
        }
    }

    /// Whether the head of a parked response is written, and nothing else of it.
    pub(super) fn is_head_written(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == WRITTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_written_only_after_the_stages_in_order() {
        let progress = Progress::default();
        progress.begin_request();
        progress.note_asked();
        progress.note_flushed();
        assert!(!progress.is_head_written());
        progress.note_parked();
        progress.note_flushed();
        assert!(!progress.is_head_written(), "a flush of something before");
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
        assert!(!progress.is_idle(), "the peer may be slow to take it");
        progress.note_flushed();
        assert!(progress.is_idle() && progress.was_asked());
        assert_eq!(progress.awaited(), Awaited::Request);
        progress.note_input();
        assert_eq!(progress.awaited(), Awaited::Head);
        progress.begin_request();
        progress.note_input();
        assert_eq!(progress.awaited(), Awaited::Nothing);
        // A body may go on after its answer.
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
    fn body_of_an_earlier_request_does_not_count_for_a_later_one() {
        let progress = Progress::default();
        let first = progress.begin_request();
        let second = progress.begin_request();
        progress.note_read(first);
        assert!(!progress.was_read(second));
        progress.note_read(second);
        assert!(progress.was_read(second));
    }
}
