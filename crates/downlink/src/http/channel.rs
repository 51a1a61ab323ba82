//! A bounded channel into one response, for endpoints that need no hub.
//!
//! The sender waits while the channel is full and learns when the peer has left. Events sent
//! before [`SseSender::finish`] are all delivered; none is accepted after it. Not here: more than
//! one reader.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use downlink_proto::{Event, Frame};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::source::FrameSource;

/// The most events that a channel can be made to hold.
///
/// A channel this long hides a reader that will never catch up; no memory is taken before it is
/// used.
pub const CHANNEL_EVENTS_MAX: usize = 65_536;

/// What travels through the channel.
enum Item {
    Event(Event),
    Comment(Frame),
    /// Nothing follows.
    Finish,
}

/// Makes both ends of a channel for so many events, at least 1, at most [`CHANNEL_EVENTS_MAX`].
pub(super) fn channel(events_max: usize) -> (SseSender, Channel) {
    let events_max = events_max.clamp(1, CHANNEL_EVENTS_MAX);
    // One place more than asked for: the one kept for the finish, which must never wait.
    let (queue, items) = mpsc::channel(events_max + 1);
    let place = queue.clone().try_reserve_owned().ok();
    let gate = Arc::new(Mutex::new(Gate { place }));
    (SseSender { queue, gate }, Channel { items })
}

/// Whether the stream is still open for events.
///
/// The lock is held for the one push into the queue, alone and never across an await. It makes
/// "before the finish" and "after" mean the same to all senders.
struct Gate {
    /// The queue's place kept for the finish; none once that is sent.
    place: Option<mpsc::OwnedPermit<Item>>,
}

/// Sends events into one response; made by [`Sse::channel`](super::Sse::channel).
///
/// Clones send into the same response, each sender's events in its own order. The response ends
/// when all of them are dropped or one of them says [`finish`](Self::finish).
#[derive(Clone)]
pub struct SseSender {
    queue: mpsc::Sender<Item>,
    gate: Arc<Mutex<Gate>>,
}

impl SseSender {
    /// Sends an event, waiting while the channel is full.
    ///
    /// `Ok` says that the event is queued, not that the peer has it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the event if the peer has left or the stream is finished.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it completes sends nothing.
    pub async fn send(&self, event: Event) -> Result<(), SendError> {
        match self.queue.reserve().await {
            Ok(place) => self.push(place, event),
            Err(_) => Err(SendError(event)),
        }
    }

    /// Sends an event if there is room for it now.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the event.
    pub fn try_send(&self, event: Event) -> Result<(), TrySendError> {
        match self.queue.try_reserve() {
            Ok(place) => self.push(place, event).map_err(|SendError(e)| TrySendError::Closed(e)),
            Err(mpsc::error::TrySendError::Full(())) if !self.is_closed() => {
                Err(TrySendError::Full(event))
            }
            Err(_) => Err(TrySendError::Closed(event)),
        }
    }

    /// Sends an event with this data, waiting while the channel is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn text(&self, data: impl Into<String>) -> Result<(), SendError> {
        self.send(Event::new(data)).await
    }

    /// Sends an event with a value as JSON, waiting while the channel is full.
    ///
    /// # Errors
    ///
    /// [`SendJsonError::Encode`] if the value cannot be encoded, else as [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    #[cfg(feature = "json")]
    pub async fn json<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<(), SendJsonError> {
        let event = Event::json(value).map_err(SendJsonError::Encode)?;
        self.send(event).await.map_err(SendJsonError::Closed)
    }

    /// Sends a comment, which no listener hears, waiting while the channel is full.
    ///
    /// # Errors
    ///
    /// [`SendError`], with an event that is empty, as [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn comment(&self, text: &str) -> Result<(), SendError> {
        let Ok(place) = self.queue.reserve().await else {
            return Err(SendError(Event::empty()));
        };
        let gate = self.gate.lock();
        if gate.place.is_none() {
            return Err(SendError(Event::empty()));
        }
        place.send(Item::Comment(Frame::comment(text)));
        Ok(())
    }

    /// Waits until the peer has left or the stream has ended, whichever way.
    ///
    /// # Cancel safety
    ///
    /// Loses nothing; call it again.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// True once nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed() || self.gate.lock().place.is_none()
    }

    /// Ends the stream after what has been sent. Later sends, by any clone, give errors.
    pub fn finish(&self) {
        let mut gate = self.gate.lock();
        if let Some(place) = gate.place.take() {
            place.send(Item::Finish);
        }
    }

    /// Puts an event into its place unless the stream is finished.
    fn push(&self, place: mpsc::Permit<'_, Item>, event: Event) -> Result<(), SendError> {
        let gate = self.gate.lock();
        if gate.place.is_none() {
            return Err(SendError(event));
        }
        place.send(Item::Event(event));
        Ok(())
    }
}

impl fmt::Debug for SseSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseSender").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The response's end of a channel.
pub struct Channel {
    items: mpsc::Receiver<Item>,
}

impl FrameSource for Channel {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        match ready!(self.items.poll_recv(cx)) {
            Some(Item::Event(event)) => Poll::Ready(Some(event.into())),
            Some(Item::Comment(frame)) => Poll::Ready(Some(frame)),
            Some(Item::Finish) => {
                self.items.close();
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// The peer has left or the stream is finished; holds the event that was not sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SendError(pub Event);

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream has ended")
    }
}

impl Error for SendError {}

/// Why an event could not be sent at once; holds the event.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TrySendError {
    /// The reader is behind by as many events as the channel holds.
    Full(Event),
    /// The peer has left or the stream is finished.
    Closed(Event),
}

impl TrySendError {
    /// The event that was not sent.
    pub fn into_event(self) -> Event {
        match self {
            Self::Full(event) | Self::Closed(event) => event,
        }
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full",
            Self::Closed(_) => "the stream has ended",
        })
    }
}

impl Error for TrySendError {}

/// Why a value was not sent.
#[cfg(feature = "json")]
#[derive(Debug)]
#[non_exhaustive]
pub enum SendJsonError {
    /// The value cannot be encoded.
    Encode(downlink_proto::JsonError),
    /// The peer has left or the stream is finished.
    Closed(SendError),
}

#[cfg(feature = "json")]
impl fmt::Display for SendJsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encode(_) => "the value was not sent, as it has no encoding",
            Self::Closed(_) => "the value was not sent",
        })
    }
}

#[cfg(feature = "json")]
impl Error for SendJsonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Encode(cause) => Some(cause),
            Self::Closed(cause) => Some(cause),
        }
    }
}
