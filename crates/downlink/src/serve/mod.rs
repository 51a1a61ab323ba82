//! A server that knows what an event stream is.
//!
//! [`serve`] takes a listener and an app, as `axum::serve` does, and adds what long-lived streams
//! need. Every event stream ends at a frame boundary when the server drains. A peer that reads
//! nothing is cut off. A request head has a deadline. Connections are counted against the
//! file descriptors there are. It speaks HTTP/1.1, with upgrades (WebSockets), and HTTP/2 without
//! upgrades to a peer that begins with it (`curl --http2-prior-knowledge`, proxies with that
//! setting).
//!
//! Read in this order: `accept` (the loop) → `connection` (one peer) → `outgoing` (a response body)
//! → `handover` and `direct` (event streams without hyper), `http2` → `peer_socket`, `stall` and
//! `socket` (the wire). Deliberately not here: TLS, and anything about hubs.
//!
//! # Limits
//!
//! | limit | default | set by |
//! |---|---|---|
//! | connections | descriptors less a reserve | [`Serve::connections_max`] |
//! | newcomers at that limit, refused or answered | [`REFUSALS_MAX`] | – |
//! | time for a request head | [`HEADER_TIMEOUT`] | [`Serve::header_timeout`] |
//! | time until the next request of an idle connection | [`IDLE_TIMEOUT`] | [`Serve::idle_timeout`] |
//! | time without progress of a write | [`WRITE_STALL_MAX`] | [`Serve::write_stall_max`] |
//! | bytes that the kernel holds unsent | [`UNSENT_BYTES_MAX`] | [`Serve::unsent_bytes_max`] |
//! | time to drain | [`DRAIN_WITHIN`] | [`Serve::drain_within`] |
//! | time for a first request, and for the next one, once the drain has begun | 1 s, 250 ms | – |
//! | size of a request head | 32 KiB, 100 fields | – |
//! | streams of an HTTP/2 connection | 100 | – |
//! | unread request bodies of an HTTP/2 stream, connection | 64 KiB, 256 KiB | – |
//! | queued bytes of an HTTP/2 stream, besides the last piece of its body | 48 KiB | – |
//!
//! Over HTTP/2 both times are for a connection without a stream: before its first request, and
//! later. Then the peer is asked to leave (GOAWAY). `write_stall_max` is also for one stream: it is reset when its peer makes no
//! room (WINDOW_UPDATE) for the next 16 KiB in that time; the other streams stay. A peer that has
//! sent nothing for that time is pinged, and closed if it does not answer for as long again. A
//! connection counts once for `connections_max`, with any number of streams. When all places are
//! taken, a newcomer that begins with HTTP/2 is closed without an answer.
//!
//! Not limited here: the size of a request body and the time that it takes. The app decides about
//! both, as a body may be a stream itself. A peer that sends one slowly holds its connection and
//! the bytes that the app has gathered, at most until the end of a drain.

mod accept;
mod app;
mod boundary;
mod connection;
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
mod progress;
mod refusal;
mod server;
mod socket;
mod stall;
#[cfg(any(unix, windows))]
mod stop;

use std::fmt;
use std::future::{IntoFuture, pending};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;

use crate::http::Spread;
use accept::Signal;
pub use app::{App, AppService, AsMakeService, AsService, RequestBody};
pub use descriptors::connections_supported;
pub use limits::{
    DRAIN_WITHIN, HEADER_TIMEOUT, IDLE_TIMEOUT, RECONNECTION_SPREAD, REFUSALS_MAX,
    UNSENT_BYTES_MAX, WRITE_STALL_MAX,
};
use limits::{ServeLimits, YEAR};
pub use listener::Listener;
#[cfg(any(unix, windows))]
pub use stop::{StopSignal, stop_signal};

/// Serves an app on a listener.
///
/// The app is an axum `Router` or `MethodRouter`, the result of its `into_make_service`, or any
/// tower service of `Request<RequestBody>`. The listener is a TCP or Unix one of tokio, or any
/// [`Listener`]. Raises the process's soft limit of open files to the hard one.
///
/// With the feature `axum`, requests carry axum's `ConnectInfo` with the peer's address, without
/// further wiring.
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
        kind: PhantomData,
    }
}

