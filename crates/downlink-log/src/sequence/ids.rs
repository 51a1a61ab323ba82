//! The epochs of a log, each with its first offset. An epoch is a period in which the offsets of a
//! log are unique. An id contains an epoch and an offset. So a log needs this list to make the id
//! of an event from its offset, and to find the offset that belongs to an id.
//!
//! A log in memory has one epoch. In a log with a store, a new epoch begins each time the store is
//! opened. Such a log also knows the older epochs that the store has kept.
//!
//! A replica is a log that copies another log, its upstream. The list of a replica grows, because
//! the upstream begins new epochs. If the upstream is a cluster, only the ids below a certain
//! offset, the base, have epochs. The other ids have marks instead. From the base on, each
//! [`POSITION_OFFSETS`] offsets form a position. A position has one mark, which depends on the
//! whole history before it. A reader continues after an id with a mark only if this log has the
//! same mark at this position.

use std::collections::VecDeque;

use crate::sequence::Appended;
use crate::store::{Mark, Marks};
use crate::sync::RwLock;
use crate::types::{Cursor, Epoch, GapReason, Offset};

/// The number of offsets in a position. They share one mark.
pub const POSITION_OFFSETS: u64 = 4_096;

/// The maximum number of marks that a log keeps. They take 8 MiB. A cluster that fills ten
/// positions a second keeps the marks of a day, which is as long as topics keep their events by
/// default. With half as many, clients that were away overnight would get a gap.
pub const MARKS_MAX: usize = 1 << 20;

/// The maximum number of links (see [`Link`](crate::store::Link)) that a node of a cluster keeps.
/// In the memory of a node, a link takes 24 bytes, so all links take at most 6 MiB. An engine puts
/// the entries of all nodes in one order. A node compares its history with the engine's only as far
/// back as the node's oldest link. With half as many, a node would keep the links of an hour at 40
/// positions a second.
pub const LINKS_MAX: usize = 1 << 18;

/// The maximum number of ids that [`Applier::cut_to`](crate::Applier::cut_to) returns. A node of a
/// cluster announces at most a sixteenth of this number.
pub const CUT_IDS_MAX: usize = 16_384;

/// A lost end of the history that a replica follows: the history has lost all events from an offset
/// on, and has given their offsets to other events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LostEnd {
    /// The first lost offset.
    pub from: Offset,
    /// Ids that publishers gave to lost events.
    pub ids: Vec<Box<str>>,
}

/// The epochs of a log, oldest first. Each epoch ends where the next one begins. The last epoch is
/// the current one.
#[derive(Debug)]
pub(crate) enum Epochs {
    /// The epochs of a log that assigns its own offsets. They do not change while the log is open.
    Fixed { epochs: Vec<(Epoch, Offset)>, current: Epoch },
    /// The epochs and marks of a replica. No other lock is taken while this lock is held.
    Growing(RwLock<IdTable>),
}

/// The epochs and marks of a replica.
#[derive(Debug)]
pub(crate) struct IdTable {
    epochs: Vec<(Epoch, Offset)>,
    current: Epoch,
    /// The first offset whose id has a mark; `u64::MAX` if no id has a mark.
    base: u64,
    /// The position of the oldest mark.
    first: u64,
    marks: VecDeque<Mark>,
    /// The lost ends of the history, oldest first.
    lost_ends: Vec<LostEnd>,
    /// The replica knows no event of any address below this offset.
    unknown_below: u64,
}

/// The mark of a position, as far as a log knows it.
#[derive(Debug, Eq, PartialEq)]
enum KnownMark {
    Known(Mark),
    /// The mark was removed, because there were too many.
    Forgotten,
    /// The log has not reached the position.
    Ahead,
}

impl Epochs {
    /// The epochs with these first offsets.
    pub(crate) fn new(epochs: Vec<(Epoch, Offset)>, current: Epoch) -> Self {
        Self::Fixed { epochs, current }
    }

    /// The epochs of a replica. `placeholder` is the current epoch until the list has one.
    pub(crate) fn growing(epochs: Vec<(Epoch, Offset)>, placeholder: Epoch) -> Self {
        let current = epochs.last().map_or(placeholder, |(epoch, _)| *epoch);
        Self::Growing(RwLock::new(IdTable {
            epochs,
            current,
            base: u64::MAX,
            first: 0,
            marks: VecDeque::new(),
            lost_ends: Vec::new(),
            unknown_below: 0,
        }))
    }

