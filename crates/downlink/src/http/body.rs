//! The body of an event stream response.
//!
//! A body gets its frames (encoded events) from a source. It sends its first bytes at once, and
//! joins the frames that are ready into one buffer. It sends a keep-alive after a silence, and ends
//! only after a complete frame.
//!
//! A body fails if its source reports an error or panics. The body then sends the frames that came
//! before the failure, and yields an error. Because of the error, the server cuts the connection,
//! and the client reconnects.
//!
//! A server polls a body only while the socket takes bytes. So a body holds at most one batch that
//! its peer has not read.

use std::fmt;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use downlink_proto::{Event, EventType, Frame};
use http_body::Body;
use pin_project_lite::pin_project;

use super::batch::{BATCH_FRAMES_MAX, FrameBatch};
use super::clock::{BodyClock, Tick};
use super::driven;
use super::source::{AnyError, FrameSource};
use super::spread::Spread;

/// The range of the reconnection times for clients whose stream has reached its maximum age or its
/// expiry. The range applies if the response sets no other time.
///
/// A browser that gets no reconnection time waits 3 to 5 s, and the page does not update meanwhile.
/// The range can be short: the streams end at random times, so their clients do not return
/// together. The shortest time is a second, because a stream may have expired before it begins.
/// With a shorter time, the client of such a stream would send requests in a fast loop.
const AGED_RECONNECTION: Spread = Spread::between(Duration::from_secs(1), Duration::from_secs(2));

/// Why a response was cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The source of the events reported an error.
    #[error("the source of the events failed")]
    Source(#[source] AnyError),
    /// The source of the events panicked.
    #[error("the source of the events panicked")]
    Panicked,
}

/// The phase of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum BodyPhase {
    /// The body has sent nothing.
    Opening,
    /// The body has sent its first bytes.
    Open,
    /// The body has failed, and has yielded the last chunk before the failure. The next poll
    /// returns `Pending`, so that the server can write this chunk.
    Failing,
    /// The server could write the last chunk. The next poll yields the failure.
    Failed,
    /// The body has ended. Every further poll returns `None`.
    Ended,
}

/// The state of the stream after the ready frames were gathered.
enum StreamState {
    /// More frames may come later, or at once if the batch is full.
    Open,
    /// The stream has ended.
    End,
    /// The stream has ended, because the response has reached its maximum age or expiry.
    Aged,
}

pin_project! {
    /// The body of an event stream response, from [`Sse::into_http_response`](super::Sse).
    ///
    /// The body needs a tokio runtime with time enabled. Dropping the body drops its source. This
    /// is how the source learns that the reader has left.
    pub struct SseBody<S> {
        #[pin]
        source: S,
        phase: BodyPhase,
        clock: BodyClock,
        // `None` with default settings, so that most connections need no memory for these parts.
        uncommon: Option<Box<UncommonParts>>,
    }
}

/// The parts that few bodies have.
#[derive(Default)]
pub(super) struct UncommonParts {
    pub(super) reconnection_time: Option<Duration>,
    pub(super) last_reconnection: Option<Spread>,
    /// Ends the response when this future completes.
    pub(super) until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The frame of the keep-alive, if it is not the default frame.
    pub(super) keep_alive: Option<Box<Frame>>,
    /// A frame that did not fit into the last batch.
    held: Option<Frame>,
    /// The error of a body that has failed. `None` once the body has yielded the error.
    failure: Option<BodyError>,
}

impl<S> SseBody<S> {
    pub(super) fn new(source: S, clock: BodyClock, uncommon: Option<Box<UncommonParts>>) -> Self {
        Self { source, phase: BodyPhase::Opening, clock, uncommon }
    }
}

impl<S: FrameSource> Body for SseBody<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        // A driver is a task of the server that polls many bodies (see `driven`). A driver can
        // write several frames in one call, so a body need not copy its frames into one buffer for
        // the driver.
        let mut batch = FrameBatch::of(if driven::is_driven(cx) { 1 } else { BATCH_FRAMES_MAX });
        let phase = self.as_mut().project().phase;
        let next = match std::mem::replace(phase, BodyPhase::Ended) {
            BodyPhase::Opening => {
                self.as_mut().open(&mut batch).and_then(|()| self.as_mut().fill(cx, &mut batch))
            }
            BodyPhase::Open => self.as_mut().fill(cx, &mut batch),
            BodyPhase::Failing => {
                // When a body fails, the server discards the chunks that it has not written yet. So
                // the body first lets the server write the last chunk, and yields the failure in
                // the next poll.
                *phase = BodyPhase::Failed;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            BodyPhase::Failed => {
                let uncommon = self.project().uncommon.as_mut();
                let failure = uncommon.and_then(|uncommon| uncommon.failure.take());
                return Poll::Ready(failure.map(Err));
            }
            BodyPhase::Ended => return Poll::Ready(None),
        };
        self.conclude(next, batch, cx)
    }

    fn is_end_stream(&self) -> bool {
        if driven::is_prefetching() {
            black_box(self.source.prefetch() | self.clock.interval().is_some());
        }
        self.phase == BodyPhase::Ended
    }
}