/// A server about to run; awaiting it runs it. See [`serve`].
///
/// The future ends with `Ok` after a drain, and with the listener's error if the listener is
/// unusable.
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
    kind: PhantomData<fn() -> Kind>,
}

impl<L: Listener, A, Kind> Serve<L, A, Kind> {
    /// Drains and ends when the future completes.
    ///
    /// Accepting stops. Each event stream ends at a frame boundary with a `retry:` of its own,
    /// unless it is marked finite ([`Sse::finite`](crate::http::Sse::finite)). Requests in progress
    /// have until the deadline. An idle connection closes after a moment in which a request that is
    /// on its way still gets an answer: a second for the first one, a quarter for the next. Answers
    /// say `Connection: close` from then on. The app itself ends the connections that it has
    /// upgraded. For the signals of the system see [`stop_signal`].
    pub fn with_graceful_shutdown<F>(mut self, signal: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.signal = Box::pin(signal.map(drop));
        self
    }

    /// The longest that draining may take; the remaining connections are closed then. Default:
    /// [`DRAIN_WITHIN`].
    pub fn drain_within(mut self, drain_within: Duration) -> Self {
        self.limits.drain_within = drain_within;
        self
    }

    /// The longest that the server waits for the head of a request: from the connection for the
    /// first one, from its first byte for the others. Default: [`HEADER_TIMEOUT`]; more than a year
    /// counts as one.
    pub fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.limits.header_timeout = header_timeout.min(YEAR);
        self
    }

    /// The longest that a connection without a request waits for the next one. Default:
    /// [`IDLE_TIMEOUT`]; more than a year counts as one.
    ///
    /// Set it above the time that a balancer in front keeps its own connections, or some requests
    /// meet a connection that this server is just closing.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.limits.idle_timeout = idle_timeout.min(YEAR);
        self
    }

    /// The longest that a write may make no progress. Default: [`WRITE_STALL_MAX`].
    pub fn write_stall_max(mut self, write_stall_max: Duration) -> Self {
        self.limits.write_stall_max = write_stall_max;
        self
    }

    /// Bytes that the kernel may hold unsent for one connection. Default: [`UNSENT_BYTES_MAX`].
    ///
    /// 0 leaves it to the system: then a stalled peer may hold megabytes of the kernel's memory
    /// until it is cut off. On a Unix socket the whole send buffer has twice this size. On TCP the
    /// limit works on Linux alone (`TCP_NOTSENT_LOWAT`), and the bytes in flight come on top.
    pub fn unsent_bytes_max(mut self, unsent_bytes_max: u32) -> Self {
        self.limits.unsent_bytes_max = unsent_bytes_max;
        self
    }

    /// The most connections at a time, at least 1. Default: as many as the descriptors allow.
    ///
    /// A newcomer at this limit gets 503 with `Retry-After`; a browser gets an empty stream with
    /// `retry:`, since it would never return from a 503.
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.limits.connections_max = connections_max.max(1);
        self
    }

    /// Paths that are answered at the limit of connections too: those of probes and of metrics,
    /// which are needed most just then.
    ///
    /// A newcomer at the limit has one request. If it is for one of these paths, the app answers it
    /// within two seconds, and the connection closes. [`REFUSALS_MAX`] bounds how many there are at
    /// a time, refused ones included.
    pub fn answer_at_limit<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.answered_at_limit = paths.into_iter().map(Into::into).collect();
        self
    }

    /// The most connections at a time, as set or counted from the descriptors.
    pub fn connections_allowed(&self) -> usize {
        self.limits.connections_max
    }

    /// When the clients of ended or refused streams return. Default:
    /// [`RECONNECTION_SPREAD`].
    pub fn reconnection_spread(mut self, reconnection: Spread) -> Self {
        self.limits.reconnection = reconnection;
        self
    }

    /// The address of the listener.
    ///
    /// # Errors
    ///
    /// The system's.
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
        let settings = (self.limits, self.answered_at_limit);
        Box::pin(accept::run(self.listener, self.app, settings, self.signal))
    }
}

impl<L: fmt::Debug, A, Kind> fmt::Debug for Serve<L, A, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
