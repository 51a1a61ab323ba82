//! The phases of a node.

use downlink_log::Timestamp;

use crate::{
    node::{anchoring::Anchoring, compare::Comparison},
    window::window::Window,
};

/// The phase of a node.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// The journal is not open. If opening it has failed, the node tries again at `retry_at`.
    Opening { retry_at: Option<Timestamp> },
    /// The journal has no entries. An operator has to found the cluster.
    Empty,
    /// The node looks for an entry at which it can begin.
    Anchoring(Anchoring),
    /// The cluster has a version that the node cannot decode.
    TooOld,
    /// The node follows the journal. While the window is behind the chain, the node reads again the
    /// entries that it has applied before.
    Following { window: Window },
    /// The node compares its history with the journal. If both are equal, the node goes on with
    /// `window`. If `window` is `None`, the node builds a new one.
    Comparing { comparison: Comparison, window: Option<Window>, read_at: Option<Timestamp> },
}
