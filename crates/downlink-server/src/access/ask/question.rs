//! The question that the server asks the app of `--authorize-url` about a subscription: its text,
//! and the key under which the server keeps the answer.
//!
//! The key is a hash of everything that the app gets from the request. So two requests share an
//! answer only if the app cannot tell them apart.

use std::net::IpAddr;

use aws_lc_rs::digest;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use downlink::{access::single_value, hub::Selection};
use serde::Serialize;

use super::settings::AskOptions;

/// The maximum number of bytes of all cookies together. The `Authorization` header has the same
/// maximum. Browsers and servers have limits near 8 KiB.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;

/// The maximum number of bytes of the JSON text of a question, which has the topics, the client,
/// the address and the origin. A question with all topics of the largest grant fits.
pub(crate) const QUESTION_BYTES_MAX: usize = 128 * 1024;

/// A request to subscribe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The topics and the client of the query.
    pub(crate) asked: &'a Selection,
    /// The address of the client, if it is known.
    pub(crate) address: Option<IpAddr>,
    /// The headers of the request.
    pub(crate) headers: &'a HeaderMap,
    /// Whether the page that has sent the request may use the cookies of its user.
    pub(crate) may_use_cookies: bool,
}

/// A question as the app gets it.
#[derive(Debug)]
pub(super) struct Message {
    /// The question as JSON.
    body: Bytes,
    cookie: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
}

/// The key of an answer: a SHA-256 hash.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key([u8; 32]);

/// The JSON text of a question.
#[derive(Serialize)]
struct Body<'a> {
    topics: Vec<&'a str>,
    client: Option<&'a str>,
    address: Option<IpAddr>,
    origin: Option<&'a str>,
}

impl Message {
    /// The message for a question. `None` if `Origin` or `Authorization` is given twice, if a
    /// header has invalid characters, or if a part of the message is above its limit. A message
    /// without the bad part would make the app decide about a different request.
    pub(super) fn new(question: &Question<'_>, options: &AskOptions) -> Option<Self> {
        let Question { asked, address, headers, may_use_cookies } = question;
        let body = Body {
            topics: asked.selectors.iter().map(|topic| topic.as_str()).collect(),
            client: asked.client.as_ref().map(|client| client.as_str()),
            address: address.map(|address| address.to_canonical()),
            origin: single_value(headers, &header::ORIGIN).ok()?,
        };
        let body = serde_json::to_vec(&body).ok()?;
        let cookie = match may_use_cookies {
            true => chosen_cookies(headers, &options.cookies),
            false => Vec::new(),
        };
        let cookie = Some(cookie).filter(|cookie| !cookie.is_empty());
        let cookie = cookie.map(HeaderValue::try_from).transpose().ok()?;
        let authorization = match options.passes_authorization {
            true => single_value(headers, &header::AUTHORIZATION).ok()?,
            false => None,
        };
        let authorization = authorization.map(HeaderValue::from_str).transpose().ok()?;
        let fits = |value: &Option<HeaderValue>| {
            value.as_ref().is_none_or(|value| value.len() <= CREDENTIAL_BYTES_MAX)
        };
        let fit = body.len() <= QUESTION_BYTES_MAX && fits(&cookie) && fits(&authorization);
        fit.then(|| Self { body: body.into(), cookie, authorization })
    }

