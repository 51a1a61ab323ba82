//! When streams are to be polled again, if nothing happens before.
//!
//! One heap for all streams of a driver, and one timer of the runtime for the heap. A stream is in
//! it once as a rule: one that asks for a later time than it is in for stays where it is, is polled
//! too early, and asks again; so an event costs no timer operation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

/// What times are rounded up to. No promise of this crate is finer than the shortest silence of
/// 100 ms; half would buy nothing, double would be seen there.
const TICK: Duration = Duration::from_millis(50);

/// A time in ticks since the driver began. They last for seven years; what is due after that is
/// never due.
pub(super) type Ticks = u32;

/// How many times that nobody waits for any more may be kept, besides one for each stream.
///
/// Sweeping them out costs as much as there are streams: with half as many, a server of few streams
/// that come and go would sweep often; twice as many would be memory for nothing.
const STALE_MAX: usize = 1_024;

/// No time.
pub(super) const NEVER: Ticks = Ticks::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Timers {
    origin: Instant,
    heap: BinaryHeap<Reverse<(Ticks, u32)>>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), heap: BinaryHeap::new() }
    }

    /// Has a stream polled at a time, unless it is in for an earlier one; `due` is what it is in for.
    pub(super) fn set(&mut self, key: u32, at: Instant, due: &mut Ticks) {
        let ticks = self.ticks(at);
        if ticks < *due {
            *due = ticks;
            self.heap.push(Reverse((ticks, key)));
        }
    }

    /// Sweeps out what nobody waits for any more, once it outweighs the streams there are; `dues`
    /// gives those that wait. Streams that come and go leave their times behind.
    pub(super) fn sweep<I>(&mut self, streams: usize, dues: impl FnOnce() -> I)
    where
        I: Iterator<Item = (Ticks, u32)>,
    {
        if self.heap.len() > 2 * streams + STALE_MAX {
            self.heap = dues().map(Reverse).collect();
        }
    }

    /// When the next stream is due, early ones among them.
    pub(super) fn next(&self) -> Option<Instant> {
        let Reverse((ticks, _)) = self.heap.peek()?;
        self.origin.checked_add(TICK.checked_mul(*ticks)?)
    }

    /// Takes out a stream that is due, and what it was in for. Other than that it is out of date.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(u32, Ticks)> {
        let Reverse((ticks, key)) = *self.heap.peek()?;
        let elapsed = now.saturating_duration_since(self.origin);
        if elapsed.as_millis() < TICK.as_millis() * u128::from(ticks) {
            return None;
        }
        self.heap.pop();
        Some((key, ticks))
    }

    fn ticks(&self, at: Instant) -> Ticks {
        let since = at.saturating_duration_since(self.origin);
        Ticks::try_from(since.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stream_is_due_at_its_earliest_time_and_not_before() {
        let mut timers = Timers::new();
        let start = Instant::now();
        let mut due = NEVER;
        for after in [300, 120, 500] {
            timers.set(7, start + Duration::from_millis(after), &mut due);
        }
        assert_eq!(timers.next(), Some(start + Duration::from_millis(150)));
        assert_eq!(timers.pop_due(start + Duration::from_millis(149)), None);
        assert_eq!(timers.pop_due(start + Duration::from_millis(150)), Some((7, due)));
    }

    #[tokio::test(start_paused = true)]
    async fn times_of_streams_that_are_gone_do_not_pile_up() {
        let mut timers = Timers::new();
        let day = Instant::now() + Duration::from_secs(86_400);
        let mut waiting = NEVER;
        timers.set(0, day, &mut waiting);
        for _ in 0..10 * STALE_MAX {
            timers.set(1, day, &mut NEVER.clone());
            timers.sweep(1, || std::iter::once((waiting, 0)));
        }
        assert!(timers.heap.len() <= STALE_MAX + 3, "{}", timers.heap.len());
        let mut due = Vec::new();
        while let Some((key, ticks)) = timers.pop_due(day) {
            due.extend((ticks == waiting).then_some(key));
        }
        assert!(due.contains(&0));
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_time_comes_out_as_out_of_date() {
        let mut timers = Timers::new();
        let start = Instant::now();
        let mut due = NEVER;
        timers.set(7, start + Duration::from_secs(9), &mut due);
        timers.set(7, start + Duration::from_secs(1), &mut due);
        let later = start + Duration::from_secs(10);
        assert_eq!(timers.pop_due(later), Some((7, due)));
        let (key, ticks) = timers.pop_due(later).expect("the one before");
        assert_eq!(key, 7);
        assert_ne!(ticks, due);
        assert_eq!(timers.pop_due(later), None);
    }
}
