//! The limits for each peer address, which are checked when a connection is accepted.
//!
//! The limits are off by default. They do not apply to a peer without an IP address, such as a peer
//! of a Unix socket. They do not apply to a trusted proxy either, because it connects for many
//! clients. If the proxy names its client (see `proxy_protocol`), the limits apply to the client's
//! address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::addresses::{AddressKey, PeerAddr, TrustedProxy};
use super::rate::{Rate, RateLimiter};

/// The maximum number of peer addresses for which the server remembers the rate of new connections.
///
/// These addresses take about 2 MiB. An attacker with many addresses can make the server forget
/// other addresses. The lower the maximum is, the fewer addresses this attack needs. A maximum of
/// twice this number would not prevent the attack: an IPv6 allocation of 48 bits contains 65,536
/// networks of 64 bits, and each of these networks counts as one address.
pub const PEERS_MAX: usize = 65_536;

/// The settings of the limits for each peer address.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerRules {
    /// The maximum number of open connections of one address.
    pub(super) connections_max: Option<NonZeroU32>,
    /// The maximum rate of new connections of one address.
    pub(super) connects: Option<Rate>,
    pub(super) proxies: Vec<TrustedProxy>,
    /// Whether a trusted proxy names its client in a header of the PROXY protocol.
    pub(super) proxy_protocol: bool,
}

/// The number of open connections and the rate of new connections of each peer address, for the
/// limits.
pub(super) struct Peers {
    rules: PeerRules,
    /// The number of open connections, for each address that has any. The limit of all connections
    /// bounds the number of entries. The lock is held for one lookup, and never together with
    /// another lock.
    open: Mutex<HashMap<AddressKey, NonZeroU32>>,
    connects: Option<RateLimiter<AddressKey>>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Excess {
    /// The server has too many connections.
    Connections,
    /// The address has too many open connections.
    OfAddress,
    /// The address connects too often.
    Connects,
}

impl Excess {
    /// The text for the peer.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Connections => "The server is at its limit of connections; come back later.",
            Self::OfAddress => "There are too many connections from this address; come back later.",
            Self::Connects => "This address connects too often; come back later.",
        }
    }
}

impl Peers {
    pub(super) fn new(rules: PeerRules) -> Self {
        let connects = rules.connects.map(|rate| RateLimiter::new(rate, PEERS_MAX));
        Self { rules, open: Mutex::default(), connects }
    }

    pub(super) fn is_proxy(&self, peer: PeerAddr) -> bool {
        peer.is_one_of(&self.rules.proxies)
    }

    /// Whether a connection of this peer begins with a header of the PROXY protocol.
    pub(super) fn sends_header(&self, peer: PeerAddr) -> bool {
        self.rules.proxy_protocol && self.is_proxy(peer)
    }

    /// Counts a new connection of a peer. If the result is a key, [`leave`](Self::leave) has to be
    /// called with it when the connection ends.
    ///
    /// # Errors
    ///
    /// The limit that the connection exceeds. A connection that exceeds the limit of open
    /// connections still counts for the rate.
    pub(super) fn enter(&self, peer: PeerAddr) -> Result<Option<AddressKey>, Excess> {
        let is_limited = self.connects.is_some() || self.rules.connections_max.is_some();
        let Some(ip) = peer.ip().filter(|_| is_limited && !self.is_proxy(peer)) else {
            return Ok(None);
        };
        let key = AddressKey::of(ip);
        if let Some(connects) = &self.connects {
            let now = Instant::now().into_std();
            connects.take(key, now).map_err(|_wait| Excess::Connects)?;
        }
        let Some(connections_max) = self.rules.connections_max else { return Ok(None) };
        match self.open.lock().entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(NonZeroU32::MIN);
            }
            Entry::Occupied(mut entry) => {
                let open = entry.get().saturating_add(1);
                if open > connections_max {
                    return Err(Excess::OfAddress);
                }
                entry.insert(open);
            }
        }
        Ok(Some(key))
    }

    /// Records the end of a connection.
    pub(super) fn leave(&self, key: AddressKey) {
        let mut open = self.open.lock();
        let Entry::Occupied(mut entry) = open.entry(key) else { return };
        match NonZeroU32::new(entry.get().get() - 1) {
            Some(left) => drop(entry.insert(left)),
            None => drop(entry.remove()),
        }
        // When many connections have ended, the table must not keep the memory of its largest size.
        if open.capacity() > 1_024 && open.len() < open.capacity() / 8 {
            open.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerAddr {
        PeerAddr::Tcp(std::net::SocketAddr::new(text.parse().expect("the text is an address"), 1))
    }

    fn rules(connections_max: u32, connects: Option<&str>) -> PeerRules {
        let connects = connects.map(|text| text.parse().expect("the text is a rate"));
        PeerRules {
            connections_max: NonZeroU32::new(connections_max),
            connects,
            ..PeerRules::default()
        }
    }

    #[test]
    fn an_address_that_has_left_may_connect_again() {
        let peers = Peers::new(rules(2, None));
        let one = peers.enter(peer("192.0.2.1")).expect("there is room");
        assert_eq!(peers.enter(peer("192.0.2.1")), Ok(one));
        assert_eq!(peers.enter(peer("::ffff:192.0.2.1")), Err(Excess::OfAddress));
        assert!(peers.enter(peer("192.0.2.2")).is_ok());
        peers.leave(one.expect("the address is limited"));
        assert_eq!(peers.enter(peer("192.0.2.1")), Ok(one));
        assert_eq!(peers.enter(peer("192.0.2.1")), Err(Excess::OfAddress));
    }

    #[test]
    fn the_memory_of_addresses_that_have_left_is_freed() {
        let peers = Peers::new(rules(2, None));
        let addresses = (0..20_000_u32).map(|n| peer(&std::net::Ipv4Addr::from(n).to_string()));
        let keys: Vec<_> = addresses.map(|peer| peers.enter(peer)).collect();
        for key in keys {
            peers.leave(key.expect("there is room").expect("the address is limited"));
        }
        let open = peers.open.lock();
        assert_eq!(open.len(), 0);
        assert!(open.capacity() <= 1_024, "{}", open.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn connects_are_limited_even_without_a_limit_of_open_connections() {
        let peers = Peers::new(rules(0, Some("1/s,burst:2")));
        for _ in 0..2 {
            assert_eq!(peers.enter(peer("192.0.2.1")), Ok(None));
        }
        assert_eq!(peers.enter(peer("192.0.2.1")), Err(Excess::Connects));
        assert_eq!(peers.enter(peer("192.0.2.2")), Ok(None));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(peers.enter(peer("192.0.2.1")), Ok(None));
    }

    #[test]
    fn peers_without_an_address_and_trusted_proxies_are_not_limited() {
        let proxies = vec!["10.0.0.0/8".parse().expect("the text is a network")];
        let peers = Peers::new(PeerRules { proxies, ..rules(1, Some("1/h")) });
        for peer in [peer("10.0.0.1"), PeerAddr::Unix, PeerAddr::Unknown] {
            for _ in 0..3 {
                assert_eq!(peers.enter(peer), Ok(None));
            }
        }
    }
}
