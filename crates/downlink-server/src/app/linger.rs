//! Reads and discards the rest of a request body after an early answer.
//!
//! A server that answers before it has read the whole body, and then closes, destroys its own
//! answer: the socket answers later bytes with a reset, and the client's system then discards the
//! answer it has received. So the server reads the rest of the body for a short time. The answer
//! does not wait for that.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::header,
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

/// How long the server reads the rest of a body. A client on a slow line has the answer by then.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// How many bytes of the rest the server reads. This covers the bytes that were in flight with the
/// answer, and a whole file of a user who experiments.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// Wraps the body of a request so that it may be dropped before its end.
pub(super) fn lingering(request: Request) -> Request {
    // A client that sends `Expect` waits for an answer before it sends the body.
    if request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| Body::new(Lingering { body, over: false }))
}

/// A body whose rest is read for a while after it was dropped.
struct Lingering {
    body: Body,
    /// The body was read to its end, or to an error.
    over: bool,
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.over |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.over || http_body::Body::is_end_stream(&self.body) {
            return;
        }
        let rest = std::mem::take(&mut self.body);
        // Without a runtime there is no connection either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER_MAX, discard(rest)));
        }
    }
}

/// Reads and discards the body, up to the limit.
async fn discard(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > LINGER_BYTES_MAX {
            return;
        }
    }
}
