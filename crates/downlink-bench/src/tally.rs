//! The tally of deliveries: received, lost, duplicated, out of order.
//!
//! The events of a topic have positions: 0, 1, 2 and so on. Invariant: each connection knows for
//! every event of its topic whether the event has arrived. It stores the position after the newest
//! event that arrived, and the ranges of missing positions below this position (the holes). So the
//! counts are exact, with one exception: a connection stores at most [`HOLES_MAX`] holes, and
//! forgets the oldest hole when another is added. The tally counts the forgotten holes.

use std::{collections::VecDeque, ops::Range};

/// The maximum number of holes that one connection stores. If a server delivers every event in
/// order, there are no holes. If it drops events under load, there are a few dozen. A hole takes 16
/// bytes, so 10,000 connections need at most 160 MB.
pub(super) const HOLES_MAX: usize = 1_000;

/// Counts over all connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    /// Expected deliveries. When an event is published, the number of open connections of its topic
    /// is added.
    pub(super) expected: u64,
    /// Expected deliveries that arrived. A repeated delivery does not count.
    pub(super) received: u64,
    /// Deliveries of an event that had already arrived.
    pub(super) duplicated: u64,
    /// Deliveries that came after the delivery of a later event. They also count as received.
    pub(super) out_of_order: u64,
    /// Deliveries on a connection that did not subscribe to the topic.
    pub(super) wrong_topic: u64,
    /// Deliveries of events from an earlier run, or of events that were never published.
    pub(super) foreign: u64,
    /// Forgotten holes. If an event in a forgotten hole arrives, its delivery counts as duplicated.
    pub(super) holes_forgotten: u64,
}

impl Counts {
    /// The number of expected deliveries that have not arrived.
    pub(super) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    /// True if each expected delivery arrived exactly once, and nothing else arrived. If
    /// `is_ordered`, the deliveries must also have been in order.
    pub(super) fn is_flawless(&self, is_ordered: bool) -> bool {
        let odd = self.duplicated + self.wrong_topic + self.foreign;
        odd == 0 && self.lost() == 0 && !(is_ordered && self.out_of_order > 0)
    }
}

/// The deliveries of one connection, by the positions of the events within their topic.
#[derive(Debug)]
pub(super) struct Seen {
    /// The position after the newest delivered event. Before the first delivery, this is the
    /// position of the first event that the connection has to get.
    next: u64,
    /// The holes, in ascending order. No range is empty.
    holes: VecDeque<Range<u64>>,
}

/// The kind of a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DeliveryOrder {
    InOrder,
    Late,
    Duplicate,
}

impl Seen {
    /// Makes the value for a connection that has no delivery yet, and has to get the events from
    /// the position `first` on.
    pub(super) fn starting_at(first: u64) -> Self {
        Self { next: first, holes: VecDeque::new() }
    }

    /// The position after the newest delivered event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// True if the event at this position has arrived. Also true if the connection need not get the
    /// event, because it was published before the connection came up.
    pub(super) fn has(&self, position: u64) -> bool {
        position < self.next && !self.holes.iter().any(|hole| hole.contains(&position))
    }

    /// Records a delivery, and counts it.
    pub(super) fn arrive(&mut self, position: u64, counts: &mut Counts) -> DeliveryOrder {
        if position >= self.next {
            self.leap(position, counts);
            counts.received += 1;
            return DeliveryOrder::InOrder;
        }
        if self.fill(position) {
            counts.received += 1;
            counts.out_of_order += 1;
            DeliveryOrder::Late
        } else {
            counts.duplicated += 1;
            DeliveryOrder::Duplicate
        }
    }

    /// Records the delivery of a position at or after `next`. The skipped positions become a hole.
    fn leap(&mut self, position: u64, counts: &mut Counts) {
        if position > self.next {
            if self.holes.len() == HOLES_MAX {
                self.holes.pop_front();
                counts.holes_forgotten += 1;
            }
            self.holes.push_back(self.next..position);
        }
        self.next = position + 1;
    }

