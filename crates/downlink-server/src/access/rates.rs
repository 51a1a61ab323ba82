//! Limits against abuse: how often a client address or a key may do something.
//!
//! By default, the limits for each address are on only if strangers can reach the server. This is
//! so if other machines can connect to the listener, or if a trusted proxy forwards requests to it.
//! [`downlink::serve()`] applies the limits of connections, and this module applies the limits of
//! requests. Each limiter remembers at most [`RATE_KEYS_MAX`] addresses or keys.

use std::{
    num::NonZeroU32,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use downlink::serve::{AddressKey, Listener, Rate, RateLimiter, Serve, TrustedProxy};
use downlink_access::KeyId;

use super::forwarded::ClientAddress;
use super::names::{NameCounts, NamesPermit, UNCOUNTED_NAMES_MAX};
use crate::address::Address;

/// The maximum number of addresses or keys that one limiter remembers.
///
/// They take about 2 MiB. A client that has more addresses than this can get around a limit.
pub(crate) const RATE_KEYS_MAX: usize = 65_536;

/// The default of `--connections-per-address-max`. The people of an office or of a mobile network
/// share an address, and each of them has a few connections.
const CONNECTIONS_PER_ADDRESS_MAX: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");

/// The default of `--subscribed-names-per-address-max`. An office can then have a hundred open
/// pages with a hundred topics each. So many names take 2.5 MB. A hundred addresses at this limit
/// can use up the default of `--subscribed-names-max`.
const NAMES_PER_ADDRESS_MAX: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

/// The default rates. The burst is the number of uses that the limit allows at once. After a
/// restart of the server, all connections of an address may return at once, so the burst of new
/// connections is as large as the default maximum of connections. The other rates are far above
/// ordinary use. A person publishes a few events a second at most, and a page gets one ticket when
/// it loads. An honest client has few bad credentials, except after a mistake in a setting.
const CONNECTS_PER_ADDRESS: &str = "100/s,burst:1000";
const PUBLISHES_PER_ADDRESS: &str = "50/s,burst:500";
const FAILURES_PER_ADDRESS: &str = "10/s,burst:100";
const TICKETS_PER_KEY: &str = "6000/m";

/// Limits against abuse. The limits for each address are on if the server can be reached from other
/// machines, or if --trusted-proxy is set. The addresses of an IPv6 network of 64 bits count as
/// one.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct AbuseLimits {
    /// The maximum number of open connections of one address, or `off`. The default is 1000.
    #[arg(
        long,
        env = "DOWNLINK_CONNECTIONS_PER_ADDRESS_MAX",
        value_name = "COUNT|off",
        value_parser = parse_count
    )]
    pub connections_per_address_max: Option<Limit<NonZeroU32>>,
    /// The maximum rate of new connections from one address, or `off`. The default is
    /// 100/s,burst:1000.
    #[arg(
        long,
        env = "DOWNLINK_CONNECTS_PER_ADDRESS",
        value_name = "RATE|off",
        value_parser = parse_rate
    )]
    pub connects_per_address: Option<Limit<Rate>>,
    /// The maximum number of topics and patterns in the open subscriptions of one address, or `off`.
    /// The default is 10000. Subscriptions with a key do not count. Over HTTP/1.1, a subscription
    /// counts only if it has more than 16 topics and patterns.
    #[arg(
        long,
        env = "DOWNLINK_SUBSCRIBED_NAMES_PER_ADDRESS_MAX",
        value_name = "COUNT|off",
        value_parser = parse_count
    )]
    pub subscribed_names_per_address_max: Option<Limit<NonZeroU32>>,
    /// The maximum rate of events that one address publishes with tokens, or `off`. The default is
    /// 50/s,burst:500. A finished topic counts as an event. Events that are published with a key do
    /// not count.
    #[arg(
        long,
        env = "DOWNLINK_PUBLISHES_PER_ADDRESS",
        value_name = "RATE|off",
        value_parser = parse_rate
    )]
    pub publishes_per_address: Option<Limit<Rate>>,
    /// The maximum rate of events that are published with one key. By default, there is no limit.
    #[arg(
        long,
        env = "DOWNLINK_PUBLISHES_PER_KEY",
        value_name = "RATE|off",
        value_parser = parse_rate
    )]
    pub publishes_per_key: Option<Limit<Rate>>,
    /// The maximum rate of requests from one address with a bad credential, or `off`. The default is
    /// 10/s,burst:100. Above this rate, the server refuses tokens, tickets and unknown keys before it
    /// checks them, and does not ask the app of --authorize-url.
    #[arg(
        long,
        env = "DOWNLINK_FAILURES_PER_ADDRESS",
        value_name = "RATE|off",
        value_parser = parse_rate
    )]
    pub failures_per_address: Option<Limit<Rate>>,
    /// The maximum rate of tickets that are issued with one key, or with the tokens of one user, or
    /// `off`.
    #[arg(
        long,
        env = "DOWNLINK_TICKETS_PER_KEY",
        value_name = "RATE|off",
        default_value = TICKETS_PER_KEY,
        value_parser = parse_rate
    )]
    pub tickets_per_key: Limit<Rate>,
    /// A proxy in front of the server: an address, a network such as 10.0.0.0/8, or `unix` for every
    /// program that connects to the Unix socket of --listen. The server takes the address of a
    /// client from its X-Forwarded-For, so the proxy must set this header. May be given several
    /// times, or separated by commas.
    #[arg(
        long,
        env = "DOWNLINK_TRUSTED_PROXY",
        value_name = "CIDR|unix",
        value_delimiter = ',',
        value_parser = parse_proxy
    )]
    pub trusted_proxy: Vec<TrustedProxy>,
    /// Whether each --trusted-proxy begins its connections with a header of the PROXY protocol
    /// (version 1 or 2), which has the address of the client.
    #[arg(
        long,
        env = "DOWNLINK_PROXY_PROTOCOL",
        value_name = "true|false",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true"
    )]
    pub proxy_protocol: bool,
}

