//! The ring of one topic. It has the topic's events in memory, in offset order, and the topic's
//! floor and finish mark. A finish mark says that the topic gets no more events. The floor is the
//! offset after the last evicted event, so the ring has no event below the floor.
//!
//! The lock of a ring is in `topic`. A ring returns evicted entries to its caller instead of
//! dropping them. Dropping a payload may run the app's code, which must not happen while the ring
//! is locked.

use std::{any::Any, collections::VecDeque, sync::Arc};

use crate::store::Finished;
use crate::types::{
    address::Address,
    floor::{EvictionNumber, Floor},
    offset::{Offset, Timestamp},
    payload::{ENTRY_COST_BYTES, Payload},
    retention::{Retention, RetentionRules, RuleNumber},
};

/// A search first compares this many of the newest entries, because a reader that keeps up searches
/// for one of them. If the entry is not among them, a binary search follows. A binary search makes
/// only a few comparisons. So if more than four entries were compared first, a search for an older
/// entry would be noticeably slower.
const NEAR: usize = 4;

/// A full ring grows by its length divided by this number. If rings grew by their whole length, up
/// to half of their memory would be unused. If they grew by less than a quarter, each entry would
/// be copied more than about four times.
const GROWTH: usize = 4;

/// The minimum number of entries by which a ring grows. A ring that shrinks keeps at least this
/// capacity.
const GROWTH_MIN: usize = 4;

/// If the capacity of a ring is more than this many times its length, the ring shrinks to twice its
/// length.
const SPARSE: usize = 4;

/// An event in a ring.
#[derive(Clone, Debug)]
pub(crate) struct Kept<P> {
    pub(crate) offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) payload: P,
}

impl<P: Payload> Kept<P> {
    pub(crate) fn cost(&self) -> usize {
        self.payload.bytes() + ENTRY_COST_BYTES
    }
}

/// The losses of a topic: the offset up to which its events were evicted, and the number of its
/// last eviction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lost {
    pub(crate) floor: Floor,
    /// The offset after the second to last evicted event; 1 if there is no such event.
    pub(crate) lower: Offset,
    /// The number of the last eviction.
    pub(crate) number: EvictionNumber,
}

impl Lost {
    pub(crate) const NOTHING: Self =
        Self { floor: Floor::NONE, lower: Offset::FIRST, number: EvictionNumber::NONE };

    /// Makes the losses of a topic if only its floor and the number of its last eviction are known.
    /// All events below the floor count as evicted.
    pub(crate) fn below(floor: Floor, number: EvictionNumber) -> Self {
        Self { floor, lower: floor.offset, number }
    }

    /// The highest offset that is missing for a reader of this topic. `None` if this offset is
    /// below `from`, or if the topic's last eviction was not later than `after`. `is_elsewhere`
    /// says whether another topic of the reader still keeps the event at an offset. Such an event
    /// is not missing.
    pub(crate) fn hole(
        &self,
        from: u64,
        after: Option<EvictionNumber>,
        is_elsewhere: impl FnOnce(u64) -> bool,
    ) -> Option<u64> {
        let last = self.floor.offset.get() - 1;
        if last < from || after.is_some_and(|after| self.number <= after) {
            return None;
        }
        let until = if is_elsewhere(last) { self.lower.get() - 1 } else { last };
        (until >= from).then_some(until)
    }

    /// Losses that cover both `self` and `other`.
    pub(crate) fn max(self, other: Self) -> Self {
        Self::below(self.floor.max(other.floor), self.number.max(other.number))
    }
}

