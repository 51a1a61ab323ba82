//! The history of all topics: it stores events, finds them and evicts them. Each topic has a ring,
//! which holds the topic's events.
//!
//! The tail is the next offset that readers will see. A pushed event becomes visible when the tail
//! rises above its offset. The index has a row for each event, with the event's topics. When an
//! event is evicted, the eviction is first noted in each pattern that matches the event's topic.
//! Only then may the event's row be removed from the index. So a reader that no longer finds the
//! row finds the eviction in its patterns.

use std::sync::Arc;

use crate::history::{Ages, Backlog, EventTopics, Evicted, Index, IndexRow, Unreadable};
use crate::patterns::{Held, Matching, Patterns};
use crate::store::Finished;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, RwLock};
use crate::topics::{Kept, Lost, Ring, Topic, Topics};
use crate::types::{
    Address, EvictionNumber, Floor, LogOptions, Offset, Payload, Retention, RetentionRules,
    Timestamp,
};

/// The maximum number of topics that one step of eviction by age checks, and the maximum number of
/// events that the step evicts. A step takes about a millisecond. A call does at most one step, so
/// no publisher waits long when events of a hundred thousand topics become too old at the same
/// time. With half this number, a log that gets few calls would evict too slowly.
const EXPIRE_STEP: usize = 128;

#[derive(Debug)]
pub(crate) struct History<P> {
    pub(crate) options: Arc<LogOptions>,
    pub(crate) topics: Topics<P>,
    pub(crate) patterns: Patterns<P>,
    /// The retention rules for the rings. A ring gets its rule together with its first event or
    /// finish mark. After the rules have changed, [`retain_step`](Self::retain_step) gives each
    /// ring its new rule. A thread may take this lock while it holds the lock of a ring, but not
    /// the reverse.
    rules: RwLock<Arc<RetentionRules>>,
    /// The next offset to become visible. The tail is stored (Release) after all events below the
    /// tail were pushed into their topics' rings and noted in the matching patterns. So a reader
    /// that loads the tail (Acquire) finds all these events there.
    tail: AtomicU64,
    /// No topic that exists or existed has a floor above this offset. The floor of a topic is the
    /// offset after its last evicted event. `floor_max` is raised (AcqRel) before the row of an
    /// evicted event is removed from the index.
    floor_max: AtomicU64,
    /// No evicted event has a later time stamp than this, in milliseconds. It is raised (AcqRel)
    /// together with `floor_max`.
    evicted_at_max: AtomicU64,
    /// The number of the newest eviction. It is incremented (AcqRel) while the ring of the evicted
    /// event is locked.
    evictions: AtomicU64,
    /// The offset of the newest event in any inbox. An inbox is the topic of one client. This
    /// offset is raised (AcqRel) before the tail moves. A reader's cursor is the next offset that
    /// it reads. If the newest offset of the inboxes is below the cursor, the reader's inbox has no
    /// event to read. If, in addition, `floor_max` is not above the cursor, the inbox has no
    /// missing event. Then a reader that has loaded the tail need not look at its inbox.
    newest_of_inboxes: AtomicU64,
    /// The number of finish marks set so far. A finish mark says that a topic gets no more events.
    /// A publisher first sets the topic's finish mark, then increments this count (Release), and
    /// then stores the tail. A reader loads the count (Acquire) before it checks its topics. So a
    /// reader that sees a tail above a finish mark also sees the new count. A reader that sees the
    /// new count also sees the mark.
    finishes: AtomicU32,
    /// Three numbers: the bytes in all rings, the events in all rings, and the topics that count
    /// towards the limit of topics (see [`Ring::is_filled`]). Each number changes while the ring
    /// that causes the change is locked. No other data depends on these numbers, so Relaxed is
    /// enough. A thread that reads them without a lock may see old values.
    bytes: AtomicUsize,
    events: AtomicUsize,
    filled: AtomicUsize,
    /// The number of events that were published to this log. Relaxed is enough, because the number
    /// is only shown.
    published: AtomicU64,
    /// A thread that holds the lock of a ring must not take this lock.
    index: Mutex<Index<P>>,
    ages: Ages<P>,
    /// The newest events, for the feeds of the log.
    pub(crate) backlog: Backlog<P>,
    /// In a replica, which is a log that copies another log, the events that could not be decoded.
    pub(crate) unreadable: Unreadable,
}

