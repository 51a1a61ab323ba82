//! Which topics each offset belongs to, hub-wide and in order.
//!
//! A reader of many topics that is almost up to date walks the index instead of all its topics, and
//! the byte bound of the log finds the oldest event by it. Offsets that no ring keeps any more stay
//! until they are as many as the others.

use std::{collections::VecDeque, sync::Arc};

use smallvec::SmallVec;

use crate::topic::TopicLog;

/// The topics of one event; nearly always one.
pub(crate) type Topics<P> = SmallVec<[Arc<TopicLog<P>>; 1]>;

/// Dead offsets tolerated however few live ones there are: tidying is then rare and small.
const SLACK: usize = 64;

#[derive(Debug)]
pub(crate) struct Index<P> {
    rows: VecDeque<Row<P>>,
}

#[derive(Debug)]
pub(crate) struct Row<P> {
    pub(crate) offset: u64,
    pub(crate) topics: Topics<P>,
}

impl<P> Index<P> {
    pub(crate) fn new() -> Self {
        Self { rows: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, offset: u64, topics: Topics<P>) {
        debug_assert!(self.rows.back().is_none_or(|row| row.offset < offset));
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
        self.rows.pop_front()
    }

    /// Drops rows of evicted events when they are more than the `live` ones.
    pub(crate) fn tidy(&mut self, live: usize, is_kept: impl Fn(&Row<P>) -> bool) {
        if self.rows.len() > 2 * live + SLACK {
            self.rows.retain(is_kept);
        }
    }
}
