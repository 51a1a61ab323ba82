//! A chat in one room. Every client gets all new messages. A new client first gets the newest
//! messages of the history.
//!
//! A hub keeps the messages, so a client that lost its connection gets the messages that it missed.
//! The app keeps no list of clients, so it has nothing to clean up when a client leaves.
//!
//! The example has only one room. In an app with several rooms, each room would be a topic of the
//! hub. The example does not verify names, and loses its history when the process ends.

mod message;
mod page;

/// The README of the project. The tests of this example also compile the Rust code in the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
    http::StatusCode,
    routing::{get, post},
};
use downlink::{Hub, LastEventId, SubscribeError, Subscription, http::Problem, hub::Start};
use jiff::Timestamp;
use serde::Serialize;

pub use message::{BODY_BYTES_MAX, Draft, Message, TEXT_CHARS_MAX, USER_CHARS_MAX};

/// The number of earlier messages that a new client gets. They fill a few screens.
pub const HISTORY_EVENTS: usize = 50;

/// Makes the app. The hub keeps the messages.
pub fn app(hub: Hub<Message>) -> Router {
    Router::new()
        .route("/events", get(join))
        .route("/messages", post(say))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(hub)
        .merge(page::routes())
}

async fn join(
    State(hub): State<Hub<Message>>,
    last: LastEventId,
) -> Result<Subscription<Message>, SubscribeError> {
    let subscribe = hub.subscribe().start(Start::Last(HISTORY_EVENTS)).resume(last);
    // With `announce_alive`, keep-alives are events. If they stop, the page knows that the
    // connection is dead.
    subscribe.announce_alive(true).open().await
}

/// The answer to a message: the number of clients that were connected.
#[derive(Serialize)]
struct Accepted {
    clients: usize,
}

async fn say(
    State(hub): State<Hub<Message>>,
    draft: Result<Json<Draft>, JsonRejection>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let Json(draft) = draft.map_err(|rejection| message::unreadable(&rejection))?;
    let message = draft.into_message(Timestamp::now())?;
    let receipt = hub.publish(message).map_err(|error| error.to_problem())?;
    let confirmed = receipt.durable().await.map_err(|error| error.to_problem())?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { clients: confirmed.matched() })))
}
