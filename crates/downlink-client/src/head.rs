//! Reads two headers of an answer: `Content-Type` and `Retry-After`.

use http::{
    HeaderMap,
    header::{CONTENT_TYPE, DATE, RETRY_AFTER},
};
use std::time::Duration;

/// Whether the answer has this media type. Parameters are ignored.
pub(crate) fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(expected.as_bytes())
}

/// The wait from the header `Retry-After`, which contains seconds or a date. If it contains a date,
/// the wait is counted from the `Date` header of the answer, because the client's clock may differ
/// from the server's clock.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let sent = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(until.duration_since(sent).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT_STREAM: &str = "text/event-stream";

    const SENT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn wait(retry_after: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        super::retry_after(&headers)
    }

    fn accepts(content_type: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        has_media_type(&headers, EVENT_STREAM)
    }

    #[test]
    fn retry_after_may_be_a_whole_number_of_seconds() {
        assert_eq!(wait("120", None), Some(Duration::from_secs(120)));
        assert_eq!(wait("0", None), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999", None), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(wait("-1", None), None);
        assert_eq!(wait("1.5", None), None);
        assert_eq!(wait("", None), None);
    }

    #[test]
    fn retry_after_as_a_date_counts_from_the_servers_clock() {
        let until = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(wait(until, Some(SENT)), Some(Duration::from_secs(60)));
        assert_eq!(wait(SENT, Some(until)), Some(Duration::ZERO), "a date in the past");
        assert_eq!(wait(until, None), None);
    }

    #[test]
    fn media_type_is_compared_without_case_and_parameters() {
        assert!(accepts("text/event-stream"));
        assert!(accepts("Text/Event-Stream"));
        assert!(accepts("text/event-stream;"));
        assert!(accepts("text/event-stream ; charset=windows-1252"));
        assert!(!accepts("text/event-streams"));
        assert!(!accepts("x bogus"));
        assert!(!accepts("text/x-bogus"));
        assert!(!has_media_type(&HeaderMap::new(), EVENT_STREAM));
    }
}
