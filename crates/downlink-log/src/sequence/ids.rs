//! The epochs of a log, each with its first offset. An epoch is a period in which the offsets of a
//! log are unique. An id contains an epoch and an offset. So a log needs this list to make the id
//! of an event from its offset, and to find the offset that belongs to an id.
//!
//! A log in memory has one epoch. In a log with a store, a new epoch begins each time the store is
//! opened. Such a log also knows the older epochs that the store has kept.

use crate::sequence::Appended;
use crate::types::{Cursor, Epoch, GapReason, Offset};

/// The epochs of a log, oldest first. Each epoch ends where the next one begins. The last epoch is
/// the current one.
#[derive(Clone, Debug)]
pub(crate) struct Epochs {
    epochs: Vec<(Epoch, Offset)>,
    current: Epoch,
}

impl Epochs {
    /// The epochs with these first offsets.
    pub(crate) fn new(epochs: Vec<(Epoch, Offset)>, current: Epoch) -> Self {
        Self { epochs, current }
    }

    /// The current epoch.
    pub(crate) fn current(&self) -> Epoch {
        self.current
    }

    /// All epochs, oldest first, each with its first offset.
    pub(crate) fn all(&self) -> Vec<(Epoch, Offset)> {
        self.epochs.clone()
    }

    /// The id of the event at an offset, as a cursor.
    pub(crate) fn id_of(&self, offset: u64) -> Cursor {
        let after = self.epochs.partition_point(|(_, first)| first.get() <= offset);
        let found = after.checked_sub(1).or(Some(0)).and_then(|at| self.epochs.get(at));
        let epoch = found.map_or(self.current, |(epoch, _)| *epoch);
        Cursor { epoch, next: Offset::new(offset + 1) }
    }

    /// Makes the answer to an append whose event has this offset.
    pub(crate) fn appended(&self, offset: Offset, matched: usize, repeated: bool) -> Appended {
        Appended { offset, epoch: self.id_of(offset.get()).epoch, matched, repeated }
    }

    /// The offset where a reader with this cursor continues. If the log does not know the cursor's
    /// epoch, or if the cursor is beyond the end of its epoch, the reader must get a gap. Then
    /// `Err` has the reason, and the offset where the reader continues after the gap.
    pub(crate) fn locate(&self, cursor: Cursor, tail: u64) -> Result<u64, (GapReason, u64)> {
        let Some(at) = self.epochs.iter().position(|(epoch, _)| *epoch == cursor.epoch) else {
            return Err((GapReason::NewEpoch, tail));
        };
        let end = self.epochs.get(at + 1).map_or(tail, |(_, first)| first.get());
        let next = cursor.next.get();
        if next <= end { Ok(next) } else { Err((GapReason::Lost, end)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch::from_random(number)
    }

    fn cursor(of: u64, next: u64) -> Cursor {
        Cursor { epoch: epoch(of), next: Offset::new(next) }
    }

    /// Three epochs: the first has offsets 1 to 4, the second has none, and the third begins at 5.
    fn ids() -> Epochs {
        let epochs = [(1, 1), (2, 5), (3, 5)];
        let epochs = epochs.map(|(number, first)| (epoch(number), Offset::new(first)));
        Epochs::new(epochs.into(), epoch(3))
    }

    #[test]
    fn a_reader_continues_after_an_id_that_is_within_its_epoch() {
        let ids = ids();
        assert_eq!(ids.locate(cursor(1, 1), 9), Ok(1));
        assert_eq!(ids.locate(cursor(1, 5), 9), Ok(5));
        assert_eq!(ids.locate(cursor(2, 5), 9), Ok(5));
        assert_eq!(ids.locate(cursor(3, 9), 9), Ok(9));
        assert_eq!(ids.locate(cursor(3, 2), 9), Ok(2));
    }

    #[test]
    fn an_id_beyond_its_epoch_or_of_an_unknown_epoch_gives_the_reason_for_a_gap() {
        let ids = ids();
        assert_eq!(ids.locate(cursor(1, 6), 9), Err((GapReason::Lost, 5)));
        assert_eq!(ids.locate(cursor(2, 6), 9), Err((GapReason::Lost, 5)));
        assert_eq!(ids.locate(cursor(3, 10), 9), Err((GapReason::Lost, 9)));
        assert_eq!(ids.locate(cursor(4, 1), 9), Err((GapReason::NewEpoch, 9)));
    }

    #[test]
    fn the_id_of_an_event_has_the_epoch_of_the_publish() {
        let of = |offset| ids().id_of(offset).epoch;
        assert_eq!([1, 4, 5, 100].map(of), [epoch(1), epoch(1), epoch(3), epoch(3)]);
        assert_eq!(ids().id_of(4).next, Offset::new(5));
    }
}
