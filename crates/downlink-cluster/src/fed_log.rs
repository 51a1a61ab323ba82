//! The interface between a node and the log that it feeds.
//!
//! The log decides with its whole state whether a publish is new, and keeps the events that the
//! node has confirmed. It assigns no offsets.

use downlink_log::{Offset, Timestamp, store::StoredEvent};
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
    /// A log with a cache stores the position, the mark and the time in the same transaction as the
    /// events.
    fn apply(&mut self, applied: Applied);

    /// Removes all events after a position, and ends all readers. Returns the ids that publishers
    /// gave to the removed events. `removed_from` is the first offset to remove.
    fn cut_to(&mut self, last: Position, removed_from: Offset) -> Vec<Box<str>>;

    /// Removes everything, and ends all readers. The next events may have any later offset.
    fn restart(&mut self);

    /// The offset of the event with a publisher's id. If there are two, it is the older one.
    fn publisher_id(&self, id: &str) -> Option<Offset>;
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
    /// The confirmed events. It is empty while the node cannot decide.
    pub events: Vec<StoredEvent>,
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