    /// Whether the ids from `until` on have marks, and `until` is the first offset of a position.
    /// Only then can [`cut`](Self::cut) make all later ids unknown.
    pub(crate) fn is_position(&self, until: Offset) -> bool {
        match self {
            Self::Fixed { .. } => false,
            Self::Growing(table) => {
                let base = table.read().base;
                let above = until.get().checked_sub(base);
                above.is_some_and(|above| above.is_multiple_of(POSITION_OFFSETS))
            }
        }
    }

    /// The epochs and marks of a replica without the marks of the positions from `until` on.
    pub(crate) fn cut(&self, until: Offset) -> Self {
        match self {
            Self::Fixed { epochs, current } => Self::new(epochs.clone(), *current),
            Self::Growing(table) => Self::Growing(RwLock::new(table.read().cut(until.get()))),
        }
    }

    /// Replaces the list of epochs of a replica. The new list has at least the epochs of all events
    /// that the replica has.
    pub(crate) fn set(&self, epochs: Vec<(Epoch, Offset)>) {
        if let Self::Growing(table) = self {
            let mut table = table.write();
            table.current = epochs.last().map_or(table.current, |(epoch, _)| *epoch);
            table.epochs = epochs;
        }
    }

    /// Adds marks to a replica. They continue after the known marks. If there is a hole between the
    /// known marks and the new ones, the known marks are removed. Ids from before the hole then
    /// give a gap.
    pub(crate) fn add_marks(&self, marks: &Marks) {
        if let Self::Growing(table) = self
            && !marks.marks.is_empty()
        {
            table.write().add(marks);
        }
    }

    /// The known marks of the positions that have offsets from `from` up to `until`, for a feed.
    pub(crate) fn marks(&self, from: u64, until: u64) -> Marks {
        match self {
            Self::Fixed { .. } => Marks::default(),
            Self::Growing(table) => table.read().marks(from, until),
        }
    }

    /// Replaces the lost ends of a replica.
    pub(crate) fn set_lost_ends(&self, ends: Vec<LostEnd>) {
        if let Self::Growing(table) = self {
            // The old list is dropped after the lock is released.
            let _old = std::mem::replace(&mut table.write().lost_ends, ends);
        }
    }

    /// Some lost ends may have had an event with this id of a publisher. Returns the lowest of
    /// their first offsets.
    pub(crate) fn lost_id(&self, id: &str) -> Option<u64> {
        let Self::Growing(table) = self else { return None };
        let table = table.read();
        let has_id = |end: &&LostEnd| end.ids.iter().any(|lost| **lost == *id);
        let from = table.lost_ends.iter().filter(has_id).map(|end| end.from.get()).min();
        from.map(|from| from.max(table.unknown_below))
    }

    /// Notes that a replica knows nothing below an offset.
    pub(crate) fn note_unknown_below(&self, offset: u64) {
        if let Self::Growing(table) = self {
            let mut table = table.write();
            table.unknown_below = table.unknown_below.max(offset);
        }
    }

    /// Whether a replica does not have the whole history. If ids have marks, the history begins at
    /// position 1, which is one position above the base.
    pub(crate) fn is_partial(&self) -> bool {
        let Self::Growing(table) = self else { return false };
        let IdTable { base, unknown_below, .. } = *table.read();
        let start = if base == u64::MAX { 1 } else { base.saturating_add(POSITION_OFFSETS) };
        unknown_below > start
    }

    /// The current epoch.
    pub(crate) fn current(&self) -> Epoch {
        match self {
            Self::Fixed { current, .. } => *current,
            Self::Growing(table) => table.read().current,
        }
    }

    /// The cursor of a reader whose next offset is `next`.
    pub(crate) fn cursor(&self, next: u64) -> Cursor {
        match self {
            Self::Fixed { current, .. } => Cursor { epoch: *current, next: Offset::new(next) },
            Self::Growing(table) => table.read().cursor(next),
        }
    }

    /// All epochs, oldest first, each with its first offset.
    pub(crate) fn all(&self) -> Vec<(Epoch, Offset)> {
        match self {
            Self::Fixed { epochs, .. } => epochs.clone(),
            Self::Growing(table) => table.read().epochs.clone(),
        }
    }

