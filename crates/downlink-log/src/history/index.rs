//! Which topics each offset belongs to, hub-wide and in order.
//!
//! A reader of many topics that is almost up to date walks the index instead of all its topics, and
//! the byte bound of the log finds the oldest event by it. What no ring keeps any more stays until it
//! is as much as the rest.

use std::{collections::VecDeque, sync::Arc};

use smallvec::SmallVec;

use crate::topic::TopicLog;

/// The topics of one event; nearly always one.
pub(crate) type Topics<P> = SmallVec<[Arc<TopicLog<P>>; 1]>;

/// Dead offsets tolerated however few live ones there are: tidying is then rare and small.
const SLACK: usize = 64;

/// Invariant: `places` is the number of topics in all rows.
#[derive(Debug)]
pub(crate) struct Index<P> {
    rows: VecDeque<Row<P>>,
    places: usize,
}

#[derive(Debug)]
pub(crate) struct Row<P> {
    pub(crate) offset: u64,
    pub(crate) topics: Topics<P>,
}

impl<P> Index<P> {
    pub(crate) fn new() -> Self {
        Self { rows: VecDeque::new(), places: 0 }
    }

    pub(crate) fn push(&mut self, offset: u64, topics: Topics<P>) {
        debug_assert!(self.rows.back().is_none_or(|row| row.offset < offset));
        self.places += topics.len();
        self.rows.push_back(Row { offset, topics });
    }

    /// The rows in `from..to`.
    pub(crate) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Row<P>> {
        let start = self.rows.partition_point(|row| row.offset < from);
        self.rows.range(start..).take_while(move |row| row.offset < to)
    }

    pub(crate) fn front(&self) -> Option<&Row<P>> {
        self.rows.front()
    }

    pub(crate) fn pop_front(&mut self) -> Option<Row<P>> {
        let row = self.rows.pop_front()?;
        self.places -= row.topics.len();
        Some(row)
    }

    /// Forgets where evicted events were, when those are more than the `live` places.
    ///
    /// Forgetting half of everything at a time makes it cheap for each event, and what dead topics
    /// cost is bounded by what living events do.
    pub(crate) fn tidy(&mut self, live: usize, is_kept: impl Fn(u64, &TopicLog<P>) -> bool) {
        if self.places <= 2 * live + SLACK {
            return;
        }
        self.rows.retain_mut(|row| {
            row.topics.retain(|topic| is_kept(row.offset, topic));
            row.topics.shrink_to_fit();
            !row.topics.is_empty()
        });
        self.places = self.rows.iter().map(|row| row.topics.len()).sum();
        if self.rows.capacity() / 4 > self.rows.len() + SLACK {
            self.rows.shrink_to(2 * self.rows.len());
        }
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::{Epoch, LogOptions, address::Address, forgotten::Floor};

    fn topics(count: usize) -> Topics<&'static str> {
        let options = LogOptions::new(Epoch::from_random(7));
        let topic = |_| TopicLog::new(Address::Everyone, &options, Floor::NONE);
        (0..count).map(topic).collect()
    }

    #[test]
    fn dead_places_are_forgotten_when_they_outnumber_the_living() {
        let mut index = Index::new();
        (1..=SLACK as u64).for_each(|offset| index.push(offset, topics(1)));
        index.tidy(0, |_, _| false);
        assert_eq!(index.rows.len(), SLACK);
        let two = topics(2);
        index.push(100, two.clone());
        index.tidy(1, |offset, topic| offset == 100 && topic.identity() == two[1].identity());
        assert_eq!((index.rows.len(), index.places), (SLACK + 1, SLACK + 2));
        index.tidy(0, |offset, topic| offset == 100 && topic.identity() == two[1].identity());
        assert_eq!((index.rows.len(), index.places), (1, 1));
        assert_eq!(index.pop_front().map(|row| row.offset), Some(100));
        assert_eq!(index.places, 0);
    }

    /// One event to a thousand topics weighs as much as a thousand events.
    #[test]
    fn a_row_weighs_as_much_as_its_topics() {
        let mut index = Index::new();
        index.push(1, topics(1_000));
        index.push(2, topics(1));
        index.tidy(1, |offset, _| offset == 2);
        assert_eq!((index.rows.len(), index.places), (1, 1));
    }
}
