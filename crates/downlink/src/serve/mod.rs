//! A server for event streams and other responses.
//!
//! [`serve`] takes a listener and an app, as `axum::serve` does. In addition, it does the following
//! for long-lived streams:
//!
//! - When the server drains (shuts down gracefully), it ends every event stream between two events,
//!   so that no reader loses a part of an event.
//! - It disconnects a peer that does not read.
//! - It closes a connection if a request head does not arrive in time.
//! - It accepts only as many connections as it has file descriptors for.
//!
//! The server speaks HTTP/1.1 with upgrades (WebSockets). Some peers use HTTP/2 from their first
//! byte, such as `curl --http2-prior-knowledge` and proxies that are set up for this. The server
//! speaks HTTP/2 to these peers, without upgrades.
//!
//! Read the files in this order: `accept` (the accept loop) → `peers` (the limits for each address)
//! → `connection` (one peer) → `proxy_protocol` (the client of a proxy) → `cross_origin` (refusals
//! for pages of other origins) → `outgoing` (a response body) → `handover` and `direct` (event
//! streams that are written without hyper, the HTTP library) → `http2` (peers that speak HTTP/2) →
//! `peer_socket`, `stall` and `socket` (the socket). TLS and hubs are not part of this module.
//!
//! # Limits
//!
//! | limit | default | set by |
//! |---|---|---|
//! | connections | the file descriptors minus a reserve | [`Serve::connections_max`] |
//! | open connections beyond `connections_max` (refused or answered) | [`REFUSALS_MAX`] | – |
//! | open connections of one address | – | [`Serve::connections_per_address_max`] |
//! | rate of new connections of one address | – | [`Serve::connects_per_address`] |
//! | remembered addresses for this rate | [`PEERS_MAX`] | – |
//! | connections beyond a limit of their address that get an answer | [`REFUSALS_MAX`] | – |
//! | length of a header of the PROXY protocol | 107 bytes; [`PROXY_HEADER_BYTES_MAX`] | – |
//! | time for a request head | [`HEADER_TIMEOUT`] | [`Serve::header_timeout`] |
//! | wait of an idle connection for its next request | [`IDLE_TIMEOUT`] | [`Serve::idle_timeout`] |
//! | time without progress of a write | [`WRITE_STALL_MAX`] | [`Serve::write_stall_max`] |
//! | unsent bytes in the kernel, per socket | [`UNSENT_BYTES_MAX`] | [`Serve::unsent_bytes_max`] |
//! | time to drain | [`DRAIN_WITHIN`] | [`Serve::drain_within`] |
//! | wait for a first request during a drain | 1 s | – |
//! | wait for a later request during a drain | 250 ms | – |
//! | size of a request head | 32 KiB, 100 fields | – |
//! | open streams of an HTTP/2 connection | 100 | – |
//! | unread bytes of request bodies, per HTTP/2 stream and per connection | 64 KiB, 256 KiB | – |
//! | queued bytes of an HTTP/2 stream, not counting the rest of one batch | 48 KiB | – |
//!
//! For a connection over HTTP/2, some of these limits have a special meaning:
//!
//! - `header_timeout` limits the wait for the first request. Later, `idle_timeout` limits the time
//!   during which no stream is open. When one of these times is over, the server asks the peer to
//!   leave (GOAWAY).
//! - `write_stall_max` also applies to each stream. If the peer makes no room (WINDOW_UPDATE) for
//!   the next 16 KiB of a stream in this time, the server resets the stream. The other streams
//!   continue.
//! - If the peer sends nothing for `write_stall_max`, the server sends a ping. If the peer does not
//!   answer the ping within `write_stall_max`, the server closes the connection.
//! - A connection counts once for `connections_max`, however many streams it has. When
//!   `connections_max` is reached, the server closes each new connection that begins with HTTP/2,
//!   and sends no answer on it.
//!
//! The server does not limit the size or the duration of a request body, because a body may be a
//! stream. The app must set these limits. A peer that sends a body slowly occupies its connection,
//! and the memory in which the app collects the body. Only the app or the end of a drain stops such
//! a peer.