/// An event or finish mark to push into its topics. The caller has reserved the topics' rings, so
/// no topic is removed from memory before the push.
pub(crate) struct Pushed<'a, P> {
    pub(crate) offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) payload: Option<P>,
    pub(crate) topics: &'a EventTopics<P>,
    /// For each topic, the patterns that match it. The table of patterns was locked before these
    /// patterns were found, and is still locked.
    pub(crate) patterns: &'a [Matching<P>],
    pub(crate) finish: bool,
}

impl<P: Payload> History<P> {
    /// An empty history whose next offset is `next`.
    pub(crate) fn new(options: LogOptions, next: Offset) -> Self {
        Self::after(options, next, None)
    }

    /// An empty history that replaces `before`. It continues the numbers of readers and of
    /// published events.
    pub(crate) fn after(options: LogOptions, next: Offset, before: Option<&Self>) -> Self {
        let options = Arc::new(options);
        let reader_number = before.map_or(1, |before| before.topics.next_reader_number());
        Self {
            topics: Topics::new(Arc::clone(&options), reader_number),
            patterns: Patterns::new(options.limits.patterns_max),
            rules: RwLock::new(Arc::new(options.retention.clone())),
            options,
            tail: AtomicU64::new(next.get()),
            floor_max: AtomicU64::new(Offset::FIRST.get()),
            evicted_at_max: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            newest_of_inboxes: AtomicU64::new(0),
            finishes: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
            published: AtomicU64::new(before.map_or(0, Self::published)),
            index: Mutex::new(Index::new()),
            ages: Ages::new(),
            backlog: Backlog::new(),
            unreadable: Unreadable::new(),
        }
    }

    /// Takes three things over from `before`, the history that this one replaces: the numbers of
    /// readers, the number of published events, and the retention rules.
    pub(crate) fn continue_from(&self, before: &Self) {
        *self.rules.write() = before.rules();
        self.topics.continue_numbers(before.topics.next_reader_number());
        self.published.store(before.published(), Ordering::Relaxed);
    }

    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Makes all events below an offset visible. The caller must have pushed them. The caller must
    /// also hold the sequence lock, so that no other thread appends at the same time.
    pub(crate) fn set_tail(&self, tail: u64) {
        self.tail.store(tail, Ordering::Release);
    }

    pub(crate) fn floor_max(&self) -> u64 {
        self.floor_max.load(Ordering::Acquire)
    }

    /// No evicted event has a later time stamp than this.
    pub(crate) fn evicted_at_max(&self) -> Timestamp {
        Timestamp::from_millis(self.evicted_at_max.load(Ordering::Acquire))
    }

    pub(crate) fn newest_eviction(&self) -> EvictionNumber {
        EvictionNumber::new(self.evictions.load(Ordering::Acquire))
    }

    pub(crate) fn newest_of_inboxes(&self) -> u64 {
        self.newest_of_inboxes.load(Ordering::Acquire)
    }

    /// The number of finish marks set so far. A reader whose topics were not all finished checks
    /// them again only after this number has changed.
    pub(crate) fn finishes(&self) -> u32 {
        self.finishes.load(Ordering::Acquire)
    }

    /// The number of kept events, and the number of their bytes.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.events.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Counts a published event. A finish mark without an event does not count.
    pub(crate) fn note_published(&self, is_event: bool) {
        self.published.fetch_add(u64::from(is_event), Ordering::Relaxed);
    }

    /// The number of events published since the log began. Events restored from a store do not
    /// count.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// The number of topics that count towards the limit of topics.
    pub(crate) fn filled(&self) -> usize {
        self.filled.load(Ordering::Relaxed)
    }

    /// The topic of an address. If the topic does not exist, it is created.
    pub(crate) fn topic(&self, address: &Address) -> Arc<Topic<P>> {
        self.topics.find_or_create(address, |address, lost| self.patterns.note_lost(address, lost))
    }

    /// Reserves a topic for a push, so that the topic is not collected (removed from memory) before
    /// the push. Returns `false` if the topic was already collected.
    pub(crate) fn reserve(&self, topic: &Topic<P>) -> bool {
        let mut ring = topic.ring.write();
        self.change(topic, &mut ring, |ring| ring.reserve())
    }

