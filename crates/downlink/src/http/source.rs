//! Sources of the frames of a response.
//!
//! A response body takes its frames from a [`FrameSource`]. Every stream of events is one. Only the
//! body polls its source, and drops it at its own end.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use downlink_proto::{Event, Frame};
use futures_core::Stream;

/// Any error, as streams, services and bodies return it.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Yields the frames of one response, in order.
///
/// Every `Stream` of events, of frames, or of a `Result` of these is a source (see [`StreamItem`]).
/// Implement this trait for a type of your own that has an opening frame or a keep-alive.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of events",
    label = "neither a stream of events nor a `FrameSource`",
    note = "the items of a stream have to be `Event`, `Frame`, or a `Result` of one of these",
    note = "map other items, for example with `stream.map(Event::new)`"
)]
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
    /// The body does not poll again after `None`, nor after an error or a panic.
    ///
    /// # Errors
    ///
    /// An error ends this response. The body sends the frames before the error, then the server
    /// cuts the connection, so that a reader cannot mistake the end for a complete answer. An
    /// `EventSource` reconnects.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>>;

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
    fn has_steady_keep_alive(&self) -> bool {
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
}

/// An item of a stream: an [`Event`], a [`Frame`], or a `Result` of any type that becomes a frame.
///
/// # Examples
///
/// A type of your own becomes a frame with `From`, and goes into a stream as `Ok`:
///
/// ```
/// use std::convert::Infallible;
/// use downlink::{Event, Frame, Sse};
/// use futures_util::stream;
///
/// struct Price(u32);
///
/// impl From<Price> for Frame {
///     fn from(price: Price) -> Self {
///         Event::new(price.0.to_string()).into()
///     }
/// }
///
/// let sse = Sse::new(stream::iter([Ok::<_, Infallible>(Price(4))]));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an item of an event stream",
    note = "use `Event`, `Frame`, or a `Result` of one of these"
)]
pub trait StreamItem {
    /// The frame, or the error that ends the response.
    ///
    /// # Errors
    ///
    /// The item's own.
    fn into_frame(self) -> Result<Frame, AnyError>;
}

impl StreamItem for Event {
    fn into_frame(self) -> Result<Frame, AnyError> {
        Ok(self.encode())
    }
}

impl StreamItem for Frame {
    fn into_frame(self) -> Result<Frame, AnyError> {
        Ok(self)
    }
}

impl<T: Into<Frame>, E: Into<AnyError>> StreamItem for Result<T, E> {
    fn into_frame(self) -> Result<Frame, AnyError> {
        self.map(Into::into).map_err(Into::into)
    }
}

impl<S: Stream<Item: StreamItem>> FrameSource for S {
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        self.poll_next(cx).map(|item| item.map(StreamItem::into_frame))
    }
}
