//! The writer: the only thread that writes to a log's store. It takes the batches that wait in the
//! queue, and decides which of their events are new. An event that repeats the id or the
//! idempotency key of an earlier event is not new. The writer gives the new events their offsets,
//! commits them to the store, and then makes them visible to readers.
//!
//! The writer holds no lock while it waits for the disk. After a commit, it puts the batches into
//! memory in the order of the queue, which is the order of their offsets. It wakes readers and
//! publishers after it has released the locks.
//!
//! When an event is committed, it becomes visible and its publisher gets the answer. After a
//! durable commit, the event is on the disk. After a relaxed commit, only the operating system has
//! the event, and the writer flushes it to the disk within [`RELAXED_WITHIN`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::commit::{CommitGroup, CommitPacing, CommitQueue, Outages, Queue, Queued};
use crate::core::Core;
use crate::history::Evicted;
use crate::readers::end_each;
use crate::sequence::{Answers, AppendError, Assigned, Wakes};
use crate::store::{Durability, Store, StoreError, Trimmed};
use crate::sync::MutexGuard;
use crate::types::{ClockState, EndReason, Payload};

/// The maximum time between the commit of an event with relaxed durability and its flush to the
/// disk. A power cut may lose the events of the last 100 ms. With 100 ms, there are at most ten
/// flushes a second. With half this time, the many flushes would wear out the disk sooner. With
/// twice this time, people would notice the loss.
pub const RELAXED_WITHIN: Duration = Duration::from_millis(100);

/// The maximum sleep of a writer that has nothing to do. The writer evicts old events each time it
/// wakes, so the store evicts an event at most this long after the event has become too old.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The minimum time between two evictions by age, so that the writer does not call the store all
/// the time.
const IDLE_MIN: Duration = Duration::from_millis(10);

/// The log's clock as the writer reads it: the log time, and the difference between wall clock and
/// log time.
pub type StoreClock = dyn Fn() -> ClockState + Send;

pub(crate) struct Writer<P: Payload> {
    pub(crate) store: Box<dyn Store>,
    pub(crate) durability: Durability,
    pub(crate) clock: Box<StoreClock>,
    pub(crate) pacing: Option<CommitPacing>,
    /// When the commit of the oldest unflushed event began.
    pub(crate) unflushed: Option<Instant>,
    pub(crate) outages: Outages,
    /// The drop of this field reports that the store is closed. So the field is declared after
    /// `store`, and is dropped after it.
    pub(crate) shared: Shared<P>,
}

/// The state that a writer shares with its log. When the writer ends, this state is dropped, even
/// if the store has panicked. The drop reports the end of the writer to the publishers, to the
/// readers, and to the task that closes the log.
pub(crate) struct Shared<P: Payload> {
    pub(crate) core: Arc<Core<P>>,
    pub(crate) queue: Arc<CommitQueue<P>>,
}

