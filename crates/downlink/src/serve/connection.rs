//! One connection, from the accepted socket to its close.
//!
//! A connection is one task. In this task, hyper (the HTTP library) reads requests, the app answers
//! them, and hyper writes the responses. If a peer begins with HTTP/2, `http2` serves it in the
//! same task. The task ends in these cases:
//!
//! - The peer leaves, reads nothing for too long, or sends no request head in time.
//! - The server drains.
//! - The connection hands its socket over together with an event stream (see `handover`).
//!
//! A panic in the app ends only this task. The module `accept` accepts connections and limits their
//! number.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower_service::Service;

use super::addresses::PeerAddr;
use super::app::{App, AppService, PeerApp, PeerService, RequestBody};
use super::cross_origin;
use super::direct::{Arrival, ConnectionFuture, HandedOver, PolledBytes, Socket};
use super::drain::Drain;
use super::handover::{ParkedBody, ParkingSlot, ReplyBody, RequestTraits, reply};
use super::http2;
use super::limits::{BUFFER_BYTES_MAX, ServeLimits};
use super::outgoing::{OutgoingBody, outgoing};
use super::peer_socket::PeerSocket;
use super::peers::Excess;
use super::progress::{Awaited, Progress};
use super::proxy_protocol::{ProxyHeader, ProxyHeaderError, read_header};
use super::refusal::refusal;
use super::server::{Permit, Server};
use crate::http::moment::Moment;
use crate::http::stalled::{self, StalledPeer};
use crate::http::{is_browser, refuse, too_many_requests};

/// How long the server waits for the first request of a connection once the drain has begun.
///
/// The peer has connected to send a request. A proxy sends its request right after it connects. If
/// the server closed the connection before the request arrives, the request would be lost. On a
/// busy machine, a proxy may need more than half of this time. With a longer wait, peers that send
/// slowly or never would hold up the end of the server.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// How long the server waits for a further request of a connection once the drain has begun. The
/// peer may have just sent a further request.
///
/// A proxy under load reuses a connection within this time. The answer to its request then says
/// that the connection closes. Half the time would be too short for a request whose packet was lost
/// and is sent again. With twice the time, people would notice that the server ends late: most
/// connections are idle, and each of them waits for the whole time.
const NEXT_REQUEST_GRACE: Duration = Duration::from_millis(250);

/// How long the answer to a connection beyond a limit may take. If the header timeout is
/// shorter, it applies instead.
///
/// Two seconds are enough for a round trip and a slow client. With more time, slow clients would
/// keep others from getting an answer, because at most
/// [`REFUSALS_MAX`](super::limits::REFUSALS_MAX) connections beyond the limit are open at the same
/// time.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// A connection that a listener has accepted.
pub(super) trait PeerIo: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static> PeerIo for Io {}

/// The type of a connection that hyper serves.
type HyperConnection<Io, S> = http1::Connection<TokioIo<PeerSocket<Io, Permit>>, RequestService<S>>;

/// Serves an app to one peer until the connection ends.
pub(super) async fn serve_peer<Io, Addr, A, Kind>(
    mut io: Io,
    mut peer: Addr,
    app: A,
    mut permit: Permit,
) where
    Io: PeerIo,
    Addr: Clone + fmt::Debug + Send + Sync + 'static,
    A: App<Addr, Kind>,
{
    let server = Arc::clone(&permit.0.server);
    let mut input = Vec::new();
    // The futures of this rare path are boxed, so that other connections need no memory for them.
    if server.peers.sends_header(PeerAddr::of(&peer)) {
        let header = match Box::pin(read_proxy_header(&mut io, &server)).await {
            Ok(header) => header,
            Err(answer) => {
                let io = PeerSocket::new(io, &server.limits, &server.stats, permit);
                return Box::pin(io.close_with(answer)).await;
            }
        };
        if let Some(client) = header.client {
            set_client(&mut peer, client);
            match permit.0.count_client(PeerAddr::Tcp(client)) {
                Ok(counted) => permit.0 = counted,
                Err(excess) => {
                    server.stats.note_refused(excess);
                    let refusals = Arc::clone(&server.address_refusals);
                    let Ok(refusal) = refusals.try_acquire_owned() else { return };
                    let permits = (Some(permit), refusal);
                    let mut io = PeerSocket::new(io, &server.limits, &server.stats, permits);
                    io.begin_with(header.rest);
                    let client = Some(PeerAddr::Tcp(client));
                    return Box::pin(answer_once(io, (peer, client), app, server, excess)).await;
                }
            }
        }
        input = header.rest;
    }
    let mut io = PeerSocket::new(io, &server.limits, &server.stats, permit);
    io.begin_with(input);
    let service = app.service_for(peer.clone()).await;
    serve_requests(io, PeerService { service, peer }, Progress::default(), server).await;
}

