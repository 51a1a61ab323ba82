//! The event source, which connects, reads the stream and reconnects.
//!
//! The event source may have the addresses of several equal servers. When a server fails, the event
//! source goes on at another one. The module `reconnect` of `downlink-proto` decides when to change
//! the server.
//!
//! All work happens while the event source is polled. The event source has at most one attempt or
//! one open stream. It delivers all items of a chunk before it reads the next chunk, so no queue
//! builds up.

use bytes::Bytes;
use downlink_proto::{
    DecodeError, DecodedEvent, Decoder, DecoderLimits, Item,
    reconnect::{
        EMPTY_STREAM_MAX, Outcome, RECONNECTION_TIME_MIN, Reconnect, ReconnectMode, ReconnectPolicy,
    },
};
use futures_core::Stream;
use http::StatusCode;
use reqwest::{Response, Url};
use serde::Deserialize;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    Closed, Credentials, Delivery, Gap, Interruption, Opened, StreamError, TransportError,
    credentials::BoxFuture,
    gap::GAP_EVENT_TYPE,
    renewal::Renewal,
    request::{StreamRequest, last_event_id_header},
};

/// The shortest idle timeout derived from a server's keep-alive interval: 5 seconds.
///
/// With a shorter timeout, the ordinary delays of a busy network would look like a dead server.
pub const IDLE_TIMEOUT_LEARNED_MIN: Duration = Duration::from_secs(5);

/// The idle timeout is this many keep-alive intervals. With 3, the client does not reconnect if one
/// keep-alive is lost and the next one is late.
const IDLE_KEEP_ALIVES: u32 = 3;

const CONTROL_PREFIX: &str = "downlink.";
const OPEN_EVENT_TYPE: &str = "downlink.open";
const EXPIRING_EVENT_TYPE: &str = "downlink.expiring";
const EXPIRED_EVENT_TYPE: &str = "downlink.expired";

/// Credentials count as new only if they end at least this much later than the previous ones: 1
/// second.
///
/// The server announces the end in `downlink.expiring`, as a number of milliseconds after the
/// arrival of this event. So two announcements for the same credentials can give slightly different
/// ends, but these ends differ by less than this value. The value also limits how often the client
/// reconnects. Suppose that a server gives out credentials that last for only half a second. With a
/// smaller value, each of them would count as new, and the client would reconnect twice a second.
const LIFETIME_GAIN_MIN: Duration = Duration::from_secs(1);

/// The type of all events of a subscription with `meta=1`. Such an event has the original type and
/// the topics in its data. Its type begins with `downlink.`, but the event source delivers it as an
/// ordinary event.
const DESCRIBED_EVENT_TYPE: &str = "downlink.event";

/// A lasting subscription. It reconnects after an interruption, and resumes after the last event.
///
/// The event source is a [`Stream`] of [`Delivery`] values. The method [`next`](Self::next) returns
/// the next value, and needs no import of the trait. If another attempt may succeed after an error,
/// the event source delivers the error and tries again. If no attempt can succeed, the event source
/// ends for good, and [`closed_because`](Self::closed_because) returns the reason. The event source
/// connects when it is first polled, makes progress only while it is polled, and closes its socket
/// when dropped.
///
/// With [several addresses](crate::EventSourceBuilder::add_url), another attempt may go to another
/// server.
///
/// Poll it within a tokio runtime with time and I/O enabled.
///
/// # Limits
///
/// An event source has one connection. It holds at most one chunk of the stream, one unfinished
/// line and one unfinished event. [`DecoderLimits`] limits the size of the line and of the event.
#[must_use = "an event source does nothing until it is polled"]
pub struct EventSource {
    request: StreamRequest,
    reconnect: Reconnect,
    settings: SourceSettings,
    /// The decoder of the present stream. It also stores the last event id. The id changes only
    /// when an item is delivered, not when the item is decoded.
    decoder: Decoder,
    /// True from a 401 or a revocation until the next stream opens. Each attempt in this time uses
    /// new credentials. If the answer is a 401 again, the event source ends.
    is_renewed: bool,
    /// The end of the credentials that the server announced last.
    credentials_end: Option<Instant>,
    /// A gap to deliver when the next stream opens, before the events of that stream.
    gap: Option<Gap>,
    phase: SourcePhase,
    closed: Option<Closed>,
}

