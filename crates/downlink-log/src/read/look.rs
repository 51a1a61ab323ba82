//! A look is one attempt of a reader to read events in memory. The look takes the events from the
//! reader's cursor to the tail in offset order. The cursor is the next offset to read. The tail is
//! the next offset that readers will see. A range in which events were evicted before the reader
//! read them is a hole. If a look finds a hole, it reports a gap.
//!
//! Each topic has a ring, which holds the topic's events. Each pattern has rows, which list the
//! newest events of the topics that the pattern matches. A look first loads the tail. Then it
//! copies the rows of the patterns, and reads the head of each ring: the offset of the ring's first
//! event at or above the cursor. Then the look searches for holes, and last, it takes events. The
//! cursor moves to the tail only if the look has read everything below the tail.
//!
//! An event that is appended during the look is not below the loaded tail, so the next look takes
//! the event. An event may also be evicted during the look, before the look has taken it. If the
//! look has not searched for holes yet, it finds the hole and reports a gap. If it has already
//! searched, it stops at the missing event, and the next look reports the gap.
//!
//! A reader that keeps up usually reads single events without a look: see the module `next`.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use smallvec::SmallVec;

use crate::history::History;
use crate::read::{Position, SearchProgress, Seats, WorkBudget, walk};
use crate::topics::{Kept, Ring, Topic};
use crate::types::{Batch, Entry, Gap, Offset, Payload};

/// For a reader of at most this many topics and no patterns, a look always merges the events of
/// their rings. This is cheaper than locking the index of the log, which lists the events of all
/// topics. The number is lower in loom's tests, so that these tests also use the index.
pub(crate) const MERGE_ALWAYS: usize = if cfg!(downlink_loom) { 2 } else { 8 };

/// The maximum number of rows that a look takes from the patterns of a reader. An event has a row
/// in each pattern that matches it, so there may be many more rows than events. If there are more
/// rows than this, it is faster to go through the index.
const ROWS_MAX: usize = 2_048;

/// The result of a look.
#[derive(Debug)]
pub(crate) enum LookResult {
    Gap(Gap),
    /// Memory has evicted the next event, or may have evicted it. The store may still keep it.
    Behind,
    /// The look has taken all the events that it could. There may be none, for example because the
    /// next event was evicted during the look.
    Taken {
        /// True if the look has read everything below the tail. False if the batch was full, or if
        /// an event was evicted during the look.
        caught_up: bool,
    },
    /// The look has done as much work as one call may do, and has found no event yet. The reader
    /// must look again.
    More,
}

/// The rows that a look takes from patterns, in offset order. A row has the offset of an event and
/// one topic of the event.
type TakenRows<P> = Vec<(u64, Arc<Topic<P>>)>;

/// Reads memory, beginning at a position, and moves the position.
pub(crate) fn look<P: Payload>(
    history: &History<P>,
    seats: &Seats<P>,
    position: &mut Position,
    batch: Batch,
    out: &mut Vec<Entry<P>>,
) -> LookResult {
    position.leave_past();
    let tail = history.tail();
    if position.next >= tail {
        position.advance(None, Some(position.next));
        return LookResult::Taken { caught_up: true };
    }
    if is_in_store(history, seats, position) {
        return LookResult::Behind;
    }
    let mut taken = Taken::new(batch, out);
    let many =
        seats.topics.len() > MERGE_ALWAYS && tail - position.next < seats.topics.len() as u64;
    if seats.patterns().is_empty() && many && history.floor_max() <= position.missing_from() {
        return walk(history, seats, position, tail, &mut taken);
    }
    let topics: SmallVec<[&Topic<P>; 8]> = seats.topics.iter().map(|seat| &*seat.topic).collect();
    if let Some(rows) = rows(seats, position.next, tail) {
        return Merge::new(topics, rows, position.next, tail).run(seats, position, &mut taken);
    }
    match walk::few_topics(history, seats) {
        Some(few) => {
            let topics = few.iter().map(|topic| &**topic).collect();
            Merge::new(topics, Vec::new(), position.next, tail).run(seats, position, &mut taken)
        }
        None => walk(history, seats, position, tail, &mut taken),
    }
}

/// Whether the next events of a reader of patterns may be only in the store. This is possible if
/// the reader's cursor is below the highest floor of any topic. The floor of a topic is the offset
/// after the last event that memory has evicted from this topic. The patterns cannot answer the
/// question, because they may know only the evictions since the reader was opened.
fn is_in_store<P: Payload>(history: &History<P>, seats: &Seats<P>, position: &Position) -> bool {
    position.has_store
        && !seats.patterns().is_empty()
        && position.past.is_some()
        && history.floor_max() > position.next
}

