//! The id of the last event that a client has received.
//!
//! A reconnecting `EventSource` sends it in the `Last-Event-ID` header. A page that knows its
//! starting point sets `last_event_id` in the query. Nothing is rejected here: an invalid id leads
//! to a gap notice later, but a refused browser would never return.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode;

/// The most bytes of an id; a longer id is cut to this length.
///
/// The hub's own ids have at most 128 bytes, so a cut id matches none of them and counts as
/// unknown.
pub const LAST_EVENT_ID_BYTES_MAX: usize = 1_024;

/// The name of the query parameter.
const PARAMETER: &str = "last_event_id";

/// The id of the last event that the client has received, if the request has one.
///
/// With the feature `axum` it is an extractor that never rejects.
///
/// # Examples
///
/// ```
/// use downlink::http::LastEventId;
/// use http::HeaderMap;
///
/// let last = LastEventId::from_request(&HeaderMap::new(), Some("topic=a&last_event_id=7%2F3"));
/// assert_eq!(last.as_str(), Some("7/3"));
/// assert_eq!(LastEventId::none().as_str(), None);
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LastEventId {
    /// Invariant: not empty.
    id: Option<Box<str>>,
    browser: bool,
}

impl LastEventId {
    /// No id: the client is new.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a request: the header if it is there and not empty, else the query.
    ///
    /// Invalid UTF-8 is replaced, as a browser's decoder does. In the query `%` escapes are decoded
    /// and `+` is kept, since ids may contain it.
    pub fn from_request(headers: &HeaderMap, query: Option<&str>) -> Self {
        let id = from_header(headers).or_else(|| from_query(query?));
        Self { id, browser: is_browser(headers) }
    }

    /// The id, never empty.
    pub fn as_str(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// True if a browser sent the request, by its `Sec-Fetch-Mode` header.
    ///
    /// It matters when refusing: see [`refuse`](super::refuse()).
    pub fn is_browser(&self) -> bool {
        self.browser
    }
}

impl From<&str> for LastEventId {
    fn from(id: &str) -> Self {
        Self { id: text(id.as_bytes()), browser: false }
    }
}

/// True if a browser sent these headers. Other clients do not send this one by default.
pub(crate) fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-mode")
}

fn from_header(headers: &HeaderMap) -> Option<Box<str>> {
    text(headers.get("last-event-id")?.as_bytes())
}

fn from_query(query: &str) -> Option<Box<str>> {
    let value =
        query.split('&').find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))?;
    // An escape is at most three bytes for one.
    let escaped = cut(value.as_bytes(), 3 * LAST_EVENT_ID_BYTES_MAX);
    text(&Cow::from(percent_decode(escaped)))
}

/// An id as text, unless it is empty.
fn text(bytes: &[u8]) -> Option<Box<str>> {
    let text = String::from_utf8_lossy(cut(bytes, LAST_EVENT_ID_BYTES_MAX));
    (!text.is_empty()).then(|| text.into())
}

fn cut(bytes: &[u8], bytes_max: usize) -> &[u8] {
    &bytes[..bytes.len().min(bytes_max)]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(header: Option<&[u8]>, query: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            let value = HeaderValue::from_bytes(value).expect("a header's bytes");
            headers.insert("last-event-id", value);
        }
        LastEventId::from_request(&headers, query).as_str().map(str::to_owned)
    }

    #[test]
    fn header_comes_before_query() {
        assert_eq!(read(Some(b"7"), Some("last_event_id=3")).as_deref(), Some("7"));
        assert_eq!(read(None, Some("a=b&last_event_id=3&c")).as_deref(), Some("3"));
    }

    #[test]
    fn empty_is_none() {
        assert_eq!(read(None, None), None);
        assert_eq!(read(Some(b""), Some("last_event_id=3")).as_deref(), Some("3"));
        assert_eq!(read(None, Some("last_event_id=")), None);
        assert_eq!(LastEventId::from("").as_str(), None);
    }

    #[test]
    fn header_is_utf8_and_never_rejected() {
        assert_eq!(read(Some("h\u{e9}".as_bytes()), None).as_deref(), Some("h\u{e9}"));
        assert_eq!(read(Some(b"a\xffb"), None).as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn query_is_percent_decoded() {
        assert_eq!(read(None, Some("last_event_id=a%20%C3%A9")).as_deref(), Some("a \u{e9}"));
        assert_eq!(read(None, Some("last_event_id=a+b%2Bc%zz")).as_deref(), Some("a+b+c%zz"));
        assert_eq!(read(None, Some("xlast_event_id=3&last_event_idx=4")), None);
    }

    #[test]
    fn long_ids_are_cut() {
        for (len, kept) in [(1_023, 1_023), (1_024, 1_024), (1_025, 1_024)] {
            let long = "x".repeat(len);
            let header = read(Some(long.as_bytes()), None).expect("an id");
            assert_eq!(header.len(), kept);
            let escaped = format!("last_event_id={}", "%78".repeat(len));
            assert_eq!(read(None, Some(&escaped)).expect("an id").len(), kept);
        }
    }

    #[test]
    fn browser_is_known_by_its_header() {
        let mut headers = HeaderMap::new();
        assert!(!LastEventId::from_request(&headers, None).is_browser());
        headers.insert("sec-fetch-mode", HeaderValue::from_static("cors"));
        assert!(LastEventId::from_request(&headers, None).is_browser());
    }
}
