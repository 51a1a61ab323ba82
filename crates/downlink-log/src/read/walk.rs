//! Finds events in the index of the log, which lists the events of all topics. Readers of many
//! topics use the index. Readers of patterns use it for older events, because a pattern has rows
//! only for its newest events.
//!
//! The patterns of a reader form a tree, in which the search finds out whether a pattern matches a
//! topic. One call visits a bounded number of rows of the index and of nodes of the tree. If the
//! search is not finished then, the call returns the offset where the next call continues. The rows
//! are copied out of the index in small chunks, so that publishers do not wait long for the lock of
//! the index.

use std::{ops::Bound, sync::Arc};

use crate::history::{History, IndexRow};
use crate::read::Seats;
use crate::topics::{Lost, Topic, start_of};
use crate::types::{Address, PatternSet, Payload};

/// The maximum number of rows to copy while the index is locked. Every publisher needs the lock of
/// the index. Copying 256 rows takes about ten microseconds, so publishers wait only briefly. In
/// loom's tests, the number is 1.
const HOLD_ROWS: usize = if cfg!(downlink_loom) { 1 } else { 256 };

/// The prefix of a pattern is the text before its first `*` or placeholder. If at most this many
/// topics have a name that begins with a prefix of a reader's patterns, the reader does not use the
/// index. Instead, it searches the ring of each topic, which holds the topic's events.
pub(crate) const FEW_TOPICS: usize = 64;

/// The number of rows and nodes that one call may still visit. A call that uses its whole budget
/// takes about a millisecond.
#[derive(Debug)]
pub(crate) struct WorkBudget {
    rows: usize,
    nodes: usize,
}

impl WorkBudget {
    pub(crate) fn new() -> Self {
        Self { rows: 4_096, nodes: 50_000 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.rows == 0 || self.nodes == 0
    }

    pub(crate) fn spend(&mut self, rows: usize, nodes: usize) {
        self.rows = self.rows.saturating_sub(rows);
        self.nodes = self.nodes.saturating_sub(nodes);
    }
}

/// The state of a search after a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SearchProgress {
    Found(u64),
    Nothing,
    /// The search is not finished, and the next call continues at this offset.
    More(u64),
}

/// A chunk of the rows in `from..until`, and the offset where the next chunk begins. The offset is
/// `None` if this is the last chunk.
pub(crate) fn chunk<P: Payload>(
    history: &History<P>,
    from: u64,
    until: u64,
) -> (Vec<IndexRow<P>>, Option<u64>) {
    let mut rows = history.rows_from(from, HOLD_ROWS);
    let is_full = rows.len() == HOLD_ROWS;
    let wanted = rows.partition_point(|row| row.offset < until);
    let is_cut = wanted < rows.len();
    rows.truncate(wanted);
    let next = rows.last().map(|row| row.offset + 1).filter(|_| is_full && !is_cut);
    (rows, next)
}

/// Finds the first kept event in `from..until` that the reader reads.
pub(crate) fn first<P: Payload>(
    history: &History<P>,
    seats: &Seats<P>,
    mut from: u64,
    until: u64,
    work: &mut WorkBudget,
) -> SearchProgress {
    while !work.is_done() {
        let (rows, next) = chunk(history, from, until);
        for row in &rows {
            if work.is_done() {
                return SearchProgress::More(row.offset);
            }
            if is_kept(seats, row, work) {
                return SearchProgress::Found(row.offset);
            }
        }
        match next {
            Some(next) => from = next,
            None => return SearchProgress::Nothing,
        }
    }
    SearchProgress::More(from)
}

/// Goes from `until` back through the kept events that the reader reads, until it has found `left`
/// events or there are no more. The result is the oldest event that it has found. To continue a
/// search, the caller passes the same variables `left` and `oldest` again.
pub(crate) fn newest<P: Payload>(
    history: &History<P>,
    seats: &Seats<P>,
    mut until: u64,
    left: &mut usize,
    oldest: &mut Option<u64>,
    work: &mut WorkBudget,
) -> SearchProgress {
    while !work.is_done() && *left > 0 {
        let rows = history.rows_below(until, HOLD_ROWS);
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            if *left == 0 || work.is_done() {
                break;
            }
            until = row.offset;
            if is_kept(seats, row, work) {
                *left -= 1;
                *oldest = Some(row.offset);
            }
        }
    }
    match *oldest {
        _ if work.is_done() && *left > 0 => SearchProgress::More(until),
        Some(oldest) => SearchProgress::Found(oldest),
        None => SearchProgress::Nothing,
    }
}

