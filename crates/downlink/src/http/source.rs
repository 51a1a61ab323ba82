//! The sources of the frames of a response.
//!
//! A response body gets its frames (encoded events) from a [`FrameSource`]. Every stream of events
//! is a source. Only the body polls its source. When the body is dropped, its source is dropped
//! too.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use downlink_proto::{Event, Frame};
use futures_core::Stream;

/// Any error that a stream, a service or a body returns.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Yields the frames of one response, in order.
///
/// Every `Stream` whose items are events, frames, or a `Result` of one of these is a source (see
/// [`StreamItem`]). Implement this trait for your own type if the type has an opening frame or its
/// own keep-alive.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of events",
    label = "neither a stream of events nor a `FrameSource`",
    note = "the items of a stream have to be `Event`, `Frame`, or a `Result` of one of these",
    note = "map other items, for example with `stream.map(Event::new)`"
)]
pub trait FrameSource {
    /// The frame to send right after the first bytes. `keep_alive` is the interval of the
    /// keep-alives, or `None` if they are off.
    ///
    /// Called once, before the first frame.
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        let _ = keep_alive;
        None
    }

    /// The next frame, or `None` at the end.
    ///
    /// The body does not poll the source again after `None`, an error or a panic.
    ///
    /// # Errors
    ///
    /// An error ends this response. The body sends the frames before the error. The server then
    /// cuts the connection, so that a reader cannot mistake the response for a complete one. An
    /// `EventSource` reconnects.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>>;

    /// The frame to send as a keep-alive. If this returns `None`, the body sends the keep-alive
    /// that is set for the response.
    ///
    /// Called each time a keep-alive is due.
    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        None
    }

    /// Whether the next keep-alive is due one interval after the last keep-alive, even if other
    /// frames were sent in between.
    ///
    /// Return true for keep-alives that a page listens to. A page that listens only to some event
    /// types does not see the other frames, so it needs regular keep-alives to tell whether its
    /// connection is alive.
    fn has_steady_keep_alive(&self) -> bool {
        false
    }

    /// Called when the response ends because it has reached its maximum age or its expiry. The body
    /// does not poll the source again.
    #[doc(hidden)]
    fn note_expired(self: Pin<&mut Self>) {}

    /// Reads the memory that the next poll will read first, and changes nothing. Callers ignore the
    /// result.
    ///
    /// With ten thousand streams, the memory of most streams is not in the processor's cache. A
    /// server that is about to poll many bodies first calls this for all of them. The processor
    /// then fetches their memory in parallel.
    #[doc(hidden)]
    fn prefetch(&self) -> bool {
        true
    }
}

/// An item of a stream: an [`Event`], a [`Frame`], or a `Result` of any type that becomes a frame.
///
/// # Examples
///
/// If your own type converts into a frame by `From`, a stream can contain its values as `Ok`:
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
    /// Returns the frame, or the error that ends the response.
    ///
    /// # Errors
    ///
    /// The error of the item.
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
