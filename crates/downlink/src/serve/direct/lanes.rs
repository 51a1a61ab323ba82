//! The order of the streams that wait to be polled: lanes, which take turns.
//!
//! A topic with ten thousand readers wakes them all at once. A reader of another topic, woken after
//! them, waits for a few of them only. Within a lane streams are in the order of their wake-ups.
//!
//! The lists are chained through an array with a place for each stream. So the next stream is found
//! without reading the streams, of which few are in the processor's cache.

use std::collections::{HashMap, VecDeque};

/// How many streams of a lane are polled before the next lane has its turn.
///
/// Their writes take about a quarter of a millisecond. With one, lanes of many readers would evict
/// their common event from the cache; with ten times as many, a lone reader would notice them.
pub(super) const LANE_TURN: u32 = 32;

/// No stream, or no lane.
const NONE: u32 = u32::MAX;

/// One lane: a list chained through the places.
#[derive(Clone, Copy, Debug)]
struct Lane {
    number: u32,
    /// The next stream; `NONE` while none waits.
    first: u32,
    last: u32,
    /// How many streams have this lane. A lane without any is freed.
    streams: u32,
}

/// The place of one stream.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The index of its lane; `NONE` before it has one.
    lane: u32,
    /// The stream behind it in its lane.
    behind: u32,
    waits: bool,
}

/// See the module.
///
/// Invariant: `by_number` has the index of each lane with streams; `free` has the other indexes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    places: Vec<Place>,
    lanes: Vec<Lane>,
    by_number: HashMap<u32, u32>,
    free: Vec<u32>,
    /// The lanes in which a stream waits, in the order of their turns.
    order: VecDeque<u32>,
    /// How many streams of the first lane have had their turn.
    taken: u32,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Puts a stream, which must not be waiting, into a lane for its next waits.
    pub(super) fn assign(&mut self, key: u32, number: u32) {
        let lane = self.lane_of(number);
        self.lanes[lane as usize].streams += 1;
        self.leave(key);
        self.places[key as usize].lane = lane;
    }

    /// Forgets the lane of a stream, which must not be waiting.
    pub(super) fn leave(&mut self, key: u32) {
        let lane = std::mem::replace(&mut self.place(key).lane, NONE);
        let Some(left) = self.lanes.get_mut(lane as usize) else { return };
        left.streams -= 1;
        if left.streams == 0 {
            self.by_number.remove(&left.number);
            self.free.push(lane);
        }
    }

    /// Whether a stream waits for its turn.
    pub(super) fn has(&self, key: u32) -> bool {
        self.places.get(key as usize).is_some_and(|place| place.waits)
    }

    /// Puts a stream, which has a lane, at the end of it, unless it waits already.
    pub(super) fn push(&mut self, key: u32) {
        let place = &mut self.places[key as usize];
        if std::mem::replace(&mut place.waits, true) {
            return;
        }
        place.behind = NONE;
        let at = place.lane;
        let lane = &mut self.lanes[at as usize];
        let last = std::mem::replace(&mut lane.last, key);
        if lane.first == NONE {
            lane.first = key;
            self.order.push_back(at);
        } else {
            self.places[last as usize].behind = key;
        }
    }

    /// Takes the next stream.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let at = *self.order.front()?;
        let lane = &mut self.lanes[at as usize];
        let key = lane.first;
        let place = &mut self.places[key as usize];
        place.waits = false;
        lane.first = place.behind;
        self.taken += 1;
        if lane.first == NONE {
            self.order.pop_front();
            self.taken = 0;
        } else if self.taken >= LANE_TURN {
            self.order.rotate_left(1);
            self.taken = 0;
        }
        Some(key)
    }

    /// The index of the lane with this number, made if there is none.
    fn lane_of(&mut self, number: u32) -> u32 {
        if let Some(at) = self.by_number.get(&number) {
            return *at;
        }
        let lane = Lane { number, first: NONE, last: NONE, streams: 0 };
        let at = self.free.pop().unwrap_or(self.lanes.len() as u32);
        match self.lanes.get_mut(at as usize) {
            Some(free) => *free = lane,
            None => self.lanes.push(lane),
        }
        self.by_number.insert(number, at);
        at
    }

    /// The place of a stream, made if it has none. There are as many as the most streams at a time.
    fn place(&mut self, key: u32) -> &mut Place {
        let at = key as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, Place { lane: NONE, behind: NONE, waits: false });
        }
        &mut self.places[at]
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
    fn stream_waits_once_however_often_it_is_woken() {
        assert_eq!(order_of(&[(5, 1), (3, 1)]), [5, 3]);
        let mut lanes = Lanes::default();
        [5, 3].into_iter().for_each(|key| lanes.assign(key, 1));
        [5, 3, 5, 5, 3].into_iter().for_each(|key| lanes.push(key));
        assert!(lanes.has(5) && lanes.has(3) && !lanes.has(4) && !lanes.has(400));
        assert_eq!(lanes.pop(), Some(5));
        assert!(!lanes.has(5));
        lanes.push(5);
        assert_eq!([lanes.pop(), lanes.pop(), lanes.pop()], [Some(3), Some(5), None]);
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

    /// Streams come and go, each with topics of its own. The lanes are not more than the streams.
    #[test]
    fn a_lane_without_streams_is_freed() {
        let mut lanes = Lanes::default();
        for storm in 0..5 {
            for key in 0..100 {
                lanes.assign(key, 0);
                lanes.push(key);
            }
            while lanes.pop().is_some() {}
            for key in 0..100 {
                lanes.assign(key, 1_000 * (storm + 1) + key);
                lanes.push(key);
            }
            assert_eq!(std::iter::from_fn(|| lanes.pop()).count(), 100);
            (0..100).for_each(|key| lanes.leave(key));
            lanes.leave(7);
            assert!(lanes.by_number.is_empty());
        }
        assert!(lanes.lanes.len() <= 101, "{}", lanes.lanes.len());
        assert_eq!(lanes.free.len(), lanes.lanes.len());
    }

    #[test]
    fn stream_that_changes_its_lane_waits_in_the_new_one() {
        let mut lanes = Lanes::default();
        for (key, lane) in [(1, 5), (2, 5), (3, 6)] {
            lanes.assign(key, lane);
        }
        lanes.assign(1, 6);
        lanes.assign(2, 5);
        [3, 2, 1].into_iter().for_each(|key| lanes.push(key));
        assert_eq!(std::iter::from_fn(|| lanes.pop()).collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(lanes.by_number.len(), 2);
    }
}
