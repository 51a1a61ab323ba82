//! The order in which a client with several URLs tries them.
//!
//! A round contains at most one attempt at each URL. This file decides which URL is next, and the
//! parent module decides how long the client waits between two rounds.

use std::time::Duration;

/// The maximum number of URLs of one client: 16.
///
/// With half the number, two servers in each of five regions would be too many. With double the
/// number, a round would take more than five minutes if no server answers and the client gives each
/// of them ten seconds.
pub const URLS_MAX: usize = 16;

/// The URLs of a client, and the present round.
///
/// After each attempt, call [`mark_tried`](Self::mark_tried) or [`mark_futile`](Self::mark_futile),
/// and then [`move_on`](Self::move_on). If the round is over, call
/// [`begin_after`](Self::begin_after) with the wait.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    /// The URLs in the order of their next attempts. The first is the present URL.
    ///
    /// Invariant: between 1 and [`URLS_MAX`] entries.
    urls: Vec<UrlState>,
}

#[derive(Clone, Debug)]
struct UrlState {
    /// The position in the caller's list.
    index: usize,
    /// Whether the client has tried this URL in the present round.
    tried: bool,
    /// Whether the last attempt failed for good.
    futile: bool,
    /// How long the server still wants no request. It is the time from `Retry-After`, less the
    /// waits since then.
    rest: Duration,
}

impl UrlState {
    fn new(index: usize) -> Self {
        Self { index, tried: false, futile: false, rest: Duration::ZERO }
    }
}

impl Rounds {
    /// Begins at the first URL. A count outside 1 to [`URLS_MAX`] counts as the nearest number
    /// inside.
    pub(super) fn new(count: usize) -> Self {
        Self { urls: (0..count.clamp(1, URLS_MAX)).map(UrlState::new).collect() }
    }

    pub(super) fn url_index(&self) -> usize {
        self.urls.first().map_or(0, |url| url.index)
    }

    /// Begins a new round at the present URL. Forgets the waits that the servers have asked for.
    pub(super) fn begin(&mut self) {
        self.urls.iter_mut().for_each(|url| *url = UrlState::new(url.index));
    }

    /// Begins the next round after a wait, which must not be shorter than [`rest`](Self::rest).
    pub(super) fn begin_after(&mut self, wait: Duration) {
        for url in &mut self.urls {
            (url.tried, url.rest) = (false, url.rest.saturating_sub(wait));
        }
        self.go_to(|url| url.rest.is_zero());
    }

    /// Records an attempt. `rest` is the time for which the server wants no further request.
    pub(super) fn mark_tried(&mut self, rest: Duration) {
        if let Some(url) = self.urls.first_mut() {
            *url = UrlState { tried: true, rest, ..UrlState::new(url.index) };
        }
    }

    /// Records an attempt that failed for good.
    pub(super) fn mark_futile(&mut self) {
        if let Some(url) = self.urls.first_mut() {
            *url = UrlState { tried: true, futile: true, ..UrlState::new(url.index) };
        }
    }

    /// Whether the last attempts at all URLs failed for good.
    pub(super) fn are_futile(&self) -> bool {
        self.urls.iter().all(|url| url.futile)
    }

    /// Goes on at the next URL that has not been tried in this round and may get a request now. If
    /// there is none, goes to the URL after the present one, and returns false.
    pub(super) fn move_on(&mut self) -> bool {
        self.urls.rotate_left(1);
        self.go_to(|url| !url.tried && url.rest.is_zero())
    }

    /// The time until the client may send a request to at least one of the servers.
    pub(super) fn rest(&self) -> Duration {
        self.urls.iter().map(|url| url.rest).min().unwrap_or_default()
    }

