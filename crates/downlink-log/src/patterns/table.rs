//! The table of all patterns of a log. It finds the patterns that match a topic's name.
//!
//! A thread that appends or evicts an event holds the read lock of the table until the change is
//! noted in the matching patterns. A reader that adds a pattern holds the write lock. So each
//! change is either noted in the new pattern, or was complete before the pattern was added. In the
//! second case, the reader finds the change in the topics.

use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use crate::patterns::Pattern;
use crate::readers::ReaderState;
use crate::sync::{RwLock, RwLockReadGuard};
use crate::topics::{Lost, Topic};
use crate::types::{Address, EvictionNumber, OpenError, PatternTrie, Payload, TopicSelector};

/// The patterns that match one topic. Most topics have one or two.
pub(crate) type Matching<P> = SmallVec<[Arc<Pattern<P>>; 2]>;

#[derive(Debug)]
pub(crate) struct Patterns<P> {
    /// A ring holds the events of one topic. A thread that holds the lock of a ring must not take
    /// this lock.
    table: RwLock<PatternTable<P>>,
    patterns_max: usize,
}

#[derive(Debug)]
struct PatternTable<P> {
    patterns: PatternTrie<Arc<Pattern<P>>>,
    /// The number of times that a pattern was added or removed.
    version: u64,
}

/// The patterns that match a topic. The topic's ring stores this value, so that an append to the
/// topic need not search the table.
#[derive(Debug)]
struct MatchingPatterns<P> {
    version: u64,
    /// The references are weak, because a pattern's rows have strong references to topics. Strong
    /// references in both directions would form a cycle, which is never freed.
    patterns: SmallVec<[Weak<Pattern<P>>; MATCHING_MAX]>,
}

/// A topic with more matching patterns than this stores none of them. Most topics have one or two
/// matching patterns. Without this limit, a topic that a thousand patterns match would need 8 KiB
/// to store them.
const MATCHING_MAX: usize = 2;

/// A seat: one reader's place in the list of readers of one pattern. `key` identifies the reader in
/// this list.
#[derive(Debug)]
pub(crate) struct PatternSeat<P> {
    pub(crate) pattern: Arc<Pattern<P>>,
    key: u32,
}

/// The seats of one reader: one for each pattern that it named. Most readers with patterns name
/// only one pattern.
pub(crate) type PatternSeats<P> = SmallVec<[PatternSeat<P>; 1]>;

/// The table with its read lock held.
pub(crate) struct Held<'a, P>(RwLockReadGuard<'a, PatternTable<P>>);

impl<P: Payload> Patterns<P> {
    pub(crate) fn new(patterns_max: usize) -> Self {
        let table = PatternTable { patterns: PatternTrie::new(), version: 0 };
        Self { table: RwLock::new(table), patterns_max }
    }

    /// Takes the read lock. No pattern is added or removed until the guard is dropped.
    pub(crate) fn hold(&self) -> Held<'_, P> {
        Held(self.table.read())
    }

    /// Notes the losses of a topic in the patterns that match it. The losses say up to which offset
    /// the topic's events were evicted. Called while the topic is created or removed from memory.
    pub(crate) fn note_lost(&self, address: &Address, lost: Lost) {
        let last = lost.floor.offset.get() - 1;
        self.hold().note_eviction(address, lost.number, last);
    }

    /// Adds a reader to the lists of its patterns. A pattern that [has not
    /// begun](Pattern::has_begun) is new. The caller must then call [`begin`](Pattern::begin) on
    /// it, while it holds the sequence lock, which every append takes.
    ///
    /// # Errors
    ///
    /// [`OpenError::TooManyPatterns`]. The reader is then on none of the lists.
    pub(crate) fn enter(
        &self,
        patterns: &[TopicSelector],
        reader: &Arc<ReaderState>,
    ) -> Result<PatternSeats<P>, OpenError> {
        let mut table = self.table.write();
        let mut seats = PatternSeats::with_capacity(patterns.len());
        for selector in patterns {
            let new = || Arc::new(Pattern::new(selector.clone()));
            let before = table.patterns.len();
            let pattern = Arc::clone(table.patterns.get_or_insert_with(selector, new));
            table.version += u64::from(table.patterns.len() > before);
            let key = pattern.readers.lock().insert(Arc::clone(reader));
            seats.push(PatternSeat { pattern, key });
            if table.patterns.len() > self.patterns_max {
                leave(&mut table, &seats);
                return Err(OpenError::TooManyPatterns { patterns_max: self.patterns_max });
            }
        }
        Ok(seats)
    }

    /// Removes a reader from the lists of its patterns, and removes the patterns that no other
    /// reader has.
    pub(crate) fn leave(&self, seats: &[PatternSeat<P>]) {
        leave(&mut self.table.write(), seats);
    }
}

fn leave<P>(table: &mut PatternTable<P>, seats: &[PatternSeat<P>]) {
    for seat in seats {
        let mut readers = seat.pattern.readers.lock();
        readers.remove(seat.key);
        if readers.is_empty() {
            table.patterns.remove(&seat.pattern.selector);
            table.version += 1;
        }
    }
}

