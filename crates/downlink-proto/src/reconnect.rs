//! Decides when an `EventSource` reconnects, to which of its URLs, how long it waits, and when it
//! gives up for good.
//!
//! This module uses no clock, no sockets and no source of random numbers. The client reports how a
//! connection ended, and gets the time to wait before the next attempt. This time is at least as
//! long as the server asked for, up to a limit. The client itself opens connections, applies
//! timeouts and stores the last event id.
//!
//! # Several URLs
//!
//! A client may have several URLs, which lead to equal servers: they send the same events with the
//! same ids. The attempts form rounds. In a round, the client tries each URL at most once, in the
//! order of the list, and does not wait between two attempts. After a round, it waits as a client
//! with one URL waits after a failed attempt. So the waits do not delay the change to another
//! server, and no server gets more requests than from a client with one URL.
//!
//! - The client stays at a URL as long as its streams open. If the server itself ends a stream, the
//!   client waits for the reconnection time, and returns to the same URL.
//! - If a connection breaks or falls silent, or an attempt fails, the client goes on at the next
//!   URL.
//! - A new round begins after a stream that lasted at least [`EMPTY_STREAM_MAX`]. It also begins
//!   after a shorter stream, if the server itself ended the stream and the stream brought an event.
//! - `Retry-After` applies to the URL that sent it. The client leaves this URL out until the time
//!   has passed, or until the end of a stream begins a new round.
//! - The statuses 204, 400, 401 and 403 are about the subscription and its credentials. An equal
//!   server would answer the same, so the client stops, as with one URL.
//! - Any other permanent failure, such as a 404 or an answer that is not an event stream, may be
//!   the fault of one server or its proxy. The client stops when each URL has failed like this at
//!   its last attempt.

use std::time::Duration;

use rounds::Rounds;

pub use rounds::URLS_MAX;

mod rounds;

/// The reconnection time until a `retry:` field sets another time: 3 seconds.
///
/// With half the time, clients would send twice as many requests to a server that is restarting.
/// With double the time, users would notice that a page is out of date.
pub const RECONNECTION_TIME_DEFAULT: Duration = Duration::from_secs(3);

/// The shortest reconnection time that a server can set: half a second, as in Firefox.
///
/// Without a minimum, a server that sets 0 and ends its streams at once would get thousands of
/// requests a second. With half the time, a thousand clients of such a server would send 4,000
/// requests a second. With double the time, a server that ends its stream after each event would
/// deliver only one event a second.
pub const RECONNECTION_TIME_MIN: Duration = Duration::from_millis(500);

/// The time limit for an empty stream: 1 second. A stream that ends within this time and brings no
/// event makes the next wait longer, as a failed attempt does.
///
/// If a proxy answers in place of a dead server, it usually ends the stream within one round trip.
/// With half the time, the empty stream of a slow proxy could last longer than this limit. The
/// client would then reconnect without a longer wait. With double the time, clients would wait
/// longer and longer for servers that end each stream after a second or two.
pub const EMPTY_STREAM_MAX: Duration = Duration::from_secs(1);

/// The maximum of the random time that is added to the wait after failures in a row: 30 seconds.
///
/// With half the time, clients would send more requests to a dead server. With double the time,
/// users would wait longer for events after the server is back.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(30);

/// The longest wait that a server may ask for with `retry:` or `Retry-After`: 1 hour.
///
/// A server may ask for an hour during maintenance. But a mistyped number must not stop a
/// subscription for days.
pub const WAIT_MAX_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// The maximum of the random time that is added to the wait after the first failure: 1 second. The
/// maximum doubles with each further failure in a row.
const BACKOFF_STEP: Duration = Duration::from_secs(1);

/// Whether the client tries again after an answer that is not a stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReconnectMode {
    /// The client tries again after the statuses 408, 425, 429 and 5xx. The wait is at least as
    /// long as `Retry-After` in the answer asks for, up to [`wait_max`](ReconnectPolicy::wait_max).
    #[default]
    Resilient,
    /// The client stops for good after any answer that is not a stream. The standard requires this
    /// of browsers.
    Spec,
}

/// The settings of [`Reconnect`].
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
    /// The reconnection time until the server sets another time.
    pub reconnection_time: Duration,
    /// The maximum of the random time that is added to the wait after failures in a row.
    pub backoff_max: Duration,
    /// The longest wait that a server may ask for.
    pub wait_max: Duration,
    /// The client stops for good when this many attempts in a row have failed. `None` means no
    /// limit.
    pub attempts_max: Option<u32>,
}