/// The rows of all patterns in `from..until`. `None` if the rows of a pattern do not go back as far
/// as `from`, or if there are too many rows.
fn rows<P: Payload>(seats: &Seats<P>, from: u64, until: u64) -> Option<TakenRows<P>> {
    let mut rows = Vec::new();
    for seat in seats.patterns() {
        if seat.pattern.newest() < from {
            continue;
        }
        if !seat.pattern.look(from, until, &mut rows) || rows.len() > ROWS_MAX {
            return None;
        }
    }
    rows.sort_by_key(|(offset, _)| *offset);
    Some(rows)
}

/// Takes events by going through the index of the log, which lists the events of all topics.
fn walk<P: Payload>(
    history: &History<P>,
    seats: &Seats<P>,
    position: &mut Position,
    tail: u64,
    taken: &mut Taken<'_, P>,
) -> LookResult {
    let mut work = WorkBudget::new();
    while !work.is_done() {
        let (rows, next) = walk::chunk(history, position.next, tail);
        // The rows are copied before the search for a hole. An eviction is recorded in the topic's
        // ring and in the patterns before the event's row is removed from the index. So if the row
        // of an event was already removed when the rows were copied, the search finds the eviction.
        if let Some(hole) = position.hole(seats) {
            if taken.last.is_some() {
                return LookResult::Taken { caught_up: false };
            }
            if position.has_store {
                return LookResult::Behind;
            }
            let oldest = match walk::first(history, seats, position.next, tail, &mut work) {
                SearchProgress::Found(offset) => Some(offset),
                SearchProgress::Nothing | SearchProgress::More(_) => None,
            };
            return LookResult::Gap(report(position, hole, oldest, tail));
        }
        for row in &rows {
            let mut nodes = 0;
            let mine = seats.mine(row, &mut nodes);
            work.spend(1, nodes);
            let is_complete = mine.is_empty() || taken.take(&mine, row.offset, position);
            position.advance(taken.last, is_complete.then_some(row.offset + 1));
            if !is_complete {
                return LookResult::Taken { caught_up: false };
            }
            if work.is_done() {
                break;
            }
        }
        if next.is_none() && !work.is_done() {
            position.advance(taken.last, Some(tail));
            return LookResult::Taken { caught_up: true };
        }
    }
    if taken.last.is_some() { LookResult::Taken { caught_up: false } } else { LookResult::More }
}

/// Makes the gap that reports a hole, and moves the position. The reader continues at the oldest
/// kept event or right after the hole, whichever is lower. If events above the hole were evicted
/// during this look, the next look reports them.
pub(crate) fn report(position: &mut Position, hole: u64, oldest: Option<u64>, tail: u64) -> Gap {
    let above = hole + 1;
    let next = oldest.unwrap_or(tail).min(above);
    let gap = Gap {
        reason: position.reason,
        after: Some(Offset::new(position.next - 1)),
        until: Some(Offset::new(hole)),
        oldest: oldest.map(Offset::new),
        next: Offset::new(next),
    };
    position.reported_below = position.reported_below.max(above);
    position.next = next.max(position.next);
    gap
}

/// Merges the events of several rings and the rows of patterns in offset order.
struct Merge<'a, P> {
    topics: SmallVec<[&'a Topic<P>; 8]>,
    /// The heads of the rings that have events below the tail. A head is the offset of the ring's
    /// next event. Each head is stored with the index of the ring's topic in `topics`. The lowest
    /// head is on top.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    rows: TakenRows<P>,
    /// The index of the next row in `rows`.
    row: usize,
    tail: u64,
}

