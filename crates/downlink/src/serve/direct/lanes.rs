//! The order in which a driver (a task that serves many event streams) polls its streams. Each
//! woken stream waits in a lane, which is a queue for the readers of one or more topics. The lanes
//! take turns.
//!
//! An event of a topic with ten thousand readers wakes all these readers at once. A reader of
//! another topic may be woken right after them. With lanes, the reader of the other topic waits for
//! only a few of the ten thousand. Within a lane, streams are in the order of their wake-ups.
//!
//! The lanes are linked lists in an array with an entry for each stream. So the driver finds the
//! next stream without reading the memory of the streams themselves. Their memory is rarely in the
//! processor's cache.

use std::collections::VecDeque;

/// How many streams of a lane are polled before the next lane takes its turn.
///
/// The writes of this many streams take about a quarter of a millisecond. With 1, two lanes with
/// many readers would alternate after each stream, and each lane would evict the other lane's event
/// from the processor's cache. With ten times as many, the only reader of another topic would
/// notice the wait.
pub(super) const LANE_TURN: u32 = 32;

/// The number of lanes. Each stream has a number, which depends on the topics and patterns that it
/// reads. The stream's lane is the remainder of this number divided by `LANES`.
///
/// By chance, one topic in 4,096 shares the lane of a busy topic. Its readers then wait for the
/// readers of the busy topic. With fewer lanes, this would happen more often. The lanes take 32 KiB
/// of memory for each driver.
const LANES: usize = 4_096;

/// The key that stands for no stream.
const NONE: u32 = u32::MAX;

/// One lane: a linked list of entries.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// The stream that is polled next. `NONE` if no stream waits in this lane.
    first: u32,
    last: u32,
}

/// The entry of one stream.
#[derive(Clone, Copy, Debug)]
struct LaneEntry {
    lane: u16,
    waits: bool,
    /// The next stream in the same lane.
    behind: u32,
}

/// The lanes of one driver.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The entry of each stream, at the index of the stream's key (its number). There is an entry
    /// for each key that was ever used.
    entries: Vec<LaneEntry>,
    lanes: Vec<Lane>,
    /// The lanes in which streams wait, in the order of their turns.
    order: VecDeque<u16>,
    /// How many streams of the first lane were taken in its present turn.
    taken: u32,
}

impl Default for Lanes {
    fn default() -> Self {
        let lanes = vec![Lane { first: NONE, last: NONE }; LANES];
        Self { entries: Vec::new(), lanes, order: VecDeque::new(), taken: 0 }
    }
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Assigns a stream to a lane. The lane is the remainder of `number` divided by `LANES`. The
    /// stream must not be waiting in a lane.
    pub(super) fn assign(&mut self, key: u32, number: u32) {
        let at = key as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, LaneEntry { lane: 0, waits: false, behind: NONE });
        }
        self.entries[at].lane = (number as usize % LANES) as u16;
    }

    /// Whether a stream waits in its lane.
    pub(super) fn has(&self, key: u32) -> bool {
        self.entries.get(key as usize).is_some_and(|entry| entry.waits)
    }

    /// Puts a stream at the end of its lane. Does nothing if the stream already waits there. The
    /// stream must have a lane.
    pub(super) fn push(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        if std::mem::replace(&mut entry.waits, true) {
            return;
        }
        entry.behind = NONE;
        let at = entry.lane;
        let lane = &mut self.lanes[usize::from(at)];
        let last = std::mem::replace(&mut lane.last, key);
        if lane.first == NONE {
            lane.first = key;
            self.order.push_back(at);
        } else {
            self.entries[last as usize].behind = key;
        }
    }

    /// Takes the next stream.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let at = *self.order.front()?;
        let lane = &mut self.lanes[usize::from(at)];
        let key = lane.first;
        let entry = &mut self.entries[key as usize];
        entry.waits = false;
        lane.first = entry.behind;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes streams, takes them all out again, and returns their order.
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
    fn a_lane_is_first_in_first_out() {
        assert_eq!(order_of(&[(5, 1), (3, 1), (4, 1)]), [5, 3, 4]);
        assert!(order_of(&[]).is_empty());
    }

    #[test]
    fn a_stream_waits_once_however_often_it_is_woken() {
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
    fn a_single_reader_waits_for_one_turn_of_a_full_lane() {
        let mut pushed: Vec<_> = (0..500).map(|key| (key, 7)).collect();
        pushed.push((900, 8));
        pushed.push((901, 9));
        let order = order_of(&pushed);
        let place = |key| order.iter().position(|at| *at == key).expect("the stream was pushed");
        assert_eq!(place(900), LANE_TURN as usize);
        assert_eq!(place(901), LANE_TURN as usize + 1);
        assert_eq!(order.len(), 502);
        assert!(order.iter().filter(|key| **key < 500).is_sorted());
    }

    #[test]
    fn numbers_with_equal_remainders_share_a_lane() {
        let lanes = LANES as u32;
        assert_eq!(order_of(&[(1, 7), (2, 7 + lanes), (3, u32::MAX)]), [1, 2, 3]);
    }

    #[test]
    fn a_stream_that_changes_its_lane_waits_in_the_new_one() {
        let mut lanes = Lanes::default();
        for (key, lane) in [(1, 5), (2, 5), (3, 6)] {
            lanes.assign(key, lane);
        }
        lanes.assign(1, 6);
        lanes.assign(2, 5);
        [3, 2, 1].into_iter().for_each(|key| lanes.push(key));
        assert_eq!(std::iter::from_fn(|| lanes.pop()).collect::<Vec<_>>(), [3, 1, 2]);
    }
}
