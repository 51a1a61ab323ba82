//! Implements the traits of axum: a [`Caller`] is an extractor, and a refusal is a response.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::{Caller, Refusal, StreamRefusal};
use crate::http::Problem;

impl<S: Sync> FromRequestParts<S> for Caller {
    /// A problem with the status 500, if the route has no [`AccessLayer`](super::AccessLayer).
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "the route has no AccessLayer");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.into_http_response().map(Body::new)
    }
}

impl IntoResponse for StreamRefusal {
    fn into_response(self) -> Response {
        self.into_http_response().map(Body::new)
    }
}
