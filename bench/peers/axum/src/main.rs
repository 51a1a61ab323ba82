//! Fan-out as it is usually written with axum: `Sse` over `tokio::sync::broadcast`.
//!
//! The program answers the same requests as the project's server, but has no topics and no history.
//! It turns Nagle's algorithm off and uses the allocator of the project, so that only the design
//! differs. A subscriber that lags too far behind skips the events that it has missed, as is usual
//! with axum. Use the program only to compare measurements with it.

use std::{
    convert::Infallible,
    env,
    io::{self, Write as _},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
    serve::ListenerExt as _,
};
use futures_util::{Stream, stream};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, Receiver, Sender, error::RecvError},
};

/// The number of events that a subscriber may lag behind. By default, the project's server keeps as
/// many events of a topic.
const EVENTS_KEPT: usize = 1_000;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    writeln!(io::stdout(), "axum at http://{}", listener.local_addr()?)?;
    let (sender, _) = broadcast::channel(EVENTS_KEPT);
    let app = Router::new().route("/events", get(subscribe).post(publish)).with_state(sender);
    let listener = listener.tap_io(|stream| {
        // If the option cannot be set, the connection is used without it.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

async fn subscribe(
    State(sender): State<Sender<String>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold(sender.subscribe(), next)).keep_alive(KeepAlive::default())
}

async fn next(
    mut receiver: Receiver<String>,
) -> Option<(Result<Event, Infallible>, Receiver<String>)> {
    loop {
        match receiver.recv().await {
            Ok(data) => return Some((Ok(Event::default().data(data)), receiver)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

async fn publish(State(sender): State<Sender<String>>, data: String) -> StatusCode {
    // `Event::data` panics if the data contains a CR.
    if data.contains('\r') {
        return StatusCode::BAD_REQUEST;
    }
    // This fails if there is no subscriber, which is not an error.
    let _ = sender.send(data);
    StatusCode::OK
}