impl ReconnectPolicy {
    /// The policy of a client that tries again whenever another attempt may succeed. This is the
    /// default.
    pub const fn resilient() -> Self {
        Self {
            mode: ReconnectMode::Resilient,
            reconnection_time: RECONNECTION_TIME_DEFAULT,
            backoff_max: BACKOFF_MAX_DEFAULT,
            wait_max: WAIT_MAX_DEFAULT,
            attempts_max: None,
        }
    }

    /// The policy of a client that stops exactly when the standard tells browsers to stop.
    pub const fn spec() -> Self {
        Self { mode: ReconnectMode::Spec, ..Self::resilient() }
    }

    /// Sets the reconnection time that applies until a `retry:` field sets another time.
    pub const fn reconnection_time(mut self, time: Duration) -> Self {
        self.reconnection_time = time;
        self
    }

    /// Sets the maximum of the random time that is added to the wait after failures in a row.
    pub const fn backoff_max(mut self, max: Duration) -> Self {
        self.backoff_max = max;
        self
    }

    /// Sets the longest wait that a server may ask for.
    pub const fn wait_max(mut self, max: Duration) -> Self {
        self.wait_max = max;
        self
    }

    /// Sets the number of failed attempts in a row after which the client stops for good. 0 counts
    /// as 1.
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
    /// The server ended the open stream. The stream lasted at least [`EMPTY_STREAM_MAX`], or it
    /// brought an event.
    Ended,
    /// The open stream ended, cleanly or not, within [`EMPTY_STREAM_MAX`], and brought no event.
    EndedEmpty,
    /// The connection of the open stream broke or fell silent. The stream lasted at least
    /// [`EMPTY_STREAM_MAX`], or it brought an event.
    Broken {
        /// The time for which the stream was open.
        lasted: Duration,
    },
    /// No request was sent, because the client has no credentials for it. This is not a failure of
    /// the server, so the client stays at the same URL.
    Unsent,
    /// There was no answer: no connection, an error before the head of the answer, or a timeout.
    Unanswered,
    /// The answer's status is not 200.
    Refused {
        /// The HTTP status of the answer.
        status: u16,
        /// The wait that `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// Any other failure that would happen again at the next attempt to the same URL. Examples are
    /// an answer that is not an event stream, and an event stream that the client cannot read.
    Futile,
}

/// The reason why the client makes no further attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StopReason {
    /// The server answered 204. The standard says that the client must then stop.
    NoContent,
    /// Another attempt would fail in the same way, at each URL.
    Failed,
    /// [`attempts_max`](ReconnectPolicy::attempts_max) attempts in a row have failed.
    AttemptsSpent,
}

/// The reconnection state of one client.
///
/// For each attempt, call [`handle_open`](Self::handle_open) if the answer is a stream. Call
/// [`handle_outcome`](Self::handle_outcome) once, when the attempt has failed or the stream has
/// ended. [`handle_retry`](Self::handle_retry) may be called at any time.
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
    /// The number of failed attempts since a stream was last open.
    failures: u32,
    /// The number of waits with an added random time since the last stream that was not empty.
    fruitless: u32,
    rounds: Rounds,
}

impl Reconnect {
    /// Makes the state of a client that has one URL and has not connected yet.
    #[must_use]
    pub fn new(policy: ReconnectPolicy) -> Self {
        let reconnection_time = policy.reconnection_time.min(policy.wait_max);
        Self { policy, reconnection_time, failures: 0, fruitless: 0, rounds: Rounds::new(1) }
    }

    /// Sets the number of URLs, and begins at the first. A number outside 1 to [`URLS_MAX`] counts
    /// as the nearest number inside.
    #[must_use]
    pub fn with_urls(mut self, count: usize) -> Self {
        self.rounds = Rounds::new(count);
        self
    }

    /// The position of the present URL in the caller's list. The next attempt goes to this URL. If
    /// a stream is open, it came from this URL.
    #[must_use]
    pub fn url_index(&self) -> usize {
        self.rounds.url_index()
    }

    /// Reports that a stream has opened. Earlier failures then no longer count for
    /// [`attempts_max`](ReconnectPolicy::attempts_max).
    pub fn handle_open(&mut self) {
        self.failures = 0;
    }

    /// Reports a `retry:` field. Its time applies until the next `retry:` field, even if the client
    /// reconnects in between, to any of its URLs. A time below [`RECONNECTION_TIME_MIN`] is raised
    /// to this minimum.
    pub fn handle_retry(&mut self, time: Duration) {
        self.reconnection_time = time.max(RECONNECTION_TIME_MIN).min(self.policy.wait_max);
    }

