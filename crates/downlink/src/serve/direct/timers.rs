//! The times at which streams are polled again without a wake-up.
//!
//! A driver has one heap for all its streams, and one timer of the runtime for the heap. A stream is
//! usually in the heap once. A stream that asks for a later time keeps its earlier one, is polled too
//! early, and asks again. So an event costs no timer operation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

use crate::http::{Moment, Now};

/// Times are rounded up to a multiple of this. No promise of this crate is finer than the shortest
/// silence of 100 ms; half would buy nothing, double would be noticed there.
const TICK_MILLIS: u64 = 50;

/// A moment in ticks. They last for more than five years; any later time means never.
pub(super) type Ticks = u32;

/// How many stale times the heap may hold, besides one time for each stream.
///
/// Sweeping them out costs as much as there are streams: with half as many, a server of few streams
/// that come and go would sweep often; twice as many would be memory for nothing.
const STALE_MAX: usize = 1_024;

/// Not in the timers.
pub(super) const NEVER: Ticks = Ticks::MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Ticks, u32)>>,
}

impl Timers {
    /// Has a stream polled at a time, unless it has an earlier one. `due` is its time in the heap.
    pub(super) fn set(&mut self, key: u32, at: Moment, due: &mut Ticks) {
        // Most streams have an earlier time already.
        if at.as_millis() > TICK_MILLIS * u64::from(*due) {
            return;
        }
        let ticks = ticks(at);
        if ticks < *due {
            *due = ticks;
            self.heap.push(Reverse((ticks, key)));
        }
    }

    /// Removes stale times once they outnumber the streams. `dues` returns the current times. Streams
    /// that end leave stale times.
    pub(super) fn sweep<I>(&mut self, streams: usize, dues: impl FnOnce() -> I)
    where
        I: Iterator<Item = (Ticks, u32)>,
    {
        if self.heap.len() > 2 * streams + STALE_MAX {
            self.heap = dues().map(Reverse).collect();
        }
    }

    /// When the next stream is due, possibly too early.
    pub(super) fn next(&self) -> Option<Instant> {
        let Reverse((ticks, _)) = self.heap.peek()?;
        Moment::from_millis(TICK_MILLIS * u64::from(*ticks)).instant()
    }

    /// Takes out a stream that is due and its time. It is stale if the stream has another time.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<(u32, Ticks)> {
        let Reverse((ticks, key)) = *self.heap.peek()?;
        if !now.has_reached(Moment::from_millis(TICK_MILLIS * u64::from(ticks))) {
            return None;
        }
        self.heap.pop();
        Some((key, ticks))
    }
}

fn ticks(at: Moment) -> Ticks {
    Ticks::try_from(at.as_millis().div_ceil(TICK_MILLIS)).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u32 = 86_400_000;

    /// A whole tick.
    fn start() -> Moment {
        let whole = Now::look().moment().as_millis().next_multiple_of(TICK_MILLIS);
        Moment::from_millis(whole)
    }

    fn now(at: Moment) -> Now {
        Now::of(at.instant().expect("it comes"))
    }

    #[test]
    fn stream_is_due_at_its_earliest_time_and_not_before() {
        let mut timers = Timers::default();
        let start = start();
        let mut due = NEVER;
        for after in [300, 120, 500] {
            timers.set(7, start.after(after), &mut due);
        }
        assert_eq!(timers.next(), start.after(150).instant());
        assert_eq!(timers.pop_due(now(start.after(149))), None);
        assert_eq!(timers.pop_due(now(start.after(150))), Some((7, due)));
    }

    #[test]
    fn never_is_not_kept() {
        let mut timers = Timers::default();
        let mut due = NEVER;
        timers.set(7, Moment::NEVER, &mut due);
        assert_eq!((timers.next(), due), (None, NEVER));
    }

    #[test]
    fn times_of_streams_that_are_gone_do_not_pile_up() {
        let mut timers = Timers::default();
        let day = start().after(DAY);
        let mut waiting = NEVER;
        timers.set(0, day, &mut waiting);
        for _ in 0..10 * STALE_MAX {
            timers.set(1, day, &mut NEVER.clone());
            timers.sweep(1, || std::iter::once((waiting, 0)));
        }
        assert!(timers.heap.len() <= STALE_MAX + 3, "{}", timers.heap.len());
        let mut due = Vec::new();
        while let Some((key, ticks)) = timers.pop_due(now(day)) {
            due.extend((ticks == waiting).then_some(key));
        }
        assert!(due.contains(&0));
    }

    #[test]
    fn replaced_time_comes_out_as_out_of_date() {
        let mut timers = Timers::default();
        let start = start();
        let mut due = NEVER;
        timers.set(7, start.after(9_000), &mut due);
        timers.set(7, start.after(1_000), &mut due);
        let later = now(start.after(10_000));
        assert_eq!(timers.pop_due(later), Some((7, due)));
        let (key, ticks) = timers.pop_due(later).expect("the one before");
        assert_eq!(key, 7);
        assert_ne!(ticks, due);
        assert_eq!(timers.pop_due(later), None);
    }
}
