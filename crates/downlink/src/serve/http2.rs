//! A connection whose peer speaks HTTP/2 from its first byte ("with prior knowledge", RFC 9113,
//! section 3.3).
//!
//! hyper speaks the protocol. The connection and all its streams are one task, so they end together
//! and at once. Only a panic ends less: it resets its own stream.
//!
//! A connection has these limits, besides the constants below. A stream whose peer makes no room
//! for the next bytes (see `pace`) is reset after `write_stall_max`. A peer that has sent nothing
//! for that time is pinged, and has as long again to answer. A peer without a stream is asked to
//! leave: after the header timeout if it has asked for nothing yet, else after the idle timeout. A
//! flood of resets or of broken streams ends the connection by the defaults of h2. Not here:
//! upgrades, and the direct path.

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

/// Streams that one connection may have open at a time; further requests wait at the peer.
///
/// Each is a response of its own, so a peer can make the server hold this many times the memory of
/// one stream. RFC 9113 (section 6.5.2) advises against fewer. Double would let one connection have
/// twice as many subscriptions, and no honest client would notice.
const STREAMS_MAX: u32 = 100;

/// Bytes of a request's body that may come before the app has read any, in one stream.
///
/// The protocol's own default. Half would slow uploads down over long distances; double is memory
/// under the control of the peer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;

/// The same for all streams of a connection together.
///
/// Four full streams. With fewer, one body that the app leaves unread slows the others down. With
/// more, each connection could hold as much without any use for the app.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// How long a connection without a stream is waited for: to take the rest, to ask again, or to ask
/// for the first time.
fn wait_without_streams(limits: &ServeLimits, leaves: bool, was_asked: bool) -> Duration {
    match (leaves, was_asked) {
        (true, _) => limits.write_stall_max,
        (false, true) => limits.idle_timeout,
        (false, false) => limits.header_timeout,
    }
}

/// Serves requests until the connection ends, the server drains, or the peer takes or asks nothing.
///
/// # Errors
///
/// hyper's, if the connection failed.
///
/// # Cancel safety
///
/// Dropping it closes the connection and drops the streams.
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
    // An HTTP/2 peer goes on acknowledging data after the end of its streams.
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
    // Whether the peer knows that the connection will end, and whether it has asked for anything.
    let (mut leaves, mut was_asked) = (false, false);
    // Runs while there is no stream.
    let mut idle: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if draining.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            draining = None;
            (leaves, idle) = (true, None);
            connection.as_mut().graceful_shutdown();
            // Each stream finds out whether it can end.
            streams.wake_all();
        }
        loop {
            // The connection writes in the same poll what the streams yield.
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
            // The peer has not taken the rest in time.
            return Poll::Ready(Ok(()));
        }
        (leaves, idle) = (true, None);
        connection.as_mut().graceful_shutdown();
        // The connection has something to send now, and a new time to wait for.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

fn builder(spawner: Spawner, write_stall_max: Duration) -> http2::Builder<Spawner> {
    // Zero would ping again and again; more than a year overflows the arithmetic of instants.
    let ping_after = write_stall_max.clamp(Duration::from_millis(1), YEAR);
    let mut builder = http2::Builder::new(spawner);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(ping_after)
        .keep_alive_timeout(ping_after)
        .max_concurrent_streams(STREAMS_MAX)
        // The queue of a stream whose socket is full; as much as a connection on HTTP/1.1.
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
