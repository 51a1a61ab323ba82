//! The bounded queue of batches that wait for the store's writer, oldest first. A full queue
//! refuses a batch and never makes a publisher wait.

use std::collections::VecDeque;

use crate::commit::Commit;
use crate::sequence::{AppendError, Draft, Drafts};
use crate::store::StoreError;
use crate::sync::{Condvar, Mutex};
use crate::types::{Payload, Timestamp};

/// Events that wait for their commit. At a thousand commits a second with a publisher for each
/// event, a machine does not have that many tasks. With half as many, a short stall of the disk
/// would refuse publishers.
pub const QUEUE_EVENTS_MAX: usize = 65_536;

/// Bytes that wait for their commit: four of the largest batches.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Events in one transaction, if there are more batches than one: some milliseconds of work, so
/// that the first publisher does not wait for the last.
const GROUP_EVENTS_MAX: usize = 4_096;

/// Bytes in one transaction, if there are more batches than one.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// The cost of an event in the queue's bytes besides its payload and its addresses: the draft, and
/// the rows that the store makes of it.
const EVENT_COST_BYTES: usize = 256;

/// The cost of an address besides its name: its places in the draft and in the stored event, and
/// the allocation of the name. Without it, a queue of events to many short topics would take ten
/// times its bound.
const ADDRESS_COST_BYTES: usize = 80;

/// One batch on its way to the store. It outlives all code that may panic, so it always gets an
/// outcome.
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

/// The size of a batch, as the bounds of the queue count it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    events: usize,
    bytes: usize,
}

/// The queue, and the signal to the writer.
pub(crate) struct CommitQueue<P: Payload> {
    /// Locked alone.
    pub(crate) queue: Mutex<Queue<P>>,
    /// Notified when there is something to commit, or nothing more will come.
    pub(crate) to_commit: Condvar,
    /// Resolved when the writer has let go of the store.
    pub(crate) ended: Commit,
}

/// Batches that are not committed yet, including those under way.
pub(crate) struct Queue<P: Payload> {
    waiting: VecDeque<Queued<P>>,
    /// The size of everything that is not committed.
    size: Size,
    /// The writer stops waiting for more once this many batches are queued.
    pub(crate) awaited: usize,
    pub(crate) closed: bool,
    /// Why the store takes no events at present. After a final error the queue takes none either.
    error: Option<StoreError>,
    refusals: Refusals,
}

/// Publishes that a log refused because of its store: batches, and events that came alone.
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

impl Refusals {
    /// The sum.
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
    /// A queue to a store that takes events, unless there is an error.
    pub(crate) fn new(error: Option<StoreError>) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            size: Size::default(),
            awaited: 1,
            closed: false,
            error,
            refusals: Refusals::default(),
        };
        Self { queue: Mutex::new(queue), to_commit: Condvar::new(), ended: Commit::new() }
    }

    /// Queues a batch. Never waits for the store.
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

    /// Refuses batches from now on. The writer ends when it has written the queue.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.to_commit.notify_one();
    }

    /// Notes that the store takes no events. After a final error every waiting batch fails, and the
    /// queue takes no more.
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

    /// Notes that the store takes events.
    pub(crate) fn recover(&self) {
        self.queue.lock().error.take_if(|error| !error.is_final());
    }

    /// Counts the batches as refused, and fails them.
    pub(crate) fn refuse<'a>(
        &self,
        batches: impl ExactSizeIterator<Item = &'a Queued<P>>,
        error: &StoreError,
    ) {
        self.queue.lock().refusals.count(error, batches.len());
        batches.for_each(|batch| batch.outcome.resolve(Err(error.clone().into())));
    }

    /// Why the store takes no events at present.
    pub(crate) fn error(&self) -> Option<StoreError> {
        self.queue.lock().error.clone()
    }

    pub(crate) fn refusals(&self) -> Refusals {
        self.queue.lock().refusals
    }
}

impl<P: Payload> Queue<P> {
    /// Whether there is room for a batch. An empty queue takes any.
    fn has_room(&self, size: Size) -> bool {
        let fits = self.size.events + size.events <= QUEUE_EVENTS_MAX
            && self.size.bytes + size.bytes <= QUEUE_BYTES_MAX;
        fits || self.size.events == 0
    }

    pub(crate) fn batches(&self) -> usize {
        self.waiting.len()
    }

    /// Whether more would not go into the same transaction.
    pub(crate) fn fills_group(&self) -> bool {
        self.size.events >= GROUP_EVENTS_MAX || self.size.bytes >= GROUP_BYTES_MAX
    }

    /// Whether waiting for more would soon refuse publishers.
    pub(crate) fn is_half_full(&self) -> bool {
        2 * self.size.events > QUEUE_EVENTS_MAX || 2 * self.size.bytes > QUEUE_BYTES_MAX
    }

    /// Takes the batches of one transaction. They count until they are [`done`](Self::done).
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

    /// A batch that was taken is committed, or failed.
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
