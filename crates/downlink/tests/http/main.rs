//! Tests of the responses of `downlink::http` through its public API, without sockets.
//!
//! Tests that measure times use tokio's paused clock, which advances only when every task waits.

#![cfg(all(feature = "axum", feature = "json"))]

mod body;
mod channel;
mod ends;
mod response;

use std::time::Duration;

use downlink::Frame;
use downlink::http::{BodyError, FrameSource, KeepAlive, Sse, SseBody};
use http_body_util::BodyExt;

const SECOND: Duration = Duration::from_secs(1);

/// Reads the body of a response.
struct Reader<S> {
    body: std::pin::Pin<Box<SseBody<S>>>,
}

impl<S: FrameSource> Reader<S> {
    fn new(sse: Sse<S>) -> Self {
        Self { body: Box::pin(sse.into_http_response().into_body()) }
    }

    /// Makes a reader of a response and reads the greeting (the first comment of the stream).
    async fn greeted(sse: Sse<S>) -> Self {
        let mut reader = Self::new(sse);
        assert_eq!(reader.next().await.as_deref(), Some(": connected\n\n"));
        reader
    }

    /// Reads the next chunk as text. Returns `None` at the end of the body.
    async fn next(&mut self) -> Option<String> {
        self.try_next().await.map(|chunk| chunk.expect("the body does not fail"))
    }

    async fn try_next(&mut self) -> Option<Result<String, BodyError>> {
        let frame = self.body.frame().await?;
        Some(frame.map(|frame| {
            let bytes = frame.into_data().expect("the frame has data");
            String::from_utf8(bytes.into()).expect("the bytes are UTF-8")
        }))
    }

    /// Reads the rest of the body as one text.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        while let Some(chunk) = self.next().await {
            rest.push_str(&chunk);
        }
        rest
    }
}

/// The setting that turns keep-alives off, for tests that are not about keep-alives.
fn silent() -> KeepAlive {
    KeepAlive::off()
}

fn comment(text: &str) -> Frame {
    Frame::comment(text)
}
