//! Reads and discards the rest of a request body if the server answers before it has read the whole
//! body.
//!
//! If the server closed the connection right after such an answer, the socket would answer further
//! bytes of the body with a reset. The client's system would then discard the answer. So the server
//! reads the rest of the body for a short time. The answer does not wait for that.

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

/// The maximum time for which the server reads the rest of a body. Many clients, such as Python's
/// urllib, read the answer only after they have sent the whole body. With 100 Mbit/s, a client
/// sends [`DISCARD_BYTES_MAX`] in about this time. Half the time would be enough only in a local
/// network.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// The maximum pause while the server reads the rest of a body. A longer pause means that the
/// client has received the answer and sends no more.
const DISCARD_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The maximum number of bytes that the server reads after the answer. A user who experiments is
/// unlikely to send a larger file. The bytes are discarded as they arrive.
const DISCARD_BYTES_MAX: usize = 128 << 20;

/// Wraps the body of a request. If the body is dropped before its end, the rest is read and
/// discarded, and the returned flag is set.
pub(super) fn discard_rest(request: Request) -> (Request, Arc<AtomicBool>) {
    let cut = Arc::new(AtomicBool::new(false));
    // A client that sends `Expect` waits for an answer before it sends the body, so there is no
    // rest to read.
    if request.headers().contains_key(header::EXPECT) {
        return (request, cut);
    }
    let wrapped = |body| Body::new(DiscardedBody { body, over: false, cut: Arc::clone(&cut) });
    (request.map(wrapped), cut)
}

/// A body whose rest is read for some time after it was dropped.
struct DiscardedBody {
    body: Body,
    /// Whether the body was read to its end or to an error.
    over: bool,
    /// Set if the body is dropped before its end.
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
        // If there is no runtime, the connection is closed already.
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
