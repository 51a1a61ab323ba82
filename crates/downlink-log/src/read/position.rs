//! Where a reader stands, and the holes that it meets there.

use crate::read::{Past, Seats};
use crate::types::{EvictionNumber, GapReason, Hole, Offset, Payload};

/// The reading position of one reader.
#[derive(Debug)]
pub(crate) struct Position {
    /// The next offset to read.
    pub(crate) next: u64,
    /// Gaps below this offset were already reported.
    pub(crate) reported_below: u64,
    /// Why a hole that is found now is there.
    pub(crate) reason: GapReason,
    /// Whether a store has what memory has lost.
    pub(crate) has_store: bool,
    /// Whether the reader began with an id or a position rather than with new events.
    pub(crate) asked: bool,
    /// How often a topic had been finished when not all of the reader's topics were.
    pub(crate) finishes_seen: u32,
    pub(crate) past: Option<Box<Past>>,
}

impl Position {
    /// What is lost in memory from here on is missing, or in the store.
    pub(crate) fn missing_from(&self) -> u64 {
        if self.has_store { self.next } else { self.next.max(self.reported_below) }
    }

    /// Evictions up to this one do not count. With a store they do: it has what memory evicted.
    pub(crate) fn evicted_after(&self) -> Option<EvictionNumber> {
        self.past.as_ref().filter(|_| !self.has_store).and_then(|past| past.evicted)
    }

    /// Moves on: behind the last event that was read, or to `complete` if everything below was.
    pub(crate) fn advance(&mut self, last: Option<u64>, complete: Option<u64>) {
        let delivered = last.map_or(self.next, |last| last + 1);
        self.next = complete.unwrap_or(delivered);
        self.reason = GapReason::Lagged;
        if self.past.as_ref().is_some_and(|past| past.until <= self.next) {
            self.past = None;
        }
    }

    /// The hole between here and the tail, in everything that the reader reads.
    ///
    /// The caller has looked at the rings and rows before, so what was evicted after that is found by
    /// the next look at the latest.
    pub(crate) fn hole<P: Payload>(&self, seats: &Seats<P>) -> Option<Hole> {
        let (from, after) = (self.missing_from(), self.evicted_after());
        let mut holes = self.hole_of_topics(seats);
        for seat in seats.patterns() {
            let highest = seat.pattern.highest_evicted(after).filter(|highest| *highest >= from);
            let hole = highest.map(|highest| Hole {
                below: Offset::new(highest + 1),
                until: Offset::new(highest),
            });
            holes = max(holes, hole);
        }
        let earlier = self.past.as_ref().and_then(|past| past.hole);
        max(holes, earlier.filter(|hole| hole.below.get() > from))
    }

    /// The same in the topics that it names.
    fn hole_of_topics<P: Payload>(&self, seats: &Seats<P>) -> Option<Hole> {
        let (from, after) = (self.missing_from(), self.evicted_after());
        let mut holes = None;
        for seat in &seats.topics {
            // A ring with nothing at or above the cursor has no floor above it either.
            if seat.topic.newest() < self.next {
                continue;
            }
            let lost = seat.topic.ring.read().lost();
            let is_elsewhere = |offset| {
                let others = seats
                    .topics
                    .iter()
                    .filter(|other| !std::ptr::eq(*other, seat) && other.topic.newest() >= offset);
                others.into_iter().any(|other| other.topic.ring.read().get(offset).is_some())
            };
            holes = max(holes, lost.hole(from, after, is_elsewhere));
        }
        holes
    }
}

fn max(a: Option<Hole>, b: Option<Hole>) -> Option<Hole> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}
