//! One connection, from the accepted socket to its close.
//!
//! The whole of it is one task: hyper reads requests, the app answers, bodies go out. It ends when
//! the peer leaves, reads nothing for too long, sends no request head in time, when the server
//! drains, or when its socket is given away together with an event stream (see `handover`). A peer
//! that begins with HTTP/2 is served by `http2`, in the same task. A panic in the app ends this task
//! and nothing else. Not here: accepting, and the limit on how many there
//! are (see `accept`).

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tower_service::Service;

use super::app::{App, RequestBody};
use super::direct::{
    Arrival, CLOSE_DISCARD_MAX, CLOSE_LINGER, Cut, Served, Socket, Streams, Visit,
};
use super::drain::Drain;
use super::handover::{Asking, Parking, Reply, reply};
use super::http2;
use super::outgoing::{Outgoing, outgoing};
use super::progress::Progress;
use super::rewind::Rewind;
use super::socket::SocketLimits;
use super::stall::StallGuard;
use crate::http::{AnyError, is_browser, refuse};

/// What hyper may buffer for one connection, in each direction; hence also the largest request
/// head, beyond which the answer is 431.
///
/// Half would refuse the cookies that some sites pile up. Double is memory that each stalled peer
/// holds besides one batch of events: with hyper's own default, 408 KiB, ten thousand of them hold
/// 4 GB.
pub(super) const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// How long a peer that has asked for nothing yet may take to do so once the drain has begun.
///
/// It has connected in order to ask: a proxy's request follows its connection at once, and is lost if
/// that is closed in between. Half would not do for a proxy on a busy machine; double would hold up
/// the end of the server for peers that send slowly, or never.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// The same for a peer that has had an answer, and may have written its next request just now.
///
/// A proxy under load uses its connections again within this time and is then told that it was the
/// last; half would be less than what a lost packet takes to come again, double would be felt as a
/// late end by everybody, since idle connections are the rule.
const NEXT_REQUEST_GRACE: Duration = Duration::from_millis(250);

/// How long a newcomer at the limit may take to ask and be told; a shorter header timeout wins.
///
/// One round trip and a slow client fit in; each such newcomer holds one of
/// [`REFUSALS_MAX`](super::REFUSALS_MAX).
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) drain: Arc<Drain>,
    pub(super) header_timeout: Duration,
    pub(super) socket: SocketLimits,
    pub(super) streams: Streams,
}

/// What one peer is served with.
struct Caller<S, Addr> {
    app: S,
    peer: Addr,
}

/// A socket as hyper has it.
type HyperIo<Io> = TokioIo<Rewind<StallGuard<Io>>>;

/// A connection as hyper has it.
type HyperConnection<Io, S, B, Addr> = http1::Connection<HyperIo<Io>, Requests<S, B, Addr>>;

