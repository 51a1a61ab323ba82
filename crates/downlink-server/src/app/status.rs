//! `GET /healthz`, `GET /readyz` and `GET /metrics`: liveness, readiness and metrics of the server.

use std::time::UNIX_EPOCH;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use downlink::access::Caller;
use downlink_access::Right;
use prometheus_client::{
    encoding::text,
    metrics::{gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

use super::{classic, query::Query, reply::Refused, state::App};

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
    if let Some(error) = app.hub.store_error() {
        let said = format!("The store accepts no events: {error}.");
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, said));
    }
    Ok("ready\n".into_response())
}

pub(super) async fn metrics(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    caller.check(Right::Admin)?;
    Query::read(query.as_deref(), &[])?;
    let mut registry = Registry::default();
    app.hub.stats().register(&mut registry);
    describe_program(&app, &mut registry);
    let mut text = String::new();
    text::encode(&mut text, &registry).map_err(|_| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written.")
    })?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (content_type, text) = if accept.is_some_and(classic::is_preferred) {
        (classic::CONTENT_TYPE, classic::from_openmetrics(&text))
    } else {
        (OPENMETRICS, text)
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "Accept")];
    Ok((headers, text).into_response())
}

/// Adds the version and the start time to the metrics. If the start time has changed, a program
/// that reads the metrics knows that all counters began at 0 again.
fn describe_program(app: &App, registry: &mut Registry) {
    let build = Info::new([("version", crate::VERSION)]);
    registry.register("downlink_build", "The version of the server", build);
    let started = app.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = ConstGauge::new(started.as_secs_f64());
    let help = "The time at which the server started, since 1970";
    registry.register_with_unit("downlink_start_time", help, Unit::Seconds, started);
}