impl<P: Payload> Held<'_, P> {
    /// The patterns that match a topic. The caller must not hold the lock of a ring.
    pub(crate) fn matching(&self, topic: &Topic<P>) -> Matching<P> {
        if self.0.patterns.len() == 0 {
            return Matching::new();
        }
        if let Some(matching) = self.remembered(topic) {
            return matching;
        }
        self.find(topic)
    }

    #[cold]
    fn find(&self, topic: &Topic<P>) -> Matching<P> {
        let mut matching = Matching::new();
        self.each_match(&topic.address, |pattern| matching.push(Arc::clone(pattern)));
        if !matching.is_empty() && matching.len() <= MATCHING_MAX {
            let patterns = matching.iter().map(Arc::downgrade).collect();
            let remembered = Box::new(MatchingPatterns { version: self.0.version, patterns });
            topic.ring.write().set_matching(remembered);
        }
        matching
    }

    fn remembered(&self, topic: &Topic<P>) -> Option<Matching<P>> {
        let ring = topic.ring.read();
        let remembered: &MatchingPatterns<P> = ring.matching()?;
        let is_true = remembered.version == self.0.version;
        is_true.then(|| remembered.patterns.iter().filter_map(Weak::upgrade).collect())
    }

    /// Notes an eviction in the patterns that match the topic.
    pub(crate) fn note_eviction(&self, address: &Address, number: EvictionNumber, offset: u64) {
        self.each_match(address, |pattern| pattern.note_eviction(number, offset));
    }

    /// Notes a loss in the patterns that match the topic.
    pub(crate) fn note_loss(&self, address: &Address, number: EvictionNumber, offset: u64) {
        self.each_match(address, |pattern| pattern.note_loss(number, offset));
    }

    /// Adds the patterns that match an address to `matching`.
    pub(crate) fn add_matching(&self, address: &Address, matching: &mut Matching<P>) {
        self.each_match(address, |pattern| matching.push(Arc::clone(pattern)));
    }

    /// Notes a loss in all patterns.
    pub(crate) fn note_loss_of_all(&self, number: EvictionNumber, offset: u64) {
        self.0.patterns.each(|pattern| pattern.note_loss(number, offset));
    }

    fn each_match(&self, address: &Address, mut visit: impl FnMut(&Arc<Pattern<P>>)) {
        if let Some(topic) = address.topic() {
            self.0.patterns.each_match(topic.as_str(), |pattern| {
                visit(pattern);
                true
            });
        }
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::topics::Kept;
    use crate::types::{Timestamp, address};

    fn reader(number: u64) -> Arc<ReaderState> {
        Arc::new(ReaderState::new(number, None, 1, Default::default()))
    }

    fn enter(patterns: &Patterns<&'static str>, selector: &str) -> PatternSeats<&'static str> {
        let selector = TopicSelector::parse(selector).expect("a selector");
        patterns.enter(&[selector], &reader(1)).expect("within the limits")
    }

    /// A topic with an event, because a topic without events does not store patterns.
    fn topic(name: &str) -> Arc<Topic<&'static str>> {
        let name = Address::Topic(address::Topic::new(name).expect("a name"));
        let topic = Topic::new(name, Lost::NOTHING);
        topic.ring.write().push(Kept { offset: 1, at: Timestamp::default(), payload: "" });
        topic
    }

    fn matching(patterns: &Patterns<&'static str>, topic: &Topic<&'static str>) -> Vec<String> {
        let matching = patterns.hold().matching(topic);
        let mut found: Vec<String> =
            matching.iter().map(|pattern| pattern.selector.as_str().to_owned()).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_topic_stores_its_patterns_until_a_pattern_is_added_or_removed() {
        let (patterns, topic) = (Patterns::new(9), topic("a/b"));
        assert_eq!(matching(&patterns, &topic), [""; 0]);
        let first = enter(&patterns, "a/*");
        assert_eq!(matching(&patterns, &topic), ["a/*"]);
        assert!(patterns.hold().remembered(&topic).is_some());
        let second = enter(&patterns, "{x}/b");
        assert_eq!(matching(&patterns, &topic), ["a/*", "{x}/b"]);
        patterns.leave(&first);
        assert_eq!(matching(&patterns, &topic), ["{x}/b"]);
        // A second reader of a pattern does not change the table, so the topic keeps the patterns
        // that it has stored.
        let third = enter(&patterns, "{x}/b");
        assert!(patterns.hold().remembered(&topic).is_some());
        patterns.leave(&second);
        assert_eq!(matching(&patterns, &topic), ["{x}/b"]);
        patterns.leave(&third);
        assert_eq!(matching(&patterns, &topic), [""; 0]);
    }

    #[test]
    fn a_topic_that_many_patterns_match_stores_none_of_them() {
        let (patterns, topic) = (Patterns::new(9), topic("a/b"));
        let _seats = ["*", "a/*", "a/b/*", "a/{x}"].map(|selector| enter(&patterns, selector));
        assert_eq!(matching(&patterns, &topic), ["*", "a/*", "a/{x}"]);
        assert!(patterns.hold().remembered(&topic).is_none());
    }

    /// The rows of a pattern have strong references to its topics, so a topic must not have strong
    /// references to patterns.
    #[test]
    fn a_removed_pattern_is_freed_although_a_topic_stores_it() {
        let (patterns, topic) = (Patterns::new(9), topic("a/b"));
        let seats = enter(&patterns, "a/*");
        let pattern = Arc::downgrade(&seats[0].pattern);
        assert_eq!(matching(&patterns, &topic), ["a/*"]);
        seats[0].pattern.push(1, &topic);
        patterns.leave(&seats);
        drop(seats);
        assert!(pattern.upgrade().is_none());
    }
}
