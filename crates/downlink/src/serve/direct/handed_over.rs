//! The part of a connection that a driver (the task that serves many event streams) takes over and
//! later gives back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::socket::Socket;
use crate::http::AnyError;

/// The task of a connection.
pub(in crate::serve) type ConnectionFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The result of one poll of a body for bytes.
pub(in crate::serve) type PolledBytes = Poll<Option<Result<Bytes, AnyError>>>;

/// The body of a response whose head is written, with everything that is needed to continue the
/// connection after the response.
///
/// A driver calls `prefetch` and `poll_body` (see `http::driven`) until the body ends, then
/// `drop_body`, and finally `go_on`. If the peer of a stream stalls, the driver calls
/// `drop_stalled` instead.
pub(in crate::serve) trait HandedOver: Send {
    /// Loads the memory that the next poll of the body needs into the processor's cache. The result
    /// only keeps the compiler from removing the reads, so callers ignore it.
    fn prefetch(&self) -> bool;

    /// Returns the body's next bytes, `None` at its end, or `Err` if it failed. After a failure,
    /// the driver cuts the response, so the peer does not get the response's regular end.
    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledBytes;

    /// Drops the body now, even if the peer has not yet received all bytes. In this way, the code
    /// that made the body learns at once that the body has ended.
    fn drop_body(self: Pin<&mut Self>);

    /// Drops the body because its peer no longer reads. The driver closes the stream afterwards.
    fn drop_stalled(self: Pin<&mut Self>);

    /// Returns the task that continues the connection after the stream. If `requests` is given, it
    /// is the input that was already read, and the task serves the connection's next requests. If
    /// `requests` is `None`, the task closes the connection so that the peer gets everything that
    /// was sent.
    fn go_on(self: Pin<&mut Self>, socket: Socket, requests: Option<Bytes>) -> ConnectionFuture;
}

/// A stream on its way to a driver.
pub(in crate::serve) struct Arrival {
    pub(in crate::serve) socket: Socket,
    pub(in crate::serve) stream: Pin<Box<dyn HandedOver>>,
    /// Input that came after the request.
    pub(in crate::serve) input: Bytes,
    /// Whether the connection may serve more requests after this one.
    pub(in crate::serve) keep_alive: bool,
    /// True if the driver measures how long a write is blocked; false if the kernel does.
    pub(in crate::serve) times_stalls: bool,
}
