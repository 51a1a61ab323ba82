//! The app of a server: a service, or a maker that makes one service for each connection.
//!
//! The trait [`App`] lets `serve` accept an axum `Router`, a `MethodRouter`, the result of axum's
//! `into_make_service`, or any other tower service. Users need not name the trait.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use tower_service::Service;

use super::outgoing::PolledFrame;
use super::progress::Progress;
use crate::http::AnyError;

/// The body of a request that the server passes to a service.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// The progress of the connection. When the app has read the body to its end, the body records
    /// this here.
    progress: Arc<Progress>,
    /// The number of the request on its connection.
    number: u32,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, progress: &Arc<Progress>, number: u32) -> Self {
        let body = Self { incoming, progress: Arc::clone(progress), number };
        body.progress.note_body(true);
        body.note_end(false);
        body
    }

    fn note_end(&self, has_ended: bool) {
        if has_ended || self.incoming.is_end_stream() {
            self.progress.note_read(self.number);
            self.progress.note_body(false);
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.progress.note_body(false);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<hyper::Error> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.note_end(matches!(polled, Poll::Ready(None)));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A service that [`serve`](super::serve) can run: any tower service of `Request<RequestBody>`.
///
/// The trait is implemented for every suitable service, so do not implement it by hand.
pub trait AppService:
    Service<
        Request<RequestBody>,
        Response = Response<Self::Body>,
        Error: Into<AnyError>,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
    /// The body of the service's responses.
    type Body: Body<Data: Send, Error: Into<AnyError>> + Send + 'static;
}

impl<S, B> AppService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<RequestBody>, Error: Into<AnyError>, Future: Send>,
    B: Body<Data: Send, Error: Into<AnyError>> + Send + 'static,
{
    type Body = B;
}

/// An app that [`serve`](super::serve) can serve to peers with addresses of type `Addr`.
///
/// The trait is implemented for every suitable service, so do not implement it by hand. `Kind`
/// distinguishes services ([`AsService`]) from makers of services ([`AsMakeService`]). The compiler
/// infers `Kind`.
///
/// A service whose requests have another body type does not compile. The compiler says what to
/// change:
///
/// ```compile_fail,E0277
/// # #[derive(Clone)]
/// struct Hello;
///
/// impl tower_service::Service<http::Request<hyper::body::Incoming>> for Hello {
/// #   type Response = http::Response<String>;
/// #   type Error = std::convert::Infallible;
/// #   type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
/// #   fn poll_ready(
/// #       &mut self,
/// #       _: &mut std::task::Context<'_>,
/// #   ) -> std::task::Poll<Result<(), Self::Error>> {
/// #       std::task::Poll::Ready(Ok(()))
/// #   }
/// #   fn call(&mut self, _: http::Request<hyper::body::Incoming>) -> Self::Future {
/// #       std::future::ready(Ok(http::Response::new(String::new())))
/// #   }
///     // …
/// }
///
/// # fn example(listener: tokio::net::TcpListener) {
/// // Implement `Service<Request<B>>` for any body `B`, or for `RequestBody`.
/// let server = downlink::serve(listener, Hello);
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`serve` cannot run `{Self}`",
    label = "not an app that `serve` can run",
    note = "an app is an axum `Router`, or a tower service of `http::Request<downlink::serve::RequestBody>` that is `Clone`, `Send` and `'static`",
    note = "a `Router` that lacks its state is not an app yet: call `with_state`",
    note = "a service of `http::Request<hyper::body::Incoming>` has to take `RequestBody`, or any body, instead"
)]
pub trait App<Addr, Kind>: Clone + Send + 'static {
    /// The service that answers the requests of one connection.
    type Service: AppService;

    /// Returns the service for the connection of one peer.
    fn service_for(self, peer: Addr) -> impl Future<Output = Self::Service> + Send;
}

/// Marks an [`App`] that is itself the service.
#[derive(Debug)]
pub struct AsService(Infallible);

/// Marks an [`App`] that makes a service for each connection, from the address of the peer.
#[derive(Debug)]
pub struct AsMakeService(Infallible);

impl<S: AppService, Addr: Send> App<Addr, AsService> for S {
    type Service = S;

    async fn service_for(self, _peer: Addr) -> S {
        self
    }
}

impl<M, S, Addr> App<Addr, AsMakeService> for M
where
    M: Service<Addr, Response = S, Error = Infallible, Future: Send> + Clone + Send + 'static,
    S: AppService,
    Addr: Send,
{
    type Service = S;

    async fn service_for(mut self, peer: Addr) -> S {
        let Ok(()) = poll_fn(|cx| self.poll_ready(cx)).await;
        let Ok(service) = self.call(peer).await;
        service
    }
}

/// The service for one peer. It adds the peer's address to each request.
#[derive(Clone, Debug)]
pub(super) struct PeerService<S, Addr> {
    pub(super) service: S,
    pub(super) peer: Addr,
}

/// A service that knows the address of its peer.
pub(super) trait PeerApp: AppService {
    /// The type of the peer's address.
    type Addr: fmt::Debug + Send + Sync;

    /// The peer's address, for logs.
    fn peer(&self) -> Self::Addr;
}

impl<S, Addr> PeerApp for PeerService<S, Addr>
where
    S: AppService,
    Addr: Clone + fmt::Debug + Send + Sync + 'static,
{
    type Addr = Addr;

    fn peer(&self) -> Addr {
        self.peer.clone()
    }
}

impl<S, Addr> Service<Request<RequestBody>> for PeerService<S, Addr>
where
    S: AppService,
    Addr: Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> S::Future {
        #[cfg(feature = "axum")]
        crate::adapters::axum::insert_connect_info(request.extensions_mut(), &self.peer);
        #[cfg(not(feature = "axum"))]
        let _ = (&self.peer, request.extensions_mut());
        self.service.call(request)
    }
}
