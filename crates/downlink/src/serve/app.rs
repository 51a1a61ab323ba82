//! What is served: a service, or something that makes one for each connection.
//!
//! [`App`] exists so that `serve` takes an axum `Router`, a `MethodRouter`, what axum's
//! `into_make_service` gives, or any other tower service as it is. Users never name it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use tower_service::Service;

use super::progress::Progress;
use crate::http::AnyError;

/// The body of a request that `serve` hands to a service.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// Where to note that it was read to its end, and by which number; `None` once that is noted.
    unread: Option<(Arc<Progress>, u32)>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, progress: &Arc<Progress>, number: u32) -> Self {
        let mut body = Self { incoming, unread: Some((Arc::clone(progress), number)) };
        if body.incoming.is_end_stream() {
            body.note_read();
        }
        body
    }

    fn note_read(&mut self) {
        if let Some((progress, number)) = self.unread.take() {
            progress.note_read(number);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.incoming.is_end_stream() {
            self.note_read();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Anything that [`serve`](super::serve) can serve to peers with addresses of type `Addr`.
///
/// Implemented for every suitable service, and there is nothing to implement by hand. `Kind` tells
/// services ([`AsService`]) from makers of services ([`AsMakeService`]); the compiler finds it.
pub trait App<Addr, Kind>: Clone + Send + 'static {
    /// The body of its responses.
    type Body: Body<Data: Send, Error: Into<AnyError>> + Send + 'static;
    /// What answers the requests of one connection.
    type Service: Service<
            Request<RequestBody>,
            Response = Response<Self::Body>,
            Error: Into<AnyError>,
            Future: Send,
        > + Clone
        + Send
        + 'static;

    /// The service for the connection of one peer.
    fn service_for(self, peer: Addr) -> impl Future<Output = Self::Service> + Send;
}

/// The [`App`] is itself the service.
#[derive(Debug)]
pub struct AsService(Infallible);

/// The [`App`] makes a service for each connection, from the address of its peer.
#[derive(Debug)]
pub struct AsMakeService(Infallible);

impl<S, B, Addr> App<Addr, AsService> for S
where
    Addr: Send,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<AnyError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<AnyError>,
{
    type Body = B;
    type Service = S;

    async fn service_for(self, _peer: Addr) -> S {
        self
    }
}

impl<M, S, B, Addr> App<Addr, AsMakeService> for M
where
    Addr: Send,
    M: Service<Addr, Response = S, Error = Infallible> + Clone + Send + 'static,
    M::Future: Send,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<AnyError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<AnyError>,
{
    type Body = B;
    type Service = S;

    async fn service_for(mut self, peer: Addr) -> S {
        let never = match poll_fn(|cx| self.poll_ready(cx)).await {
            Ok(()) => match self.call(peer).await {
                Ok(service) => return service,
                Err(never) => never,
            },
            Err(never) => never,
        };
        match never {}
    }
}
