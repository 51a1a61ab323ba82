//! The body of an event stream response.
//!
//! First bytes at once, whatever is ready in one buffer, a keep-alive after silence, and an end
//! that is always at a frame boundary. A body that fails (its source reports an error, or panics)
//! yields an error instead, so that the server cuts the connection and the client comes back. What
//! was gathered before a failure still goes out first.
//!
//! A server polls a body only while its socket takes bytes: what a peer has not read is never more
//! than one batch here.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use downlink_proto::Frame;
use http_body::Body;
use pin_project_lite::pin_project;

use super::batch::{BATCH_FRAMES_MAX, Batch};
use super::clock::{Clock, Tick};
use super::keep_alive::comment;
use super::source::{AnyError, FrameSource};
use super::sse::AGED_RECONNECTION;
use super::{Spread, Sse, turn};

/// The future that ends a response from outside.
pub(super) type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a response was cut.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// The source of the events reported an error.
    Source(SourceError),
    /// The source of the events panicked.
    Panicked,
}

/// The error of a source; the cause is its `source()`.
#[derive(Debug)]
pub struct SourceError(AnyError);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(_) => "the source of the events failed",
            Self::Panicked => "the source of the events panicked",
        })
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source(SourceError(cause)) => Some(cause.as_ref()),
            Self::Panicked => None,
        }
    }
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing was sent.
    Opening,
    /// The first bytes are out.
    Open,
    /// The last chunk before the failure was handed over.
    Failing,
    /// The server had a turn to send that chunk.
    Failed,
    /// Every further poll answers `None`.
    Ended,
}

/// What a look at the source found after the frames that were ready.
enum Found {
    /// Nothing more for now, or the batch is full.
    Open,
    End,
    /// The response has reached its age or expiry.
    Aged,
    Failure(BodyError),
}

pin_project! {
    /// The body of an event stream response; made by [`Sse::into_response`](super::Sse).
    ///
    /// Needs a tokio runtime with time enabled. Dropping it drops the source: that is how a
    /// producer learns that its reader is gone.
    pub struct SseBody<S> {
        #[pin]
        source: S,
        phase: Phase,
        clock: Clock,
        // None where all of it is as by default, which an idle connection pays nothing for.
        rest: Option<Box<Rest>>,
    }
}

/// What few bodies have.
#[derive(Default)]
struct Rest {
    reconnection_time: Option<Duration>,
    last_reconnection: Option<Spread>,
    until: Option<Until>,
    /// What is sent after a silence, if not the default.
    keep_alive: Option<Box<Frame>>,
    /// A frame that did not fit into the batch before.
    held: Option<Frame>,
    /// Why the body fails, until that is said.
    failure: Option<BodyError>,
}

impl<S> SseBody<S> {
    pub(super) fn new(sse: Sse<S>) -> Self {
        let (pace, keep_alive) = sse.keep_alive.clone().into_parts();
        let clock = sse.clock(pace);
        let Sse { source, reconnection_time, last_reconnection, until, .. } = sse;
        let plain = reconnection_time.is_none() && last_reconnection.is_none();
        let plain = plain && until.is_none() && keep_alive.is_none();
        let rest =
            Rest { reconnection_time, last_reconnection, until, keep_alive, ..Rest::default() };
        let rest = (!plain).then(|| Box::new(rest));
        Self { source, phase: Phase::Opening, clock, rest }
    }
}

impl<S: FrameSource> Body for SseBody<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if self.is_plain(cx) {
            return self.poll_plain(cx);
        }
        // Who writes several frames at once needs no copy of them in one buffer.
        let frames_max = if turn::is_direct(cx) { 1 } else { BATCH_FRAMES_MAX };
        let mut batch = Batch::of(frames_max);
        let phase = self.as_mut().project().phase;
        let found = match std::mem::replace(phase, Phase::Ended) {
            Phase::Opening => {
                greet(&mut batch, self.rest.as_ref().and_then(|rest| rest.reconnection_time));
                match self.as_mut().open(&mut batch) {
                    Ok(()) => self.as_mut().look(cx, &mut batch),
                    Err(panicked) => Found::Failure(panicked),
                }
            }
            Phase::Open => self.as_mut().look(cx, &mut batch),
            Phase::Failing => {
                // A server throws away what it has not written when a body fails.
                *phase = Phase::Failed;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Phase::Failed => {
                let failure = self.project().rest.as_mut().and_then(|rest| rest.failure.take());
                return Poll::Ready(failure.map(Err));
            }
            Phase::Ended => return Poll::Ready(None),
        };
        self.conclude(found, batch, cx)
    }

    fn is_end_stream(&self) -> bool {
        // Also the question of who is about to poll many bodies, and wants them in the cache.
        black_box(self.source.warm() | self.clock.interval().is_some());
        self.phase == Phase::Ended
    }
}

