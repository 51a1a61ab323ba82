//! The settings of a node, and its counters.

use std::time::Duration;

use downlink_log::KEY_WINDOW;

use crate::{entry::HubId, position::Position, rules::Rules};

/// The default of [`NodeSettings::snapshot_every`]. The engine has to keep entries for longer than
/// this time.
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(10 * 60);

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The hub. Entries of other hubs are void.
    pub hub: HubId,
    /// The rules that all nodes share.
    pub rules: Rules,
    /// The time for which the log keeps idempotency keys and finished topics. A node takes
    /// publishes only if the events that it shows cover at least this much engine time, or if it
    /// has the whole history.
    pub mature_after: Duration,
    /// If the tail has delivered no snapshot for this long, the node appends one.
    pub snapshot_every: Duration,
    /// A hash of the retention rules, for the heartbeats.
    pub retention: u64,
    /// The name of the node, for the heartbeats; at most
    /// [`NODE_NAME_BYTES_MAX`](crate::NODE_NAME_BYTES_MAX) bytes. Each node needs its own.
    pub name: Box<str>,
}

impl NodeSettings {
    /// Settings with the default rules.
    pub fn new(hub: HubId) -> Self {
        Self {
            hub,
            rules: Rules::default(),
            mature_after: KEY_WINDOW,
            snapshot_every: SNAPSHOT_EVERY,
            retention: 0,
            name: "".into(),
        }
    }
}

/// The state of a node, for metrics and operators.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The last position that the node has applied.
    pub position: Position,
    /// The number of positions from `position` to the end of the journal, as the node knows it from
    /// its last question.
    pub behind: u64,
    /// Whether the node shows events to readers.
    pub serves_readers: bool,
    /// Whether the node takes publishes.
    pub takes_publishes: bool,
    /// The time between the oldest entry that the engine keeps and the newest one, if the node
    /// knows both.
    pub oldest_age: Option<Duration>,
    /// The version of the cluster that this node cannot decode. The node has stopped: it needs a
    /// newer program.
    pub too_new: Option<u16>,
    /// The last position before the newest known loss of the engine.
    pub fork: Option<Position>,
    /// The counters.
    pub totals: NodeTotals,
}

/// Counters for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeTotals {
    /// Entries that were void.
    pub void: u64,
    /// Groups of events that were dropped.
    pub dropped: u64,
    /// Lost ends of the journal that the node has found.
    pub cuts: u64,
    /// Times that the node began anew and dropped its history.
    pub restarts: u64,
    /// Clones of the process that the node has found.
    pub clones: u64,
    /// Comparisons with the journal.
    pub comparisons: u64,
}
