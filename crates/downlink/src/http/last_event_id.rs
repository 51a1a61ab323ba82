//! The id of the last event that a client has received.
//!
//! A reconnecting `EventSource` sends the id in the `Last-Event-ID` header. A page that knows where
//! to start puts the id into the parameter `last_event_id` of the query. Libraries that cannot set
//! headers use parameters with other names.
//!
//! This module rejects no id, because a browser that was refused would never return. A client with
//! an invalid id later gets a gap event, which says that events may be missing.

use std::borrow::Cow;

use http::HeaderMap;
#[cfg(feature = "access")]
use http::Method;
use percent_encoding::percent_decode;

/// The maximum length of an id in bytes. A longer id is cut to this length.
///
/// The ids of a hub have at most 128 bytes. So an id that was cut matches no id of a hub, and
/// counts as unknown.
pub const LAST_EVENT_ID_BYTES_MAX: usize = 1_024;

/// The names of the query parameter, in lower case and without `_` and `-`. They match
/// `last_event_id`, `lastEventId`, `Last-Event-ID`, and the names that two polyfills send.
const PARAMETERS: [&str; 2] = ["lasteventid", "evslasteventid"];

/// The maximum length of a name in the query. Longer names are not compared with the names above.
/// The limit is the length of the longest name with each byte escaped.
const NAME_BYTES_MAX: usize = 3 * "evs_last_event_id".len();

/// The query parameter by which a browser's page says that it can read the status of a refusal.
const WITH_STATUS: &str = "refuse_with_status";

/// The id of the last event that the client has received, if the request has one.
///
/// With the feature `axum`, this type is an extractor that never rejects a request.
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
    /// Invariant: the text is not empty.
    id: Option<Box<str>>,
    browser: bool,
}

impl LastEventId {
    /// The value of a new client, which has no id.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the id from a request. A header that is not empty takes precedence over the query. If
    /// there are several values, the last value that is not empty counts, because some libraries
    /// append the newer id to a URL that already has an id.
    ///
    /// Invalid UTF-8 is replaced, as in a browser's decoder. In the query, `%` escapes are decoded,
    /// but `+` is kept, because ids may contain it.
    pub fn from_request(headers: &HeaderMap, query: Option<&str>) -> Self {
        let id = from_header(headers).or_else(|| from_query(query?));
        Self { id, browser: is_browser(headers, query) }
    }

    /// Whether a query parameter with this name contains the id. True for `last_event_id` and for
    /// the names that libraries use, such as `lastEventId`. A server that refuses unknown
    /// parameters can use this function to allow these names.
    pub fn is_parameter(name: &str) -> bool {
        let letters = || name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
        let is = |known: &&str| letters().map(|byte| byte.to_ascii_lowercase()).eq(known.bytes());
        name.len() <= NAME_BYTES_MAX && PARAMETERS.iter().any(is)
    }

    /// The id, if there is one. It is never empty.
    pub fn as_str(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Sets the id if there is none yet.
    #[must_use]
    pub fn or(self, id: &str) -> Self {
        Self { id: self.id.or_else(|| text(id.as_bytes())), ..self }
    }

    /// Removes the id, for a stream that never resumes.
    ///
    /// ```
    /// use downlink::LastEventId;
    ///
    /// assert_eq!(LastEventId::from("7").without_id().as_str(), None);
    /// assert_eq!(LastEventId::none().or("7").as_str(), Some("7"));
    /// ```
    #[must_use]
    pub fn without_id(self) -> Self {
        Self { id: None, ..self }
    }

    /// Whether a browser sent the request for an `EventSource`, which cannot read the status of a
    /// refusal (see [`refuse`](super::refuse())).
    ///
    /// Browsers send the header `Sec-Fetch-Mode` to `https` addresses and to their own machine. A
    /// request with this header counts as a browser's request. A request without it counts if it
    /// has `Accept: text/event-stream` and a `User-Agent` that begins with `Mozilla/`. A page that
    /// reads the stream with `fetch` can read the status, and says so with `refuse_with_status=1`
    /// in the query.
    pub fn is_browser(&self) -> bool {
        self.browser
    }
}

impl From<&str> for LastEventId {
    fn from(id: &str) -> Self {
        Self { id: text(id.as_bytes()), browser: false }
    }
}

/// Whether a browser sent this request and cannot read the status of a refusal.
pub(crate) fn is_browser(headers: &HeaderMap, query: Option<&str>) -> bool {
    let has = |name: &str, wanted: fn(&str) -> bool| {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(wanted)
    };
    let is_on = |value: &str| !matches!(value, "=0" | "=false");
    let asks = |pair: &str| pair.strip_prefix(WITH_STATUS).is_some_and(is_on);
    let wants_status = query.is_some_and(|query| query.split('&').any(asks));
    let is_agent = || has("user-agent", |agent| agent.starts_with("Mozilla/"));
    let wants_stream = || has("accept", |accept| accept.contains("text/event-stream"));
    !wants_status && (headers.contains_key("sec-fetch-mode") || (wants_stream() && is_agent()))
}

/// Whether a browser's `EventSource` sent this request. An `EventSource` cannot read the status of
/// a refusal. Other code in a browser can read the status. If such code got a refusal without an
/// error status, it would treat the refusal as a success.
#[cfg(feature = "access")]
pub(crate) fn is_event_source(method: &Method, headers: &HeaderMap, query: Option<&str>) -> bool {
    let accepted = headers.get_all("accept").iter().filter_map(|value| value.to_str().ok());
    let wants_stream = accepted.into_iter().any(|accept| accept.contains("text/event-stream"));
    *method == Method::GET && wants_stream && is_browser(headers, query)
}

fn from_header(headers: &HeaderMap) -> Option<Box<str>> {
    headers.get_all("last-event-id").iter().rev().find_map(|value| text(value.as_bytes()))
}

fn from_query(query: &str) -> Option<Box<str>> {
    query.split('&').rev().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = percent_decode(cut(name.as_bytes(), NAME_BYTES_MAX + 1)).decode_utf8().ok()?;
        if !LastEventId::is_parameter(&name) {
            return None;
        }
        // An escape in the query has three bytes for one byte of the id.
        let escaped = cut(value.as_bytes(), 3 * LAST_EVENT_ID_BYTES_MAX);
        text(&Cow::from(percent_decode(escaped)))
    })
}

