//! Reads and discards the rest of a request body after an early answer.
//!
//! A server that answers before it has read the whole body, and then closes, destroys its own
//! answer: the socket answers later bytes with a reset, and the client's system then discards the
//! answer it has received. So the server reads the rest of the body for a short time. The answer
//! does not wait for that.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
use tokio::time::timeout;

/// How long the server reads the rest of a body. Many clients read the answer only when they have
/// sent everything, Python's urllib among them, and a line of 100 Mbit/s takes that long for the
/// bytes below. Half would do on a local network only.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the rest may pause. A client that has the answer and sends nothing more is not waited
/// for.
const DISCARD_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How many bytes of the rest the server reads: any file that a user who experiments is likely to
/// send. They are discarded as they come.
const DISCARD_BYTES_MAX: usize = 128 << 20;

/// Wraps the body of a request so that it may be dropped before its end, and tells whether it was.
pub(super) fn discard_rest(request: Request) -> (Request, Arc<AtomicBool>) {
    let cut = Arc::new(AtomicBool::new(false));
    // A client that sends `Expect` waits for an answer before it sends the body.
    if request.headers().contains_key(header::EXPECT) {
        return (request, cut);
    }
    let wrapped = |body| Body::new(DiscardedBody { body, over: false, cut: Arc::clone(&cut) });
    (request.map(wrapped), cut)
}

/// A body whose rest is read for a while after it was dropped.
struct DiscardedBody {
    body: Body,
    /// The body was read to its end, or to an error.
    over: bool,
    /// The body was dropped before that.
    cut: Arc<AtomicBool>,
}

impl http_body::Body for DiscardedBody {
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

impl Drop for DiscardedBody {
    fn drop(&mut self) {
        if self.over || http_body::Body::is_end_stream(&self.body) {
            return;
        }
        self.cut.store(true, Ordering::Relaxed);
        let rest = std::mem::take(&mut self.body);
        // Without a runtime there is no connection either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(DISCARD_TIME_MAX, discard(rest)));
        }
    }
}

/// Reads and discards the body, up to the limits.
async fn discard(mut body: Body) {
    let mut bytes = 0;
    while let Ok(Some(Ok(frame))) = timeout(DISCARD_PAUSE_MAX, body.frame()).await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > DISCARD_BYTES_MAX {
            return;
        }
    }
}
