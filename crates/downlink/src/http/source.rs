//! Sources of the frames of a response.
//!
//! A response body takes its frames from a [`FrameSource`]; [`Frames`] makes one from any stream.
//! Only the body polls its source, and drops it at its own end.

use std::error::Error;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use downlink_proto::Frame;
use futures_core::Stream;
use pin_project_lite::pin_project;

/// Any error, as streams, services and bodies return it.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Yields the frames of one response, in order.
pub trait FrameSource {
    /// The frame to send right after the first bytes, given the interval of the keep-alive.
    ///
    /// Called once, before the first frame.
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        let _ = keep_alive;
        None
    }

    /// The next frame, or `None` at the end.
    ///
    /// The body does not poll again after `None`, nor after a panic, which ends this response only.
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>>;

    /// The frame to send after a silence, in place of the response's own keep-alive.
    ///
    /// Called each time a keep-alive is due.
    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        None
    }

    /// Whether keep-alives are due an interval after the last one, even between other frames.
    ///
    /// A page that listens to some event types only can then tell by the keep-alives whether its
    /// connection is alive.
    fn keeps_beat(&self) -> bool {
        false
    }

    /// Reads the memory that the next poll will read first, and changes nothing. The result has no
    /// meaning.
    ///
    /// Few of ten thousand streams are in the processor's cache. A driver calls this for all bodies
    /// of a round, so that their memory is fetched in parallel.
    #[doc(hidden)]
    fn prefetch(&self) -> bool {
        true
    }

    /// The error that ended the frames, if any; called once, after `None`.
    ///
    /// An error cuts the connection, so that a reader cannot mistake the end for a complete answer.
    /// An `EventSource` reconnects.
    fn take_error(self: Pin<&mut Self>) -> Option<AnyError> {
        None
    }
}

/// An item of a stream, which becomes a frame or the error that ends the response.
///
/// `Kind` tells [`Plain`] items (every `Into<Frame>`: `Event`, `Frame`, your own types) from
/// [`Fallible`] ones (a `Result` of them). The compiler infers it.
pub trait StreamItem<Kind> {
    /// The frame, or the error that ends the response.
    ///
    /// # Errors
    ///
    /// The item's own.
    fn into_frame(self) -> Result<Frame, AnyError>;
}

/// Items that are frames, or become one.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// Items that are a `Result` of a frame, or of a type that becomes one.
#[derive(Clone, Copy, Debug)]
pub struct Fallible;

impl<T: Into<Frame>> StreamItem<Plain> for T {
    fn into_frame(self) -> Result<Frame, AnyError> {
        Ok(self.into())
    }
}

impl<T: Into<Frame>, E: Into<AnyError>> StreamItem<Fallible> for Result<T, E> {
    fn into_frame(self) -> Result<Frame, AnyError> {
        self.map(Into::into).map_err(Into::into)
    }
}

pin_project! {
    /// The frames of any stream of events.
    #[derive(Debug)]
    pub struct Frames<S, Kind> {
        #[pin]
        stream: S,
        error: Option<AnyError>,
        kind: PhantomData<fn() -> Kind>,
    }
}

impl<S, Kind> Frames<S, Kind> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, error: None, kind: PhantomData }
    }
}

impl<S, Kind> FrameSource for Frames<S, Kind>
where
    S: Stream,
    S::Item: StreamItem<Kind>,
{
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let this = self.project();
        let Some(item) = ready!(this.stream.poll_next(cx)) else { return Poll::Ready(None) };
        match item.into_frame() {
            Ok(frame) => Poll::Ready(Some(frame)),
            Err(error) => {
                *this.error = Some(error);
                Poll::Ready(None)
            }
        }
    }

    fn take_error(self: Pin<&mut Self>) -> Option<AnyError> {
        self.project().error.take()
    }
}
