//! A response under construction.
//!
//! [`Sse`] collects settings and becomes an `http::Response` with the headers of an event stream.
//! With the feature `axum`, a handler can return it directly.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "serve")]
use http::HeaderMap;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use super::body::{SseBody, UncommonParts};
use super::channel::{self, Channel, SseSender};
use super::clock::{BodyClock, Expiry, end_of};
use super::keep_alive::KeepAlive;
use super::source::FrameSource;
use super::spread::Spread;

/// The range of the ages at which connections end, in percent of the maximum age. The age of each
/// connection is picked at random from this range. So clients that connected at the same time
/// reconnect at different times.
const AGE_PERCENT: (u32, u32) = (80, 100);

/// An extension that marks a response as a finite stream. The source of a finite stream ends the
/// stream by itself. A drain (the graceful shutdown of a server) lets such a stream run until the
/// deadline. [`Sse::finite`] sets this extension. For a response that is not made by [`Sse`],
/// insert the extension yourself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Finite;

/// A response that streams events.
///
/// # Examples
///
/// ```
/// use downlink::Event;
/// use downlink::http::Sse;
///
/// let (sender, sse) = Sse::channel(16);
/// sender.try_send(Event::new("hello"))?;
/// sender.finish();
/// let response = sse.into_http_response();
/// assert_eq!(response.headers()["content-type"], "text/event-stream");
/// # Ok::<(), downlink::http::TrySendError>(())
/// ```
#[must_use = "a response does nothing unless it is returned"]
pub struct Sse<S> {
    source: S,
    keep_alive: KeepAlive,
    max_age: Option<Duration>,
    expiry: Option<Expiry>,
    expiry_notice: Option<Duration>,
    finite: bool,
    /// Settings that few responses have. `None` with default settings.
    uncommon: Option<Box<UncommonParts>>,
}

impl Sse<Channel> {
    /// Makes a channel, and a response that streams the events that are sent into the channel.
    /// `events_max` is the capacity of the channel (at least 1, at most
    /// [`CHANNEL_EVENTS_MAX`](super::CHANNEL_EVENTS_MAX)).
    pub fn channel(events_max: usize) -> (SseSender, Self) {
        let (sender, source) = channel::channel(events_max);
        (sender, Self::new(source))
    }
}

impl<S: FrameSource> Sse<S> {
    /// Streams the items of a stream: [`Event`](crate::Event), [`Frame`](crate::Frame), or a
    /// `Result` of these. An `Err` cuts the connection, so that the client reconnects.
    ///
    /// The source may also be any other [`FrameSource`].
    pub fn new(source: S) -> Self {
        Self {
            source,
            keep_alive: KeepAlive::default(),
            max_age: None,
            expiry: None,
            expiry_notice: None,
            finite: false,
            uncommon: None,
        }
    }

    /// Sets the keep-alive of a silent connection. Default: a comment every 15 seconds.
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Sends the client a reconnection time at the beginning of the stream. The client waits for
    /// this time before it reconnects. Default: the client decides.
    pub fn reconnection_time(mut self, reconnection_time: Duration) -> Self {
        self.uncommon.get_or_insert_default().reconnection_time = Some(reconnection_time);
        self
    }

    /// Lets a stream that ends without an error send a reconnection time as its last frame. The
    /// time is picked at random from `spread`. Default: the stream sends a time only if it ends
    /// because of its age or expiry (see [`max_age`](Self::max_age)).
    pub fn reconnection_spread(mut self, spread: Spread) -> Self {
        self.uncommon.get_or_insert_default().last_reconnection = Some(spread);
        self
    }

    /// Ends the stream at 80 to 100 % of this age. The age of each stream is picked at random from
    /// this range. Default: the stream never ends because of its age.
    ///
    /// The client returns after one to two seconds, if this builder sets no other reconnection time
    /// or spread. Events that are not sent yet are dropped. The client's last event id belongs to
    /// the last event that the client has received completely. So a client that resumes with this
    /// id gets the dropped events.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Ends the stream at an instant or a time of day, for example when the credentials expire.
    /// Default: the stream does not expire. If this is called several times, the earliest expiry
    /// counts. The client returns as quickly as after [`max_age`](Self::max_age).
    pub fn expires_at(mut self, expiry: impl Into<Expiry>) -> Self {
        let expiry = expiry.into();
        self.expiry = Some(self.expiry.map_or(expiry, |earlier| earlier.min(expiry)));
        self
    }

    /// Announces the expiry to the client. The stream sends `event: downlink.expiring` with the
    /// data `{"in_ms":…}`. `before` is the time between this event and the expiry. In this time,
    /// the client can get new credentials and open its next stream. At the expiry, the stream sends
    /// `event: downlink.expired`. Default: the stream announces nothing. A stream that ends earlier
    /// because of its age (see [`max_age`](Self::max_age)) announces nothing either.
    pub fn expiry_notice(mut self, before: Duration) -> Self {
        self.expiry_notice = Some(before);
        self
    }

    /// Ends the stream when a future completes. Before the end, the stream sends one more batch of
    /// the events that are ready. The stream never stops inside a frame.
    pub fn until<F>(mut self, ended: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.uncommon.get_or_insert_default().until = Some(Box::pin(async move {
            ended.await;
        }));
        self
    }

    /// Marks the stream as finite: its source will end the stream. Examples are the answer of a
    /// language model and an export. A draining server lets such a stream run until the deadline.
    pub fn finite(mut self) -> Self {
        self.finite = true;
        self
    }

    /// Makes the response, for any server that takes an `http_body::Body`.
    ///
    /// The age of the connection counts from this call. The response has the headers `Content-Type:
    /// text/event-stream`, `Cache-Control: no-store, no-transform`, `X-Accel-Buffering: no`.
    pub fn into_http_response(self) -> Response<SseBody<S>> {
        let Self { source, keep_alive, max_age, expiry, expiry_notice, finite, mut uncommon } =
            self;
        let KeepAlive { interval, frame } = keep_alive;
        if frame.is_some() {
            uncommon.get_or_insert_default().keep_alive = frame;
        }
        let age = max_age.map(|age| Spread::percent_of(age, AGE_PERCENT));
        let clock = BodyClock::new(interval, end_of(expiry, expiry_notice, age));
        let mut response = event_stream(SseBody::new(source, clock, uncommon));
        if finite {
            response.extensions_mut().insert(Finite);
        }
        response
    }
}

impl<S> fmt::Debug for Sse<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse")
            .field("keep_alive", &self.keep_alive)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// A response with the headers of an event stream.
pub(super) fn event_stream<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// True if the headers announce an event stream, whether this crate or other code has made it.
#[cfg(feature = "serve")]
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}
