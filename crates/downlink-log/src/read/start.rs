//! Where a new reader begins to read.

use crate::types::{EvictionNumber, Gap, Timestamp};

/// Where a new reader is asked to begin.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// The events that are appended from now on. If the reader names only topics and all of them
    /// are finished, no event will follow, so the reader gets the kept events of these topics.
    Live,
    /// All kept events, and then the events that are appended.
    Earliest,
    /// At most this many of the newest kept events, and then the events that are appended.
    Last(usize),
    /// The events published at this log time or later.
    Since(Timestamp),
    /// The events after the event with this id. The id is the text of a cursor, or an id that a
    /// publisher gave to an event.
    After(Box<str>),
}

/// The place where a reader begins, once it is known.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) next: u64,
    /// The gap to report before the first event.
    pub(crate) gap: Option<Gap>,
    /// False if the reader asked for no old events, so it gets only events that are appended from
    /// now on.
    pub(crate) asked: bool,
    pub(crate) past: Option<Box<PastLosses>>,
    /// Whether the reader has nothing to read: all its topics are finished, and the store has no
    /// more of their events for it. `None` if the store was not asked.
    pub(crate) at_end: Option<bool>,
}

/// Which evicted events count as missing for a reader that begins with old events. This applies
/// until the reader has reached `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PastLosses {
    /// The number of the newest eviction before the reader began. Events that were evicted by then
    /// are not missing, because the reader did not ask for them. `None` for a reader that continues
    /// after an id, because every evicted event after that id is missing.
    pub(crate) evicted: Option<EvictionNumber>,
    /// The tail when the reader was opened. Events at or above it can be evicted only while the
    /// reader is open, so they are missing if they are evicted.
    pub(crate) until: u64,
    /// The last offset that the reader missed before it was opened. It is known only if a search
    /// has found the evicted events of the topics that the reader's patterns match.
    pub(crate) hole: Option<u64>,
}

impl PastLosses {
    /// For a reader that asks for old events: events evicted up to `evicted` do not count.
    pub(crate) fn of_history(evicted: EvictionNumber, until: u64) -> Self {
        Self { evicted: Some(evicted), until, hole: None }
    }

    /// For a reader that continues after an id: all evicted events count.
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