/// The entries of a ring are in a separate allocation, which is made at the first push. So a ring
/// that never had an entry is small. Most rings belong to inboxes that never get an event.
///
/// Invariant: all entries are at or above the floor of `lost`.
#[derive(Debug)]
pub(crate) struct Ring<P> {
    /// `None` if nothing was ever evicted.
    lost: Option<Box<Lost>>,
    /// The events and the finish mark; `None` if the ring never had any.
    history: Option<Box<RingContents<P>>>,
    /// The number of reservations plus 1, or 0 if the ring is dead. An append reserves the ring
    /// until it has pushed its event. The topic of a reserved ring is not collected (removed from
    /// memory). When the topic is collected, the ring becomes dead. An append that finds a dead
    /// ring must look up the topic's name again.
    holds: u32,
    /// The rule that bounds the ring: its number among the rules in `history`.
    rule: RuleNumber,
}

/// Invariant: offsets increase strictly; `bytes` is the sum of the costs of all entries.
#[derive(Debug)]
struct RingContents<P> {
    entries: VecDeque<Kept<P>>,
    bytes: usize,
    /// The number of entries pushed since the ring was created, including those that were evicted.
    pushed: u64,
    finish: Option<Finished>,
    /// The retention rules of the log at the time when the ring got its rule. `None` until the ring
    /// has a rule.
    rules: Option<Arc<RetentionRules>>,
    /// The patterns that match the topic. They are stored here, so that the table of patterns need
    /// not be searched for them again.
    matching: Option<Box<dyn Any + Send + Sync>>,
}

impl<P> Default for RingContents<P> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            pushed: 0,
            finish: None,
            rules: None,
            matching: None,
        }
    }
}

impl<P: Payload> Ring<P> {
    pub(crate) fn new(lost: Lost) -> Self {
        let lost = (lost != Lost::NOTHING).then(|| Box::new(lost));
        Self { lost, history: None, holds: 1, rule: RuleNumber::DEFAULT }
    }

    /// The retention rules that the ring follows; `None` if it has no rule yet.
    pub(crate) fn rules(&self) -> Option<&RetentionRules> {
        self.history.as_ref()?.rules.as_deref()
    }

    /// The rule that bounds the ring; `None` if it has no rule yet.
    pub(crate) fn rule(&self) -> Option<&Retention> {
        self.rules().map(|rules| rules.rule(self.rule))
    }

    /// Bounds the ring by these rules from now on. A ring that never had an event or a finish mark
    /// gets no rule.
    pub(crate) fn follow(&mut self, rules: Arc<RetentionRules>, address: &Address) {
        if let Some(history) = &mut self.history {
            self.rule = rules.number_of(address);
            history.rules = Some(rules);
        }
    }

    /// Whether the ring has more events or bytes than this rule allows. The newest event is always
    /// allowed.
    pub(crate) fn exceeds(&self, rule: &Retention) -> bool {
        self.len() > 1 && (self.len() > rule.events_max || self.bytes() > rule.bytes_max)
    }

