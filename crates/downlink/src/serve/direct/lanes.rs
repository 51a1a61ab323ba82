//! Whose turn it is: streams that wait to be polled, in lanes that take turns.
//!
//! A topic with ten thousand readers wakes them all at once; a reader of another topic, woken after
//! them, waits for a few of them only. Within a lane the order is that of the wake-ups.
//!
//! The lists are chained through an array of their own with a place for each stream: whose turn it is
//! is found without a look at the streams, of which few are in the processor's cache.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// How many streams of a lane are polled before the next lane has its turn.
///
/// Their writes take a quarter of a millisecond or so. With one, lanes of many readers would lose
/// the warmth of their common event; with ten times as many, a lone reader would feel them.
pub(super) const LANE_TURN: u32 = 32;

/// No stream.
const NONE: u32 = u32::MAX;

/// One lane: a list chained through the streams.
#[derive(Clone, Copy, Debug)]
struct Lane {
    first: u32,
    last: u32,
}

/// What is known of a stream here.
#[derive(Clone, Copy, Debug)]
struct Place {
    lane: u32,
    /// The stream behind it in its lane.
    behind: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    places: Vec<Place>,
    /// The lanes in which a stream waits.
    waiting: HashMap<u32, Lane, BuildHasherDefault<Spread>>,
    /// The same lanes in the order of their turns.
    order: VecDeque<u32>,
    /// How many streams of the first lane have had their turn.
    taken: u32,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Has a stream wait in this lane from its next wake-up on. New ones share one.
    pub(super) fn assign(&mut self, key: u32, lane: u32) {
        self.place(key).lane = lane;
    }

    /// Puts a stream at the end of its lane. It waits in no lane yet.
    pub(super) fn push(&mut self, key: u32) {
        let place = self.place(key);
        place.behind = NONE;
        let number = place.lane;
        if let Some(lane) = self.waiting.get_mut(&number) {
            let last = std::mem::replace(&mut lane.last, key);
            self.place(last).behind = key;
            return;
        }
        self.waiting.insert(number, Lane { first: key, last: key });
        self.order.push_back(number);
    }

    /// The place of a stream, made if it has none. There are as many as there ever were streams at
    /// once.
    fn place(&mut self, key: u32) -> &mut Place {
        let at = key as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, Place { lane: 0, behind: NONE });
        }
        &mut self.places[at]
    }

    /// The stream whose turn it is.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let number = *self.order.front()?;
        let lane = self.waiting.get_mut(&number)?;
        let key = lane.first;
        lane.first = self.places.get(key as usize).map_or(NONE, |place| place.behind);
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

/// Hashes the numbers of lanes, which nobody can choose: they are hashes themselves.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio: all bits of the number reach the upper ones.
        self.0 = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u32((self.0 as u32).rotate_left(8) ^ u32::from(*byte)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes streams and takes them all out again.
    fn order_of(pushed: &[(u32, u32)]) -> Vec<u32> {
        let mut lanes = Lanes::default();
        for (key, lane) in pushed {
            lanes.assign(*key, *lane);
            lanes.push(*key);
        }
        let popped = std::iter::from_fn(|| lanes.pop()).collect();
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
