//! What the history of a topic has lost.

use crate::types::{Offset, Timestamp};

/// The end of a lost range, and the time of its newest event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Floor {
    /// Last evicted offset + 1; 1 if nothing was ever evicted.
    pub offset: Offset,
    /// No evicted event is younger.
    pub at: Timestamp,
}

impl Floor {
    /// Nothing was ever evicted.
    pub const NONE: Self = Self { offset: Offset::FIRST, at: Timestamp::from_millis(0) };

    /// The higher offset and the later time of both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { offset: self.offset.max(other.offset), at: self.at.max(other.at) }
    }
}

/// The number of an eviction: evictions of a log, or of a store, are numbered from 1 as they happen.
///
/// A reader of history keeps the number of the newest eviction before it looked. What was evicted
/// until then it never asked for; what is evicted later it misses.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct EvictionNumber(u64);

impl EvictionNumber {
    /// Before every eviction.
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
