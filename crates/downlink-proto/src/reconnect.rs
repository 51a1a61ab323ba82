//! Decides when an `EventSource` reconnects, how long it waits, and when it gives up for good.
//!
//! Rules without clock, randomness or sockets: the caller says what happened, and learns how long to
//! wait. That is never less than the server asked for, and every wait has a limit. Not here: opening
//! connections, timeouts, and the last event id, which belong to the client.

use std::time::Duration;

/// The reconnection time until a `retry:` field sets another: 3 seconds.
///
/// Half would double the load on a server that is restarting. With double, people would notice the
/// delay on a page.
pub const RECONNECTION_TIME_DEFAULT: Duration = Duration::from_secs(3);

/// The shortest reconnection time that a server can set: half a second, as in Firefox.
///
/// A server that sets 0 and ends its streams at once would otherwise get thousands of requests a
/// second. With half, a thousand clients are 4,000 requests a second. With double, a server that
/// ends a stream after each event would lose its pace.
pub const RECONNECTION_TIME_MIN: Duration = Duration::from_millis(500);

/// A stream that ends sooner than this and brings no event counts as a failure: 1 second.
///
/// A proxy that answers in place of a dead server ends its streams within a round trip. With half,
/// a slow one would not be recognised. With double, servers that hold each stream for a second or
/// two would be punished.
pub const EMPTY_STREAM_MAX: Duration = Duration::from_secs(1);

/// The largest extra wait after failures in a row: 30 seconds.
///
/// Less would keep a dead server busy. More would leave users without events long after it came
/// back.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(30);

/// The longest wait that a server may ask for with `retry:` or `Retry-After`: 1 hour.
///
/// A server in maintenance may ask for an hour and mean it. A mistyped number must not silently
/// stop a subscription for days.
pub const WAIT_MAX_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// The range of the first extra wait: up to 1 second. It doubles with every failure in a row.
const BACKOFF_STEP: Duration = Duration::from_secs(1);

/// Whether the client tries again after an answer that is not a stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReconnectMode {
    /// Tries again after statuses 408, 425, 429 and 5xx, and waits for `Retry-After` if it is
    /// longer.
    #[default]
    Resilient,
    /// Any answer that is not a stream ends the client for good, as the standard requires of
    /// browsers.
    Spec,
}

/// The rules by which [`Reconnect`] decides.
///
/// # Examples
///
/// ```
/// use downlink_proto::reconnect::{ReconnectMode, ReconnectPolicy};
///
/// let policy = ReconnectPolicy::spec().attempts_max(5);
/// assert_eq!(policy.mode, ReconnectMode::Spec);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct ReconnectPolicy {
    /// Whether the client tries again after an answer that is not a stream.
    pub mode: ReconnectMode,
    /// The reconnection time until the server sets another.
    pub reconnection_time: Duration,
    /// The largest extra wait after failures in a row.
    pub backoff_max: Duration,
    /// The longest wait that a server may ask for.
    pub wait_max: Duration,
    /// The attempts in a row that may fail before it gives up. `None` means no limit.
    pub attempts_max: Option<u32>,
}

impl ReconnectPolicy {
    /// Tries again whenever that can help. This is the default.
    pub const fn resilient() -> Self {
        Self {
            mode: ReconnectMode::Resilient,
            reconnection_time: RECONNECTION_TIME_DEFAULT,
            backoff_max: BACKOFF_MAX_DEFAULT,
            wait_max: WAIT_MAX_DEFAULT,
            attempts_max: None,
        }
    }

    /// Gives up exactly when the standard tells browsers to.
    pub const fn spec() -> Self {
        Self { mode: ReconnectMode::Spec, ..Self::resilient() }
    }

    /// Sets the reconnection time that applies until a `retry:` field sets another.
    pub const fn reconnection_time(mut self, time: Duration) -> Self {
        self.reconnection_time = time;
        self
    }

    /// Sets the largest extra wait after failures in a row.
    pub const fn backoff_max(mut self, max: Duration) -> Self {
        self.backoff_max = max;
        self
    }

    /// Sets the longest wait that a server may ask for.
    pub const fn wait_max(mut self, max: Duration) -> Self {
        self.wait_max = max;
        self
    }

    /// Sets how many attempts in a row may fail before it gives up. 0 counts as 1.
    pub const fn attempts_max(mut self, max: u32) -> Self {
        self.attempts_max = Some(max);
        self
    }
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self::resilient()
    }
}

