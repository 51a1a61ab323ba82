//! Reading: everything between a cursor and the tail, in offset order, or the hole in it.
//!
//! A reader of few topics asks each for what it has and merges. One of many topics that is almost up
//! to date walks the log's index instead. In both cases it takes the tail first and moves its cursor
//! there only when every topic was read that far: an event appended meanwhile to a topic already
//! looked at is above the tail it took.
//!
//! Most readers keep up and take events one by one: see `next`.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    index::Topics,
    log::{Payload, Shared},
    offset::{Offset, Timestamp},
    ring::{Kept, Ring},
    sync::Ordering,
    watcher::Attached,
};

/// Up to this many topics, asking each is cheaper than the index's lock. Models walk it sooner.
pub(crate) const MERGE_ALWAYS: usize = if cfg!(downlink_loom) { 2 } else { 8 };

/// Rows of the index looked at under one hold of its lock, which every publisher needs: some tens of
/// microseconds.
const WALK_ROWS: usize = if cfg!(downlink_loom) { 1 } else { 1_024 };

/// How much one read may take.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Events; 0 is taken as 1.
    pub events_max: usize,
    /// Bytes of payload after which no further event is taken; the first always is.
    pub bytes_max: usize,
}

/// An event as a reader gets it.
#[derive(Clone, Debug)]
pub struct Entry<P> {
    /// Where it stands.
    pub offset: Offset,
    /// When it was published.
    pub at: Timestamp,
    /// What was appended.
    pub payload: P,
}

/// What a reader found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Read {
    /// Events were put into the buffer; there may be more.
    Events,
    /// Something is missing before the next event. Said once for each hole; the buffer is empty.
    Gap(Gap),
    /// Nothing to read now.
    CaughtUp,
    /// What follows is being fetched from the store; the reader is woken as by an append.
    Fetching,
    /// Nothing will ever follow.
    Ended(crate::EndReason),
}

/// A range that was asked for and is not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The last offset before the hole that the reader had; `None` if its id was not understood.
    pub after: Option<Offset>,
    /// The last offset known to be missing; `None` if that is not known.
    pub until: Option<Offset>,
    /// The first retained offset that follows; `None` if there is none yet.
    pub oldest: Option<Offset>,
    /// Where reading goes on.
    pub next: Offset,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GapReason {
    /// Retention removed it before the reader came back.
    Evicted,
    /// The reader's id means nothing to this log.
    UnknownId,
    /// The reader's id is of another life of the log.
    NewEpoch,
    /// The reader was connected, and slower than retention.
    Lagged,
    /// The reader's id is ahead of the log, which has lost what the reader saw.
    Lost,
}

/// The reading position of one reader.
#[derive(Debug)]
pub(crate) struct Position {
    /// The next offset to read.
    pub(crate) next: u64,
    /// Holes below this have been told.
    pub(crate) told: u64,
    /// Why a hole that is found now is there.
    pub(crate) reason: GapReason,
    /// Whether what the rings have lost can be had from a store.
    pub(crate) stored: bool,
}

/// What a look at the rings found.
pub(crate) enum Found {
    Hole(Gap),
    /// What follows is not in the rings any more, and may be in the store.
    Behind,
    /// Events up to the batch or the tail, perhaps none.
    Taken {
        /// Whether everything below the tail was looked at.
        caught_up: bool,
    },
}

impl<P: Payload> Shared<P> {
    /// Reads from a position and moves it.
    pub(crate) fn read(
        &self,
        position: &mut Position,
        attached: &Attached<P>,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
    ) -> Found {
        let tail = self.tail();
        if position.next >= tail {
            position.reason = GapReason::Lagged;
            return Found::Taken { caught_up: true };
        }
        let distance = tail - position.next;
        let walked = attached.len() > MERGE_ALWAYS
            && distance < attached.len() as u64
            && self.walk_index(position, attached, tail, batch, out);
        if !walked {
            let merge = Merge::new(position, attached, tail);
            if position.stored && merge.floor > position.next {
                return Found::Behind;
            }
            if let Some(gap) = merge.run(position, batch, out) {
                return Found::Hole(gap);
            }
        }
        Found::Taken { caught_up: position.next >= tail }
    }

    /// Reads by the index; `false` if there may be a hole, which only the rings can tell.
    fn walk_index(
        &self,
        position: &mut Position,
        attached: &Attached<P>,
        tail: u64,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
    ) -> bool {
        let mut taken = Taken::new(batch, out);
        while position.next < tail {
            let Some(rows) = self.rows(position, attached, tail, taken.events_left) else {
                return taken.last.is_some();
            };
            let complete = rows.take(position.ring_told(), &mut taken);
            position.advance(taken.last, complete.then_some(rows.until));
            if !complete {
                break;
            }
        }
        true
    }

    /// The events from a position on that are for a reader, and up to where these are all; `None` if
    /// there may be a hole. One more than `events_max` at most, found in at most `WALK_ROWS` rows.
    fn rows(
        &self,
        position: &Position,
        attached: &Attached<P>,
        tail: u64,
        events_max: usize,
    ) -> Option<Rows<P>> {
        let index = self.index.lock();
        // Rows disappear only after the floor of their events was raised.
        if self.floor_max.load(Ordering::Acquire) > position.next.max(position.ring_told()) {
            return None;
        }
        let mut rows = Vec::new();
        for (walked, row) in index.range(position.next, tail).enumerate() {
            if walked == WALK_ROWS {
                return Some(Rows { mine: rows, until: row.offset });
            }
            let mine = row.topics.iter().filter(|topic| attached.contains(topic));
            let mine: Topics<P> = mine.cloned().collect();
            if !mine.is_empty() {
                rows.push((row.offset, mine));
            }
            if rows.len() > events_max {
                return Some(Rows { mine: rows, until: row.offset + 1 });
            }
        }
        Some(Rows { mine: rows, until: tail })
    }
}

