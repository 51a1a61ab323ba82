//! Where a new reader begins to read.

use crate::types::{EvictionNumber, Gap, Timestamp};

/// Where a new reader is asked to begin.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// The events from now on. If the reader names only topics and all of them are finished, it
    /// gets their kept events.
    Live,
    /// All retained history.
    Earliest,
    /// At most this many of the newest events.
    Last(usize),
    /// The events published at this log time or later.
    Since(Timestamp),
    /// The events after the event with this id. The id is a cursor, or an id that a publisher gave.
    After(Box<str>),
}

/// The place where a reader begins, once it is known.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) next: u64,
    /// The gap to report before the first event.
    pub(crate) gap: Option<Gap>,
    /// False for a reader that gave no id and gets only events from now on.
    pub(crate) asked: bool,
    pub(crate) past: Option<Box<PastLosses>>,
    /// Whether the reader is already at its end: all its topics are finished, and the store has no
    /// more of their events for it. `None` if the store was not asked.
    pub(crate) at_end: Option<bool>,
}

/// Which losses count for a reader that begins in the past. They count until the reader has passed
/// `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PastLosses {
    /// The newest eviction before the search for the first offset began. The reader did not ask for
    /// events that were evicted by then, so they are not missing. `None` for a reader that
    /// continues after an id: every evicted event after that id is missing.
    pub(crate) evicted: Option<EvictionNumber>,
    /// The tail when the reader opened. Events at or above it can be evicted only while the reader
    /// is open, so all their evictions count.
    pub(crate) until: u64,
    /// The last offset that the reader missed before it opened. Only a search for the losses of
    /// patterns finds it.
    pub(crate) hole: Option<u64>,
}

impl PastLosses {
    /// The losses for a reader that asks for history.
    pub(crate) fn of_history(evicted: EvictionNumber, until: u64) -> Self {
        Self { evicted: Some(evicted), until, hole: None }
    }

    /// The losses for a reader that continues after an id.
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
