//! Batches that wait for the store's writer, in the order of their coming, bounded.

use std::{collections::VecDeque, sync::Arc};

use crate::commit::{Commit, Outcome};
use crate::sequence::{AppendError, Draft, Drafts};
use crate::store::StoreError;
use crate::sync::{Condvar, Mutex};
use crate::types::{Payload, Timestamp};

/// Events in one transaction, if there are more batches than one: some milliseconds of work, so that
/// the first publisher does not wait for the last.
const GROUP_EVENTS_MAX: usize = 4_096;

/// Bytes in one transaction, if there are more batches than one.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// What an event counts towards the queue's bytes besides its payload: its addresses, and the rows
/// that the store makes of it.
const EVENT_COST_BYTES: usize = 256;

/// One batch on its way to the store.
pub(crate) struct Queued<P: Payload> {
    pub(crate) now: Timestamp,
    pub(crate) drafts: Drafts<P>,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) size: Size,
}

/// What a batch counts towards the bounds of the queue.
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
}

/// Batches that are not committed yet, those under way among them.
pub(crate) struct Queue<P: Payload> {
    waiting: VecDeque<Queued<P>>,
    /// The size of everything that is not committed.
    size: Size,
    events_max: usize,
    bytes_max: usize,
    /// With this many batches the writer waits no longer.
    pub(crate) awaited: usize,
    /// Batches that were waiting when the last commit ended; the writer takes it.
    pub(crate) waited: Option<usize>,
    pub(crate) closed: bool,
    /// Why the store takes nothing more.
    failed: Option<StoreError>,
}

impl<P: Payload> CommitQueue<P> {
    pub(crate) fn new(events_max: usize, bytes_max: usize) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            size: Size::default(),
            events_max,
            bytes_max,
            awaited: 1,
            waited: None,
            closed: false,
            failed: None,
        };
        Self { queue: Mutex::new(queue), to_commit: Condvar::new() }
    }

    /// Queues a batch. Never waits for the store.
    pub(crate) fn submit(&self, now: Timestamp, drafts: Drafts<P>) -> Result<Commit, AppendError> {
        let (size, outcome) = (Size::of(&drafts), Outcome::new());
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(AppendError::Closed);
        }
        if let Some(error) = &queue.failed {
            return Err(AppendError::Store(error.clone()));
        }
        if !queue.has_room(size) {
            return Err(AppendError::Busy);
        }
        queue.push(Queued { now, drafts, outcome: Arc::clone(&outcome), size });
        let is_due = queue.is_due();
        drop(queue);
        if is_due {
            self.to_commit.notify_one();
        }
        Ok(Commit(outcome))
    }

    /// Refuses batches from now on. The writer ends when it has written the queue.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.to_commit.notify_one();
    }
}

impl<P: Payload> Queue<P> {
    /// Whether there is room for a batch. An empty queue takes any.
    fn has_room(&self, size: Size) -> bool {
        let fits = self.size.events + size.events <= self.events_max
            && self.size.bytes + size.bytes <= self.bytes_max;
        fits || self.size.events == 0
    }

    fn push(&mut self, batch: Queued<P>) {
        self.size.events += batch.size.events;
        self.size.bytes += batch.size.bytes;
        self.waiting.push_back(batch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn batches(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the writer must hear of the batch that was just pushed.
    fn is_due(&self) -> bool {
        self.waiting.len() == self.awaited || self.is_half_full() || self.fills_group()
    }

    /// Whether more would not go into the same transaction.
    pub(crate) fn fills_group(&self) -> bool {
        self.size.events >= GROUP_EVENTS_MAX || self.size.bytes >= GROUP_BYTES_MAX
    }

    /// Whether waiting for more would soon refuse publishers.
    pub(crate) fn is_half_full(&self) -> bool {
        2 * self.size.events > self.events_max || 2 * self.size.bytes > self.bytes_max
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

    /// Takes nothing more. What waits is given back.
    pub(crate) fn fail(&mut self, error: &StoreError) -> Vec<Queued<P>> {
        self.failed.get_or_insert_with(|| error.clone());
        self.waiting.drain(..).collect()
    }
}

impl Size {
    fn of<P: Payload>(drafts: &[Draft<P>]) -> Self {
        let body = |draft: &Draft<P>| draft.body.as_ref().map_or(0, Vec::len) + EVENT_COST_BYTES;
        Self { events: drafts.len().max(1), bytes: drafts.iter().map(body).sum() }
    }
}