/// Reads the header in which a proxy names its client.
///
/// # Errors
///
/// The answer to a connection without a valid header. The answer is empty if the connection has
/// ended, the header did not arrive in time, or the server drains.
async fn read_proxy_header<Io: PeerIo>(io: &mut Io, server: &Server) -> Result<ProxyHeader, Bytes> {
    let drained = async {
        server.drain.begun().await;
        sleep(FIRST_REQUEST_GRACE).await;
    };
    let read = tokio::select! {
        read = timeout(server.limits.header_timeout, read_header(io)) => read,
        () = drained => return Err(Bytes::new()),
    };
    match read {
        Ok(Ok(header)) => Ok(header),
        Ok(Err(ProxyHeaderError::Ended(_))) | Err(_) => Err(Bytes::new()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "refused a connection of a trusted proxy");
            Err(refusal(
                StatusCode::BAD_REQUEST,
                format!("A trusted proxy has to name its client, but {error}."),
            ))
        }
    }
}

/// Replaces the address of a proxy by the address of its client. This does nothing if `Addr` is not
/// `SocketAddr`, the address type of TCP sockets.
fn set_client<Addr: Any>(peer: &mut Addr, client: SocketAddr) {
    if let Some(address) = (peer as &mut dyn Any).downcast_mut() {
        *address = client;
    }
}

/// The name of a peer in logs. If a proxy has named its client, the name is the address of the
/// client.
fn name_of(peer: &impl fmt::Debug, client: Option<PeerAddr>) -> String {
    match client {
        Some(PeerAddr::Tcp(client)) => client.to_string(),
        _ => format!("{peer:?}"),
    }
}

/// Serves the requests of a connection one after the other.
async fn serve_requests<Io: PeerIo, S: PeerApp>(
    mut io: PeerSocket<Io, Permit>,
    app: S,
    progress: Progress,
    server: Arc<Server>,
) {
    let (peer, client, began) = (app.peer(), io.permit.0.client, Instant::now());
    let progress = Arc::new(progress);
    io.progress = Some(Arc::clone(&progress));
    let parking: Option<Arc<ParkingSlot<_>>> = server.streams.are_taken().then(Arc::default);
    let requests = RequestService {
        app,
        parking: parking.clone(),
        progress: Arc::clone(&progress),
        drain: Arc::clone(&server.drain),
        from: client.unwrap_or_else(|| PeerAddr::of(&peer)),
    };
    let mut connection = http1().serve_connection(TokioIo::new(io), requests);
    let wait = RequestWait { progress: &progress, limits: &server.limits, running: None };
    match until_end(&mut connection, wait, &server.drain).await {
        HyperEnd::Done(Err(error)) if error.is_parse_version_h2() => {
            let Parts { io, read_buf, service, .. } = connection.into_parts();
            let mut io = io.into_inner();
            io.rewind(&read_buf);
            // `Progress` describes only connections over HTTP/1.1.
            io.progress = None;
            // The future is boxed, so that a connection over HTTP/1.1 needs no memory for it.
            log_end(
                Box::pin(http2::serve(
                    io,
                    service,
                    name_of(&peer, client),
                    &server.limits,
                    &server.drain,
                ))
                .await,
            );
        }
        HyperEnd::Done(ended) => {
            let stalled = ended.as_ref().is_err_and(is_stall).then(|| {
                let age = began.elapsed();
                StalledPeer { peer: name_of(&peer, client), age }
            });
            log_end(ended);
            let mut io = None;
            let drop_rest = || io = Some(connection.into_parts().io.into_inner());
            match stalled {
                Some(stalled) => stalled::drop_stalled(stalled, drop_rest),
                None => drop_rest(),
            }
            if let Some(io) = io {
                io.close().await;
            }
        }
        HyperEnd::Unasked => {}
        HyperEnd::Upgrade => serve_upgraded(connection, &server.drain).await,
        HyperEnd::HeadWritten => {
            let parked = parking.and_then(|parking| parking.lock().take());
            let Some(parked) = parked else { return };
            let Parts { io, read_buf, service, .. } = connection.into_parts();
            let mut io = io.into_inner();
            io.rewind(&read_buf);
            hand_over(io, service.app, parked, &server);
        }
    }
}

