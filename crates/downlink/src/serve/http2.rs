//! A connection whose peer speaks HTTP/2 from its first byte ("with prior knowledge", RFC 9113,
//! section 3.3).
//!
//! hyper speaks the protocol. The connection and all its streams are one task, as everything else
//! of a connection is: what ends the task ends them all, at once, and nothing of them outlives it.
//! Only a panic is kept from the others: it resets the stream it happened in.
//!
//! What bounds a connection, besides the constants below: a stream whose peer makes no room for
//! what is next (see `pace`) is reset after `write_stall_max`; a peer that has sent nothing for
//! that time is asked for a sign of life and has as long again to give it; one without any stream
//! is asked to leave after the header timeout. A flood of resets or of broken streams ends the
//! connection by the defaults of h2. Not here: upgrades, and the direct path.

mod linger;
mod pace;
mod streams;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2::{self, Connection};
use hyper::service::{HttpService, Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep};

use self::linger::Lingering;
use self::pace::{Paced, Turn};
use self::streams::{Spawner, Streams};
use super::YEAR;
use super::connection::{BUFFER_BYTES_MAX, Shared, note};
use super::drain::Begun;
use super::rewind::Rewind;
use super::stall::StallGuard;
use crate::http::AnyError;

/// Streams that one connection may have open at a time; the peer keeps any more to itself.
///
/// Each is a response of its own, so this times what one stream holds is what a peer can make the
/// server hold. RFC 9113 (section 6.5.2) advises against fewer; double would let one connection
/// stand for twice as many subscriptions and no honest client would notice.
const STREAMS_MAX: u32 = 100;

/// Bytes of a request's body that may come before the app has read any, in one stream.
///
/// The protocol's own default. Half would slow uploads down over long ways, double is memory that
/// a peer decides about.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024 - 1;

/// The same for all streams of a connection together.
///
/// Four full streams: fewer, and one body that the app leaves unread slows the others down; more
/// is what each of the connections could hold without the app wanting any of it.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// Serves requests until the connection ends, the server drains, or the peer takes or asks nothing.
///
/// # Cancel safety
///
/// Dropping it closes the connection and drops the streams.
pub(super) async fn serve<Io, R, B>(io: Rewind<StallGuard<Io>>, requests: R, shared: &Shared)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Service<Request<Incoming>, Response = Response<B>, Future: Send> + 'static,
    R::Error: Into<AnyError>,
    B: Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
{
    let turn = Turn::default();
    let streams = Streams::new(turn.clone(), shared.socket.write_stall_max);
    let service = PacedRequests { requests, turn };
    let io = TokioIo::new(Lingering::new(io));
    let connection =
        builder(streams.spawner(), shared.socket.write_stall_max).serve_connection(io, service);
    let served = Served {
        connection: Box::pin(connection),
        streams,
        drain: Some(Box::pin(shared.drain.begun())),
        idle: None,
        leaving: false,
        header_timeout: shared.header_timeout,
        write_stall_max: shared.socket.write_stall_max,
    };
    note(served.await);
}

fn builder(spawner: Spawner, write_stall_max: Duration) -> http2::Builder<Spawner> {
    // Zero would ask again and again; more than this overflows the arithmetic of instants.
    let sign_of_life = write_stall_max.clamp(Duration::from_millis(1), YEAR);
    let mut builder = http2::Builder::new(spawner);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(sign_of_life)
        .keep_alive_timeout(sign_of_life)
        .max_concurrent_streams(STREAMS_MAX)
        // What a stream may queue for a socket that is full; as much as a connection on HTTP/1.1.
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// A connection, its streams, and what ends it.
struct Served<Io, S: HttpService<Incoming>> {
    connection: Pin<Box<Connection<Io, S, Spawner>>>,
    streams: Streams,
    /// Gone once the drain has begun.
    drain: Option<Pin<Box<Begun>>>,
    /// Runs while there is no stream.
    idle: Option<Pin<Box<Sleep>>>,
    /// The peer was told that the connection is to end.
    leaving: bool,
    header_timeout: Duration,
    write_stall_max: Duration,
}

/// Nothing in it is pinned in place.
impl<Io, S: HttpService<Incoming>> Unpin for Served<Io, S> {}

impl<Io, S, B> Served<Io, S>
where
    Io: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = B, Error: Into<AnyError>, Future: Send + 'static>,
    B: Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
{
    /// Tells the peer that no further requests are taken.
    fn leave(&mut self) {
        self.leaving = true;
        self.idle = None;
        self.connection.as_mut().graceful_shutdown();
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        let Some(drain) = &mut self.drain else { return };
        if drain.as_mut().poll(cx).is_ready() {
            self.drain = None;
            self.leave();
            // Each stream looks whether it can end.
            self.streams.wake_all();
        }
    }

    /// Completes when the connection has been without a stream for too long after it was told to
    /// end: what its peer has not taken by now it does not want.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.streams.is_empty() {
            self.idle = None;
            return Poll::Pending;
        }
        let within = if self.leaving { self.write_stall_max } else { self.header_timeout };
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(within)));
        if idle.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.leaving {
            return Poll::Ready(());
        }
        self.leave();
        // Now the connection has something to say, and another time to wait for.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<Io, S, B> Future for Served<Io, S>
where
    Io: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = B, Error: Into<AnyError>, Future: Send + 'static>,
    B: Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let this = &mut *self;
        this.poll_drain(cx);
        loop {
            // What streams yield is written in the same turn.
            this.streams.poll(cx);
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if !this.streams.has_new() {
                return this.poll_idle(cx).map(Ok);
            }
        }
    }
}

/// Answers requests with bodies that go by what their peer takes.
struct PacedRequests<R> {
    requests: R,
    turn: Turn,
}

impl<R, B> Service<Request<Incoming>> for PacedRequests<R>
where
    R: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static>,
{
    type Response = Response<Paced<B>>;
    type Error = R::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, R::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let bodiless = *request.method() == Method::HEAD;
        let answer = self.requests.call(request);
        let turn = self.turn.clone();
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| Paced::new(body, turn, bodiless)))
        })
    }
}
