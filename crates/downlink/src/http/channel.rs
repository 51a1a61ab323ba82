//! A bounded channel into one response, for endpoints that need no hub.
//!
//! The sender waits while the channel is full, and learns when the peer has left. The channel
//! delivers all events that were sent before the call of [`SseSender::finish`], and accepts no
//! events afterwards. A channel has only one reader, the response.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use downlink_proto::{Event, Frame};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::source::{AnyError, FrameSource};

/// The maximum capacity of a channel, in events.
///
/// A sender notices that its reader is too slow only when the channel is full. A larger channel
/// would be full only after a long time. An empty channel takes no memory for its capacity.
pub const CHANNEL_EVENTS_MAX: usize = 65_536;

/// One item of the channel.
#[derive(Debug)]
enum ChannelItem {
    Event(Event),
    Comment(Frame),
    /// The stream ends here.
    Finish,
}

impl ChannelItem {
    fn unsent(self) -> SendError {
        SendError(if let Self::Event(event) = self { event } else { Event::default() })
    }
}

/// Makes both ends of a channel with this capacity, at least 1 and at most [`CHANNEL_EVENTS_MAX`].
pub(super) fn channel(events_max: usize) -> (SseSender, Channel) {
    let events_max = events_max.clamp(1, CHANNEL_EVENTS_MAX);
    // One additional place is reserved for the item `Finish`, which must never wait.
    let (queue, items) = mpsc::channel(events_max + 1);
    let finish = Arc::new(Mutex::new(queue.clone().try_reserve_owned().ok()));
    (SseSender { queue, finish }, Channel { items })
}

/// Sends events into one response, from [`Sse::channel`](super::Sse::channel).
///
/// Clones send into the same response. The events of each clone keep their order. The response ends
/// when all clones are dropped or one of them calls [`finish`](Self::finish).
#[derive(Clone)]
pub struct SseSender {
    queue: mpsc::Sender<ChannelItem>,
    /// The reserved place of the item `Finish`. `None` once the stream is finished.
    ///
    /// The lock is held for one push into the queue, never across an await, and no other lock is
    /// taken meanwhile. Because of this lock, all clones agree on which events come before the item
    /// `Finish`.
    finish: Arc<Mutex<Option<mpsc::OwnedPermit<ChannelItem>>>>,
}

impl SseSender {
    /// Sends an event. Waits while the channel is full.
    ///
    /// `Ok` means that the event is in the channel, not that the peer has received it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the event if the peer has left or the stream is finished.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it completes, nothing is sent.
    pub async fn send(&self, event: Event) -> Result<(), SendError> {
        self.send_item(ChannelItem::Event(event)).await
    }

    /// Sends an event if the channel has room for it now.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the event.
    pub fn try_send(&self, event: Event) -> Result<(), TrySendError> {
        match self.queue.try_reserve() {
            Ok(place) => {
                let pushed = self.push(place, ChannelItem::Event(event));
                pushed.map_err(|SendError(event)| TrySendError::Closed(event))
            }
            Err(mpsc::error::TrySendError::Full(())) if !self.is_closed() => {
                Err(TrySendError::Full(event))
            }
            Err(_) => Err(TrySendError::Closed(event)),
        }
    }

    /// Sends an event with this data. Waits while the channel is full.
    ///
    /// # Errors
    ///
    /// The same as for [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// The same as for [`send`](Self::send).
    pub async fn text(&self, data: impl Into<String>) -> Result<(), SendError> {
        self.send(Event::new(data)).await
    }

    /// Sends an event with a value as JSON. Waits while the channel is full.
    ///
    /// # Errors
    ///
    /// [`SendJsonError::Encode`] if the value cannot be encoded. [`SendJsonError::Closed`] if the
    /// peer has left or the stream is finished.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`send`](Self::send).
    #[cfg(feature = "json")]
    pub async fn json<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<(), SendJsonError> {
        let event = Event::json(value).map_err(SendJsonError::Encode)?;
        self.send(event).await.map_err(SendJsonError::Closed)
    }

    /// Sends a comment, which the event listeners of a page do not see. Waits while the channel is
    /// full.
    ///
    /// # Errors
    ///
    /// [`SendError`] with an empty event, if the peer has left or the stream is finished.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`send`](Self::send).
    pub async fn comment(&self, text: &str) -> Result<(), SendError> {
        self.send_item(ChannelItem::Comment(Frame::comment(text))).await
    }

    /// Waits until the peer has left or the stream has ended for any reason.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost, and a new call waits again.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Whether the channel accepts no more events, because the peer has left or the stream is
    /// finished.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed() || self.finish.lock().is_none()
    }

    /// Ends the stream after the events that were already sent. Later sends by any clone return
    /// errors.
    pub fn finish(&self) {
        let mut finish = self.finish.lock();
        if let Some(place) = finish.take() {
            place.send(ChannelItem::Finish);
        }
    }

    async fn send_item(&self, item: ChannelItem) -> Result<(), SendError> {
        match self.queue.reserve().await {
            Ok(place) => self.push(place, item),
            Err(_) => Err(item.unsent()),
        }
    }

    /// Puts an item into its place in the channel. Fails if the stream is finished.
    fn push(
        &self,
        place: mpsc::Permit<'_, ChannelItem>,
        item: ChannelItem,
    ) -> Result<(), SendError> {
        let finish = self.finish.lock();
        if finish.is_some() {
            place.send(item);
            return Ok(());
        }
        Err(item.unsent())
    }
}

impl fmt::Debug for SseSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseSender").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The receiving end of a channel, from which the response reads.
#[derive(Debug)]
pub struct Channel {
    items: mpsc::Receiver<ChannelItem>,
}

impl FrameSource for Channel {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        Poll::Ready(match ready!(self.items.poll_recv(cx)) {
            Some(ChannelItem::Event(event)) => Some(Ok(event.into())),
            Some(ChannelItem::Comment(frame)) => Some(Ok(frame)),
            Some(ChannelItem::Finish) => {
                self.items.close();
                None
            }
            None => None,
        })
    }
}

/// The peer has left or the stream is finished. Contains the event that was not sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the stream has ended")]
pub struct SendError(pub Event);

/// Why an event could not be sent at once. Contains the event.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The channel is full of unread events.
    #[error("the channel is full")]
    Full(Event),
    /// The peer has left or the stream is finished.
    #[error("the stream has ended")]
    Closed(Event),
}

/// Why a value was not sent.
#[cfg(feature = "json")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendJsonError {
    /// The value cannot be encoded.
    #[error("the value was not sent, because it could not be encoded")]
    Encode(#[source] downlink_proto::JsonError),
    /// The peer has left or the stream is finished.
    #[error("the value was not sent")]
    Closed(#[source] SendError),
}
