//! Tools for tests of an app's event streams, without sockets and without waiting. This module
//! needs the feature `testing`.
//!
//! [`connect`] calls an app as a server would, and reads its stream as a browser would.
//! [`Connection::reconnect`] sends the request again with the last event id. If tokio's time is
//! paused, waiting takes no real time. [`advance`] moves the paused time and a hub's manual clock
//! together.
//!
//! Some behaviour shows only with real sockets, such as a peer that reads nothing. To test such
//! behaviour, use [`serve`](crate::serve()) on port 0.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use downlink_proto::{Decoder, Item};
use http::header::HeaderMap;
use http::{HeaderValue, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tower_service::Service;

use crate::http::AnyError;
use crate::hub::Clock;

pub use downlink_proto::DecodedEvent;

/// How long a test waits, in tokio's time, for an answer, an event or a comment. After this time
/// the test panics.
///
/// This is four times the default interval of keep-alives, so a test that waits for a keep-alive
/// gets one. When all tasks wait in paused time, tokio moves the time to the next timer. By
/// default, an open stream always has a timer, for its next keep-alive. So without this limit, a
/// test that waits for a missing event would get one keep-alive after the other, and never end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to an app without a socket.
///
/// The app is an axum `Router` or any tower service. The first request is `request` itself. Each
/// [repeated](Connection::reconnect) request has the same head with the last event id, and
/// `B::default()` as its body.
///
/// # Panics
///
/// If the app returns an error instead of a response, or does not answer within [`PATIENCE`].
///
/// # Cancel safety
///
/// Dropping the future drops the request, as when a client leaves early.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "axum")]
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use downlink::hub::{Clock, Hub};
/// use downlink::{LastEventId, testing};
///
/// let clock = Clock::manual();
/// let hub = Hub::<String>::builder().text().clock(clock.clone()).build()?;
/// let news = hub.clone();
/// let join = move |last: LastEventId| async move {
///     news.subscribe().topic("news").resume(last).open().await
/// };
/// let app = Router::new().route("/news", get(join));
///
/// let mut reader = testing::connect(&app, Request::get("/news").body(Body::empty())?).await;
/// assert_eq!(reader.status(), 200);
/// assert_eq!(reader.next_event().await.unwrap().event_type, "downlink.open");
///
/// hub.to("news").publish("one".to_owned())?;
/// assert_eq!(reader.next_event().await.unwrap().data, "one");
/// reader.expect_silence().await;
///
/// // The connection breaks. The client misses one event. A day later nothing is retained.
/// hub.to("news").publish("two".to_owned())?;
/// reader.reconnect().await;
/// assert_eq!(reader.next_event().await.unwrap().event_type, "downlink.open");
/// assert_eq!(reader.next_event().await.unwrap().data, "two");
/// hub.to("news").publish("three".to_owned())?;
/// testing::advance(&clock, Duration::from_secs(24 * 60 * 60)).await;
/// reader.reconnect().await;
/// assert_eq!(reader.next_event().await.unwrap().event_type, "downlink.open");
/// assert_eq!(reader.next_event().await.unwrap().event_type, "downlink.gap");
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
pub async fn connect<S, B, R>(app: &S, request: Request<B>) -> Connection<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: fmt::Debug,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<AnyError>,
{
    let mut app = app.clone();
    let (head, body) = request.into_parts();
    let stream = Stream::open(&mut app, Request::from_parts(head.clone(), body), "").await;
    Connection { app, head, stream, last_event_id: String::new(), request_body: PhantomData }
}

/// Moves a hub's manual clock and tokio's paused time forward together.
///
/// # Panics
///
/// If tokio's time is not paused.
///
/// # Cancel safety
///
/// Both clocks move before the future waits for the first time. If the future is dropped later, the
/// clocks do not move back.
pub async fn advance(clock: &Clock, by: Duration) {
    clock.advance(by);
    tokio::time::advance(by).await;
}

/// A client of an app under test, from [`connect`]. Dropping it closes the connection.
pub struct Connection<S, B> {
    app: S,
    head: request::Parts,
    stream: Stream,
    /// The last event id after the events that the test has read. Unread events do not count.
    last_event_id: String,
    request_body: PhantomData<fn() -> B>,
}

impl<S, B> Connection<S, B> {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.stream.head.status
    }

    /// The headers of the response.
    pub fn headers(&self) -> &HeaderMap {
        &self.stream.head.headers
    }

    /// Waits for the next event. Returns `None` once the stream has ended.
    ///
    /// # Panics
    ///
    /// If there is no event within [`PATIENCE`], and the stream does not end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next_event(&mut self) -> Option<DecodedEvent> {
        self.stream.read_until("an event", |stream| !stream.events.is_empty()).await;
        let event = self.stream.events.pop_front()?;
        event.last_event_id.as_ref().clone_into(&mut self.last_event_id);
        Some(event)
    }

    /// Waits for the next comment, which may be a keep-alive. Returns `None` once the stream has
    /// ended. Events that come before the comment can still be read.
    ///
    /// # Panics
    ///
    /// If there is no comment within [`PATIENCE`], and the stream does not end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next_comment(&mut self) -> Option<String> {
        self.stream.read_until("a comment", |stream| !stream.comments.is_empty()).await;
        self.stream.comments.pop_front()
    }

    /// Asserts that the stream is open and has no event ready now. Comments are allowed.
    ///
    /// # Panics
    ///
    /// If there is an event, or if the stream has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn expect_silence(&mut self) {
        // This lets the tasks of the app run, so that they can publish.
        tokio::task::yield_now().await;
        while self.stream.read_ready().await {}
        assert!(self.stream.events.is_empty(), "the stream has events: {:?}", self.stream.events);
        assert!(!self.stream.ended, "the stream has ended");
    }

    /// The id that a browser would send when it reconnects after the events that the test has read.
    /// Empty if none of these events had an id.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The last reconnection time that the app has sent.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.stream.decoder.reconnection_time().map(downlink_proto::Retry::as_duration)
    }

    /// Whether the body failed. A server cuts the connection in that case.
    pub fn was_cut(&self) -> bool {
        self.stream.cut
    }

    /// Closes the connection, and sends the request again with the last event id, as a browser
    /// does. Unread events are dropped, so the app must send them again.
    ///
    /// # Panics
    ///
    /// If the app returns an error instead of a response, or does not answer within [`PATIENCE`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connection stays closed.
    pub async fn reconnect<R>(&mut self)
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Error: fmt::Debug,
        B: Default,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<AnyError>,
    {
        // The old stream is dropped first, so that the app sees the client leave before it gets the
        // new request.
        let nothing = http_body_util::Empty::new().map_err(|never| match never {});
        self.stream.body = nothing.boxed_unsync();
        let mut head = self.head.clone();
        if let Ok(id) = HeaderValue::from_bytes(self.last_event_id.as_bytes())
            && !id.is_empty()
        {
            head.headers.insert("last-event-id", id);
        }
        let request = Request::from_parts(head, B::default());
        self.stream = Stream::open(&mut self.app, request, &self.last_event_id).await;
    }
}