    /// The time at which the oldest event or the finish mark becomes too old; `None` if that never
    /// happens.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let rules = self.rules()?;
        let age_max = rules.rule(self.rule).age_max;
        let front = self.front().and_then(|entry| age_max.map(|age| entry.at.after(age)));
        let finish = self.finish().map(|finish| finish.at.after(rules.finished_keep));
        front.into_iter().chain(finish).min().filter(|at| at.as_millis() < u64::MAX)
    }

    pub(crate) fn lost(&self) -> Lost {
        self.lost.as_deref().copied().unwrap_or(Lost::NOTHING)
    }

    /// The offset after the last evicted event; 1 if nothing was ever evicted. A reader that has
    /// read everything below the floor has missed nothing.
    pub(crate) fn floor(&self) -> u64 {
        self.lost.as_ref().map_or(1, |lost| lost.floor.offset.get())
    }

    /// Raises the floor of a ring that has no entry below the new floor.
    pub(crate) fn raise_floor(&mut self, lost: Lost) {
        debug_assert!(
            self.front().is_none_or(|entry| entry.offset >= lost.floor.offset.get()),
            "the ring must not have an entry below its floor"
        );
        let lost = self.lost().max(lost);
        self.lost = (lost != Lost::NOTHING).then(|| Box::new(lost));
    }

    /// Whether the topic counts towards the limit of topics: it has events or a finish mark, or an
    /// append has reserved it.
    pub(crate) fn is_filled(&self) -> bool {
        !self.is_idle()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.bytes)
    }

    pub(crate) fn pushed(&self) -> u64 {
        self.history.as_ref().map_or(0, |history| history.pushed)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().map_or(0, VecDeque::len)
    }

    pub(crate) fn finish(&self) -> Option<Finished> {
        self.history.as_ref()?.finish
    }

    pub(crate) fn set_finish(&mut self, finish: Option<Finished>) {
        self.history.get_or_insert_default().finish = finish;
    }

    pub(crate) fn matching<M: 'static>(&self) -> Option<&M> {
        self.history.as_ref()?.matching.as_ref()?.downcast_ref()
    }

    /// Stores the patterns that match the topic. A topic that never had an event stores none, so
    /// that unused inboxes stay small.
    pub(crate) fn set_matching(&mut self, matching: Box<dyn Any + Send + Sync>) {
        if let Some(history) = &mut self.history {
            history.matching = Some(matching);
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.holds == 0
    }

    /// Reserves the ring for an append. Returns `false` if the ring is dead because its topic was
    /// collected.
    pub(crate) fn reserve(&mut self) -> bool {
        if self.is_dead() {
            return false;
        }
        self.holds += 1;
        true
    }

    pub(crate) fn unreserve(&mut self) {
        debug_assert!(self.holds > 1, "a call of unreserve needs an earlier call of reserve");
        self.holds -= 1;
    }

    /// Whether the ring has no events and no finish mark, and no append has reserved it.
    pub(crate) fn is_idle(&self) -> bool {
        self.len() == 0 && self.finish().is_none() && self.holds <= 1
    }

    /// Marks the ring dead if it is idle. Returns whether it was idle.
    pub(crate) fn bury(&mut self) -> bool {
        let idle = self.is_idle();
        if idle {
            self.holds = 0;
        }
        idle
    }

    /// Adds the newest entry, and returns its cost in bytes.
    pub(crate) fn push(&mut self, entry: Kept<P>) -> usize {
        let history = self.history.get_or_insert_default();
        debug_assert!(history.entries.back().is_none_or(|last| last.offset < entry.offset));
        let cost = entry.cost();
        history.bytes += cost;
        history.pushed += 1;
        let entries = &mut history.entries;
        if entries.len() == entries.capacity() {
            entries.reserve_exact(GROWTH_MIN.max(entries.len() / GROWTH));
        }
        entries.push_back(entry);
        cost
    }

    /// Removes the oldest entry, and raises the floor above it. `number` gives the number of the
    /// eviction. It is called only if there is an entry.
    pub(crate) fn evict(&mut self, number: impl FnOnce() -> EvictionNumber) -> Option<Kept<P>> {
        let history = self.history.as_mut()?;
        let entry = history.entries.pop_front()?;
        let lost = self.lost.get_or_insert_with(|| Box::new(Lost::NOTHING));
        lost.lower = lost.floor.offset;
        lost.floor = Floor { offset: Offset::new(entry.offset + 1), at: entry.at };
        lost.number = number();
        history.bytes -= entry.cost();
        let entries = &mut history.entries;
        if entries.is_empty() {
            *entries = VecDeque::new();
        } else if entries.len() < entries.capacity() / SPARSE {
            entries.shrink_to(GROWTH_MIN.max(2 * entries.len()));
        }
        Some(entry)
    }

    pub(crate) fn front(&self) -> Option<&Kept<P>> {
        self.entries()?.front()
    }

    /// The entries with offsets from `from` on, oldest first.
    pub(crate) fn from(&self, from: u64) -> impl DoubleEndedIterator<Item = &Kept<P>> {
        let rest = self.entries().map(|entries| entries.range(start(entries, from)..));
        rest.into_iter().flatten()
    }

    /// The entry with an offset.
    pub(crate) fn get(&self, offset: u64) -> Option<&Kept<P>> {
        let entries = self.entries()?;
        // The newest entry is compared first, because a reader that keeps up searches for the
        // newest entry.
        let newest = entries.back().filter(|entry| entry.offset == offset);
        newest
            .or_else(|| entries.get(start(entries, offset)).filter(|entry| entry.offset == offset))
    }

    /// The entry at or above `from`, if there is exactly one.
    pub(crate) fn only_from(&self, from: u64) -> Option<&Kept<P>> {
        let (newest, before) = self.entries()?.as_slices();
        let (newest, before) = match (newest, before) {
            ([.., before], [newest]) | ([.., before, newest], []) => (newest, Some(before)),
            ([newest], []) => (newest, None),
            (_, [.., before, newest]) => (newest, Some(before)),
            _ => return None,
        };
        let only = newest.offset >= from && before.is_none_or(|before| before.offset < from);
        only.then_some(newest)
    }

    /// The offset of the first entry at or above `from`.
    pub(crate) fn next_from(&self, from: u64) -> Option<u64> {
        self.from(from).next().map(|entry| entry.offset)
    }

    /// The offsets of the entries, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = u64> {
        self.entries()
            .into_iter()
            .flat_map(|entries| entries.iter().rev())
            .map(|entry| entry.offset)
    }

    fn entries(&self) -> Option<&VecDeque<Kept<P>>> {
        self.history.as_ref().map(|history| &history.entries)
    }
}