impl<P: Payload> Writer<P> {
    /// Starts the writer's thread. The thread runs until the log is closed or the log's last handle
    /// is dropped.
    #[cfg(not(downlink_loom))]
    pub(crate) fn start(self) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name("downlink-store".to_owned());
        let started = thread.spawn(move || self.run());
        started.map(drop).map_err(|error| StoreError::Io { reason: error.to_string().into() })
    }

    #[cfg(downlink_loom)]
    pub(crate) fn start(self) -> Result<(), StoreError> {
        loom::thread::spawn(move || self.run());
        Ok(())
    }

    /// Writes until the queue is closed and empty.
    fn run(mut self) {
        if let Some(error) = self.store.opened().refuses.clone() {
            self.note_refusal(&error, 0, self.refused());
        }
        let mut wait = Duration::ZERO;
        while let Some(batches) = self.next(wait) {
            if !batches.is_empty() {
                self.write(batches);
            }
            let flush = self.flush_if_due();
            let retry = self.retry_if_due();
            wait = self.trim().min(flush).min(retry);
        }
    }

    /// Waits at most `wait` for batches to commit, and takes these batches. The list may be empty.
    /// If the log's retention rules have changed, this gives them to the store. Returns `None` if
    /// the queue is closed and empty.
    fn next(&mut self, wait: Duration) -> Option<Vec<Queued<P>>> {
        let commits = &self.shared.queue;
        let mut queue = commits.queue.lock();
        let is_idle = queue.batches() == 0 && !queue.closed && !queue.has_new_rules;
        if is_idle && !wait.is_zero() {
            commits.to_commit.wait_for(&mut queue, wait);
        }
        if let Some(pacing) = self.pacing.filter(|_| self.durability == Durability::Commit) {
            gather(commits, &mut queue, pacing);
        }
        let has_new_rules = std::mem::take(&mut queue.has_new_rules);
        let batches = (queue.batches() > 0 || !queue.closed).then(|| queue.take_group());
        drop(queue);
        if has_new_rules {
            let rules = self.shared.core.history.rules();
            self.store.set_retention((*rules).clone());
        }
        batches
    }

    /// Gives the events of these batches their offsets, commits them in one transaction, and makes
    /// them visible.
    fn write(&mut self, mut batches: Vec<Queued<P>>) {
        let started = Instant::now();
        let ClockState { delta_ms, .. } = (self.clock)();
        self.store.set_clock_delta(delta_ms);
        let mut group = CommitGroup::default();
        let add = |queued| group.add(&self.shared.core, &mut *self.store, queued);
        let planned: Vec<_> = batches.iter_mut().map(add).collect();
        let committed = match group.events.as_slice() {
            [] => Ok(()),
            events => {
                let before = Instant::now();
                let committed = self.store.commit(events, self.durability);
                self.shared.queue.note_commit(before.elapsed());
                committed
            }
        };
        if committed.is_ok() && self.durability == Durability::Relaxed && !group.events.is_empty() {
            self.unflushed.get_or_insert(started);
        }
        let refused = self.refused();
        let waited = match committed {
            Ok(()) => {
                if !group.events.is_empty() {
                    self.note_success();
                }
                Some(self.shared.apply(&batches, planned))
            }
            Err(error) => {
                self.shared.fail(&batches, planned, &error);
                self.note_refusal(&error, group.bytes(), refused);
                None
            }
        };
        // `pacing` makes the writer wait a moment before the next commit, for publishers that are
        // about to publish again. After a failed commit it is `None`, and the writer does not wait.
        self.pacing = waited
            .map(|waited| CommitPacing::after(batches.len(), waited, started, Instant::now()));
    }

    /// Flushes relaxed commits if they have waited for [`RELAXED_WITHIN`]. Returns the time until
    /// the next flush.
    fn flush_if_due(&mut self) -> Duration {
        let Some(since) = self.unflushed else { return IDLE_MAX };
        let left = RELAXED_WITHIN.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return left;
        }
        match self.store.flush() {
            Ok(()) => {
                self.unflushed = None;
                IDLE_MAX
            }
            // The writer tries the flush again soon, but not after a final error. Publishers get
            // the error at the next commit.
            Err(error) => {
                self.note_refusal(&error, 0, self.refused());
                self.unflushed.take_if(|_| error.is_final());
                RELAXED_WITHIN
            }
        }
    }

    /// An outage is a time in which the store accepts no events. During an outage, this function
    /// tests whether the store accepts events again, if it is time for a test. Returns the time
    /// until the next test.
    fn retry_if_due(&mut self) -> Duration {
        let Some(outage) = &self.outages.now else { return IDLE_MAX };
        let left = self.outages.retry_every.saturating_sub(outage.tried.elapsed());
        if !left.is_zero() {
            return left;
        }
        let (error, bytes) = (outage.error.clone(), outage.bytes);
        let tried = if error.is_final() { Err(error) } else { self.store.probe(bytes) };
        match tried {
            Ok(()) => self.note_success(),
            Err(error) => self.note_refusal(&error, bytes, self.refused()),
        }
        self.outages.retry_every
    }

    /// The number of all publishes that were refused because of the store.
    fn refused(&self) -> u64 {
        self.shared.queue.refusals().all()
    }

    /// Notes that the store has refused a write of `bytes` bytes. `refused` is the number of all
    /// publishes that were refused before this write.
    fn note_refusal(&mut self, error: &StoreError, bytes: usize, refused: u64) {
        self.shared.queue.fail(error);
        self.outages.note_refusal(error, bytes, refused..self.refused());
    }

    fn note_success(&mut self) {
        if self.outages.now.is_some() {
            self.shared.queue.recover();
            self.outages.note_success(self.refused());
        }
    }

    /// Does one step of [`Store::trim`], which evicts old events from the store. Returns the time
    /// until the next step.
    fn trim(&mut self) -> Duration {
        let ClockState { at: now, delta_ms } = (self.clock)();
        self.store.set_clock_delta(delta_ms);
        match self.store.trim(now) {
            Ok(Trimmed::More) => Duration::ZERO,
            Ok(Trimmed::Until(None)) => IDLE_MAX,
            Ok(Trimmed::Until(Some(at))) => {
                let millis = at.as_millis().saturating_sub(now.as_millis());
                Duration::from_millis(millis).clamp(IDLE_MIN, IDLE_MAX)
            }
            // The next call repeats the failed step. Commits may still succeed, so an error begins
            // an outage only if the error is final.
            Err(error) => {
                if error.is_final() {
                    self.note_refusal(&error, 0, self.refused());
                }
                IDLE_MAX
            }
        }
    }
}

