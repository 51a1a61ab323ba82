//! Decides when an `EventSource` reconnects, how long it waits, and when it gives up for good.
//!
//! This is a state machine without clock, randomness or sockets. The caller reports outcomes with
//! their times, and asks for the next step. The wait is never shorter than the server asked for,
//! and every wait has a limit. Not here: opening connections, timeouts and the last event id, which
//! belong to the client.

use std::time::{Duration, Instant};

/// The reconnection time until a `retry:` field sets another: 3 seconds.
///
/// Half would double the load on a server that is restarting. With double, people would notice the
/// delay on a page.
pub const RECONNECTION_TIME_DEFAULT: Duration = Duration::from_secs(3);

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
    /// The open stream ended, cleanly or not.
    Ended,
    /// There was no answer: no connection, an error before the head, or a timeout.
    Unanswered,
    /// The answer's status is not 200.
    Refused {
        /// The status.
        status: u16,
        /// The wait that `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// The answer is not an event stream, or the client cannot read it.
    Unreadable,
    /// Another error that would occur again.
    Futile,
}

/// The decision after an [`Outcome`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Connect again after this wait.
    Reconnect {
        /// The wait, from the time of the outcome.
        after: Duration,
    },
    /// Never connect again.
    Stop(StopReason),
}

/// The reason why there are no further attempts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// The server answered 204. By the standard, the client must then stop.
    NoContent,
    /// Another attempt would fail in the same way.
    Failed,
    /// The most attempts in a row that the policy allows have failed.
    AttemptsSpent,
    /// The caller closed it.
    Closed,
}

/// The next step of the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Start an attempt. Returned once per attempt.
    Connect,
    /// Do nothing until this time.
    WaitUntil(Instant),
    /// An attempt or a stream is under way. Report its outcome.
    UnderWay,
    /// The client has stopped for good.
    Stopped(StopReason),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The next attempt may start at once.
    Due,
    /// The next attempt may start at `until`.
    Waiting { until: Instant },
    /// An attempt is under way.
    Connecting,
    /// The stream is open.
    Open,
    /// Ended. No call leaves this phase.
    Stopped(StopReason),
}

/// The reconnection state of one client.
///
/// Order of calls: call [`poll_step`](Self::poll_step) until it returns [`Step::Connect`]. If the
/// answer is a stream, call [`handle_open`](Self::handle_open). Then call
/// [`handle_outcome`](Self::handle_outcome) once, and start again.
/// [`handle_retry`](Self::handle_retry) and the commands may be called at any time.
///
/// # Examples
///
/// ```
/// use downlink_proto::reconnect::{Outcome, Reconnect, ReconnectPolicy, Step, Verdict};
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
/// assert_eq!(reconnect.poll_step(now), Step::Connect);
/// reconnect.handle_open();
/// reconnect.handle_retry(Duration::from_millis(500));
///
/// let after = Duration::from_millis(500);
/// assert_eq!(reconnect.handle_outcome(now, 0, Outcome::Ended), Verdict::Reconnect { after });
/// assert_eq!(reconnect.poll_step(now), Step::WaitUntil(now + after));
/// ```
#[derive(Clone, Debug)]
pub struct Reconnect {
    policy: ReconnectPolicy,
    /// Invariant: at most `policy.wait_max`.
    reconnection_time: Duration,
    /// Attempts that failed since the last open stream.
    failures: u32,
    phase: Phase,
}

impl Reconnect {
    /// A client that has not connected yet. Its first attempt is due at once.
    #[must_use]
    pub fn new(policy: ReconnectPolicy) -> Self {
        let reconnection_time = policy.reconnection_time.min(policy.wait_max);
        Self { policy, reconnection_time, failures: 0, phase: Phase::Due }
    }

    /// Reports an open stream. Failures before it no longer count.
    pub fn handle_open(&mut self) {
        if let Phase::Connecting = self.phase {
            self.failures = 0;
            self.phase = Phase::Open;
        }
    }

