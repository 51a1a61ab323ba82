//! The line about a request. A request that opens a stream has no line of its own: the line of the
//! stream is written when the stream ends.
//!
//! The line of a request that succeeds has the level `debug`. Writing it takes half as much
//! processor time as a publish, and an operator needs it only when something is wrong.

use std::{thread, time::Instant};

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, HeaderValue, Method, Response, Uri, header},
};
use downlink::serve::PeerAddr;
use downlink_access::KeyId;

use super::{
    filter::ACCESS,
    requesters::{Peer, request_id},
    text::{self, NAME_CHARS_MAX, cleaned, seconds},
};
use crate::access::ClientAddress;

/// The length of a valid `traceparent` (W3C Trace Context, section 3.2).
const TRACEPARENT_BYTES: usize = 55;

/// The facts about an answer that a route passes to the log. The value is an extension of the
/// answer.
#[derive(Clone, Debug)]
pub(crate) enum Logged {
    /// The answer is a stream. Its line is written when the stream ends.
    Stream,
    /// The answer confirms this number of published events.
    Published(u64),
    /// The answer refuses the request for this reason.
    Refused(Box<str>),
}

/// A request that gets a line when its answer is known. If this value is dropped before its line is
/// written, there is no answer, because the client has left, the server has ended, or the route has
/// panicked. The line then says that there is no answer.
#[derive(Debug)]
pub(crate) struct RequestLine {
    began: Instant,
    method: Method,
    uri: Uri,
    is_written: bool,
    peer: PeerAddr,
    address: ClientAddress,
    request_id: Option<String>,
    traceparent: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// The id of the key that verified the credential.
    pub(crate) key: Option<KeyId>,
}

impl RequestLine {
    /// Begins the line of a request. `None` if the log leaves this line out.
    pub(crate) fn begin(
        (method, uri): (&Method, &Uri),
        headers: &HeaderMap,
        peer: PeerAddr,
        address: ClientAddress,
    ) -> Option<Self> {
        tracing::enabled!(target: ACCESS, tracing::Level::INFO).then(|| Self {
            began: Instant::now(),
            method: method.clone(),
            uri: uri.clone(),
            is_written: false,
            peer,
            address,
            request_id: request_id(headers),
            traceparent: headers.get("traceparent").filter(|value| is_traceparent(value)).cloned(),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            key: None,
        })
    }

    /// Writes the line, except for a stream. `code` is the code of a refusal.
    pub(crate) fn write(mut self, response: &Response<Body>, code: Option<&str>) {
        self.is_written = true;
        let status = Some(response.status().as_u16());
        let bytes = response.body().size_hint().exact();
        match response.extensions().get() {
            Some(Logged::Stream) => {}
            Some(Logged::Published(events)) => self.line(status, code, Some(*events), bytes),
            Some(Logged::Refused(reason)) => self.line(status, Some(reason), None, bytes),
            None => self.line(status, code, None, bytes),
        }
    }

    fn line(
        &self,
        status: Option<u16>,
        reason: Option<&str>,
        events: Option<u64>,
        bytes: Option<u64>,
    ) {
        let Self { method, uri, .. } = self;
        let query = uri.query().unwrap_or_default();
        let given = |name: &'static str| {
            let pairs = form_urlencoded::parse(query.as_bytes());
            pairs.filter(move |(key, _)| key == name).map(|(_, value)| value)
        };
        let address = self.address.ip();
        let peer = match self.peer {
            PeerAddr::Tcp(peer) => Some(peer.to_string()),
            PeerAddr::Unix => Some(Peer::Unix.to_string()),
            _ => None,
        };
        // `tracing` needs a constant level.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS,
                    method = cleaned(method.as_str(), 16),
                    path = cleaned(uri.path(), NAME_CHARS_MAX),
                    status,
                    peer,
                    address = address.map(|address| address.to_string()),
                    key = self.key.map(|key| key.to_string()),
                    client = text::joined(given("client")),
                    topics = text::joined(given("topic")),
                    reason,
                    seconds = seconds(self.began.elapsed()),
                    events,
                    bytes,
                    request_id = self.request_id,
                    traceparent = self.traceparent.as_ref().and_then(|value| value.to_str().ok()),
                    user_agent = self.user_agent.as_ref().map(text::user_agent),
                    "request"
                )
            };
        }
        // A browser gets a 200 or a 204 even if its request is refused.
        let succeeds = reason.is_none() && status.is_some_and(|status| status < 400);
        match succeeds {
            true => line!(debug),
            false => line!(info),
        }
    }
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        if !self.is_written {
            let reason = if thread::panicking() { "panicked" } else { "client_left" };
            self.line(None, Some(reason), None, None);
        }
    }
}

fn is_traceparent(value: &HeaderValue) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    value.len() == TRACEPARENT_BYTES && value.as_bytes().iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_of_the_standard_form_is_logged() {
        let is = |text| is_traceparent(&HeaderValue::from_static(text));
        assert!(is("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"));
        assert!(!is("00-0af7651916cd43dd8448eb211c80319c b7ad6b7169203331-01"));
    }
}
