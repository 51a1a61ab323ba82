//! An app that uses `axum::response::sse`. It makes its stream in the same way as axum's example
//! `examples/sse`.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use tokio::net::TcpListener;

pub(super) async fn run(listener: TcpListener) -> io::Result<()> {
    axum::serve(listener, app()).await
}

pub(super) fn app() -> Router {
    Router::new().route("/sse", get(greetings))
}

async fn greetings() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // The first event comes at once, and then one event every two seconds.
    let ticks = tokio::time::interval(Duration::from_secs(2));
    let events = stream::unfold(ticks, async |mut ticks| {
        ticks.tick().await;
        Some((Ok(Event::default().data("hi!")), ticks))
    });
    let keep_alive = axum::response::sse::KeepAlive::new();
    Sse::new(events).keep_alive(keep_alive.interval(Duration::from_secs(1)).text("keep-alive-text"))
}
