//! When the next event is published: at a rate, or as soon as room is in the window.
//!
//! Sans-IO: times are nanoseconds since the start of the run. At a rate an event carries its due time,
//! however late it leaves, so that a stall of the server counts for all waiting events (no coordinated
//! omission). In a window it carries the time at which it leaves.

use std::collections::VecDeque;

/// After this silence a closed loop stops waiting for outstanding deliveries. A lost delivery must not
/// stop it, and no server that still delivers is silent for a quarter of a second.
pub(super) const WINDOW_STALL_NS: u64 = 250_000_000;

/// The pace of a run.
#[derive(Clone, Debug)]
pub(super) enum Pace {
    /// Open loop.
    Rate { per_second: f64, published: u64 },
    /// Closed loop.
    Window(Window),
}

/// Events on their way, with the missing deliveries of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    size: usize,
    /// The missing deliveries of each event, from `first` on.
    missing: VecDeque<u64>,
    first: u64,
    /// Events with missing deliveries.
    outstanding: usize,
    last_delivery_ns: u64,
    stalls: u64,
}

impl Pace {
    pub(super) fn rate(per_second: f64) -> Self {
        Self::Rate { per_second, published: 0 }
    }

    pub(super) fn window(size: usize) -> Self {
        Self::Window(Window { size, ..Window::default() })
    }

    /// The events per second, or the size of the window.
    pub(super) fn setting(&self) -> (Option<f64>, Option<usize>) {
        match self {
            Self::Rate { per_second, .. } => (Some(*per_second), None),
            Self::Window(window) => (None, Some(window.size)),
        }
    }

    /// The time that the next event carries, if it is due now.
    pub(super) fn due(&self, now_ns: u64) -> Option<u64> {
        match self {
            Self::Rate { .. } => self.next_ns().filter(|due| *due <= now_ns),
            Self::Window(window) => (window.outstanding < window.size).then_some(now_ns),
        }
    }

    /// When the next event is due, if time alone decides.
    pub(super) fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Rate { per_second, published } => {
                Some((*published as f64 * (1e9 / per_second)) as u64)
            }
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
        window.settle(number, 1);
    }

    /// An event was refused: it has no deliveries.
    pub(super) fn refused(&mut self, number: u64) {
        let Self::Window(window) = self else { return };
        window.settle(number, u64::MAX);
    }

    /// Stops waiting for outstanding deliveries after a long silence.
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

    /// How often a closed loop stopped waiting.
    pub(super) fn stalls(&self) -> u64 {
        match self {
            Self::Rate { .. } => 0,
            Self::Window(window) => window.stalls,
        }
    }
}

impl Window {
    /// Settles this many deliveries of an event, and drops the oldest events that are complete.
    fn settle(&mut self, number: u64, deliveries: u64) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(missing) = at.and_then(|at| self.missing.get_mut(at)) else { return };
        let left = missing.saturating_sub(deliveries);
        self.outstanding -= usize::from(*missing > 0 && left == 0);
        *missing = left;
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
    fn a_window_has_room_after_the_last_delivery_of_an_event() {
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
    fn an_event_without_readers_or_a_refused_one_takes_no_room() {
        let mut pace = Pace::window(1);
        pace.published(0, 1);
        assert_eq!(pace.due(2), Some(2));
        pace.published(3, 2);
        assert_eq!(pace.due(3), None);
        pace.refused(1);
        assert_eq!(pace.due(4), Some(4));
    }

    #[test]
    fn silence_ends_the_wait_for_outstanding_deliveries() {
        let mut pace = Pace::window(1);
        pace.published(2, 1_000);
        pace.check_stall(999 + WINDOW_STALL_NS);
        assert_eq!((pace.due(2_000), pace.stalls()), (None, 0));
        pace.check_stall(1_000 + WINDOW_STALL_NS);
        assert_eq!((pace.due(3_000), pace.stalls()), (Some(3_000), 1));
        // A late delivery of a forgotten event changes nothing.
        pace.published(2, 4_000);
        pace.delivered(0, 5_000);
        assert_eq!(pace.due(6_000), None);
    }
}