/// A limit that can be turned off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Limit<T> {
    /// No limit.
    Off,
    /// The limit.
    At(T),
}

impl<T> Limit<T> {
    fn get(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::At(limit) => Some(limit),
        }
    }
}

fn parse_limit<T: FromStr>(
    text: &str,
    error: impl Fn(T::Err) -> String,
) -> Result<Limit<T>, String> {
    match text.trim() {
        "off" => Ok(Limit::Off),
        text => text.parse().map(Limit::At).map_err(error),
    }
}

fn parse_rate(text: &str) -> Result<Limit<Rate>, String> {
    parse_limit(text, |error: <Rate as FromStr>::Err| format!("{error}; off means no limit"))
}

fn parse_count(text: &str) -> Result<Limit<NonZeroU32>, String> {
    parse_limit(text, |_| format!("{text:?} is not a number above 0; off means no limit"))
}

fn parse_proxy(text: &str) -> Result<TrustedProxy, String> {
    text.parse().map_err(|error: <TrustedProxy as FromStr>::Err| error.to_string())
}

impl AbuseLimits {
    /// Checks the rules that concern several settings together.
    ///
    /// # Errors
    ///
    /// An error that says which setting to change.
    pub(crate) fn check(&self, listen: &Address) -> anyhow::Result<()> {
        let is_unix = matches!(listen, Address::Unix(_));
        if self.proxy_protocol && self.trusted_proxy.is_empty() {
            bail!(
                "--proxy-protocol needs --trusted-proxy with the addresses of the proxies, because \
                 any other peer could invent an address"
            );
        }
        if !is_unix && self.trusted_proxy.contains(&TrustedProxy::Unix) {
            bail!(
                "--trusted-proxy unix has no effect, because the server listens on {listen}: give \
                 the address of the proxy, or --listen unix:PATH"
            );
        }
        Ok(())
    }

    /// The limits in force after a reload: the rates of requests are those of `new`. The limits of
    /// connections and the proxies stay as they are in `self`, because the listeners were started
    /// with them.
    pub(crate) fn reloaded(&self, new: Self) -> Self {
        Self {
            connections_per_address_max: self.connections_per_address_max,
            connects_per_address: self.connects_per_address,
            trusted_proxy: self.trusted_proxy.clone(),
            proxy_protocol: self.proxy_protocol,
            ..new
        }
    }

    /// Sets the limits of connections. `listen` is the address of the listener.
    pub(crate) fn apply<L: Listener, A, Kind>(
        &self,
        listen: &Address,
        mut server: Serve<L, A, Kind>,
    ) -> Serve<L, A, Kind> {
        let connections_max = self.connections_per_address_max;
        let default = Limit::At(CONNECTIONS_PER_ADDRESS_MAX);
        if let Some(connections_max) = self.for_address(connections_max, || default, listen) {
            server = server.connections_per_address_max(connections_max);
        }
        let default = || default_rate(CONNECTS_PER_ADDRESS);
        if let Some(rate) = self.for_address(self.connects_per_address, default, listen) {
            server = server.connects_per_address(rate);
        }
        server
            .trusted_proxies(self.trusted_proxy.iter().copied())
            .proxy_protocol(self.proxy_protocol)
    }

