//! Where the frames of a response come from.
//!
//! [`FrameSource`] is the one seam between a response body and whatever feeds it; [`Frames`] makes
//! one of any stream. A source is polled by its body alone and dropped with it.

use std::error::Error;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use downlink_proto::Frame;
use futures_core::Stream;
use pin_project_lite::pin_project;

/// Any error, as streams, services and bodies of this ecosystem give it.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Yields the frames of one response, in order.
pub trait FrameSource {
    /// What to send right after the first bytes, given the interval of the keep-alive.
    ///
    /// Asked once, before the first frame.
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        let _ = keep_alive;
        None
    }

    /// The next frame, or `None` at the end.
    ///
    /// It is not polled again after `None`, nor after a panic, which ends this response only.
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>>;

    /// What to send after a silence, if not what the response is configured to send.
    ///
    /// Asked once each time a keep-alive is due.
    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        None
    }

    /// Whether keep-alives are due an interval after the last one, whatever else is sent.
    ///
    /// For readers that do not hear everything, such as a page that listens to some event types
    /// and tells by the keep-alives whether its connection is dead.
    fn keeps_beat(&self) -> bool {
        false
    }

    /// Looks at what the next poll will look at first, without doing anything; what it says means
    /// nothing.
    ///
    /// A server of ten thousand streams has few of them in the processor's cache. One that knows
    /// which it is about to poll has several looked at first: their memory is fetched side by side.
    #[doc(hidden)]
    fn warm(&self) -> bool {
        true
    }

    /// Why the frames ended, if not as they should; asked once, after `None`.
    ///
    /// With an error the connection is cut instead of ended, so that a reader cannot take the end
    /// for a complete answer; an `EventSource` reconnects.
    fn take_error(self: Pin<&mut Self>) -> Option<AnyError> {
        None
    }
}

/// What the items of a stream become: frames, or the error that ends the response.
///
/// `Kind` tells [`Plain`] items (all that is `Into<Frame>`: `Event`, `Frame`, your own types) from
/// [`Fallible`] ones (a `Result` of them); the compiler finds it.
pub trait StreamItem<Kind> {
    /// The frame, or why there is none.
    ///
    /// # Errors
    ///
    /// The item's own.
    fn into_frame(self) -> Result<Frame, AnyError>;
}

/// Items that are frames, or become one.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// Items that are a `Result` of what becomes a frame.
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
