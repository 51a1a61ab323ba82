//! A response under construction.
//!
//! [`Sse`] gathers settings and becomes an `http::Response` with the headers of the contract. With
//! the feature `axum` it is a response there as it is.

use std::fmt;
use std::time::Duration;

use futures_core::Stream;
#[cfg(feature = "serve")]
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::Until;
use super::channel::{self, Channel, SseSender};
use super::clock::{Clock, Expiry, end_of};
use super::keep_alive::Pace;
use super::source::{Frames, StreamItem};
use super::{KeepAlive, Spread, SseBody};

/// Percent of the maximum age at which a connection may end, so that connections that were opened
/// together do not all return together.
const AGE_PERCENT: (u32, u32) = (80, 100);

/// When the client of a stream comes back that has reached its age or its expiry, unless the
/// response says.
///
/// Browsers wait 3 to 5 s by default, which leaves a page standing still although nothing is
/// wrong. The ends are spread already, so nobody returns in a crowd; less than a second would make
/// a loop of a stream that is already expired when it begins.
pub(super) const AGED_RECONNECTION: Spread =
    Spread::between(Duration::from_secs(1), Duration::from_secs(2));

/// Marks a response, in its extensions, whose stream ends by itself: a drain lets it run until the
/// deadline. Set by [`Sse::finite`]; put it on any other response that should be treated so.
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
/// let response = sse.into_response();
/// assert_eq!(response.headers()["content-type"], "text/event-stream");
/// # Ok::<(), downlink::http::TrySendError>(())
/// ```
#[must_use = "a response does nothing unless it is returned"]
pub struct Sse<S> {
    pub(super) source: S,
    pub(super) keep_alive: KeepAlive,
    pub(super) reconnection_time: Option<Duration>,
    pub(super) last_reconnection: Option<Spread>,
    max_age: Option<Duration>,
    expiry: Option<Expiry>,
    pub(super) until: Option<Until>,
    finite: bool,
}

impl<S, Kind> Sse<Frames<S, Kind>>
where
    S: Stream,
    S::Item: StreamItem<Kind>,
{
    /// Streams what a stream yields: events, frames, anything that becomes a frame, or a `Result`
    /// of these. An `Err` cuts the connection, so that the client comes back.
    pub fn new(stream: S) -> Self {
        Self::from_source(Frames::new(stream))
    }
}

impl Sse<Channel> {
    /// Streams what is sent into a channel of so many events (at least 1, at most
    /// [`CHANNEL_EVENTS_MAX`](super::CHANNEL_EVENTS_MAX)).
    pub fn channel(events_max: usize) -> (SseSender, Self) {
        let (sender, source) = channel::channel(events_max);
        (sender, Self::from_source(source))
    }
}

impl<S> Sse<S> {
    /// Streams what a source yields.
    pub fn from_source(source: S) -> Self {
        Self {
            source,
            keep_alive: KeepAlive::default(),
            reconnection_time: None,
            last_reconnection: None,
            max_age: None,
            expiry: None,
            until: None,
            finite: false,
        }
    }

    /// What is sent on a silent connection. Default: a comment every 15 seconds.
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Tells the client, first of all, how long to wait before it reconnects. Default: nothing.
    pub fn reconnection_time(mut self, reconnection_time: Duration) -> Self {
        self.reconnection_time = Some(reconnection_time);
        self
    }

    /// Tells each client its own time to reconnect as the last thing of a stream that ends without
    /// failing. Default: nothing; but see [`max_age`](Self::max_age).
    pub fn reconnection_spread(mut self, spread: Spread) -> Self {
        self.last_reconnection = Some(spread);
        self
    }

    /// Ends the stream at 80 to 100 % of this age, drawn for each. Default: never.
    ///
    /// The client is told to come back within one to two seconds, unless the response has a
    /// reconnection time or spread of its own. Events not yet sent by then are not sent: a client
    /// that resumes by id gets them, as its id is that of the last event that it has whole.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Ends the stream at an instant or a time of day, such as when the credentials expire.
    /// Default: never. What is said of [`max_age`](Self::max_age) holds here too.
    pub fn expires_at(mut self, expiry: impl Into<Expiry>) -> Self {
        self.expiry = Some(expiry.into());
        self
    }

    /// Ends the stream at a frame boundary once a future completes, after one more batch of what
    /// is ready then.
    pub fn until<F>(mut self, ended: F) -> Self
    where
        F: Future + Send + 'static,
    {
        self.until = Some(Box::pin(async move {
            ended.await;
        }));
        self
    }

    /// Says that the stream ends by itself (a model's answer, an export): a draining server lets
    /// it run until the deadline instead of ending it.
    pub fn finite(mut self) -> Self {
        self.finite = true;
        self
    }

    /// The response, for any server that takes an `http_body::Body`.
    ///
    /// The age of the connection counts from here. Headers: `Content-Type: text/event-stream`,
    /// `Cache-Control: no-store, no-transform`, `X-Accel-Buffering: no`.
    pub fn into_response(self) -> Response<SseBody<S>> {
        let finite = self.finite;
        let mut response = event_stream(SseBody::new(self));
        if finite {
            response.extensions_mut().insert(Finite);
        }
        response
    }

    /// The clock of a body that begins now.
    pub(super) fn clock(&self, pace: Pace) -> Clock {
        let (youngest, oldest) = AGE_PERCENT;
        let age = self.max_age.map(|age| Spread::percent_of(age, youngest, oldest));
        Clock::new(pace, end_of(self.expiry, age))
    }
}

impl<S> fmt::Debug for Sse<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse")
            .field("keep_alive", &self.keep_alive)
            .field("reconnection_time", &self.reconnection_time)
            .field("max_age", &self.max_age)
            .field("finite", &self.finite)
            .finish_non_exhaustive()
    }
}

/// A response with the headers of an event stream.
pub(super) fn event_stream<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    let accel_buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(accel_buffering, HeaderValue::from_static("no"));
    *response.status_mut() = StatusCode::OK;
    response
}

/// True if the headers announce an event stream, whoever wrote them.
#[cfg(feature = "serve")]
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}
