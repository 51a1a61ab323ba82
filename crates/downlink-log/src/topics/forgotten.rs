//! What was kept of topics that no longer exist: up to where they had events.
//!
//! A bounded table by name. What falls out of it raises one floor for every unknown name: a gap that
//! is none may then be reported, a gap that is one is never hidden.

use std::collections::BTreeMap;

use crate::{
    address::{Address, Topic},
    offset::Timestamp,
};

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

/// Invariant: `names` and `turns` hold the same entries.
#[derive(Debug)]
pub(crate) struct Forgotten {
    names: BTreeMap<Address, Remembered>,
    /// In the order of their collection.
    turns: BTreeMap<u64, Address>,
    next_turn: u64,
    /// The floor of every name that is not in the table.
    others: Floor,
    names_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    floor: Floor,
    turn: u64,
}

impl Forgotten {
    pub(crate) fn new(names_max: usize) -> Self {
        Self {
            names: BTreeMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            others: Floor::NONE,
            names_max,
        }
    }

    /// Remembers a collected topic.
    pub(crate) fn remember(&mut self, address: Address, floor: Floor) {
        if floor.offset <= self.others.offset {
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.turns.insert(turn, address.clone());
        if let Some(old) = self.names.insert(address, Remembered { floor, turn }) {
            self.turns.remove(&old.turn);
        }
        while self.names.len() > self.names_max {
            self.forget_oldest();
        }
    }

    /// The floor that a topic of this name begins with.
    pub(crate) fn recall(&mut self, address: &Address) -> Floor {
        let Some(Remembered { floor, turn }) = self.names.remove(address) else {
            return self.others;
        };
        self.turns.remove(&turn);
        floor
    }

    /// The highest floor among the forgotten topics whose name begins with `prefix` and that
    /// `matches` accepts.
    pub(crate) fn highest(&self, prefix: &str, matches: impl Fn(&Topic) -> bool) -> Floor {
        let names = self.names.range(Address::Topic(Topic::bound(prefix))..).map_while(
            |(address, Remembered { floor, .. })| {
                let topic = address.topic().filter(|topic| topic.as_str().starts_with(prefix))?;
                Some((topic, floor))
            },
        );
        names
            .filter(|(topic, _)| matches(topic))
            .fold(self.others, |highest, (_, floor)| highest.max(*floor))
    }

    /// Raises the floor of every name that is not in the table.
    pub(crate) fn raise(&mut self, floor: Floor) {
        self.others = self.others.max(floor);
    }

    fn forget_oldest(&mut self) {
        let Some((_, address)) = self.turns.pop_first() else { return };
        if let Some(Remembered { floor, .. }) = self.names.remove(&address) {
            self.others = self.others.max(floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(forgotten.highest("", |topic| topic.as_str() == "b"), floor(9));
        assert_eq!(forgotten.highest("b", |_| true), floor(9));
        assert_eq!(forgotten.highest("c", |_| true), floor(5));
        assert_eq!(forgotten.highest("", |_| false), floor(5));
    }

    #[test]
    fn names_that_come_and_go_do_not_grow_the_table() {
        let mut forgotten = Forgotten::new(4);
        for offset in 2..1_000 {
            forgotten.remember(topic("a"), floor(offset));
            forgotten.recall(&topic("a"));
        }
        assert_eq!((forgotten.names.len(), forgotten.turns.len()), (0, 0));
    }

    /// A client that comes and goes at a topic without history leaves the same floor each time.
    #[test]
    fn a_name_that_comes_back_with_its_old_floor_is_remembered_once() {
        let mut forgotten = Forgotten::new(4);
        for _ in 0..1_000 {
            forgotten.remember(topic("a"), floor(5));
            assert_eq!(forgotten.recall(&topic("a")), floor(5));
        }
        forgotten.remember(topic("a"), floor(5));
        forgotten.remember(topic("a"), floor(6));
        assert_eq!((forgotten.names.len(), forgotten.turns.len()), (1, 1));
    }

    #[test]
    fn a_table_of_no_names_raises_the_floor_at_once() {
        let mut forgotten = Forgotten::new(0);
        forgotten.remember(topic("a"), floor(5));
        assert_eq!(forgotten.recall(&topic("b")), floor(5));
        assert_eq!(forgotten.names.len(), 0);
    }
}
