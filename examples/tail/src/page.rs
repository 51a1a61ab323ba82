//! Serves the page, its style sheet and its script, which are part of the binary.
//!
//! With its content security policy, the page can load files only from this server, connect only to
//! this server, and run only its own script file.

use axum::{
    Router,
    http::header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
    response::IntoResponse,
    routing::get,
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/", get(async || file("text/html", include_str!("page/index.html"))))
        .route("/tail.css", get(async || file("text/css", include_str!("page/tail.css"))))
        .route("/tail.js", get(async || file("text/javascript", include_str!("page/tail.js"))))
}

fn file(media_type: &str, text: &'static str) -> impl IntoResponse + use<> {
    let headers = [
        (CONTENT_TYPE, format!("{media_type}; charset=utf-8")),
        (CACHE_CONTROL, "no-cache".into()),
        (CONTENT_SECURITY_POLICY, POLICY.into()),
        (REFERRER_POLICY, "same-origin".into()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    (headers, text)
}
