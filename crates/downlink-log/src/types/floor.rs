//! The floor of a topic: the offset after the last event that was evicted from the topic. Below the
//! floor, events may be missing. From the floor on, the history of the topic is complete.

use crate::types::{Offset, Timestamp};

/// The offset after the last evicted event, and the time of the newest evicted event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Floor {
    /// The offset after the last evicted event; 1 if nothing was ever evicted.
    pub offset: Offset,
    /// No evicted event has a later time than this.
    pub at: Timestamp,
}

impl Floor {
    /// The floor of a topic from which nothing was ever evicted.
    pub const NONE: Self = Self { offset: Offset::FIRST, at: Timestamp::from_millis(0) };

    /// A floor with the higher offset and the later time of the two floors.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { offset: self.offset.max(other.offset), at: self.at.max(other.at) }
    }
}

/// The number of an eviction. A log or a store numbers its evictions from 1 in the order in which
/// they happen.
///
/// When a reader begins to read history, it stores the number of the newest eviction. Events that
/// were evicted by then do not count as missing, because the reader requests only the events that
/// are still kept. An event that is evicted later, before the reader has read it, is missing for
/// this reader.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct EvictionNumber(u64);

impl EvictionNumber {
    /// The number before the first eviction.
    pub const NONE: Self = Self(0);

    /// The eviction with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}