    /// The limit that applies to each address: the explicit limit, or else the default if strangers
    /// can reach the server. `None` if there is no limit.
    fn for_address<T>(
        &self,
        limit: Option<Limit<T>>,
        default: impl FnOnce() -> Limit<T>,
        listen: &Address,
    ) -> Option<T> {
        let is_reachable = !listen.is_local() || !self.trusted_proxy.is_empty();
        limit.or_else(|| is_reachable.then(default)).and_then(Limit::get)
    }
}

fn default_rate(text: &str) -> Limit<Rate> {
    parse_rate(text).unwrap_or(Limit::Off)
}

/// The rates of requests: for each address its publishes and its bad credentials, and for each key
/// its publishes and its tickets. Also the maximum number of names of an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct RequestRates {
    names_per_address_max: Option<NonZeroU32>,
    publishes_per_address: Option<Rate>,
    failures_per_address: Option<Rate>,
    publishes_per_key: Option<Rate>,
    tickets_per_key: Option<Rate>,
}

impl RequestRates {
    fn new(limits: &AbuseLimits, listen: &Address) -> Self {
        let of_address =
            |limit, default| limits.for_address(limit, || default_rate(default), listen);
        let names_max = limits.subscribed_names_per_address_max;
        let names_max = limits.for_address(names_max, || Limit::At(NAMES_PER_ADDRESS_MAX), listen);
        Self {
            names_per_address_max: names_max,
            publishes_per_address: of_address(limits.publishes_per_address, PUBLISHES_PER_ADDRESS),
            failures_per_address: of_address(limits.failures_per_address, FAILURES_PER_ADDRESS),
            publishes_per_key: limits.publishes_per_key.and_then(Limit::get),
            tickets_per_key: limits.tickets_per_key.get(),
        }
    }
}

/// A limiter, which a reload keeps if its rate is the same. `None` if there is no limit.
type Limiter<K> = Option<Arc<RateLimiter<K>>>;

/// The limiters of requests.
#[derive(Debug)]
pub(crate) struct Rates {
    rates: RequestRates,
    names_per_address: Option<NameCounts>,
    publishes_per_address: Limiter<AddressKey>,
    publishes_per_key: Limiter<KeyId>,
    failures_per_address: Limiter<AddressKey>,
    tickets_per_key: Limiter<KeyId>,
}

/// A request that exceeds a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Exceeded {
    /// The flag of the limit.
    pub(crate) flag: &'static str,
    /// How long the client has to wait.
    pub(crate) wait: Duration,
}

impl Rates {
    /// The limiters for a server that listens on this address. `old` are the limiters before a
    /// reload. A limiter whose rate is the same stays, with its counts. Subscriptions that `old`
    /// has counted still count.
    pub(super) fn replacing(old: Option<&Self>, limits: &AbuseLimits, listen: &Address) -> Self {
        let rates = RequestRates::new(limits, listen);
        let names = |names_max| match old.and_then(|old| old.names_per_address.as_ref()) {
            Some(counts) => counts.with_names_max(names_max),
            None => NameCounts::new(names_max),
        };
        Self {
            names_per_address: rates.names_per_address_max.map(names),
            publishes_per_address: limiter(
                rates.publishes_per_address,
                old.map(|old| (old.rates.publishes_per_address, &old.publishes_per_address)),
            ),
            publishes_per_key: limiter(
                rates.publishes_per_key,
                old.map(|old| (old.rates.publishes_per_key, &old.publishes_per_key)),
            ),
            failures_per_address: limiter(
                rates.failures_per_address,
                old.map(|old| (old.rates.failures_per_address, &old.failures_per_address)),
            ),
            tickets_per_key: limiter(
                rates.tickets_per_key,
                old.map(|old| (old.rates.tickets_per_key, &old.tickets_per_key)),
            ),
            rates,
        }
    }

    /// Whether these limiters have the rates of the settings.
    pub(super) fn have_rates_of(&self, limits: &AbuseLimits, listen: &Address) -> bool {
        self.rates == RequestRates::new(limits, listen)
    }

