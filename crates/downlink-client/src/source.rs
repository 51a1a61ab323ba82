//! The event source: connects, reads, reconnects.
//!
//! Everything happens while it is polled. It owns one attempt or one open body at a time, and what
//! it decoded from a chunk is delivered before the next chunk is read, so nothing queues up.

use bytes::Bytes;
use downlink_proto::{
    DecodedEvent, Decoder, DecoderLimits, Item,
    reconnect::{Reconnect, ReconnectPolicy, Step, Verdict},
};
use futures_core::Stream;
use reqwest::Response;
use serde::Deserialize;
use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{
    Closed, Delivery, Gap, Interruption, Opened, StreamError, TransportError,
    gap::GAP_EVENT_TYPE,
    request::{Future, Request, last_event_id_header},
};

/// The shortest idle timeout taken from a server's keep-alive interval: 5 seconds.
///
/// Below that a busy network's ordinary delays would look like a dead peer.
pub const IDLE_TIMEOUT_LEARNED_MIN: Duration = Duration::from_secs(5);

/// How many keep-alive intervals may pass in silence: one may be late, and one may be lost.
const IDLE_KEEP_ALIVES: u32 = 3;

const CONTROL_PREFIX: &str = "downlink.";
const OPEN_EVENT_TYPE: &str = "downlink.open";

/// A subscription that lasts: it reconnects by itself and resumes where it was.
///
/// It is a [`Stream`] of [`Delivery`] values, and [`next`](Self::next) reads it without any trait.
/// Errors that another attempt may mend are deliveries; the end of the stream is final, and
/// [`closed_because`](Self::closed_because) tells why. It connects when first polled, makes no
/// progress without being polled, and closes its socket when dropped.
///
/// Must be polled within a tokio runtime with time and I/O enabled.
///
/// # Limits
///
/// One connection, and of its stream at most one unfinished line and one unfinished event, each
/// within [`DecoderLimits`], besides one chunk.
#[must_use = "an event source does nothing until it is polled"]
pub struct EventSource {
    request: Request,
    reconnect: Reconnect,
    limits: DecoderLimits,
    shown: Shown,
    /// As set by the caller; it goes before what the server says.
    idle_timeout: Option<Duration>,
    /// Holds the last event id over reconnects, as of the last delivery.
    decoder: Decoder,
    /// A gap to deliver before the events of this connection.
    gap: Option<Gap>,
    phase: Phase,
    closed: Option<Closed>,
}

/// The settings of an event source, besides the request.
#[derive(Debug, Default)]
pub(crate) struct SourceSettings {
    pub(crate) last_event_id: String,
    pub(crate) policy: ReconnectPolicy,
    pub(crate) limits: DecoderLimits,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) shown: Shown,
}

/// The deliveries to show besides events and gaps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) comments: bool,
    pub(crate) control_events: bool,
}

enum Phase {
    /// Between two connections. Asks the reconnection rules.
    Idle,
    /// Until the next attempt is due.
    Waiting(Pin<Box<Sleep>>),
    /// Until the head of the answer.
    Connecting(Future<Result<Response, StreamError>>),
    /// Open.
    Reading(Body),
    /// The body failed. The items decoded before are still delivered.
    Failing(StreamError),
    /// Ended for good. Every further poll answers `None`.
    Closed,
}

struct Body {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    idle: Option<IdleTimer>,
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

/// The state of an event source, in the standard's words and numbers.
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
    pub(crate) fn new(request: Request, settings: SourceSettings) -> Self {
        Self {
            request,
            reconnect: Reconnect::new(settings.policy),
            limits: settings.limits,
            shown: settings.shown,
            idle_timeout: settings.idle_timeout,
            decoder: Decoder::new(settings.limits).with_last_event_id(settings.last_event_id),
            gap: None,
            phase: Phase::Idle,
            closed: None,
        }
    }

    /// The next delivery; `None` after the end, which is final.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost when the future is dropped, and the next call goes on where
    /// this one was.
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The id after which the next connection resumes: that of the last delivered event, or a later
    /// one that came without an event. Empty means from nothing.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// The wait before a reconnect, as the server last set it.
    #[must_use]
    pub fn reconnection_time(&self) -> Duration {
        self.reconnect.reconnection_time()
    }

    /// Whether it is connecting, open or closed.
    #[must_use]
    pub fn ready_state(&self) -> ReadyState {
        match self.phase {
            Phase::Idle | Phase::Waiting(_) | Phase::Connecting(_) => ReadyState::Connecting,
            Phase::Reading(_) | Phase::Failing(_) => ReadyState::Open,
            Phase::Closed => ReadyState::Closed,
        }
    }

