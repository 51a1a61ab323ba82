//! The part of a connection that a driver takes over and later gives back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::socket::Socket;
use crate::http::AnyError;

/// The task of a connection.
pub(in crate::serve) type ConnectionFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One poll of a body for bytes.
pub(in crate::serve) type PolledBytes = Poll<Option<Result<Bytes, AnyError>>>;

/// A response body whose head is written, and the rest of its connection.
///
/// A driver calls `prefetch` and `poll_body` (see `http::driven`) until the body ends, then
/// `drop_body`, and last `go_on`. A stream whose peer stalls ends with `drop_stalled`.
pub(in crate::serve) trait HandedOver: Send {
    /// Loads the memory that the next poll of the body needs into the processor's cache. Ignore the
    /// result: it only keeps the compiler from removing the reads.
    fn prefetch(&self) -> bool;

    /// The body's next bytes, `None` at its end, or `Err` if it failed: then its response is cut,
    /// not ended.
    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledBytes;

    /// Drops the body now, so that the code that made it learns of the end even if the peer has not
    /// yet received all bytes.
    fn drop_body(self: Pin<&mut Self>);

    /// The same for a peer that reads nothing any more. The stream is closed afterwards.
    fn drop_stalled(self: Pin<&mut Self>);

    /// Serves the connection's next requests, beginning with input that was read already. Without
    /// `requests` it closes the connection so that the peer gets all that was sent.
    fn go_on(self: Pin<&mut Self>, socket: Socket, requests: Option<Bytes>) -> ConnectionFuture;
}

/// A stream on its way to a driver.
pub(in crate::serve) struct Arrival {
    pub(in crate::serve) socket: Socket,
    pub(in crate::serve) stream: Pin<Box<dyn HandedOver>>,
    /// Input beyond the request.
    pub(in crate::serve) input: Bytes,
    /// Whether the connection may serve more requests after this one.
    pub(in crate::serve) keep_alive: bool,
    /// True if the driver measures how long a write is blocked; false if the kernel does.
    pub(in crate::serve) times_stalls: bool,
}
