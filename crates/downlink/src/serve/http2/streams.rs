//! The streams of one HTTP/2 connection, which the connection's own task polls.
//!
//! hyper (the HTTP library) spawns the streams. [`Http2Streams`] keeps them, so they have no tasks
//! of their own and end together with the connection. Only woken streams are polled. If the peer
//! makes no room for the next bytes of a stream within `write_stall_max`, the stream is dropped.
//! Dropping the stream resets it and frees its queue.

use std::mem::take;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream as _};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::stall::StallTimer;
use super::pace::BodyReport;
use crate::http::moment::Moment;
use crate::http::stalled::{self, StalledPeer};

type BoxedStream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams that hyper has spawned since the last poll. Only one task locks the list, for a moment.
type NewStreams = Mutex<Vec<BoxedStream>>;

/// hyper's executor, to which hyper passes new streams. The spawner refers to the list of new
/// streams, and each stream in this list holds a spawner. If the spawner had a strong reference,
/// the list would keep itself alive for ever. So the reference is weak.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Weak<NewStreams>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let Some(new) = self.0.upgrade() else { return };
        new.lock().push(Box::pin(async {
            if AssertUnwindSafe(stream).catch_unwind().await.is_err() {
                tracing::error!("a handler of the app panicked; its stream is reset");
            }
        }));
    }
}

/// The open streams of one HTTP/2 connection.
pub(super) struct Http2Streams {
    new: Arc<NewStreams>,
    streams: FuturesUnordered<RequestStream>,
    report: BodyReport,
    /// The peer's address, for logs.
    peer: Arc<str>,
    write_stall_max: Duration,
}

impl Http2Streams {
    pub(super) fn new(report: BodyReport, peer: String, write_stall_max: Duration) -> Self {
        let (new, streams, peer) = (Arc::default(), FuturesUnordered::new(), peer.into());
        Self { new, streams, report, peer, write_stall_max }
    }

    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.new))
    }

    /// Whether streams were spawned since the last poll.
    pub(super) fn has_new(&self) -> bool {
        !self.new.lock().is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Lets the next call of `poll` poll every stream.
    pub(super) fn wake_all(&mut self) {
        self.streams = take(&mut self.streams).into_iter().collect();
    }

    /// Polls the streams that are new or were woken.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let new = take(&mut *self.new.lock());
        self.streams.extend(new.into_iter().map(|inner| RequestStream {
            inner,
            report: self.report.clone(),
            peer: Arc::clone(&self.peer),
            began: Moment::at(Instant::now()),
            stall: StallTimer::new(Some(self.write_stall_max)),
        }));
        while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(cx) {}
    }
}

/// One request and its response.
struct RequestStream {
    inner: BoxedStream,
    report: BodyReport,
    peer: Arc<str>,
    began: Moment,
    /// Runs while the peer makes no room for a piece of the body.
    stall: StallTimer,
}

impl Future for RequestStream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.report.lock() = None;
        if self.inner.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let yielded = *self.report.lock();
        match yielded {
            Some(true) => self.stall.start(),
            Some(false) => self.stall.stop(),
            None => {}
        }
        ready!(self.stall.poll(cx));
        tracing::debug!("reset a stream, because its peer has not read it for too long");
        let stalled = StalledPeer { peer: self.peer.as_ref().into(), age: self.began.age() };
        stalled::drop_stalled(stalled, || self.inner = Box::pin(std::future::ready(())));
        Poll::Ready(())
    }
}