/// The id as text. `None` if the id is empty.
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
            let value = HeaderValue::from_bytes(value).expect("the bytes may be in a header");
            headers.insert("last-event-id", value);
        }
        LastEventId::from_request(&headers, query).as_str().map(str::to_owned)
    }

    #[test]
    fn the_header_takes_precedence_over_the_query() {
        assert_eq!(read(Some(b"7"), Some("last_event_id=3")).as_deref(), Some("7"));
        assert_eq!(read(None, Some("a=b&last_event_id=3&c")).as_deref(), Some("3"));
    }

    #[test]
    fn an_empty_id_counts_as_none() {
        assert_eq!(read(None, None), None);
        assert_eq!(read(Some(b""), Some("last_event_id=3")).as_deref(), Some("3"));
        assert_eq!(read(None, Some("last_event_id=")), None);
        assert_eq!(LastEventId::from("").as_str(), None);
    }

    #[test]
    fn the_header_is_read_as_utf8_and_never_rejected() {
        assert_eq!(read(Some("h\u{e9}".as_bytes()), None).as_deref(), Some("h\u{e9}"));
        assert_eq!(read(Some(b"a\xffb"), None).as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn the_query_is_percent_decoded() {
        assert_eq!(read(None, Some("last_event_id=a%20%C3%A9")).as_deref(), Some("a \u{e9}"));
        assert_eq!(read(None, Some("last_event_id=a+b%2Bc%zz")).as_deref(), Some("a+b+c%zz"));
        assert_eq!(read(None, Some("xlast_event_id=3&last_event_idx=4")), None);
    }

    #[test]
    fn long_ids_are_cut() {
        for (len, kept) in [(1_023, 1_023), (1_024, 1_024), (1_025, 1_024)] {
            let long = "x".repeat(len);
            let header = read(Some(long.as_bytes()), None).expect("the request has an id");
            assert_eq!(header.len(), kept);
            let escaped = format!("last_event_id={}", "%78".repeat(len));
            assert_eq!(read(None, Some(&escaped)).expect("the request has an id").len(), kept);
        }
    }

    #[test]
    fn the_last_id_that_is_not_empty_counts() {
        let id = |query| read(None, Some(query));
        assert_eq!(id("last_event_id=1&last_event_id=2").as_deref(), Some("2"));
        assert_eq!(id("last_event_id=&last_event_id=2").as_deref(), Some("2"));
        assert_eq!(id("last_event_id=1&topic=a&last_event_id=").as_deref(), Some("1"));
        assert_eq!(id("last%5Fevent%5Fid=7&last_event_id").as_deref(), Some("7"));
        let mut several = HeaderMap::new();
        for id in ["1", "2", ""] {
            several.append("last-event-id", HeaderValue::from_static(id));
        }
        assert_eq!(LastEventId::from_request(&several, None).as_str(), Some("2"));
    }

    #[test]
    fn the_parameter_names_of_libraries_are_recognized() {
        for name in [
            "last_event_id",
            "lastEventId",
            "lastEventID",
            "Last-Event-ID",
            "last-event-id",
            "evs_last_event_id",
            "last%45ventId",
        ] {
            assert_eq!(read(None, Some(&format!("{name}=7"))).as_deref(), Some("7"), "{name}");
        }
        for name in ["last_event", "lasteventids", "event_id", &"last_event_id".repeat(90)] {
            assert_eq!(read(None, Some(&format!("{name}=7"))), None, "{name}");
        }
    }

    fn is_browser(headers: &[(&'static str, &str)], query: &str) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                value.parse::<HeaderValue>().expect("the value is valid"),
            )
        });
        LastEventId::from_request(&headers.collect(), Some(query)).is_browser()
    }

    #[test]
    fn a_browser_is_recognized_by_its_headers() {
        let firefox = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101");
        let stream = ("accept", "text/event-stream");
        assert!(is_browser(&[("sec-fetch-mode", "cors")], ""));
        // Over plain HTTP, browsers send `Sec-Fetch-Mode` only to their own machine.
        assert!(is_browser(&[stream, firefox], "topic=a"));
        assert!(!is_browser(&[firefox, ("accept", "*/*")], "") && !is_browser(&[stream], ""));
        assert!(!is_browser(&[stream, ("user-agent", "curl/8")], ""));
        assert!(!is_browser(&[stream, firefox], "topic=a&refuse_with_status=1"));
    }
}