impl<'a, P: Payload> Merge<'a, P> {
    fn new(topics: SmallVec<[&'a Topic<P>; 8]>, rows: TakenRows<P>, next: u64, tail: u64) -> Self {
        let mut heads = BinaryHeap::new();
        for (at, topic) in topics.iter().enumerate() {
            if topic.newest() >= next {
                heads.extend(topic.ring.read().next_from(next).map(|head| Reverse((head, at))));
            }
        }
        heads.retain(|Reverse((head, _))| *head < tail);
        Self { topics, heads, rows, row: 0, tail }
    }

    /// Takes the events below the tail. If events are missing, reports the hole instead.
    fn run(
        mut self,
        seats: &Seats<P>,
        position: &mut Position,
        taken: &mut Taken<'_, P>,
    ) -> LookResult {
        if let Some(hole) = position.hole(seats) {
            if position.has_store {
                return LookResult::Behind;
            }
            return LookResult::Gap(report(position, hole, self.oldest(), self.tail));
        }
        let mut is_complete = true;
        while let Some(next) = self.next_offset() {
            // If a ring and a row have the same event, the event is taken from the ring, because
            // the topic of the row may have evicted the event.
            let took = if self.heads.peek().is_some_and(|Reverse((head, _))| *head == next) {
                self.take_run(position, taken)
            } else {
                self.take_row(next, position, taken)
            };
            if !took {
                is_complete = false;
                break;
            }
        }
        position.advance(taken.last, is_complete.then_some(self.tail));
        LookResult::Taken { caught_up: is_complete }
    }

    /// The offset of the oldest kept event below the tail. This event is in one of the rings, or it
    /// has a row and the topic of the row still keeps it.
    fn oldest(&self) -> Option<u64> {
        let head = self.heads.peek().map(|Reverse((head, _))| *head);
        let is_kept = |row: &&(u64, Arc<Topic<P>>)| row.1.ring.read().get(row.0).is_some();
        let row = self.rows.iter().find(is_kept).map(|(offset, _)| *offset);
        head.into_iter().chain(row).min()
    }

    fn next_offset(&self) -> Option<u64> {
        let head = self.heads.peek().map(|Reverse((head, _))| *head);
        let row = self.rows.get(self.row).map(|(offset, _)| *offset);
        head.into_iter().chain(row).min()
    }

    /// Takes the event at `offset` from one of its topics. The rows with this offset name these
    /// topics, and the first such row is at the index `self.row`. Returns `false` if the look must
    /// stop.
    fn take_row(&mut self, offset: u64, position: &Position, taken: &mut Taken<'_, P>) -> bool {
        let rows = self.rows.get(self.row..).unwrap_or_default();
        let same = rows.iter().take_while(|row| row.0 == offset);
        let topics: SmallVec<[&Arc<Topic<P>>; 1]> = same.map(|(_, topic)| topic).collect();
        let count = topics.len();
        let took = taken.take(&topics, offset, position);
        if took {
            self.row += count;
        }
        took
    }

    /// Takes events from the ring with the lowest head, up to the next offset of another ring or
    /// row. Returns `false` if the look must stop.
    fn take_run(&mut self, position: &Position, taken: &mut Taken<'_, P>) -> bool {
        let Some(Reverse((head, at))) = self.heads.pop() else { return true };
        let Some(topic) = self.topics.get(at) else { return true };
        let ring = topic.ring.read();
        let is_evicted = ring.floor() > head && ring.floor() > position.missing_from();
        if is_evicted || (taken.is_full() && !taken.has(head)) {
            return false;
        }
        let bound = self.next_offset().unwrap_or(self.tail).max(head + 1).min(self.tail);
        let next = take_entries(&ring, head, bound, taken).filter(|next| *next < self.tail);
        drop(ring);
        self.heads.extend(next.map(|next| Reverse((next, at))));
        true
    }
}

/// Takes the events of a ring in `from..bound`, until the batch is full. Returns the offset of the
/// first event that is not taken. `None` if the ring has no further event.
fn take_entries<P: Payload>(
    ring: &Ring<P>,
    from: u64,
    bound: u64,
    taken: &mut Taken<'_, P>,
) -> Option<u64> {
    for entry in ring.from(from) {
        // An event of several topics is in several rings, but is taken only once.
        if taken.has(entry.offset) {
            continue;
        }
        if entry.offset >= bound || taken.is_full() {
            return Some(entry.offset);
        }
        taken.push(entry);
    }
    None
}

/// The events that a look has taken so far.
struct Taken<'a, P> {
    out: &'a mut Vec<Entry<P>>,
    last: Option<u64>,
    events_left: usize,
    bytes_left: usize,
}

impl<'a, P: Payload> Taken<'a, P> {
    fn new(batch: Batch, out: &'a mut Vec<Entry<P>>) -> Self {
        let (events_left, bytes_left) = (batch.events_max.max(1), batch.bytes_max.max(1));
        Self { out, last: None, events_left, bytes_left }
    }

    fn is_full(&self) -> bool {
        self.events_left == 0 || self.bytes_left == 0
    }

    fn has(&self, offset: u64) -> bool {
        self.last == Some(offset)
    }

    /// Takes one event from one of its topics. Returns `false` if the batch is full, or if all
    /// topics have evicted the event and a gap must report it.
    fn take(&mut self, topics: &[&Arc<Topic<P>>], offset: u64, position: &Position) -> bool {
        if self.has(offset) {
            return true;
        }
        let mut is_missed = false;
        for topic in topics {
            let ring = topic.ring.read();
            if let Some(kept) = ring.get(offset) {
                let has_room = !self.is_full();
                if has_room {
                    self.push(kept);
                }
                return has_room;
            }
            let hole = ring.lost().hole(offset, position.evicted_after(), |_| false);
            is_missed |= hole.is_some();
        }
        // No topic keeps the event. If a gap has already reported the event, the look skips it. No
        // later look finds a hole at this offset, so without the skip, the reader would never get
        // past it.
        !is_missed || offset < position.missing_from()
    }

    fn push(&mut self, kept: &Kept<P>) {
        self.last = Some(kept.offset);
        self.events_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(kept.payload.bytes());
        self.out.push(entry(kept, P::clone));
    }
}

/// Makes the entry that a reader gets. `take` makes the payload of the entry.
pub(crate) fn entry<P, Q>(kept: &Kept<P>, take: impl Fn(&P) -> Q) -> Entry<Q> {
    let payload = take(&kept.payload);
    Entry { offset: Offset::new(kept.offset), at: kept.at, payload }
}
