//! A server that knows what an event stream is.
//!
//! [`serve`] takes a listener and an app, as `axum::serve` does, and adds what long-lived streams
//! need: every event stream ends at a frame boundary when the server drains, a peer that reads
//! nothing is cut off, a request head has a deadline, and connections are counted against the
//! file descriptors there are. It speaks HTTP/1.1, with upgrades (WebSockets), and HTTP/2 without
//! upgrades to a peer that begins with it (`curl --http2-prior-knowledge`, proxies that are told
//! to).
//!
//! Read in this order: `accept` (the loop) → `connection` (one peer) → `outgoing` (a response body)
//! → `handover` and `direct` (event streams without hyper), `http2` → `stall` and `socket` (the
//! wire). Deliberately not here: TLS, and anything about hubs.
//!
//! # Limits
//!
//! | limit | default | set by |
//! |---|---|---|
//! | connections | descriptors less a reserve | [`Serve::connections_max`] |
//! | newcomers being refused | [`REFUSALS_MAX`] | – |
//! | time for a request head, and between two | [`HEADER_TIMEOUT`] | [`Serve::header_timeout`] |
//! | time without progress of a write | [`WRITE_STALL_MAX`] | [`Serve::write_stall_max`] |
//! | bytes that the kernel holds unsent | [`UNSENT_BYTES_MAX`] | [`Serve::unsent_bytes_max`] |
//! | time to drain | [`DRAIN_WITHIN`] | [`Serve::drain_within`] |
//! | time for a first request, and for the next one, once the drain has begun | 1 s, 250 ms | – |
//! | size of a request head | 32 KiB | – |
//! | streams of an HTTP/2 connection | 100 | – |
//! | unread request bodies of an HTTP/2 stream, connection | 64 KiB, 256 KiB | – |
//! | queued bytes of an HTTP/2 stream, besides what its body gave last | 48 KiB | – |
//!
//! Over HTTP/2 the header timeout is for the time without a stream, after which the peer is asked
//! to leave (GOAWAY). `write_stall_max` is also for one stream: it is reset when its peer makes no
//! room (WINDOW_UPDATE) for the next 16 KiB in that time; the other streams stay. A peer that has
//! sent nothing for that time is pinged, and closed if it does not answer for as long again. A
//! connection counts once for `connections_max`, whatever its streams; at that limit a newcomer
//! that begins with HTTP/2 is closed without a word.
//!
//! Not limited here: the size of a request body and the time that it takes. Both are the app's to
//! decide, as a body may be a stream itself; a peer that sends one slowly holds its connection and
//! what the app has gathered, no more, and no longer than until the end of a drain.

mod accept;
mod app;
mod boundary;
mod connection;
mod descriptors;
mod direct;
mod drain;
mod handover;
mod http2;
mod listener;
mod outgoing;
mod progress;
mod rewind;
mod socket;
mod stall;
mod stop;

use std::fmt;
use std::future::{IntoFuture, pending};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::http::Spread;
use accept::{Limits, Signal};
pub use app::{App, AsMakeService, AsService, RequestBody};
pub use listener::Listener;
use socket::SocketLimits;
#[cfg(any(unix, windows))]
pub use stop::{StopSignal, stop_signal};

/// Time for a request head to arrive, and for the next request on a connection kept alive.
///
/// Ten seconds let the slowest honest client through, retransmissions included; a minute would let
/// an attacker hold every connection with a few bytes each.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a write may make no progress before the socket is closed.
///
/// A mobile client that changes cells is back within a few seconds; what a peer holds that is gone
/// for longer is better spent on others, since it resumes when it returns. A peer that takes far
/// less than is sent, a few bytes now and then, counts as one that is gone.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

/// Bytes that the kernel takes for one socket before it has sent them; it holds what is on its way to
/// the peer besides, and some overhead.
///
/// Without such a bound a stalled peer holds megabytes of the kernel's memory before anything notices
/// (measured 4.2 MB). Half would wake the writer of a large event for every few packets; double is
/// memory for nothing, as what is in flight is not counted.
pub const UNSENT_BYTES_MAX: u32 = 8 * 1024;

/// Time from the signal to the end of [`Serve`].
///
/// What most supervisors grant between asking a process to end and killing it.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// When the clients of ended or refused streams come back: one to five seconds later.
///
/// Earlier, a restarting server is not up yet; later, people notice that the page stands still.
pub const RECONNECTION_SPREAD: Spread =
    Spread::between(Duration::from_secs(1), Duration::from_secs(5));

/// Newcomers beyond `connections_max` that are told when to return at the same time; any more are
/// closed without a word.
///
/// Each costs a descriptor and a task for a moment. Half would leave a burst of reloading browsers
/// without an answer; double is half of the descriptors that a default soft limit on macOS allows.
pub const REFUSALS_MAX: usize = 64;

