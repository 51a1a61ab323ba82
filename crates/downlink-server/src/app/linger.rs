//! Bodies that nobody wants any more.
//!
//! A server that answers before it has read a request's body and then closes destroys its own
//! answer: bytes that arrive at a closed socket are answered with a reset, and the client's system
//! throws away what it had received. So whatever is left of a body is read on for a moment and
//! thrown away. The answer does not wait for that.

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

/// How long the rest of a body is read: a client on a slow line has its answer by then.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// How much of the rest is read: what was on its way when the answer left, and a whole file of a
/// user who tries what happens.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// The request with a body that may be dropped before its end.
pub(super) fn lingering(request: Request) -> Request {
    // Such a client waits for our word before it sends anything.
    if request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| Body::new(Lingering { body, over: false }))
}

/// A body that is read on for a while after it was dropped.
struct Lingering {
    body: Body,
    /// It has been read to its end, or to an error.
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
        // Outside a runtime nobody is connected either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER_MAX, discard(rest)));
        }
    }
}

/// Reads and forgets, up to the limit.
async fn discard(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > LINGER_BYTES_MAX {
            return;
        }
    }
}
