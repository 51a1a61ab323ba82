//! Events for one client on all of its connections, and events for everyone.
//!
//! `GET /sse?id=alice` opens a connection of the client `alice`. A client may have several
//! connections, one for each browser tab. A connection without an id belongs to no client.
//! `POST /ping/alice` sends a hello to each connection of `alice`. Every connection gets the time
//! once a second.
//!
//! The app has a hub, which keeps events and sends them to its clients.
//!
//! The example has no authentication: anyone who knows the id of a client can read the client's
//! events. A real app takes the id from its own login.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    routing::{get, post},
};
use downlink::{
    Hub, LastEventId, Subscription,
    http::Problem,
    hub::{HubError, HubRetention, PublishError, Retention},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

/// The time between two `time` events.
const PERIOD: Duration = Duration::from_secs(1);

/// The number of `time` events that the hub keeps. They cover one minute. A client that reconnects
/// within a minute gets all times that it missed. After a longer interruption, the client gets a
/// gap: a notice that events are missing.
pub const TIMES_MAX: usize = 60;

/// Makes a hub for this app.
///
/// # Errors
///
/// [`HubError`] if the settings are invalid. A test checks that they are valid.
pub fn hub() -> Result<Hub<String>, HubError> {
    let times = Retention { events_max: TIMES_MAX, ..Retention::DEFAULT };
    Hub::builder().text().retention(HubRetention::default().everyone(times)).build()
}

/// Makes the app that sends the events of this hub.
pub fn app(hub: Hub<String>) -> Router {
    Router::new().route("/sse", get(connect)).route("/ping/{id}", post(ping)).with_state(hub)
}

/// Publishes the time to everyone once a second, until the hub is closed. The events have the type
/// `time`.
///
/// # Errors
///
/// The [`PublishError`] that ended the loop, usually [`PublishError::Closed`].
///
/// # Cancel safety
///
/// If the future is dropped, publishing ends between two events.
pub async fn publish_time(
    hub: Hub<String>,
    now: impl Fn() -> Timestamp,
) -> Result<(), PublishError> {
    let mut seconds = interval(PERIOD);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        seconds.tick().await;
        let time = format!("{:.0}", now());
        let _receipt = hub.to_everyone().event("time").publish(time)?;
    }
}

/// The query of a request for a connection.
#[derive(Deserialize)]
struct Who {
    id: Option<String>,
}

async fn connect(
    State(hub): State<Hub<String>>,
    who: Result<Query<Who>, QueryRejection>,
    last: LastEventId,
) -> axum::response::Result<Subscription<String>> {
    let Query(who) = who.map_err(|rejection| problem(rejection.status(), rejection.body_text()))?;
    let mut subscribe = hub.subscribe().resume(last);
    // An empty id in the query means no id.
    if let Some(id) = who.id.filter(|id| !id.is_empty()) {
        subscribe = subscribe.client(id);
    }
    Ok(subscribe.open().await?)
}

/// The answer to a ping: the number of connections of the client.
#[derive(Serialize)]
struct Pinged {
    connections: usize,
}

async fn ping(
    State(hub): State<Hub<String>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Pinged>, Problem> {
    let Path(id) = id.map_err(|rejection| problem(rejection.status(), rejection.body_text()))?;
    let hello = format!("Hello, {id}!");
    let receipt = hub.to_client(id).publish(hello).map_err(|error| error.to_problem())?;
    let confirmed = receipt.durable().await.map_err(|error| error.to_problem())?;
    Ok(Json(Pinged { connections: confirmed.matched() }))
}

fn problem(status: StatusCode, sentence: String) -> Problem {
    Problem::new(status).detail(sentence)
}