    /// Why it ended for good; `None` while it has not.
    #[must_use]
    pub fn closed_because(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Why it ended for good, as a value of its own; `None` if it has not.
    #[must_use]
    pub fn into_closed(self) -> Option<Closed> {
        self.closed
    }

    /// Drops the connection or the wait, and connects anew at the next poll, resuming after what
    /// was delivered. Does nothing once closed.
    pub fn restart(&mut self) {
        if self.closed.is_none() {
            self.reconnect.restart();
            self.phase = Phase::Idle;
            self.forget_undelivered();
        }
    }

    /// Ends it and releases the socket. Nothing is delivered afterwards.
    pub fn close(&mut self) {
        if self.closed.is_none() {
            self.reconnect.close();
            self.closed = Some(Closed::ByCaller);
            self.phase = Phase::Closed;
            self.forget_undelivered();
        }
    }

    /// A new decoder at the last delivery. A body is always read by a decoder of its own.
    fn forget_undelivered(&mut self) {
        let id = self.decoder.last_event_id().to_owned();
        self.decoder = Decoder::new(self.limits).with_last_event_id(id);
        self.gap = None;
    }

    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {
                self.start_step();
                Poll::Ready(None)
            }
            Phase::Waiting(wait) => self.poll_wait(cx, wait),
            Phase::Connecting(attempt) => self.poll_connect(cx, attempt),
            Phase::Reading(body) => self.poll_read(cx, body),
            Phase::Failing(error) => Poll::Ready(self.interrupt(error)),
            Phase::Closed => {
                self.phase = Phase::Closed;
                Poll::Ready(None)
            }
        }
    }

    fn start_step(&mut self) {
        match self.reconnect.poll_step(Instant::now().into_std()) {
            Step::Connect => self.connect(),
            Step::WaitUntil(at) => self.phase = Phase::Waiting(Box::pin(sleep_until(at.into()))),
            Step::Stopped(_) => self.phase = Phase::Closed,
            // Nothing is under way here: whatever was has been dropped.
            _ => self.reconnect.restart(),
        }
    }

    fn connect(&mut self) {
        self.forget_undelivered();
        let id = self.decoder.last_event_id();
        let header = if id.is_empty() { None } else { last_event_id_header(id) };
        if header.is_none() && !id.is_empty() {
            self.gap = Some(Gap::after_unsendable(id));
        }
        self.phase = Phase::Connecting(self.request.send(header));
    }

    fn poll_wait(
        &mut self,
        cx: &mut Context<'_>,
        mut wait: Pin<Box<Sleep>>,
    ) -> Poll<Option<Delivery>> {
        if wait.as_mut().poll(cx).is_pending() {
            self.phase = Phase::Waiting(wait);
            return Poll::Pending;
        }
        Poll::Ready(None)
    }

    fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: Future<Result<Response, StreamError>>,
    ) -> Poll<Option<Delivery>> {
        match attempt.as_mut().poll(cx) {
            Poll::Pending => {
                self.phase = Phase::Connecting(attempt);
                Poll::Pending
            }
            Poll::Ready(Ok(answer)) => Poll::Ready(Some(self.open(answer))),
            Poll::Ready(Err(error)) => Poll::Ready(self.interrupt(error)),
        }
    }

    fn open(&mut self, answer: Response) -> Delivery {
        self.reconnect.handle_open();
        let opened = Opened { url: answer.url().clone(), headers: answer.headers().clone() };
        self.phase = Phase::Reading(Body {
            chunks: Box::pin(answer.bytes_stream()),
            idle: self.idle_timeout.map(IdleTimer::new),
        });
        Delivery::Open(opened)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, mut body: Body) -> Poll<Option<Delivery>> {
        let error = match body.chunks.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                body.postpone_idle();
                self.phase = match self.decoder.handle_bytes(&chunk) {
                    Ok(()) => Phase::Reading(body),
                    Err(error) => Phase::Failing(StreamError::Decode(error)),
                };
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => StreamError::Broken(TransportError::new(error)),
            Poll::Ready(None) => StreamError::Ended,
            Poll::Pending => match body.poll_idle(cx) {
                Poll::Ready(after) => StreamError::Idle { after },
                Poll::Pending => {
                    self.phase = Phase::Reading(body);
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(self.interrupt(error))
    }

    /// The connection or the attempt is over: either another follows or this is the end.
    fn interrupt(&mut self, error: StreamError) -> Option<Delivery> {
        let now = Instant::now().into_std();
        let random = fastrand::u64(..);
        match self.reconnect.handle_outcome(now, random, error.outcome()) {
            Verdict::Reconnect { after } => {
                self.phase = Phase::Idle;
                Some(Delivery::Error(Interruption { error, retry_in: after }))
            }
            Verdict::Stop(reason) => {
                self.closed = Some(Closed::new(reason, error));
                self.phase = Phase::Closed;
                None
            }
            _ => None,
        }
    }

    /// The next delivery among what this connection has brought.
    fn next_decoded(&mut self) -> Option<Delivery> {
        if matches!(self.phase, Phase::Reading(_))
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
                Item::Comment(text) if self.shown.comments => return Some(Delivery::Comment(text)),
                Item::Retry(time) => self.reconnect.handle_retry(time.into()),
                _ => {}
            }
        }
    }

    fn take_event(&mut self, event: DecodedEvent) -> Option<Delivery> {
        if event.event_type == GAP_EVENT_TYPE {
            return Some(Delivery::Gap(Gap::parse(&event.data)));
        }
        if event.event_type == OPEN_EVENT_TYPE {
            self.learn_idle_timeout(&event.data);
        }
        let hidden = event.event_type.starts_with(CONTROL_PREFIX) && !self.shown.control_events;
        (!hidden).then_some(Delivery::Event(event))
    }

    /// Uses the server's keep-alive interval for this connection, unless the caller set a limit.
    fn learn_idle_timeout(&mut self, data: &str) {
        #[derive(Deserialize)]
        struct Open {
            keep_alive_ms: u64,
        }

        let Phase::Reading(body) = &mut self.phase else { return };
        if self.idle_timeout.is_none()
            && let Ok(Open { keep_alive_ms }) = serde_json::from_str(data)
            && keep_alive_ms > 0
        {
            let after = Duration::from_millis(keep_alive_ms).saturating_mul(IDLE_KEEP_ALIVES);
            body.idle = Some(IdleTimer::new(after.max(IDLE_TIMEOUT_LEARNED_MIN)));
        }
    }
}

impl Body {
    fn postpone_idle(&mut self) {
        // A limit beyond the clock is none, and needs no new moment.
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
            if let Phase::Closed = self.phase {
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
