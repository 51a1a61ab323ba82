//! The address of the client that has sent a request.
//!
//! The peer is the program at the other end of the connection. If the peer is not a trusted proxy,
//! the client's address is the address of the peer. A trusted proxy adds the address of its own
//! peer at the end of `X-Forwarded-For`, so the server reads the header from the right. It skips
//! the addresses of trusted proxies. The first other address is the address of the client. The
//! entries to the left of this address came from the client, which may have invented them. Other
//! headers with addresses (`Forwarded`, `X-Real-IP`) are not read.
//!
//! A trusted proxy must set the header. If a proxy only passes on the header of the client, the
//! client can invent an address.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use downlink::serve::{AddressKey, PeerAddr, TrustedProxy};

/// The maximum number of entries of `X-Forwarded-For` that the server reads.
///
/// Most requests pass through two or three proxies. With a lower maximum, the server would not find
/// the client behind a long chain of proxies. A higher maximum would only cost time.
const ENTRIES_MAX: usize = 16;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client that has sent a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ClientAddress {
    /// `None` if the client has no known IP address, for example on a Unix socket.
    ip: Option<IpAddr>,
    /// Whether the limits for each address do not apply.
    is_exempt: bool,
}

impl ClientAddress {
    /// The address of the client of a request.
    pub(crate) fn of(peer: PeerAddr, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        let (mut ip, mut is_proxy) = (peer.ip(), peer.is_one_of(proxies));
        let values = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
        let entries = values.flat_map(|value| value.rsplit(|byte| *byte == b','));
        for entry in entries.take(ENTRIES_MAX) {
            // The server ignores an invalid entry and all entries to the left of it.
            let Some(address) = parse(entry).filter(|_| is_proxy) else { break };
            ip = Some(address);
            is_proxy = proxies.iter().any(|proxy| proxy.covers(address));
        }
        Self { ip, is_exempt: is_proxy }
    }

    /// Whether the server ignores the header of a request, because the peer is not a trusted proxy.
    pub(crate) fn has_unread_header(
        peer: PeerAddr,
        headers: &HeaderMap,
        proxies: &[TrustedProxy],
    ) -> bool {
        headers.contains_key(X_FORWARDED_FOR) && peer.ip().is_some() && !peer.is_one_of(proxies)
    }

    /// The same address, without the limits for each address.
    pub(crate) fn exempt(self) -> Self {
        Self { is_exempt: true, ..self }
    }

    /// The address, for logs and for the app.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        self.ip
    }

    /// The key under which the limits for each address count this client. `None` if these limits do
    /// not apply: to a client without an address, to an [exempt](Self::exempt) client, and to a
    /// client whose address is the address of a trusted proxy. Such a proxy may have sent the
    /// requests of many clients.
    pub(crate) fn key(self) -> Option<AddressKey> {
        self.ip.filter(|_| !self.is_exempt).map(AddressKey::of)
    }
}

/// Parses an entry: an address with or without a port. An IPv6 address may be in brackets.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(bare)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: [&str; 3] = ["10.0.0.0/8", "fd00::/8", "unix"];

    fn of(peer: PeerAddr, values: &[&str], proxies: &[&str]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(X_FORWARDED_FOR, value);
        }
        let proxies: Vec<_> = proxies.iter().map(|text| text.parse().unwrap()).collect();
        ClientAddress::of(peer, &headers, &proxies)
    }

    fn tcp(address: &str) -> PeerAddr {
        PeerAddr::Tcp(SocketAddr::new(address.parse().unwrap(), 40_000))
    }

    /// The client of a request that comes through the proxy 10.0.0.1.
    fn behind(values: &[&str]) -> String {
        of(tcp("10.0.0.1"), values, &PROXIES).ip().unwrap().to_string()
    }

    #[test]
    fn without_a_trusted_proxy_the_header_is_ignored() {
        for proxies in [&[][..], &PROXIES] {
            let client = of(tcp("192.0.2.1"), &["198.51.100.7"], proxies);
            assert_eq!(client.ip(), Some("192.0.2.1".parse().unwrap()));
            assert!(client.key().is_some());
        }
        assert_eq!(of(PeerAddr::Unix, &["198.51.100.7"], &["10.0.0.0/8"]).ip(), None);
        assert_eq!(of(PeerAddr::Unknown, &["198.51.100.7"], &PROXIES).ip(), None);
    }

    #[test]
    fn the_rightmost_address_that_is_not_a_proxy_is_the_client() {
        assert_eq!(behind(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(behind(&["192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(behind(&["192.0.2.1,10.0.0.2 ,\tfd00::1"]), "192.0.2.1");
        let unix = of(PeerAddr::Unix, &["192.0.2.1"], &PROXIES);
        assert_eq!(unix.ip(), Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn invented_addresses_do_not_count() {
        for invented in
            ["198.51.100.7", "10.0.0.9", "127.0.0.1", "::1", "garbage", "", ",,,", "10.0.0.9, x"]
        {
            assert_eq!(behind(&[&format!("{invented}, 192.0.2.1")]), "192.0.2.1");
            // Some proxies add a second `X-Forwarded-For` header instead of an entry.
            assert_eq!(behind(&[invented, "192.0.2.1"]), "192.0.2.1");
            assert_eq!(behind(&[invented, "192.0.2.1", "10.0.0.2"]), "192.0.2.1");
        }
    }

    #[test]
    fn an_address_may_have_a_port_and_brackets() {
        for (entry, expected) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ] {
            assert_eq!(behind(&[entry]), expected);
        }
    }

    #[test]
    fn an_invalid_entry_and_the_entries_to_the_left_of_it_are_ignored() {
        for entry in [
            "unknown",
            "_hidden",
            "",
            " ",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "2001:db8::1%eth0",
            "192.0.2.01",
            "localhost",
            "é",
            "0x7f.1",
            "\"192.0.2.1\"",
            "192.0.2.1;",
            "192.0.2.1 10.0.0.2",
        ] {
            let client = of(tcp("10.0.0.1"), &[&format!("192.0.2.9, {entry}")], &PROXIES);
            assert_eq!(client.ip(), Some("10.0.0.1".parse().unwrap()), "{entry}");
            assert_eq!(client.key(), None, "{entry}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_count_as_an_invalid_entry() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"192.0.2.9, \xff").unwrap();
        headers.append(X_FORWARDED_FOR, value);
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let client = ClientAddress::of(tcp("10.0.0.1"), &headers, &proxies);
        assert_eq!(client.ip(), Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn only_the_last_entries_are_read() {
        let proxies = vec!["10.0.0.2"; ENTRIES_MAX - 1].join(", ");
        assert_eq!(behind(&[&format!("192.0.2.1, {proxies}")]), "192.0.2.1");
        let client = of(tcp("10.0.0.1"), &[&format!("192.0.2.1, 10.0.0.3, {proxies}")], &PROXIES);
        assert_eq!((client.ip(), client.key()), (Some("10.0.0.3".parse().unwrap()), None));
    }

    /// A proxy that sends no header sends the requests of all its clients from one address.
    #[test]
    fn the_limits_do_not_apply_to_a_proxy_itself() {
        assert_eq!(of(tcp("10.0.0.1"), &[], &PROXIES).key(), None);
        assert_eq!(of(tcp("10.0.0.1"), &["10.0.0.2"], &PROXIES).key(), None);
        assert_eq!(of(PeerAddr::Unix, &[], &PROXIES).key(), None);
    }
}
