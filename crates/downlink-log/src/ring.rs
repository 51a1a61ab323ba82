//! The history of one topic: entries in offset order, and the floor below which nothing is kept.
//!
//! Plain data; the lock is around it (see `topic`). Evicted entries are handed out, never dropped
//! here, because dropping a payload may run a user's code.

use std::collections::VecDeque;

use crate::{forgotten::Floor, log::Payload, offset::Timestamp};

/// What one entry costs besides its payload: its places in ring and index, and the shared header.
/// Counted so that a million empty events are not free.
pub(crate) const ENTRY_COST_BYTES: usize = 96;

/// An event where it is kept.
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

/// Invariant: offsets increase strictly; all are at or above `floor`; `bytes` is the sum of costs.
#[derive(Debug)]
pub(crate) struct Ring<P> {
    entries: VecDeque<Kept<P>>,
    /// Who has read up to here has missed nothing.
    floor: Floor,
    bytes: usize,
    /// Entries pushed since the ring was made, those evicted since among them.
    pushed: u64,
    /// When the topic was finished.
    finished_at: Option<Timestamp>,
    /// Appends that have chosen this ring and not pushed yet. Such a ring is not collected.
    reserved: u32,
    /// Collected: an append that finds this looks its topic up again.
    dead: bool,
}

impl<P: Payload> Ring<P> {
    /// A ring whose topic has lost what is below this floor.
    pub(crate) fn new(floor: Floor) -> Self {
        Self {
            entries: VecDeque::new(),
            floor,
            bytes: 0,
            pushed: 0,
            finished_at: None,
            reserved: 0,
            dead: false,
        }
    }

    pub(crate) fn floor(&self) -> Floor {
        self.floor
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        self.finished_at
    }

    pub(crate) fn set_finished_at(&mut self, at: Option<Timestamp>) {
        self.finished_at = at;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Chooses the ring for an append to come; `false` if it was collected.
    pub(crate) fn reserve(&mut self) -> bool {
        if self.dead {
            return false;
        }
        self.reserved += 1;
        true
    }

    pub(crate) fn unreserve(&mut self) {
        debug_assert!(self.reserved > 0, "unreserve pairs with reserve");
        self.reserved -= 1;
    }

    /// Whether nothing is kept, and nothing is coming.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.finished_at.is_none() && self.reserved == 0
    }

    /// Marks the ring dead if nothing is kept and nothing is coming.
    pub(crate) fn bury(&mut self) -> bool {
        self.dead = self.is_idle();
        self.dead
    }

    /// Adds the newest entry and gives its cost in bytes.
    pub(crate) fn push(&mut self, entry: Kept<P>) -> usize {
        debug_assert!(self.entries.back().is_none_or(|last| last.offset < entry.offset));
        let cost = entry.cost();
        self.bytes += cost;
        self.pushed += 1;
        self.entries.push_back(entry);
        cost
    }

    /// Removes the oldest entry and raises the floor above it.
    pub(crate) fn evict(&mut self) -> Option<Kept<P>> {
        let entry = self.entries.pop_front()?;
        self.floor = Floor { offset: entry.offset + 1, at: entry.at };
        self.bytes -= entry.cost();
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        Some(entry)
    }

    pub(crate) fn front(&self) -> Option<&Kept<P>> {
        self.entries.front()
    }

    /// The entries with offsets from `from` on, oldest first.
    pub(crate) fn from(&self, from: u64) -> impl DoubleEndedIterator<Item = &Kept<P>> {
        let start = self.entries.partition_point(|entry| entry.offset < from);
        self.entries.range(start..)
    }

    /// The first retained offset at or above `from`.
    pub(crate) fn next_from(&self, from: u64) -> Option<u64> {
        self.from(from).next().map(|entry| entry.offset)
    }

    /// The first retained offset published at or after `since`.
    pub(crate) fn next_since(&self, since: Timestamp) -> Option<u64> {
        let start = self.entries.partition_point(|entry| entry.at < since);
        self.entries.get(start).map(|entry| entry.offset)
    }

    /// Retained offsets, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().rev().map(|entry| entry.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Payload for &'static str {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    fn ring(offsets: &[u64]) -> Ring<&'static str> {
        let mut ring = Ring::new(Floor::NONE);
        for &offset in offsets {
            let at = Timestamp::from_millis(offset * 10);
            ring.push(Kept { offset, at, payload: "four" });
        }
        ring
    }

    #[test]
    fn eviction_raises_the_floor_and_frees_the_bytes() {
        let mut ring = ring(&[3, 7]);
        assert_eq!(ring.bytes(), 2 * (4 + ENTRY_COST_BYTES));
        assert_eq!(ring.evict().map(|entry| entry.offset), Some(3));
        assert_eq!((ring.len(), ring.bytes()), (1, 4 + ENTRY_COST_BYTES));
        assert_eq!(ring.pushed(), 2);
        assert_eq!(ring.floor(), Floor { offset: 4, at: Timestamp::from_millis(30) });
        ring.evict();
        assert!(ring.evict().is_none());
        assert_eq!((ring.floor().offset, ring.bytes()), (8, 0));
    }

    #[test]
    fn reading_starts_at_the_first_offset_not_below() {
        let ring = ring(&[3, 7, 9]);
        assert_eq!(ring.next_from(1), Some(3));
        assert_eq!(ring.next_from(4), Some(7));
        assert_eq!(ring.next_from(10), None);
        assert_eq!(ring.next_since(Timestamp::from_millis(31)), Some(7));
        assert_eq!(ring.newest_first().collect::<Vec<_>>(), [9, 7, 3]);
    }

    #[test]
    fn only_an_empty_unreserved_unfinished_ring_is_buried() {
        let mut full = ring(&[1]);
        assert!(!full.bury());
        let mut reserved = ring(&[]);
        assert!(reserved.reserve());
        assert!(!reserved.bury());
        reserved.unreserve();
        reserved.set_finished_at(Some(Timestamp::default()));
        assert!(!reserved.bury());
        reserved.set_finished_at(None);
        assert!(reserved.bury());
        assert!(!reserved.reserve());
    }
}