/// Longer waits overflow the arithmetic of instants below.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Serves an app on a listener.
///
/// The app is an axum `Router` or `MethodRouter`, what its `into_make_service` gives, or any tower
/// service of `Request<RequestBody>`. The listener is a TCP or Unix one of tokio, or any
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
        drain_within: DRAIN_WITHIN,
        header_timeout: HEADER_TIMEOUT,
        socket: SocketLimits {
            write_stall_max: WRITE_STALL_MAX,
            unsent_bytes_max: UNSENT_BYTES_MAX,
        },
        connections_max: descriptors::connections_max(),
        reconnection: RECONNECTION_SPREAD,
        kind: PhantomData,
    }
}

/// A server about to run; awaiting it runs it. See [`serve`].
#[must_use = "a server runs when it is awaited"]
pub struct Serve<L, A, Kind> {
    listener: L,
    app: A,
    signal: Signal,
    drain_within: Duration,
    header_timeout: Duration,
    socket: SocketLimits,
    connections_max: usize,
    reconnection: Spread,
    kind: PhantomData<fn() -> Kind>,
}

impl<L: Listener, A, Kind> Serve<L, A, Kind> {
    /// Drains and ends when the future completes, whatever it gives.
    ///
    /// Accepting stops; each event stream ends at a frame boundary with a `retry:` of its own,
    /// unless it is marked finite ([`Sse::finite`](crate::http::Sse::finite)); requests in progress
    /// may end by the deadline. An idle connection closes after a moment in which a request that is
    /// on its way still gets an answer: a second for the first one, a quarter for the next. Answers
    /// say `Connection: close` from then on. Connections that the app has upgraded are the app's own
    /// to end. For the signals of the system see [`stop_signal`].
    pub fn with_graceful_shutdown<F>(mut self, signal: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.signal = Box::pin(async move {
            signal.await;
        });
        self
    }

    /// The longest that draining may take; what is left then is closed. Default: [`DRAIN_WITHIN`].
    pub fn drain_within(mut self, drain_within: Duration) -> Self {
        self.drain_within = drain_within;
        self
    }

    /// The longest that a request head may take to arrive, from the moment it is waited for; so
    /// an idle connection is closed after it too. Default: [`HEADER_TIMEOUT`]; more than a year
    /// counts as one.
    pub fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.header_timeout = header_timeout.min(YEAR);
        self
    }

    /// The longest that a write may make no progress. Default: [`WRITE_STALL_MAX`].
    pub fn write_stall_max(mut self, write_stall_max: Duration) -> Self {
        self.socket.write_stall_max = write_stall_max;
        self
    }

    /// Bytes that the kernel may hold unsent for one connection. Default: [`UNSENT_BYTES_MAX`].
    ///
    /// 0 leaves it to the system: then a stalled peer may hold megabytes of the kernel's memory until
    /// it is cut off. On a Unix socket it bounds the whole of the send buffer, twice; on TCP it does so
    /// on Linux alone (`TCP_NOTSENT_LOWAT`), and what is in flight comes on top.
    pub fn unsent_bytes_max(mut self, unsent_bytes_max: u32) -> Self {
        self.socket.unsent_bytes_max = unsent_bytes_max;
        self
    }

    /// The most connections at a time, at least 1. Default: what the descriptors allow.
    ///
    /// A newcomer at this limit gets 503 with `Retry-After`; a browser gets an empty stream with
    /// `retry:`, since it would never return from a 503.
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max.max(1);
        self
    }

    /// The most connections at a time, as set or counted from the descriptors.
    pub fn connections_allowed(&self) -> usize {
        self.connections_max
    }

    /// When clients whose stream was ended or refused shall return. Default:
    /// [`RECONNECTION_SPREAD`].
    pub fn reconnection_spread(mut self, reconnection: Spread) -> Self {
        self.reconnection = reconnection;
        self
    }

    /// The address that is listened on.
    ///
    /// # Errors
    ///
    /// Whatever the system reports.
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
    type IntoFuture = Serving;

    fn into_future(self) -> Serving {
        let limits = Limits {
            reconnection: self.reconnection,
            header_timeout: self.header_timeout,
            socket: self.socket,
            connections_max: self.connections_max,
        };
        Serving(Box::pin(accept::run(
            self.listener,
            self.app,
            limits,
            self.signal,
            self.drain_within,
        )))
    }
}

impl<L: fmt::Debug, A, Kind> fmt::Debug for Serve<L, A, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("connections_max", &self.connections_max)
            .field("drain_within", &self.drain_within)
            .field("header_timeout", &self.header_timeout)
            .field("write_stall_max", &self.socket.write_stall_max)
            .field("unsent_bytes_max", &self.socket.unsent_bytes_max)
            .finish_non_exhaustive()
    }
}

/// A running server; see [`serve`].
///
/// Ends with `Ok` after a drain, and with the listener's error if that can accept nothing any
/// more.
///
/// # Cancel safety
///
/// Dropping it closes the listener and every connection.
pub struct Serving(Pin<Box<dyn Future<Output = io::Result<()>> + Send>>);

impl Future for Serving {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}
