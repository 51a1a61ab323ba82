//! The seats of one reader.
//!
//! A seat is the reader's entry in the list of readers of one topic or pattern. A reader has a seat
//! for each topic and pattern that it named, for its client's inbox, and for everyone's topic,
//! which has the address [`Address::Everyone`]. The seats do not change until the reader leaves.

use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use crate::history::IndexRow;
use crate::patterns::{PatternSeat, PatternSeats};
use crate::store::Wanted;
use crate::topics::{Topic, TopicSeat, TopicSeats};
use crate::types::{Address, PatternSet, Payload};

/// A reader with more patterns than this keeps the [`PatternSet`] that was made when the reader was
/// opened, because making a large set again takes a long time.
const SET_KEPT_FROM: usize = 8;

#[derive(Debug)]
pub(crate) struct Seats<P> {
    /// Invariant: sorted by [`Topic::identity`], so that `mine` can find a topic with a binary
    /// search.
    pub(crate) topics: TopicSeats<P>,
    /// `None` for most readers, because they name only topics.
    patterns: Option<Box<NamedPatterns<P>>>,
}

#[derive(Debug)]
struct NamedPatterns<P> {
    seats: PatternSeats<P>,
    /// The patterns as one set. A reader needs the set only to read events that are older than the
    /// events that its patterns have noted. A reader of few patterns makes the set when it first
    /// needs it.
    set: OnceLock<Arc<PatternSet>>,
}

impl<P: Payload> Seats<P> {
    pub(crate) fn new(
        mut topics: TopicSeats<P>,
        patterns: PatternSeats<P>,
        set: PatternSet,
    ) -> Self {
        topics.sort_unstable_by_key(|seat| seat.topic.identity());
        // Most readers never need the set, and a set of few patterns is quickly made again. So such
        // a set is dropped to save memory.
        let is_worth_keeping = patterns.len() > SET_KEPT_FROM;
        let set = if is_worth_keeping { OnceLock::from(Arc::new(set)) } else { OnceLock::new() };
        let some = |seats| Box::new(NamedPatterns { seats, set });
        Self { topics, patterns: (!patterns.is_empty()).then_some(patterns).map(some) }
    }

    pub(crate) fn patterns(&self) -> &[PatternSeat<P>] {
        self.patterns.as_ref().map_or(&[], |patterns| &patterns.seats)
    }

    /// Takes all seats, so that the reader can be removed from the lists of readers.
    pub(crate) fn take(&mut self) -> (TopicSeats<P>, PatternSeats<P>) {
        let patterns = self.patterns.take().map(|patterns| patterns.seats);
        (std::mem::take(&mut self.topics), patterns.unwrap_or_default())
    }

    /// The patterns as a set, to match the names of topics.
    pub(crate) fn set(&self) -> Arc<PatternSet> {
        let of = |patterns: &NamedPatterns<P>| {
            let selectors = patterns.seats.iter().map(|seat| seat.pattern.selector.clone());
            Arc::new(PatternSet::new(selectors))
        };
        match &self.patterns {
            Some(patterns) => Arc::clone(patterns.set.get_or_init(|| of(patterns))),
            None => Arc::new(PatternSet::new([])),
        }
    }

    /// The topics and patterns, in the form that a request to the store needs.
    pub(crate) fn wanted(&self) -> Wanted {
        let addresses = self.topics.iter().map(|seat| seat.topic.address.clone());
        Wanted { addresses: addresses.collect(), patterns: self.set() }
    }

    /// The seats of the topics that the reader named. The seats in its inbox and in everyone's
    /// topic are not included.
    pub(crate) fn named(&self) -> impl Iterator<Item = &TopicSeat<P>> {
        self.topics.iter().filter(|seat| seat.topic.address.topic().is_some())
    }

    /// Whether the reader names at least one topic and no pattern, and all topics that it names are
    /// finished.
    pub(crate) fn all_finished(&self) -> bool {
        let mut named = self.named().peekable();
        self.patterns.is_none()
            && named.peek().is_some()
            && named.all(|seat| seat.topic.finished().is_some())
    }

    /// The newest offset of all topics and patterns that the reader reads.
    pub(crate) fn newest(&self) -> u64 {
        let topics = self.topics.iter().map(|seat| seat.topic.newest());
        let patterns = self.patterns().iter().map(|seat| seat.pattern.newest());
        topics.chain(patterns).max().unwrap_or(0)
    }

    /// Returns only those topics of an event that the reader reads. The number of steps of this
    /// search is added to `nodes`.
    pub(crate) fn mine<'a>(&self, row: &'a IndexRow<P>, nodes: &mut usize) -> Mine<'a, P> {
        let set = self.patterns.is_some().then(|| self.set());
        let identity = |seat: &TopicSeat<P>| seat.topic.identity();
        let mut mine = Mine::new();
        for topic in &row.topics {
            *nodes += 1;
            let by_pattern = match (&set, &topic.address) {
                (Some(set), Address::Topic(name)) => set.matches_counting(name.as_str(), nodes),
                _ => false,
            };
            if by_pattern || self.topics.binary_search_by_key(&topic.identity(), identity).is_ok() {
                mine.push(topic);
            }
        }
        mine
    }
}

/// Of the topics of one event, those that a reader reads. There is nearly always only one such
/// topic.
pub(crate) type Mine<'a, P> = SmallVec<[&'a Arc<Topic<P>>; 1]>;
