//! The traits of axum: responses, the extractor of the last event id, and (in `serve`) the features
//! of axum's server.
//!
//! Each implementation only calls a method of its type.

#[cfg(feature = "serve")]
mod serve;

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;

#[cfg(feature = "serve")]
pub use self::serve::AxumListener;
#[cfg(feature = "serve")]
pub(crate) use self::serve::insert_connect_info;
use crate::http::{FrameSource, LastEventId, Problem, Sse};
use crate::hub::{BatchError, PublishError, SubscribeError, Subscription};

impl<S: FrameSource + Send + 'static> IntoResponse for Sse<S> {
    fn into_response(self) -> Response {
        self.into_http_response().map(Body::new)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_http_response().map(Body::new)
    }
}

impl<T: Send + Sync + 'static> IntoResponse for Subscription<T> {
    fn into_response(self) -> Response {
        self.into_http_response().map(Body::new)
    }
}

impl IntoResponse for SubscribeError {
    fn into_response(self) -> Response {
        self.into_http_response().map(Body::new)
    }
}

impl IntoResponse for PublishError {
    fn into_response(self) -> Response {
        self.to_problem().into_response()
    }
}

impl IntoResponse for BatchError {
    fn into_response(self) -> Response {
        self.to_problem().into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for LastEventId {
    /// A malformed id is not refused, because a browser would never reconnect after a refusal.
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::from_request(&parts.headers, parts.uri.query()))
    }
}
