//! Log time: the time of a clock that never goes back and never leaps ahead, even if the wall clock
//! does.
//!
//! The ages of events, the time for which a topic stays finished, and the time stamps of events are
//! measured in log time. So no event is evicted too early when the wall clock jumps. The difference
//! between wall clock and log time is kept separately. It is only used to show times to users, and
//! to convert the times that users give.
//!
//! The steady clock is the system's clock that only goes forward. Log time follows the wall clock
//! while the wall clock stays within [`SLACK_MS`] of the steady clock. A larger step of the wall
//! clock is a jump. Log time then follows the steady clock, and the jump is added to the difference
//! between wall clock and log time. The caller passes in all times; nothing in this file reads a
//! clock.

use std::time::Duration;

use crate::sync::{AtomicI64, AtomicU8, AtomicU64, Mutex, Ordering};
use crate::types::Timestamp;

/// The maximum deviation of the wall clock from the steady clock between two comparisons, in
/// milliseconds. It is ten seconds. On a healthy machine, a time server corrects the wall clock by
/// less than ten seconds in one step. Events are usually kept for much longer than ten seconds, so
/// such a step hardly affects the time of their eviction.
pub const SLACK_MS: u64 = 10_000;

/// The maximum time between two comparisons of the clocks, in milliseconds. One comparison a second
/// takes no noticeable time. Within one second, a slow drift of the wall clock cannot grow to a
/// jump.
const COMPARE_EVERY_MS: u64 = 1_000;

/// The maximum downtime between two runs of a log, in milliseconds. It is 30 days. If the wall
/// clock says that more time has passed, the wall clock is probably wrong.
const DOWNTIME_MAX_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Called with the milliseconds by which the wall clock jumped; negative if it jumped back.
pub type OnJump = dyn Fn(i64) + Send + Sync;

/// Turns wall-clock time into log time. In this example, the wall clock jumps ahead by a year while
/// 500 milliseconds pass.
///
/// ```
/// use std::time::Duration;
/// use downlink_log::{LogClock, Timestamp};
///
/// let clock = LogClock::start(Timestamp::from_millis(1_000_000), Duration::ZERO, None);
/// let year = 365 * 24 * 60 * 60 * 1_000;
/// let later = clock.now(Timestamp::from_millis(1_000_500 + year), || Duration::from_millis(500));
/// assert_eq!(later.as_millis(), 1_000_500);
/// assert_eq!(clock.shown(later).as_millis(), 1_000_500 + year);
/// ```
pub struct LogClock {
    /// The newest log time. It only rises. It is read and raised without a lock. Relaxed ordering
    /// is enough, because no other data depends on it.
    last: AtomicU64,
    /// Wall time minus log time. It changes only while `compared` is locked.
    delta: AtomicI64,
    /// When log time reaches this value, `now` reads the steady clock again. The value changes only
    /// while `compared` is locked.
    compare_at: AtomicU64,
    compared: Mutex<Compared>,
    /// Whether [`follow`](Self::follow) was called. It changes only while `compared` is locked.
    follows: AtomicU8,
    on_jump: Option<Box<OnJump>>,
}

/// Log time and steady time at the last comparison.
struct Compared {
    log: u64,
    steady: Duration,
}

/// The part of a clock's state that a store keeps across restarts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClockState {
    /// The newest log time.
    pub at: Timestamp,
    /// Wall time minus log time, in milliseconds.
    pub delta_ms: i64,
}

impl LogClock {
    /// A clock that begins now. `kept` is the state of the previous clock, from the store. If at
    /// most 30 days have passed since the state was stored, log time goes forward by the time that
    /// has passed. If more time has passed, or if the wall clock has gone back, log time continues
    /// at the stored time.
    pub fn start(wall: Timestamp, steady: Duration, kept: Option<ClockState>) -> Self {
        let wall = wall.as_millis();
        let (log, delta) = match kept {
            None => (wall, 0),
            Some(ClockState { at, delta_ms }) => {
                let (at, candidate) = (at.as_millis(), less(wall, delta_ms));
                match candidate.checked_sub(at) {
                    Some(downtime) if downtime <= DOWNTIME_MAX_MS => (candidate, delta_ms),
                    None if at - candidate <= SLACK_MS => (at, delta_ms),
                    _ => (at, difference(wall, at)),
                }
            }
        };
        Self {
            last: AtomicU64::new(log),
            delta: AtomicI64::new(delta),
            compare_at: AtomicU64::new(log.saturating_add(COMPARE_EVERY_MS)),
            compared: Mutex::new(Compared { log, steady }),
            follows: AtomicU8::new(0),
            on_jump: None,
        }
    }

