//! The lost part of a topic's history.

use crate::types::{Offset, Timestamp};

/// The end of a lost range, and the time of its newest event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Floor {
    /// Last evicted offset + 1; 1 if nothing was ever evicted.
    pub offset: Offset,
    /// At least the time of every evicted event.
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

/// The number of an eviction: evictions of a log, or of a store, are numbered from 1 as they
/// happen.
///
/// A reader of history keeps the number of the newest eviction before it looked. It never asked for
/// events that were evicted until then. It misses those that are evicted later.
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
