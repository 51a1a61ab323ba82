//! A growing file over HTTP: each line is an event whose id is a place in the file.
//!
//! Without a hub: the file is the history. Each stream reads it for itself, no faster than its
//! client, and a client that comes back goes on at the byte after the last line it has seen.
//!
//! Not here: who may read the file. Whoever reaches the port may.

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

/// The app that follows a file.
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
        // One that is not there yet, or not just now, is waited for.
        _ => {}
    }
    let (sender, sse) = Sse::channel(EVENTS_AHEAD_MAX);
    let from = last.as_str().and_then(Place::parse);
    tokio::spawn(async move {
        // Whether the client left or the file cannot be read: the stream ends with its sender.
        let _ended = follow::follow(&file, from, &sender).await;
    });
    Ok(sse)
}
