//! The pace decides when the next event is published: at a fixed rate, or as soon as the window has
//! room for it. The window limits the number of events whose deliveries have not all arrived.
//!
//! The pace reads no clock: the callers pass the time, as nanoseconds since the start of the run.
//! At a fixed rate, the record of an event contains the time at which the event should be
//! published, even if the tool publishes it later. So if the server stalls, the latency of all
//! waiting events includes the stall. (Without this rule, the figures would have the error that is
//! called coordinated omission.) With a window, the record contains the time at which the tool
//! publishes the event.

use std::collections::VecDeque;

/// With a window, if no delivery arrives for this long, the load stops waiting for the missing
/// deliveries and publishes again. Without this limit, lost deliveries would stop the load for
/// ever. A working server is never silent for a quarter of a second.
pub(super) const WINDOW_STALL_NS: u64 = 250_000_000;

/// The pace of a run.
#[derive(Clone, Debug)]
pub(super) enum Pace {
    /// Open loop: events are published at a fixed rate.
    Rate { per_second: f64, published: u64 },
    /// Closed loop: an event is published when earlier events have been delivered.
    Window(Window),
}

/// The published events whose deliveries have not all arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    size: usize,
    /// For each event, the number of deliveries that have not arrived. The first entry is for the
    /// event `first`.
    missing: VecDeque<u64>,
    first: u64,
    /// The number of events with missing deliveries.
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

    /// The rate in events per second, or the size of the window.
    pub(super) fn setting(&self) -> (Option<f64>, Option<usize>) {
        match self {
            Self::Rate { per_second, .. } => (Some(*per_second), None),
            Self::Window(window) => (None, Some(window.size)),
        }
    }

    /// The time that the record of the next event must contain. `None` if no event is due now.
    pub(super) fn due(&self, now_ns: u64) -> Option<u64> {
        match self {
            Self::Rate { .. } => self.next_ns().filter(|due| *due <= now_ns),
            Self::Window(window) => (window.outstanding < window.size).then_some(now_ns),
        }
    }

    /// The time at which the next event is due. `None` with a window.
    pub(super) fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Rate { per_second, published } => {
                Some((*published as f64 * (1e9 / per_second)) as u64)
            }
            Self::Window(_) => None,
        }
    }

    /// Records that an event was published, and that this many connections have to get it. The
    /// calls must be in the order of the events: the first call is for the event 0, the second for
    /// the event 1.
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

    /// Records one delivery of an event.
    pub(super) fn delivered(&mut self, number: u64, now_ns: u64) {
        let Self::Window(window) = self else { return };
        window.last_delivery_ns = now_ns;
        window.settle(number, 1);
    }

    /// Records that an event was refused, so it has no missing deliveries.
    pub(super) fn refused(&mut self, number: u64) {
        let Self::Window(window) = self else { return };
        window.settle(number, u64::MAX);
    }

    /// Stops waiting for the missing deliveries if none has arrived for [`WINDOW_STALL_NS`].
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

    /// How many times the load stopped waiting for missing deliveries.
    pub(super) fn stalls(&self) -> u64 {
        match self {
            Self::Rate { .. } => 0,
            Self::Window(window) => window.stalls,
        }
    }
}

impl Window {
    /// Subtracts this many missing deliveries of an event. Then removes events from the front of
    /// the window, as long as they have no missing deliveries.
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
    fn at_a_fixed_rate_the_record_of_a_late_event_has_its_due_time() {
        let mut pace = Pace::rate(10.0);
        assert_eq!(pace.due(0), Some(0));
        pace.published(5, 0);
        assert_eq!(pace.due(99_999_999), None);
        assert_eq!(pace.next_ns(), Some(100_000_000));
        // After a pause of half a second, five events are due at once, each with its own due time.
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
    fn an_event_that_has_no_readers_or_was_refused_takes_no_room_in_the_window() {
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
        // After the load has stopped waiting for an event, a late delivery of this event changes
        // nothing.
        pace.published(2, 4_000);
        pace.delivered(0, 5_000);
        assert_eq!(pace.due(6_000), None);
    }
}