/// What the index says is for one reader.
struct Rows<P> {
    mine: Vec<(u64, Topics<P>)>,
    /// Below this there is nothing else.
    until: u64,
}

impl<P: Payload> Rows<P> {
    /// Takes the events, as far as there is room and they are still kept; whether all were.
    fn take(&self, told: u64, taken: &mut Taken<'_, P>) -> bool {
        self.mine.iter().all(|(offset, topics)| take_one(topics, *offset, told, taken))
    }
}

/// Takes one event from whichever of its rings still keeps it. `false`: there is no room for it, or
/// none keeps it and the reader was not told of that.
fn take_one<P: Payload>(
    topics: &Topics<P>,
    offset: u64,
    told: u64,
    taken: &mut Taken<'_, P>,
) -> bool {
    let mut floor = 0;
    for topic in topics {
        let ring = topic.ring.read();
        if let Some(kept) = ring.from(offset).next().filter(|entry| entry.offset == offset) {
            let room = !taken.is_full();
            if room {
                taken.push(kept);
            }
            return room;
        }
        floor = floor.max(ring.floor().offset);
    }
    floor <= told
}

impl Position {
    /// Below this nothing of the rings is missed. What a store may have is missed, told or not.
    pub(crate) fn ring_told(&self) -> u64 {
        if self.stored { 0 } else { self.told }
    }

    pub(crate) fn advance(&mut self, last: Option<u64>, complete: Option<u64>) {
        let delivered = last.map_or(self.next, |last| last + 1);
        self.next = complete.unwrap_or(delivered);
        self.reason = GapReason::Lagged;
    }
}

impl<Q> Entry<Q> {
    pub(crate) fn of<P>(kept: &Kept<P>, take: impl Fn(&P) -> Q) -> Self {
        let payload = take(&kept.payload);
        Self { offset: Offset::new(kept.offset), at: kept.at, payload }
    }
}

/// A merge of rings by offset.
struct Merge<'a, P> {
    attached: &'a Attached<P>,
    tail: u64,
    /// The next offset of each ring that has one below the tail, smallest on top.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    floor: u64,
}

impl<'a, P: Payload> Merge<'a, P> {
    fn new(position: &Position, attached: &'a Attached<P>, tail: u64) -> Self {
        let mut heads = BinaryHeap::new();
        let mut floor = attached.detached().offset;
        for (at, seat) in attached.numbered() {
            // A ring with nothing at or above the cursor has no floor above it either.
            if seat.topic.newest() < position.next {
                continue;
            }
            let ring = seat.topic.ring.read();
            floor = floor.max(ring.floor().offset);
            heads.extend(ring.next_from(position.next).map(|head| Reverse((head, at))));
        }
        heads.retain(|Reverse((head, _))| *head < tail);
        Self { attached, tail, heads, floor }
    }

    /// Takes what there is, or finds the hole before it.
    fn run(
        mut self,
        position: &mut Position,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
    ) -> Option<Gap> {
        if self.floor > position.next.max(position.told) {
            return Some(self.hole(position));
        }
        let mut taken = Taken::new(batch, out);
        let mut complete = true;
        while let Some(Reverse((head, at))) = self.heads.pop() {
            let Some(seat) = self.attached.get(at) else { continue };
            let ring = seat.topic.ring.read();
            let evicted = ring.floor().offset > head && ring.floor().offset > position.ring_told();
            if evicted || (taken.is_full() && !taken.has(head)) {
                complete = false;
                break;
            }
            let next = self.take_run(&ring, head, &mut taken);
            self.heads.extend(next.map(|next| Reverse((next, at))));
        }
        position.advance(taken.last, complete.then_some(self.tail));
        None
    }

    /// Takes entries of one ring up to the next one of another, and says where the ring goes on.
    fn take_run(&self, ring: &Ring<P>, head: u64, taken: &mut Taken<'_, P>) -> Option<u64> {
        let other = self.heads.peek().map_or(self.tail, |Reverse((other, _))| *other);
        let bound = other.max(head + 1).min(self.tail);
        for entry in ring.from(head) {
            // An event to several topics is in several rings.
            if taken.has(entry.offset) {
                continue;
            }
            if entry.offset >= bound || taken.is_full() {
                return Some(entry.offset).filter(|&next| next < self.tail);
            }
            taken.push(entry);
        }
        None
    }

    fn hole(&self, position: &mut Position) -> Gap {
        let oldest = self.heads.peek().map(|Reverse((head, _))| *head);
        let gap = Gap {
            reason: position.reason,
            after: Some(Offset::new(position.next - 1)),
            until: Some(Offset::new(self.floor - 1)),
            oldest: oldest.map(Offset::new),
            next: Offset::new(oldest.unwrap_or(self.tail)),
        };
        position.told = self.floor;
        position.next = gap.next.get();
        gap
    }
}

/// What a read has taken so far.
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

    fn push(&mut self, kept: &Kept<P>) {
        self.last = Some(kept.offset);
        self.events_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(kept.payload.bytes());
        self.out.push(Entry::of(kept, P::clone));
    }
}
