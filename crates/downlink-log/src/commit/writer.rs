//! The one writer of a log's store: plans what has gathered, commits it, and then makes it visible.
//!
//! The disk is waited for with no lock held. Everything after a commit happens in the order of the
//! queue, which is the order of the offsets. Readers and publishers are woken after the locks.
//!
//! Both durabilities take the same way. An event is visible and its publisher answered when it is
//! committed. A durable commit is flushed to the disk; a relaxed one is with the operating system,
//! and the writer flushes within [`RELAXED_WITHIN`].

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use crate::commit::{
    CommitPacing, CommitQueue, Group, LastCommit, Outcome, Planned, Queue, Queued,
};
use crate::core::Core;
use crate::history::Evicted;
use crate::readers::end_each;
use crate::sequence::{Answers, AppendError, Wakes};
use crate::store::{Durability, Store, StoreError, Trimmed};
use crate::sync::MutexGuard;
use crate::types::{ClockState, EndReason, Payload};

/// How long an event in relaxed durability may wait for its flush: what a power cut may take. A tenth
/// of a second is at most ten flushes a second; half would wear the disk, twice would lose more than
/// a person notices.
pub const RELAXED_WITHIN: Duration = Duration::from_millis(100);

/// The longest sleep of a writer with nothing to do: retention by age is late by this at most.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The shortest: a disk that refuses is not asked all the time.
const IDLE_MIN: Duration = Duration::from_millis(10);

/// The log's clock as the writer reads it: log time, and its difference to the wall clock.
pub type StoreClock = dyn Fn() -> ClockState + Send;

pub(crate) struct Writer<P: Payload> {
    pub(crate) core: Arc<Core<P>>,
    pub(crate) queue: Arc<CommitQueue<P>>,
    pub(crate) store: Box<dyn Store>,
    pub(crate) durability: Durability,
    pub(crate) clock: Box<StoreClock>,
    /// Resolved when the writer has let go of the store.
    pub(crate) ended: Arc<Outcome>,
    pub(crate) last: Option<LastCommit>,
    /// When the first event was committed that is not flushed.
    pub(crate) unflushed: Option<Instant>,
}

/// What a writer finds to do.
enum Next<P: Payload> {
    Group(Vec<Queued<P>>),
    /// Nothing came for as long as it wanted to wait.
    Idle,
    /// Nothing will come any more.
    Closed,
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

    fn run(self) {
        // Also if the store panics, so that no publisher waits for ever. Dropped after the store.
        let _ended = Ended {
            core: Arc::clone(&self.core),
            queue: Arc::clone(&self.queue),
            ended: Arc::clone(&self.ended),
        };
        let mut writer = self;
        writer.write_all();
    }

    /// Writes until nothing more can come.
    fn write_all(&mut self) {
        let mut wait = Duration::ZERO;
        loop {
            match self.next(wait) {
                Next::Group(batches) => self.write(batches),
                Next::Idle => {}
                Next::Closed => return,
            }
            let flush = self.flush_if_due();
            wait = self.trim().min(flush);
        }
    }

    /// Waits for something to commit, at most for a time, and takes what has gathered.
    fn next(&mut self, wait: Duration) -> Next<P> {
        let pacing = self.last.map(CommitPacing::after);
        let mut queue = self.queue.queue.lock();
        if queue.is_empty() && !queue.closed && !wait.is_zero() {
            self.queue.to_commit.wait_for(&mut queue, wait);
        }
        if let Some(pacing) = pacing.filter(|_| self.durability == Durability::Commit) {
            gather(&self.queue, &mut queue, pacing);
        }
        if !queue.is_empty() {
            return Next::Group(queue.take_group());
        }
        if queue.closed { Next::Closed } else { Next::Idle }
    }

    /// Plans, commits and applies the batches of one transaction.
    fn write(&mut self, batches: Vec<Queued<P>>) {
        let (count, started) = (batches.len(), Instant::now());
        let ClockState { delta_ms, .. } = (self.clock)();
        self.store.set_clock_delta(delta_ms);
        let mut group = Group::new();
        let mut refused = Vec::new();
        for mut queued in batches {
            if let Err(error) = group.add(&self.core, &mut *self.store, &mut queued) {
                refused.push((queued, error));
            }
        }
        let committed = match group.events.as_slice() {
            [] => Ok(()),
            events => self.store.commit(events, self.durability),
        };
        if committed.is_ok() && self.durability == Durability::Relaxed && !group.events.is_empty() {
            self.unflushed.get_or_insert(started);
        }
        self.refuse(refused);
        match committed {
            Ok(()) => self.apply(group.batches),
            Err(error) => fail(&self.core, &self.queue, group.batches, &error),
        }
        let waiting = self.queue.queue.lock().waited.take();
        let ended = Instant::now();
        // After a commit that failed no publisher is expected.
        self.last = waiting.map(|waiting| LastCommit { batches: count, waiting, started, ended });
    }