    /// Whether the publishes or the bad credentials of each address have a limit.
    pub(crate) fn limits_addresses(&self) -> bool {
        self.failures_per_address.is_some() || self.publishes_per_address.is_some()
    }

    /// Counts events that a client wants to publish. `key` is the key of a key file. A client with
    /// a token or a ticket has no such key, so its events count for its address. If the limit
    /// allows one event now, the client may publish a whole batch, even a batch with more events
    /// than the limit allows at once. The next publish then has to wait longer. With 0 events, this
    /// function only checks whether the client may publish now.
    ///
    /// # Errors
    ///
    /// The limit that is exceeded. The events then do not count.
    pub(crate) fn publish(
        &self,
        key: Option<KeyId>,
        client: ClientAddress,
        events: u32,
        now: Instant,
    ) -> Result<(), Exceeded> {
        let (wait, flag) = match key {
            Some(key) => {
                let limiter = self.publishes_per_key.as_ref();
                (limiter.map(|it| take(it, key, events, now)), "--publishes-per-key")
            }
            None => {
                let limiter = self.publishes_per_address.as_ref().zip(client.key());
                let wait = limiter.map(|(it, address)| take(it, address, events, now));
                (wait, "--publishes-per-address")
            }
        };
        exceeded(wait, flag)
    }

    /// Counts the names of a subscription (its topics and patterns) until the returned permit is
    /// dropped. Over HTTP/1.1, a small subscription needs no permit. Over HTTP/2, a connection can
    /// have many subscriptions, so even a small one needs a permit.
    ///
    /// # Errors
    ///
    /// The limit, if the subscriptions of the client's address would exceed it.
    pub(crate) fn subscribe(
        &self,
        client: ClientAddress,
        shares_connection: bool,
        names: usize,
    ) -> Result<Option<NamesPermit>, Exceeded> {
        if names <= UNCOUNTED_NAMES_MAX && !shares_connection {
            return Ok(None);
        }
        let counts = self.names_per_address.as_ref().zip(client.key());
        // A subscription without topics and patterns also takes memory, so it counts as one name.
        let taken = counts.map(|(counts, address)| counts.take(address, names.max(1))).transpose();
        taken.map_err(|wait| Exceeded { flag: "--subscribed-names-per-address-max", wait })
    }

    /// Checks whether a client may try a credential. A request without a credential needs no check.
    ///
    /// # Errors
    ///
    /// The limit, if the client's address has had too many bad credentials.
    pub(crate) fn attempt(&self, client: ClientAddress, now: Instant) -> Result<(), Exceeded> {
        let limiter = self.failures_per_address.as_ref().zip(client.key());
        exceeded(limiter.map(|(it, address)| it.check(address, now)), "--failures-per-address")
    }

    /// Counts a bad credential.
    pub(crate) fn failed(&self, client: ClientAddress, now: Instant) {
        if let Some((limiter, address)) = self.failures_per_address.as_ref().zip(client.key()) {
            // Beyond the limit, a failure does not count.
            let _ = limiter.take(address, now);
        }
    }

    /// Counts a ticket that is issued with a key or with a token. For a token, `key` stands for the
    /// user of the token.
    ///
    /// # Errors
    ///
    /// The limit, if it is exceeded. The ticket then does not count.
    pub(crate) fn issue(&self, key: KeyId, now: Instant) -> Result<(), Exceeded> {
        let limiter = self.tickets_per_key.as_ref();
        exceeded(limiter.map(|it| it.take(key, now)), "--tickets-per-key")
    }
}

/// Counts this many uses of a key. With 0 uses, this only checks whether the key may be used.
fn take<K: std::hash::Hash + Eq>(
    limiter: &RateLimiter<K>,
    key: K,
    uses: u32,
    now: Instant,
) -> Result<(), Duration> {
    match NonZeroU32::new(uses) {
        Some(uses) => limiter.take_many(key, uses, now),
        None => limiter.check(key, now),
    }
}

/// The limiter for a rate. If `old` has the same rate, its limiter stays in use.
fn limiter<K: std::hash::Hash + Eq>(
    rate: Option<Rate>,
    old: Option<(Option<Rate>, &Limiter<K>)>,
) -> Limiter<K> {
    match old {
        Some((old_rate, old)) if old_rate == rate => old.clone(),
        _ => rate.map(|rate| Arc::new(RateLimiter::new(rate, RATE_KEYS_MAX))),
    }
}