    /// Ends a reservation without a push.
    pub(crate) fn unreserve(&self, topic: &Topic<P>) {
        let mut ring = topic.ring.write();
        self.change(topic, &mut ring, |ring| ring.unreserve());
    }

    /// Calls `change` with a ring, and then updates the number of topics that count towards the
    /// limit.
    pub(super) fn change<R>(
        &self,
        topic: &Topic<P>,
        ring: &mut Ring<P>,
        change: impl FnOnce(&mut Ring<P>) -> R,
    ) -> R {
        let before = ring.is_filled();
        let result = change(ring);
        let counts = topic.address != Address::Everyone;
        match (before, ring.is_filled()) {
            (false, true) if counts => drop(self.filled.fetch_add(1, Ordering::Relaxed)),
            (true, false) if counts => drop(self.filled.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        result
    }

    /// Pushes an event into its topics, and records it in the matching patterns.
    pub(crate) fn push(&self, event: Pushed<'_, P>, evicted: &mut Evicted<P>) {
        let Pushed { offset, at, mut payload, topics, patterns, finish } = event;
        if payload.is_some() {
            self.index.lock().push(IndexRow { offset, at, topics: topics.clone() });
        }
        for ((left, topic), patterns) in (0..topics.len()).rev().zip(topics).zip(patterns) {
            let payload = if left == 0 { payload.take() } else { payload.clone() };
            let mut ring = topic.ring.write();
            if let Some(payload) = payload {
                let cost = ring.push(Kept { offset, at, payload });
                self.bytes.fetch_add(cost, Ordering::Relaxed);
                self.events.fetch_add(1, Ordering::Relaxed);
                topic.set_newest(offset);
                if topic.is_inbox() {
                    self.newest_of_inboxes.fetch_max(offset, Ordering::AcqRel);
                }
                for pattern in patterns {
                    pattern.push(offset, topic);
                }
            }
            if finish {
                ring.set_finish(Some(Finished { offset: Offset::new(offset), at }));
                topic.set_finished(true);
                self.finishes.fetch_add(1, Ordering::Release);
            }
            self.give_rule(topic, &mut ring);
            // The reservation ends only after the push, so that the topic counts towards the limit
            // of topics all the time.
            self.change(topic, &mut ring, |ring| ring.unreserve());
            self.trim(patterns, topic, &mut ring, evicted);
            self.queue_age(topic, &ring);
        }
    }

    /// Evicts the oldest entry of a ring. Returns `false` if the ring is empty. `patterns` are all
    /// patterns that match the topic.
    pub(super) fn evict_one(
        &self,
        patterns: &Matching<P>,
        topic: &Arc<Topic<P>>,
        ring: &mut Ring<P>,
        evicted: &mut Evicted<P>,
    ) -> bool {
        let number = || EvictionNumber::new(self.evictions.fetch_add(1, Ordering::AcqRel) + 1);
        let Some(entry) = self.change(topic, ring, |ring| ring.evict(number)) else {
            return false;
        };
        let lost = ring.lost();
        self.floor_max.fetch_max(lost.floor.offset.get(), Ordering::AcqRel);
        self.evicted_at_max.fetch_max(entry.at.as_millis(), Ordering::AcqRel);
        patterns.iter().for_each(|pattern| pattern.note_eviction(lost.number, entry.offset));
        self.bytes.fetch_sub(entry.cost(), Ordering::Relaxed);
        self.events.fetch_sub(1, Ordering::Relaxed);
        evicted.entries.push(entry);
        if !ring.is_filled() {
            evicted.emptied.push(Arc::clone(topic));
        }
        true
    }

    /// Evicts events until the ring is within the number and the bytes that its retention rule
    /// allows. The newest event always stays.
    fn trim(
        &self,
        patterns: &Matching<P>,
        topic: &Arc<Topic<P>>,
        ring: &mut Ring<P>,
        evicted: &mut Evicted<P>,
    ) {
        let Some(&rule) = ring.rule() else { return };
        while ring.exceeds(&rule) {
            self.evict_one(patterns, topic, ring, evicted);
        }
    }

    /// The rules that are in force.
    pub(crate) fn rules(&self) -> Arc<RetentionRules> {
        Arc::clone(&self.rules.read())
    }

    /// Replaces the rules. Returns `false` if the rules in force are the same. Otherwise the caller
    /// must call [`retain_step`](Self::retain_step) for each topic, because the rings of topics
    /// with history still have their old rules.
    pub(crate) fn set_rules(&self, rules: RetentionRules) -> bool {
        let mut current = self.rules.write();
        let is_new = **current != rules;
        if is_new {
            *current = Arc::new(rules);
        }
        is_new
    }

    /// Gives a ring its rule after its first event or finish mark.
    fn give_rule(&self, topic: &Topic<P>, ring: &mut Ring<P>) {
        if ring.rules().is_none() {
            ring.follow(self.rules(), &topic.address);
        }
    }

    /// Brings a topic within the rules in force, in one bounded step, and then gives its ring the
    /// new rule. Until then, the ring keeps its old rule, so no publish to the topic has to evict
    /// the many events that the new rule no longer allows. Returns the evicted events, and whether
    /// the ring has its new rule.
    pub(crate) fn retain_step(&self, topic: &Arc<Topic<P>>) -> (Evicted<P>, bool) {
        let mut evicted = Evicted::new();
        let held = self.patterns.hold();
        let patterns = held.matching(topic);
        let mut ring = topic.ring.write();
        let rules = self.rules();
        let rule: Retention = *rules.of(&topic.address);
        while evicted.entries.len() < EXPIRE_STEP && ring.exceeds(&rule) {
            self.evict_one(&patterns, topic, &mut ring, &mut evicted);
        }
        let is_within = !ring.exceeds(&rule);
        if is_within {
            ring.follow(rules, &topic.address);
        }
        self.queue_age(topic, &ring);
        drop(ring);
        drop(held);
        self.tidy_index();
        (evicted, is_within)
    }

    /// Evicts events until the log is within its limit of bytes. It first evicts old events of the
    /// topics in `appended_to`, which have just got an event, and then the oldest events of all
    /// topics. It evicts no event at or above the offset `newest`.
    pub(crate) fn trim_all<'a>(
        &'a self,
        held: &Held<'_, P>,
        appended_to: impl Iterator<Item = &'a Arc<Topic<P>>>,
        newest: u64,
        evicted: &mut Evicted<P>,
    ) {
        if !self.is_over() {
            return;
        }
        for topic in appended_to {
            let patterns = held.matching(topic);
            let mut ring = topic.ring.write();
            while self.is_over() && ring.front().is_some_and(|entry| entry.offset < newest) {
                self.evict_one(&patterns, topic, &mut ring, evicted);
            }
            self.queue_age(topic, &ring);
        }
        while self.is_over() && self.evict_oldest(held, newest, evicted) {}
    }

    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.options.limits.bytes_max
    }

