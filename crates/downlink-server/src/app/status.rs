//! Whether the server is alive, whether it takes newcomers, and its numbers.

use axum::{
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{App, query::Query, reply::Refused};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn healthz(RawQuery(query): RawQuery) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    Ok("ok\n".into_response())
}

pub(super) async fn readyz(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    if app.hub.is_draining() {
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down."));
    }
    Ok("ready\n".into_response())
}

pub(super) async fn metrics(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    let text = app.hub.stats().openmetrics();
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
