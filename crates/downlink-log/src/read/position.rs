//! The position of a reader, and the search for holes between the position and the end of the log.
//!
//! A hole is a range of offsets from which events were evicted before the reader read them.

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
    /// A gap has already reported all missing events below this offset.
    pub(crate) reported_below: u64,
    /// The reason to put into the gap that reports the next hole.
    pub(crate) reason: GapReason,
    /// Whether the log has a store, which may keep events that memory has evicted.
    pub(crate) has_store: bool,
    /// The log's number of finish marks (`History::finishes`) when the reader last checked its
    /// topics and found an unfinished topic. A finish mark says that a topic gets no more events.
    /// While this number stays the same, the reader need not check its topics again.
    pub(crate) finishes_seen: u32,
    /// Whether the reader had nothing to read when it began: all its topics were finished, and the
    /// store had no further event for it. `None` if the reader's beginning was found without the
    /// store.
    pub(crate) at_end: Option<bool>,
    /// Tells which evicted events count as missing while the reader reads old events. `None` for a
    /// reader that reads only new events.
    pub(crate) past: Option<Box<PastLosses>>,
}

impl Position {
    /// The lowest offset whose event can be missing. Events below it were read or were reported by
    /// a gap.
    pub(crate) fn missing_from(&self) -> u64 {
        if self.has_store { self.next } else { self.next.max(self.reported_below) }
    }

    /// The last eviction that does not count for the reader. Events evicted up to this eviction are
    /// not missing, because the reader requested only the events that were still kept. `None` if
    /// every evicted event counts as missing. With a store, this is always `None`, because the
    /// reader reads from the store what memory has evicted.
    pub(crate) fn evicted_after(&self) -> Option<EvictionNumber> {
        self.past.as_ref().filter(|_| !self.has_store).and_then(|past| past.evicted)
    }

    /// Moves the position to `complete`, the offset below which everything was read. If `complete`
    /// is `None`, the position moves to the offset right after `last`, the last event that was
    /// read. The reason of all later holes is [`GapReason::Lagged`].
    pub(crate) fn advance(&mut self, last: Option<u64>, complete: Option<u64>) {
        let delivered = last.map_or(self.next, |last| last + 1);
        self.next = complete.unwrap_or(delivered);
        self.reason = GapReason::Lagged;
    }

    /// Drops `past` if the position has reached `past.until`. The caller must call this only
    /// between two looks at memory, because during a look, the position may still move back.
    pub(crate) fn leave_past(&mut self) {
        if self.past.as_ref().is_some_and(|past| past.until <= self.next) {
            self.past = None;
        }
    }

    /// The highest offset at which an event is missing for the reader, in all its topics and
    /// patterns. `None` if no event is missing.
    ///
    /// The caller must first look for the next event of each topic, and for the newest events that
    /// each pattern has noted. Only then may it call this function. In this order, the function
    /// finds every event that was evicted before the caller could see it. If an event is evicted
    /// after this call, the reader finds the hole in its next look at the latest.
    pub(crate) fn hole<P: Payload>(&self, seats: &Seats<P>) -> Option<u64> {
        let after = self.evicted_after();
        let of_patterns = seats.patterns().iter();
        let of_patterns = of_patterns.filter_map(|seat| seat.pattern.highest_evicted(after)).max();
        let earlier = self.past.as_ref().and_then(|past| past.hole);
        let hole = of_patterns.max(earlier).filter(|hole| *hole >= self.missing_from());
        hole.max(self.hole_of_topics(seats))
    }

    /// The last missing offset in the topics that the reader names.
    fn hole_of_topics<P: Payload>(&self, seats: &Seats<P>) -> Option<u64> {
        let (from, after) = (self.missing_from(), self.evicted_after());
        // If the newest offset of a topic is below the position, all evicted events of the topic
        // are below the position too. Such a topic need not be checked.
        let with_news = seats.topics.iter().filter(|seat| seat.topic.newest() >= self.next);
        let lost = with_news.map(|seat| seat.topic.ring.read().lost());
        let mut lost: SmallVec<[Lost; 3]> =
            lost.filter(|lost| lost.floor.offset.get() > from).collect();
        // A floor is the offset after the last evicted event of a topic. The loop checks the
        // highest floors first, so it usually ends early. This saves work, because each check may
        // go through all topics.
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