/// Why hyper stops serving a connection.
enum HyperEnd {
    /// The connection serves no more requests, or has failed. Its socket is not closed yet.
    Done(hyper::Result<()>),
    /// The server drains, and the peer has sent no request.
    Unasked,
    /// The app takes over the connection.
    Upgrade,
    /// The head of a stream is written. Its body waits for a driver (a task that writes many event
    /// streams).
    HeadWritten,
}

/// Times the wait of a connection for a request. hyper's own timer does not distinguish an idle
/// connection from a connection on which a part of a head has arrived.
struct RequestWait<'a> {
    progress: &'a Progress,
    limits: &'a ServeLimits,
    running: Option<(Awaited, Pin<Box<Sleep>>)>,
}

impl RequestWait<'_> {
    /// Completes when the connection has waited for too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let awaited = self.progress.awaited();
        let limit = match awaited {
            Awaited::Nothing => {
                self.running = None;
                return Poll::Pending;
            }
            Awaited::Head => self.limits.header_timeout,
            Awaited::Request => self.limits.idle_timeout,
        };
        if self.running.as_ref().is_some_and(|(running, _)| *running != awaited) {
            self.running = None;
        }
        let (_, timer) = self.running.get_or_insert_with(|| (awaited, Box::pin(sleep(limit))));
        timer.as_mut().poll(cx)
    }
}

/// Lets hyper serve requests until the connection ends or another protocol or a driver takes over.
async fn until_end<Io: PeerIo, S: AppService>(
    connection: &mut HyperConnection<Io, S>,
    mut wait: RequestWait<'_>,
    drain: &Arc<Drain>,
) -> HyperEnd {
    let (begun, progress) = (drain.begun(), wait.progress);
    tokio::select! {
        // The drain is checked before the connection is polled. The poll may end a stream because
        // of the drain. hyper must know before this poll that the stream is the last answer of the
        // connection.
        biased;
        () = begun => {}
        end = poll_fn(|cx| poll_end(connection, &mut wait, cx)) => return end,
    }
    if progress.is_idle() {
        let grace = if progress.was_asked() { NEXT_REQUEST_GRACE } else { FIRST_REQUEST_GRACE };
        let ending = poll_fn(|cx| poll_end(connection, &mut wait, cx));
        if let Ok(end) = timeout(grace, ending).await {
            return end;
        }
        if progress.is_idle() {
            return if progress.was_asked() { HyperEnd::Done(Ok(())) } else { HyperEnd::Unasked };
        }
    }
    // hyper finishes the answer in progress, if there is one, and then closes the connection.
    Pin::new(&mut *connection).graceful_shutdown();
    poll_fn(|cx| poll_end(connection, &mut wait, cx)).await
}

fn poll_end<Io: PeerIo, S: AppService>(
    connection: &mut HyperConnection<Io, S>,
    wait: &mut RequestWait<'_>,
    cx: &mut Context<'_>,
) -> Poll<HyperEnd> {
    let progress = wait.progress;
    match connection.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(HyperEnd::Done(ended)),
        Poll::Pending if progress.is_upgrading() => Poll::Ready(HyperEnd::Upgrade),
        Poll::Pending if progress.is_head_written() => Poll::Ready(HyperEnd::HeadWritten),
        Poll::Pending => wait.poll_over(cx).map(|()| HyperEnd::Done(Ok(()))),
    }
}