mod accept;
mod addresses;
mod app;
mod boundary;
mod connection;
mod cross_origin;
mod descriptors;
#[cfg_attr(not(unix), path = "direct/none.rs")]
mod direct;
mod drain;
mod handover;
mod http2;
mod limits;
mod listener;
mod outgoing;
mod peer_socket;
mod peers;
mod progress;
mod proxy_protocol;
mod rate;
mod refusal;
mod server;
mod socket;
mod stall;
mod stats;
#[cfg(any(unix, windows))]
mod stop;

use std::fmt;
use std::future::{IntoFuture, pending};
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;

use crate::http::Spread;
use accept::{Settings, Signal};
pub use addresses::{AddressKey, ParseTrustedProxyError, PeerAddr, TrustedProxy};
pub use app::{App, AppService, AsMakeService, AsService, RequestBody};
pub use descriptors::connections_supported;
pub use limits::{
    DRAIN_WITHIN, HEADER_TIMEOUT, IDLE_TIMEOUT, RECONNECTION_SPREAD, REFUSALS_MAX,
    UNSENT_BYTES_MAX, WRITE_STALL_MAX,
};
use limits::{ServeLimits, YEAR};
pub use listener::Listener;
pub use peers::PEERS_MAX;
use peers::PeerRules;
pub use proxy_protocol::PROXY_HEADER_BYTES_MAX;
pub use rate::{ParseRateError, Rate, RateLimiter};
pub use stats::{RefusedConnection, ServeStats};
#[cfg(any(unix, windows))]
pub use stop::{StopSignal, stop_signal};

/// Serves an app on a listener.
///
/// The app is an axum `Router` or `MethodRouter`, the result of its `into_make_service`, or any
/// tower service of `Request<RequestBody>`. The listener is a TCP or Unix listener of tokio, or any
/// [`Listener`]. Calling `serve` raises the process's soft limit of open files to the hard limit.
///
/// Each request has the peer's address as a [`PeerAddr`] in its extensions. With the feature
/// `axum`, handlers can also extract it with axum's `ConnectInfo`. No further setup is needed.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "axum")]
/// # async fn example() -> std::io::Result<()> {
/// use axum::{Router, routing::get};
/// use downlink::serve::stop_signal;
/// use std::time::Duration;
/// use tokio::net::TcpListener;
///
/// let app = Router::new().route("/", get(|| async { "hello" }));
/// let listener = TcpListener::bind("127.0.0.1:8080").await?;
/// downlink::serve(listener, app)
///     .with_graceful_shutdown(stop_signal()?)
///     .drain_within(Duration::from_secs(30))
///     .await
/// # }
/// ```
pub fn serve<L, A, Kind>(listener: L, app: A) -> Serve<L, A, Kind>
where
    L: Listener,
    A: App<L::Addr, Kind>,
{
    Serve {
        listener,
        app,
        signal: Box::pin(pending()),
        limits: ServeLimits {
            drain_within: DRAIN_WITHIN,
            reconnection: RECONNECTION_SPREAD,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            write_stall_max: WRITE_STALL_MAX,
            unsent_bytes_max: UNSENT_BYTES_MAX,
            connections_max: connections_supported(),
        },
        answered_at_limit: Vec::new(),
        peers: PeerRules::default(),
        stats: ServeStats::new(),
        kind: PhantomData,
    }
}

/// A server with its settings, from [`serve`]. Awaiting it runs the server.
///
/// The future returns `Ok` after a drain. If the listener becomes unusable, the future drains the
/// server and then returns the listener's error.
///
/// # Cancel safety
///
/// Dropping the future closes the listener and every connection.
#[must_use = "a server runs when it is awaited"]
pub struct Serve<L, A, Kind> {
    listener: L,
    app: A,
    signal: Signal,
    limits: ServeLimits,
    answered_at_limit: Vec<String>,
    peers: PeerRules,
    stats: ServeStats,
    kind: PhantomData<fn() -> Kind>,
}

