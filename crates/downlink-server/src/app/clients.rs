//! `GET /clients` lists the open subscriptions. `DELETE /clients` ends the streams of a client.

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use downlink::{
    access::Caller,
    hub::{ClientOrder, PublishError},
    serve::AddressKey,
};
use downlink_access::Right;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::cluster::messages;

use super::{
    query::Query,
    reply::{self, Refused, bad_request, sentence},
    state::App,
};

/// The number of subscriptions in the answer to a request without `limit=`.
const LISTED: usize = 100;
/// The maximum value of `limit=`.
const LISTED_MAX: usize = 10_000;

pub(super) async fn clients(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    caller.check(Right::Admin)?;
    let query = Query::read(query.as_deref(), &["limit", "sort"])?;
    let limit = query.number("limit")?.unwrap_or(LISTED);
    if limit == 0 || limit > LISTED_MAX {
        return Err(bad_request(format!("The parameter limit is between 1 and {LISTED_MAX}.")));
    }
    let order = match query.one("sort")? {
        None | Some("lag") => ClientOrder::Lag,
        Some("age") => ClientOrder::Age,
        Some("bytes") => ClientOrder::Bytes,
        Some(_) => return Err(bad_request("The parameter sort is lag, age or bytes.")),
    };
    let connections = app.hub.stats().subscribers;
    let hub = app.hub.clone();
    // With a million subscriptions, this takes longer than a worker thread may be blocked.
    let clients = spawn_blocking(move || hub.client_overviews_by(order, limit)).await;
    let clients = clients.map_err(|_| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "The clients cannot be listed.")
    })?;
    let rows: Vec<Value> = clients
        .iter()
        .map(|client| {
            let requester = app.requesters.get(client.tag[1]);
            let requester = requester.as_deref();
            json!({
                "connection": client.number.to_string(),
                "client": client.client.as_ref().map(|client| client.as_str()),
                "address": AddressKey::from_number(client.tag[0]).map(|key| key.to_string()),
                "user_agent": requester.and_then(|requester| requester.user_agent.as_deref()),
                "age": client.age.as_secs(),
                "lag": client.lag,
                "events": client.events,
                "bytes": client.bytes,
                "topics": client.selectors,
            })
        })
        .collect();
    Ok(reply::json(&json!({ "clients": rows, "connections": connections })))
}

/// The refusal of a change that this node has made, if the other nodes of the cluster may not know
/// of it.
pub(super) fn only_here(error: &PublishError) -> Refused {
    let here = "This node has made the change, but the other nodes may not know of it: try again.";
    let refused = Refused::new(error.to_problem().status(), format!("{} {here}", sentence(error)));
    refused.code("outcome_unknown")
}

pub(super) async fn disconnect(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::read(query.as_deref(), &["client"])?;
    let client = query.client()?;
    let client = client.ok_or_else(|| bad_request("No client: add ?client=ID to the address."))?;
    caller.verified().check_issue_for(&client)?;
    let client = client.as_str();
    let disconnected = app.hub.disconnect(client);
    if app.settings.cluster.is_node() {
        messages::disconnect(&app.hub, client).await.map_err(|error| only_here(&error))?;
    }
    Ok(reply::json(&json!({ "disconnected": disconnected })))
}
