//! The index: a list of the events of all topics, in the order of their offsets. It has a row for
//! each event, with the event's topics. The rows are stored in chunks.
//!
//! Readers of many topics, and readers of patterns that are far behind, go through the index to
//! find their events. When the log exceeds its limit of bytes, it uses the index to find its oldest
//! event.

use std::{collections::VecDeque, sync::Arc};

use smallvec::SmallVec;

use crate::topics::Topic;
use crate::types::Timestamp;

/// The topics of one event, nearly always one.
pub(crate) type EventTopics<P> = SmallVec<[Arc<Topic<P>>; 1]>;

/// The maximum number of rows in a chunk. To tidy a chunk means to remove its rows of evicted
/// events. For 512 rows, this takes about ten microseconds, so the index is locked only briefly.
/// Loom's tests use chunks of one row.
const CHUNK_ROWS: usize = if cfg!(downlink_loom) { 1 } else { 512 };

/// `tidy` always tolerates this many topics of evicted events in the rows. So the index of a small
/// log is rarely tidied.
const SLACK: usize = 64;

/// For each topic in the rows that were added since the last call, `tidy` checks this many topics
/// of the index. With 4, `tidy` has visited all chunks before the index has grown by a quarter.
/// With 1, rows would be added as fast as they are checked, so rows of evicted events would pile
/// up.
const TIDIED_PER_PUSHED: usize = 4;

/// The rows of the index are in chunks, and one call of `tidy` visits only a few chunks. The call
/// first removes the rows of evicted events at the old end of the index. Other rows of evicted
/// events stay until they outnumber the rows of kept events.
///
/// Invariant: `places` is the total number of topics in all rows; no chunk is empty.
#[derive(Debug)]
pub(crate) struct Index<P> {
    chunks: VecDeque<VecDeque<IndexRow<P>>>,
    places: usize,
    /// The total number of topics in the rows that were added since the last call of `tidy`.
    pushed: usize,
    /// The chunk to tidy next.
    next_chunk: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct IndexRow<P> {
    pub(crate) offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) topics: EventTopics<P>,
}

impl<P> Index<P> {
    pub(crate) fn new() -> Self {
        Self { chunks: VecDeque::new(), places: 0, pushed: 0, next_chunk: 0 }
    }

    pub(crate) fn push(&mut self, row: IndexRow<P>) {
        debug_assert!(self.newest().is_none_or(|newest| newest < row.offset));
        self.places += row.topics.len();
        self.pushed += row.topics.len();
        match self.chunks.back_mut().filter(|chunk| chunk.len() < CHUNK_ROWS) {
            Some(chunk) => chunk.push_back(row),
            None => self.chunks.push_back(VecDeque::from([row])),
        }
    }