impl<L: Listener, A, Kind> Serve<L, A, Kind> {
    /// Starts a drain when the future `signal` completes. The server ends after the drain.
    ///
    /// During the drain, the server accepts no connections. Each event stream ends at a frame
    /// boundary, and its last frame is a random reconnection time (`retry:`). A stream that is
    /// marked finite ([`Sse::finite`](crate::http::Sse::finite)) and any other request in progress
    /// may run until the deadline.
    ///
    /// The server closes an idle connection after a short wait, so that a request that is already
    /// on its way still gets an answer. The wait is one second for a connection that has not had a
    /// request yet, and a quarter of a second for any other connection. Each answer during the
    /// drain says `Connection: close`.
    ///
    /// The app itself must end the connections that it has upgraded. [`stop_signal`] returns a
    /// future for the signals of the system.
    pub fn with_graceful_shutdown<F>(mut self, signal: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.signal = Box::pin(signal.map(drop));
        self
    }

    /// The maximum duration of a drain. After this time, the server closes the remaining
    /// connections. Default: [`DRAIN_WITHIN`].
    pub fn drain_within(mut self, drain_within: Duration) -> Self {
        self.limits.drain_within = drain_within;
        self
    }

    /// The maximum time for the head of a request to arrive. For the first request, the time counts
    /// from the start of the connection. For later requests, it counts from the first byte of the
    /// head. Default: [`HEADER_TIMEOUT`]. A value above a year counts as a year.
    pub fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.limits.header_timeout = header_timeout.min(YEAR);
        self
    }

    /// The maximum time that an idle connection waits for its next request. Default:
    /// [`IDLE_TIMEOUT`]. A value above a year counts as a year.
    ///
    /// If a load balancer is in front of the server, set this to more than the time for which the
    /// balancer keeps its idle connections. With less time, the balancer may send a request on a
    /// connection just when this server closes it.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.limits.idle_timeout = idle_timeout.min(YEAR);
        self
    }

    /// The maximum time that a write may make no progress. Default: [`WRITE_STALL_MAX`].
    pub fn write_stall_max(mut self, write_stall_max: Duration) -> Self {
        self.limits.write_stall_max = write_stall_max;
        self
    }

    /// The maximum number of bytes that the kernel holds unsent for one connection. Default:
    /// [`UNSENT_BYTES_MAX`].
    ///
    /// With 0, the operating system chooses the limit. A stalled peer may then occupy megabytes of
    /// the kernel's memory until the server disconnects the peer. On a Unix socket, the server sets
    /// the whole send buffer to twice this size. On TCP, the limit only works on Linux
    /// (`TCP_NOTSENT_LOWAT`), and does not include bytes that are sent but not yet acknowledged.
    pub fn unsent_bytes_max(mut self, unsent_bytes_max: u32) -> Self {
        self.limits.unsent_bytes_max = unsent_bytes_max;
        self
    }

    /// The maximum number of open connections, at least 1. Default: the number that the file
    /// descriptors allow, see [`connections_supported`].
    ///
    /// At this limit, the server answers a request on a new connection with the status 503 and
    /// `Retry-After`. A browser gets an empty stream with a `retry:` instead, since an
    /// `EventSource` would never reconnect after a 503. A page of every origin may read the answer.
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.limits.connections_max = connections_max.max(1);
        self
    }

    /// The maximum number of open connections of one address. By default, there is no limit.
    ///
    /// The addresses of an IPv6 network of 64 bits count as one (see [`AddressKey`]). The limit
    /// does not apply to [trusted proxies](Self::trusted_proxies), or to peers without an IP
    /// address.
    ///
    /// At this limit, the server answers a request on a new connection with the status 429 and
    /// `Retry-After`. A browser gets an empty stream instead, as at
    /// [`connections_max`](Self::connections_max). At most [`REFUSALS_MAX`] connections get such an
    /// answer at the same time. The server closes any further connection at once.
    pub fn connections_per_address_max(mut self, connections_max: NonZeroU32) -> Self {
        self.peers.connections_max = Some(connections_max);
        self
    }

    /// The maximum rate at which one address opens connections. By default, there is no limit.
    ///
    /// [`connections_per_address_max`](Self::connections_per_address_max) describes which addresses
    /// count as one, and how the server answers beyond the limit. A connection that is refused
    /// because of the rate does not count for the rate. The server remembers at most [`PEERS_MAX`]
    /// addresses.
    pub fn connects_per_address(mut self, rate: Rate) -> Self {
        self.peers.connects = Some(rate);
        self
    }

    /// The proxies in front of the server. The limits for each address do not apply to them,
    /// because they connect for many clients.
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = TrustedProxy>) -> Self {
        self.peers.proxies = proxies.into_iter().collect();
        self
    }

    /// Whether each trusted proxy sends a header of the PROXY protocol (version 1 or 2) at the
    /// beginning of a connection. Default: false.
    ///
    /// The address in the header then becomes the peer's address for the limits, for logs and in
    /// [`PeerAddr`]. On a TCP listener, axum's `ConnectInfo` also contains this address, and an app
    /// that makes a service for each connection gets it too. If a proxy connects for itself, its
    /// header says `LOCAL` or `UNKNOWN`, and the address of the proxy counts.
    ///
    /// The header has to arrive within [`header_timeout`](Self::header_timeout), and its binary
    /// form may have at most [`PROXY_HEADER_BYTES_MAX`] bytes after its fixed part. A trusted proxy
    /// that sends no valid header gets the status 400. The server expects no header from any other
    /// peer. If another peer sends a header, the header counts as an invalid request.
    pub fn proxy_protocol(mut self, is_used: bool) -> Self {
        self.peers.proxy_protocol = is_used;
        self
    }

    /// The paths that the app answers even when the server has reached its limit of connections, or
    /// a peer has reached a limit for its address. These paths are meant for health checks and
    /// metrics, which are needed most when a limit is reached.
    ///
    /// At the limit, the server reads one request of a new connection. If the request is for one of
    /// these paths, the app has two seconds to answer it, and then the connection closes. At most
    /// [`REFUSALS_MAX`] connections beyond the limit are open at the same time, whether the server
    /// answers or refuses them.
    pub fn answer_at_limit<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.answered_at_limit = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Records the numbers of the server in `stats`, so that the app can show them. Use each value
    /// for one server only: if two servers share a value, it has the connections of both, but the
    /// limit of only one.
    pub fn record_stats(mut self, stats: &ServeStats) -> Self {
        self.stats = stats.clone();
        self
    }

    /// The maximum number of open connections. It was set with [`Self::connections_max`] or
    /// calculated from the number of file descriptors.
    pub fn connections_allowed(&self) -> usize {
        self.limits.connections_max
    }

    /// The range of the reconnection times for clients whose streams were ended or refused.
    /// Default: [`RECONNECTION_SPREAD`].
    pub fn reconnection_spread(mut self, reconnection: Spread) -> Self {
        self.limits.reconnection = reconnection;
        self
    }

    /// The address of the listener.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

impl<L, A, Kind> IntoFuture for Serve<L, A, Kind>
where
    L: Listener,
    A: App<L::Addr, Kind>,
    Kind: 'static,
{
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { limits, answered_at_limit, peers, stats, .. } = self;
        let settings = Settings { limits, answered_at_limit, peers, stats };
        Box::pin(accept::run(self.listener, self.app, settings, self.signal))
    }
}

impl<L: fmt::Debug, A, Kind> fmt::Debug for Serve<L, A, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
