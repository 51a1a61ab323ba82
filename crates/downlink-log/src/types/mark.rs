//! The marks of a cluster. An id of a cluster has a mark in the place of the epoch that an id of a
//! single node has.

use crate::types::{Epoch, Timestamp};

/// The mark of a position in the log of a cluster. A position is a run of
/// [`POSITION_OFFSETS`](crate::POSITION_OFFSETS) offsets. The mark depends on all earlier
/// positions, so two logs with the same mark at a position have the same history up to there. In an
/// id of a cluster, the mark takes the place of the epoch.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mark(u64);

impl Mark {
    /// The number of bits of a mark. With more bits, a mark would not fit into the eight characters
    /// that an id has for it.
    pub const BITS: u32 = 41;

    /// The mark with the lowest [`BITS`](Self::BITS) bits of this number.
    pub const fn new(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The eight characters of the mark in an id.
    pub fn in_id(self) -> Epoch {
        Epoch::from_random(self.0)
    }
}

/// A position of the journal, as a node of a cluster keeps it in its cache. The journal is the list
/// of the entries of all nodes. An engine, such as a message broker, keeps it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// The number of the position.
    pub position: u64,
    /// The whole mark of the position. [`Mark`] has only some of its bits.
    pub mark: u64,
    /// The engine's time of the position.
    pub time: Timestamp,
}

/// The part of a node's state that belongs to some positions of the journal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeState {
    /// The state of the hub, which the log does not interpret. `None` if it has not changed.
    pub hub: Option<Vec<u8>>,
    /// The links of the positions, oldest first.
    pub links: Vec<Link>,
}

/// The marks of successive positions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Marks {
    /// The first offset of position 0. Ids of lower offsets have epochs.
    pub base: u64,
    /// The position of the first mark.
    pub first: u64,
    /// The marks.
    pub marks: Vec<Mark>,
}
