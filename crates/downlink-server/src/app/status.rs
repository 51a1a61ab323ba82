//! `GET /healthz`, `GET /readyz` and `GET /metrics`: liveness, readiness and metrics of the server.

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use downlink::{access::Caller, hub::ClusterStatus};
use downlink_access::Right;

use super::{classic, metrics, query::Query, reply::Refused, state::App};

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
    if let Some(cluster) = app.hub.cluster() {
        return node_ready(&cluster);
    }
    let upstream = app.hub.upstream();
    // A relay follows another server, its upstream. Its store is only a cache, and without the
    // cache it serves events from memory. So an error of the store does not make a relay unready.
    if let Some(error) = app.hub.store_error().filter(|_| upstream.is_none()) {
        let said = format!("The store accepts no events: {error}.");
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, said));
    }
    Ok(match upstream {
        // Behind a load balancer, a relay that does not have all events yet must not get clients.
        Some(upstream) if !upstream.reached => {
            let why = upstream.error.map(|error| format!(": {error}")).unwrap_or_default();
            let said = format!("The relay does not have all events of its upstream yet{why}.");
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, said));
        }
        // The relay still serves the events that it has. If a load balancer took all relays out of
        // use while the upstream restarts, no client could connect.
        Some(upstream) if !upstream.connected => {
            let why = upstream.error.map(|error| format!(": {error}")).unwrap_or_default();
            format!("degraded{why}\n").into_response()
        }
        _ => "ready\n".into_response(),
    })
}

/// Whether a node of a cluster is ready.
fn node_ready(cluster: &ClusterStatus) -> Result<Response, Refused> {
    if let Some(version) = cluster.too_new {
        let said = format!(
            "This server is too old for its cluster, which has version {version} of the journal: \
             install a newer one."
        );
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, said));
    }
    // Behind a load balancer, a node that does not have all events must not get clients yet.
    if !cluster.reached {
        let said = "The node does not have all events of the cluster yet.";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, said));
    }
    // The node still serves the events that it has. If the load balancer took all nodes out of use
    // while the engine (the NATS servers of the cluster) is away, no client could connect.
    Ok(match cluster.is_connected() {
        true => "ready\n".into_response(),
        false => "degraded: the engine of the cluster does not answer\n".into_response(),
    })
}

pub(super) async fn metrics(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    caller.check(Right::Admin)?;
    Query::read(query.as_deref(), &[])?;
    let text = tokio::task::spawn_blocking(move || metrics::text(&app)).await;
    let Ok(Ok(text)) = text else {
        let said = "The metrics cannot be written.";
        return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, said));
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (content_type, text) = if accept.is_some_and(classic::is_preferred) {
        (classic::CONTENT_TYPE, classic::from_openmetrics(&text))
    } else {
        (OPENMETRICS, text)
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "Accept")];
    Ok((headers, text).into_response())
}
