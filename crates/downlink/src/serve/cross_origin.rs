//! The headers with which a page of another origin may read a refusal (CORS).
//!
//! An `EventSource` closes for good if its page may not read an answer. So without these headers,
//! it would never reconnect after a refusal. A refusal contains nothing private, so the page of
//! every origin may read it. The app decides about its own answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// The maximum length of an origin that a refusal repeats in its header
/// `Access-Control-Allow-Origin`.
///
/// The longest origin of a web page has 267 bytes: a scheme, a host name of 253 bytes and a port.
/// The limit is a little above this length, so every page can read a refusal.
const ORIGIN_BYTES_MAX: usize = 300;

/// The headers that a page of another origin needs.
const HEADERS: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    VARY,
];

/// Lets the page that has sent a request read the refusal. `request` and `refusal` are the headers
/// of both. Adds nothing if the request does not have exactly one valid `Origin`.
pub(super) fn allow(request: &HeaderMap, refusal: &mut HeaderMap) {
    let mut origins = request.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return };
    let is_visible = origin.as_bytes().iter().all(u8::is_ascii_graphic);
    if is_visible && (1..=ORIGIN_BYTES_MAX).contains(&origin.len()) {
        let [yes, exposed, vary] = ["true", "retry-after", "Origin"].map(HeaderValue::from_static);
        let values = [origin.clone(), yes, exposed, vary];
        refusal.extend(HEADERS.into_iter().zip(values));
    }
}

/// Copies these headers from a response of the app to the refusal that replaces it. So if the app
/// has allowed the page to read the response, the page may also read the refusal. `response` and
/// `refusal` are the headers of both.
pub(super) fn keep(response: &HeaderMap, refusal: &mut HeaderMap) {
    for name in HEADERS {
        for value in response.get_all(&name) {
            refusal.append(&name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &[&[u8]]) -> Option<HeaderValue> {
        let (mut request, mut refusal) = (HeaderMap::new(), HeaderMap::new());
        for origin in origins {
            request.append(ORIGIN, HeaderValue::from_bytes(origin).expect("a header value"));
        }
        allow(&request, &mut refusal);
        assert!([0, 4].contains(&refusal.len()), "{refusal:?}");
        refusal.remove(ACCESS_CONTROL_ALLOW_ORIGIN)
    }

    #[test]
    fn one_valid_origin_is_repeated() {
        let longest = [b'a'; ORIGIN_BYTES_MAX];
        for origin in [&b"https://app.example:8443"[..], b"null", b"a", &longest] {
            assert_eq!(allowed(&[origin]).expect("the origin is valid").as_bytes(), origin);
        }
    }

    #[test]
    fn an_invalid_origin_is_not_repeated() {
        assert_eq!(allowed(&[]), None);
        assert_eq!(allowed(&[b"https://a.example", b"https://b.example"]), None);
        let too_long = [b'a'; ORIGIN_BYTES_MAX + 1];
        for origin in [&b""[..], b"https://a b", b"a\tb", b"a\x80", "\u{e9}".as_bytes(), &too_long]
        {
            assert_eq!(allowed(&[origin]), None, "{origin:?}");
        }
    }

    #[test]
    fn the_cors_headers_of_the_app_are_copied_to_the_refusal() {
        let value = HeaderValue::from_static;
        let response = [(VARY, value("Accept")), (VARY, value("Origin")), (ORIGIN, value("x"))];
        let mut refusal = HeaderMap::new();
        keep(&response.into_iter().collect(), &mut refusal);
        let vary: Vec<_> = refusal.get_all(VARY).iter().collect();
        assert_eq!((vary, refusal.len()), (vec![&value("Accept"), &value("Origin")], 2));
    }
}
