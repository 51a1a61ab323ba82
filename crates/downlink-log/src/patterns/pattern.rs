//! One pattern: its readers, and the newest events of the topics that it matches.
//!
//! A pattern keeps a row for each of its newest events: the event's offset and topic. A reader that
//! keeps up finds its events in the rows, however many topics the pattern matches. A reader whose
//! next offset is below the oldest row reads the topics, or the index of the log, which lists the
//! events of all topics.

use std::{collections::VecDeque, sync::Arc};

use crate::patterns::Evictions;
use crate::readers::ReaderList;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::topics::Topic;
use crate::types::{EvictionNumber, TopicSelector};

/// The maximum number of rows of a pattern. It equals the maximum number of events that a
/// subscription of the crate `downlink` reads in one poll. With half as many rows, a reader would
/// often have to search the index of the log after a burst of events. With twice as many, few
/// readers would use the additional rows. 64 rows take 1 KiB.
const ROWS_MAX: usize = if cfg!(downlink_loom) { 2 } else { 64 };

/// A pattern to which at least one reader has subscribed.
///
/// The order of the fields puts the fields that publishing and reading use into two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Pattern<P> {
    /// The offset of the newest event whose topic matches. In a new pattern, the value may be
    /// higher than the offset of that event (see `begin`). A publisher stores this offset (Release)
    /// before the log's tail, which is the next offset that readers will see. A reader loads this
    /// offset (Acquire) after the tail. So a reader that sees a tail also sees the newest offset
    /// below that tail.
    newest: AtomicU64,
    rows: Mutex<PatternRows<P>>,
    pub(crate) readers: Mutex<ReaderList>,
    pub(crate) selector: TopicSelector,
}

/// A ring holds the events of one topic. A thread that pushes an event into a ring, or evicts an
/// event from it, holds the lock of the ring. It may then also lock these rows, to note the event
/// or the eviction. No other lock is taken while the rows are locked.
#[derive(Debug)]
struct PatternRows<P> {
    /// All matching events from this offset on are in `rows`. `u64::MAX` until `begin` is called.
    complete_from: u64,
    /// The offsets of the events, in order. Each offset is stored with one of the event's topics
    /// that the pattern matches.
    rows: VecDeque<(u64, Arc<Topic<P>>)>,
    evictions: Evictions,
}

impl<P> Pattern<P> {
    pub(crate) fn new(selector: TopicSelector) -> Self {
        let rows = PatternRows {
            complete_from: u64::MAX,
            rows: VecDeque::new(),
            evictions: Evictions::default(),
        };
        Self {
            selector,
            newest: AtomicU64::new(0),
            rows: Mutex::new(rows),
            readers: Mutex::new(ReaderList::new()),
        }
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Tells a new pattern that all matching events from `tail` on are noted in it. A second call
    /// does nothing.
    pub(crate) fn begin(&self, tail: u64) {
        let mut rows = self.rows.lock();
        if rows.complete_from == u64::MAX {
            rows.complete_from = tail;
            // Older events may match, but are not noted in the pattern. With this value of
            // `newest`, a reader whose next offset is below the tail looks for these older events.
            self.newest.fetch_max(tail - 1, Ordering::AcqRel);
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.rows.lock().complete_from < u64::MAX
    }

    /// Notes an event of a matching topic.
    pub(crate) fn push(&self, offset: u64, topic: &Arc<Topic<P>>) {
        let mut rows = self.rows.lock();
        let is_full = rows.rows.len() == ROWS_MAX;
        let dropped = if is_full { rows.rows.pop_front() } else { None };
        if let Some((dropped, _)) = &dropped
            && rows.complete_from < u64::MAX
        {
            rows.complete_from = dropped + 1;
        }
        rows.rows.push_back((offset, Arc::clone(topic)));
        self.newest.store(offset, Ordering::Release);
        drop(rows);
        // The oldest row is dropped after the rows are unlocked. If it has the last reference to a
        // topic, this drops the topic too.
        drop(dropped);
    }

    /// Notes an eviction from a matching topic.
    pub(crate) fn note_eviction(&self, number: EvictionNumber, offset: u64) {
        self.rows.lock().evictions.note(number, offset);
    }

    /// Notes a loss in a matching topic. The events of a loss were evicted in another log before
    /// this log could copy them. So they may never have been noted in this pattern.
    pub(crate) fn note_loss(&self, number: EvictionNumber, offset: u64) {
        let mut rows = self.rows.lock();
        rows.evictions.note(number, offset);
        // With this value of `newest`, a reader whose next offset is at or below the loss looks for
        // it.
        self.newest.fetch_max(offset, Ordering::AcqRel);
    }

    /// The highest offset that was evicted from any matching topic after the eviction `after`. With
    /// `None`, all evictions count.
    pub(crate) fn highest_evicted(&self, after: Option<EvictionNumber>) -> Option<u64> {
        self.rows.lock().evictions.highest_after(after)
    }

    /// The row of the only event at or above `from`. The result is `None` in each of these cases:
    ///
    /// - There is no row at or above `from`, or there are several.
    /// - The row's offset is `until` or higher.
    /// - The rows do not go back as far as `from`.
    /// - An event at or above `from` was evicted.
    pub(crate) fn only_from(&self, from: u64, until: u64) -> Option<(u64, Arc<Topic<P>>)> {
        let rows = self.rows.lock();
        let is_hole = rows.evictions.highest_after(None).is_some_and(|highest| highest >= from);
        let mut newest_first = rows.rows.iter().rev();
        let newest = newest_first.next().filter(|(offset, _)| (from..until).contains(offset))?;
        let is_only = newest_first.next().is_none_or(|(offset, _)| *offset < from);
        (is_only && rows.complete_from <= from && !is_hole).then(|| newest.clone())
    }

    /// Adds the rows in `from..until` to `out`. Returns `false` and adds nothing if the rows do not
    /// go back as far as `from`.
    pub(crate) fn look(&self, from: u64, until: u64, out: &mut Vec<(u64, Arc<Topic<P>>)>) -> bool {
        let rows = self.rows.lock();
        if rows.complete_from > from {
            return false;
        }
        let start = rows.rows.partition_point(|(offset, _)| *offset < from);
        let wanted = rows.rows.range(start..).take_while(|(offset, _)| *offset < until);
        out.extend(wanted.cloned());
        true
    }
}