    /// Evicts the oldest event below `newest` from all of its topics.
    fn evict_oldest(&self, held: &Held<'_, P>, newest: u64, evicted: &mut Evicted<P>) -> bool {
        let oldest = self.index.lock().front().filter(|row| row.offset < newest).cloned();
        let Some(row) = oldest else { return false };
        for topic in &row.topics {
            let patterns = held.matching(topic);
            let mut ring = topic.ring.write();
            while ring.front().is_some_and(|entry| entry.offset <= row.offset) {
                self.evict_one(&patterns, topic, &mut ring, evicted);
            }
            self.queue_age(topic, &ring);
        }
        // The evictions are already noted in the patterns, so a reader that no longer finds the row
        // finds the evictions.
        let popped = self.index.lock().pop_front(row.offset);
        drop(popped);
        true
    }

    /// Does one step of eviction by age, if a deadline has passed: evicts events and finish marks
    /// that are too old.
    pub(crate) fn expire(&self, now: Timestamp) -> Option<Evicted<P>> {
        self.expire_by(|| now)
    }

    /// Like [`expire`](Self::expire), but calls `now` only if the log has an event or a finish mark
    /// that will become too old.
    pub(crate) fn expire_by(&self, now: impl FnOnce() -> Timestamp) -> Option<Evicted<P>> {
        if !self.ages.has_any() {
            return None;
        }
        let now = now();
        self.ages.is_due(now).then(|| self.expire_step(now))
    }

