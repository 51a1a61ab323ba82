//! Publishes, and the answers to their publishers.

use std::time::Duration;

use downlink_log::Offset;

use crate::{entry::Record, fed_log::Refusal};

/// The time after which a publisher gets an answer in any case. It is shorter than the lifetime of
/// an entry, because a publisher should not wait longer than a usual failover of an engine.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// The number of a publish, by which its answer is recognised.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublishId(pub u64);

/// Events that are published together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publish {
    /// The events. All of them are applied, or none.
    pub records: Vec<Record>,
    /// The streamed request body that the events belong to, if any. At any time, only one entry
    /// with events of a stream is on its way. So the events of a stream keep their order.
    pub stream: Option<u64>,
}

/// The answer to a publish.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// The events are in the log.
    Applied {
        /// One element for each event of the publish.
        events: Vec<AppliedEvent>,
    },
    /// The log refuses the publish.
    Refused(Refusal),
    /// The publish does not fit into an entry, or has no events.
    TooLarge,
    /// The node takes no publishes now, too many publishes wait, or the engine did not answer. The
    /// events will not be applied. If `appended` is true, this is certain only if the engine loses
    /// no entries.
    Unavailable {
        /// Whether the events were in an entry that this node has sent to the engine.
        appended: bool,
    },
    /// The events may be in the log, now or later. The publisher should repeat the publish with the
    /// same idempotency key.
    OutcomeUnknown,
    /// The engine has no room. The events will not be applied.
    Full,
}

/// Where an event of a publish is in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AppliedEvent {
    /// The offset.
    pub offset: Offset,
    /// Whether this is an earlier event, which the published one repeats.
    pub is_repeat: bool,
}
