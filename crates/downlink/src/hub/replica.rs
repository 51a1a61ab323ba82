//! Writes the events of an upstream into the log of a hub that follows it. A node of a cluster
//! writes the events of the cluster into its log in the same way.

use std::{
    task::{Context, Poll},
    time::Instant,
};

#[cfg(feature = "cluster")]
use downlink_cluster::{AppliedEvent, Plan, Record as ClusterRecord, Refusal};
#[cfg(feature = "cluster")]
use downlink_log::{
    Address, AppendError, Appended, ClockState, Draft, Drafts, LostEnd, Offset, Timestamp,
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

    /// Applies a chunk of the feed.
    pub(crate) fn apply(&mut self, chunk: FeedChunk) -> Applied {
        self.clock.follow(chunk.clock);
        let applied = self.applier.apply(chunk);
        self.idle_at = Instant::now();
        applied
    }

    /// Applies a chunk whose clock is the clock of this hub, so the hub's clock need not follow it.
    /// Returns `false` if the cache has failed: the hub has then begun again without events.
    #[cfg(feature = "cluster")]
    pub(crate) fn apply_here(&mut self, chunk: FeedChunk) -> bool {
        self.idle_at = Instant::now();
        self.applier.apply(chunk) == Applied::Next
    }

    /// The current log time.
    #[cfg(feature = "cluster")]
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The state of the clock, for a cache.
    #[cfg(feature = "cluster")]
    pub(crate) fn clock(&self) -> ClockState {
        self.clock.state()
    }

    /// Decides about the events of one publish.
    #[cfg(feature = "cluster")]
    pub(crate) fn plan(&mut self, records: &[ClusterRecord]) -> Result<Plan, Refusal> {
        let drafts: Drafts<Record<T>> = records.iter().map(draft).collect();
        let refused = |error| match error {
            AppendError::KeyReused { draft } => Refusal::KeyReused { record: draft },
            AppendError::IdTaken { draft } => Refusal::IdTaken { record: draft },
            AppendError::Finished { draft } => Refusal::Finished { record: draft },
            _ => Refusal::Limit,
        };
        let repeats = self.applier.plan(self.clock.now(), &drafts).map_err(refused)?;
        Ok(Plan { repeats: repeats.into_vec() })
    }

    /// Removes all events at and above an offset. Returns the ids that publishers gave to them.
    #[cfg(feature = "cluster")]
    pub(crate) fn cut_to(&mut self, until: Offset) -> Vec<Box<str>> {
        self.applier.cut_to(until)
    }

    /// Replaces the list of the lost ends of the history.
    #[cfg(feature = "cluster")]
    pub(crate) fn set_lost_ends(&mut self, ends: Vec<LostEnd>) {
        self.applier.set_lost_ends(ends);
    }

    /// The offset of the event with this id of a publisher.
    #[cfg(feature = "cluster")]
    pub(crate) fn publisher_id(&mut self, id: &str) -> Option<Offset> {
        self.applier.publisher_id(id)
    }

    /// Whether the hub has a cache.
    #[cfg(feature = "cluster")]
    pub(crate) fn has_cache(&self) -> bool {
        self.applier.has_cache()
    }

    /// The limit of topics.
    #[cfg(feature = "cluster")]
    pub(crate) fn topics_max(&self) -> usize {
        self.applier.limits().topics_max
    }

    /// The answer to the publish of an event.
    #[cfg(feature = "cluster")]
    pub(crate) fn answer(&self, event: AppliedEvent, to: &[Address]) -> Appended {
        let AppliedEvent { offset, is_repeat } = event;
        let matched = if is_repeat { 0 } else { self.applier.matched(to, offset) };
        let epoch = self.applier.id_of(offset).epoch;
        Appended { offset, epoch, matched, repeated: is_repeat }
    }

    /// Does the work that is due, such as evicting old events and flushing the cache. Returns the
    /// time at which there is more to do.
    pub(crate) fn idle(&mut self) -> Instant {
        if Instant::now() >= self.idle_at {
            self.idle_at = Instant::now() + self.applier.idle(self.clock.now());
        }
        self.idle_at
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

    /// Whether the hub is closed. A question that readers have asked stays open.
    #[cfg(feature = "cluster")]
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> bool {
        self.0.poll_closed(cx.waker()).is_ready()
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

/// An event of a publish. The log decides without the payload, so the draft has none.
#[cfg(feature = "cluster")]
fn draft<T: Send + Sync + 'static>(record: &ClusterRecord) -> Draft<Record<T>> {
    Draft {
        to: record.to.iter().cloned().collect(),
        id: record.id.clone(),
        key: record.key.clone(),
        fingerprint: record.fingerprint,
        finish: record.finish,
        body: None,
        payload: None,
    }
}
