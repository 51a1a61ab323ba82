//! Events, gaps, the reasons of gaps, and the reasons why a reader ends. Retention is the rule that
//! limits the history of a topic. If the history exceeds a limit of the rule, its oldest events are
//! evicted.

use crate::types::{Offset, Timestamp};

/// The limits of one read.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The maximum number of events; 0 counts as 1.
    pub events_max: usize,
    /// The number of payload bytes at which a read stops. The last event of the read may go beyond
    /// this number.
    pub bytes_max: usize,
}

/// An event as a reader gets it.
#[derive(Clone, Debug)]
pub struct Entry<P> {
    /// The event's position.
    pub offset: Offset,
    /// When the event was published, in log time.
    pub at: Timestamp,
    /// The payload, as it was appended.
    pub payload: P,
}

/// A range of offsets that the reader requested, and in which events are missing.
///
/// If other topics of the reader still keep events of the range, the reader gets those events after
/// the gap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// Why events are missing.
    pub reason: GapReason,
    /// The last offset that the reader had before the gap. `None` if the log does not know this
    /// offset, because the reader began at a given time, after an unknown id, or after the id of a
    /// lost event.
    pub after: Option<Offset>,
    /// The last missing offset; `None` if it is not known.
    pub until: Option<Offset>,
    /// The offset of the first kept event after the gap; `None` if there is no such event yet.
    pub oldest: Option<Offset>,
    /// The offset where the reader continues.
    pub next: Offset,
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GapReason {
    /// Retention evicted the events before the reader began to read.
    Evicted,
    /// The reader continues after an event id that the log does not know.
    UnknownId,
    /// The reader's event id has an epoch that the log does not know, for example because the log
    /// was started anew. An epoch is a period in which the offsets of a log are unique. The ids of
    /// a cluster have a mark in the place of the epoch.
    NewEpoch,
    /// The reader was connected, but retention evicted the events before the reader got to them.
    Lagged,
    /// The log has lost events that the reader already had. In a log whose ids have epochs, the
    /// offset in the reader's event id is above the last offset of the id's epoch. In the log of a
    /// cluster, the id may also belong to an end of the history that was lost earlier.
    Lost,
    /// The event is damaged in the store, or can no longer be decoded.
    Unreadable,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Evicted,
        Self::UnknownId,
        Self::NewEpoch,
        Self::Lagged,
        Self::Lost,
        Self::Unreadable,
    ];

    /// Whether a gap with this reason may be a mistake of a replica, which is a log that copies
    /// another log, its upstream. Once the replica knows as much as its upstream, it may find that
    /// no event is missing.
    pub(crate) fn may_be_unconfirmed(self) -> bool {
        matches!(self, Self::UnknownId | Self::NewEpoch | Self::Lost)
    }

    /// The word for this reason in events, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::UnknownId => "unknown_id",
            Self::NewEpoch => "new_epoch",
            Self::Lagged => "lagged",
            Self::Lost => "lost",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why a reader gets no more events.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[repr(u8)]
pub enum EndReason {
    /// The log was closed.
    Closed = 1,
    /// The server is draining: it ends all readers, for example before it stops. The reader may
    /// continue at another server.
    Drained = 2,
    /// The client was disconnected on request.
    Disconnected = 3,
    /// Every topic that the reader reads is finished, and the reader has read all their events.
    Finished = 4,
    /// The store could not be read. The client may open another reader.
    Unreadable = 5,
}

impl EndReason {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Closed, Self::Drained, Self::Disconnected, Self::Finished, Self::Unreadable]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}