impl<S: FrameSource> SseBody<S> {
    /// The next frame of an open body that has nothing special, for a server that takes frames one by
    /// one: what nearly every poll is.
    fn poll_plain(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let this = self.as_mut().project();
        let mut batch = Batch::of(1);
        let found = match unpanicked(|| this.source.poll_frame(cx)) {
            Ok(Poll::Ready(Some(frame))) => {
                this.clock.saw_traffic(cx);
                return Poll::Ready(Some(Ok(http_body::Frame::data(frame.into_bytes()))));
            }
            Ok(Poll::Ready(None)) => self.as_mut().over(),
            Ok(Poll::Pending) => match self.as_mut().wait(cx, &mut batch) {
                Found::Open if batch.is_empty() => return Poll::Pending,
                found => found,
            },
            Err(panicked) => Found::Failure(panicked),
        };
        self.conclude(found, batch, cx)
    }

    /// Whether there is nothing to look at but the source.
    fn is_plain(&self, cx: &Context<'_>) -> bool {
        let open = self.phase == Phase::Open && self.rest.is_none() && turn::is_direct(cx);
        open && !self.source.keeps_beat() && !self.clock.has_ended(cx)
    }

    /// Lets the source say what it has to say first.
    fn open(self: Pin<&mut Self>, batch: &mut Batch) -> Result<(), BodyError> {
        let this = self.project();
        let interval = this.clock.interval();
        if let Some(frame) = unpanicked(|| this.source.opening(interval))? {
            batch.push_last(frame);
        }
        Ok(())
    }

    /// Gathers what there is to send, and finds out whether it is all.
    fn look(mut self: Pin<&mut Self>, cx: &mut Context<'_>, batch: &mut Batch) -> Found {
        if self.clock.has_ended(cx) {
            return Found::Aged;
        }
        let asked_to_end = match self.as_mut().poll_until(cx) {
            Ok(asked) => asked,
            Err(error) => return Found::Failure(error),
        };
        match self.as_mut().gather(cx, batch) {
            Found::Open if asked_to_end => Found::End,
            Found::Open if batch.is_empty() || self.may_beat() => self.wait(cx, batch),
            found => found,
        }
    }

    /// Whether a keep-alive may follow what was gathered. One with an id must not overtake a frame
    /// that did not fit.
    fn may_beat(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.held.is_none()) && self.source.keeps_beat()
    }

    /// True once the caller's future has completed.
    fn poll_until(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<bool, BodyError> {
        let rest = self.project().rest.as_mut();
        let Some(until) = rest.and_then(|rest| rest.until.as_mut()) else { return Ok(false) };
        unpanicked(|| until.as_mut().poll(cx).is_ready())
    }

    /// Takes frames from the source until it has none ready or the batch is full.
    fn gather(mut self: Pin<&mut Self>, cx: &mut Context<'_>, batch: &mut Batch) -> Found {
        let mut this = self.as_mut().project();
        let mut next = this.rest.as_mut().and_then(|rest| rest.held.take());
        loop {
            if let Some(frame) = next.take()
                && let Err(frame) = batch.push(frame)
            {
                this.rest.get_or_insert_default().held = Some(frame);
                return Found::Open;
            }
            if batch.is_full() {
                return Found::Open;
            }
            match unpanicked(|| this.source.as_mut().poll_frame(cx)) {
                Ok(Poll::Ready(Some(frame))) => next = Some(frame),
                Ok(Poll::Ready(None)) => return self.over(),
                Ok(Poll::Pending) => return Found::Open,
                Err(panicked) => return Found::Failure(panicked),
            }
        }
    }

    /// How the source has ended.
    fn over(self: Pin<&mut Self>) -> Found {
        let error = self.project().source.take_error();
        let failure = error.map(|error| BodyError::Source(SourceError(error)));
        failure.map_or(Found::End, Found::Failure)
    }

    /// Looks at the clock, and waits for it if there is nothing else to send.
    fn wait(self: Pin<&mut Self>, cx: &mut Context<'_>, batch: &mut Batch) -> Found {
        let this = self.project();
        match this.clock.poll_tick(cx) {
            Poll::Pending => Found::Open,
            Poll::Ready(Tick::End) => Found::Aged,
            Poll::Ready(Tick::Silence) => match unpanicked(|| this.source.keep_alive()) {
                Ok(frame) => {
                    batch.push_last(frame.unwrap_or_else(|| keep_alive(this.rest.as_deref())));
                    Found::Open
                }
                Err(panicked) => Found::Failure(panicked),
            },
        }
    }

    /// Sends what was gathered and moves on to the phase that follows.
    fn conclude(
        self: Pin<&mut Self>,
        found: Found,
        mut batch: Batch,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let this = self.project();
        *this.phase = match found {
            Found::Open => Phase::Open,
            Found::Failure(error) if batch.is_empty() => {
                *this.phase = Phase::Ended;
                return Poll::Ready(Some(Err(error)));
            }
            Found::Failure(error) => {
                this.rest.get_or_insert_default().failure = Some(error);
                Phase::Failing
            }
            Found::End | Found::Aged => {
                if let Some(spread) = goodbye(this.rest.as_deref(), &found) {
                    batch.push_last(Frame::retry(spread.pick()));
                }
                Phase::Ended
            }
        };
        if batch.is_empty() {
            let open = *this.phase == Phase::Open;
            return if open { Poll::Pending } else { Poll::Ready(None) };
        }
        if !this.source.as_ref().get_ref().keeps_beat() {
            this.clock.saw_traffic(cx);
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(batch.into_bytes()))))
    }
}

