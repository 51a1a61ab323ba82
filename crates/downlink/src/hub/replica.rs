//! Writes the events of an upstream into the log of a hub that follows it.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use downlink_log::{
    Applied, Applier, Cursor, Follower, FollowerTask,
    store::{FeedChunk, FeedStart},
};

use super::{HubClock, record::Record};

/// Writes the feed of the upstream into the log of a hub. One thread owns it.
pub(crate) struct HubApplier<T: Send + Sync + 'static> {
    applier: Applier<Record<T>>,
    clock: HubClock,
    /// The time at which [`idle`](Self::idle) next has something to do.
    idle_at: Instant,
}

impl<T: Send + Sync + 'static> HubApplier<T> {
    pub(super) fn new(applier: Applier<Record<T>>, clock: HubClock) -> Self {
        Self { applier, clock, idle_at: Instant::now() }
    }

    /// A handle that says when readers wait for an answer of the upstream.
    pub(crate) fn follower(&self) -> WaitingReaders<T> {
        WaitingReaders(self.applier.follower())
    }

    /// The cursor after the newest offset that was applied. `None` if nothing was applied.
    pub(crate) fn position(&self) -> Option<Cursor> {
        self.applier.position()
    }

    /// Begins a feed. Returns `false` if the feed does not continue at the position of the hub. The
    /// caller then needs a new feed.
    pub(crate) fn begin(&mut self, start: FeedStart) -> bool {
        self.applier.begin(start)
    }

    /// Whether the hub has everything below the end of its upstream.
    pub(crate) fn has_reached(&self, end: Cursor) -> bool {
        self.applier.has_reached(end)
    }

    /// Applies a chunk.
    pub(crate) fn apply(&mut self, chunk: FeedChunk) -> Applied {
        self.clock.follow(chunk.clock);
        let applied = self.applier.apply(chunk);
        self.idle_at = Instant::now();
        applied
    }

    /// Does the work that is due, such as evicting old events and flushing the cache.
    pub(crate) fn idle(&mut self) {
        if Instant::now() >= self.idle_at {
            self.idle_at = Instant::now() + self.applier.idle(self.clock.now());
        }
    }

    /// Makes the next call of [`idle`](Self::idle) do its work, because readers have begun to wait.
    pub(crate) fn look_again(&mut self) {
        self.idle_at = Instant::now();
    }
}

/// The readers of a hub that wait for an answer of the upstream.
pub(crate) struct WaitingReaders<T: Send + Sync + 'static>(Follower<Record<T>>);

impl<T: Send + Sync + 'static> WaitingReaders<T> {
    pub(crate) fn poll_task(&self, cx: &Context<'_>) -> Poll<FollowerTask> {
        self.0.poll_task(cx.waker())
    }

    /// Answers a question with the end of the upstream.
    pub(crate) fn confirm(&self, question: u64, end: Cursor) {
        self.0.confirm(question, end);
    }

    /// Answers a question if the upstream cannot be asked.
    pub(crate) fn fail(&self, question: u64) {
        self.0.fail(question);
    }
}