/// Whether a topic that the reader reads still keeps the event. A row stays in the index for a
/// while after its topics have evicted the event.
fn is_kept<P: Payload>(seats: &Seats<P>, row: &IndexRow<P>, work: &mut WorkBudget) -> bool {
    let mut nodes = 0;
    let found =
        seats.mine(row, &mut nodes).iter().any(|topic| topic.ring.read().get(row.offset).is_some());
    work.spend(1, nodes);
    found
}

/// The topics that the reader reads. `None` if more than [`FEW_TOPICS`] topics have a name that
/// begins with a prefix of its patterns.
pub(crate) fn few_topics<P: Payload>(
    history: &History<P>,
    seats: &Seats<P>,
) -> Option<Vec<Arc<Topic<P>>>> {
    let mut topics: Vec<_> = seats.topics.iter().map(|seat| Arc::clone(&seat.topic)).collect();
    if seats.patterns().is_empty() {
        return Some(topics);
    }
    let set = seats.set();
    let mut looked = 0;
    for prefix in set.prefixes() {
        let listed = history.topics.list(prefix, &start_of(prefix), FEW_TOPICS + 1 - looked);
        looked += listed.found.len();
        if looked > FEW_TOPICS {
            return None;
        }
        topics.extend(listed.found.into_iter().filter(|topic| matches(&set, &topic.address)));
    }
    topics.sort_unstable_by_key(|topic| topic.identity());
    topics.dedup_by_key(|topic| topic.identity());
    Some(topics)
}

fn matches(set: &PatternSet, address: &Address) -> bool {
    address.topic().is_some_and(|topic| set.matches(topic.as_str()))
}

/// The search for the evicted events of all topics that a reader's patterns match. It goes through
/// the names of the topics that exist, and then through the names of topics that were removed from
/// memory.
#[derive(Debug)]
pub(crate) struct FloorSearch {
    prefixes: Vec<Box<str>>,
    /// The index in `prefixes` of the prefix whose names are searched now.
    at: usize,
    /// Whether the search has reached the names of topics that were removed from memory.
    collected: bool,
    /// Where to continue among the names with the current prefix; `None` to begin with the first
    /// name.
    from: Option<Bound<Address>>,
}

impl FloorSearch {
    pub(crate) fn new<P: Payload>(seats: &Seats<P>) -> Self {
        let prefixes = seats.set().prefixes().into_iter().map(Into::into).collect();
        Self { prefixes, at: 0, collected: false, from: None }
    }

    /// Continues the search for a bounded number of names. Calls `each` with the losses of each
    /// matching topic, which say up to which offset the topic's events were evicted. Returns `true`
    /// when the search is finished.
    ///
    /// The search may miss a topic that is removed from memory or created again during the search.
    /// But the losses of such a topic are then noted in the patterns, where the reader finds them.
    pub(crate) fn step<P: Payload>(
        &mut self,
        history: &History<P>,
        seats: &Seats<P>,
        work: &mut WorkBudget,
        each: &mut impl FnMut(Lost),
    ) -> bool {
        if seats.patterns().is_empty() {
            return true;
        }
        let set = seats.set();
        while !work.is_done() {
            let Some(prefix) = self.prefixes.get(self.at) else {
                if self.collected {
                    each(history.topics.lost_of_others());
                    return true;
                }
                (self.at, self.collected, self.from) = (0, true, None);
                continue;
            };
            let from = self.from.take().unwrap_or_else(|| start_of(prefix));
            let mut nodes = 0;
            let mut wants = |address: &Address| {
                let name = address.topic().map(|topic| topic.as_str());
                name.is_some_and(|name| set.matches_counting(name, &mut nodes))
            };
            let listed = history.topics.list_lost(prefix, &from, HOLD_ROWS, self.collected);
            let wanted = listed.found.iter().filter(|(address, _)| wants(address));
            wanted.for_each(|(_, lost)| each(*lost));
            work.spend(listed.found.len().max(1), nodes);
            self.at += usize::from(listed.next.is_none());
            self.from = listed.next;
        }
        false
    }
}
