//! The bounded queue of the batches that wait for the writer, which is the thread that writes to
//! the store. The oldest batch is first. A full queue refuses a batch at once and does not make the
//! publisher wait.

use std::collections::VecDeque;
use std::time::Duration;

use crate::commit::{Commit, CommitTimes};
use crate::sequence::{AppendError, Draft, Drafts};
use crate::store::StoreError;
use crate::sync::{Condvar, Mutex};
use crate::types::{Payload, Timestamp};

/// The maximum number of events that wait for their commit. Usually, each waiting event belongs to
/// a task that waits for the answer, and a machine rarely has more tasks than this. A disk may
/// stall for a short time. With half this limit, the queue would refuse events during such a stall.
pub const QUEUE_EVENTS_MAX: usize = 65_536;

/// The maximum number of bytes that wait for their commit. 64 MiB is enough for four of the largest
/// batches that the crate `downlink` accepts.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The maximum number of events in one transaction of several batches. This many events are written
/// in a few milliseconds, so the publisher of the first batch does not wait long for the other
/// batches. A batch that is larger than this gets its own transaction.
const GROUP_EVENTS_MAX: usize = 4_096;

/// The maximum number of bytes in one transaction of several batches. It limits the time of a
/// transaction with large events.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// The number of bytes that the queue counts for each event in addition to its payload and its
/// addresses. These bytes stand for the memory of the draft and of the rows that the store writes
/// for the event.
const EVENT_COST_BYTES: usize = 256;

/// The number of bytes that the queue counts for each address of an event. These bytes stand for
/// the memory of the address in the draft and in the stored event, and for the memory of its name.
/// Without this number, a queue of events with many short addresses would use ten times the memory
/// that its limit allows.
const ADDRESS_COST_BYTES: usize = 80;

/// A batch that waits for its commit. If it is dropped without an outcome, because some code has
/// panicked, its publisher gets an error.
pub(crate) struct Queued<P: Payload> {
    pub(crate) now: Timestamp,
    pub(crate) drafts: Drafts<P>,
    pub(crate) outcome: Commit,
    pub(crate) size: Size,
}

impl<P: Payload> Drop for Queued<P> {
    fn drop(&mut self) {
        self.outcome.resolve(Err(StoreError::Stopped.into()));
    }
}

/// The size of a batch, which counts towards the limits of the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    events: usize,
    bytes: usize,
}

/// The queue, and the signals between it and the writer.
pub(crate) struct CommitQueue<P: Payload> {
    /// No other lock is taken while this lock is held.
    pub(crate) queue: Mutex<Queue<P>>,
    /// The writer waits for a notification of this variable. It is notified when there is something
    /// to commit, when the retention rules have changed, and when the queue is closed.
    pub(crate) to_commit: Condvar,
    /// This is not the commit of a batch. It gets its outcome when the writer has ended and has
    /// closed the store, so a task can wait for the end of the writer.
    pub(crate) ended: Commit,
}

/// The batches that wait for the writer, and the size of all batches that are not committed yet.
pub(crate) struct Queue<P: Payload> {
    waiting: VecDeque<Queued<P>>,
    /// The total size of all batches that are not committed yet, including those that the writer
    /// has taken.
    size: Size,
    /// The writer stops waiting for more batches when the queue has this many batches.
    pub(crate) awaited: usize,
    pub(crate) closed: bool,
    /// Whether the log's retention rules have changed since the writer last gave them to the store.
    pub(crate) has_new_rules: bool,
    /// Why the store accepts no events at present. After a final error, the store must be opened
    /// again, so the queue accepts no batches.
    error: Option<StoreError>,
    refusals: Refusals,
    times: CommitTimes,
}

/// The numbers of publishes that a log refused because of its store, by reason. A batch counts as
/// one publish.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Refusals {
    /// Too many events waited for the store.
    pub busy: u64,
    /// The disk was full.
    pub disk_full: u64,
    /// The store failed in another way.
    pub store_failed: u64,
}

/// The numbers of the store of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoreTotals {
    /// The number of events that wait for their commit. An empty batch counts as one event.
    pub queue_events: usize,
    /// How long the commits took.
    pub commits: CommitTimes,
}

impl Refusals {
    /// The sum of all numbers.
    pub fn all(&self) -> u64 {
        self.busy + self.disk_full + self.store_failed
    }

    fn count(&mut self, error: &StoreError, batches: usize) {
        let is_full = *error == StoreError::DiskFull;
        let count = if is_full { &mut self.disk_full } else { &mut self.store_failed };
        *count += batches as u64;
    }
}

