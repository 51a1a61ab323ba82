//! The position of a reader, and the holes between it and the tail.

use std::cmp::Reverse;

use smallvec::SmallVec;

use crate::read::{PastLosses, Seats};
use crate::topics::{Lost, Topic};
use crate::types::{EvictionNumber, GapReason, Payload};

/// The reading position of one reader.
#[derive(Debug)]
pub(crate) struct Position {
    /// The next offset to read.
    pub(crate) next: u64,
    /// Gaps below this offset were already reported.
    pub(crate) reported_below: u64,
    /// The reason to report for a hole that is found now.
    pub(crate) reason: GapReason,
    /// Whether a store has what memory has lost.
    pub(crate) has_store: bool,
    /// The log's count of finished topics when the reader last saw an unfinished one among its own.
    pub(crate) finishes_seen: u32,
    /// Whether its finished topics have nothing more for it, as a store said when it began.
    pub(crate) at_end: Option<bool>,
    pub(crate) past: Option<Box<PastLosses>>,
}

impl Position {
    /// The first offset whose loss counts as a hole: lower ones were read or reported.
    pub(crate) fn missing_from(&self) -> u64 {
        if self.has_store { self.next } else { self.next.max(self.reported_below) }
    }

    /// Evictions up to this one do not count. With a store all count, because the store may have
    /// the events.
    pub(crate) fn evicted_after(&self) -> Option<EvictionNumber> {
        self.past.as_ref().filter(|_| !self.has_store).and_then(|past| past.evicted)
    }

    /// Moves on: behind the last event that was read, or to `complete` if everything below was.
    pub(crate) fn advance(&mut self, last: Option<u64>, complete: Option<u64>) {
        let delivered = last.map_or(self.next, |last| last + 1);
        self.next = complete.unwrap_or(delivered);
        self.reason = GapReason::Lagged;
    }

    /// Drops the past once the reader is beyond it. Called between looks, because a position may
    /// move back within a look.
    pub(crate) fn leave_past(&mut self) {
        if self.past.as_ref().is_some_and(|past| past.until <= self.next) {
            self.past = None;
        }
    }

    /// The last offset of the hole between here and the tail, in everything that the reader reads.
    ///
    /// The caller has looked at the rings and rows before. The next look finds later evictions at
    /// the latest.
    pub(crate) fn hole<P: Payload>(&self, seats: &Seats<P>) -> Option<u64> {
        let after = self.evicted_after();
        let of_patterns = seats.patterns().iter();
        let of_patterns = of_patterns.filter_map(|seat| seat.pattern.highest_evicted(after)).max();
        let earlier = self.past.as_ref().and_then(|past| past.hole);
        let hole = of_patterns.max(earlier).filter(|hole| *hole >= self.missing_from());
        hole.max(self.hole_of_topics(seats))
    }

    /// The same in the topics that it names.
    fn hole_of_topics<P: Payload>(&self, seats: &Seats<P>) -> Option<u64> {
        let (from, after) = (self.missing_from(), self.evicted_after());
        // A ring with nothing at or above the cursor has no floor above it either.
        let with_news = seats.topics.iter().filter(|seat| seat.topic.newest() >= self.next);
        let lost = with_news.map(|seat| seat.topic.ring.read().lost());
        let mut lost: SmallVec<[Lost; 3]> =
            lost.filter(|lost| lost.floor.offset.get() > from).collect();
        // Highest first. Each check may look at all topics, and most losses are below the first
        // hole.
        lost.sort_unstable_by_key(|lost| Reverse(lost.floor.offset));
        let mut hole = None;
        for lost in lost {
            if hole >= Some(lost.floor.offset.get() - 1) {
                break;
            }
            let keeps = |topic: &Topic<P>, offset| {
                topic.newest() >= offset && topic.ring.read().get(offset).is_some()
            };
            let is_elsewhere = |offset| seats.topics.iter().any(|seat| keeps(&seat.topic, offset));
            hole = hole.max(lost.hole(from, after, is_elsewhere));
        }
        hole
    }
}
