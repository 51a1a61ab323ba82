//! One connection, from the accepted socket to its close.
//!
//! The whole of it is one task: hyper reads requests, the app answers, bodies go out. It ends when
//! the peer leaves, reads nothing for too long, sends no request head in time, or when the server
//! drains. A panic in the app ends this task and nothing else. Not here: accepting, and the limit
//! on how many there are (see `accept`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tower_service::Service;

use super::app::{App, RequestBody};
use super::drain::Drain;
use super::outgoing::{Outgoing, outgoing};
use super::stall::StallGuard;
use crate::http::{AnyError, is_browser, refuse};

/// What hyper may buffer for one connection, in each direction; hence also the largest request
/// head, beyond which the answer is 431.
///
/// Half would refuse the cookies that some sites pile up. Double is memory that each stalled peer
/// holds besides one batch of events: with hyper's own default, 408 KiB, ten thousand of them hold
/// 4 GB.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// How long a peer whose first request has begun to arrive may take to complete it once the drain
/// has begun.
///
/// A request that is on its way gets an answer; a peer that sends slowly, or never the rest, does
/// not hold up the end of the server.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

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
    pub(super) write_stall_max: Duration,
}

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
    let io = TokioIo::new(StallGuard::new(io, shared.write_stall_max, Some(place)));
    let app = app.service_for(peer.clone()).await;
    // Only ever touched by this task.
    let asked = &AtomicBool::new(false);
    let drain = Arc::clone(&shared.drain);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        // hyper keeps room for this future as long as the connection lives; boxed, that is a
        // pointer while a stream runs.
        Box::pin(respond(app.clone(), from_peer(request, &peer), Arc::clone(&drain)))
    });
    let connection = http1(shared.header_timeout).serve_connection(io, service).with_upgrades();
    let mut connection = pin!(connection);

    let ended = tokio::select! {
        // The drain comes first: a stream that it ends must be the last answer of its connection.
        biased;
        () = shared.drain.begun() => {
            // But a first request that has come by now is taken in before; the runtime looks at
            // the sockets once more in between.
            if !asked.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
                if is_over(connection.as_mut()).await {
                    return;
                }
            }
            // Closes at once if nothing is in progress, else after the answer.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = unasked(asked) => return,
            }
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Polls a future once; true if that was its last time.
async fn is_over<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// Completes if the peer has sent no request within its grace, and never otherwise.
async fn unasked(asked: &AtomicBool) {
    if !asked.load(Ordering::Relaxed) {
        sleep(FIRST_REQUEST_GRACE).await;
    }
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Answers the one request of a newcomer for whom there is no place, then closes.
pub(super) async fn turn_away<Io>(io: Io, shared: Arc<Shared>, place: OwnedSemaphorePermit)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(StallGuard::new(io, shared.write_stall_max, Some(place)));
    let service = service_fn(|request: Request<Incoming>| {
        let browser = is_browser(request.headers());
        let spread = shared.drain.reconnection();
        let answer =
            refuse("The server is at its limit of connections; come back later.", spread, browser);
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let mut builder = http1(shared.header_timeout);
    let connection = builder.keep_alive(false).serve_connection(io, service);
    let within = REFUSAL_MAX.min(shared.header_timeout);
    // An error or the end of the time allowed leaves nothing to tell anyone.
    let _ = tokio::time::timeout(within, connection).await;
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
fn from_peer<Addr>(request: Request<Incoming>, peer: &Addr) -> Request<RequestBody>
where
    Addr: Clone + Send + Sync + 'static,
{
    let mut request = request.map(RequestBody::new);
    #[cfg(feature = "axum")]
    crate::adapters::axum::insert_connect_info(request.extensions_mut(), peer);
    #[cfg(not(feature = "axum"))]
    let _ = (peer, request.extensions_mut());
    request
}

async fn respond<S, B>(
    mut app: S,
    request: Request<RequestBody>,
    drain: Arc<Drain>,
) -> Result<Response<Outgoing<B>>, S::Error>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<AnyError>>,
    B: http_body::Body,
{
    let browser = is_browser(request.headers());
    poll_fn(|cx| app.poll_ready(cx)).await?;
    let response = app.call(request).await?;
    Ok(outgoing(response, browser, &drain))
}
