//! What was kept of topics that no longer exist: up to where they had events.
//!
//! A bounded table by name. What falls out of it raises one floor for every unknown name: a gap that
//! is none may then be reported, a gap that is one is never hidden.

use std::collections::{BTreeMap, VecDeque};

use crate::{address::Address, offset::Timestamp};

/// Names remembered. About 10 MiB with names of ordinary length; beyond it resumption stays correct
/// and becomes less precise.
pub(crate) const FORGOTTEN_MAX: usize = 65_536;

/// Up to where a topic's events are gone, and when the last of them was still there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Floor {
    /// Last evicted offset + 1.
    pub(crate) offset: u64,
    /// No evicted event is younger.
    pub(crate) at: Timestamp,
}

impl Floor {
    /// Nothing was ever evicted.
    pub(crate) const NONE: Self = Self { offset: 1, at: Timestamp::from_millis(0) };

    /// Both together, perhaps higher than either.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { offset: self.offset.max(other.offset), at: self.at.max(other.at) }
    }
}

#[derive(Debug)]
pub(crate) struct Forgotten {
    floors: BTreeMap<Address, Floor>,
    /// Oldest first. May hold names that came back to life; they are skipped.
    order: VecDeque<(Address, Floor)>,
    /// The floor of every name that is not in the table.
    others: Floor,
    names_max: usize,
}

impl Forgotten {
    pub(crate) fn new(names_max: usize) -> Self {
        Self { floors: BTreeMap::new(), order: VecDeque::new(), others: Floor::NONE, names_max }
    }

    /// Remembers a collected topic.
    pub(crate) fn remember(&mut self, address: Address, floor: Floor) {
        if floor.offset <= self.others.offset {
            return;
        }
        self.floors.insert(address.clone(), floor);
        self.order.push_back((address, floor));
        while self.floors.len() > self.names_max {
            self.forget_oldest();
        }
        if self.order.len() > 2 * self.names_max {
            let floors = &self.floors;
            self.order.retain(|(address, floor)| floors.get(address) == Some(floor));
        }
    }

    /// The floor that a topic of this name begins with.
    pub(crate) fn recall(&mut self, address: &Address) -> Floor {
        self.floors.remove(address).unwrap_or(self.others)
    }

    /// The highest floor among the forgotten topics that `matches` accepts.
    pub(crate) fn highest(&self, matches: impl Fn(&Address) -> bool) -> Floor {
        let named = self.floors.iter().filter(|(address, _)| matches(address));
        named.fold(self.others, |highest, (_, floor)| highest.max(*floor))
    }

    fn forget_oldest(&mut self) {
        while let Some((address, floor)) = self.order.pop_front() {
            if self.floors.get(&address) == Some(&floor) {
                self.floors.remove(&address);
                self.others = self.others.max(floor);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Topic;

    fn topic(name: &str) -> Address {
        Address::Topic(Topic::new(name).unwrap())
    }

    fn floor(offset: u64) -> Floor {
        Floor { offset, at: Timestamp::from_millis(offset) }
    }

    #[test]
    fn a_name_is_remembered_until_it_is_used_again() {
        let mut forgotten = Forgotten::new(2);
        forgotten.remember(topic("a"), floor(5));
        assert_eq!(forgotten.recall(&topic("a")), floor(5));
        assert_eq!(forgotten.recall(&topic("a")), Floor::NONE);
    }

    #[test]
    fn overflow_raises_the_floor_of_all_others() {
        let mut forgotten = Forgotten::new(2);
        for (name, offset) in [("a", 5), ("b", 3), ("c", 9)] {
            forgotten.remember(topic(name), floor(offset));
        }
        assert_eq!(forgotten.recall(&topic("a")), floor(5));
        assert_eq!(forgotten.recall(&topic("never seen")), floor(5));
        assert_eq!(forgotten.recall(&topic("b")), floor(3));
        assert_eq!(forgotten.recall(&topic("c")), floor(9));
    }

    #[test]
    fn the_highest_floor_counts_names_and_others() {
        let mut forgotten = Forgotten::new(1);
        forgotten.remember(topic("a"), floor(5));
        forgotten.remember(topic("b"), floor(9));
        assert_eq!(forgotten.highest(|address| *address == topic("b")), floor(9));
        assert_eq!(forgotten.highest(|_| false), floor(5));
    }

    #[test]
    fn names_that_come_and_go_do_not_grow_the_table() {
        let mut forgotten = Forgotten::new(4);
        for offset in 2..1_000 {
            forgotten.remember(topic("a"), floor(offset));
            forgotten.recall(&topic("a"));
        }
        assert!(forgotten.order.len() <= 8);
    }
}
