//! One pattern: its readers, and the newest events of the topics that it matches.
//!
//! A reader that keeps up finds its events here, however many topics there are. One that is further
//! behind than the rows reach looks at the topics, or at the index of the log.

use std::{collections::VecDeque, sync::Arc};

use crate::patterns::Evictions;
use crate::readers::ReaderList;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::topics::Topic;
use crate::types::{EvictionNumber, TopicSelector};

/// Rows that a pattern keeps: as many events as one poll of a reader takes. They are 1 KiB. With
/// half, a reader would need the index after each burst. With twice as many, few readers would use
/// the memory.
const ROWS_MAX: usize = if cfg!(downlink_loom) { 2 } else { 64 };

/// A pattern that at least one reader has.
///
/// The order of the fields keeps those of a publish and a read in two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Pattern<P> {
    /// The newest offset that may match. Stored before the log's tail is (Release) and loaded after
    /// it (Acquire), like that of a topic.
    newest: AtomicU64,
    rows: Mutex<PatternRows<P>>,
    pub(crate) readers: Mutex<ReaderList>,
    pub(crate) selector: TopicSelector,
}

/// Locked also under the ring whose push or eviction is noted. No lock is taken under it.
#[derive(Debug)]
struct PatternRows<P> {
    /// All matching events from here on are in `rows`; `u64::MAX` until that is known.
    complete_from: u64,
    /// Offsets in order, each with a topic that it went to.
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

    /// Says that every matching append from `tail` on is noted here.
    pub(crate) fn begin(&self, tail: u64) {
        let mut rows = self.rows.lock();
        if rows.complete_from == u64::MAX {
            rows.complete_from = tail;
            // Earlier events may match, so a reader whose cursor is below the tail has to look for
            // them.
            self.newest.fetch_max(tail - 1, Ordering::AcqRel);
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.rows.lock().complete_from < u64::MAX
    }

    /// Notes an event of a topic that matches.
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
        // Dropped without the lock of the rows: the last row of a collected topic may drop the
        // topic.
        drop(dropped);
    }

    /// Notes an eviction from a topic that matches.
    pub(crate) fn note_eviction(&self, number: EvictionNumber, offset: u64) {
        self.rows.lock().evictions.note(number, offset);
    }

    /// The highest offset that was evicted later than an eviction, or ever, from all topics that
    /// match.
    pub(crate) fn highest_evicted(&self, after: Option<EvictionNumber>) -> Option<u64> {
        self.rows.lock().evictions.highest_after(after)
    }

    /// The only row from an offset on, if the rows reach back there and nothing from there on was
    /// evicted.
    pub(crate) fn only_from(&self, from: u64, until: u64) -> Option<(u64, Arc<Topic<P>>)> {
        let rows = self.rows.lock();
        let is_hole = rows.evictions.highest_after(None).is_some_and(|highest| highest >= from);
        let mut newest_first = rows.rows.iter().rev();
        let newest = newest_first.next().filter(|(offset, _)| (from..until).contains(offset))?;
        let is_only = newest_first.next().is_none_or(|(offset, _)| *offset < from);
        (is_only && rows.complete_from <= from && !is_hole).then(|| newest.clone())
    }

    /// Adds the rows in `from..until` to a buffer; `false` if they do not reach back to `from`.
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