    /// The id of the event at an offset, as a cursor.
    pub(crate) fn id_of(&self, offset: u64) -> Cursor {
        let epoch = match self {
            Self::Fixed { epochs, current } => epoch_of(epochs, *current, offset),
            Self::Growing(table) => table.read().name_of(offset),
        };
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
        match self {
            Self::Fixed { epochs, .. } => {
                locate(epochs, cursor, tail).unwrap_or(Err((GapReason::NewEpoch, tail)))
            }
            Self::Growing(table) => table.read().locate(cursor, tail),
        }
    }
}

/// The epoch of the event at an offset.
fn epoch_of(epochs: &[(Epoch, Offset)], current: Epoch, offset: u64) -> Epoch {
    let after = epochs.partition_point(|(_, first)| first.get() <= offset);
    let found = after.checked_sub(1).or(Some(0)).and_then(|at| epochs.get(at));
    found.map_or(current, |(epoch, _)| *epoch)
}

/// The offset where a reader with this cursor continues. `None` if the epoch is not in the list.
/// The last epoch ends at `end`.
fn locate(
    epochs: &[(Epoch, Offset)],
    cursor: Cursor,
    end: u64,
) -> Option<Result<u64, (GapReason, u64)>> {
    let at = epochs.iter().position(|(epoch, _)| *epoch == cursor.epoch)?;
    let end = epochs.get(at + 1).map_or(end, |(_, first)| first.get());
    let next = cursor.next.get();
    Some(if next <= end { Ok(next) } else { Err((GapReason::Lost, end)) })
}

impl IdTable {
    fn add(&mut self, marks: &Marks) {
        let known = self.first + self.marks.len() as u64;
        if self.base != marks.base || known < marks.first {
            self.marks.clear();
            (self.base, self.first) = (marks.base, marks.first);
        }
        let known = self.first + self.marks.len() as u64;
        let new = marks.marks.iter().zip(marks.first..).filter(|(_, position)| *position >= known);
        self.marks.extend(new.map(|(mark, _)| *mark));
        let surplus = self.marks.len().saturating_sub(MARKS_MAX);
        self.marks.drain(..surplus);
        self.first += surplus as u64;
    }