/// Adds the flag of the limit to the result of a limiter. `taken` is `None` if there is no limiter
/// for the request.
fn exceeded(taken: Option<Result<(), Duration>>, flag: &'static str) -> Result<(), Exceeded> {
    taken.unwrap_or(Ok(())).map_err(|wait| Exceeded { flag, wait })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use clap::{Command, FromArgMatches};
    use downlink::serve::PeerAddr;

    use super::*;

    fn limits(flags: &[&str]) -> Result<AbuseLimits, String> {
        let command = AbuseLimits::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(flags).map_err(|error| error.to_string())?;
        AbuseLimits::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    fn rates(flags: &[&str], listen: &str) -> Rates {
        Rates::replacing(None, &limits(flags).unwrap(), &listen.parse().unwrap())
    }

    fn client(address: &str) -> ClientAddress {
        let peer = PeerAddr::Tcp(std::net::SocketAddr::new(address.parse().unwrap(), 1));
        ClientAddress::of(peer, &HeaderMap::new(), &[])
    }

    fn key(name: &str) -> KeyId {
        KeyId::from_bytes([name.as_bytes()[0]; KeyId::BYTES])
    }

    const ONE: u32 = 1;

    #[test]
    fn the_default_rates_can_be_parsed() {
        let defaults =
            [CONNECTS_PER_ADDRESS, PUBLISHES_PER_ADDRESS, FAILURES_PER_ADDRESS, TICKETS_PER_KEY];
        for text in defaults {
            assert!(matches!(default_rate(text), Limit::At(_)), "{text}");
        }
    }

    #[test]
    fn limits_for_each_address_are_on_if_strangers_can_reach_the_server() {
        let is_on = |flags: &[&str], listen| {
            let rates = rates(flags, listen);
            assert_eq!(rates.publishes_per_address.is_some(), rates.failures_per_address.is_some());
            assert_eq!(rates.names_per_address.is_some(), rates.failures_per_address.is_some());
            assert!(rates.tickets_per_key.is_some() && rates.publishes_per_key.is_none());
            rates.failures_per_address.is_some()
        };
        let (loopback, public, unix) =
            ("127.0.0.1:8080", "0.0.0.0:8080", "unix:/run/downlink.sock");
        assert!(!is_on(&[], loopback) && is_on(&[], public) && !is_on(&[], unix));
        assert!(is_on(&["--trusted-proxy", "127.0.0.1"], loopback));
        assert!(is_on(&["--trusted-proxy", "unix"], unix));
        let flags = [
            "--failures-per-address",
            "--publishes-per-address",
            "--subscribed-names-per-address-max",
        ];
        let all =
            |values: [&'static str; 3]| flags.into_iter().zip(values).flat_map(|(a, b)| [a, b]);
        assert!(is_on(&all(["1/s", "1/s", "1"]).collect::<Vec<_>>(), loopback));
        assert!(!is_on(&all(["off"; 3]).collect::<Vec<_>>(), public));
    }

    #[test]
    fn an_error_in_a_flag_says_what_to_write() {
        for (flag, value, expected) in [
            ("--connects-per-address", "50", "50/s,burst:200"),
            ("--publishes-per-key", "0/s", "off means no limit"),
            ("--connections-per-address-max", "0", "not a number above 0"),
            ("--connections-per-address-max", "many", "off means no limit"),
            ("--subscribed-names-per-address-max", "0", "not a number above 0"),
            ("--trusted-proxy", "10.0.0.1/8", "fd00::/8 or unix"),
            ("--proxy-protocol", "maybe", "true"),
        ] {
            let error = limits(&[flag, value]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let parsed = limits(&["--trusted-proxy", "10.0.0.0/8,unix", "--proxy-protocol"]).unwrap();
        assert_eq!(parsed.trusted_proxy.len(), 2);
        assert!(
            parsed.proxy_protocol && !limits(&["--proxy-protocol=false"]).unwrap().proxy_protocol
        );
    }

    #[test]
    fn settings_that_have_no_effect_are_refused() {
        let check = |flags: &[&str], listen: &str| {
            let checked = limits(flags).unwrap().check(&listen.parse().unwrap());
            checked.map_err(|error| error.to_string())
        };
        let tcp = "127.0.0.1:8080";
        assert!(check(&["--proxy-protocol"], tcp).unwrap_err().contains("needs --trusted-proxy"));
        assert!(check(&["--trusted-proxy", "unix"], tcp).unwrap_err().contains("no effect"));
        assert_eq!(check(&["--trusted-proxy", "unix", "--proxy-protocol"], "unix:/run/a"), Ok(()));
        assert_eq!(check(&["--trusted-proxy", "::1", "--proxy-protocol"], tcp), Ok(()));
    }

    #[test]
    fn publishes_are_limited_by_key_or_by_address() {
        let flags = ["--publishes-per-address", "1/h", "--publishes-per-key", "1/h,burst:2"];
        let rates = rates(&flags, "127.0.0.1:8080");
        let now = Instant::now();
        let publish = |key, address| rates.publish(key, client(address), ONE, now);
        assert_eq!(publish(None, "192.0.2.1"), Ok(()));
        let wait = Duration::from_secs(3_600);
        let refused = Err(Exceeded { flag: "--publishes-per-address", wait });
        assert_eq!(publish(None, "192.0.2.1"), refused);
        assert_eq!(publish(None, "192.0.2.2"), Ok(()));
        for _ in 0..2 {
            assert_eq!(publish(Some(key("a")), "192.0.2.1"), Ok(()));
        }
        let refused = Err(Exceeded { flag: "--publishes-per-key", wait });
        assert_eq!(publish(Some(key("a")), "192.0.2.3"), refused);
        assert_eq!(publish(Some(key("b")), "192.0.2.3"), Ok(()));
    }

    #[test]
    fn an_address_with_too_many_failures_may_not_try_again() {
        let rates = rates(&["--failures-per-address", "1/m,burst:2"], "127.0.0.1:8080");
        let (now, bad) = (Instant::now(), client("2001:db8::1"));
        for _ in 0..2 {
            assert_eq!(rates.attempt(bad, now), Ok(()));
            rates.failed(bad, now);
        }
        let wait = Duration::from_secs(60);
        assert_eq!(rates.attempt(bad, now), Err(Exceeded { flag: "--failures-per-address", wait }));
        assert!(rates.attempt(client("2001:db8::2"), now).is_err());
        assert_eq!(rates.attempt(client("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(rates.attempt(bad, now + wait), Ok(()));
    }

    #[test]
    fn tickets_are_limited_by_key() {
        let rates = rates(&["--tickets-per-key", "1/m"], "127.0.0.1:8080");
        let now = Instant::now();
        assert_eq!(rates.issue(key("a"), now), Ok(()));
        let wait = Duration::from_secs(60);
        assert_eq!(rates.issue(key("a"), now), Err(Exceeded { flag: "--tickets-per-key", wait }));
        assert_eq!(rates.issue(key("b"), now), Ok(()));
    }

    #[test]
    fn the_names_of_an_address_are_limited() {
        let rates = rates(&["--trusted-proxy", "10.0.0.1"], "127.0.0.1:8080");
        let names_max = NAMES_PER_ADDRESS_MAX.get() as usize;
        let subscribe = |address, names| rates.subscribe(client(address), false, names);
        let permit = subscribe("192.0.2.1", names_max).unwrap();
        assert!(permit.is_some());
        let refused = subscribe("192.0.2.1", 17).unwrap_err();
        assert_eq!(refused.flag, "--subscribed-names-per-address-max");
        assert!(subscribe("192.0.2.1", 16).unwrap().is_none());
        assert!(subscribe("192.0.2.2", names_max).is_ok());
        let over_http2 = |names| rates.subscribe(client("192.0.2.1"), true, names);
        assert!(over_http2(1).is_err(), "every subscription over HTTP/2 counts");
        drop(permit);
        assert!(over_http2(1).unwrap().is_some());
        assert!(subscribe("192.0.2.1", names_max).is_ok());
    }

    #[test]
    fn a_client_without_an_address_is_not_limited() {
        let flags = [
            ["--failures-per-address", "1/h"],
            ["--publishes-per-address", "1/h"],
            ["--subscribed-names-per-address-max", "1"],
        ]
        .concat();
        let rates = rates(&flags, "unix:/run/downlink.sock");
        let (now, unix) =
            (Instant::now(), ClientAddress::of(PeerAddr::Unix, &HeaderMap::new(), &[]));
        for _ in 0..3 {
            assert_eq!(rates.publish(None, unix, ONE, now), Ok(()));
            rates.failed(unix, now);
            assert_eq!(rates.attempt(unix, now), Ok(()));
            assert!(rates.subscribe(unix, false, 1_000).unwrap().is_none());
        }
    }
}
