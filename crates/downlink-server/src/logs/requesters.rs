//! The requesters of the open streams: the peer, the key, the user agent and the request id of each
//! stream. The log writes them in a line when the stream ends.
//!
//! Most streams come from a few browsers and proxies, so streams with equal requesters share one
//! entry. A stream keeps only the number of its entry, in its tag. An entry is removed when its
//! last stream ends.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, header};
use downlink::{
    hub::{Connection, DisconnectReason, Observer},
    serve::{AddressKey, PeerAddr},
};
use downlink_access::KeyId;
use parking_lot::Mutex;
use slab::Slab;

use super::{
    filter::ACCESS,
    text::{self, NAME_CHARS_MAX, cleaned, seconds},
};

/// The facts about the sender of a request that a line of the log contains.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Requester {
    /// `None` if the peer is the client, or is not known.
    pub(crate) peer: Option<Peer>,
    /// The key that verified the credential.
    pub(crate) key: Option<KeyId>,
    pub(crate) user_agent: Option<Box<str>>,
    /// The value of `X-Request-Id`. Most proxies send a new one with each request.
    pub(crate) request_id: Option<Box<str>>,
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Peer {
    Ip(IpAddr),
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Requester {
    /// The requester of a request with these headers, from a client with this address.
    pub(crate) fn of(
        peer: PeerAddr,
        client: Option<IpAddr>,
        key: Option<KeyId>,
        headers: &HeaderMap,
    ) -> Self {
        let peer = match (peer.ip(), peer) {
            (Some(ip), _) if Some(ip) == client => None,
            (Some(ip), _) => Some(Peer::Ip(ip)),
            (None, PeerAddr::Unix) => Some(Peer::Unix),
            (None, _) => None,
        };
        let user_agent = headers.get(header::USER_AGENT);
        let user_agent = user_agent.map(|value| text::user_agent(value).into());
        Self { peer, key, user_agent, request_id: request_id(headers).map(Into::into) }
    }
}

/// The id that a proxy or the client has given to the request.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    Some(text::header(headers.get("x-request-id")?, NAME_CHARS_MAX))
}

/// The requesters of all open streams of a server.
#[derive(Debug, Default)]
pub struct Requesters(Mutex<Entries>);

/// The lock is held for a moment, and no other lock is taken meanwhile.
#[derive(Debug, Default)]
struct Entries {
    entries: Slab<Entry>,
    numbers: HashMap<Arc<Requester>, usize>,
}

#[derive(Debug)]
struct Entry {
    requester: Arc<Requester>,
    streams: usize,
}

impl Requesters {
    /// Adds the requester of a stream that is about to open. If the stream does not open, the
    /// caller drops the result. Otherwise the caller calls [`keep`](Added::keep), and the observer
    /// removes the requester when the stream ends.
    pub(crate) fn add(&self, requester: Requester) -> Added<'_> {
        let Entries { entries, numbers } = &mut *self.0.lock();
        let number = *numbers.entry(Arc::new(requester)).or_insert_with_key(|requester| {
            entries.insert(Entry { requester: Arc::clone(requester), streams: 0 })
        });
        entries[number].streams += 1;
        Added { requesters: self, tag: number as u64 + 1 }
    }

    /// The requester of an open stream with this tag.
    pub(crate) fn get(&self, tag: u64) -> Option<Arc<Requester>> {
        let number = usize::try_from(tag).ok()?.checked_sub(1)?;
        self.0.lock().entries.get(number).map(|entry| Arc::clone(&entry.requester))
    }

    /// Removes the requester of a stream, and returns it.
    fn remove(&self, tag: u64) -> Option<Arc<Requester>> {
        let number = usize::try_from(tag).ok()?.checked_sub(1)?;
        let Entries { entries, numbers } = &mut *self.0.lock();
        let entry = entries.get_mut(number)?;
        entry.streams -= 1;
        let requester = Arc::clone(&entry.requester);
        if entry.streams == 0 {
            entries.remove(number);
            numbers.remove(&requester);
        }
        Some(requester)
    }
}

/// The requester of a stream that is about to open.
#[must_use]
pub(crate) struct Added<'a> {
    requesters: &'a Requesters,
    tag: u64,
}

impl Added<'_> {
    /// The number for the tag of the stream.
    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    /// Call this when the stream is open. The observer removes the requester when the stream ends.
    pub(crate) fn keep(mut self) {
        self.tag = 0;
    }
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        self.requesters.remove(self.tag);
    }
}

/// Writes a line when a stream ends.
#[derive(Debug)]
pub(crate) struct StreamLines(pub(crate) Arc<Requesters>);

impl Observer for StreamLines {
    fn disconnected(&self, stream: &Connection, reason: DisconnectReason) {
        let [address, requester] = stream.tag;
        let requester = self.0.remove(requester);
        if !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
            return;
        }
        let requester = requester.as_deref();
        let address = AddressKey::from_number(address).map(|address| address.to_string());
        let topics = text::joined(stream.selectors.iter().map(|selector| selector.as_str()));
        tracing::info!(
            target: ACCESS,
            stream = stream.number,
            address,
            peer = requester.and_then(|requester| requester.peer).map(|peer| peer.to_string()),
            key = requester.and_then(|requester| requester.key).map(|key| key.to_string()),
            client = stream.client.as_ref().map(|client| cleaned(client.as_str(), NAME_CHARS_MAX)),
            topics,
            reason = reason.as_str(),
            seconds = seconds(stream.age),
            events = stream.events,
            bytes = stream.bytes,
            lag = stream.lag,
            resumed = stream.resumed,
            request_id = requester.and_then(|requester| requester.request_id.as_deref()),
            user_agent = requester.and_then(|requester| requester.user_agent.as_deref()),
            "stream ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requester(user_agent: &str) -> Requester {
        Requester { peer: None, key: None, user_agent: Some(user_agent.into()), request_id: None }
    }

    #[test]
    fn streams_with_equal_requesters_share_an_entry() {
        let requesters = Requesters::default();
        let tag = |name| {
            let added = requesters.add(requester(name));
            let tag = added.tag();
            added.keep();
            tag
        };
        let (first, second, other) = (tag("a"), tag("a"), tag("b"));
        assert!(first == second && first != other && first != 0);
        assert_eq!(requesters.remove(first).as_deref(), Some(&requester("a")));
        assert_eq!(requesters.get(second).as_deref(), Some(&requester("a")));
        requesters.remove(second);
        assert_eq!(requesters.get(second), None);
        requesters.remove(other);
        assert!(requesters.0.lock().entries.is_empty() && requesters.0.lock().numbers.is_empty());
    }

    #[test]
    fn the_requester_of_a_stream_that_did_not_open_is_removed() {
        let requesters = Requesters::default();
        drop(requesters.add(requester("a")));
        assert!(requesters.0.lock().entries.is_empty());
        assert_eq!(
            (requesters.get(0), requesters.remove(0), requesters.get(7)),
            (None, None, None)
        );
    }
}