    /// The present reconnection time.
    #[must_use]
    pub fn reconnection_time(&self) -> Duration {
        self.reconnection_time
    }

    /// Reports that an attempt has failed or an open stream has ended. Returns the wait before the
    /// next attempt, which goes to [`url_index`](Self::url_index). `random` must be a random number
    /// from the whole range of `u64`.
    ///
    /// # Errors
    ///
    /// [`StopReason`] if the client must not make another attempt.
    pub fn handle_outcome(
        &mut self,
        random: u64,
        outcome: Outcome,
    ) -> Result<Duration, StopReason> {
        match outcome {
            Outcome::Ended => {
                self.fruitless = 0;
                self.rounds.begin();
                return Ok(self.reconnection_time);
            }
            Outcome::Broken { lasted } => {
                self.fruitless = 0;
                if lasted >= EMPTY_STREAM_MAX {
                    self.rounds.begin();
                }
                self.rounds.mark_tried(Duration::ZERO);
                return Ok(self.move_on(None));
            }
            Outcome::EndedEmpty => {
                self.rounds.mark_tried(Duration::ZERO);
                return Ok(self.move_on(Some(random)));
            }
            Outcome::Unsent => {
                self.count_failure()?;
                return Ok(self.reconnection_time.saturating_add(self.back_off(random)));
            }
            Outcome::Unanswered => self.rounds.mark_tried(Duration::ZERO),
            Outcome::Refused { status: 204, .. } => return Err(StopReason::NoContent),
            Outcome::Refused { status: 400 | 401 | 403, .. } => return Err(StopReason::Failed),
            Outcome::Refused { status, retry_after } if self.may_retry(status) => {
                let asked = retry_after.unwrap_or_default().min(self.policy.wait_max);
                self.rounds.mark_tried(asked);
            }
            Outcome::Refused { .. } | Outcome::Futile => {
                self.rounds.mark_futile();
                if self.rounds.are_futile() {
                    return Err(StopReason::Failed);
                }
            }
        }
        self.count_failure()?;
        Ok(self.move_on(Some(random)))
    }

    fn may_retry(&self, status: u16) -> bool {
        self.policy.mode == ReconnectMode::Resilient
            && matches!(status, 408 | 425 | 429 | 500..=599)
    }

    fn count_failure(&mut self) -> Result<(), StopReason> {
        self.failures = self.failures.saturating_add(1);
        let spent = self.policy.attempts_max.is_some_and(|max| self.failures >= max);
        if spent { Err(StopReason::AttemptsSpent) } else { Ok(()) }
    }

    /// Goes on at the next URL of the round. If there is none, begins the next round after a wait:
    /// the reconnection time, or longer if all servers asked for a longer wait. If `random` is
    /// given, the wait has a random time in addition.
    fn move_on(&mut self, random: Option<u64>) -> Duration {
        if self.rounds.move_on() {
            return Duration::ZERO;
        }
        let extra = random.map_or(Duration::ZERO, |random| self.back_off(random));
        let wait = self.reconnection_time.max(self.rounds.rest()).saturating_add(extra);
        self.rounds.begin_after(wait);
        wait
    }

    /// The random time that is added to a wait. Its maximum doubles with each such wait, until a
    /// stream is not empty. The random time (full jitter) keeps clients from reconnecting at the
    /// same moment.
    fn back_off(&mut self, random: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(self.fruitless);
        self.fruitless = self.fruitless.saturating_add(1);
        part_of(BACKOFF_STEP.saturating_mul(doubled).min(self.policy.backoff_max), random)
    }
}