    /// The rows from an offset on, in order.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = &IndexRow<P>> {
        let first = self.chunks.partition_point(|chunk| last(chunk) < from);
        let rows = self.chunks.range(first..).flatten();
        // Only the first of these chunks has rows below `from`.
        rows.skip_while(move |row| row.offset < from)
    }

    /// The rows below an offset, newest first.
    pub(crate) fn below(&self, until: u64) -> impl Iterator<Item = &IndexRow<P>> {
        let after = self.chunks.partition_point(|chunk| first(chunk) < until);
        let rows = self.chunks.range(..after).rev().flat_map(|chunk| chunk.iter().rev());
        rows.skip_while(move |row| row.offset >= until)
    }

    /// The offset of the first row with this time stamp or a later one.
    pub(crate) fn first_since(&self, since: Timestamp) -> Option<u64> {
        let at =
            self.chunks.partition_point(|chunk| chunk.back().is_some_and(|row| row.at < since));
        let chunk = self.chunks.get(at)?;
        let row = chunk.get(chunk.partition_point(|row| row.at < since))?;
        Some(row.offset)
    }

    pub(crate) fn front(&self) -> Option<&IndexRow<P>> {
        self.chunks.front()?.front()
    }

    /// Removes the oldest row if its offset is `offset`.
    pub(crate) fn pop_front(&mut self, offset: u64) -> Option<IndexRow<P>> {
        self.pop_front_if(|row| row.offset == offset)
    }

    fn pop_front_if(
        &mut self,
        condition: impl FnOnce(&IndexRow<P>) -> bool,
    ) -> Option<IndexRow<P>> {
        let chunk = self.chunks.front_mut()?;
        let row = chunk.pop_front_if(|row| condition(row))?;
        self.places -= row.topics.len();
        if chunk.is_empty() {
            self.chunks.pop_front();
            self.next_chunk = self.next_chunk.saturating_sub(1);
        }
        Some(row)
    }

    /// Removes rows of evicted events. `live` is the total number of topics of all kept events. It
    /// is compared with the total number of topics in all rows. If the total of the rows is above
    /// 9/8 of `live`, this function removes rows of evicted events at the old end of the index. If
    /// it is above twice `live`, this function also removes rows of evicted events from some other
    /// chunks. [`SLACK`] is added to both thresholds.
    ///
    /// Each append calls this once. The work of a call grows with the number of rows that were
    /// added since the last call. So rows of evicted events do not pile up, even if each append
    /// adds many events.
    pub(crate) fn tidy(&mut self, live: usize, is_kept: impl Fn(u64, &Topic<P>) -> bool) {
        let mut left = CHUNK_ROWS + TIDIED_PER_PUSHED * std::mem::take(&mut self.pushed);
        if self.places <= live + live / 8 + SLACK {
            return;
        }
        let is_evicted =
            |row: &IndexRow<P>| !row.topics.iter().any(|topic| is_kept(row.offset, topic));
        while left > 0
            && let Some(row) = self.pop_front_if(is_evicted)
        {
            left = left.saturating_sub(row.topics.len());
        }
        for _ in 0..self.chunks.len() {
            if left < CHUNK_ROWS || self.places <= 2 * live + SLACK {
                return;
            }
            left = left.saturating_sub(self.tidy_chunk(&is_kept));
        }
    }

    /// Removes evicted events from the next chunk. Returns the number of topics that it has
    /// checked.
    fn tidy_chunk(&mut self, is_kept: impl Fn(u64, &Topic<P>) -> bool) -> usize {
        if self.next_chunk >= self.chunks.len() {
            self.next_chunk = 0;
        }
        let Some(chunk) = self.chunks.get_mut(self.next_chunk) else { return 0 };
        let places = |chunk: &VecDeque<IndexRow<P>>| -> usize {
            chunk.iter().map(|row| row.topics.len()).sum()
        };
        let before = places(chunk);
        chunk.retain_mut(|row| {
            row.topics.retain(|topic| is_kept(row.offset, topic));
            row.topics.shrink_to_fit();
            !row.topics.is_empty()
        });
        self.places -= before - places(chunk);
        if chunk.is_empty() {
            self.chunks.remove(self.next_chunk);
        } else {
            if chunk.len() < chunk.capacity() / 4 {
                chunk.shrink_to_fit();
            }
            self.next_chunk += 1;
        }
        before
    }

    fn newest(&self) -> Option<u64> {
        Some(self.chunks.back()?.back()?.offset)
    }
}

fn first<P>(chunk: &VecDeque<IndexRow<P>>) -> u64 {
    chunk.front().map_or(0, |row| row.offset)
}

