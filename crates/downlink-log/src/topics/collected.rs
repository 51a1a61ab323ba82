//! The losses of topics that no longer exist, by name. The losses of a topic say up to which offset
//! its events were evicted. A topic that nothing uses is collected, which means that it is removed
//! from memory.
//!
//! The table of names is bounded. All names outside the table share one floor, which is the offset
//! below which their events may have been evicted. When a name is removed from the table, this
//! shared floor rises to cover the losses of that name. A reader may then get a gap although it has
//! missed nothing, but a reader that has missed events always gets a gap.

use std::collections::{BTreeMap, HashSet};

use crate::topics::Lost;
use crate::types::{Address, EvictionNumber, Floor};

/// The maximum number of names in the table. This many names of ordinary length take about 10 MiB.
/// If more topics are collected, a reader that continues after an id may get a gap although it has
/// missed nothing.
pub(crate) const COLLECTED_MAX: usize = 65_536;

/// Invariant: `names` and `turns` hold the same entries.
#[derive(Debug)]
pub(crate) struct Collected {
    names: BTreeMap<Address, CollectedTopic>,
    /// The names in the order in which their topics were collected.
    turns: BTreeMap<u64, Address>,
    next_turn: u64,
    /// The losses that each name outside the table may have.
    others: Lost,
    names_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct CollectedTopic {
    lost: Lost,
    turn: u64,
}

impl Collected {
    pub(crate) fn new(names_max: usize) -> Self {
        Self {
            names: BTreeMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            others: Lost::NOTHING,
            names_max,
        }
    }

    /// Stores the losses of a collected topic. Does nothing if the floor that all names outside the
    /// table share covers these losses already.
    pub(crate) fn remember(&mut self, address: Address, lost: Lost) {
        if lost.floor.offset <= self.others.floor.offset {
            return;
        }
        self.insert(address, lost);
    }

    fn insert(&mut self, address: Address, lost: Lost) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.turns.insert(turn, address.clone());
        if let Some(old) = self.names.insert(address, CollectedTopic { lost, turn }) {
            self.turns.remove(&old.turn);
        }
        while self.names.len() > self.names_max {
            self.forget_oldest();
        }
    }

    /// Removes a name from the table, and returns its losses. For a name outside the table, returns
    /// the losses that it may have.
    pub(crate) fn recall(&mut self, address: &Address) -> Lost {
        let Some(CollectedTopic { lost, turn }) = self.names.remove(address) else {
            return self.others;
        };
        self.turns.remove(&turn);
        lost
    }

    /// The names from `from` on, in order, each with its losses.
    pub(crate) fn range(
        &self,
        from: std::ops::Bound<Address>,
    ) -> impl Iterator<Item = (&Address, Lost)> {
        let names = self.names.range((from, std::ops::Bound::Unbounded));
        names.map(|(address, remembered)| (address, remembered.lost))
    }

    /// The losses that a name outside the table may have.
    pub(crate) fn others(&self) -> Lost {
        self.others
    }

    /// Raises the floor of every name outside the table.
    pub(crate) fn raise(&mut self, lost: Lost) {
        self.others = self.others.max(lost);
    }

    /// Notes that events of a name below a floor may be missing. `number` makes the number of the
    /// loss. Returns the losses of the name, or `None` if they covered this floor already.
    pub(crate) fn lose(
        &mut self,
        address: &Address,
        floor: Floor,
        number: impl FnOnce() -> EvictionNumber,
    ) -> Option<Lost> {
        let known = self.names.get(address).map_or(self.others, |name| name.lost);
        if known.floor.offset >= floor.offset {
            return None;
        }
        let lost = known.max(Lost::below(floor, number()));
        self.insert(address.clone(), lost);
        Some(lost)
    }