/// Finishes the response that upgrades the connection to another protocol.
async fn serve_upgraded<Io: PeerIo, S: AppService>(
    connection: HyperConnection<Io, S>,
    drain: &Arc<Drain>,
) {
    let mut connection = pin!(connection.with_upgrades());
    let ended = tokio::select! {
        biased;
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    log_end(ended);
}

/// Whether a connection ended because its peer read nothing for too long. In this case the error of
/// the socket is `TimedOut`, whether the kernel or the server has timed the write.
fn is_stall(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut)
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Hands the socket and the body over to a driver (see `direct`). The driver also gets everything
/// that is needed to serve further requests after the stream.
fn hand_over<Io: PeerIo, S: PeerApp>(
    io: PeerSocket<Io, Permit>,
    app: S,
    parked: ParkedBody<S::Body>,
    server: &Server,
) {
    let PeerSocket { io, input, stall, permit, .. } = io;
    let warn = |error: &_| {
        tracing::warn!(%error, "a socket cannot be handed over; its connection is closed");
    };
    let Ok(socket) = Socket::from_io(io).inspect_err(warn) else { return };
    let ParkedBody { body, keep_alive } = parked;
    let http = Some((app, permit));
    let (body, began) = (Some(body), Moment::at(Instant::now()));
    let stream = Box::pin(DirectStream::<Io, S> { body, http, began, io: PhantomData });
    let times_stalls = stall.max.is_some();
    server.streams.push(Arrival { socket, stream, input, keep_alive, times_stalls });
}

pin_project! {
    /// A response body that a driver serves, with everything that is needed to continue the
    /// connection after the stream.
    struct DirectStream<Io, S: AppService> {
        #[pin]
        body: Option<OutgoingBody<S::Body>>,
        // The app and the permit of the connection, for the requests after the stream.
        http: Option<(S, Permit)>,
        began: Moment,
        io: PhantomData<fn() -> Io>,
    }
}

impl<Io: PeerIo, S: PeerApp> HandedOver for DirectStream<Io, S> {
    fn prefetch(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledBytes {
        let Some(body) = self.project().body.as_pin_mut() else { return Poll::Ready(None) };
        Poll::Ready(match ready!(body.poll_frame(cx)) {
            // Readers of an event stream have no use for trailers.
            Some(Ok(frame)) => frame.into_data().ok().map(Ok),
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn drop_body(self: Pin<&mut Self>) {
        self.project().body.set(None);
    }

    fn drop_stalled(self: Pin<&mut Self>) {
        let mut this = self.project();
        let name = |(app, permit): &(S, Permit)| name_of(&app.peer(), permit.0.client);
        let peer = this.http.as_ref().map(name);
        let peer = peer.unwrap_or_default();
        let stalled = StalledPeer { peer, age: this.began.age() };
        stalled::drop_stalled(stalled, || this.body.set(None));
    }

    fn go_on(self: Pin<&mut Self>, socket: Socket, requests: Option<Bytes>) -> ConnectionFuture {
        let http = self.project().http.take();
        Box::pin(async move {
            let (Some((app, permit)), Ok(io)) = (http, socket.into_io::<Io>()) else { return };
            let server = Arc::clone(&permit.0.server);
            let mut io = PeerSocket::new(io, &server.limits, &server.stats, permit);
            let Some(input) = requests else { return io.close().await };
            io.rewind(&input);
            serve_requests(io, app, Progress::of_a_kept_connection(), server).await;
        })
    }
}

/// Whether a browser opens an event stream with this request. Only the methods GET and HEAD count.
/// A page sends other methods with `fetch`, and `fetch` can read the status of a refusal.
fn is_opened_by_browser<B>(request: &Request<B>) -> bool {
    let opens = matches!(*request.method(), Method::GET | Method::HEAD);
    opens && is_browser(request.headers(), request.uri().query())
}

/// The permits of a connection that gets one answer and is then closed. The first permit counts
/// against `connections_max`. It is missing if the connection was refused before it got such a
/// permit. The second permit limits how many such connections are open at the same time.
type RefusalPermit = (Option<Permit>, OwnedSemaphorePermit);

/// Answers one request of a connection beyond a limit, and then closes the connection.
pub(super) async fn turn_away<Io, Addr, A, Kind>(
    mut io: Io,
    mut peer: Addr,
    app: A,
    server: Arc<Server>,
    (excess, permit): (Excess, OwnedSemaphorePermit),
) where
    Io: PeerIo,
    Addr: Clone + Send + Sync + 'static,
    A: App<Addr, Kind>,
{
    let (mut client, mut input) = (None, Vec::new());
    if server.peers.sends_header(PeerAddr::of(&peer)) {
        let header = timeout(REFUSAL_MAX, Box::pin(read_proxy_header(&mut io, &server))).await;
        let Ok(Ok(header)) = header else { return };
        if let Some(named) = header.client {
            set_client(&mut peer, named);
            client = Some(PeerAddr::Tcp(named));
        }
        input = header.rest;
    }
    let mut io = PeerSocket::new(io, &server.limits, &server.stats, (None, permit));
    io.begin_with(input);
    answer_once(io, (peer, client), app, server, excess).await;
}

/// Answers one request, and then closes the connection. For a path in `answer_at_limit`, the app
/// answers. For any other path, the answer is a refusal.
async fn answer_once<Io, Addr, A, Kind>(
    io: PeerSocket<Io, RefusalPermit>,
    (peer, client): (Addr, Option<PeerAddr>),
    app: A,
    server: Arc<Server>,
    excess: Excess,
) where
    Io: PeerIo,
    Addr: Clone + Send + Sync + 'static,
    A: App<Addr, Kind>,
{
    let header_timeout = server.limits.header_timeout;
    let io = TokioIo::new(io);
    let from = client.unwrap_or_else(|| PeerAddr::of(&peer));
    let made = timeout(REFUSAL_MAX, app.service_for(peer.clone())).await;
    let Ok(service) = made else { return };
    // `poll_without_shutdown` needs a service that is `Unpin`. An app need not be `Unpin`, but its
    // box is.
    let app = Box::new(PeerService { service, peer });
    let service = service_fn(move |request: Request<Incoming>| {
        let (app, server) = (app.clone(), Arc::clone(&server));
        Box::pin(async move {
            if server.answered_at_limit.iter().any(|path| path == request.uri().path()) {
                let mut app = app;
                let mut request = request.map(|body| RequestBody::new(body, &Arc::default(), 0));
                request.extensions_mut().insert(from);
                poll_fn(|cx| app.poll_ready(cx)).await?;
                let bytes = |mut data: <<A::Service as AppService>::Body as Body>::Data| {
                    data.copy_to_bytes(data.remaining())
                };
                let plain = move |body: <A::Service as AppService>::Body| {
                    Either::Left(body.map_frame(move |frame| frame.map_data(bytes)))
                };
                return app.call(request).await.map(|response| response.map(plain));
            }
            let browser = is_opened_by_browser(&request);
            let spread = server.drain.reconnection;
            let mut refused = match excess {
                Excess::Connections => refuse(excess.reason(), spread, browser),
                Excess::OfAddress | Excess::Connects => {
                    too_many_requests(excess.reason(), spread, browser)
                }
            };
            cross_origin::allow(request.headers(), refused.headers_mut());
            Ok(refused.map(Either::Right))
        })
    });
    let mut builder = http1();
    builder.header_read_timeout(header_timeout);
    let mut connection = builder.keep_alive(false).serve_connection(io, service);
    let answering = poll_fn(|cx| connection.poll_without_shutdown(cx));
    // After an error or a timeout, there is no answer to deliver.
    if let Ok(Ok(())) = timeout(REFUSAL_MAX.min(header_timeout), answering).await {
        connection.into_parts().io.into_inner().close().await;
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // `RequestWait` times the wait for a request, so hyper must not do it too.
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(BUFFER_BYTES_MAX);
    builder
}

/// Answers the requests of one connection.
struct RequestService<S: AppService> {
    app: S,
    /// The slot in which bodies wait for the handover to a driver. `None` if the server has no
    /// drivers.
    parking: Option<Arc<ParkingSlot<S::Body>>>,
    progress: Arc<Progress>,
    drain: Arc<Drain>,
    /// The peer, for the extensions of each request.
    from: PeerAddr,
}

/// No field is pinned.
impl<S: AppService> Unpin for RequestService<S> {}

impl<S: AppService> hyper::service::Service<Request<Incoming>> for RequestService<S> {
    type Response = Response<ReplyBody<S::Body>>;
    type Error = S::Error;
    // hyper keeps memory for this future as long as the connection lives. Because the future is
    // boxed, this memory is only a pointer.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.progress.begin_request();
        let traits = RequestTraits::of(&request, number);
        let browser = is_opened_by_browser(&request);
        let mut request = request.map(|body| RequestBody::new(body, &self.progress, number));
        request.extensions_mut().insert(self.from);
        let mut app = self.app.clone();
        let (parking, progress) = (self.parking.clone(), Arc::clone(&self.progress));
        let drain = Arc::clone(&self.drain);
        Box::pin(async move {
            poll_fn(|cx| app.poll_ready(cx)).await?;
            let response = app.call(request).await?;
            if traits.is_upgraded_by(&response) {
                progress.note_upgrade();
                // This yields once. In the meantime, the connection checks the progress and sees
                // the upgrade, before hyper gets the response.
                tokio::task::yield_now().await;
            }
            let mut response = outgoing(response, browser, &drain);
            traits.end_by_close(&mut response);
            if drain.has_begun() {
                traits.say_close(&mut response);
            }
            Ok(reply(response, traits, parking.as_ref(), &progress))
        })
    }
}
