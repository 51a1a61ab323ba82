//! Events for one client on all of its connections, and events for everyone.
//!
//! `GET /sse?id=alice` opens a connection of the client `alice`. A client may have several, such as
//! browser tabs. A connection without an id belongs to no client. `POST /ping/alice` sends a hello
//! to each connection of `alice`. Everyone gets the time each second.
//!
//! The example has no authentication. Any program that knows an id gets the events for it. A real
//! app takes the id from its own login.

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

/// The number of past times that the hub keeps: one minute. A client misses no time during a
/// shorter interruption, and gets a gap after a longer one.
pub const TIMES_MAX: usize = 60;

/// A hub for this app.
///
/// # Errors
///
/// [`HubError`] if the settings are invalid. A test checks that they are valid.
pub fn hub() -> Result<Hub<String>, HubError> {
    let times = Retention { events_max: TIMES_MAX, ..Retention::DEFAULT };
    Hub::builder().text().retention(HubRetention::default().everyone(times)).build()
}

/// The app over a hub.
pub fn app(hub: Hub<String>) -> Router {
    Router::new().route("/sse", get(connect)).route("/ping/{id}", post(ping)).with_state(hub)
}

/// Publishes the time to everyone each second, as an event of the type `time`, until the hub is
/// closed.
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

/// The query of a connection.
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

/// The number of connections that a hello was for.
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
