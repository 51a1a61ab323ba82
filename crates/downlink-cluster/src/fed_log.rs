//! The interface between a node and the log that it feeds.
//!
//! The log decides with its whole state whether a publish is new, and keeps the events that the
//! node has confirmed. It assigns no offsets.

use downlink_log::{Epoch, LostEnd, Offset, Timestamp, store::StoredEvent};
use thiserror::Error;

use crate::{entry::Record, mark::Mark, position::Position};

/// A log that applies decided events.
pub trait FedLog {
    /// Decides about the events of one publish. It changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the log refuses the publish.
    fn plan(&mut self, records: &[Record]) -> Result<Plan, Refusal>;

    /// Applies the events of the next position. The log cannot refuse them.
    ///
    /// A log with a cache stores the position, the mark, the time and the state in the same
    /// transaction as the events.
    fn apply(&mut self, applied: Applied);

    /// Removes all events after a position, and ends all readers. Returns the ids that publishers
    /// gave to the removed events. `removed_from` is the first offset to remove.
    fn cut_to(&mut self, last: Position, removed_from: Offset) -> Vec<Box<str>>;

    /// Removes everything, and ends all readers. `start` is the start of the new history; `None` if
    /// the node does not know yet where it begins.
    fn restart(&mut self, start: Option<&HistoryStart>);

    /// Whether the log keeps its events in a cache, for the heartbeats.
    fn has_cache(&self) -> bool {
        false
    }

    /// The offset of the event with a publisher's id. If there are two, it is the older one.
    fn publisher_id(&mut self, id: &str) -> Option<Offset>;
}

/// The start of a history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryStart {
    /// The epochs of the single node that the cluster grew from, oldest first, each with its first
    /// offset.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The first offset of the first position that the node applies. All later offsets belong to
    /// positions of the cluster.
    pub first: Offset,
}

/// The events of one position.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The position.
    pub position: Position,
    /// The first offset that an event of the position may have. If it is above the end of the
    /// position before, the events in between are not known to this node.
    pub first: Offset,
    /// The mark of the position. It is part of the ids of the events.
    pub mark: Mark,
    /// The engine's time of the position.
    pub time: Timestamp,
    /// Whether the node shows the position. A node that cannot decide which events of the position
    /// are confirmed does not show it. Then `events` is empty, and the log raises the floor of each
    /// address to the end of the position. (Events of an address below its floor may be missing.)
    pub is_shown: bool,
    /// The confirmed events.
    pub events: Vec<StoredEvent>,
    /// The state of the hub for [`History::restore`](crate::History::restore). `None` if it has not
    /// changed since the position before. The first position after a start has it.
    pub state: Option<Vec<u8>>,
    /// All known lost ends of the journal, oldest first. `None` if they have not changed since the
    /// position before. The first position after a start has them, even if there are none.
    pub lost_ends: Option<Vec<LostEnd>>,
}

/// For each event of a publish, the earlier event that it repeats, if any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// One element for each event.
    pub repeats: Vec<Option<Offset>>,
}

/// The reason why a log refuses a publish.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// An idempotency key was used for another content.
    #[error("the key of event {record} was used for another content")]
    KeyReused {
        /// The index of the event in the publish.
        record: usize,
    },
    /// An id was used for another content.
    #[error("the id of event {record} is taken")]
    IdTaken {
        /// The index of the event in the publish.
        record: usize,
    },
    /// A topic is finished.
    #[error("a topic of event {record} is finished")]
    Finished {
        /// The index of the event in the publish.
        record: usize,
    },
    /// A limit of the log is reached.
    #[error("a limit of the log is reached")]
    Limit,
}