/// The settings of an event source, except those of the HTTP request.
#[derive(Debug, Default)]
pub(crate) struct SourceSettings {
    pub(crate) last_event_id: String,
    pub(crate) policy: ReconnectPolicy,
    pub(crate) limits: DecoderLimits,
    /// The idle timeout that the caller has set. It overrides the timeout that follows from the
    /// server's keep-alive interval.
    pub(crate) idle_timeout: Option<Duration>,
    /// Whether comments are delivered.
    pub(crate) comments: bool,
    /// Whether the server's own events are delivered, such as `downlink.open`.
    pub(crate) control_events: bool,
}

enum SourcePhase {
    /// The next poll starts an attempt.
    Due,
    /// Waiting for the time of the next attempt.
    Waiting(Pin<Box<Sleep>>),
    /// Waiting for the head of the answer.
    Connecting(BoxFuture<Result<Response, StreamError>>),
    /// Reading the stream.
    Reading(StreamBody),
    /// The stream exceeded a limit. The items that were decoded before are still delivered.
    Failing(DecodeError),
    /// Ended for good. Every further poll returns `None`.
    Closed,
}

struct StreamBody {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    idle: Option<IdleTimer>,
    opened: Instant,
    /// Whether an event has arrived in the stream. Events about the connection do not count,
    /// because a server that refuses a client may send such events and then end the stream.
    brought_event: bool,
    /// The renewal of this stream's credentials. `None` until the server announces their end.
    renewal: Option<Renewal>,
}

struct IdleTimer {
    after: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl IdleTimer {
    fn new(after: Duration) -> Self {
        Self { after, sleep: Box::pin(sleep(after)) }
    }
}

/// The state of an event source, with the standard's names and numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadyState {
    /// Connecting, or waiting to connect again.
    Connecting = 0,
    /// Open.
    Open = 1,
    /// Closed for good.
    Closed = 2,
}

impl EventSource {
    pub(crate) fn new(request: StreamRequest, mut settings: SourceSettings) -> Self {
        let last_event_id = std::mem::take(&mut settings.last_event_id);
        let reconnect = Reconnect::new(settings.policy.clone()).with_urls(request.urls.len());
        Self {
            request,
            reconnect,
            decoder: Decoder::new(settings.limits).with_last_event_id(last_event_id),
            settings,
            is_renewed: false,
            credentials_end: None,
            gap: None,
            phase: SourcePhase::Due,
            closed: None,
        }
    }

