//! The addresses of peers: which peers are trusted proxies, and which addresses count as one.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::str::FromStr;

use ipnet::IpNet;

/// Peers that tell the server the addresses of their own clients: a network, or the programs that
/// connect to the Unix socket on which the server listens.
///
/// # Examples
///
/// ```
/// use downlink::serve::TrustedProxy;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proxy: TrustedProxy = "10.1.0.0/16".parse()?;
/// assert!(proxy.covers("10.1.2.3".parse()?));
/// assert!(!proxy.covers("10.2.0.1".parse()?));
/// assert_eq!("unix".parse(), Ok(TrustedProxy::Unix));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TrustedProxy {
    /// Every address of a network.
    Network(IpNet),
    /// Every peer of a Unix socket.
    Unix,
}

impl TrustedProxy {
    /// Whether an address belongs to the network. [`Unix`](Self::Unix) covers no address. An IPv4
    /// address in IPv6 form (`::ffff:10.1.2.3`) counts as the IPv4 address.
    pub fn covers(&self, address: IpAddr) -> bool {
        match self {
            Self::Network(network) => network.contains(&address.to_canonical()),
            Self::Unix => false,
        }
    }
}

/// The error of a text that is not a [`TrustedProxy`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseTrustedProxyError(String);

impl fmt::Display for ParseTrustedProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "{text:?} is not an address, a network or unix; write 10.0.0.7, 10.0.0.0/8, fd00::/8 or \
             unix, and the first address of the network before the /"
        )
    }
}

impl std::error::Error for ParseTrustedProxyError {}

impl FromStr for TrustedProxy {
    type Err = ParseTrustedProxyError;

    fn from_str(text: &str) -> Result<Self, ParseTrustedProxyError> {
        let text = text.trim();
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address.to_canonical())),
            // In a text like `10.0.0.1/8`, either the address or the length is a mistake, so the
            // text is refused.
            Err(_) => text.parse().ok().filter(|network: &IpNet| *network == network.trunc()),
        };
        // A network of mapped addresses (`::ffff:10.1.2.3`) would cover nothing, because a mapped
        // address counts as an IPv4 address.
        let is_mapped = |network: &IpNet| network.addr().to_canonical() != network.addr();
        match network.filter(|network| !is_mapped(network)) {
            Some(network) => Ok(Self::Network(network)),
            None => Err(ParseTrustedProxyError(text.to_owned())),
        }
    }
}

/// The address of the peer that has sent a request. The server adds it to the extensions of each
/// request.
///
/// If the peer is a trusted proxy that speaks the PROXY protocol, this is the address of the
/// proxy's client. The headers of the request, such as `X-Forwarded-For`, do not change it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PeerAddr {
    /// The address and the port of the peer.
    Tcp(SocketAddr),
    /// The peer is connected to a Unix socket.
    Unix,
    /// The listener's type of addresses is not known to this crate.
    Unknown,
}

impl PeerAddr {
    /// The address without the port. `None` if the peer has no IP address. An IPv4 address in IPv6
    /// form is converted to the IPv4 address.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix | Self::Unknown => None,
        }
    }

    /// Whether the peer is one of these proxies.
    pub fn is_one_of(&self, proxies: &[TrustedProxy]) -> bool {
        match self {
            Self::Tcp(address) => proxies.iter().any(|proxy| proxy.covers(address.ip())),
            Self::Unix => proxies.contains(&TrustedProxy::Unix),
            Self::Unknown => false,
        }
    }

    /// The address of a peer, as a listener has returned it.
    pub(super) fn of<Addr: Any>(peer: &Addr) -> Self {
        let peer: &dyn Any = peer;
        if let Some(address) = peer.downcast_ref::<SocketAddr>() {
            return Self::Tcp(*address);
        }
        #[cfg(unix)]
        if peer.is::<tokio::net::unix::SocketAddr>() {
            return Self::Unix;
        }
        Self::Unknown
    }
}

/// A key for the addresses that count as one: each IPv4 address has its own key, and all addresses
/// of an IPv6 network of 64 bits share a key.
///
/// A host usually gets a whole network of 64 bits. If each address counted separately, the host
/// could use another address for each connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct AddressKey(NonZeroU64);