fn last<P>(chunk: &VecDeque<IndexRow<P>>) -> u64 {
    chunk.back().map_or(0, |row| row.offset)
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::topics::Lost;
    use crate::types::Address;

    fn topics(count: usize) -> EventTopics<&'static str> {
        let topic = |_| Topic::new(Address::Everyone, Lost::NOTHING);
        (0..count).map(topic).collect()
    }

    fn index(rows: u64) -> Index<&'static str> {
        let mut index = Index::new();
        let one = topics(1);
        for offset in 1..=rows {
            let at = Timestamp::from_millis(offset / 2);
            index.push(IndexRow { offset: 2 * offset, at, topics: one.clone() });
        }
        index
    }

    #[test]
    fn rows_are_found_by_offset_in_both_directions_and_by_time() {
        let index = index(3 * CHUNK_ROWS as u64 + 5);
        let end = 6 * CHUNK_ROWS as u64 + 10;
        for at in [0, 1, 2, 3, 1_022, 1_024, 1_025, 2_047, 2_048, end, end + 1] {
            let from = index.from(at).next().map(|row| row.offset);
            assert_eq!(from, Some(at.max(2).next_multiple_of(2)).filter(|&at| at <= end), "{at}");
            let below = index.below(at).next().map(|row| row.offset);
            let expected = at.checked_sub(1).map(|below| (below / 2 * 2).min(end));
            assert_eq!(below, expected.filter(|&below| below > 0), "{at}");
        }
        assert_eq!(index.from(0).count(), 3 * CHUNK_ROWS + 5);
        assert_eq!(index.below(u64::MAX).count(), 3 * CHUNK_ROWS + 5);
        assert_eq!(index.first_since(Timestamp::from_millis(600)), Some(2_400));
        assert_eq!(index.first_since(Timestamp::from_millis(end)), None);
    }

    #[test]
    fn each_call_tidies_one_chunk_until_the_index_is_tidy() {
        let rows = 4 * CHUNK_ROWS;
        let mut index = index(rows as u64);
        index.tidy(rows, |_, _| false);
        assert_eq!(index.places, rows, "an index within its limit is not tidied");
        // The oldest event is kept, so no row of an evicted event is at the front.
        index.tidy(10, |offset, _| offset == 2 || offset.is_multiple_of(64));
        assert_eq!(index.places, rows - CHUNK_ROWS + CHUNK_ROWS / 32 + 1);
        for _ in 0..2 * rows / CHUNK_ROWS {
            index.tidy(10, |offset, _| offset == 2);
        }
        assert!(index.places <= 20 + SLACK, "{}", index.places);
    }

    /// An append of many events adds more rows than a chunk has.
    #[test]
    fn rows_of_evicted_events_do_not_pile_up_after_large_appends() {
        let one = topics(1);
        for in_order in [true, false] {
            let (mut index, live, mut newest) = (Index::new(), 1_000, 0);
            // If `in_order` is false, the oldest event is always kept, so no other row gets to the
            // front.
            let is_kept = |newest: u64, offset: u64| {
                (!in_order && offset == 1) || offset + live as u64 > newest
            };
            for append in 0..100 {
                for _ in 0..10_000 {
                    newest += 1;
                    let at = Timestamp::default();
                    index.push(IndexRow { offset: newest, at, topics: one.clone() });
                }
                index.tidy(live, |offset, _| is_kept(newest, offset));
                assert!(index.places <= 10_000 + 2 * live + SLACK, "{append}: {}", index.places);
            }
        }
    }

    #[test]
    fn the_oldest_rows_are_removed_first() {
        let mut index = index(CHUNK_ROWS as u64);
        let kept = CHUNK_ROWS / 2;
        index.tidy(kept, |offset, _| offset > CHUNK_ROWS as u64);
        assert_eq!(index.places, kept);
        assert_eq!(index.front().map(|row| row.offset), Some(CHUNK_ROWS as u64 + 2));
    }

    /// An event that is published to a thousand topics counts as much as a thousand events.
    #[test]
    fn a_row_counts_once_for_each_of_its_topics() {
        let mut index = Index::new();
        for (offset, count) in [(1, 1_000), (2, 1)] {
            index.push(IndexRow { offset, at: Timestamp::default(), topics: topics(count) });
        }
        index.tidy(1, |offset, _| offset == 2);
        assert_eq!(index.places, 1);
        assert!(index.pop_front(1).is_none());
        assert_eq!(index.pop_front(2).map(|row| row.offset), Some(2));
        assert_eq!((index.places, index.chunks.len()), (0, 0));
    }
}
