//! The streams of one connection, polled by the connection's own task.
//!
//! hyper spawns them; they are kept here, so that they are gone when the connection is. Each is
//! polled when it was woken, and ends early if its peer makes no room for it for
//! `write_stall_max`: dropping it resets it and frees what was queued for it.

use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream as _};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};

use super::pace::{Did, Turn};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams that hyper has spawned and nobody has polled yet. Locked for a moment by one task only.
type New = Mutex<Vec<Boxed>>;

/// What hyper spawns streams with. Weak, because each stream holds one.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Weak<New>);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        if let Some(new) = self.0.upgrade() {
            new.lock().push(Box::pin(stream));
        }
    }
}

/// See the module.
pub(super) struct Streams {
    new: Arc<New>,
    streams: FuturesUnordered<Stream>,
    turn: Turn,
    write_stall_max: Duration,
}

impl Streams {
    pub(super) fn new(turn: Turn, write_stall_max: Duration) -> Self {
        Self { new: Arc::default(), streams: FuturesUnordered::new(), turn, write_stall_max }
    }

    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.new))
    }

    /// Whether some were spawned since the last poll.
    pub(super) fn has_new(&self) -> bool {
        !self.new.lock().is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Has every stream polled in the next poll.
    pub(super) fn wake_all(&mut self) {
        self.streams = take(&mut self.streams).into_iter().collect();
    }

    /// Polls the streams that were woken or are new.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let new = take(&mut *self.new.lock());
        self.streams.extend(new.into_iter().map(|inner| Stream {
            inner,
            turn: self.turn.clone(),
            write_stall_max: self.write_stall_max,
            stalled: None,
        }));
        while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(cx) {}
    }
}

/// One request and its response.
struct Stream {
    inner: Boxed,
    turn: Turn,
    write_stall_max: Duration,
    /// Runs while the peer makes no room for what the body gave.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Polls the stream; a panic in the app's code ends it.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A stream that panicked is dropped and not looked at again.
        catch_unwind(AssertUnwindSafe(|| self.inner.as_mut().poll(cx))).unwrap_or_else(|_| {
            tracing::error!("a handler panicked; its stream is reset");
            Poll::Ready(())
        })
    }
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.turn.note(Did::Nothing);
        if self.poll_inner(cx).is_ready() {
            return Poll::Ready(());
        }
        match self.turn.last() {
            Did::Nothing => {}
            Did::Wait => self.stalled = None,
            Did::Give => self.stalled = Some(Box::pin(sleep(self.write_stall_max))),
        }
        let Some(stalled) = &mut self.stalled else { return Poll::Pending };
        if stalled.as_mut().poll(cx).is_ready() {
            tracing::debug!("a stream is reset: its peer makes no room for it");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
