//! The times at which a driver (the task that serves many streams) polls streams again without a
//! wake-up.
//!
//! A driver has one set of times for all its streams, and one timer of the runtime for the set. A
//! stream is in the set at most once. If a stream asks for a later time, the set keeps the earlier
//! time. The stream is then polled too early, and asks again. So an event that postpones the
//! keep-alive of a stream does not change the set.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::http::{Moment, Now};

/// The length of a tick. Times are rounded up to a whole number of ticks.
///
/// The shortest time that matters is the shortest silence before a keep-alive, 100 ms. With ticks
/// of 100 ms, a keep-alive after 100 ms could be delayed to 200 ms. Shorter ticks would not be
/// noticeably more exact.
const TICK_MILLIS: u64 = 50;

/// A moment in ticks. The type has room for more than five years. Any later time means never.
pub(super) type Ticks = u32;

/// The time of a stream that is not in the set.
pub(super) const NEVER: Ticks = Ticks::MAX;

/// The set of one driver. Each entry is a time and the key (the number) of a stream.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Ticks, u32)>);

impl Timers {
    /// Makes the driver poll a stream at the time `at`. If the stream already has an earlier time,
    /// nothing changes. `due` is the stream's time in the set.
    pub(super) fn set(&mut self, key: u32, at: Moment, due: &mut Ticks) {
        // Most streams already have an earlier time.
        if at.as_millis() > TICK_MILLIS * u64::from(*due) {
            return;
        }
        let ticks = Ticks::try_from(at.as_millis().div_ceil(TICK_MILLIS)).unwrap_or(NEVER);
        if ticks < *due {
            self.forget(key, *due);
            *due = ticks;
            self.0.insert((ticks, key));
        }
    }

    /// Removes the time of a stream that ends.
    pub(super) fn forget(&mut self, key: u32, due: Ticks) {
        self.0.remove(&(due, key));
    }

    /// The time at which the next stream is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let (ticks, _) = self.0.first()?;
        Moment::from_millis(TICK_MILLIS * u64::from(*ticks)).instant()
    }

    /// Removes a stream that is due from the set, and returns its key.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<u32> {
        let (ticks, _) = self.0.first()?;
        let is_due = now.has_reached(Moment::from_millis(TICK_MILLIS * u64::from(*ticks)));
        is_due.then(|| self.0.pop_first())?.map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time that is a multiple of a tick.
    fn start() -> Moment {
        let whole = Now::look().moment().as_millis().next_multiple_of(TICK_MILLIS);
        Moment::from_millis(whole)
    }

    fn now(at: Moment) -> Now {
        Now::of(at.instant().expect("the moment has an instant"))
    }

    #[test]
    fn a_stream_is_due_at_its_earliest_time_and_not_before() {
        let mut timers = Timers::default();
        let start = start();
        let mut due = NEVER;
        for after in [300, 120, 500] {
            timers.set(7, start.after(after), &mut due);
        }
        assert_eq!(timers.next(), start.after(150).instant());
        assert_eq!(timers.pop_due(now(start.after(149))), None);
        assert_eq!(timers.pop_due(now(start.after(150))), Some(7));
    }

    #[test]
    fn a_time_that_never_comes_is_not_stored() {
        let mut timers = Timers::default();
        let mut due = NEVER;
        timers.set(7, Moment::NEVER, &mut due);
        assert_eq!((timers.next(), due), (None, NEVER));
    }

    #[test]
    fn a_stream_has_at_most_one_time_and_none_after_its_end() {
        let mut timers = Timers::default();
        let start = start();
        let mut due = NEVER;
        timers.set(7, start.after(9_000), &mut due);
        timers.set(7, start.after(1_000), &mut due);
        timers.set(8, start.after(2_000), &mut NEVER.clone());
        let later = now(start.after(10_000));
        assert_eq!([timers.pop_due(later), timers.pop_due(later)], [Some(7), Some(8)]);
        assert_eq!(timers.pop_due(later), None);
        due = NEVER;
        timers.set(7, start.after(1_000), &mut due);
        timers.forget(7, due);
        timers.forget(8, NEVER);
        assert_eq!((timers.pop_due(later), timers.next()), (None, None));
    }
}
