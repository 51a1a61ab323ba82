//! Positions of entries in the journal, and their relation to the offsets of events.

use std::fmt;

use downlink_log::Offset;
use serde::{Deserialize, Serialize};

/// The maximum number of events in an entry. Each position of the journal has this many offsets, so
/// the offsets suffice for 2^51 positions.
pub const ENTRY_EVENTS_MAX: usize = 4_096;

/// The position of an entry in the journal. The first entry has position 1, and the position of
/// each later entry is one higher than that of the entry before it.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Position(u64);

impl Position {
    /// The position before the first entry.
    pub const ORIGIN: Self = Self(0);
    /// The position of the first entry.
    pub const FIRST: Self = Self(1);

    /// The position with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next position.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before this one; the origin has none and returns itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The number of positions from `earlier` to this one; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Turns positions into offsets: `offset = base + position × 4,096 + index`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Base(u64);

impl Base {
    /// The base of a hub that has no earlier history.
    pub const NONE: Self = Self(0);

    /// The lowest base for a hub whose history so far ends before `next`.
    pub const fn above(next: Offset) -> Self {
        Self(next.get())
    }

    /// The offset of the event with this index in the entry at `position`.
    pub const fn offset(self, position: Position, index: usize) -> Offset {
        let first = position.0.saturating_mul(ENTRY_EVENTS_MAX as u64);
        Offset::new(self.0.saturating_add(first).saturating_add(index as u64))
    }

    /// The position of the entry that contains the event with this offset; `None` if the offset is
    /// below the offsets of the cluster.
    pub const fn position(self, offset: Offset) -> Option<Position> {
        match offset.get().checked_sub(self.0) {
            Some(above) if above >= ENTRY_EVENTS_MAX as u64 => {
                Some(Position(above / ENTRY_EVENTS_MAX as u64))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_leads_back_to_its_position() {
        let base = Base::above(Offset::new(78));
        for (position, index) in [(1, 0), (1, 4_095), (2, 0), (9_000, 17)] {
            let offset = base.offset(Position::new(position), index);
            assert_eq!(base.position(offset), Some(Position::new(position)));
        }
    }

    #[test]
    fn offsets_before_the_first_entry_have_no_position() {
        let base = Base::above(Offset::new(78));
        let first = base.offset(Position::FIRST, 0).get();
        assert_eq!(base.position(Offset::new(first - 1)), None);
        assert_eq!(base.position(Offset::new(77)), None);
        assert_eq!(base.position(Offset::new(first)), Some(Position::FIRST));
    }
}