    /// Notes this loss for all names except those in `known`. All names outside the table get the
    /// loss together. So a name in `known` that has no topic is first put into the table, as far as
    /// the table has room. Then it does not get the loss.
    pub(crate) fn lose_all(
        &mut self,
        lost: Lost,
        known: &HashSet<Address>,
        has_topic: impl Fn(&Address) -> bool,
    ) {
        let (others, room) = (self.others, self.names_max.saturating_sub(self.names.len()));
        let is_new = |address: &&Address| {
            **address != Address::Everyone
                && !has_topic(address)
                && !self.names.contains_key(*address)
        };
        let new: Vec<Address> = known.iter().filter(is_new).take(room).cloned().collect();
        new.into_iter().for_each(|address| self.insert(address, others));
        for (address, name) in &mut self.names {
            if !known.contains(address) {
                name.lost = name.lost.max(lost);
            }
        }
        self.raise(lost);
    }

    fn forget_oldest(&mut self) {
        let Some((_, address)) = self.turns.pop_first() else { return };
        if let Some(CollectedTopic { lost, .. }) = self.names.remove(&address) {
            self.others = self.others.max(lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{
        address::Topic,
        floor::{EvictionNumber, Floor},
        offset::{Offset, Timestamp},
    };

    fn topic(name: &str) -> Address {
        Address::Topic(Topic::new(name).unwrap())
    }

    fn floor(offset: u64) -> Lost {
        let floor = Floor { offset: Offset::new(offset), at: Timestamp::from_millis(offset) };
        Lost::below(floor, EvictionNumber::new(offset))
    }

    #[test]
    fn recall_returns_the_losses_of_a_name_once() {
        let mut collected = Collected::new(2);
        collected.remember(topic("a"), floor(5));
        assert_eq!(collected.recall(&topic("a")), floor(5));
        assert_eq!(collected.recall(&topic("a")), Lost::NOTHING);
    }

    #[test]
    fn a_name_removed_from_a_full_table_raises_the_floor_of_names_outside_the_table() {
        let mut collected = Collected::new(2);
        for (name, offset) in [("a", 5), ("b", 3), ("c", 9)] {
            collected.remember(topic(name), floor(offset));
        }
        assert_eq!(collected.recall(&topic("a")), floor(5));
        assert_eq!(collected.recall(&topic("never seen")), floor(5));
        assert_eq!(collected.recall(&topic("b")), floor(3));
        assert_eq!(collected.recall(&topic("c")), floor(9));
    }

    #[test]
    fn a_loss_of_all_names_spares_only_the_known_names() {
        let mut collected = Collected::new(4);
        let loss = |offset| floor(offset).floor;
        assert_eq!(collected.lose(&topic("a"), loss(5), || EvictionNumber::new(5)), Some(floor(5)));
        assert_eq!(collected.lose(&topic("a"), loss(5), || panic!("it is known already")), None);
        collected.remember(topic("b"), floor(3));
        collected.lose_all(floor(9), &HashSet::from([topic("b")]), |_| false);
        assert_eq!(collected.recall(&topic("a")), floor(9));
        assert_eq!(collected.recall(&topic("b")), floor(3));
        assert_eq!(collected.recall(&topic("never seen")), floor(9));
    }

    #[test]
    fn recall_removes_a_name_from_the_table() {
        let mut collected = Collected::new(4);
        for offset in 2..1_000 {
            collected.remember(topic("a"), floor(offset));
            collected.recall(&topic("a"));
        }
        assert_eq!((collected.names.len(), collected.turns.len()), (0, 0));
    }

    /// A client may connect again and again to a topic without events. Each time the client leaves,
    /// the topic is collected with the same floor.
    #[test]
    fn a_name_that_is_stored_twice_is_in_the_table_once() {
        let mut collected = Collected::new(4);
        for _ in 0..1_000 {
            collected.remember(topic("a"), floor(5));
            assert_eq!(collected.recall(&topic("a")), floor(5));
        }
        collected.remember(topic("a"), floor(5));
        collected.remember(topic("a"), floor(6));
        assert_eq!((collected.names.len(), collected.turns.len()), (1, 1));
    }

    #[test]
    fn a_table_for_zero_names_raises_the_shared_floor_at_once() {
        let mut collected = Collected::new(0);
        collected.remember(topic("a"), floor(5));
        assert_eq!(collected.recall(&topic("b")), floor(5));
        assert_eq!(collected.names.len(), 0);
    }
}