    /// Sets a function that is called after each jump, while no lock is held.
    #[must_use]
    pub fn on_jump(mut self, on_jump: impl Fn(i64) + Send + Sync + 'static) -> Self {
        self.on_jump = Some(Box::new(on_jump));
        self
    }

    /// The log time. `steady` reads a clock that only goes forward and also counts while the
    /// machine sleeps. `now` calls `steady` about once a second, and when the wall clock seems
    /// wrong.
    pub fn now(&self, wall: Timestamp, steady: impl FnOnce() -> Duration) -> Timestamp {
        let candidate = less(wall.as_millis(), self.delta.load(Ordering::Relaxed));
        let last = self.last.load(Ordering::Relaxed);
        let compare_at = self.compare_at.load(Ordering::Relaxed);
        if candidate >= last && candidate < compare_at {
            return self.raise(candidate);
        }
        self.compare(wall.as_millis(), steady)
    }

    /// The time to show to users for a log time: the log time plus the current difference between
    /// wall clock and log time.
    pub fn shown(&self, at: Timestamp) -> Timestamp {
        let delta = self.delta.load(Ordering::Relaxed);
        Timestamp::from_millis(at.as_millis().saturating_add_signed(delta))
    }

    /// The log time that belongs to a time given by [`shown`](Self::shown).
    pub fn log_time(&self, shown: Timestamp) -> Timestamp {
        Timestamp::from_millis(less(shown.as_millis(), self.delta.load(Ordering::Relaxed)))
    }

    /// Wall time minus log time, in milliseconds, for a store to keep.
    pub fn delta_ms(&self) -> i64 {
        self.delta.load(Ordering::Relaxed)
    }

    /// A replica is a log that copies another log, its upstream. This call makes the log time of a
    /// replica follow the log time of its upstream. `upstream` is the state of the upstream's clock
    /// a moment ago. Log time never goes back: if it is ahead of the upstream, it stands still
    /// until the upstream has caught up.
    ///
    /// If the wall clocks of both machines agree within [`SLACK_MS`], the replica takes over the
    /// difference between wall clock and log time, so both show the same times. Otherwise one of
    /// the wall clocks is wrong. Log time still follows the upstream, so that no event is evicted
    /// too early. But the times that the replica shows follow its own wall clock.
    pub fn follow(&self, wall: Timestamp, steady: impl FnOnce() -> Duration, upstream: ClockState) {
        let (wall, at) = (wall.as_millis(), upstream.at.as_millis());
        let agrees = less(wall, upstream.delta_ms).abs_diff(at) <= SLACK_MS;
        let delta = if agrees { upstream.delta_ms } else { difference(wall, at) };
        let last = self.last.load(Ordering::Relaxed);
        if self.delta.load(Ordering::Relaxed) == delta && last >= at {
            return;
        }
        let mut compared = self.compared.lock();
        let log = less(wall, delta).max(at).max(last);
        self.delta.store(delta, Ordering::Relaxed);
        self.follows.store(1, Ordering::Relaxed);
        *compared = Compared { log, steady: steady() };
        self.compare_at.store(log.saturating_add(COMPARE_EVERY_MS), Ordering::Relaxed);
        self.raise(log);
    }

