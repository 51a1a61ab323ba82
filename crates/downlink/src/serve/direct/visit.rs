//! What a connection hands to a driver, and gets back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::Socket;
use crate::serve::connection::Shared;

/// How long a socket whose response has ended waits for the peer to close, discarding what it
/// sends: a close with unread input is a reset, which can destroy the last event on its way.
///
/// A round trip and a slow peer fit in; double would keep descriptors for peers that are gone.
pub(in crate::serve) const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// How much of a peer's input is discarded then, in bytes: what was on its way. A peer that goes on
/// sending is reset.
pub(in crate::serve) const CLOSE_DISCARD_MAX: usize = 256 * 1024;

/// A connection that goes on by itself once it is spawned.
pub(in crate::serve) type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A response body, and all that it takes to serve its connection again after it.
pub(in crate::serve) trait Visit: Send {
    /// Looks at the body without doing anything, so that it is in the processor's cache when it is
    /// polled; what it says means nothing.
    fn warm(&self) -> bool;

    /// The body's next bytes, `None` at its end, or `Err` where it was cut.
    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>>;

    /// Drops the body, which nothing more is wanted of.
    fn drop_body(self: Pin<&mut Self>);

    /// The connection's next requests, beginning with input that was read already.
    fn serve_on(self: Pin<&mut Self>, socket: Socket, input: Bytes, shared: Arc<Shared>) -> Served;
}

/// A body failed: its response is cut, not ended.
#[derive(Debug)]
pub(in crate::serve) struct Cut;

/// A response whose head is written, handed over by the connection that did so.
pub(in crate::serve) struct Arrival {
    pub(in crate::serve) socket: Socket,
    pub(in crate::serve) visit: Pin<Box<dyn Visit>>,
    /// What the peer has sent beyond its request.
    pub(in crate::serve) input: Bytes,
    /// Whether the connection may serve more requests after this one.
    pub(in crate::serve) keep_alive: bool,
    /// Whether the kernel does not see for itself that the peer takes no bytes.
    pub(in crate::serve) times_stalls: bool,
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("socket", &self.socket).finish_non_exhaustive()
    }
}