/// A response, and the items that were read from it.
struct Stream {
    head: http::response::Parts,
    body: UnsyncBoxBody<Bytes, AnyError>,
    decoder: Decoder,
    events: VecDeque<DecodedEvent>,
    comments: VecDeque<String>,
    ended: bool,
    cut: bool,
}

impl Stream {
    async fn open<S, B, R>(app: &mut S, request: Request<B>, last_event_id: &str) -> Self
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Error: fmt::Debug,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<AnyError>,
    {
        poll_fn(|cx| app.poll_ready(cx)).await.expect("the app is ready for a request");
        let answer = tokio::time::timeout(PATIENCE, app.call(request)).await;
        let response = answer.expect("the app answers in time").expect("the app answers");
        let (head, body) = response.into_parts();
        Self {
            head,
            body: body.map_err(Into::into).boxed_unsync(),
            decoder: Decoder::default().with_last_event_id(last_event_id),
            events: VecDeque::new(),
            comments: VecDeque::new(),
            ended: false,
            cut: false,
        }
    }

    /// Reads until `is_there` returns true or the stream ends.
    async fn read_until(&mut self, awaited: &str, is_there: impl Fn(&Self) -> bool) {
        let reading = async { while !is_there(self) && self.read().await {} };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "{awaited} did not come within {PATIENCE:?}");
    }

    /// Reads one chunk if the body is ready. Returns false if it is not ready or has ended.
    async fn read_ready(&mut self) -> bool {
        tokio::select! {
            biased;
            read = self.read() => read,
            () = std::future::ready(()) => false,
        }
    }

    /// Reads one chunk. Returns false at the end.
    async fn read(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let decoded = match self.body.frame().await {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(chunk) => self.decoder.handle_bytes(chunk).is_ok(),
                None => true,
            },
            Some(Err(_)) => false,
            None => {
                self.ended = true;
                self.decoder.handle_end();
                true
            }
        };
        self.cut = !decoded;
        self.ended |= self.cut;
        while let Some(item) = self.decoder.poll_item() {
            match item {
                Item::Event(event) => self.events.push_back(event),
                // The decoder keeps the space after the colon. The space belongs to the format and
                // not to the text, so it is removed here.
                Item::Comment(text) => {
                    self.comments.push_back(text.strip_prefix(' ').unwrap_or(&text).to_owned());
                }
                _ => {}
            }
        }
        !self.ended
    }
}

impl<S, B> fmt::Debug for Connection<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("uri", &self.head.uri)
            .field("status", &self.status())
            .field("last_event_id", &self.last_event_id)
            .finish_non_exhaustive()
    }
}