/// How an attempt or an open stream ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The open stream ended, cleanly or not. It lasted, or it brought an event.
    Ended,
    /// The open stream ended within [`EMPTY_STREAM_MAX`], and brought no event.
    EndedEmpty,
    /// There was no answer: no connection, an error before the head, or a timeout.
    Unanswered,
    /// The answer's status is not 200.
    Refused {
        /// The status.
        status: u16,
        /// The wait that `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// Something else that would fail in the same way again, such as an answer that is no event stream
    /// or one that the client cannot read.
    Futile,
}

/// Why there will be no further attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// The server answered 204. By the standard, the client must then stop.
    NoContent,
    /// Another attempt would fail in the same way.
    Failed,
    /// The most attempts in a row that the policy allows have failed.
    AttemptsSpent,
}

/// The reconnection state of one client.
///
/// For each attempt, [`handle_open`](Self::handle_open) if the answer is a stream, and
/// [`handle_outcome`](Self::handle_outcome) once. [`handle_retry`](Self::handle_retry) may come at any
/// time.
///
/// # Examples
///
/// ```
/// use downlink_proto::reconnect::{Outcome, Reconnect, ReconnectPolicy};
/// use std::time::Duration;
///
/// let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
/// reconnect.handle_open();
/// reconnect.handle_retry(Duration::from_millis(500));
/// assert_eq!(reconnect.handle_outcome(0, Outcome::Ended), Ok(Duration::from_millis(500)));
/// ```
#[derive(Clone, Debug)]
pub struct Reconnect {
    policy: ReconnectPolicy,
    /// Invariant: at most `policy.wait_max`.
    reconnection_time: Duration,
    /// Attempts that failed since the last open stream.
    failures: u32,
    /// Failed attempts and empty streams since the last stream that was not empty.
    fruitless: u32,
}

impl Reconnect {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(policy: ReconnectPolicy) -> Self {
        let reconnection_time = policy.reconnection_time.min(policy.wait_max);
        Self { policy, reconnection_time, failures: 0, fruitless: 0 }
    }

    /// Reports an open stream. Failures before it no longer count against
    /// [`attempts_max`](ReconnectPolicy::attempts_max).
    pub fn handle_open(&mut self) {
        self.failures = 0;
    }

    /// Reports a `retry:` field. It applies until the next one, also across reconnects. Less than
    /// [`RECONNECTION_TIME_MIN`] counts as that much.
    pub fn handle_retry(&mut self, time: Duration) {
        self.reconnection_time = time.max(RECONNECTION_TIME_MIN).min(self.policy.wait_max);
    }

    /// The reconnection time now in force.
    #[must_use]
    pub fn reconnection_time(&self) -> Duration {
        self.reconnection_time
    }

    /// An attempt or an open stream ended. Gives the wait until the next attempt. `random` is any
    /// number, evenly spread.
    ///
    /// # Errors
    ///
    /// [`StopReason`] if there is to be no further attempt.
    pub fn handle_outcome(
        &mut self,
        random: u64,
        outcome: Outcome,
    ) -> Result<Duration, StopReason> {
        match outcome {
            Outcome::Ended => {
                self.fruitless = 0;
                Ok(self.reconnection_time)
            }
            Outcome::EndedEmpty => Ok(self.wait(random, Duration::ZERO)),
            Outcome::Unanswered => self.back_off(random, Duration::ZERO),
            Outcome::Refused { status: 204, .. } => Err(StopReason::NoContent),
            Outcome::Refused { status, retry_after } if self.may_retry(status) => {
                let asked = retry_after.unwrap_or_default().min(self.policy.wait_max);
                self.back_off(random, asked)
            }
            Outcome::Refused { .. } | Outcome::Futile => Err(StopReason::Failed),
        }
    }

    fn may_retry(&self, status: u16) -> bool {
        self.policy.mode == ReconnectMode::Resilient
            && matches!(status, 408 | 425 | 429 | 500..=599)
    }

    fn back_off(&mut self, random: u64, asked: Duration) -> Result<Duration, StopReason> {
        self.failures = self.failures.saturating_add(1);
        if self.policy.attempts_max.is_some_and(|max| self.failures >= max) {
            return Err(StopReason::AttemptsSpent);
        }
        Ok(self.wait(random, asked))
    }