    fn expire_step(&self, now: Timestamp) -> Evicted<P> {
        let mut evicted = Evicted::new();
        let held = self.patterns.hold();
        for _ in 0..EXPIRE_STEP {
            if evicted.entries.len() >= EXPIRE_STEP {
                break;
            }
            let Some((at, topic)) = self.ages.pop_due(now) else { break };
            self.expire_topic(&held, at, &topic, now, &mut evicted);
        }
        drop(held);
        self.tidy_index();
        evicted
    }

    fn expire_topic(
        &self,
        held: &Held<'_, P>,
        at: Timestamp,
        topic: &Arc<Topic<P>>,
        now: Timestamp,
        evicted: &mut Evicted<P>,
    ) {
        let patterns = held.matching(topic);
        let mut ring = topic.ring.write();
        if topic.queued_for() != Some(at) {
            return;
        }
        topic.set_queued_for(None);
        let finished_keep = ring.rules().map(|rules| rules.finished_keep);
        let ends = ring.finish().zip(finished_keep).map(|(finish, keep)| finish.at.after(keep));
        let is_over = ends.is_some_and(|ends| ends <= now);
        let age_max = ring.rule().and_then(|rule| rule.age_max);
        let is_old = |entry: &Kept<P>| age_max.is_some_and(|age| entry.at.after(age) <= now);
        while evicted.entries.len() < EXPIRE_STEP
            && ring.front().is_some_and(|entry| is_over || is_old(entry))
        {
            self.evict_one(&patterns, topic, &mut ring, evicted);
        }
        if is_over && ring.len() == 0 {
            self.change(topic, &mut ring, |ring| ring.set_finish(None));
            topic.set_finished(false);
            evicted.emptied.push(Arc::clone(topic));
        }
        self.queue_age(topic, &ring);
    }

    /// Puts a topic into the queue of evictions by age.
    pub(crate) fn queue_age(&self, topic: &Arc<Topic<P>>, ring: &Ring<P>) {
        self.ages.queue(topic, ring.deadline());
    }

    /// Sets the finish mark of a topic that was finished before the log was opened.
    pub(crate) fn restore_finish(&self, topic: &Arc<Topic<P>>, finish: Finished) {
        let mut ring = topic.ring.write();
        self.change(topic, &mut ring, |ring| ring.set_finish(Some(finish)));
        self.give_rule(topic, &mut ring);
        topic.set_finished(true);
        self.finishes.fetch_add(1, Ordering::Release);
        self.queue_age(topic, &ring);
    }

    /// Reserves the topic of an address for a push. If the topic does not exist, it is created.
    /// `None` if the topic has no events, and as many topics have events as the limit allows.
    pub(crate) fn reserve_within_limit(&self, address: &Address) -> Option<Arc<Topic<P>>> {
        loop {
            let is_full = self.filled() >= self.options.limits.topics_max;
            let topic = if is_full { self.topics.find(address)? } else { self.topic(address) };
            let is_new = is_full && *address != Address::Everyone && !topic.ring.read().is_filled();
            if is_new {
                return None;
            }
            if self.reserve(&topic) {
                return Some(topic);
            }
        }
    }