impl<S: FrameSource> SseBody<S> {
    /// Adds the first bytes, which are sent at once. Some proxies hold the headers back until the
    /// first byte of the body arrives. A browser fires its `open` event only when it has the
    /// headers. Without these bytes, a page would learn of the connection only with the first
    /// event.
    fn open(self: Pin<&mut Self>, batch: &mut FrameBatch) -> Result<(), BodyError> {
        let this = self.project();
        batch.push_last(Frame::comment("connected"));
        if let Some(time) = this.uncommon.as_ref().and_then(|uncommon| uncommon.reconnection_time) {
            batch.push_last(Frame::retry(time));
        }
        let interval = this.clock.interval();
        if let Some(frame) = catch_panic(|| this.source.opening(interval))? {
            batch.push_last(frame);
        }
        Ok(())
    }

    /// If the notice of the expiry is due, adds only this notice. Otherwise adds the frames that
    /// are ready. Then adds a keep-alive if one is due. A batch that already has frames gets a
    /// keep-alive only if `may_add_keep_alive` allows it.
    fn fill(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        batch: &mut FrameBatch,
    ) -> Result<StreamState, BodyError> {
        if self.clock.has_ended(cx) {
            return Ok(StreamState::Aged);
        }
        if let Some(left) = self.as_mut().project().clock.take_notice(cx) {
            batch.push_last(expiring(left));
            return Ok(StreamState::Open);
        }
        let must_end = self.as_mut().poll_until(cx)?;
        match self.as_mut().gather(cx, batch)? {
            StreamState::Open if must_end => Ok(StreamState::End),
            StreamState::Open if batch.is_empty() || self.may_add_keep_alive() => {
                self.poll_clock(cx, batch)
            }
            next => Ok(next),
        }
    }

    /// Whether a keep-alive may be added to a batch that already has frames. This is allowed if the
    /// source has steady keep-alives (sent at regular intervals, even on a busy stream) and no
    /// frame is held for the next batch. The keep-alive may have an id that is later than the id of
    /// a held frame. So the client must not get the keep-alive before the held frame.
    fn may_add_keep_alive(&self) -> bool {
        self.source.has_steady_keep_alive()
            && self.uncommon.as_ref().is_none_or(|uncommon| uncommon.held.is_none())
    }

    /// Whether the future `until` has completed.
    fn poll_until(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<bool, BodyError> {
        let uncommon = self.project().uncommon.as_mut();
        let until = uncommon.and_then(|uncommon| uncommon.until.as_mut());
        until.map_or(Ok(false), |until| catch_panic(|| until.as_mut().poll(cx).is_ready()))
    }

    /// Takes frames from the source until it has none ready or the batch is full.
    fn gather(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        batch: &mut FrameBatch,
    ) -> Result<StreamState, BodyError> {
        let mut this = self.project();
        if let Some(held) = this.uncommon.as_mut().and_then(|uncommon| uncommon.held.take()) {
            batch.push_last(held);
        }
        while !batch.is_full() {
            match catch_panic(|| this.source.as_mut().poll_frame(cx))? {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Err(frame) = batch.push(frame) {
                        this.uncommon.get_or_insert_default().held = Some(frame);
                        break;
                    }
                }
                Poll::Ready(Some(Err(error))) => return Err(BodyError::Source(error)),
                Poll::Ready(None) => return Ok(StreamState::End),
                Poll::Pending => break,
            }
        }
        Ok(StreamState::Open)
    }

    /// Polls the clock, and adds a keep-alive when one is due.
    fn poll_clock(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        batch: &mut FrameBatch,
    ) -> Result<StreamState, BodyError> {
        let this = self.project();
        match this.clock.poll_tick(cx) {
            Poll::Pending => return Ok(StreamState::Open),
            Poll::Ready(Tick::End) => return Ok(StreamState::Aged),
            Poll::Ready(Tick::Notice) => {
                let left = this.clock.take_notice(cx);
                left.into_iter().for_each(|left| batch.push_last(expiring(left)));
                return Ok(StreamState::Open);
            }
            Poll::Ready(Tick::Silence) => {}
        }
        let frame = catch_panic(|| this.source.keep_alive())?;
        let custom = this.uncommon.as_ref().and_then(|uncommon| uncommon.keep_alive.as_deref());
        let frame = frame.or_else(|| custom.cloned());
        batch.push_last(frame.unwrap_or_else(|| Frame::comment_line("keep-alive")));
        Ok(StreamState::Open)
    }