    /// The wait after one more fruitless attempt or stream. It is the wait that the server asked
    /// for, plus a random part of a range. The range doubles with every further one (full jitter),
    /// so that clients do not synchronise.
    fn wait(&mut self, random: u64, asked: Duration) -> Duration {
        let doubled = 2_u32.saturating_pow(self.fruitless);
        self.fruitless = self.fruitless.saturating_add(1);
        let range = BACKOFF_STEP.saturating_mul(doubled).min(self.policy.backoff_max);
        self.reconnection_time.max(asked).saturating_add(part_of(range, random))
    }
}

/// `range` times `random` / 2^64.
fn part_of(range: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanos) * u128::from(random)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 0;
    const MOST: u64 = u64::MAX;
    const REFUSED_503: Outcome = Outcome::Refused { status: 503, retry_after: None };

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn refused(status: u16) -> Outcome {
        Outcome::Refused { status, retry_after: None }
    }

    /// The wait, or a panic: in whole nanoseconds rounded up to milliseconds.
    #[track_caller]
    fn wait(reconnect: &mut Reconnect, random: u64, outcome: Outcome) -> Duration {
        let after = reconnect.handle_outcome(random, outcome).unwrap();
        Duration::from_millis(after.as_nanos().div_ceil(1_000_000) as u64)
    }

    #[track_caller]
    fn assert_stops(policy: ReconnectPolicy, outcome: Outcome, reason: StopReason) {
        assert_eq!(Reconnect::new(policy).handle_outcome(MOST, outcome), Err(reason));
    }

    #[test]
    fn end_of_the_stream_waits_the_default_time() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), RECONNECTION_TIME_DEFAULT);
    }

    #[test]
    fn retry_holds_over_reconnects() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::spec());
        reconnect.handle_retry(secs(7));
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Ended), secs(7));
        reconnect.handle_open();
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), secs(7));
    }

    #[test]
    fn retry_has_a_floor() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::spec());
        let tick = Duration::from_millis(1);
        let min = RECONNECTION_TIME_MIN;
        for (asked, wait_for) in
            [(Duration::ZERO, min), (min - tick, min), (min, min), (min + tick, min + tick)]
        {
            reconnect.handle_retry(asked);
            assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), wait_for);
        }
    }

    #[test]
    fn a_policy_may_go_below_the_floor() {
        let policy = ReconnectPolicy::spec().reconnection_time(Duration::ZERO);
        assert_eq!(wait(&mut Reconnect::new(policy), MOST, Outcome::Ended), Duration::ZERO);
        let mut reconnect = Reconnect::new(ReconnectPolicy::spec().wait_max(Duration::ZERO));
        reconnect.handle_retry(secs(1));
        assert_eq!(reconnect.reconnection_time(), Duration::ZERO);
    }

    #[test]
    fn empty_streams_wait_longer_each_time_up_to_the_limit() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        reconnect.handle_retry(Duration::ZERO);
        let mut empty = |random| {
            reconnect.handle_open();
            wait(&mut reconnect, random, Outcome::EndedEmpty)
        };
        let waits: Vec<_> = (0..7).map(|_| empty(MOST)).collect();
        assert_eq!(
            waits,
            [1, 2, 4, 8, 16, 30, 30].map(|extra| RECONNECTION_TIME_MIN + secs(extra))
        );
        assert_eq!(empty(LEAST), RECONNECTION_TIME_MIN);
    }

    #[test]
    fn a_stream_that_brought_something_forgets_the_empty_ones() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        for _ in 0..4 {
            wait(&mut reconnect, MOST, Outcome::EndedEmpty);
        }
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), secs(3));
        assert_eq!(wait(&mut reconnect, MOST, Outcome::EndedEmpty), secs(4));
    }

    #[test]
    fn empty_streams_between_failures_do_not_reset_the_wait() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy);
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Unanswered), secs(1));
        reconnect.handle_open();
        assert_eq!(wait(&mut reconnect, MOST, Outcome::EndedEmpty), secs(2));
        assert_eq!(wait(&mut reconnect, MOST, REFUSED_503), secs(4));
    }

    #[test]
    fn retry_is_bounded() {
        let max = WAIT_MAX_DEFAULT;
        let tick = Duration::from_millis(1);
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        let in_force = |asked, reconnect: &mut Reconnect| {
            reconnect.handle_retry(asked);
            reconnect.reconnection_time()
        };
        assert_eq!(in_force(max - tick, &mut reconnect), max - tick);
        assert_eq!(in_force(max, &mut reconnect), max);
        assert_eq!(in_force(max + tick, &mut reconnect), max);
        assert_eq!(in_force(Duration::MAX, &mut reconnect), max);
    }

    #[test]
    fn a_policy_with_a_long_time_is_bounded_too() {
        let policy = ReconnectPolicy::spec().reconnection_time(Duration::MAX);
        assert_eq!(Reconnect::new(policy).reconnection_time(), WAIT_MAX_DEFAULT);
    }

    #[test]
    fn failures_never_wait_less_than_the_reconnection_time() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Unanswered), secs(3));
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Unanswered), secs(3));
    }

    #[test]
    fn the_extra_wait_doubles_up_to_its_limit() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy);
        let waits: Vec<_> =
            (0..7).map(|_| wait(&mut reconnect, MOST, Outcome::Unanswered)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30].map(secs));
    }

    #[test]
    fn the_extra_wait_is_spread_over_the_whole_range() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy);
        wait(&mut reconnect, MOST, Outcome::Unanswered);
        assert_eq!(wait(&mut reconnect, MOST / 2, Outcome::Unanswered), secs(1));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        for _ in 0..100 {
            wait(&mut reconnect, MOST, Outcome::Unanswered);
        }
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Unanswered), secs(33));
    }

    #[test]
    fn an_open_stream_forgets_failures() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy);
        for _ in 0..4 {
            wait(&mut reconnect, MOST, Outcome::Unanswered);
        }
        reconnect.handle_open();
        wait(&mut reconnect, MOST, Outcome::Ended);
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Unanswered), secs(1));
    }

    #[test]
    fn status_204_stops_in_both_modes() {
        assert_stops(ReconnectPolicy::spec(), refused(204), StopReason::NoContent);
        assert_stops(ReconnectPolicy::resilient(), refused(204), StopReason::NoContent);
    }

    #[test]
    fn spec_mode_fails_on_every_other_status() {
        for status in [205, 210, 299, 404, 408, 410, 425, 429, 500, 503] {
            assert_stops(ReconnectPolicy::spec(), refused(status), StopReason::Failed);
        }
    }

    #[test]
    fn resilient_mode_fails_on_what_waiting_does_not_mend() {
        for status in [205, 301, 400, 401, 403, 404, 410, 424, 426, 428, 499, 600] {
            assert_stops(ReconnectPolicy::resilient(), refused(status), StopReason::Failed);
        }
    }

    #[test]
    fn resilient_mode_retries_what_may_pass() {
        for status in [408, 425, 429, 500, 502, 503, 599] {
            let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
            assert_eq!(wait(&mut reconnect, LEAST, refused(status)), secs(3));
        }
    }

    #[test]
    fn what_cannot_be_read_fails_in_both_modes() {
        assert_stops(ReconnectPolicy::spec(), Outcome::Futile, StopReason::Failed);
        assert_stops(ReconnectPolicy::resilient(), Outcome::Futile, StopReason::Failed);
    }

    #[test]
    fn retry_after_is_honoured_within_its_bound() {
        let after = |asked| {
            let outcome = Outcome::Refused { status: 503, retry_after: Some(asked) };
            wait(&mut Reconnect::new(ReconnectPolicy::resilient()), LEAST, outcome)
        };
        let max = WAIT_MAX_DEFAULT;
        assert_eq!(after(secs(1)), secs(3), "never less than the reconnection time");
        assert_eq!(after(secs(20)), secs(20));
        assert_eq!(after(max - secs(1)), max - secs(1));
        assert_eq!(after(max), max);
        assert_eq!(after(max + secs(1)), max);
        assert_eq!(after(Duration::MAX), max);
    }

    #[test]
    fn attempts_are_limited() {
        let policy = ReconnectPolicy::resilient().attempts_max(3);
        let mut reconnect = Reconnect::new(policy);
        wait(&mut reconnect, LEAST, REFUSED_503);
        wait(&mut reconnect, LEAST, Outcome::Unanswered);
        let spent = Err(StopReason::AttemptsSpent);
        assert_eq!(reconnect.handle_outcome(LEAST, REFUSED_503), spent);
    }

    #[test]
    fn a_limit_of_no_attempts_allows_the_first() {
        let policy = ReconnectPolicy::resilient().attempts_max(0);
        assert_stops(policy, Outcome::Unanswered, StopReason::AttemptsSpent);
    }

    #[test]
    fn ends_of_open_streams_do_not_count_as_failed_attempts() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient().attempts_max(1));
        for _ in 0..3 {
            assert_eq!(wait(&mut reconnect, LEAST, Outcome::Ended), secs(3));
            assert_eq!(wait(&mut reconnect, LEAST, Outcome::EndedEmpty), secs(3));
        }
    }
}
