//! Refusals that make the client return later.
//!
//! A browser's `EventSource` never reconnects after a status other than 200, so a browser gets an
//! empty stream with a reconnection time. Other clients get the status 503 or 429 with
//! `Retry-After`. Each client gets a random time. With equal times, all clients would return at once.

use std::time::Duration;

use bytes::Bytes;
use downlink_proto::Frame;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::problem::Problem;
use super::spread::Spread;
use super::sse::event_stream;

/// Makes the response for a subscriber when the server is full or about to end.
///
/// If `browser` is true (see [`LastEventId::is_browser`](super::LastEventId::is_browser)), the
/// response is a stream with the status 200. The stream contains the reason as a comment and a
/// reconnection time (`retry:`), and then ends. If `browser` is false, the response has the status
/// 503, a `Retry-After` in whole seconds (at least 1), and a [`Problem`] with the reason as its
/// detail.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use downlink::http::{Spread, refuse};
///
/// let spread = Spread::between(Duration::from_secs(2), Duration::from_secs(9));
/// let response = refuse("The topic has all its subscribers.", spread, false);
/// assert_eq!(response.status(), 503);
/// assert!(response.headers().contains_key("retry-after"));
/// ```
pub fn refuse(reason: &str, reconnection: Spread, browser: bool) -> Response<Full<Bytes>> {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE);
    refuse_as(problem, reason, reconnection, browser)
}

/// Makes the response for a client that has reached a limit of its own, such as a rate.
///
/// The response is that of [`refuse`], but with the status 429 instead of 503, and with the code
/// `too_many_requests`.
pub fn too_many_requests(
    reason: &str,
    reconnection: Spread,
    browser: bool,
) -> Response<Full<Bytes>> {
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS).code("too_many_requests");
    refuse_as(problem, reason, reconnection, browser)
}

fn refuse_as(
    problem: Problem,
    reason: &str,
    reconnection: Spread,
    browser: bool,
) -> Response<Full<Bytes>> {
    let delay = reconnection.pick();
    if browser {
        let mut stream = Vec::from(Frame::comment(reason).as_bytes());
        stream.extend_from_slice(Frame::retry(delay).as_bytes());
        return event_stream(Full::from(stream));
    }
    let mut response = problem.detail(reason.to_owned()).into_http_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
    response
}

/// The delay in whole seconds. It is rounded up, because 0 would mean "at once".
fn whole_seconds(delay: Duration) -> u64 {
    let partial = u64::from(delay.subsec_nanos() > 0);
    delay.as_secs().saturating_add(partial).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_never_zero() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (5_000, 5)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
