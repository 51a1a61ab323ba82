//! Where a new reader begins.

use crate::types::{EvictionNumber, Gap, Timestamp};

/// The requested beginning.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// The events from now on, and all kept events of finished topics.
    Live,
    /// All retained history.
    Earliest,
    /// At most this many of the newest events.
    Last(usize),
    /// The events published at this log time or later.
    Since(Timestamp),
    /// The events after the one with this id, in whatever form.
    After(Box<str>),
}

/// A resolved start.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) next: u64,
    /// Reported before anything is read.
    pub(crate) gap: Option<Gap>,
    /// Whether the reader gave an id, or asked for history.
    pub(crate) asked: bool,
    pub(crate) past: Option<Box<PastLosses>>,
    /// Whether its finished topics have nothing more for it, if a store has said so.
    pub(crate) at_end: Option<bool>,
}

/// The losses that count for a reader that begins in the past, until it is beyond `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PastLosses {
    /// The newest eviction before the reader looked. The reader never asked for events evicted by
    /// then. `None` for a reader that continues after an id: it misses every evicted event.
    pub(crate) evicted: Option<EvictionNumber>,
    /// The tail when it opened: later evictions below are found in any case from here on.
    pub(crate) until: u64,
    /// The last offset that it missed before it opened, if its patterns had to be searched for it.
    pub(crate) hole: Option<u64>,
}

impl PastLosses {
    /// For a reader that asks for history.
    pub(crate) fn of_history(evicted: EvictionNumber, until: u64) -> Self {
        Self { evicted: Some(evicted), until, hole: None }
    }

    /// For a reader that continues after an id.
    pub(crate) fn of_id(until: u64, hole: Option<u64>) -> Self {
        Self { evicted: None, until, hole }
    }
}

impl Beginning {
    pub(crate) fn at(next: u64) -> Self {
        Self { next, gap: None, asked: true, past: None, at_end: None }
    }

    pub(crate) fn with_past(self, past: PastLosses) -> Self {
        Self { past: Some(Box::new(past)), ..self }
    }
}