    /// Returns the next delivery. `None` means that the event source has ended for good.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, no delivery is lost. The next call continues.
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The id after which the next connection resumes. It is usually the id of the last delivered
    /// event, but a server may also send an id without an event. Empty means no id.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// The address of the present connection or of the next attempt, as the caller gave it. If the
    /// event source has ended, this is the address of its last attempt. [`Opened`] has the address
    /// that answered, after redirects.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.request.urls[self.reconnect.url_index()]
    }

    /// The reconnection time that the server sent last. If the server sent none, this is the
    /// default of the policy.
    #[must_use]
    pub fn reconnection_time(&self) -> Duration {
        self.reconnect.reconnection_time()
    }

    /// Whether the event source is connecting, open or closed.
    #[must_use]
    pub fn ready_state(&self) -> ReadyState {
        match self.phase {
            SourcePhase::Due | SourcePhase::Waiting(_) | SourcePhase::Connecting(_) => {
                ReadyState::Connecting
            }
            SourcePhase::Reading(_) | SourcePhase::Failing(_) => ReadyState::Open,
            SourcePhase::Closed => ReadyState::Closed,
        }
    }

    /// The reason why the event source ended. `None` if it has not ended.
    #[must_use]
    pub fn closed_because(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// The reason why the event source ended, as an owned value. `None` if it has not ended.
    #[must_use]
    pub fn into_closed(self) -> Option<Closed> {
        self.closed
    }

    /// Drops the present connection or wait. The next poll connects to the same address again and
    /// resumes after the last delivery. If the event source has ended, this does nothing.
    pub fn restart(&mut self) {
        if self.closed.is_none() {
            self.phase = SourcePhase::Due;
            self.forget_undelivered();
        }
    }

    /// Ends the event source and closes its socket. The event source delivers nothing afterwards.
    pub fn close(&mut self) {
        if self.closed.is_none() {
            self.closed = Some(Closed::ByCaller);
            self.phase = SourcePhase::Closed;
            self.forget_undelivered();
        }
    }

    /// Discards the items that were decoded but not delivered, together with their decoder. The new
    /// decoder has the id of the last delivery, so the next connection gets the discarded events
    /// again.
    fn forget_undelivered(&mut self) {
        let id = self.decoder.last_event_id().to_owned();
        self.decoder = Decoder::new(self.settings.limits).with_last_event_id(id);
        self.gap = None;
    }

    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        if let SourcePhase::Reading(StreamBody { renewal: Some(renewal), .. }) = &mut self.phase
            && let Poll::Ready(credentials) = renewal.poll(cx, &self.request)
        {
            self.connect(Some(credentials));
            return Poll::Ready(None);
        }
        let error = match &mut self.phase {
            SourcePhase::Due => {
                self.connect(None);
                return Poll::Ready(None);
            }
            SourcePhase::Waiting(wait) => {
                ready!(wait.as_mut().poll(cx));
                self.phase = SourcePhase::Due;
                return Poll::Ready(None);
            }
            SourcePhase::Connecting(attempt) => match ready!(attempt.as_mut().poll(cx)) {
                Ok(answer) => return Poll::Ready(Some(self.open(answer))),
                Err(error) => error,
            },
            SourcePhase::Reading(body) => match body.chunks.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    body.postpone_idle();
                    if let Err(error) = self.decoder.handle_bytes(&chunk) {
                        self.phase = SourcePhase::Failing(error);
                    }
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => StreamError::Broken(TransportError::new(error)),
                Poll::Ready(None) => StreamError::Ended,
                Poll::Pending => StreamError::Idle { after: ready!(body.poll_idle(cx)) },
            },
            SourcePhase::Failing(error) => StreamError::Decode(*error),
            SourcePhase::Closed => return Poll::Ready(None),
        };
        Poll::Ready(self.interrupt(error))
    }

    fn connect(&mut self, credentials: Option<Credentials>) {
        self.forget_undelivered();
        let id = self.decoder.last_event_id();
        let header = if id.is_empty() { None } else { last_event_id_header(id) };
        if header.is_none() && !id.is_empty() {
            self.gap = Some(Gap::after_unsendable(id));
        }
        let attempt = self.request.send(self.url(), credentials, header);
        self.phase = SourcePhase::Connecting(attempt);
    }

    fn open(&mut self, answer: Response) -> Delivery {
        self.reconnect.handle_open();
        self.is_renewed = false;
        let opened = Opened { url: answer.url().clone(), headers: answer.headers().clone() };
        self.phase = SourcePhase::Reading(StreamBody {
            chunks: Box::pin(answer.bytes_stream()),
            idle: self.settings.idle_timeout.map(IdleTimer::new),
            opened: Instant::now(),
            brought_event: false,
            renewal: None,
        });
        Delivery::Open(opened)
    }

    /// Ends the present connection or attempt with an error. Sets the time of the next attempt, or
    /// closes the event source if another attempt would not help.
    fn interrupt(&mut self, error: StreamError) -> Option<Delivery> {
        let url = self.url().clone();
        if self.may_renew(&error) {
            self.is_renewed = true;
            self.phase = SourcePhase::Due;
            return Some(Delivery::Error(Interruption { error, url, retry_in: Duration::ZERO }));
        }
        let outcome = match &self.phase {
            SourcePhase::Reading(body) if body.is_empty() => Outcome::EndedEmpty,
            SourcePhase::Reading(body) => error.outcome(body.opened.elapsed()),
            _ => error.outcome(Duration::ZERO),
        };
        match self.reconnect.handle_outcome(fastrand::u64(..), outcome) {
            Ok(after) => {
                self.phase = SourcePhase::Waiting(Box::pin(sleep(after)));
                Some(Delivery::Error(Interruption { error, url, retry_in: after }))
            }
            Err(reason) => {
                self.closed = Some(Closed::new(reason, error));
                self.phase = SourcePhase::Closed;
                None
            }
        }
    }

    /// Whether another attempt with new credentials may succeed. It may succeed after the first
    /// 401. If the answer to this attempt is a 401 too, new credentials do not help.
    fn may_renew(&self, error: &StreamError) -> bool {
        matches!(error, StreamError::Status { status: StatusCode::UNAUTHORIZED, .. })
            && self.request.credentials.is_some()
            && !self.is_renewed
            && self.settings.policy.mode == ReconnectMode::Resilient
    }

    /// The next delivery from the decoded items. `None` if all decoded items are delivered.
    fn next_decoded(&mut self) -> Option<Delivery> {
        if matches!(self.phase, SourcePhase::Reading(_))
            && let Some(gap) = self.gap.take()
        {
            return Some(Delivery::Gap(gap));
        }
        loop {
            match self.decoder.poll_item()? {
                Item::Event(event) => {
                    if let Some(delivery) = self.take_event(event) {
                        return Some(delivery);
                    }
                }
                Item::Comment(text) if self.settings.comments => {
                    return Some(Delivery::Comment(text));
                }
                Item::Retry(time) => self.reconnect.handle_retry(time.into()),
                _ => {}
            }
        }
    }

    fn take_event(&mut self, event: DecodedEvent) -> Option<Delivery> {
        if event.event_type == GAP_EVENT_TYPE {
            return Some(Delivery::Gap(Gap::parse(&event.data)));
        }
        match &*event.event_type {
            OPEN_EVENT_TYPE => self.learn_idle_timeout(&event.data),
            EXPIRING_EVENT_TYPE => self.renew_before_end(&event.data),
            EXPIRED_EVENT_TYPE => self.is_renewed |= is_revoked(&event.data),
            _ => {}
        }
        let is_control = event.event_type.starts_with(CONTROL_PREFIX)
            && event.event_type != DESCRIBED_EVENT_TYPE;
        if let SourcePhase::Reading(body) = &mut self.phase
            && !is_control
        {
            body.brought_event = true;
        }
        let hidden = is_control && !self.settings.control_events;
        (!hidden).then(|| Delivery::Event(event.into()))
    }

    /// Begins to get new credentials, because the server has announced the end of the present ones.
    /// Does nothing if the next stream could not resume after the last delivery. Also does nothing
    /// if the server has announced an end before, and the new end is less than
    /// [`LIFETIME_GAIN_MIN`] later.
    fn renew_before_end(&mut self, data: &str) {
        #[derive(Deserialize)]
        struct ExpiryNotice {
            in_ms: u64,
        }

        let SourcePhase::Reading(body) = &mut self.phase else { return };
        let id = self.decoder.last_event_id();
        let resumes = !id.is_empty() && last_event_id_header(id).is_some();
        if self.request.credentials.is_some()
            && self.settings.policy.mode == ReconnectMode::Resilient
            && resumes
            && let Ok(ExpiryNotice { in_ms }) = serde_json::from_str(data)
            && let Some(end) = Instant::now().checked_add(Duration::from_millis(in_ms))
            && self.credentials_end.is_none_or(|last| end >= last + LIFETIME_GAIN_MIN)
        {
            self.credentials_end = Some(end);
            let begin = body.opened + RECONNECTION_TIME_MIN;
            let policy = &self.settings.policy;
            body.renewal.get_or_insert_with(|| Renewal::at(begin, policy.clone()));
        }
    }

    /// Derives the idle timeout from the server's keep-alive interval. Does nothing if the caller
    /// has set an idle timeout.
    fn learn_idle_timeout(&mut self, data: &str) {
        #[derive(Deserialize)]
        struct OpenNotice {
            keep_alive_ms: u64,
        }

        let SourcePhase::Reading(body) = &mut self.phase else { return };
        if self.settings.idle_timeout.is_none()
            && let Ok(OpenNotice { keep_alive_ms }) = serde_json::from_str(data)
            && keep_alive_ms > 0
        {
            let after = Duration::from_millis(keep_alive_ms).saturating_mul(IDLE_KEEP_ALIVES);
            body.idle = Some(IdleTimer::new(after.max(IDLE_TIMEOUT_LEARNED_MIN)));
        }
    }
}

