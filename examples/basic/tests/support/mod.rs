//! The tests of all examples share this code. It reads event streams and runs the real program.
//!
//! Tests wait until something has happened, never for a fixed time. If a test hangs, [`PATIENCE`]
//! ends the test with a failure.

pub(crate) mod program;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tower_service::Service as _;

/// The maximum duration of a wait. Every test takes far less time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the test waited too long")
}

/// Sends a request to an app, without a socket.
pub(crate) async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().call(request).await.expect("a router never fails")
}

/// Opens an event stream of an app.
pub(crate) async fn open(app: &Router, path: &str, last_event_id: &str) -> Streaming {
    let request = Request::get(path).header("last-event-id", last_event_id);
    let response = send(app, request.body(Body::empty()).expect("the request is valid")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Streaming { body: response.into_body(), seen: String::new() }
}

/// An event stream and everything read from it.
#[derive(Debug)]
pub(crate) struct Streaming {
    body: Body,
    seen: String,
}

impl Streaming {
    /// Reads until this text has arrived. Returns everything read so far.
    pub(crate) async fn sees(&mut self, text: &str) -> &str {
        while !self.seen.contains(text) {
            let frame = patiently(self.body.frame()).await;
            let frame =
                frame.unwrap_or_else(|| panic!("the stream ended without {text:?}: {}", self.seen));
            let bytes =
                frame.expect("the body has not failed").into_data().expect("the frame has data");
            self.seen
                .push_str(std::str::from_utf8(&bytes).expect("no read ends within a character"));
        }
        &self.seen
    }
}