impl<P: Payload> CommitQueue<P> {
    /// A queue for a store. If the store accepts no events yet, `error` says why.
    pub(crate) fn new(error: Option<StoreError>) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            size: Size::default(),
            awaited: 1,
            closed: false,
            has_new_rules: false,
            error,
            refusals: Refusals::default(),
            times: CommitTimes::default(),
        };
        Self { queue: Mutex::new(queue), to_commit: Condvar::new(), ended: Commit::new() }
    }

    /// Queues a batch. The call returns at once, without waiting for the store.
    pub(crate) fn submit(&self, now: Timestamp, drafts: Drafts<P>) -> Result<Commit, AppendError> {
        let (size, outcome) = (Size::of(&drafts), Commit::new());
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(AppendError::Closed);
        }
        if let Some(error) = queue.error.clone().filter(StoreError::is_final) {
            queue.refusals.count(&error, 1);
            return Err(error.into());
        }
        if !queue.has_room(size) {
            queue.refusals.busy += 1;
            return Err(AppendError::Busy);
        }
        queue.size.events += size.events;
        queue.size.bytes += size.bytes;
        queue.waiting.push_back(Queued { now, drafts, outcome: outcome.clone(), size });
        let is_due =
            queue.batches() == queue.awaited || queue.is_half_full() || queue.fills_group();
        drop(queue);
        if is_due {
            self.to_commit.notify_one();
        }
        Ok(outcome)
    }

    /// Refuses batches from now on. The writer commits the queued batches and then ends.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.to_commit.notify_one();
    }

    /// Notes that the log's retention rules have changed, and wakes the writer.
    pub(crate) fn note_new_rules(&self) {
        self.queue.lock().has_new_rules = true;
        self.to_commit.notify_one();
    }

    /// Notes that the store accepts no events. After a final error, every waiting batch fails, and
    /// the queue refuses new batches.
    pub(crate) fn fail(&self, error: &StoreError) {
        let waiting = {
            let mut queue = self.queue.lock();
            if queue.error.as_ref().is_none_or(|earlier| !earlier.is_final()) {
                queue.error = Some(error.clone());
            }
            if error.is_final() { std::mem::take(&mut queue.waiting) } else { VecDeque::new() }
        };
        self.refuse(waiting.iter(), error);
    }

    /// Notes that the store accepts events again.
    pub(crate) fn recover(&self) {
        self.queue.lock().error.take_if(|error| !error.is_final());
    }

    /// Counts these batches as refused, and gives their publishers the error.
    pub(crate) fn refuse<'a>(
        &self,
        batches: impl ExactSizeIterator<Item = &'a Queued<P>>,
        error: &StoreError,
    ) {
        self.queue.lock().refusals.count(error, batches.len());
        batches.for_each(|batch| batch.outcome.resolve(Err(error.clone().into())));
    }

    /// Why the store accepts no events at present.
    pub(crate) fn error(&self) -> Option<StoreError> {
        self.queue.lock().error.clone()
    }

    /// Notes how long a commit took.
    pub(crate) fn note_commit(&self, took: Duration) {
        self.queue.lock().times.note(took);
    }

    /// The number of events that wait for their commit, and the times of all commits.
    pub(crate) fn totals(&self) -> StoreTotals {
        let queue = self.queue.lock();
        StoreTotals { queue_events: queue.size.events, commits: queue.times }
    }

    pub(crate) fn refusals(&self) -> Refusals {
        self.queue.lock().refusals
    }
}

impl<P: Payload> Queue<P> {
    /// Whether there is room for a batch. An empty queue accepts a batch of any size.
    fn has_room(&self, size: Size) -> bool {
        let fits = self.size.events + size.events <= QUEUE_EVENTS_MAX
            && self.size.bytes + size.bytes <= QUEUE_BYTES_MAX;
        fits || self.size.events == 0
    }

    pub(crate) fn batches(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the queued batches fill one transaction.
    pub(crate) fn fills_group(&self) -> bool {
        self.size.events >= GROUP_EVENTS_MAX || self.size.bytes >= GROUP_BYTES_MAX
    }

    /// Whether the queue is more than half full. The writer then stops waiting for other
    /// publishers, because the queue might soon refuse batches.
    pub(crate) fn is_half_full(&self) -> bool {
        2 * self.size.events > QUEUE_EVENTS_MAX || 2 * self.size.bytes > QUEUE_BYTES_MAX
    }

    /// Takes the batches of one transaction. Each of them counts towards the queue's size until
    /// [`done`](Self::done) is called for it.
    pub(crate) fn take_group(&mut self) -> Vec<Queued<P>> {
        let mut sum = Size::default();
        let fits = |batch: &&Queued<P>| {
            sum.events += batch.size.events;
            sum.bytes += batch.size.bytes;
            sum.events <= GROUP_EVENTS_MAX && sum.bytes <= GROUP_BYTES_MAX
        };
        let count = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }

    /// Subtracts the size of a batch from the queue's size, after the batch was committed or has
    /// failed.
    pub(crate) fn done(&mut self, size: Size) {
        self.size.events -= size.events;
        self.size.bytes -= size.bytes;
    }
}

impl Size {
    fn of<P: Payload>(drafts: &[Draft<P>]) -> Self {
        let bytes = |draft: &Draft<P>| {
            let body = draft.body.as_ref().map_or(0, Vec::len);
            body + draft.to.len() * ADDRESS_COST_BYTES + EVENT_COST_BYTES
        };
        Self { events: drafts.len().max(1), bytes: drafts.iter().map(bytes).sum() }
    }
}
