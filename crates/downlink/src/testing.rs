//! Testing an app's event streams without sockets and without waiting. Feature `testing`.
//!
//! [`connect`] calls an app as a server would and reads its stream as a browser would.
//! [`Connection::reconnect`] comes back with the last event id. With tokio's time paused, waiting
//! takes no real time, and [`advance`] moves a hub's clock along.
//!
//! Not here: behaviour that only real sockets show, such as a peer that reads nothing. To test
//! that, [`serve`](crate::serve()) on port 0.

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

/// How long a test waits for an answer, an event or a comment, in tokio's time, before it counts as
/// hanging.
///
/// Four silences of the default keep-alive. A test that waits for a keep-alive gets one. A test
/// that waits for something else in paused time is not kept for ever by one keep-alive after
/// another.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to an app, without a socket.
///
/// The app is an axum `Router` or any tower service; the request's own body is sent the first
/// time, a default one whenever it is [repeated](Connection::reconnect).
///
/// # Panics
///
/// If the app fails rather than answers, or does not answer within [`PATIENCE`].
///
/// # Cancel safety
///
/// Dropping the future drops the request, as a client does that leaves early.
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
/// // The connection breaks, something happens meanwhile, and a day later nothing is kept.
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

/// Moves a hub's manual clock and tokio's paused time on together.
///
/// # Panics
///
/// If tokio's time is not paused.
///
/// # Cancel safety
///
/// Both clocks have moved by the first time that this waits; dropping it changes nothing more.
pub async fn advance(clock: &Clock, by: Duration) {
    clock.advance(by);
    tokio::time::advance(by).await;
}

/// A client of an app under test; see [`connect`]. Dropping it is leaving.
pub struct Connection<S, B> {
    app: S,
    head: request::Parts,
    stream: Stream,
    /// The id after the last event that the test has read. Unread events do not count.
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

    /// The next event, waiting for it; `None` once the stream has ended.
    ///
    /// # Panics
    ///
    /// If neither comes within [`PATIENCE`].
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

    /// The next comment, waiting for it, keep-alives among them; `None` once the stream has ended.
    /// Events that come before it stay to be read.
    ///
    /// # Panics
    ///
    /// If neither comes within [`PATIENCE`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next_comment(&mut self) -> Option<String> {
        self.stream.read_until("a comment", |stream| !stream.comments.is_empty()).await;
        self.stream.comments.pop_front()
    }

    /// Asserts that the stream is open and has no event to give now. Comments do not break silence.
    ///
    /// # Panics
    ///
    /// If there is an event, or the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn expect_silence(&mut self) {
        // Gives the tasks of the app a turn, so that they can publish.
        tokio::task::yield_now().await;
        while self.stream.read_ready().await {}
        assert!(self.stream.events.is_empty(), "not silent: {:?}", self.stream.events);
        assert!(!self.stream.ended, "the stream has ended");
    }

    /// The id that a browser would send on reconnecting, after the last event that was read here;
    /// empty if none had one.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time that the app has asked for last.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.stream.decoder.reconnection_time().map(downlink_proto::Retry::as_duration)
    }

    /// Whether the body failed, in which case a server cuts the connection.
    pub fn was_cut(&self) -> bool {
        self.stream.cut
    }

    /// Leaves, and asks again with the last event id, as a browser does. Events that arrived unread
    /// are dropped: the app has to send them again.
    ///
    /// # Panics
    ///
    /// If the app fails rather than answers, or does not answer within [`PATIENCE`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the connection ended.
    pub async fn reconnect<R>(&mut self)
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Error: fmt::Debug,
        B: Default,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<AnyError>,
    {
        // Drops the old stream first, so the app sees it leave before the new request.
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

    /// Reads until `is_there` or the end.
    async fn read_until(&mut self, awaited: &str, is_there: impl Fn(&Self) -> bool) {
        let reading = async { while !is_there(self) && self.read().await {} };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "{awaited} did not come within {PATIENCE:?}");
    }

    /// Reads on if the body is ready; false if not.
    async fn read_ready(&mut self) -> bool {
        tokio::select! {
            biased;
            read = self.read() => read,
            () = std::future::ready(()) => false,
        }
    }

    /// Reads one chunk; false at the end.
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
                // The space after the colon is the writer's, as it is with fields.
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
