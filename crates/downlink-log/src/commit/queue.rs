//! What waits for the store's writer: batches in the order of their offsets, bounded.
//!
//! Plain data inside the sequence lock, so that the order of the queue is the order of the offsets.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::{
    draft::Answers,
    given::{Fingerprint, IdempotencyKey},
    install::{Assigned, Decided},
    offset::Offset,
    store::{StoreError, StoredEvent},
    ticket::Ticket,
};

/// Events in one transaction, if there are more batches than one: some milliseconds of work, so that
/// the first publisher does not wait for the last.
const GROUP_EVENTS_MAX: usize = 4_096;

/// Bytes in one transaction, if there are more batches than one.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// What an event counts towards the queue's bytes besides its payload: its addresses, and the rows
/// that the store makes of it.
const EVENT_COST_BYTES: usize = 256;

/// One batch on its way to the store.
pub(crate) struct Queued<P> {
    pub(crate) content: Content<P>,
    /// Taken out while they are written.
    pub(crate) events: Vec<StoredEvent>,
    /// How many events there are, wherever they are.
    pub(crate) count: usize,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) bytes: usize,
}

/// Whether readers see a batch already.
pub(crate) enum Content<P> {
    /// Not before its commit.
    Hidden(Assigned<P>),
    /// Since it was appended, with these answers.
    Visible(Answers),
}

/// Batches that are not committed yet, those under way among them.
pub(crate) struct Queue<P> {
    waiting: VecDeque<Queued<P>>,
    /// Of everything that is not committed: events (a batch without counts as one) and bytes.
    events: usize,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// Somebody waits for a commit: it is not to gather any longer.
    pub(crate) hurry: bool,
    /// With so many batches the writer waits no longer.
    pub(crate) awaited: usize,
    /// Batches that were waiting when the last commit ended; the writer takes it.
    pub(crate) waited: Option<usize>,
    /// The store did not take the last group: waiting for it may be in vain.
    is_refused: bool,
}

impl<P> Queue<P> {
    pub(crate) fn new(events_max: usize, bytes_max: usize) -> Self {
        let waiting = VecDeque::new();
        Self {
            waiting,
            events: 0,
            bytes: 0,
            events_max,
            bytes_max,
            hurry: false,
            awaited: 1,
            waited: None,
            is_refused: false,
        }
    }

    /// Whether there is room for a batch. An empty queue takes any.
    pub(crate) fn has_room(&self, events: usize, bytes: usize) -> bool {
        let fits = self.events + events <= self.events_max && self.bytes + bytes <= self.bytes_max;
        fits || self.events == 0
    }

    pub(crate) fn push(&mut self, batch: Queued<P>) {
        self.events += batch.weight();
        self.bytes += batch.bytes;
        self.waiting.push_back(batch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn batches(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the writer is to hear of the batch that was just pushed.
    pub(crate) fn is_due(&self) -> bool {
        let is_gathering = self.awaited > 1;
        self.waiting.len() == self.awaited
            || self.is_pressing()
            || (is_gathering && self.fills_group())
    }

    /// Whether more would not go into the same transaction, or somebody waits for it.
    pub(crate) fn fills_group(&self) -> bool {
        self.hurry || self.events >= GROUP_EVENTS_MAX || self.bytes >= GROUP_BYTES_MAX
    }

    /// Whether it is worth a commit at once: half full, or awaited.
    pub(crate) fn is_pressing(&self) -> bool {
        self.hurry || self.is_half_full()
    }

    fn is_half_full(&self) -> bool {
        2 * self.events > self.events_max || 2 * self.bytes > self.bytes_max
    }

    /// Whether the store takes what waits, and is slower than those who append.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_half_full() && !self.is_refused
    }

    /// Takes what goes into one transaction. It counts until it is [`done`](Self::done).
    pub(crate) fn take_group(&mut self) -> Vec<Queued<P>> {
        self.hurry = false;
        let (mut events, mut bytes) = (0, 0);
        let fits = |batch: &&Queued<P>| {
            events += batch.count;
            bytes += batch.bytes;
            events <= GROUP_EVENTS_MAX && bytes <= GROUP_BYTES_MAX
        };
        let count = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }

    /// Puts a group back that could not be committed yet.
    pub(crate) fn put_back(&mut self, group: Vec<Queued<P>>, error: &StoreError) {
        // Who has locked the store does so for a moment.
        self.is_refused = *error != StoreError::Locked;
        group.into_iter().rev().for_each(|batch| self.waiting.push_front(batch));
    }

    /// What was taken is committed, or failed.
    pub(crate) fn done(&mut self, group: &[Queued<P>]) {
        self.is_refused = false;
        for batch in group {
            self.events -= batch.weight();
            self.bytes -= batch.bytes;
        }
    }
}

impl<P> Queued<P> {
    fn weight(&self) -> usize {
        self.count.max(1)
    }
}

/// What an event counts towards the queue's bytes.
pub(crate) fn cost_bytes(event: &StoredEvent) -> usize {
    draft_cost_bytes(event.payload.as_ref())
}

pub(crate) fn draft_cost_bytes(body: Option<&Vec<u8>>) -> usize {
    body.map_or(0, Vec::len) + EVENT_COST_BYTES
}

/// Keys, ids and finish marks of batches that nobody sees yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) keys: HashMap<IdempotencyKey, Awaited>,
    pub(crate) ids: HashMap<Box<str>, Awaited>,
    /// Topics, by their identity: the batches hold them.
    pub(crate) finishing: HashSet<usize>,
}

/// A draft whose batch is not committed yet.
#[derive(Clone, Debug)]
pub(crate) struct Awaited {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) draft: usize,
    pub(crate) offset: Offset,
}

impl Pending {
    /// Notes what a batch has that others may repeat, or run into.
    pub(crate) fn note<P>(&mut self, batch: &Assigned<P>, ticket: &Arc<Ticket>) {
        for (draft, decided) in batch.drafts.iter().enumerate() {
            let Decided::Fresh(fresh) = decided else { continue };
            let (fingerprint, offset) = (fresh.fingerprint, Offset::new(fresh.offset));
            let awaited = || Awaited { fingerprint, ticket: Arc::clone(ticket), draft, offset };
            if let Some(key) = &fresh.key {
                self.keys.insert(key.clone(), awaited());
            }
            if let Some(id) = fresh.id.as_ref().filter(|_| fresh.is_kept()) {
                self.ids.insert(id.clone(), awaited());
            }
            if fresh.finish {
                self.finishing.extend(fresh.topics.iter().map(|topic| topic.identity()));
            }
        }
    }

    /// Forgets it again, when the batch is visible or has failed.
    pub(crate) fn forget<P>(&mut self, batch: &Assigned<P>) {
        for fresh in batch.fresh() {
            if let Some(key) = &fresh.key {
                self.keys.remove(key);
            }
            if let Some(id) = &fresh.id {
                self.ids.remove(id);
            }
            if fresh.finish {
                fresh.topics.iter().for_each(|topic| {
                    self.finishing.remove(&topic.identity());
                });
            }
        }
    }
}
