//! Where a new reader begins to read.

use crate::types::{EvictionNumber, Gap, Timestamp};

/// The place where a new reader should begin.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// The events that are appended from now on. If the reader names only topics (no patterns) and
    /// all of them are finished, no event will follow. Then the reader gets the kept events of
    /// these topics instead.
    Live,
    /// All kept events, and then the events that are appended.
    Earliest,
    /// At most this many of the newest kept events, and then the events that are appended.
    Last(usize),
    /// The events published at this log time or later.
    Since(Timestamp),
    /// The events after the event with this id. The id is the text of a cursor, or an event id that
    /// a publisher chose.
    After(Box<str>),
}

/// The place where a reader begins, once it is known.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) next: u64,
    /// The gap to report before the first event.
    pub(crate) gap: Option<Gap>,
    /// False if the reader requested no old events. The reader then gets only events that are
    /// appended from now on.
    pub(crate) asked: bool,
    pub(crate) past: Option<Box<PastLosses>>,
    /// Whether the reader has nothing to read: all its topics are finished, and the store has no
    /// further event for it. `None` if the beginning was found without the store.
    pub(crate) at_end: Option<bool>,
}

/// Tells which evicted events count as missing for a reader that begins with old events. This
/// applies until the reader has reached the offset `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PastLosses {
    /// The number of the newest eviction before the reader began. Events evicted up to this
    /// eviction are not missing, because the reader requested only the events that were still kept.
    /// `None` for a reader that continues after an id, because every evicted event after that id is
    /// missing.
    pub(crate) evicted: Option<EvictionNumber>,
    /// The offset of the log's next event when the reader was opened. Events at or above this
    /// offset are appended while the reader is open. So if they are evicted before the reader has
    /// read them, they are missing.
    pub(crate) until: u64,
    /// The highest offset whose event was evicted before the reader was opened and is missing for
    /// the reader. Only a search through the topics that the reader's patterns match can find this
    /// offset. `None` without such a search, or if no event is missing.
    pub(crate) hole: Option<u64>,
}

impl PastLosses {
    /// For a reader that requests old events: events evicted up to `evicted` do not count.
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