    fn compare(&self, wall: u64, steady: impl FnOnce() -> Duration) -> Timestamp {
        let mut jump = None;
        let now = {
            let mut compared = self.compared.lock();
            let steady = steady();
            let delta = self.delta.load(Ordering::Relaxed);
            let (last, candidate) = (self.last.load(Ordering::Relaxed), less(wall, delta));
            let passed = steady.saturating_sub(compared.steady).as_millis();
            let expected = compared.log.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
            let is_ahead = candidate > expected.saturating_add(SLACK_MS);
            // A clock that was ahead of its upstream stands still until the upstream has caught up.
            let follows = self.follows.load(Ordering::Relaxed) > 0;
            let is_behind = !follows && candidate < last.saturating_sub(SLACK_MS);
            let now = if is_ahead || is_behind { expected.max(last) } else { candidate.max(last) };
            if is_ahead || is_behind {
                let new = difference(wall, now);
                jump = Some(new.saturating_sub(delta));
                self.delta.store(new, Ordering::Relaxed);
            }
            if candidate >= last || jump.is_some() {
                *compared = Compared { log: now, steady };
                self.compare_at.store(now.saturating_add(COMPARE_EVERY_MS), Ordering::Relaxed);
            }
            self.raise(now)
        };
        if let (Some(jump), Some(on_jump)) = (jump, &self.on_jump) {
            on_jump(jump);
        }
        now
    }