/// Serves an app to one peer until the connection ends.
pub(super) async fn serve_peer<Io, Addr, A, Kind>(
    io: Io,
    peer: Addr,
    app: A,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
    A: App<Addr, Kind>,
{
    let io = StallGuard::new(io, shared.socket, Some(place));
    let app = app.service_for(peer.clone()).await;
    serve_requests(io, Bytes::new(), Caller { app, peer }, Progress::default(), shared).await;
}

/// Serves one request after the other, beginning with input that was read already.
async fn serve_requests<Io, S, B, Addr>(
    mut io: StallGuard<Io>,
    input: Bytes,
    caller: Caller<S, Addr>,
    progress: Progress,
    shared: Arc<Shared>,
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    let progress = Arc::new(progress);
    io.report_flushes(Arc::clone(&progress));
    let parking = shared.streams.are_taken().then(Arc::default);
    let requests = Requests {
        caller,
        parking: parking.clone(),
        progress: Arc::clone(&progress),
        drain: Arc::clone(&shared.drain),
    };
    let io = TokioIo::new(Rewind::new(input, io));
    let mut connection = http1(shared.header_timeout).serve_connection(io, requests);
    match until_end(&mut connection, &progress, &shared.drain).await {
        End::Done(Err(error)) if error.is_parse_version_h2() => {
            let Parts { io, read_buf, mut service, .. } = connection.into_parts();
            let (input, io) = io.into_inner().into_parts(read_buf);
            service.parking = None;
            // Boxed, because every other connection would keep room for it.
            Box::pin(http2::serve(Rewind::new(input, io), service, &shared)).await;
        }
        End::Done(ended) => {
            note(ended);
            close(connection.into_parts().io).await;
        }
        End::Unasked => {}
        End::Upgrade => serve_upgraded(connection, &shared.drain).await,
        End::HeadWritten => {
            let parked = parking.and_then(|parking| parking.take());
            let Some(parked) = parked else { return };
            let Parts { io, read_buf, service, .. } = connection.into_parts();
            let (input, io) = io.into_inner().into_parts(read_buf);
            hand_over(io, input, service.caller, (parked.body, parked.keep_alive), &shared);
        }
    }
}

/// How hyper's part of a connection ends.
enum End {
    /// The connection is done with requests, or has failed; its socket is not closed yet.
    Done(hyper::Result<()>),
    /// The server drains, and the peer has not asked for anything.
    Unasked,
    /// The app is to have the connection.
    Upgrade,
    /// A stream's head is written; its body is parked.
    HeadWritten,
}

/// Has hyper serve requests until its part is over.
async fn until_end<Io, S, B, Addr>(
    connection: &mut HyperConnection<Io, S, B, Addr>,
    progress: &Progress,
    drain: &Arc<Drain>,
) -> End
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    let begun = drain.begun();
    tokio::select! {
        // The drain comes first: a stream that it ends must be the last answer of its connection.
        biased;
        () = begun => {}
        end = poll_fn(|cx| poll_end(connection, progress, cx)) => return end,
    }
    if progress.is_idle() {
        let grace = if progress.was_asked() { NEXT_REQUEST_GRACE } else { FIRST_REQUEST_GRACE };
        tokio::select! {
            biased;
            end = poll_fn(|cx| poll_end(connection, progress, cx)) => return end,
            () = sleep(grace) => {}
        }
        if progress.is_idle() {
            return if progress.was_asked() { End::Done(Ok(())) } else { End::Unasked };
        }
    }
    // Closes at once if nothing is in progress, else after the answer.
    Pin::new(&mut *connection).graceful_shutdown();
    poll_fn(|cx| poll_end(connection, progress, cx)).await
}

fn poll_end<Io, S, B, Addr>(
    connection: &mut HyperConnection<Io, S, B, Addr>,
    progress: &Progress,
    cx: &mut Context<'_>,
) -> Poll<End>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    match connection.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(End::Done(ended)),
        Poll::Pending if progress.is_upgrading() => Poll::Ready(End::Upgrade),
        Poll::Pending if progress.is_head_written() => Poll::Ready(End::HeadWritten),
        Poll::Pending => Poll::Pending,
    }
}

/// Serves on where a response is about to make the connection another protocol's.
async fn serve_upgraded<Io, S, B, Addr>(
    connection: HyperConnection<Io, S, B, Addr>,
    drain: &Arc<Drain>,
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    let mut connection = pin!(connection.with_upgrades());
    let ended = tokio::select! {
        biased;
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    note(ended);
}

pub(super) fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Closes a connection so that the peer gets all that was sent: what it still sends is read for a
/// while and thrown away, because a close with unread input is a reset.
async fn close<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: HyperIo<Io>) {
    let (_, mut io) = io.into_inner().into_parts(Bytes::new());
    let closing = async {
        io.shutdown().await?;
        let mut buffer = [0; 1_024];
        let mut left = CLOSE_DISCARD_MAX;
        while left > 0 {
            let read = io.read(&mut buffer).await?;
            left = if read == 0 { 0 } else { left.saturating_sub(read) };
        }
        std::io::Result::Ok(())
    };
    // Whatever comes of it, the socket is closed now.
    let _ = timeout(CLOSE_LINGER, closing).await;
}

/// Gives socket and body to a driver, and with them what it takes to serve the connection again.
fn hand_over<Io, S, B, Addr>(
    io: StallGuard<Io>,
    input: Bytes,
    caller: Caller<S, Addr>,
    (body, keep_alive): (Outgoing<B>, bool),
    shared: &Shared,
) where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    let times_stalls = io.times_stalls();
    let (io, place) = io.into_parts();
    let socket = match Socket::from_io(io) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "a socket cannot be handed over; its connection is closed");
            return;
        }
    };
    let (body, after) = (Some(body), Some((caller, place)));
    let visit = Visiting::<Io, S, B, Addr> { body, after, io: PhantomData };
    shared.streams.push(Arrival {
        socket,
        visit: Box::pin(visit),
        input,
        keep_alive,
        times_stalls,
    });
}

pin_project! {
    /// A body on the direct path, and what its connection is served with after it.
    struct Visiting<Io, S, B, Addr> {
        #[pin]
        body: Option<Outgoing<B>>,
        after: Option<(Caller<S, Addr>, Option<OwnedSemaphorePermit>)>,
        io: PhantomData<fn() -> Io>,
    }
}