/// What is sent before anything else: some proxies hold headers back until the first byte of the
/// body, and a browser's `open` event waits for them.
fn greet(batch: &mut Batch, reconnection_time: Option<Duration>) {
    batch.push_last(Frame::comment("connected"));
    if let Some(reconnection_time) = reconnection_time {
        batch.push_last(Frame::retry(reconnection_time));
    }
}

/// What is sent after a silence.
fn keep_alive(rest: Option<&Rest>) -> Frame {
    let said = rest.and_then(|rest| rest.keep_alive.as_deref());
    said.map_or_else(comment, Frame::clone)
}

/// When the client of a stream that ends comes back, if it is told.
fn goodbye(rest: Option<&Rest>, found: &Found) -> Option<Spread> {
    let said = rest.and_then(|rest| rest.last_reconnection);
    let unsaid = rest.is_none_or(|rest| rest.reconnection_time.is_none());
    let aged = matches!(found, Found::Aged) && unsaid;
    said.or_else(|| aged.then_some(AGED_RECONNECTION))
}

/// Runs code of the user; a panic in it is logged and becomes the end of this one response.
fn unpanicked<T>(code: impl FnOnce() -> T) -> Result<T, BodyError> {
    // Nothing sees a state that a panic left behind: the source is not polled again.
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        tracing::error!(panic = text_of(panic.as_ref()), "the source of a response panicked");
        BodyError::Panicked
    })
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}

impl<S> fmt::Debug for SseBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseBody").field("phase", &self.phase).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::http::in_turn;

    /// Says its words, then fails in one of the ways there are.
    struct Failing {
        words: Vec<&'static str>,
        panics: bool,
        failed: bool,
    }

    impl FrameSource for Failing {
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Frame>> {
            assert!(!self.failed, "polled again");
            if let Some(word) = self.words.pop() {
                return Poll::Ready(Some(Frame::comment(word)));
            }
            self.failed = true;
            assert!(!self.panics, "as a user's source may");
            Poll::Ready(None)
        }

        fn take_error(self: Pin<&mut Self>) -> Option<AnyError> {
            Some("no more words".into())
        }
    }

    fn text(polled: Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>>) -> String {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.into_data().expect("no trailers");
                String::from_utf8(bytes.to_vec()).expect("text")
            }
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn failure_is_said_once_to_a_server_that_takes_frames_one_by_one() {
        for panics in [false, true] {
            let source = Failing { words: vec!["two", "one"], panics, failed: false };
            let mut body = Box::pin(Sse::from_source(source).into_response().into_body());
            let mut poll = || {
                let mut cx = Context::from_waker(Waker::noop());
                text(in_turn(0, &mut cx, |cx| body.as_mut().poll_frame(cx)).0)
            };
            assert_eq!([poll(), poll(), poll()], [": connected\n\n", ": one\n\n", ": two\n\n"]);
            assert!(poll().starts_with("Ready(Some(Err("));
            assert_eq!([poll(), poll()], ["Ready(None)", "Ready(None)"]);
            assert!(body.is_end_stream());
        }
    }
}
