//! The feed of a hub as the body of an HTTP response. A feed carries the events of a hub, in
//! chunks, to a relay. A relay is a hub that follows another hub, its upstream.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use downlink_log::{Behind, Cursor};
use downlink_proto::EventId;
use http_body::Frame;
use thiserror::Error;
use tokio::sync::mpsc;

use super::wire::{self, Messages};
use crate::hub::{Hops, Hub, HubFeed, cursor_id};

/// The time after which a feed sends an empty chunk if there is nothing else to send. A relay then
/// knows that the upstream is there. With half this time, idle feeds would cost more; with double,
/// a relay would notice a dead upstream later.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The maximum number of feeds that a hub has open at the same time. Each feed costs the hub as
/// much processor time as a busy reader of all topics. Below many relays, let relays follow relays.
pub const FEEDS_MAX: usize = 64;

/// The number of messages that wait for the connection. A feed that is not read stays at its
/// position in the log, so more messages would only take memory.
const QUEUED_MAX: usize = 2;

/// The body of a feed, from [`Hub::feed`]. It is a body for any server that takes an
/// [`http_body::Body`]. It ends when the hub drains or closes.
///
/// # Limits
///
/// If the peer does not read, the body holds two chunks of some 1 MiB, and reads the log no
/// further.
#[derive(Debug)]
pub struct FeedBody(mpsc::Receiver<Bytes>);

/// Why a hub gives no feed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum FeedError {
    /// The position is not the id of an event of a hub.
    #[error("the position {0:?} is not an id that a hub has given: leave it out to begin anew")]
    InvalidPosition(String),
    /// The hub follows another one, which cannot be asked at present.
    #[error("this relay has not reached its own upstream yet: try again in a moment")]
    NotReady,
    /// The hub has too many feeds.
    #[error("the hub has {FEEDS_MAX} feeds already: let the relay follow another relay")]
    TooMany,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Opens a feed for a hub that [follows](Hub::follow) this one. The feed carries everything
    /// that this hub has, and then every event that is published. `after` is the position of the
    /// other hub: the id of the last event that it has. `None` if it has nothing yet.
    ///
    /// If this hub follows another one and has no events yet, the feed only has a message that says
    /// so, and ends.
    ///
    /// A feed carries all topics and all inboxes of clients. So the handler that serves it must
    /// check that the peer is a relay.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`FeedError`].
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::{extract::{RawQuery, State}, http::{StatusCode, header}, response::{IntoResponse, Response}};
    /// use downlink::{Hub, relay::FEED_MEDIA_TYPE};
    ///
    /// async fn follow(State(hub): State<Hub<String>>, RawQuery(after): RawQuery) -> Response {
    ///     // Check here that the request comes from a relay.
    ///     let after = after.as_deref().and_then(|query| query.strip_prefix("after="));
    ///     match hub.feed(after) {
    ///         Ok(body) => {
    ///             let head = [(header::CONTENT_TYPE, FEED_MEDIA_TYPE)];
    ///             (head, axum::body::Body::new(body)).into_response()
    ///         }
    ///         Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    ///     }
    /// }
    /// # let _ = axum::Router::new().route("/follow", axum::routing::get(follow));
    /// ```
    pub fn feed(&self, after: Option<&str>) -> Result<FeedBody, FeedError> {
        let position = after
            .map(|id| Cursor::parse_id(id).ok_or_else(|| FeedError::InvalidPosition(id.to_owned())))
            .transpose()?;
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let hops = match self.hops() {
            Hops::Reached(hops) => hops,
            Hops::Tried(hops) => {
                // The channel is empty, so it has room.
                let _ = sender.try_send(wire::not_ready(hops));
                return Ok(FeedBody(receiver));
            }
        };
        let place = Place::take(self.open_feeds()).ok_or(FeedError::TooMany)?;
        let feed = self.open_feed(position);
        // A relay that is behind its upstream cannot know a position ahead of its own.
        let is_behind =
            self.upstream().is_some_and(|up| !up.connected || up.lag > 0) || self.is_node_behind();
        if position.is_some() && !feed.start().resumed && is_behind {
            return Err(FeedError::NotReady);
        }
        let opening = wire::opening(feed.start(), hops);
        tokio::spawn(async move {
            let _place = place;
            if sender.send(opening).await.is_ok() {
                send(feed, &sender).await;
            }
        });
        Ok(FeedBody(receiver))
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// The newest id of this hub. If this hub follows another one, the result is the newest id of
    /// the hub at the end of the chain of upstreams. The future then completes when this hub has
    /// everything up to this id. A relay that [follows](Hub::follow) this hub calls this when a
    /// reader has an id that the relay does not know.
    ///
    /// # Errors
    ///
    /// [`FeedError::NotReady`] if the upstream of this hub cannot be asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn feed_end(&self) -> Result<EventId, FeedError> {
        self.end().await.map(cursor_id).ok_or(FeedError::NotReady)
    }
}

/// Sends the chunks of a feed until the feed or its receiver ends.
async fn send<T: Send + Sync + 'static>(mut feed: HubFeed<T>, sender: &mpsc::Sender<Bytes>) {
    // The first chunk follows at once, even if it is empty. The relay then knows whether it has
    // everything.
    let mut is_first = true;
    loop {
        tokio::select! {
            biased;
            () = sender.closed() => return,
            () = std::future::ready(()), if is_first => is_first = false,
            () = poll_fn(|cx| feed.poll_ready(cx.waker())) => {}
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        let read = match feed.try_read() {
            Ok(read) => Ok(read),
            Err(Behind) => {
                // The backlog has the newest events. Reading older events takes long, or waits for
                // the disk.
                let reading = tokio::task::spawn_blocking(move || {
                    let read = feed.read();
                    (feed, read)
                });
                let Ok((returned, read)) = reading.await else { return };
                feed = returned;
                read
            }
        };
        match read {
            Ok(Some((chunk, tail))) => {
                if send_chunk(Messages::new(chunk, tail), sender).await.is_none() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "a feed has ended because the store cannot be read");
                return;
            }
        }
    }
}

/// Sends the messages of a chunk, one after the other. `None` if the receiver has ended.
async fn send_chunk(mut messages: Messages, sender: &mpsc::Sender<Bytes>) -> Option<()> {
    if messages.is_short() {
        return sender.send(messages.next()?).await.ok();
    }
    loop {
        // A floor is the offset below which a topic has lost events. To encode many floors takes
        // some ten milliseconds.
        let encoding = tokio::task::spawn_blocking(move || {
            let message = messages.next();
            (messages, message)
        });
        let (returned, message) = encoding.await.ok()?;
        messages = returned;
        let Some(message) = message else { return Some(()) };
        sender.send(message).await.ok()?;
    }
}

/// A place among the feeds of a hub.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let one_more = |open: usize| (open < FEEDS_MAX).then_some(open + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl http_body::Body for FeedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}