impl AddressKey {
    /// The key of an address. An IPv4 address in IPv6 form counts as the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        let key = match address.to_canonical() {
            // No host has an address in the network 0:1::/32, so IPv4 addresses use the keys of
            // this network.
            IpAddr::V4(address) => u64::from(address.to_bits()) | 1 << 32,
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        // The key of `::1` would be 0, which `NonZeroU64` cannot hold. The key 1 is free, because
        // no host has an address in the network with this number.
        Self(NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN))
    }

    /// The key as a number other than 0, so that an app can keep it in 8 bytes.
    pub const fn to_number(self) -> u64 {
        self.0.get()
    }

    /// The key with this number. `None` for 0.
    pub const fn from_number(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

/// Shows an IPv4 address, or an IPv6 network such as `2001:db8::/64`. The machine's own address is
/// shown as `::1`.
impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0.get();
        match key >> 32 {
            0 if key == 1 => Ipv6Addr::LOCALHOST.fmt(f),
            1 => Ipv4Addr::from_bits(key as u32).fmt(f),
            _ => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(key) << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("the text is an address")
    }

    fn proxy(text: &str) -> TrustedProxy {
        text.parse().expect("the text names a proxy")
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let same = |one: &str, other: &str| AddressKey::of(ip(one)) == AddressKey::of(ip(other));
        assert!(
            same("2001:db8::1", "2001:db8::ffff:1:2:3") && !same("2001:db8::1", "2001:db8:0:1::1")
        );
        assert!(same("::ffff:192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
        for other in ["0.0.0.0", "0.0.0.1", "127.0.0.1", "2001:db8::1"] {
            assert!(!same("::1", other), "{other}");
        }
    }

    #[test]
    fn a_key_shows_its_address_or_network() {
        for (address, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("::1", "::1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            let key = AddressKey::from_number(AddressKey::of(ip(address)).to_number());
            assert_eq!(key.map(|key| key.to_string()).as_deref(), Some(shown));
        }
        assert_eq!(AddressKey::from_number(0), None);
    }

    #[test]
    fn a_proxy_is_an_address_a_network_or_unix() {
        assert!(proxy("10.0.0.0/8").covers(ip("10.255.0.1")));
        assert!(proxy("10.0.0.0/8").covers(ip("::ffff:10.255.0.1")));
        assert!(
            proxy(" 10.0.0.7 ").covers(ip("10.0.0.7")) && !proxy("10.0.0.7").covers(ip("10.0.0.8"))
        );
        assert!(proxy("::ffff:10.0.0.7").covers(ip("10.0.0.7")));
        assert!(
            proxy("fd00::/8").covers(ip("fd12::1")) && !proxy("fd00::/8").covers(ip("fe80::1"))
        );
        assert!(!proxy("0.0.0.0/0").covers(ip("::1")) && !proxy("unix").covers(ip("127.0.0.1")));
        for text in [
            "",
            "UNIX",
            "unix:",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::1/64",
            "localhost",
            "10.0.0.0/",
            "10.0.0.0/8,10.1.0.0/16",
            "*",
            "::ffff:10.0.0.0/104",
            "010.0.0.1",
        ] {
            let error = text.parse::<TrustedProxy>().expect_err(text).to_string();
            assert!(error.contains("fd00::/8 or unix"), "{error}");
        }
    }

    #[test]
    fn only_listed_peers_are_proxies() {
        let proxies = [proxy("127.0.0.0/8")];
        let peer = |text: &str| PeerAddr::of(&SocketAddr::new(ip(text), 1));
        assert!(peer("127.0.0.2").is_one_of(&proxies) && !peer("192.0.2.1").is_one_of(&proxies));
        assert!(!PeerAddr::Unix.is_one_of(&proxies) && PeerAddr::Unix.is_one_of(&[proxy("unix")]));
        assert!(!peer("127.0.0.2").is_one_of(&[proxy("unix")]));
        assert!(!PeerAddr::of(&"memory").is_one_of(&[proxy("unix"), proxy("::/0")]));
    }
}