/// The index of the first entry at or above `from`.
fn start<P>(entries: &VecDeque<Kept<P>>, from: u64) -> usize {
    // A reader that keeps up searches for one of the newest entries.
    let near = entries.iter().rev().take(NEAR).take_while(|entry| entry.offset >= from).count();
    if near < NEAR {
        return entries.len() - near;
    }
    entries.partition_point(|entry| entry.offset < from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::offset::Cursor;

    impl Payload for &'static str {
        type Draft = Self;

        fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
            draft
        }

        fn bytes(&self) -> usize {
            self.len()
        }
    }

    fn one() -> EvictionNumber {
        EvictionNumber::new(1)
    }

    fn ring(offsets: &[u64]) -> Ring<&'static str> {
        let mut ring = Ring::new(Lost::NOTHING);
        for &offset in offsets {
            let at = Timestamp::from_millis(offset * 10);
            ring.push(Kept { offset, at, payload: "four" });
        }
        ring
    }

    #[test]
    fn the_capacity_of_a_ring_follows_its_length() {
        let spare = |ring: &Ring<&'static str>| {
            ring.entries()
                .map(|entries| entries.capacity() - entries.len())
                .expect("the ring has had a push")
        };
        let mut ring = ring(&[]);
        for offset in 1..=10_000 {
            ring.push(Kept { offset, at: Timestamp::default(), payload: "four" });
            assert!(spare(&ring) <= GROWTH_MIN + ring.len() / GROWTH, "{}", spare(&ring));
        }
        for _ in 1..10_000 {
            ring.evict(one);
            assert!(spare(&ring) <= GROWTH_MIN + SPARSE * ring.len(), "{}", spare(&ring));
        }
        assert_eq!(ring.newest_first().collect::<Vec<_>>(), [10_000]);
    }

    #[test]
    fn eviction_raises_the_floor_and_frees_the_bytes() {
        let mut ring = ring(&[3, 7]);
        assert_eq!(ring.bytes(), 2 * (4 + ENTRY_COST_BYTES));
        assert_eq!(ring.evict(one).map(|entry| entry.offset), Some(3));
        assert_eq!((ring.len(), ring.bytes()), (1, 4 + ENTRY_COST_BYTES));
        assert_eq!(ring.pushed(), 2);
        assert_eq!(
            ring.lost().floor,
            Floor { offset: Offset::new(4), at: Timestamp::from_millis(30) }
        );
        ring.evict(one);
        assert!(ring.evict(one).is_none());
        assert_eq!((ring.floor(), ring.bytes()), (8, 0));
    }

    /// The last offset that is missing for a reader at `from`. Evictions up to `after` do not
    /// count. The list `elsewhere` contains the offsets of the events that other topics of the
    /// reader still keep.
    fn until(ring: &Ring<&'static str>, from: u64, after: u64, elsewhere: &[u64]) -> Option<u64> {
        ring.lost().hole(from, Some(EvictionNumber::new(after)), |at| elsewhere.contains(&at))
    }

    #[test]
    fn an_evicted_event_is_not_missing_if_another_topic_still_keeps_it() {
        let mut ring = ring(&[3, 7, 9]);
        assert_eq!(until(&ring, 1, 0, &[]), None);
        ring.evict(|| EvictionNumber::new(5));
        assert_eq!([until(&ring, 1, 0, &[]), until(&ring, 1, 4, &[])], [Some(3); 2]);
        assert_eq!([until(&ring, 1, 5, &[]), until(&ring, 4, 0, &[])], [None; 2]);
        assert_eq!(until(&ring, 1, 0, &[3]), None);
        ring.evict(|| EvictionNumber::new(6));
        assert_eq!(until(&ring, 1, 5, &[]), Some(7));
        assert_eq!([until(&ring, 1, 0, &[7]), until(&ring, 4, 0, &[7])], [Some(3), None]);
    }

    #[test]
    fn a_search_finds_the_first_entry_at_or_above_an_offset() {
        let ring = ring(&[3, 7, 9]);
        assert_eq!(ring.next_from(1), Some(3));
        assert_eq!(ring.next_from(4), Some(7));
        assert_eq!(ring.next_from(10), None);
        let only = [1, 4, 8, 9, 10].map(|from| ring.only_from(from).map(|entry| entry.offset));
        assert_eq!(only, [None, None, Some(9), Some(9), None]);
        let offsets: Vec<u64> = (1..=20).collect();
        let ring = self::ring(&offsets);
        assert!((1..=20).all(|from| ring.next_from(from) == Some(from)));
        assert_eq!((ring.next_from(0), ring.next_from(21)), (Some(1), None));
        let ring = self::ring(&[3, 7, 9]);
        assert_eq!(ring.newest_first().collect::<Vec<_>>(), [9, 7, 3]);
    }

    /// The entries of a ring may wrap around the end of their buffer. So the test moves the first
    /// entry through the whole buffer.
    #[test]
    fn the_only_entry_at_or_above_an_offset_is_found() {
        let mut ring = ring(&[]);
        for offset in 1..100 {
            ring.push(Kept { offset: 2 * offset, at: Timestamp::default(), payload: "" });
            if ring.len() > 5 || offset % 7 == 0 {
                ring.evict(one);
            }
            for from in 0..=2 * offset + 1 {
                let all: Vec<u64> = ring.from(from).map(|entry| entry.offset).collect();
                let only = (all.len() == 1).then(|| all[0]);
                assert_eq!(ring.only_from(from).map(|entry| entry.offset), only, "{from}");
            }
        }
    }

    #[test]
    fn a_ring_is_marked_dead_only_if_it_is_empty_unreserved_and_unfinished() {
        let mut full = ring(&[1]);
        assert!(!full.bury());
        let mut reserved = ring(&[]);
        assert!(reserved.reserve());
        assert!(!reserved.bury());
        reserved.unreserve();
        reserved.set_finish(Some(Finished { offset: Offset::FIRST, at: Timestamp::default() }));
        assert!(!reserved.bury());
        reserved.set_finish(None);
        assert!(reserved.bury());
        assert!(!reserved.reserve());
    }
}