    /// Removes a position from the hole that contains it. Returns false if no hole contains it.
    fn fill(&mut self, position: u64) -> bool {
        let at = self.holes.partition_point(|hole| hole.end <= position);
        let Some(hole) = self.holes.get_mut(at).filter(|hole| hole.contains(&position)) else {
            return false;
        };
        let after = position + 1..hole.end;
        hole.end = position;
        let before_is_empty = hole.is_empty();
        match (before_is_empty, after.is_empty()) {
            (true, true) => drop(self.holes.remove(at)),
            (true, false) => *hole = after,
            (false, true) => {}
            (false, false) => self.holes.insert(at + 1, after),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(positions: &[u64]) -> Counts {
        let (mut seen, mut counts) = (Seen::starting_at(0), Counts::default());
        for position in positions {
            seen.arrive(*position, &mut counts);
        }
        counts
    }

    fn counts(received: u64, duplicated: u64, out_of_order: u64) -> Counts {
        Counts { received, duplicated, out_of_order, ..Counts::default() }
    }

    #[test]
    fn deliveries_in_order_are_flawless() {
        let counts = Counts { expected: 4, ..counted(&[0, 1, 2, 3]) };
        assert!(counts.is_flawless(true));
        assert_eq!(counts.lost(), 0);
    }

    #[test]
    fn a_missing_delivery_is_lost() {
        let counts = Counts { expected: 5, ..counted(&[0, 1, 3]) };
        assert_eq!(counts.lost(), 2);
        assert!(!counts.is_flawless(false));
    }

    #[test]
    fn a_second_delivery_counts_as_duplicated_but_not_as_received() {
        assert_eq!(counted(&[0, 1, 1, 0, 2]), counts(3, 2, 0));
    }

    #[test]
    fn two_swapped_events_are_one_delivery_out_of_order() {
        let swapped = Counts { expected: 4, ..counted(&[0, 2, 1, 3]) };
        assert_eq!(swapped, Counts { expected: 4, ..counts(4, 0, 1) });
        assert!(!swapped.is_flawless(true));
        assert!(swapped.is_flawless(false), "without the check of the order");
    }

    #[test]
    fn a_hole_can_be_filled_in_any_order_but_each_position_only_once() {
        assert_eq!(counted(&[6, 3, 0, 5, 1, 4, 2]), counts(7, 0, 6));
        assert_eq!(counted(&[6, 3, 3, 0, 0, 5, 5]), counts(4, 3, 3));
    }

    #[test]
    fn a_delivery_before_the_first_expected_position_is_a_duplicate() {
        let (mut seen, mut counts) = (Seen::starting_at(5), Counts::default());
        assert_eq!(seen.arrive(4, &mut counts), DeliveryOrder::Duplicate);
        assert_eq!(seen.arrive(5, &mut counts), DeliveryOrder::InOrder);
    }

    #[test]
    fn a_position_has_not_arrived_if_it_is_in_a_hole_or_after_the_newest_event() {
        let (mut seen, mut counts) = (Seen::starting_at(0), Counts::default());
        for position in [0, 3, 2] {
            seen.arrive(position, &mut counts);
        }
        let arrived: Vec<u64> = (0..6).filter(|position| seen.has(*position)).collect();
        assert_eq!((arrived, seen.next()), (vec![0, 2, 3], 4));
    }

    fn after_holes(number: usize) -> Counts {
        let every_other: Vec<u64> = (0..number as u64).map(|hole| 2 * hole + 1).collect();
        counted(&every_other)
    }

    #[test]
    fn a_hole_above_the_limit_is_counted_as_forgotten() {
        assert_eq!(after_holes(HOLES_MAX - 1).holes_forgotten, 0);
        assert_eq!(after_holes(HOLES_MAX).holes_forgotten, 0);
        assert_eq!(after_holes(HOLES_MAX + 1).holes_forgotten, 1);
    }

    #[test]
    fn the_counts_are_right_for_every_sequence_of_six_deliveries() {
        let mut orders = vec![vec![]];
        for _ in 0..6 {
            let longer = |order: &Vec<u64>| {
                let order = order.clone();
                (0..6).map(move |next| [order.clone(), vec![next]].concat()).collect::<Vec<_>>()
            };
            orders = orders.iter().flat_map(longer).collect();
        }
        for order in orders {
            let received = order.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
            let counts = counted(&order);
            assert_eq!(counts.received, received, "{order:?}");
            assert_eq!(counts.received + counts.duplicated, 6, "{order:?}");
        }
    }
}
