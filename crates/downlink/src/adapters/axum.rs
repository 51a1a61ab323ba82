//! axum: responses, the extractor of the last event id, the peer's address, and its listeners.
//!
//! Nothing here decides anything: each item hands over to the type it is for.

use std::convert::Infallible;
use std::fmt;
use std::io;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::Extensions;
use http::request::Parts;

use crate::http::{FrameSource, LastEventId, Problem, Sse};
use crate::hub::{BatchError, PublishError, SubscribeError, Subscription};

impl<S: FrameSource + Send + 'static> IntoResponse for Sse<S> {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl<T: Send + Sync + 'static> IntoResponse for Subscription<T> {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for SubscribeError {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for PublishError {
    fn into_response(self) -> Response {
        IntoResponse::into_response(self.to_problem())
    }
}

impl IntoResponse for BatchError {
    fn into_response(self) -> Response {
        IntoResponse::into_response(self.to_problem())
    }
}

impl<S: Sync> FromRequestParts<S> for LastEventId {
    /// No id, however malformed, is a reason to refuse: a browser would never come back.
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::from_request(&parts.headers, parts.uri.query()))
    }
}

/// Makes axum's `ConnectInfo` extractor work.
#[cfg(feature = "serve")]
pub(crate) fn insert_connect_info<Addr>(extensions: &mut Extensions, peer: &Addr)
where
    Addr: Clone + Send + Sync + 'static,
{
    extensions.insert(ConnectInfo(peer.clone()));
}

/// A listener made for `axum::serve`, for use with [`serve`](crate::serve()).
///
/// Its own way with errors stays in force: axum's listeners log them and pause for a second.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug)]
pub struct AxumListener<L>(pub L);

#[cfg(feature = "serve")]
impl<L> crate::serve::Listener for AxumListener<L>
where
    L: axum::serve::Listener,
    L::Addr: Clone + fmt::Debug + Sync + 'static,
{
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> io::Result<(L::Io, L::Addr)> {
        Ok(self.0.accept().await)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.0.local_addr()
    }
}

#[cfg(feature = "serve")]
impl<L, F> crate::serve::Listener for axum::serve::TapIo<L, F>
where
    L: axum::serve::Listener,
    L::Addr: Clone + fmt::Debug + Sync + 'static,
    F: FnMut(&mut L::Io) + Send + 'static,
{
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> io::Result<(L::Io, L::Addr)> {
        Ok(axum::serve::Listener::accept(self).await)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        axum::serve::Listener::local_addr(self)
    }
}