/// Whether the server has revoked the credentials, according to its notice that they have ended.
fn is_revoked(data: &str) -> bool {
    #[derive(Deserialize)]
    struct EndNotice {
        code: String,
    }

    serde_json::from_str(data).is_ok_and(|EndNotice { code }| code == "revoked")
}

impl StreamBody {
    /// Whether a stream that ends now counts as empty: it was short, and no event arrived.
    fn is_empty(&self) -> bool {
        !self.brought_event && self.opened.elapsed() < EMPTY_STREAM_MAX
    }

    fn postpone_idle(&mut self) {
        // If the timeout is so long that the new deadline is beyond the range of the clock, the
        // timer keeps its old deadline. In practice, the clock reaches neither deadline.
        if let Some(idle) = &mut self.idle
            && let Some(at) = Instant::now().checked_add(idle.after)
        {
            idle.sleep.as_mut().reset(at);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        ready!(idle.sleep.as_mut().poll(cx));
        Poll::Ready(idle.after)
    }
}

impl Stream for EventSource {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            if let Some(delivery) = self.next_decoded() {
                return Poll::Ready(Some(delivery));
            }
            if let Some(delivery) = ready!(self.poll_advance(cx)) {
                return Poll::Ready(Some(delivery));
            }
            if let SourcePhase::Closed = self.phase {
                return Poll::Ready(None);
            }
        }
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource")
            .field("request", &self.request)
            .field("ready_state", &self.ready_state())
            .field("last_event_id", &self.last_event_id())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
