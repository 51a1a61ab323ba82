//! The one writer of a log's store. It plans the waiting batches, commits them, and then makes them
//! visible.
//!
//! The writer waits for the disk with no lock held. Everything after a commit happens in the order
//! of the queue, which is the order of the offsets. Readers and publishers are woken after the
//! locks.
//!
//! Both durabilities take the same way. An event is visible and its publisher answered when it is
//! committed. A durable commit is flushed to the disk; a relaxed one is with the operating system,
//! and the writer flushes within [`RELAXED_WITHIN`].

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

/// How long an event in relaxed durability may wait for its flush. A power cut may take the events
/// of this time. A tenth of a second is at most ten flushes a second. Half would wear the disk;
/// twice would lose enough for a person to notice.
pub const RELAXED_WITHIN: Duration = Duration::from_millis(100);

/// The longest sleep of a writer with nothing to do: retention by age is late by this at most.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The shortest sleep, so that a failing disk is not asked all the time.
const IDLE_MIN: Duration = Duration::from_millis(10);

/// The log's clock as the writer reads it: log time, and its difference to the wall clock.
pub type StoreClock = dyn Fn() -> ClockState + Send;

pub(crate) struct Writer<P: Payload> {
    pub(crate) store: Box<dyn Store>,
    pub(crate) durability: Durability,
    pub(crate) clock: Box<StoreClock>,
    pub(crate) pacing: Option<CommitPacing>,
    /// When the oldest unflushed event was committed.
    pub(crate) unflushed: Option<Instant>,
    pub(crate) outages: Outages,
    /// Dropped after the store.
    pub(crate) shared: Shared<P>,
}

/// The state that a writer shares with its log. Its drop, also after a panic of the store, tells
/// publishers, readers and the caller that closes the log that the writer is gone.
pub(crate) struct Shared<P: Payload> {
    pub(crate) core: Arc<Core<P>>,
    pub(crate) queue: Arc<CommitQueue<P>>,
}

impl<P: Payload> Writer<P> {
    /// Starts the thread that writes until the log is closed, or its last handle is gone.
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

    /// Writes until nothing more can come.
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

    /// Waits at most `wait` for batches to commit, and takes them. `None` when no more will come.
    fn next(&self, wait: Duration) -> Option<Vec<Queued<P>>> {
        let commits = &self.shared.queue;
        let mut queue = commits.queue.lock();
        if queue.batches() == 0 && !queue.closed && !wait.is_zero() {
            commits.to_commit.wait_for(&mut queue, wait);
        }
        if let Some(pacing) = self.pacing.filter(|_| self.durability == Durability::Commit) {
            gather(commits, &mut queue, pacing);
        }
        (queue.batches() > 0 || !queue.closed).then(|| queue.take_group())
    }

    /// Plans, commits and applies the batches of one transaction.
    fn write(&mut self, mut batches: Vec<Queued<P>>) {
        let started = Instant::now();
        let ClockState { delta_ms, .. } = (self.clock)();
        self.store.set_clock_delta(delta_ms);
        let mut group = CommitGroup::default();
        let add = |queued| group.add(&self.shared.core, &mut *self.store, queued);
        let planned: Vec<_> = batches.iter_mut().map(add).collect();
        let committed = match group.events.as_slice() {
            [] => Ok(()),
            events => self.store.commit(events, self.durability),
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
        // After a commit that failed no publisher is expected.
        self.pacing = waited
            .map(|waited| CommitPacing::after(batches.len(), waited, started, Instant::now()));
    }

    /// Flushes relaxed commits in time, and says how long that can wait.
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
            // The flush is tried again soon, unless the error is final. Publishers learn of it with
            // the next commit.
            Err(error) => {
                self.note_refusal(&error, 0, self.refused());
                self.unflushed.take_if(|_| error.is_final());
                RELAXED_WITHIN
            }
        }
    }

    /// Tries whether the store takes events again, if it is time, and says how long that can wait.
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

    /// The number of publishes that the store has refused.
    fn refused(&self) -> u64 {
        self.shared.queue.refusals().all()
    }

    /// The store has refused these bytes. `refused` is the number of refused publishes before that.
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

    /// Takes one step of trimming, and gives the time until the next.
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
            // The next call repeats the step, unless the error is final. A commit may still
            // succeed.
            Err(error) => {
                if error.is_final() {
                    self.note_refusal(&error, 0, self.refused());
                }
                IDLE_MAX
            }
        }
    }
}

/// Waits for the publishers that are about to come back, if one is expected.
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
    /// Makes the batches visible, one hold of the sequence lock each, and answers their publishers.
    /// Gives how many batches were waiting before that.
    fn apply(
        &self,
        batches: &[Queued<P>],
        mut planned: Vec<Result<Assigned<P>, AppendError>>,
    ) -> usize {
        let Core { history, sequencer, ids } = &*self.core;
        let (mut answers, mut wakes) = (Answers::new(), Vec::new());
        // Values are dropped last. If a drop panics, everything else is done.
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
        // A committed event is visible before its publisher hears of it.
        wakes.into_iter().for_each(Wakes::wake);
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

    /// Fails batches whose commit has failed: their offsets are not used again. A refusal may rest
    /// on an event that is not kept after all, so the refused batches get the store's error as
    /// well.
    fn fail(
        &self,
        batches: &[Queued<P>],
        planned: Vec<Result<Assigned<P>, AppendError>>,
        error: &StoreError,
    ) {
        self.done(batches);
        // Noted before the publishers hear of it. They may ask at once.
        self.queue.fail(error);
        for assigned in planned.iter().flatten() {
            assigned.topics().for_each(|topic| self.core.history.unreserve(topic));
            let topics: Vec<_> = assigned.topics().cloned().collect();
            self.core.history.collect(&topics);
        }
        self.queue.refuse(batches.iter(), error);
    }

    /// These batches no longer count towards the queue. Gives how many wait in it.
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
        self.queue.ended.resolve(Ok(Answers::new()));
    }
}