/// Waits for publishers that are about to publish again. `pacing` limits the wait. The wait also
/// ends if the queued batches fill a transaction, or if the queue is half full or closed.
fn gather<P: Payload>(
    commits: &CommitQueue<P>,
    queue: &mut MutexGuard<'_, Queue<P>>,
    mut pacing: CommitPacing,
) {
    queue.awaited = pacing.batches;
    while !queue.closed && !queue.fills_group() && !queue.is_half_full() {
        let came = queue.batches();
        let Some(until) = pacing.wait_until(Instant::now(), came) else { break };
        commits.to_commit.wait_until(queue, until);
    }
    queue.awaited = 1;
}

impl<P: Payload> Shared<P> {
    /// Makes the batches visible and answers their publishers. Each batch is put into memory under
    /// the sequence lock, which is also held while events get their offsets. This function releases
    /// the lock between two batches. Returns the number of batches that waited in the queue just
    /// before these publishers got their answers.
    fn apply(
        &self,
        batches: &[Queued<P>],
        mut planned: Vec<Result<Assigned<P>, AppendError>>,
    ) -> usize {
        let Core { history, sequencer, ids, .. } = &*self.core;
        let (mut answers, mut wakes) = (Answers::new(), Vec::new());
        // The evicted payloads are dropped at the end of this function. If dropping one of them
        // panics, everything else is already done.
        let mut evicted = Evicted::new();
        for assigned in planned.iter_mut().flatten() {
            let mut sequence = sequencer.lock();
            let held = history.patterns.hold();
            let parts = (history, ids);
            let applied =
                sequencer.apply(&mut sequence, parts, &held, assigned, &mut answers, &mut evicted);
            wakes.push(applied);
        }
        sequencer.settle(history, &evicted);
        let waited = self.done(batches);
        // Readers are woken before the publishers get their answers.
        wakes.into_iter().for_each(Wakes::wake);
        history.backlog.wake();
        let mut answers = answers.into_iter();
        for (batch, planned) in batches.iter().zip(&planned) {
            if let Err(AppendError::Store(error)) = planned {
                self.queue.refuse([batch].into_iter(), error);
            }
            let own =
                |assigned: &Assigned<P>| answers.by_ref().take(assigned.drafts.len()).collect();
            batch.outcome.resolve(planned.as_ref().map(own).map_err(Clone::clone));
        }
        waited
    }

    /// Fails batches whose commit has failed. Their offsets are not used again.
    ///
    /// Some of these batches may have been refused before the commit, for example because an
    /// earlier batch of the same transaction has the same event id. The earlier batch has now
    /// failed too, so the reason for the refusal may no longer be true. So all batches get the
    /// store's error.
    fn fail(
        &self,
        batches: &[Queued<P>],
        planned: Vec<Result<Assigned<P>, AppendError>>,
        error: &StoreError,
    ) {
        self.done(batches);
        // The error is noted before the publishers get their answers, because a publisher that gets
        // its answer may call `Log::store_error` at once.
        self.queue.fail(error);
        for assigned in planned.iter().flatten() {
            assigned.topics().for_each(|topic| self.core.history.unreserve(topic));
            let topics: Vec<_> = assigned.topics().cloned().collect();
            self.core.history.collect(&topics);
        }
        self.queue.refuse(batches.iter(), error);
    }

    /// Subtracts the sizes of these batches from the queue's size. Returns the number of batches
    /// that wait in the queue.
    fn done(&self, batches: &[Queued<P>]) -> usize {
        let mut queue = self.queue.queue.lock();
        batches.iter().for_each(|batch| queue.done(batch.size));
        queue.batches()
    }
}

impl<P: Payload> Drop for Shared<P> {
    fn drop(&mut self) {
        self.queue.fail(&StoreError::Stopped);
        end_each(&self.core.history.topics.everyone.readers, EndReason::Closed);
        self.core.history.backlog.close();
        self.queue.ended.resolve(Ok(Answers::new()));
    }
}
