//! A connection whose peer speaks HTTP/2 from its first byte ("with prior knowledge", RFC 9113,
//! section 3.3).
//!
//! hyper implements the protocol. The connection and all its streams are one task, so they end
//! together. After a panic, only the stream that panicked is reset.
//!
//! A connection has these limits, besides the constants below. If the peer makes no room for the
//! next bytes of a stream (see `pace`) for `write_stall_max`, the stream is reset. If the peer
//! sends nothing for that time, the server pings it, and the peer has the same time again to
//! answer. If the peer has no open stream, the server asks it to leave: after the header timeout if
//! it has sent no request yet, otherwise after the idle timeout. The defaults of h2 end a
//! connection with a flood of resets or of broken streams. Upgrades and the direct path are not
//! supported over HTTP/2.

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

/// The maximum number of open streams of one connection. The peer holds further requests back.
///
/// Each stream has a response, so a peer can make the server use this many times the memory of one
/// stream. RFC 9113 (section 6.5.2) advises against fewer than 100. Twice as many would let one
/// connection have twice as many subscriptions, and no honest client needs them.
const STREAMS_MAX: u32 = 100;

/// The maximum number of bytes of a request's body, in one stream, that the app has not read.
///
/// This is the protocol's own default. Half would make uploads over long distances slow. Twice the
/// size would only give the peer control of more of the server's memory.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;

/// The maximum number of bytes of request bodies, in all streams of one connection, that the app
/// has not read.
///
/// This is enough for four full streams. With less, one body that the app does not read would make
/// the others slow. With more, each connection could occupy more memory without any benefit.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// How long the server waits for a peer without an open stream. If the server has asked the peer to
/// leave, the peer has this time to receive everything that was sent. Otherwise it has this time to
/// send its next or its first request.
fn wait_without_streams(limits: &ServeLimits, leaves: bool, was_asked: bool) -> Duration {
    match (leaves, was_asked) {
        (true, _) => limits.write_stall_max,
        (false, true) => limits.idle_timeout,
        (false, false) => limits.header_timeout,
    }
}

/// Serves requests until the connection ends, the server drains, or the peer reads or requests
/// nothing for too long.
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
    // An HTTP/2 peer still acknowledges data after the end of its streams.
    io.closes_carefully = true;
    let report = BodyReport::default();
    let mut streams = Http2Streams::new(report.clone(), peer, limits.write_stall_max);
    let service = service_fn(move |request: Request<Incoming>| {
        let (bodiless, report) = (*request.method() == Method::HEAD, report.clone());
        let answer = requests.call(request);
        async move {
            let response = answer.await?;
            Ok::<_, R::Error>(response.map(|body| Paced::new(body, report, bodiless)))
        }
    });
    let builder = builder(streams.spawner(), limits.write_stall_max);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut draining = Some(pin!(drain.begun()));
    // Whether the peer was asked to leave, and whether it has sent a request.
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
            // The streams are polled first, so the connection writes in the same poll what they
            // yield.
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
        // The next poll sends the message to the peer and starts the timer again.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

fn builder(spawner: Spawner, write_stall_max: Duration) -> http2::Builder<Spawner> {
    // Zero would ping without a pause. More than a year would overflow the arithmetic of instants.
    let ping_after = write_stall_max.clamp(Duration::from_millis(1), YEAR);
    let mut builder = http2::Builder::new(spawner);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(ping_after)
        .keep_alive_timeout(ping_after)
        .max_concurrent_streams(STREAMS_MAX)
        // The queue of a stream whose socket is full has the same size as that of an HTTP/1.1
        // connection.
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