    /// Makes the batches visible, one hold of the sequence lock each, and answers their publishers.
    fn apply(&self, mut batches: Vec<Planned<P>>) {
        let (mut answers, mut wakes): (Vec<Answers>, Vec<Wakes<P>>) = (Vec::new(), Vec::new());
        let mut evicted = Evicted::new();
        for batch in &mut batches {
            let mut sequence = self.core.sequencer.lock();
            let held = self.core.history.patterns.hold();
            let (answer, wake) = self.core.sequencer.apply(
                &mut sequence,
                (&self.core.history, &self.core.ids),
                &held,
                &mut batch.assigned,
                &answers,
                &mut evicted,
            );
            answers.push(answer);
            wakes.push(wake);
        }
        self.core.settle(Some(evicted));
        {
            let mut queue = self.queue.queue.lock();
            batches.iter().for_each(|batch| queue.done(batch.size));
            queue.waited = Some(queue.batches());
        }
        // A committed event is visible before its publisher hears of it.
        wakes.into_iter().for_each(Wakes::wake);
        let resolved =
            batches.iter().zip(answers).map(|(batch, answer)| batch.outcome.resolve(Ok(answer)));
        resolved.flatten().for_each(Waker::wake);
    }

    fn refuse(&self, refused: Vec<(Queued<P>, AppendError)>) {
        for (queued, error) in refused {
            self.queue.queue.lock().done(queued.size);
            queued.outcome.resolve(Err(error)).into_iter().for_each(Waker::wake);
        }
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
            Err(error) if error.is_final() => {
                fail(&self.core, &self.queue, Vec::new(), &error);
                self.unflushed = None;
                IDLE_MAX
            }
            // Tried again soon; meanwhile the next commit tells the publishers.
            Err(_) => RELAXED_WITHIN,
        }
    }

    /// One step of what keeps the store within its limits, and how long until the next.
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
            // Repeated by the next call; the next commit tells the publishers.
            Err(_) => IDLE_MAX,
        }
    }
}

/// Waits for the publishers that are about to come back, if any has.
fn gather<P: Payload>(
    commits: &CommitQueue<P>,
    queue: &mut MutexGuard<'_, Queue<P>>,
    mut pacing: CommitPacing,
) {
    queue.awaited = pacing.batches();
    while !queue.closed && !queue.fills_group() && !queue.is_half_full() {
        let came = queue.batches();
        let Some(until) = pacing.wait_until(Instant::now(), came) else { break };
        commits.to_commit.wait_until(queue, until);
    }
    queue.awaited = 1;
}

/// Fails batches: their offsets are not used again, and their publishers are told. After a final
/// error everything that waits fails too.
fn fail<P: Payload>(
    core: &Core<P>,
    commits: &CommitQueue<P>,
    batches: Vec<Planned<P>>,
    error: &StoreError,
) {
    let waiting = {
        let mut queue = commits.queue.lock();
        batches.iter().for_each(|batch| queue.done(batch.size));
        let waiting = if error.is_final() { queue.fail(error) } else { Vec::new() };
        waiting.iter().for_each(|batch| queue.done(batch.size));
        waiting
    };
    for batch in &batches {
        batch.assigned.topics().for_each(|topic| core.history.unreserve(topic));
        let topics: Vec<_> = batch.assigned.topics().cloned().collect();
        core.history.collect(&topics);
    }
    let outcomes = batches.iter().map(|batch| &batch.outcome);
    let outcomes = outcomes.chain(waiting.iter().map(|batch| &batch.outcome));
    let failed = || Err(AppendError::Store(error.clone()));
    outcomes.flat_map(|outcome| outcome.resolve(failed())).for_each(Waker::wake);
}

/// Lets publishers, readers and whoever closes the log know that the writer is gone.
struct Ended<P: Payload> {
    core: Arc<Core<P>>,
    queue: Arc<CommitQueue<P>>,
    ended: Arc<Outcome>,
}

impl<P: Payload> Drop for Ended<P> {
    fn drop(&mut self) {
        fail(&self.core, &self.queue, Vec::new(), &StoreError::Stopped);
        end_each(&self.core.history.topics.everyone.readers, EndReason::Closed);
        self.ended.resolve(Ok(Answers::new())).into_iter().for_each(Waker::wake);
    }
}