    /// The key of the answer. The hash takes the length of each part and then the part. So two
    /// different messages never have the same input for the hash.
    pub(super) fn key(&self) -> Key {
        let mut hash = digest::Context::new(&digest::SHA256);
        let parts = [Some(&*self.body), bytes_of(&self.cookie), bytes_of(&self.authorization)];
        for part in parts {
            // For an absent part, the hash takes a length that no part can have.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(&length.to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        Key(key)
    }

    /// The JSON text.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The headers of the message.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.insert(header::ACCEPT, json);
        let credentials =
            [(header::COOKIE, &self.cookie), (header::AUTHORIZATION, &self.authorization)];
        for (name, value) in credentials {
            if let Some(mut value) = value.clone() {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        headers
    }

    /// The bytes that the message occupies while it waits.
    pub(super) fn bytes(&self) -> usize {
        let credentials = [&self.cookie, &self.authorization];
        let credentials = credentials.into_iter().flatten().map(HeaderValue::len);
        MESSAGE_BYTES + self.body.len() + credentials.sum::<usize>()
    }
}

/// The number of bytes that a request to the app takes in memory, besides the body and the
/// credentials of its message. This includes the task that sends the request.
const MESSAGE_BYTES: usize = 1_024;

#[cfg(test)]
impl Key {
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

fn bytes_of(value: &Option<HeaderValue>) -> Option<&[u8]> {
    value.as_ref().map(HeaderValue::as_bytes)
}

/// The cookies with these names, as the value of one `Cookie` header. If the request has two
/// cookies with the same name, the app gets both in their order, as it would from the browser.
fn chosen_cookies(headers: &HeaderMap, names: &[String]) -> Vec<u8> {
    let mut chosen: Vec<u8> = Vec::new();
    for header in headers.get_all(header::COOKIE) {
        for pair in header.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let is_named = |name: &String| {
                pair.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
            };
            if names.iter().any(is_named) {
                if !chosen.is_empty() {
                    chosen.extend_from_slice(b"; ");
                }
                chosen.extend_from_slice(pair);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use downlink::hub::{ClientId, TopicSelector};

    use super::*;

    fn options() -> AskOptions {
        AskOptions {
            url: "http://127.0.0.1:1/".into(),
            cookies: vec!["sid".into(), "remember".into()],
            passes_authorization: true,
        }
    }

    fn selection(topics: &[&str], client: Option<&str>) -> Selection {
        let selectors = topics.iter().map(|topic| TopicSelector::parse(topic).unwrap()).collect();
        Selection { selectors, client: client.map(|client| ClientId::new(client).unwrap()) }
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        pairs.iter().for_each(|(name, text)| {
            headers.append(name, value(text));
        });
        headers
    }

    fn message(pairs: &[(HeaderName, &str)]) -> Option<Message> {
        let (asked, headers) = (selection(&["a"], None), headers(pairs));
        let question =
            Question { asked: &asked, address: None, headers: &headers, may_use_cookies: true };
        Message::new(&question, &options())
    }

    fn cookie(text: &str) -> Option<String> {
        let cookie = message(&[(header::COOKIE, text)]).unwrap().cookie?;
        Some(String::from_utf8(cookie.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_question_is_json() {
        let asked = selection(&["orders/*", "a\"b"], Some("ada"));
        let headers = headers(&[(header::ORIGIN, "https://app.example")]);
        let address = Some("::ffff:192.0.2.7".parse().unwrap());
        let question =
            Question { asked: &asked, address, headers: &headers, may_use_cookies: true };
        let body = Message::new(&question, &options()).unwrap().body();
        let text = r#"{"topics":["orders/*","a\"b"],"client":"ada","address":"192.0.2.7","origin":"https://app.example"}"#;
        assert_eq!(str::from_utf8(&body), Ok(text));
        let text = r#"{"topics":["a"],"client":null,"address":null,"origin":null}"#;
        assert_eq!(str::from_utf8(&message(&[]).unwrap().body()), Ok(text));
    }

    #[test]
    fn only_the_named_cookies_are_passed_on() {
        assert_eq!(cookie("sid=1"), Some("sid=1".into()));
        assert_eq!(cookie("x=1; sid=2;remember=3 ; sidx=4"), Some("sid=2; remember=3".into()));
        assert_eq!(cookie("sid=1; sid=2"), Some("sid=1; sid=2".into()));
        assert_eq!(cookie("sid=é=\"a\""), Some("sid=é=\"a\"".into()));
        assert_eq!(cookie("SID=1; sid; =sid; xsid=1; sid =1"), None);
        let two = [(header::COOKIE, "sid=1"), (header::COOKIE, "remember=2")];
        assert_eq!(message(&two).unwrap().cookie.unwrap(), "sid=1; remember=2");
    }

    #[test]
    fn cookies_and_tokens_are_passed_on_only_if_the_app_may_get_them() {
        let asked = selection(&["a"], None);
        let pairs = [(header::COOKIE, "sid=1"), (header::AUTHORIZATION, "Bearer x")];
        let headers = headers(&pairs);
        let question =
            Question { asked: &asked, address: None, headers: &headers, may_use_cookies: false };
        let passed = Message::new(&question, &options()).unwrap().headers();
        assert!(!passed.contains_key(header::COOKIE));
        assert_eq!(passed[header::AUTHORIZATION], "Bearer x");
        let options = AskOptions { passes_authorization: false, ..options() };
        let question = Question { may_use_cookies: true, ..question };
        let passed = Message::new(&question, &options).unwrap().headers();
        assert_eq!(passed[header::COOKIE], "sid=1");
        assert!(!passed.contains_key(header::AUTHORIZATION));
    }

    #[test]
    fn credentials_do_not_appear_in_debug_output() {
        let passed = message(&[(header::AUTHORIZATION, "Bearer secret")]).unwrap().headers();
        assert!(!format!("{passed:?}").contains("secret"));
    }

    #[test]
    fn a_request_with_a_repeated_header_gives_no_message() {
        for name in [header::AUTHORIZATION, header::ORIGIN] {
            assert!(message(&[(name.clone(), "a"), (name, "b")]).is_none());
        }
        assert!(message(&[(header::ORIGIN, "é")]).is_none());
    }

    #[test]
    fn credentials_are_accepted_up_to_their_size_limit() {
        let text = |length: usize| format!("sid={}", "a".repeat(length - 4));
        for name in [header::COOKIE, header::AUTHORIZATION] {
            assert!(message(&[(name.clone(), &text(CREDENTIAL_BYTES_MAX))]).is_some());
            assert!(message(&[(name, &text(CREDENTIAL_BYTES_MAX + 1))]).is_none());
        }
    }

    #[test]
    fn a_question_is_accepted_up_to_its_size_limit() {
        let origin = |length: usize| message(&[(header::ORIGIN, &"a".repeat(length))]);
        let room = QUESTION_BYTES_MAX - origin(1).unwrap().body().len() + 1;
        assert_eq!(origin(room).unwrap().body().len(), QUESTION_BYTES_MAX);
        assert!(origin(room + 1).is_none());
    }

    #[test]
    fn messages_that_split_the_same_text_differently_have_different_keys() {
        let key = |pairs: &[(HeaderName, &str)]| message(pairs).unwrap().key();
        let keys = [
            key(&[]),
            key(&[(header::COOKIE, "sid=")]),
            key(&[(header::AUTHORIZATION, "")]),
            key(&[(header::COOKIE, "sid=ab")]),
            key(&[(header::COOKIE, "sid=a"), (header::AUTHORIZATION, "b")]),
            key(&[(header::AUTHORIZATION, "sid=ab")]),
            key(&[(header::COOKIE, "sid=1; remember=2")]),
            key(&[(header::COOKIE, "remember=2; sid=1")]),
            key(&[(header::ORIGIN, "sid=ab")]),
        ];
        let distinct: std::collections::HashSet<Key> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn different_topics_clients_and_addresses_give_different_keys() {
        let key = |topics: &[&str], client, address: Option<&str>| {
            let (asked, headers) = (selection(topics, client), HeaderMap::new());
            let address = address.map(|address| address.parse().unwrap());
            let question =
                Question { asked: &asked, address, headers: &headers, may_use_cookies: true };
            Message::new(&question, &options()).unwrap().key()
        };
        let keys = [
            key(&["a", "b"], None, None),
            key(&["b", "a"], None, None),
            key(&["ab"], None, None),
            key(&["a\",\"b"], None, None),
            key(&["a"], Some("b"), None),
            key(&["a"], Some("c"), None),
            key(&["a"], None, None),
            key(&["a"], None, Some("192.0.2.1")),
            key(&["a"], None, Some("192.0.2.2")),
        ];
        let distinct: std::collections::HashSet<Key> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(key(&["a"], None, None), key(&["a"], None, None));
    }
}
