//! Events, gaps, and the reasons for them and for the end of a reader.

use crate::types::{Offset, Timestamp};

/// How much one read may take.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Events; 0 is taken as 1.
    pub events_max: usize,
    /// Bytes of payload after which no further event is taken. The first event is always taken.
    pub bytes_max: usize,
}

/// An event as a reader gets it.
#[derive(Clone, Debug)]
pub struct Entry<P> {
    /// The event's position.
    pub offset: Offset,
    /// When it was published, in log time.
    pub at: Timestamp,
    /// The payload, as it was appended.
    pub payload: P,
}

/// A range of offsets that the reader asked for and that has missing events.
///
/// Events in the range that other topics of the reader still keep follow the gap as usual.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The last offset before the hole that the reader had; `None` if its id was not understood.
    pub after: Option<Offset>,
    /// The last offset known to be missing; `None` if that is not known.
    pub until: Option<Offset>,
    /// The first retained offset that follows; `None` if there is none yet.
    pub oldest: Option<Offset>,
    /// Where reading goes on.
    pub next: Offset,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GapReason {
    /// Retention removed it before the reader came back.
    Evicted,
    /// The reader's id means nothing to this log.
    UnknownId,
    /// The reader's id is of another life of the log.
    NewEpoch,
    /// The reader was connected, and slower than retention.
    Lagged,
    /// The reader's id is ahead of the log, which has lost what the reader saw.
    Lost,
    /// The event is damaged in the store, or can no longer be decoded.
    Unreadable,
}

/// Why a reader gets nothing any more.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[repr(u8)]
pub enum EndReason {
    /// The log was closed.
    Closed = 1,
    /// The server is going away; the reader may come back elsewhere.
    Drained = 2,
    /// The client was disconnected on request.
    Disconnected = 3,
    /// Every topic it reads is finished and read.
    Finished = 4,
    /// The store could not be read. The reader may come back.
    Unreadable = 5,
}

impl EndReason {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Closed, Self::Drained, Self::Disconnected, Self::Finished, Self::Unreadable]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}