    fn cut(&self, until: u64) -> Self {
        let positions = until.saturating_sub(self.base) / POSITION_OFFSETS;
        let kept = usize::try_from(positions.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let marks = self.marks.iter().take(kept).copied().collect();
        let first = self.first.min(positions);
        let (epochs, lost_ends) = (self.epochs.clone(), self.lost_ends.clone());
        let unknown_below = self.unknown_below.min(until);
        Self { first, marks, epochs, lost_ends, unknown_below, ..*self }
    }

    fn marks(&self, from: u64, until: u64) -> Marks {
        let position = |offset: u64| offset.saturating_sub(self.base) / POSITION_OFFSETS;
        let is_any = until > from.max(self.base);
        let first = position(from).max(self.first);
        let end = if is_any { position(until - 1) + 1 } else { first };
        let place = |position: u64| {
            let at = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
            at.min(self.marks.len())
        };
        let known = place(first)..place(end.max(first));
        let marks: Vec<Mark> = self.marks.range(known).copied().collect();
        if marks.is_empty() { Marks::default() } else { Marks { base: self.base, first, marks } }
    }

    /// The mark of an offset. `None` if the id of the offset has an epoch.
    fn mark_of(&self, offset: u64) -> Option<KnownMark> {
        let position = offset.checked_sub(self.base)? / POSITION_OFFSETS;
        let Some(at) = position.checked_sub(self.first) else { return Some(KnownMark::Forgotten) };
        let mark = usize::try_from(at).ok().and_then(|at| self.marks.get(at));
        Some(mark.map_or(KnownMark::Ahead, |mark| KnownMark::Known(*mark)))
    }

    /// The epoch or the mark in the id of an event: the eight characters before the offset.
    fn name_of(&self, offset: u64) -> Epoch {
        match self.mark_of(offset) {
            None => epoch_of(&self.epochs, self.current, offset),
            Some(KnownMark::Known(mark)) => mark.in_id(),
            // `locate` refuses every id of such an offset.
            Some(KnownMark::Forgotten | KnownMark::Ahead) => Mark::default().in_id(),
        }
    }

    fn cursor(&self, next: u64) -> Cursor {
        let has_mark = next > self.base;
        let epoch = if has_mark { self.name_of(next - 1) } else { self.current };
        Cursor { epoch, next: Offset::new(next) }
    }

    fn locate(&self, cursor: Cursor, tail: u64) -> Result<u64, (GapReason, u64)> {
        let next = cursor.next.get();
        let mark = self.mark_of(next.saturating_sub(1));
        if let Some(KnownMark::Known(mark)) = mark
            && mark.in_id() == cursor.epoch
        {
            return if next <= tail { Ok(next) } else { Err((GapReason::Lost, tail)) };
        }
        if let Some(found) = locate(&self.epochs, cursor, tail.min(self.base)) {
            return found;
        }
        let lost_from = self.lost_from(next.saturating_sub(1)).filter(|from| *from < tail);
        Err(match (mark, lost_from) {
            (Some(KnownMark::Known(_) | KnownMark::Ahead), Some(from)) => (GapReason::Lost, from),
            (Some(KnownMark::Ahead), None) => (GapReason::Lost, tail),
            _ => (GapReason::NewEpoch, tail),
        })
    }

    /// The first offset of the lowest lost end that can have had the event at an offset. Events
    /// below it were not lost.
    fn lost_from(&self, offset: u64) -> Option<u64> {
        let ends = self.lost_ends.iter().map(|end| end.from.get());
        ends.filter(|from| *from <= offset).min().map(|from| from.max(self.unknown_below))
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch::from_random(number)
    }

    fn cursor(of: u64, next: u64) -> Cursor {
        Cursor { epoch: epoch(of), next: Offset::new(next) }
    }

    fn epochs() -> Vec<(Epoch, Offset)> {
        let epochs = [(1, 1), (2, 5), (3, 5)];
        epochs.map(|(number, first)| (epoch(number), Offset::new(first))).into()
    }

    /// Three epochs: the first has offsets 1 to 4, the second has none, and the third begins at 5.
    /// A log that assigns its own offsets and a replica give the same answers.
    fn both() -> [Epochs; 2] {
        [Epochs::new(epochs(), epoch(3)), Epochs::growing(epochs(), epoch(9))]
    }

    #[test]
    fn a_reader_continues_after_an_id_that_is_within_its_epoch() {
        for ids in both() {
            assert_eq!(ids.locate(cursor(1, 1), 9), Ok(1));
            assert_eq!(ids.locate(cursor(1, 5), 9), Ok(5));
            assert_eq!(ids.locate(cursor(2, 5), 9), Ok(5));
            assert_eq!(ids.locate(cursor(3, 9), 9), Ok(9));
            assert_eq!(ids.locate(cursor(3, 2), 9), Ok(2));
        }
    }

    #[test]
    fn an_id_beyond_its_epoch_or_of_an_unknown_epoch_gives_the_reason_for_a_gap() {
        for ids in both() {
            assert_eq!(ids.locate(cursor(1, 6), 9), Err((GapReason::Lost, 5)));
            assert_eq!(ids.locate(cursor(2, 6), 9), Err((GapReason::Lost, 5)));
            assert_eq!(ids.locate(cursor(3, 10), 9), Err((GapReason::Lost, 9)));
            assert_eq!(ids.locate(cursor(4, 1), 9), Err((GapReason::NewEpoch, 9)));
        }
    }

    #[test]
    fn the_id_of_an_event_has_the_epoch_of_the_publish() {
        for ids in both() {
            let of = |offset| ids.id_of(offset).epoch;
            assert_eq!([1, 4, 5, 100].map(of), [epoch(1), epoch(1), epoch(3), epoch(3)]);
            assert_eq!(ids.id_of(4).next, Offset::new(5));
        }
    }

    #[test]
    fn the_epochs_of_a_replica_grow_while_older_ids_stay_valid() {
        let ids = Epochs::growing(Vec::new(), epoch(9));
        assert_eq!((ids.current(), ids.id_of(0).epoch), (epoch(9), epoch(9)));
        ids.set(vec![(epoch(1), Offset::new(1))]);
        let old = ids.id_of(6);
        ids.set(vec![(epoch(1), Offset::new(1)), (epoch(2), Offset::new(8))]);
        assert_eq!((old.epoch, ids.locate(old, 9)), (epoch(1), Ok(7)));
        assert_eq!((ids.current(), ids.id_of(8).epoch), (epoch(2), epoch(2)));
        assert_eq!(ids.locate(cursor(1, 9), 9), Err((GapReason::Lost, 8)));
    }

    const BASE: u64 = 10;

    fn marks(first: u64, marks: impl IntoIterator<Item = u64>) -> Marks {
        Marks { base: BASE, first, marks: marks.into_iter().map(Mark::new).collect() }
    }

    /// The first offset of a position.
    fn at(position: u64) -> u64 {
        BASE + position * POSITION_OFFSETS
    }

    #[test]
    fn an_id_with_a_mark_resumes_only_in_a_log_with_the_same_mark() {
        let ids = Epochs::growing(epochs(), epoch(9));
        ids.add_marks(&marks(0, [100, 101]));
        let tail = at(1) + 7;
        assert_eq!(ids.id_of(BASE - 1).epoch, epoch(3));
        assert_eq!(
            [BASE, at(1) - 1, at(1)].map(|at| ids.id_of(at).epoch),
            [epoch(100), epoch(100), epoch(101)]
        );
        assert_eq!(ids.locate(ids.id_of(at(1) + 6), tail), Ok(tail));
        assert_eq!(ids.locate(cursor(3, BASE), tail), Ok(BASE), "the last epoch ends at the base");
        assert_eq!(ids.locate(cursor(3, BASE + 1), tail), Err((GapReason::Lost, BASE)));
        assert_eq!(ids.locate(cursor(7, at(1)), tail), Err((GapReason::NewEpoch, tail)));
        assert_eq!(ids.locate(cursor(101, tail + 1), tail), Err((GapReason::Lost, tail)));
        assert_eq!(ids.locate(cursor(7, at(2) + 1), tail), Err((GapReason::Lost, tail)));
        assert_eq!(ids.cursor(tail).to_string(), format!("{}-{}", epoch(101), tail - 1));
        assert_eq!(ids.cursor(BASE).epoch, epoch(3));
    }

    #[test]
    fn a_feed_gets_the_marks_of_the_positions_in_its_range() {
        let ids = Epochs::growing(epochs(), epoch(9));
        assert_eq!(ids.marks(0, at(9)), Marks::default());
        ids.add_marks(&marks(2, [102, 103, 104]));
        assert_eq!(ids.marks(0, at(9)), marks(2, [102, 103, 104]));
        assert_eq!(ids.marks(at(2), at(3)), marks(2, [102]));
        assert_eq!(ids.marks(at(3) - 1, at(3) + 1), marks(2, [102, 103]));
        assert_eq!(ids.marks(at(4) + 5, at(4) + 5), Marks::default());
        assert_eq!(ids.marks(at(5), at(7)), Marks::default());
        assert_eq!(ids.marks(0, BASE), Marks::default());
        let fixed = Epochs::new(epochs(), epoch(3));
        assert_eq!(fixed.marks(0, at(9)), Marks::default());
    }

    #[test]
    fn an_id_older_than_the_kept_marks_is_a_gap() {
        let ids = Epochs::growing(epochs(), epoch(9));
        let tail = at(MARKS_MAX as u64 + 1);
        ids.add_marks(&marks(0, 0..=MARKS_MAX as u64));
        let oldest = ids.id_of(at(1));
        assert_eq!(oldest.epoch, epoch(1));
        assert_eq!(ids.locate(oldest, tail), Ok(at(1) + 1));
        let forgotten = Cursor { epoch: epoch(0), next: Offset::new(at(0) + 1) };
        assert_eq!(ids.id_of(at(0)), forgotten);
        assert_eq!(ids.locate(forgotten, tail), Err((GapReason::NewEpoch, tail)));
    }

    #[test]
    fn marks_that_are_added_twice_count_once_and_a_hole_removes_earlier_marks() {
        let ids = Epochs::growing(Vec::new(), epoch(9));
        ids.add_marks(&marks(0, [100, 101]));
        ids.add_marks(&marks(1, [101, 102]));
        assert_eq!(ids.id_of(at(2)).epoch, epoch(102));
        let old = ids.id_of(at(2));
        ids.add_marks(&marks(5, [105]));
        let tail = at(6);
        assert_eq!(ids.locate(old, tail), Err((GapReason::NewEpoch, tail)));
        assert_eq!(ids.locate(ids.id_of(at(5)), tail), Ok(at(5) + 1));
    }

    #[test]
    fn after_a_cut_the_ids_of_removed_positions_are_unknown_and_may_get_other_marks() {
        let ids = Epochs::growing(epochs(), epoch(9));
        ids.add_marks(&marks(0, [100, 101, 102]));
        let lost = ids.id_of(at(1) + 3);
        let cut = ids.cut(Offset::new(at(1)));
        assert_eq!(cut.locate(ids.id_of(BASE), at(1)), Ok(BASE + 1));
        assert_eq!(cut.locate(lost, at(1)), Err((GapReason::Lost, at(1))));
        cut.add_marks(&marks(1, [201]));
        assert_eq!(cut.locate(lost, at(2)), Err((GapReason::NewEpoch, at(2))));
        assert_eq!(cut.id_of(at(1) + 3).epoch, epoch(201));
        let later = Epochs::growing(epochs(), epoch(9));
        later.add_marks(&marks(5, [105, 106]));
        let cut = later.cut(Offset::new(at(3)));
        cut.add_marks(&marks(3, [203]));
        assert_eq!(cut.id_of(at(3)).epoch, epoch(203), "the cut is before the oldest mark");
        let is_position = |until| ids.is_position(Offset::new(until));
        assert!(is_position(at(2)) && is_position(BASE));
        assert!(!is_position(at(2) + 1) && !is_position(BASE - 1));
        assert!(!both().iter().any(|ids| ids.is_position(Offset::new(5))), "no id has a mark");
        let none = ids.cut(Offset::new(BASE));
        assert_eq!(none.locate(ids.id_of(BASE), BASE), Err((GapReason::Lost, BASE)));
        assert_eq!(none.id_of(BASE - 1), ids.id_of(BASE - 1));
    }

    fn lost_end(position: u64, id: &str) -> LostEnd {
        LostEnd { from: Offset::new(at(position)), ids: vec![id.into()] }
    }

    #[test]
    fn a_lost_id_continues_at_the_lowest_lost_end_below_it() {
        let ids = Epochs::growing(epochs(), epoch(9));
        ids.add_marks(&marks(1, [101, 102, 103, 104]));
        ids.set_lost_ends(vec![lost_end(3, "b"), lost_end(2, "a"), lost_end(4, "b")]);
        let tail = at(5);
        let lost = |position| Err((GapReason::Lost, at(position)));
        let of = |mark, position| ids.locate(cursor(mark, at(position) + 1), tail);
        assert_eq!(of(102, 2), Ok(at(2) + 1), "the mark fits");
        assert_eq!([of(7, 2), of(7, 3), of(7, 4)], [lost(2); 3]);
        assert_eq!(of(7, 5), lost(2), "the id is ahead of the log");
        assert_eq!(of(7, 1), Err((GapReason::NewEpoch, tail)), "no end was lost before it");
        assert_eq!(of(7, 0), Err((GapReason::NewEpoch, tail)), "its mark is forgotten");
        assert_eq!(["a", "b", "c"].map(|id| ids.lost_id(id)), [Some(at(2)), Some(at(3)), None]);
        // After the end of the history was cut, the lost end is at the tail.
        assert_eq!(ids.cut(Offset::new(at(2))).locate(cursor(7, at(3)), at(2)), lost(2));
        assert_eq!(ids.cut(Offset::new(at(3))).locate(cursor(7, at(3)), at(3)), lost(2));
        ids.note_unknown_below(at(3));
        assert_eq!((of(7, 4), ids.lost_id("a")), (lost(3), Some(at(3))));
    }

    #[test]
    fn a_replica_is_partial_if_it_does_not_know_the_first_position() {
        let ids = Epochs::growing(epochs(), epoch(9));
        assert!(!ids.is_partial());
        ids.add_marks(&marks(1, [101]));
        ids.note_unknown_below(at(1));
        assert!(!ids.is_partial());
        ids.note_unknown_below(at(2));
        assert!(ids.is_partial());
        assert!(!ids.cut(Offset::new(at(1))).is_partial());
        assert!(!both()[0].is_partial());
    }

    #[test]
    fn a_mark_in_an_id_has_41_bits_and_is_unique() {
        assert_eq!(Mark::new(u64::MAX).get(), (1 << 41) - 1);
        assert_ne!(Mark::new(u64::MAX).in_id(), Mark::new(u64::MAX - 1).in_id());
        assert_eq!(Mark::new(1 << 41), Mark::new(0));
    }
}
