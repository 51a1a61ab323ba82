//! Answers: JSON for what was done, a problem with a sentence for what was not.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use downlink::http::Problem;
use serde::Serialize;

/// A request that changed nothing, and why.
#[derive(Debug)]
pub(super) struct Refused(Problem);

impl Refused {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Problem::new(status).detail(detail.into()))
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        IntoResponse::into_response(self.0)
    }
}

pub(super) fn bad_request(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, detail)
}

pub(super) fn forbidden(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::FORBIDDEN, detail)
}

pub(super) fn not_found(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, detail)
}

pub(super) fn method_not_allowed(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// An answer as JSON, never cached.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What a client sent, in an answer or a log: escaped, and short however long it is.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}