    /// The number of a new eviction of events below a floor. If a ring has events below the floor,
    /// the caller must hold the ring's lock.
    pub(super) fn next_eviction(&self, floor: Floor) -> EvictionNumber {
        self.floor_max.fetch_max(floor.offset.get(), Ordering::AcqRel);
        self.evicted_at_max.fetch_max(floor.at.as_millis(), Ordering::AcqRel);
        EvictionNumber::new(self.evictions.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Removes the finish mark of a topic that gets an event although it is finished. The topic
    /// must be reserved.
    pub(crate) fn reopen(&self, topic: &Arc<Topic<P>>) {
        let mut ring = topic.ring.write();
        self.change(topic, &mut ring, |ring| ring.set_finish(None));
        topic.set_finished(false);
        self.queue_age(topic, &ring);
    }

    /// Raises the floor of a topic that has no events in memory, so that readers below the floor
    /// read from the store.
    pub(crate) fn raise_floor(&self, topic: &Topic<P>, lost: Lost) {
        topic.raise_floor(lost);
        self.floor_max.fetch_max(lost.floor.offset.get(), Ordering::AcqRel);
    }

    /// Topics outside memory share one floor. This raises the shared floor, so that all events
    /// below the floor of `lost` count as evicted.
    pub(crate) fn raise_unknown(&self, lost: Lost) {
        self.floor_max.fetch_max(lost.floor.offset.get(), Ordering::AcqRel);
        self.topics.raise_unknown(lost);
    }

    /// Removes some of the rows of evicted events from the index.
    pub(crate) fn tidy_index(&self) {
        let live = self.events.load(Ordering::Relaxed);
        let is_kept = |offset, topic: &Topic<P>| topic.ring.read().floor() <= offset;
        self.index.lock().tidy(live, is_kept);
    }

    /// Copies at most `count` rows of the index, from an offset on.
    pub(crate) fn rows_from(&self, from: u64, count: usize) -> Vec<IndexRow<P>> {
        self.index.lock().from(from).take(count).cloned().collect()
    }

    /// Copies at most `count` rows of the index below an offset, newest first.
    pub(crate) fn rows_below(&self, until: u64, count: usize) -> Vec<IndexRow<P>> {
        self.index.lock().below(until).take(count).cloned().collect()
    }

    /// The offset of the first event in the index with this time stamp or a later one.
    pub(crate) fn first_since(&self, since: Timestamp) -> Option<u64> {
        self.index.lock().first_since(since)
    }

    /// Removes each of these topics from memory if nothing uses the topic any more. The caller must
    /// hold no lock.
    pub(crate) fn collect(&self, topics: &[Arc<Topic<P>>]) {
        self.topics.collect(topics, |address, lost| self.patterns.note_lost(address, lost));
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::types::{Epoch, address::Topic as Name};

    /// A topic keeps its old rule until it is within the new one. So no publish evicts more events
    /// than it adds, and each step evicts a bounded number.
    #[test]
    fn a_topic_gets_a_smaller_rule_in_steps_and_publishes_in_between_evict_one_event() {
        let history: History<&'static str> =
            History::new(LogOptions::new(Epoch::from_random(7)), Offset::FIRST);
        let topics = EventTopics::from_iter([history.topic(&Address::Everyone)]);
        let push = |offset| {
            let mut evicted = Evicted::new();
            assert!(history.reserve(&topics[0]));
            let (at, patterns) = (Timestamp::default(), &[Matching::new()]);
            let pushed =
                Pushed { offset, at, payload: Some(""), topics: &topics, patterns, finish: false };
            history.push(pushed, &mut evicted);
            evicted.entries.len()
        };
        let rules = |events_max| {
            let everyone = Retention { events_max, ..Retention::DEFAULT };
            RetentionRules { everyone, ..RetentionRules::default() }
        };
        history.set_rules(rules(3 * EXPIRE_STEP));
        let evicted: usize = (1..=4 * EXPIRE_STEP as u64).map(push).sum();
        assert_eq!(evicted, EXPIRE_STEP);
        history.set_rules(rules(1));
        let mut steps = Vec::new();
        for offset in 1_000.. {
            let (evicted, is_within) = history.retain_step(&topics[0]);
            steps.push(evicted.entries.len());
            if is_within {
                break;
            }
            assert_eq!(push(offset), 0, "the topic is below its old limit");
        }
        assert_eq!(steps, [EXPIRE_STEP, EXPIRE_STEP, EXPIRE_STEP, 2]);
        assert_eq!(push(2_000), 1);
    }

    /// The deadlines of many topics have passed, but none of these topics has an event to evict.
    /// This is possible, because an event may be evicted for another reason than its age. Its topic
    /// then stays in the queue with the deadline of the evicted event.
    #[test]
    fn a_step_checks_a_bounded_number_of_topics_even_if_there_is_nothing_to_evict() {
        let history: History<&'static str> =
            History::new(LogOptions::new(Epoch::from_random(7)), Offset::FIRST);
        let topics: Vec<_> = (0..10 * EXPIRE_STEP)
            .map(|number| {
                let name = Name::new(&number.to_string()).unwrap();
                let topic = history.topic(&Address::Topic(name));
                history.ages.queue(&topic, Some(Timestamp::from_millis(1)));
                topic
            })
            .collect();
        let evicted = history.expire(Timestamp::from_millis(1)).unwrap();
        assert!(evicted.entries.is_empty());
        let left = topics.iter().filter(|topic| topic.queued_for().is_some()).count();
        assert_eq!(left, 9 * EXPIRE_STEP);
    }
}
