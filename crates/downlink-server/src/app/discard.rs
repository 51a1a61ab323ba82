//! Reads and discards the rest of a request body if the server answers before it has read the whole
//! body.
//!
//! If the server closed the connection right after such an answer, the server's operating system
//! would reply to further bytes of the body with a TCP reset. The client's operating system would
//! then discard the answer before the client reads it. So the server sends the answer at once, and
//! then reads the rest of the body for a short time.

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
/// urllib, read the answer only after they have sent the whole body. So the server reads on until
/// such a client has sent its body. A client with 100 Mbit/s needs about this time for
/// [`DISCARD_BYTES_MAX`] bytes.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// If the rest of a body pauses for longer than this, the server stops reading. Such a pause
/// usually means that the client has read the answer and sends no more.
const DISCARD_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The maximum number of bytes that the server reads after the answer. It discards the bytes as
/// they arrive, so they take no memory. A user who tries out the server is unlikely to send a
/// larger file.
const DISCARD_BYTES_MAX: usize = 128 << 20;

/// Wraps the body of a request. If the body is dropped before its end, the wrapper sets the
/// returned flag, and reads and discards the rest of the body.
pub(super) fn discard_rest(request: Request) -> (Request, Arc<AtomicBool>) {
    let cut = Arc::new(AtomicBool::new(false));
    // A client that sends `Expect: 100-continue` sends its body only if the server asks for it.
    let sent = !request.headers().contains_key(header::EXPECT);
    let flag = Arc::clone(&cut);
    let wrapped = |body| Body::new(DiscardedBody { body, sent, over: false, cut: flag });
    (request.map(wrapped), cut)
}

/// A body whose rest is read and discarded after the body was dropped.
struct DiscardedBody {
    body: Body,
    /// Whether the client sends the body. A client that waits for `100 Continue` sends the body
    /// only after the first read of the body, because the server sends `100 Continue` at this read.
    sent: bool,
    /// Whether the body has ended or has returned an error. In both cases, there is no rest to
    /// read.
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
        self.sent = true;
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
        if !self.sent {
            // A read would ask the client to send the body.
            return;
        }
        let rest = std::mem::take(&mut self.body);
        // If there is no runtime, the connection is already closed, so there is no rest to read.
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