    fn raise(&self, now: u64) -> Timestamp {
        Timestamp::from_millis(self.last.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

impl std::fmt::Debug for LogClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogClock").field("delta_ms", &self.delta_ms()).finish_non_exhaustive()
    }
}

fn less(time: u64, delta: i64) -> u64 {
    time.saturating_sub_signed(delta)
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(i64::MAX)
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    const T0: u64 = 1_700_000_000_000;
    const DAY: u64 = 24 * 60 * 60 * 1_000;

    fn wall(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn clock(kept: Option<ClockState>) -> LogClock {
        LogClock::start(wall(T0), Duration::ZERO, kept)
    }

    /// The log time when the wall clock shows `millis` and the steady clock shows `steady_ms`.
    fn at(clock: &LogClock, millis: u64, steady_ms: u64) -> u64 {
        clock.now(wall(millis), || Duration::from_millis(steady_ms)).as_millis()
    }

    #[test]
    fn log_time_follows_a_healthy_wall_clock() {
        let clock = clock(None);
        for ms in [0, 1, 999, 1_000, 5_000, DAY, 3 * DAY] {
            assert_eq!(at(&clock, T0 + ms, ms), T0 + ms);
        }
        assert_eq!(clock.delta_ms(), 0);
    }

    #[test]
    fn log_time_follows_the_steady_clock_through_a_jump_ahead_and_back() {
        let clock = clock(None);
        assert_eq!(at(&clock, T0 + 3_650 * DAY, 100), T0 + 100);
        assert_eq!(clock.shown(wall(T0 + 100)), wall(T0 + 3_650 * DAY));
        assert_eq!(at(&clock, T0 + 3_650 * DAY + 400, 500), T0 + 500);
        assert_eq!(at(&clock, T0 + 600, 600), T0 + 600);
        assert_eq!(clock.delta_ms(), 0);
    }

    #[test]
    fn a_small_step_back_stops_log_time_and_a_large_step_back_is_a_jump() {
        let clock = clock(None);
        assert_eq!(at(&clock, T0 + 20_000, 20_000), T0 + 20_000);
        assert_eq!(at(&clock, T0 + 10_000, 21_000), T0 + 20_000);
        assert_eq!(at(&clock, T0 + 20_001, 31_001), T0 + 20_001);
        assert_eq!(at(&clock, T0 + 10_000, 32_001), T0 + 32_001);
        assert_eq!(clock.delta_ms(), -22_001);
    }

    #[test]
    fn a_step_forward_by_more_than_ten_seconds_is_a_jump() {
        let exact = clock(None);
        assert_eq!(at(&exact, T0 + 1_000 + SLACK_MS, 1_000), T0 + 1_000 + SLACK_MS);
        let above = clock(None);
        assert_eq!(at(&above, T0 + 1_001 + SLACK_MS, 1_000), T0 + 1_000);
    }

    /// A busy log calls `now` again and again. A wall clock that drifts by a minute a day makes no
    /// jump.
    #[test]
    fn a_drift_never_adds_up_to_a_jump() {
        let clock = clock(None);
        for second in 0..200_000 {
            let ms = second * 1_000;
            let drifted = ms + ms / 1_440;
            assert_eq!(at(&clock, T0 + drifted, ms), T0 + drifted);
        }
    }

    #[test]
    fn log_time_goes_forward_by_a_downtime_of_up_to_thirty_days() {
        let kept = |at, delta_ms| Some(ClockState { at: wall(at), delta_ms });
        let start = |kept| {
            let clock = clock(kept);
            (clock.last.load(Ordering::Relaxed), clock.delta_ms())
        };
        assert_eq!(start(kept(T0 - 30 * DAY, 0)), (T0, 0));
        assert_eq!(start(kept(T0 - 30 * DAY - 1, 0)), (T0 - 30 * DAY - 1, 30 * DAY as i64 + 1));
        assert_eq!(start(kept(T0 + 10_000, 0)), (T0 + 10_000, 0));
        assert_eq!(start(kept(T0 + 10_001, 0)), (T0 + 10_001, -10_001));
        assert_eq!(start(kept(T0 - 5 * DAY, DAY as i64)), (T0 - DAY, DAY as i64));
    }

    /// The upstream's wall clock has jumped ahead by a day, so its log time is a day behind its
    /// wall clock. The replica was started after the jump.
    #[test]
    fn a_replica_follows_the_log_time_of_its_upstream_and_shows_the_same_times() {
        let clock = clock(None);
        let upstream = |at| ClockState { at: wall(at), delta_ms: DAY as i64 };
        clock.follow(wall(T0 + 5), || Duration::from_millis(5), upstream(T0 - DAY + 4));
        assert_eq!(clock.delta_ms(), DAY as i64);
        // Log time was ahead of the upstream, and does not go back.
        assert_eq!(at(&clock, T0 + 100, 100), T0);
        let ahead = super::LogClock::start(wall(T0 - 2 * DAY), Duration::ZERO, None);
        ahead.follow(wall(T0 + 5), || Duration::ZERO, upstream(T0 - DAY + 4));
        assert_eq!(at(&ahead, T0 + 500, 500), T0 - DAY + 500);
        assert_eq!(ahead.shown(wall(T0 - DAY)), wall(T0));
    }

    #[test]
    fn a_replica_whose_wall_clock_is_wrong_still_follows_the_log_time_of_its_upstream() {
        for wrong in [T0 + 3 * DAY, T0 - 3 * DAY] {
            let clock = super::LogClock::start(wall(wrong), Duration::ZERO, None);
            let before = at(&clock, wrong, 0);
            let upstream = |at| ClockState { at: wall(at), delta_ms: 0 };
            clock.follow(wall(wrong + 10), || Duration::from_millis(10), upstream(T0 + 8));
            let now = at(&clock, wrong + 50, 50);
            assert_eq!(now, before.max(T0 + 48), "log time never goes back");
            assert_eq!(clock.delta_ms(), wrong as i64 + 2 - T0 as i64);
            // The wall clock is corrected.
            clock.follow(wall(T0 + 100), || Duration::from_millis(100), upstream(T0 + 99));
            assert_eq!((at(&clock, T0 + 200, 200), clock.delta_ms()), (now.max(T0 + 200), 0));
        }
    }

    #[test]
    fn a_jump_is_reported_once_and_a_shown_time_is_converted_back_to_log_time() {
        use std::sync::{Arc, atomic::AtomicI64};
        let jumps = Arc::new(AtomicI64::new(0));
        let seen = Arc::clone(&jumps);
        let clock = clock(None).on_jump(move |by| {
            seen.fetch_add(by, std::sync::atomic::Ordering::SeqCst);
        });
        at(&clock, T0 + DAY, 0);
        at(&clock, T0 + DAY + 5, 5);
        assert_eq!(jumps.load(std::sync::atomic::Ordering::SeqCst), DAY as i64);
        assert_eq!(clock.log_time(clock.shown(wall(T0))), wall(T0));
    }
}
