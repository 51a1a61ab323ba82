//! A growing file over HTTP. Each line is an event, and its id is a place in the file.
//!
//! There is no hub: the file is the history. Each stream reads the file separately, at the speed of
//! its client. A client that reconnects resumes at the byte after its last line.
//!
//! Not here: access control. Every client that reaches the port may read the file.

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
        // If the file is missing for now, the stream waits for it.
        _ => {}
    }
    let (sender, sse) = Sse::channel(EVENTS_AHEAD_MAX);
    let from = last.as_str().and_then(Place::parse);
    tokio::spawn(async move {
        // The stream ends with its sender, whether the client has left or the file cannot be read.
        let _ended = follow::follow(&file, from, &sender).await;
    });
    Ok(sse)
}
