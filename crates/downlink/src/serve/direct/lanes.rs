//! Whose turn it is: streams that wait to be polled, in lanes that take turns.
//!
//! A topic with ten thousand readers wakes them all at once; a reader of another topic, woken after
//! them, waits for a few of them only. Within a lane the order is that of the wake-ups. The lists
//! are chained through the streams themselves, so that waiting costs nothing but the waiting.

use std::collections::{HashMap, VecDeque};

/// How many streams of a lane are polled before the next lane has its turn.
///
/// Their writes take a quarter of a millisecond or so. With one, lanes of many readers would lose
/// the warmth of their common event; with ten times as many, a lone reader would feel them.
pub(super) const LANE_TURN: u32 = 32;

/// No stream.
pub(super) const NONE: u32 = u32::MAX;

/// One lane: a list chained through the streams.
#[derive(Clone, Copy, Debug)]
struct Lane {
    first: u32,
    last: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// The lanes in which a stream waits.
    waiting: HashMap<u32, Lane>,
    /// The same lanes in the order of their turns.
    order: VecDeque<u32>,
    /// How many streams of the first lane have had their turn.
    taken: u32,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Puts a stream at the end of its lane. `link(a, b)` notes that `b` comes after `a`.
    ///
    /// The stream waits in no lane yet.
    pub(super) fn push(&mut self, key: u32, lane: u32, mut link: impl FnMut(u32, u32)) {
        link(key, NONE);
        if let Some(lane) = self.waiting.get_mut(&lane) {
            link(lane.last, key);
            lane.last = key;
            return;
        }
        self.waiting.insert(lane, Lane { first: key, last: key });
        self.order.push_back(lane);
    }

    /// The stream whose turn it is. `next_of(a)` says what came after `a`.
    pub(super) fn pop(&mut self, next_of: impl FnOnce(u32) -> u32) -> Option<u32> {
        let number = *self.order.front()?;
        let lane = self.waiting.get_mut(&number)?;
        let key = lane.first;
        lane.first = next_of(key);
        self.taken += 1;
        if lane.first == NONE {
            self.waiting.remove(&number);
            self.order.pop_front();
            self.taken = 0;
        } else if self.taken >= LANE_TURN {
            self.order.rotate_left(1);
            self.taken = 0;
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes streams and takes them all out again.
    fn order_of(pushed: &[(u32, u32)]) -> Vec<u32> {
        let mut next = vec![NONE; 1_000];
        let mut lanes = Lanes::default();
        for (key, lane) in pushed {
            lanes.push(*key, *lane, |a, b| next[a as usize] = b);
        }
        let popped = std::iter::from_fn(|| lanes.pop(|key| next[key as usize])).collect();
        assert!(lanes.is_empty());
        popped
    }

    #[test]
    fn lane_is_first_in_first_out() {
        assert_eq!(order_of(&[(5, 1), (3, 1), (4, 1)]), [5, 3, 4]);
        assert!(order_of(&[]).is_empty());
    }

    #[test]
    fn lone_reader_waits_for_one_turn_of_a_full_lane() {
        let mut pushed: Vec<_> = (0..500).map(|key| (key, 7)).collect();
        pushed.push((900, 8));
        pushed.push((901, 9));
        let order = order_of(&pushed);
        let place = |key| order.iter().position(|at| *at == key).expect("it was pushed");
        assert_eq!(place(900), LANE_TURN as usize);
        assert_eq!(place(901), LANE_TURN as usize + 1);
        assert_eq!(order.len(), 502);
        assert!(order.iter().filter(|key| **key < 500).is_sorted());
    }
}