    /// Goes to the first URL that fits, if there is one.
    fn go_to(&mut self, fits: impl Fn(&UrlState) -> bool) -> bool {
        let next = self.urls.iter().position(fits);
        self.urls.rotate_left(next.unwrap_or(0));
        next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconnect::{EMPTY_STREAM_MAX, Outcome, Reconnect, ReconnectPolicy, StopReason};

    const LEAST: u64 = 0;
    const MOST: u64 = u64::MAX;
    const REFUSED_503: Outcome = Outcome::Refused { status: 503, retry_after: None };
    const LASTING: Outcome = Outcome::Broken { lasted: EMPTY_STREAM_MAX };
    const SHORT: Outcome = Outcome::Broken { lasted: EMPTY_STREAM_MAX.saturating_sub(TICK) };
    const TICK: Duration = Duration::from_millis(1);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn refused(status: u16) -> Outcome {
        Outcome::Refused { status, retry_after: None }
    }

    /// The state of a client with this many URLs and without random waits.
    fn several(count: usize) -> Reconnect {
        Reconnect::new(ReconnectPolicy::resilient().backoff_max(Duration::ZERO)).with_urls(count)
    }

    /// Reports an outcome. Returns the next URL, and the wait before it.
    #[track_caller]
    fn next(reconnect: &mut Reconnect, outcome: Outcome) -> (usize, Duration) {
        let wait = reconnect.handle_outcome(MOST, outcome).unwrap();
        // The random part is rounded up to whole milliseconds.
        let wait = Duration::from_millis(wait.as_nanos().div_ceil(1_000_000) as u64);
        (reconnect.url_index(), wait)
    }

    fn asks_for(wait: Duration) -> Outcome {
        Outcome::Refused { status: 503, retry_after: Some(wait) }
    }

    #[test]
    fn the_number_of_urls_is_at_least_one_and_has_a_maximum() {
        let urls = |count| Rounds::new(count).urls.len();
        assert_eq!((urls(0), urls(1), urls(2)), (1, 1, 2));
        assert_eq!(urls(URLS_MAX - 1), URLS_MAX - 1);
        assert_eq!(urls(URLS_MAX), URLS_MAX);
        assert_eq!(urls(URLS_MAX + 1), URLS_MAX);
    }

    #[test]
    fn a_client_tries_each_url_once_without_a_wait_and_then_waits() {
        let mut reconnect = several(3);
        assert_eq!(reconnect.url_index(), 0);
        for _ in 0..2 {
            assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, Duration::ZERO));
            assert_eq!(next(&mut reconnect, REFUSED_503), (2, Duration::ZERO));
            assert_eq!(next(&mut reconnect, Outcome::EndedEmpty), (0, secs(3)));
        }
    }

    #[test]
    fn the_random_wait_doubles_with_each_round() {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::ZERO);
        let mut reconnect = Reconnect::new(policy).with_urls(2);
        for extra in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, Duration::ZERO));
            assert_eq!(next(&mut reconnect, Outcome::Unanswered), (0, secs(extra)));
        }
    }

    #[test]
    fn after_a_broken_connection_the_client_goes_to_the_next_url_at_once() {
        let mut reconnect = several(2);
        assert_eq!(next(&mut reconnect, LASTING), (1, Duration::ZERO));
        assert_eq!(next(&mut reconnect, LASTING), (0, Duration::ZERO));
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, secs(3)));
    }

    /// Without this rule, two servers that break each connection after an event would get requests
    /// without a pause.
    #[test]
    fn short_streams_do_not_begin_a_new_round() {
        let mut reconnect = several(2);
        assert_eq!(next(&mut reconnect, SHORT), (1, Duration::ZERO));
        assert_eq!(next(&mut reconnect, SHORT), (0, secs(3)));
        assert_eq!(next(&mut reconnect, SHORT), (1, Duration::ZERO));
    }

    #[test]
    fn with_one_url_a_broken_connection_counts_as_an_ended_stream() {
        for outcome in [LASTING, SHORT] {
            let mut reconnect = Reconnect::new(ReconnectPolicy::resilient());
            next(&mut reconnect, Outcome::EndedEmpty);
            assert_eq!(next(&mut reconnect, outcome), (0, secs(3)));
            assert_eq!(next(&mut reconnect, Outcome::EndedEmpty), (0, secs(4)));
        }
    }

    #[test]
    fn after_a_stream_that_the_server_ended_the_client_returns_to_the_same_url() {
        let mut reconnect = several(3);
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, Duration::ZERO));
        reconnect.handle_open();
        reconnect.handle_retry(secs(7));
        assert_eq!(next(&mut reconnect, Outcome::Ended), (1, secs(7)));
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (2, Duration::ZERO));
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (0, Duration::ZERO));
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, secs(7)));
    }

    #[test]
    fn without_credentials_the_client_stays_at_its_url_and_waits() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::resilient().attempts_max(3));
        reconnect = reconnect.with_urls(2);
        assert_eq!(next(&mut reconnect, Outcome::Unsent), (0, secs(4)));
        assert_eq!(next(&mut reconnect, Outcome::Unsent), (0, secs(5)));
        let spent = Err(StopReason::AttemptsSpent);
        assert_eq!(reconnect.handle_outcome(MOST, Outcome::Unsent), spent);
    }

    #[test]
    fn the_maximum_number_of_attempts_counts_the_attempts_to_all_urls() {
        let policy = ReconnectPolicy::resilient().attempts_max(3);
        let mut reconnect = Reconnect::new(policy).with_urls(2);
        next(&mut reconnect, Outcome::Unanswered);
        next(&mut reconnect, Outcome::Futile);
        let spent = Err(StopReason::AttemptsSpent);
        assert_eq!(reconnect.handle_outcome(MOST, Outcome::Unanswered), spent);
    }

    #[test]
    fn a_url_that_asked_for_a_wait_is_left_out_until_the_wait_has_passed() {
        let mut reconnect = several(2);
        assert_eq!(next(&mut reconnect, asks_for(secs(7))), (1, Duration::ZERO));
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, secs(3)), "7 s are left");
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (1, secs(3)), "4 s are left");
        assert_eq!(next(&mut reconnect, Outcome::Unanswered), (0, secs(3)), "1 s is left");
    }

    #[test]
    fn if_all_urls_asked_for_a_wait_the_client_waits_for_the_shortest() {
        let mut reconnect = several(2);
        assert_eq!(next(&mut reconnect, asks_for(secs(60))), (1, Duration::ZERO));
        assert_eq!(next(&mut reconnect, asks_for(secs(20))), (1, secs(20)));
        assert_eq!(next(&mut reconnect, asks_for(secs(90))), (0, secs(40)));
    }

    #[test]
    fn a_lasting_stream_ends_the_waits_that_other_urls_asked_for() {
        let mut reconnect = several(2);
        assert_eq!(next(&mut reconnect, asks_for(secs(3_600))), (1, Duration::ZERO));
        assert_eq!(next(&mut reconnect, LASTING), (0, Duration::ZERO));
    }

    #[test]
    fn answers_about_the_subscription_stop_a_client_with_several_urls() {
        for status in [400, 401, 403] {
            let stopped = several(2).handle_outcome(MOST, refused(status));
            assert_eq!(stopped, Err(StopReason::Failed), "{status}");
        }
        let stopped = several(2).handle_outcome(MOST, refused(204));
        assert_eq!(stopped, Err(StopReason::NoContent));
    }

    #[test]
    fn a_client_stops_when_each_url_has_failed_for_good() {
        for (first, last) in [(Outcome::Futile, refused(404)), (refused(410), Outcome::Futile)] {
            let mut reconnect = several(3);
            assert_eq!(next(&mut reconnect, first), (1, Duration::ZERO));
            assert_eq!(next(&mut reconnect, Outcome::Unanswered), (2, Duration::ZERO));
            assert_eq!(next(&mut reconnect, last), (0, secs(3)));
            assert_eq!(next(&mut reconnect, first), (1, Duration::ZERO));
            assert_eq!(reconnect.handle_outcome(MOST, last), Err(StopReason::Failed));
        }
    }

    #[test]
    fn a_url_that_failed_for_good_is_tried_again_after_a_lasting_stream() {
        for outcome in [LASTING, Outcome::Ended] {
            let mut reconnect = several(2);
            assert_eq!(next(&mut reconnect, Outcome::Futile), (1, Duration::ZERO));
            reconnect.handle_open();
            next(&mut reconnect, outcome);
            next(&mut reconnect, Outcome::Futile);
            let stopped = reconnect.handle_outcome(MOST, Outcome::Futile);
            assert_eq!(stopped, Err(StopReason::Failed));
        }
    }

    #[test]
    fn in_spec_mode_a_client_stops_when_each_url_has_refused() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::spec()).with_urls(2);
        assert_eq!(next(&mut reconnect, REFUSED_503), (1, Duration::ZERO));
        assert_eq!(reconnect.handle_outcome(MOST, REFUSED_503), Err(StopReason::Failed));
    }

    /// Runs all sequences of six outcomes with three URLs. An attempt may follow without a wait
    /// only under two conditions: its URL has had no attempt since the last wait or the last
    /// lasting stream, and the server's `Retry-After` has passed.
    #[test]
    fn no_sequence_of_outcomes_tries_a_url_too_early() {
        const OUTCOMES: [Outcome; 8] = [
            Outcome::Ended,
            Outcome::EndedEmpty,
            LASTING,
            SHORT,
            Outcome::Unsent,
            Outcome::Unanswered,
            Outcome::Refused { status: 503, retry_after: Some(Duration::from_secs(7)) },
            Outcome::Futile,
        ];
        const LENGTH: u32 = 6;
        for sequence in 0..OUTCOMES.len().pow(LENGTH) {
            let outcomes = (0..LENGTH).map(|n| OUTCOMES[sequence / 8_usize.pow(n) % 8]);
            check_sequence(outcomes.collect::<Vec<_>>());
        }
    }

    fn check_sequence(outcomes: Vec<Outcome>) {
        let mut reconnect = several(3);
        let mut tried = vec![0];
        let mut rests = [Duration::ZERO; 3];
        for outcome in &outcomes {
            if matches!(*outcome, Outcome::Ended | LASTING) {
                rests = [Duration::ZERO; 3];
                tried = vec![reconnect.url_index()];
            }
            if let Outcome::Refused { retry_after: Some(asked), .. } = *outcome {
                rests[reconnect.url_index()] = asked;
            }
            let Ok(wait) = reconnect.handle_outcome(LEAST, *outcome) else { return };
            let url = reconnect.url_index();
            rests.iter_mut().for_each(|rest| *rest = rest.saturating_sub(wait));
            if wait.is_zero() {
                assert!(!tried.contains(&url), "{outcomes:?}");
            } else {
                assert!(wait >= reconnect.reconnection_time(), "{outcomes:?}");
                tried.clear();
            }
            assert_eq!(rests[url], Duration::ZERO, "{outcomes:?}");
            tried.push(url);
        }
    }
}