    /// Yields the batch and moves on to the next phase.
    fn conclude(
        self: Pin<&mut Self>,
        next: Result<StreamState, BodyError>,
        mut batch: FrameBatch,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        *this.phase = match next {
            Ok(StreamState::Open) => BodyPhase::Open,
            // The caller has already set the phase to `Ended`.
            Err(error) if batch.is_empty() => return Poll::Ready(Some(Err(error))),
            Err(error) => {
                this.uncommon.get_or_insert_default().failure = Some(error);
                BodyPhase::Failing
            }
            Ok(end) => {
                if matches!(end, StreamState::Aged) {
                    this.source.as_mut().note_expired();
                    if this.clock.announces_expiry() {
                        batch.push_last(control_frame("expired", "{}"));
                    }
                }
                if let Some(spread) = last_reconnection(this.uncommon.as_deref(), &end) {
                    batch.push_last(Frame::retry(spread.pick()));
                }
                BodyPhase::Ended
            }
        };
        if batch.is_empty() {
            let open = *this.phase == BodyPhase::Open;
            return if open { Poll::Pending } else { Poll::Ready(None) };
        }
        if !this.source.as_ref().get_ref().has_steady_keep_alive() {
            this.clock.note_traffic(cx);
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(batch.into_bytes()))))
    }
}

/// The range of the reconnection time to send at the end of a stream. `None` means that no time is
/// sent.
fn last_reconnection(uncommon: Option<&UncommonParts>, end: &StreamState) -> Option<Spread> {
    let custom = uncommon.and_then(|uncommon| uncommon.last_reconnection);
    let is_unset = uncommon.is_none_or(|uncommon| uncommon.reconnection_time.is_none());
    let aged = matches!(end, StreamState::Aged) && is_unset;
    custom.or_else(|| aged.then_some(AGED_RECONNECTION))
}

/// The notice that the response expires after this time.
fn expiring(left: Duration) -> Frame {
    control_frame("expiring", &format!(r#"{{"in_ms":{}}}"#, left.as_millis()))
}

/// An event of the server itself, with a type that begins with `downlink.`.
fn control_frame(name: &str, data: &str) -> Frame {
    let event_type = EventType::new(&format!("downlink.{name}")).expect("the name is short ASCII");
    Event::new(data).event(event_type).encode()
}

/// Runs the user's code. A panic in it is logged, and ends only this response.
fn catch_panic<T>(code: impl FnOnce() -> T) -> Result<T, BodyError> {
    // A source that has panicked is not polled again, so no code sees its broken state.
    catch_unwind(AssertUnwindSafe(code)).map_err(|_| {
        tracing::error!("the stream of events of a response panicked");
        BodyError::Panicked
    })
}

impl<S> fmt::Debug for SseBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseBody").field("phase", &self.phase).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use downlink_log::WakeMany;

    use super::*;
    use crate::http::Sse;
    use crate::http::driven::PollRound;
    use crate::http::moment::Now;

    struct NoKeys;

    impl WakeMany for NoKeys {
        fn wake_many(&self, _: &[u32]) {}
    }

    /// Yields its words, then fails with an error or a panic.
    struct Failing {
        words: Vec<&'static str>,
        panics: bool,
        failed: bool,
    }

    impl FrameSource for Failing {
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame, AnyError>>> {
            assert!(!self.failed, "the source was polled again");
            if let Some(word) = self.words.pop() {
                return Poll::Ready(Some(Ok(Frame::comment(word))));
            }
            self.failed = true;
            assert!(!self.panics, "a user's source may panic here");
            Poll::Ready(Some(Err("no more words".into())))
        }
    }

    fn text(polled: Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>>) -> String {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.into_data().expect("the frame has data");
                String::from_utf8(bytes.to_vec()).expect("the data is text")
            }
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_driven_body_yields_its_failure_once() {
        for panics in [false, true] {
            let source = Failing { words: vec!["two", "one"], panics, failed: false };
            let mut body = Box::pin(Sse::new(source).into_http_response().into_body());
            let round = PollRound::begin(Now::look(), Arc::new(NoKeys));
            let mut poll = || {
                let mut cx = Context::from_waker(Waker::noop());
                text(round.poll(0, &mut cx, |cx| body.as_mut().poll_frame(cx)).0)
            };
            assert_eq!([poll(), poll(), poll()], [": connected\n\n", ": one\n\n", ": two\n\n"]);
            assert!(poll().starts_with("Ready(Some(Err("));
            assert_eq!([poll(), poll()], ["Ready(None)", "Ready(None)"]);
            assert!(body.is_end_stream());
        }
    }
}