    /// Reports a `retry:` field. It applies until the next one, also across reconnects.
    pub fn handle_retry(&mut self, time: Duration) {
        self.reconnection_time = time.min(self.policy.wait_max);
    }

    /// Reports the end of an attempt or of an open stream. `random` is uniformly distributed.
    pub fn handle_outcome(&mut self, now: Instant, random: u64, outcome: Outcome) -> Verdict {
        if let Phase::Stopped(reason) = self.phase {
            return Verdict::Stop(reason);
        }
        let wait = self.wait_after(random, outcome);
        // The clock cannot represent this time, so the wait would never end.
        let wait = wait.and_then(|after| {
            now.checked_add(after).map(|until| (after, until)).ok_or(StopReason::Failed)
        });
        match wait {
            Ok((after, until)) => {
                self.phase = Phase::Waiting { until };
                Verdict::Reconnect { after }
            }
            Err(reason) => {
                self.phase = Phase::Stopped(reason);
                Verdict::Stop(reason)
            }
        }
    }

    /// Makes the next attempt due at once, even during an attempt, a stream or a wait.
    pub fn restart(&mut self) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.phase = Phase::Due;
        }
    }

    /// Stops for good.
    pub fn close(&mut self) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.phase = Phase::Stopped(StopReason::Closed);
        }
    }

    /// Returns the next step.
    pub fn poll_step(&mut self, now: Instant) -> Step {
        match self.phase {
            Phase::Waiting { until } if now < until => Step::WaitUntil(until),
            Phase::Due | Phase::Waiting { .. } => {
                self.phase = Phase::Connecting;
                Step::Connect
            }
            Phase::Connecting | Phase::Open => Step::UnderWay,
            Phase::Stopped(reason) => Step::Stopped(reason),
        }
    }

    /// The current reconnection time.
    #[must_use]
    pub fn reconnection_time(&self) -> Duration {
        self.reconnection_time
    }

    /// The number of failed attempts in a row since a stream was last open.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn wait_after(&mut self, random: u64, outcome: Outcome) -> Result<Duration, StopReason> {
        match outcome {
            Outcome::Ended => Ok(self.reconnection_time),
            Outcome::Unanswered => self.back_off(random, Duration::ZERO),
            Outcome::Refused { status: 204, .. } => Err(StopReason::NoContent),
            Outcome::Refused { status, retry_after } if self.may_retry(status) => {
                let asked = retry_after.unwrap_or_default().min(self.policy.wait_max);
                self.back_off(random, asked)
            }
            Outcome::Refused { .. } | Outcome::Unreadable | Outcome::Futile => {
                Err(StopReason::Failed)
            }
        }
    }

    fn may_retry(&self, status: u16) -> bool {
        self.policy.mode == ReconnectMode::Resilient
            && matches!(status, 408 | 425 | 429 | 500..=599)
    }

    /// The wait after one more failure. It is the wait that the server asked for, plus a random
    /// part of a range. The range doubles with every failure (full jitter), so that clients do not
    /// synchronise.
    fn back_off(&mut self, random: u64, asked: Duration) -> Result<Duration, StopReason> {
        self.failures = self.failures.saturating_add(1);
        if self.policy.attempts_max.is_some_and(|max| self.failures >= max) {
            return Err(StopReason::AttemptsSpent);
        }
        let doubled = 2_u32.saturating_pow(self.failures - 1);
        let range = BACKOFF_STEP.saturating_mul(doubled).min(self.policy.backoff_max);
        Ok(self.reconnection_time.max(asked).saturating_add(part_of(range, random)))
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

    /// A client whose first attempt has started.
    fn connecting(policy: ReconnectPolicy) -> Reconnect {
        let mut reconnect = Reconnect::new(policy);
        assert_eq!(reconnect.poll_step(Instant::now()), Step::Connect);
        reconnect
    }

    fn opened(policy: ReconnectPolicy) -> Reconnect {
        let mut reconnect = connecting(policy);
        reconnect.handle_open();
        reconnect
    }

    fn verdict(reconnect: &mut Reconnect, random: u64, outcome: Outcome) -> Verdict {
        reconnect.handle_outcome(Instant::now(), random, outcome)
    }

    /// The wait, in nanoseconds rounded up to whole milliseconds. Panics if the client stops.
    #[track_caller]
    fn wait(reconnect: &mut Reconnect, random: u64, outcome: Outcome) -> Duration {
        match verdict(reconnect, random, outcome) {
            Verdict::Reconnect { after } => {
                Duration::from_millis(after.as_nanos().div_ceil(1_000_000) as u64)
            }
            Verdict::Stop(reason) => panic!("stopped: {reason:?}"),
        }
    }

    #[track_caller]
    fn assert_stops(policy: ReconnectPolicy, outcome: Outcome, reason: StopReason) {
        let mut reconnect = connecting(policy);
        assert_eq!(verdict(&mut reconnect, MOST, outcome), Verdict::Stop(reason));
        assert_eq!(reconnect.poll_step(Instant::now()), Step::Stopped(reason));
    }

    #[test]
    fn an_attempt_is_asked_for_once() {
        let mut reconnect = connecting(ReconnectPolicy::resilient());
        assert_eq!(reconnect.poll_step(Instant::now()), Step::UnderWay);
    }

    #[test]
    fn end_of_the_stream_waits_the_default_time() {
        let mut reconnect = opened(ReconnectPolicy::resilient());
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), RECONNECTION_TIME_DEFAULT);
    }

    #[test]
    fn the_wait_ends_at_its_moment_and_not_before() {
        let now = Instant::now();
        let mut reconnect = opened(ReconnectPolicy::spec());
        reconnect.handle_outcome(now, LEAST, Outcome::Ended);
        let until = now + secs(3);
        assert_eq!(reconnect.poll_step(until - Duration::from_nanos(1)), Step::WaitUntil(until));
        assert_eq!(reconnect.poll_step(until), Step::Connect);
    }

    #[test]
    fn retry_holds_over_reconnects() {
        let now = Instant::now();
        let mut reconnect = opened(ReconnectPolicy::spec());
        reconnect.handle_retry(secs(7));
        reconnect.handle_outcome(now, LEAST, Outcome::Ended);
        assert_eq!(reconnect.poll_step(now + secs(7)), Step::Connect);
        reconnect.handle_open();
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), secs(7));
    }

    #[test]
    fn retry_of_zero_reconnects_at_once() {
        let now = Instant::now();
        let mut reconnect = opened(ReconnectPolicy::spec());
        reconnect.handle_retry(Duration::ZERO);
        reconnect.handle_outcome(now, MOST, Outcome::Ended);
        assert_eq!(reconnect.poll_step(now), Step::Connect);
    }

    #[test]
    fn retry_is_bounded() {
        let max = WAIT_MAX_DEFAULT;
        let tick = Duration::from_millis(1);
        let mut reconnect = opened(ReconnectPolicy::resilient());
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
        let mut reconnect = connecting(ReconnectPolicy::resilient());
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Unanswered), secs(3));
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Unanswered), secs(3));
    }

    #[test]
    fn the_extra_wait_doubles_up_to_its_limit() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = connecting(policy);
        let waits: Vec<_> =
            (0..7).map(|_| wait(&mut reconnect, MOST, Outcome::Unanswered)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30].map(secs));
    }

    #[test]
    fn the_extra_wait_is_spread_over_the_whole_range() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = connecting(policy);
        wait(&mut reconnect, MOST, Outcome::Unanswered);
        assert_eq!(wait(&mut reconnect, MOST / 2, Outcome::Unanswered), secs(1));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut reconnect = connecting(ReconnectPolicy::resilient());
        for _ in 0..100 {
            wait(&mut reconnect, MOST, Outcome::Unanswered);
        }
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Unanswered), secs(33));
        assert_eq!(reconnect.failures(), 101);
    }

    #[test]
    fn an_open_stream_forgets_failures() {
        let now = Instant::now();
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = connecting(policy);
        for _ in 0..4 {
            reconnect.handle_outcome(now, MOST, Outcome::Unanswered);
        }
        assert_eq!(reconnect.poll_step(now + secs(60)), Step::Connect);
        reconnect.handle_open();
        assert_eq!(reconnect.failures(), 0);
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
            let mut reconnect = connecting(ReconnectPolicy::resilient());
            assert_eq!(wait(&mut reconnect, LEAST, refused(status)), secs(3));
        }
    }

    #[test]
    fn what_cannot_be_read_fails_in_both_modes() {
        assert_stops(ReconnectPolicy::spec(), Outcome::Unreadable, StopReason::Failed);
        assert_stops(ReconnectPolicy::resilient(), Outcome::Unreadable, StopReason::Failed);
        assert_stops(ReconnectPolicy::resilient(), Outcome::Futile, StopReason::Failed);
    }

    #[test]
    fn retry_after_is_honoured_within_its_bound() {
        let after = |asked| {
            let outcome = Outcome::Refused { status: 503, retry_after: Some(asked) };
            wait(&mut connecting(ReconnectPolicy::resilient()), LEAST, outcome)
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
        let mut reconnect = connecting(policy);
        wait(&mut reconnect, LEAST, REFUSED_503);
        wait(&mut reconnect, LEAST, Outcome::Unanswered);
        let spent = Verdict::Stop(StopReason::AttemptsSpent);
        assert_eq!(verdict(&mut reconnect, LEAST, REFUSED_503), spent);
    }

    #[test]
    fn a_limit_of_no_attempts_allows_the_first() {
        let policy = ReconnectPolicy::resilient().attempts_max(0);
        assert_stops(policy, Outcome::Unanswered, StopReason::AttemptsSpent);
    }

    #[test]
    fn ends_of_open_streams_do_not_count_as_failed_attempts() {
        let now = Instant::now();
        let mut reconnect = opened(ReconnectPolicy::resilient().attempts_max(1));
        for _ in 0..3 {
            reconnect.handle_outcome(now, LEAST, Outcome::Ended);
            assert_eq!(reconnect.poll_step(now + secs(3)), Step::Connect);
            reconnect.handle_open();
        }
        assert_eq!(reconnect.failures(), 0);
    }

    #[test]
    fn restart_skips_the_wait() {
        let now = Instant::now();
        let mut reconnect = opened(ReconnectPolicy::resilient());
        reconnect.handle_outcome(now, LEAST, Outcome::Ended);
        reconnect.restart();
        assert_eq!(reconnect.poll_step(now), Step::Connect);
    }

    #[test]
    fn nothing_leaves_the_stopped_phase() {
        let now = Instant::now();
        let mut reconnect = opened(ReconnectPolicy::resilient());
        reconnect.close();
        reconnect.restart();
        reconnect.handle_open();
        let stop = Verdict::Stop(StopReason::Closed);
        assert_eq!(reconnect.handle_outcome(now, LEAST, Outcome::Ended), stop);
        assert_eq!(reconnect.poll_step(now), Step::Stopped(StopReason::Closed));
    }

    #[test]
    fn a_wait_beyond_the_clock_stops() {
        let now = Instant::now();
        let policy =
            ReconnectPolicy::spec().wait_max(Duration::MAX).reconnection_time(Duration::MAX);
        let mut reconnect = opened(policy);
        let stop = Verdict::Stop(StopReason::Failed);
        assert_eq!(reconnect.handle_outcome(now, LEAST, Outcome::Ended), stop);
        assert_eq!(reconnect.poll_step(now), Step::Stopped(StopReason::Failed));
    }
}