impl<Io, S, B, Addr> Visit for Visiting<Io, S, B, Addr>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let Some(body) = self.project().body.as_pin_mut() else { return Poll::Ready(None) };
        let Some(frame) = ready!(body.poll_frame(cx)) else { return Poll::Ready(None) };
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(bytes)) => Poll::Ready(Some(Ok(bytes))),
            // Trailers: an event stream's readers have no use for them.
            Ok(Err(_)) => Poll::Ready(None),
            Err(error) => {
                let error: AnyError = error.into();
                tracing::debug!(%error, "a stream is cut");
                Poll::Ready(Some(Err(Cut)))
            }
        }
    }

    fn warm(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn drop_body(self: Pin<&mut Self>) {
        self.project().body.set(None);
    }

    fn serve_on(self: Pin<&mut Self>, socket: Socket, input: Bytes, shared: Arc<Shared>) -> Served {
        let after = self.project().after.take();
        Box::pin(async move {
            let (Some((caller, place)), Ok(io)) = (after, socket.into_io::<Io>()) else { return };
            let io = StallGuard::new(io, shared.socket, place);
            serve_requests(io, input, caller, Progress::of_a_kept_connection(), shared).await;
        })
    }
}

/// Answers the one request of a newcomer for whom there is no place, then closes.
pub(super) async fn turn_away<Io>(io: Io, shared: Arc<Shared>, place: OwnedSemaphorePermit)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = StallGuard::new(io, shared.socket, Some(place));
    let io = TokioIo::new(Rewind::new(Bytes::new(), io));
    let service = service_fn(|request: Request<Incoming>| {
        let browser = is_browser(request.headers());
        let spread = shared.drain.reconnection();
        let answer =
            refuse("The server is at its limit of connections; come back later.", spread, browser);
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let mut builder = http1(shared.header_timeout);
    let mut connection = builder.keep_alive(false).serve_connection(io, service);
    let within = REFUSAL_MAX.min(shared.header_timeout);
    let refusing = poll_fn(|cx| connection.poll_without_shutdown(cx));
    // An error or the end of the time allowed leaves nothing to tell anyone.
    if let Ok(Ok(())) = timeout(within, refusing).await {
        close(connection.into_parts().io).await;
    }
}

fn http1(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Without a timer the header timeout is silently off.
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(BUFFER_BYTES_MAX);
    builder
}

/// The request as the app sees it.
fn from_peer<Addr>(
    request: Request<Incoming>,
    peer: &Addr,
    progress: &Arc<Progress>,
    number: u32,
) -> Request<RequestBody>
where
    Addr: Clone + Send + Sync + 'static,
{
    let mut request = request.map(|body| RequestBody::new(body, progress, number));
    #[cfg(feature = "axum")]
    crate::adapters::axum::insert_connect_info(request.extensions_mut(), peer);
    #[cfg(not(feature = "axum"))]
    let _ = (peer, request.extensions_mut());
    request
}

/// What answers the requests of one connection.
struct Requests<S, B, Addr> {
    caller: Caller<S, Addr>,
    /// Where bodies are parked that are to be handed over, if they can be.
    parking: Option<Arc<Parking<B>>>,
    progress: Arc<Progress>,
    drain: Arc<Drain>,
}

/// Nothing in it is pinned in place.
impl<S, B, Addr> Unpin for Requests<S, B, Addr> {}

impl<S, B, Addr> hyper::service::Service<Request<Incoming>> for Requests<S, B, Addr>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
    Addr: Clone + Send + Sync + 'static,
{
    type Response = Response<Reply<B>>;
    type Error = S::Error;
    // hyper keeps room for it as long as the connection lives; boxed, that is a pointer while a
    // stream runs.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.progress.begin_request();
        let asking = Asking::of(&request, number);
        let browser = is_browser(request.headers());
        let request = from_peer(request, &self.caller.peer, &self.progress, number);
        let mut app = self.caller.app.clone();
        let (parking, progress) = (self.parking.clone(), Arc::clone(&self.progress));
        let drain = Arc::clone(&self.drain);
        Box::pin(async move {
            poll_fn(|cx| app.poll_ready(cx)).await?;
            let response = app.call(request).await?;
            if asking.is_upgraded_by(&response) {
                progress.note_upgrade();
                // The connection looks at the progress now, before hyper has the response.
                tokio::task::yield_now().await;
            }
            let mut response = outgoing(response, browser, &drain);
            if drain.has_begun() {
                asking.say_close(&mut response);
            }
            Ok(reply(response, asking, parking.as_ref(), &progress))
        })
    }
}
