//! Reads the responses of an app. The app at the URL of `--authorize-url` decides about
//! subscriptions. It allows a subscription with a grant, which is a list of rights.
//!
//! The server uses only the rights to read in the app's grant. It sends no text of the app to
//! clients, because such a text may reveal internals of the app.

use std::time::Duration;

use anyhow::bail;
use downlink::hub::Timestamp;
use downlink_access::{GRANT_BYTES_MAX, Grant, InvalidGrant};
use reqwest::{
    Response, StatusCode,
    header::{self, HeaderMap},
};

use crate::access::outgoing;

/// The maximum time for which a grant is used again. The server reduces a longer `max-age` to this
/// time.
pub(crate) const REUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The maximum number of characters in a log message about an invalid grant. The message may quote
/// a text of the app.
const REASON_CHARS_MAX: usize = 200;

/// The rights that the app has given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Granted {
    /// The rights to read. Other rights in the answer of the app are dropped.
    pub(crate) grant: Grant,
    /// The time at which the server sent the question. The caller must use it as the issue time of
    /// the subscription. Then a revocation at this time or later also applies to the subscription.
    pub(crate) asked_at: Timestamp,
}

/// The outcome of a question without a grant: the app refuses the subscription, or gives no usable
/// answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// The app does not know the user (401), or the credentials of the request are invalid or too
    /// large. This outcome is final.
    Unauthenticated,
    /// The user may not make this subscription (403). This outcome is final.
    Forbidden,
    /// There is no usable answer now. A program gets a 503. A browser gets a stream that ends at
    /// once, so the browser reconnects later.
    Unavailable,
}

/// The decision in a response of the app.
#[derive(Debug)]
pub(super) enum Decision {
    Granted {
        /// The rights to read.
        grant: Grant,
        /// The time for which the grant may be used again. `None` if it may not be used again.
        lasts: Option<Duration>,
    },
    Refused(Answer),
}

impl Decision {
    /// Reads a response.
    ///
    /// # Errors
    ///
    /// The response is not a grant, and is not one of the refusals 401 and 403.
    pub(super) async fn read(response: Response) -> anyhow::Result<Self> {
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Ok(Self::Refused(Answer::Unauthenticated)),
            StatusCode::FORBIDDEN => return Ok(Self::Refused(Answer::Forbidden)),
            status => bail!("the answer has the status {}", status.as_u16()),
        }
        let lasts = lasts(response.headers());
        let body = outgoing::read_body(response, GRANT_BYTES_MAX).await?;
        match Grant::from_json(&body) {
            Ok(grant) => Ok(Self::Granted { grant: rights_to_read(&grant), lasts }),
            Err(error) => bail!("the answer is not a grant: {}", reason(&error)),
        }
    }
}

/// Returns a grant with only the rights to read. A subscription needs no other rights.
fn rights_to_read(grant: &Grant) -> Grant {
    let topics = grant.subscribe().iter().cloned();
    let rights = topics.fold(Grant::none(), Grant::with_subscribe);
    let rights = rights.with_hear_everyone(grant.hear_everyone());
    let rights = rights.with_client(grant.client().cloned());
    match grant.until() {
        Some(until) => rights.with_until(until),
        None => rights,
    }
}

/// The time for which a response may be used again: the `max-age` of its `Cache-Control`. `None` if
/// there is no valid `max-age` above 0, or if there is `no-store` or `no-cache`. The directive
/// `private` has no effect, because the cache never gives the answer for one user to another user.
fn lasts(headers: &HeaderMap) -> Option<Duration> {
    let mut lasts = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            let (name, value) = directive.split_once('=').unwrap_or((&directive, ""));
            match name {
                "no-store" | "no-cache" => return None,
                "max-age" => {
                    let age = max_age(value)?;
                    lasts = Some(lasts.map_or(age, |other: Duration| other.min(age)));
                }
                _ => {}
            }
        }
    }
    lasts.filter(|lasts| !lasts.is_zero())
}

/// A time in seconds, at most [`REUSE_MAX`].
fn max_age(value: &str) -> Option<Duration> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // A number with too many digits for `u64` is above the maximum.
    let seconds = || value.parse().unwrap_or(u64::MAX);
    is_number.then(|| Duration::from_secs(seconds()).min(REUSE_MAX))
}

/// The first [`REASON_CHARS_MAX`] characters of the message about an invalid grant. Quoted text of
/// the app is already escaped in this message.
fn reason(error: &InvalidGrant) -> String {
    error.to_string().chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn seconds(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        lasts(&headers).map(|lasts| lasts.as_secs())
    }

    #[test]
    fn max_age_decides_how_long_an_answer_may_be_used_again() {
        assert_eq!(seconds(&["max-age=60"]), Some(60));
        assert_eq!(seconds(&["private, Max-Age=60"]), Some(60));
        assert_eq!(seconds(&["max-age=60", "max-age=7"]), Some(7));
        assert_eq!(seconds(&["max-age=7, max-age=60"]), Some(7));
        assert_eq!(seconds(&["max-age=3600"]), Some(3_600));
        assert_eq!(seconds(&["max-age=3601"]), Some(3_600));
        assert_eq!(seconds(&["max-age=99999999999999999999999"]), Some(3_600));
    }

    #[test]
    fn without_a_valid_max_age_an_answer_is_not_used_again() {
        for values in [&[][..], &["private"], &["max-age=0"], &["s-maxage=60"], &["max-age"]] {
            assert_eq!(seconds(values), None, "{values:?}");
        }
        for text in ["max-age=+60", "max-age=-1", "max-age=", "max-age=\"60\"", "max-age=1h"] {
            assert_eq!(seconds(&[text]), None, "{text}");
        }
        assert_eq!(seconds(&["max-age=60, no-store"]), None);
        assert_eq!(seconds(&["max-age=60", "no-cache"]), None);
        assert_eq!(seconds(&["max-age=60, max-age=x"]), None);
    }

    #[test]
    fn only_the_rights_to_read_of_a_grant_are_used() {
        let all = br#"{"subscribe": ["a/*", "b"], "publish": ["*"], "publish_clients": true,
            "hear_everyone": false, "everyone": true, "client": "ada", "issue": true,
            "follow": true, "admin": true, "until": 7}"#;
        let read = br#"{"subscribe": ["a/*", "b"], "hear_everyone": false, "client": "ada",
            "until": 7}"#;
        let grant = |text| Grant::from_json(text).unwrap();
        assert_eq!(rights_to_read(&grant(all)), grant(read));
        assert_eq!(rights_to_read(&grant(b"{}")), Grant::none());
    }

    #[test]
    fn a_message_about_an_invalid_grant_is_short_and_escaped() {
        let text = format!("{{\"{}\": 1}}", "\\n\\u001b".repeat(1_000));
        let message = reason(&Grant::from_json(text.as_bytes()).unwrap_err());
        assert!(message.contains("\\n\\u{1b}") && !message.contains('\n'), "{message}");
        assert_eq!(message.chars().count(), REASON_CHARS_MAX);
    }
}
