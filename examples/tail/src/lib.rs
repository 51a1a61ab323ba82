//! Sends a growing file over HTTP. Each line is an event. The event's id is the place in the file
//! after the line.
//!
//! The example needs no hub, because the file itself is the history. (A hub keeps events and sends
//! them to its clients.) Each stream reads the file separately, at the speed of its client. A
//! client that reconnects gets the lines after the last line that it got.
//!
//! The example has no access control. Every client that can connect to the port can read the file.

mod follow;
mod lines;
mod page;
mod place;

use std::{io::ErrorKind, path::PathBuf, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use downlink::{
    LastEventId, Sse,
    http::{Channel, Problem},
};

pub use follow::{EVENTS_AHEAD_MAX, POLL_EVERY, START_BYTES_MAX};
pub use lines::LINE_BYTES_MAX;
pub use place::Place;

/// Makes the app that sends this file.
pub fn app(file: PathBuf) -> Router {
    Router::new().route("/events", get(watch)).with_state(Arc::new(file)).merge(page::routes())
}

async fn watch(
    State(file): State<Arc<PathBuf>>,
    last: LastEventId,
) -> Result<Sse<Channel>, Problem> {
    match tokio::fs::File::open(&*file).await {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let sentence = format!("The file cannot be read: {error}.");
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR).detail(sentence));
        }
        // If the file does not exist yet, the stream waits for it.
        _ => {}
    }
    let (sender, sse) = Sse::channel(EVENTS_AHEAD_MAX);
    let from = last.as_str().and_then(Place::parse);
    tokio::spawn(async move {
        // `follow` returns when the client has left or after an error. Then the sender is dropped,
        // which ends the stream.
        let _ended = follow::follow(&file, from, &sender).await;
    });
    Ok(sse)
}