/// Returns `range` times `random` / 2^64.
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

    /// The wait, rounded up to whole milliseconds. Panics if the client must not make another
    /// attempt.
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
    fn after_the_end_of_a_stream_the_client_waits_the_default_time() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), RECONNECTION_TIME_DEFAULT);
    }

    #[test]
    fn a_retry_field_still_applies_after_a_reconnect() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::spec());
        reconnect.handle_retry(secs(7));
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Ended), secs(7));
        reconnect.handle_open();
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Ended), secs(7));
    }

    #[test]
    fn a_retry_time_below_the_minimum_is_raised_to_the_minimum() {
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
    fn a_policy_may_set_a_reconnection_time_below_the_minimum() {
        let policy = ReconnectPolicy::spec().reconnection_time(Duration::ZERO);
        assert_eq!(wait(&mut Reconnect::new(policy), MOST, Outcome::Ended), Duration::ZERO);
        let mut reconnect = Reconnect::new(ReconnectPolicy::spec().wait_max(Duration::ZERO));
        reconnect.handle_retry(secs(1));
        assert_eq!(reconnect.reconnection_time(), Duration::ZERO);
    }

    #[test]
    fn the_wait_after_empty_streams_grows_up_to_the_limit() {
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
    fn a_stream_that_is_not_empty_resets_the_wait() {
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
    fn a_retry_time_above_the_maximum_is_lowered_to_the_maximum() {
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
    fn the_maximum_applies_to_the_reconnection_time_of_a_policy() {
        let policy = ReconnectPolicy::spec().reconnection_time(Duration::MAX);
        assert_eq!(Reconnect::new(policy).reconnection_time(), WAIT_MAX_DEFAULT);
    }

    #[test]
    fn the_wait_after_a_failure_is_at_least_the_reconnection_time() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Unanswered), secs(3));
        assert_eq!(wait(&mut reconnect, LEAST, Outcome::Unanswered), secs(3));
    }

    #[test]
    fn the_random_wait_doubles_up_to_its_limit() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy);
        let waits: Vec<_> =
            (0..7).map(|_| wait(&mut reconnect, MOST, Outcome::Unanswered)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30].map(secs));
    }

    #[test]
    fn the_random_wait_is_picked_from_the_whole_range() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy);
        wait(&mut reconnect, MOST, Outcome::Unanswered);
        assert_eq!(wait(&mut reconnect, MOST / 2, Outcome::Unanswered), secs(1));
    }

    #[test]
    fn many_failures_do_not_overflow_the_wait() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
        for _ in 0..100 {
            wait(&mut reconnect, MOST, Outcome::Unanswered);
        }
        assert_eq!(wait(&mut reconnect, MOST, Outcome::Unanswered), secs(33));
    }

    #[test]
    fn an_open_stream_resets_the_number_of_failures() {
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
    fn status_204_stops_the_client_in_both_modes() {
        assert_stops(ReconnectPolicy::spec(), refused(204), StopReason::NoContent);
        assert_stops(ReconnectPolicy::resilient(), refused(204), StopReason::NoContent);
    }

    #[test]
    fn in_spec_mode_every_status_except_200_stops_the_client() {
        for status in [205, 210, 299, 404, 408, 410, 425, 429, 500, 503] {
            assert_stops(ReconnectPolicy::spec(), refused(status), StopReason::Failed);
        }
    }

    #[test]
    fn in_resilient_mode_permanent_refusals_stop_the_client() {
        for status in [205, 301, 400, 401, 403, 404, 410, 424, 426, 428, 499, 600] {
            assert_stops(ReconnectPolicy::resilient(), refused(status), StopReason::Failed);
        }
    }

    #[test]
    fn in_resilient_mode_the_client_retries_after_temporary_refusals() {
        for status in [408, 425, 429, 500, 502, 503, 599] {
            let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
            assert_eq!(wait(&mut reconnect, LEAST, refused(status)), secs(3));
        }
    }

    #[test]
    fn a_futile_outcome_stops_the_client_in_both_modes() {
        assert_stops(ReconnectPolicy::spec(), Outcome::Futile, StopReason::Failed);
        assert_stops(ReconnectPolicy::resilient(), Outcome::Futile, StopReason::Failed);
    }

    #[test]
    fn the_wait_in_a_retry_after_header_is_respected_up_to_the_maximum() {
        let after = |asked| {
            let outcome = Outcome::Refused { status: 503, retry_after: Some(asked) };
            wait(&mut Reconnect::new(ReconnectPolicy::resilient()), LEAST, outcome)
        };
        let max = WAIT_MAX_DEFAULT;
        assert_eq!(after(secs(1)), secs(3), "the wait is at least the reconnection time");
        assert_eq!(after(secs(20)), secs(20));
        assert_eq!(after(max - secs(1)), max - secs(1));
        assert_eq!(after(max), max);
        assert_eq!(after(max + secs(1)), max);
        assert_eq!(after(Duration::MAX), max);
    }

    #[test]
    fn the_client_stops_after_the_maximum_number_of_failed_attempts() {
        let policy = ReconnectPolicy::resilient().attempts_max(3);
        let mut reconnect = Reconnect::new(policy);
        wait(&mut reconnect, LEAST, REFUSED_503);
        wait(&mut reconnect, LEAST, Outcome::Unanswered);
        let spent = Err(StopReason::AttemptsSpent);
        assert_eq!(reconnect.handle_outcome(LEAST, REFUSED_503), spent);
    }

    #[test]
    fn a_maximum_of_zero_attempts_stops_after_the_first_failed_attempt() {
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
