//! A connection whose peer speaks HTTP/2 from its first byte ("with prior knowledge", RFC 9113,
//! section 3.3).
//!
//! hyper (the HTTP library) implements the protocol. The connection and all its streams run in one
//! task. When the task ends, all streams end with it. A panic in a stream does not end the task:
//! the task catches the panic and resets only this stream.
//!
//! The constants below limit a connection. In addition, these rules apply:
//!
//! - If the peer makes no room for the next bytes of a stream within `write_stall_max` (see
//!   `pace`), the server resets the stream.
//! - If the peer sends nothing for `write_stall_max`, the server sends a ping. The peer must answer
//!   the ping within `write_stall_max`.
//! - A connection without an open stream may stay for a limited time. Then the server asks the peer
//!   to leave (GOAWAY). Before the first request, this time is the header timeout. Later, it is the
//!   idle timeout.
//! - If a connection has too many resets or broken streams, the library h2, which hyper uses, ends
//!   the connection.
//!
//! Over HTTP/2, the server supports no upgrades. It writes all event streams with hyper, so the
//! module `direct` is not used.

mod pace;
mod streams;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep};

use self::pace::{BodyReport, Paced};
use self::streams::{Http2Streams, Spawner};
use super::drain::Drain;
use super::limits::{BUFFER_BYTES_MAX, ServeLimits, YEAR};
use super::peer_socket::PeerSocket;
use crate::http::AnyError;

/// The maximum number of open streams of one connection. The peer must hold back further requests
/// until a stream ends.
///
/// Each open stream needs memory for a response, so this also limits the memory that one peer can
/// occupy. RFC 9113 (section 6.5.2) advises against a limit below 100. No honest client needs more
/// than 100 subscriptions on one connection.
const STREAMS_MAX: u32 = 100;

/// The maximum number of bytes of a request's body, in one stream, that the app has not read.
///
/// This is the protocol's own default. Half the size would make uploads over long distances slow.
/// With twice the size, a peer could occupy more of the server's memory, and honest peers would
/// gain nothing.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;

/// The maximum number of bytes of request bodies, in all streams of one connection, that the app
/// has not read.
///
/// This is enough for four full streams. With less, one body that the app does not read would make
/// the other bodies slow. With more, each connection could occupy more memory without any benefit.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// How long the server waits while the peer has no open stream.
///
/// If the server has asked the peer to leave (`leaves`), the peer has `write_stall_max` to receive
/// everything that was sent. Otherwise, a peer that has sent a request (`was_asked`) has
/// `idle_timeout` to send the next one, and a new peer has `header_timeout` to send its first one.
fn wait_without_streams(limits: &ServeLimits, leaves: bool, was_asked: bool) -> Duration {
    match (leaves, was_asked) {
        (true, _) => limits.write_stall_max,
        (false, true) => limits.idle_timeout,
        (false, false) => limits.header_timeout,
    }
}

/// Serves requests until the connection ends or the server drains. Also ends if the peer reads
/// nothing or sends no request for too long.
///
/// # Errors
///
/// The error of hyper, if the connection failed.
///
/// # Cancel safety
///
/// Dropping the future closes the connection and drops its streams.
pub(super) async fn serve<Io, Permit, R, B>(
    mut io: PeerSocket<Io, Permit>,
    requests: R,
    peer: String,
    limits: &ServeLimits,
    drain: &Arc<Drain>,
) -> hyper::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Permit: Unpin + Send + 'static,
    R: Service<Request<Incoming>, Response = Response<B>, Error: Into<AnyError>, Future: Send>
        + 'static,
    B: Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
{
    // An HTTP/2 peer still acknowledges data after the end of its streams. If the server closed the
    // socket with such input unread, the kernel would send a reset, and the peer could lose the
    // last bytes.
    io.closes_carefully = true;
    let report = BodyReport::default();
    let mut streams = Http2Streams::new(report.clone(), peer, limits.write_stall_max);
    let service = service_fn(move |request: Request<Incoming>| {
        let (bodiless, report) = (*request.method() == Method::HEAD, report.clone());
        let answer = requests.call(request);
        async move { Ok::<_, R::Error>(answer.await?.map(|it| Paced::new(it, report, bodiless))) }
    });
    let builder = builder(streams.spawner(), limits.write_stall_max);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut draining = Some(pin!(drain.begun()));
    // `leaves`: the server has asked the peer to leave. `was_asked`: the peer has sent a request.
    let (mut leaves, mut was_asked) = (false, false);
    // Runs while no stream is open.
    let mut idle: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if draining.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            draining = None;
            (leaves, idle) = (true, None);
            connection.as_mut().graceful_shutdown();
            // Each stream now checks whether it can end.
            streams.wake_all();
        }
        loop {
            // The streams are polled first, so that the connection can write their output in the
            // same poll.
            streams.poll(cx);
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if !streams.has_new() {
                break;
            }
        }
        if !streams.is_empty() {
            (was_asked, idle) = (true, None);
            return Poll::Pending;
        }
        let within = wait_without_streams(limits, leaves, was_asked);
        ready!(idle.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        if leaves {
            // The peer has not received everything in time.
            return Poll::Ready(Ok(()));
        }
        (leaves, idle) = (true, None);
        connection.as_mut().graceful_shutdown();
        // The next poll sends the GOAWAY to the peer and starts the timer again.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

fn builder(spawner: Spawner, write_stall_max: Duration) -> http2::Builder<Spawner> {
    // With zero, the server would ping without a pause. With a time that is much longer than a
    // year, the addition of times would overflow.
    let ping_after = write_stall_max.clamp(Duration::from_millis(1), YEAR);
    let mut builder = http2::Builder::new(spawner);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(ping_after)
        .keep_alive_timeout(ping_after)
        .max_concurrent_streams(STREAMS_MAX)
        // While the socket is full, a stream may queue as many bytes as an HTTP/1.1 connection.
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
