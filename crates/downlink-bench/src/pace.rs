//! When the next event is published: at a rate, or as soon as room is in the window.
//!
//! Sans-IO: times are nanoseconds since the start of the run. At a rate an event carries the time it was
//! due, however late it leaves, so that a server that stalls is charged for all that waited (no
//! coordinated omission). In a window it carries the time it leaves.

use std::collections::VecDeque;

/// Silence after which what is outstanding is given up on: a lost delivery must not stop a closed loop,
/// and no server that still delivers is silent for a quarter of a second.
pub(super) const WINDOW_STALL_NS: u64 = 250_000_000;

/// The pace of a run.
#[derive(Debug)]
pub(super) enum Pace {
    /// Open loop.
    Rate { interval_ns: f64, published: u64 },
    /// Closed loop.
    Window(Window),
}

/// Events on their way, and how many deliveries each still lacks.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    /// Deliveries that the events from `first` on still lack.
    missing: VecDeque<u64>,
    first: u64,
    /// Events that lack any.
    outstanding: usize,
    last_delivery_ns: u64,
    stalls: u64,
}

impl Pace {
    pub(super) fn rate(per_second: f64) -> Self {
        Self::Rate { interval_ns: 1e9 / per_second, published: 0 }
    }

    pub(super) fn window(size: usize) -> Self {
        let missing = VecDeque::new();
        let (first, outstanding, last_delivery_ns, stalls) = (0, 0, 0, 0);
        Self::Window(Window { size, missing, first, outstanding, last_delivery_ns, stalls })
    }

    /// The time to put on the next event, if it is to be published now.
    pub(super) fn due(&self, now_ns: u64) -> Option<u64> {
        match self {
            Self::Rate { .. } => self.next_ns().filter(|due| *due <= now_ns),
            Self::Window(window) => (window.outstanding < window.size).then_some(now_ns),
        }
    }

    /// When the next event is due, if time alone decides.
    pub(super) fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Rate { interval_ns, published } => Some((*published as f64 * interval_ns) as u64),
            Self::Window(_) => None,
        }
    }

    /// An event was published; events are numbered as they are.
    pub(super) fn published(&mut self, deliveries: u64, now_ns: u64) {
        match self {
            Self::Rate { published, .. } => *published += 1,
            Self::Window(window) => {
                if window.outstanding == 0 {
                    window.last_delivery_ns = now_ns;
                }
                window.outstanding += usize::from(deliveries > 0);
                window.missing.push_back(deliveries);
            }
        }
    }

    /// An event was delivered once more.
    pub(super) fn delivered(&mut self, number: u64, now_ns: u64) {
        let Self::Window(window) = self else { return };
        window.last_delivery_ns = now_ns;
        let at = number.checked_sub(window.first).and_then(|at| usize::try_from(at).ok());
        let Some(missing) = at.and_then(|at| window.missing.get_mut(at)) else { return };
        if *missing == 1 {
            window.outstanding -= 1;
        }
        *missing = missing.saturating_sub(1);
        window.forget_whole();
    }

    /// An event was refused: nothing of it will come.
    pub(super) fn refused(&mut self, number: u64) {
        let Self::Window(window) = self else { return };
        let at = number.checked_sub(window.first).and_then(|at| usize::try_from(at).ok());
        let Some(missing) = at.and_then(|at| window.missing.get_mut(at)) else { return };
        window.outstanding -= usize::from(*missing > 0);
        *missing = 0;
        window.forget_whole();
    }

    /// Gives up on what is outstanding if nothing came for long.
    pub(super) fn check_stall(&mut self, now_ns: u64) {
        let Self::Window(window) = self else { return };
        let silence = now_ns.saturating_sub(window.last_delivery_ns);
        if window.outstanding > 0 && silence >= WINDOW_STALL_NS {
            window.first += window.missing.len() as u64;
            window.missing.clear();
            window.outstanding = 0;
            window.stalls += 1;
        }
    }

    /// How often a closed loop gave up.
    pub(super) fn stalls(&self) -> u64 {
        match self {
            Self::Rate { .. } => 0,
            Self::Window(window) => window.stalls,
        }
    }
}

impl Window {
    /// Drops the oldest events that lack nothing.
    fn forget_whole(&mut self) {
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_rate_a_late_event_carries_the_time_it_was_due() {
        let mut pace = Pace::rate(10.0);
        assert_eq!(pace.due(0), Some(0));
        pace.published(5, 0);
        assert_eq!(pace.due(99_999_999), None);
        assert_eq!(pace.next_ns(), Some(100_000_000));
        // Half a second late: five events are due at once, each at its own time.
        for tenth in 1..=5 {
            assert_eq!(pace.due(500_000_000), Some(tenth * 100_000_000));
            pace.published(5, 500_000_000);
        }
        assert_eq!(pace.due(500_000_000), None);
    }

    #[test]
    fn a_window_has_room_again_when_the_last_delivery_of_an_event_is_there() {
        let mut pace = Pace::window(2);
        for _ in 0..2 {
            assert_eq!(pace.due(7), Some(7));
            pace.published(2, 7);
        }
        assert_eq!(pace.due(8), None);
        pace.delivered(0, 8);
        pace.delivered(1, 8);
        assert_eq!(pace.due(9), None);
        pace.delivered(1, 9);
        assert_eq!(pace.due(10), Some(10));
    }

    #[test]
    fn an_event_that_is_for_nobody_or_refused_takes_no_room() {
        let mut pace = Pace::window(1);
        pace.published(0, 1);
        assert_eq!(pace.due(2), Some(2));
        pace.published(3, 2);
        assert_eq!(pace.due(3), None);
        pace.refused(1);
        assert_eq!(pace.due(4), Some(4));
    }

    #[test]
    fn silence_ends_the_wait_for_what_is_outstanding() {
        let mut pace = Pace::window(1);
        pace.published(2, 1_000);
        pace.check_stall(999 + WINDOW_STALL_NS);
        assert_eq!((pace.due(2_000), pace.stalls()), (None, 0));
        pace.check_stall(1_000 + WINDOW_STALL_NS);
        assert_eq!((pace.due(3_000), pace.stalls()), (Some(3_000), 1));
        // A straggler of what was given up on changes nothing.
        pace.published(2, 4_000);
        pace.delivered(0, 5_000);
        assert_eq!(pace.due(6_000), None);
    }
}
