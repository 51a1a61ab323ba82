//! The state of a hub that is a node of a cluster: the publishes that wait for the node's thread,
//! and the status that the thread reports. The engine of a cluster keeps the events of all nodes in
//! one list of entries, the journal.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use downlink_cluster::{HubKey, NodeStatus, Record as ClusterRecord};
use downlink_log::{
    AppendError, Commit, Draft, Drafts, QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, Submitted, Timestamp,
    store::StoredEvent,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{Question, record::Record};

/// The number of bytes that the queue counts for each event besides its body: for the record, for
/// its keys, and for its place in an entry.
const EVENT_COST_BYTES: usize = 512;

/// The number of bytes that the queue counts for each address of an event.
const ADDRESS_COST_BYTES: usize = 80;

/// The state of a hub that is a node of a cluster.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// Whether the node has ever had everything that the engine had. Until then, new subscriptions
    /// wait, unless the node has begun with a cache.
    pub reached: bool,
    /// Whether the node takes publishes.
    pub takes_publishes: bool,
    /// The number of the last journal entry that the node has applied.
    pub position: u64,
    /// How many journal entries the node had not applied yet when it last asked the engine.
    pub lag: u64,
    /// When the last journal entry arrived. The nodes of a cluster append one every two seconds.
    pub heard: Option<Instant>,
    /// The age of the oldest journal entry that the engine keeps, if it is known.
    pub oldest_age: Option<Duration>,
    /// If the engine has lost its newest entries: the number of the last entry before the newest
    /// loss that the node knows.
    pub fork: Option<u64>,
    /// The version of the journal, if this program is too old to read it. The node has then
    /// stopped.
    pub too_new: Option<u16>,
    /// The live nodes, this one included, as far as this node knows.
    pub nodes: Vec<ClusterNode>,
    /// The counters.
    pub totals: ClusterTotals,
    /// The key of the hub.
    pub(crate) key: Option<HubKey>,
}

/// A live node of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClusterNode {
    /// The name of the node.
    pub name: Box<str>,
    /// How many journal entries the node was behind when it sent its last heartbeat, which is an
    /// entry without events.
    pub lag: u64,
    /// Whether the node has a cache, which makes its restart quick.
    pub has_cache: bool,
    /// The highest version of the journal that the node's program can read.
    pub version_max: u16,
}

/// Counters of a hub that is a node of a cluster.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClusterTotals {
    /// Journal entries that no node has applied, because they came too late or belong to a history
    /// that is lost.
    pub void: u64,
    /// Groups of events that another group has made invalid. The node that published them has
    /// planned them again.
    pub dropped: u64,
    /// Losses of the engine that the node has found.
    pub cuts: u64,
    /// Times that the node has discarded its history and begun anew.
    pub restarts: u64,
    /// Comparisons of the node's history with the journal.
    pub comparisons: u64,
}

/// The time after which an engine without a new entry counts as away. Each node appends a heartbeat
/// every two seconds. With half of this time, an engine would already count as away after one slow
/// append.
const AWAY_AFTER: Duration = Duration::from_secs(5);

impl ClusterStatus {
    /// Whether the engine has delivered an entry within the last five seconds. Each node appends
    /// one every two seconds.
    pub fn is_connected(&self) -> bool {
        self.heard.is_some_and(|heard| heard.elapsed() < AWAY_AFTER)
    }

    /// Takes over the status of the node.
    pub(crate) fn update(&mut self, node: &NodeStatus) {
        let NodeStatus { position, behind, serves_readers, takes_publishes, fork, totals, .. } =
            *node;
        (self.oldest_age, self.too_new) = (node.oldest_age, node.too_new);
        self.position = position.get();
        self.lag = behind;
        self.reached = (self.reached || serves_readers) && node.too_new.is_none();
        self.takes_publishes = takes_publishes;
        self.fork = fork.map(downlink_cluster::Position::get);
        self.totals = ClusterTotals {
            void: totals.void,
            dropped: totals.dropped,
            cuts: totals.cuts,
            restarts: totals.restarts,
            comparisons: totals.comparisons,
        };
    }
}

/// The first byte of a message between nodes. The body of an event begins with another byte.
pub(super) const MESSAGE: u8 = b'M';

/// The maximum size of a message between nodes in bytes. Larger ones would delay the events that
/// are in the same journal entry.
pub const NODE_MESSAGE_BYTES_MAX: usize = 16 << 10;

/// A message between the nodes of a cluster, from
/// [`Hub::send_to_nodes`](super::Hub::send_to_nodes).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeMessage {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// False for an older message that the node reads when it starts. True if the message was sent
    /// after this hub was made, by the clock of the sender. Also true if the message arrived after
    /// the node had reached the end of the journal.
    pub is_live: bool,
}

impl NodeMessage {
    /// The message in an event of a cluster; `None` if the event is no message.
    pub(crate) fn of(event: &StoredEvent, is_live: bool) -> Option<Self> {
        let payload = event.payload.as_ref().filter(|_| event.to.is_empty())?;
        let bytes = payload.strip_prefix(&[MESSAGE])?.to_vec();
        Some(Self { bytes, is_live })
    }
}

/// A hub's handle to the thread of its node. The thread ends when the hub is closed, or when the
/// last handle of the hub is dropped.
#[derive(Debug)]
pub(crate) struct ClusterHandle {
    pub(crate) status: watch::Receiver<ClusterStatus>,
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) queue: Arc<PublishQueue>,
}

/// A publish that waits for the node.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) records: Vec<ClusterRecord>,
    pub(crate) stream: Option<u64>,
    pub(crate) outcome: Commit,
    pub(crate) size: Size,
}

impl Drop for Queued {
    fn drop(&mut self) {
        // If the publish already has an outcome, this does nothing.
        self.outcome.resolve(Err(AppendError::OutcomeUnknown));
    }
}

/// The size of a publish. It counts towards the limits of the queue until the publish has its
/// outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    events: usize,
    bytes: usize,
}

/// The publishes that wait for the node's thread.
#[derive(Debug, Default)]
pub(crate) struct PublishQueue(Mutex<QueueState>);

/// While the lock is held, no other lock is taken and no waker runs.
#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Queued>,
    /// The size of all publishes without an outcome, including those that the node has taken.
    size: Size,
    node: Option<Waker>,
    is_closed: bool,
}

impl PublishQueue {
    /// Queues a publish, unless too many wait.
    pub(super) fn publish<T: Send + Sync + 'static>(
        &self,
        now: Timestamp,
        drafts: Drafts<Record<T>>,
        stream: Option<u64>,
    ) -> Result<Submitted, AppendError> {
        // The values of the drafts belong to the app, so they are dropped before the lock is taken.
        self.push(drafts.into_iter().map(|draft| record(now, draft)).collect(), stream)
    }

    pub(super) fn push(
        &self,
        records: Vec<ClusterRecord>,
        stream: Option<u64>,
    ) -> Result<Submitted, AppendError> {
        let size = Size::of(&records);
        let outcome = Commit::new();
        let queued = Queued { records, stream, outcome: outcome.clone(), size };
        let node = {
            let mut state = self.0.lock();
            if state.is_closed {
                return Err(AppendError::Closed);
            }
            let events = state.size.events + size.events;
            let bytes = state.size.bytes + size.bytes;
            let is_full = events > QUEUE_EVENTS_MAX || bytes > QUEUE_BYTES_MAX;
            // A publish of any valid size is taken if no other waits.
            if is_full && state.size.events > 0 {
                return Err(AppendError::Busy);
            }
            state.size = Size { events, bytes };
            state.waiting.push_back(queued);
            state.node.take()
        };
        node.into_iter().for_each(Waker::wake);
        Ok(Submitted::Queued(outcome))
    }

    /// Takes the next publish. If there is none, the queue wakes the waker when there is one.
    /// `Ready(None)` if the queue is closed and empty.
    pub(crate) fn poll_next(&self, waker: &Waker) -> Poll<Option<Queued>> {
        let waker = waker.clone();
        let old;
        {
            let mut state = self.0.lock();
            if let Some(queued) = state.waiting.pop_front() {
                return Poll::Ready(Some(queued));
            }
            if state.is_closed {
                return Poll::Ready(None);
            }
            old = state.node.replace(waker);
        }
        drop(old);
        Poll::Pending
    }

    /// Releases the room of a publish that has its outcome.
    pub(crate) fn release(&self, size: Size) {
        let mut state = self.0.lock();
        state.size.events = state.size.events.saturating_sub(size.events);
        state.size.bytes = state.size.bytes.saturating_sub(size.bytes);
    }

    /// Refuses publishes from now on. Those that wait are still taken.
    pub(crate) fn close(&self) {
        self.0.lock().is_closed = true;
    }
}

/// Dropped when the node's thread ends, also after a panic. It then refuses the publishes that
/// still wait.
#[derive(Debug)]
pub(crate) struct QueueEnd(pub(crate) Arc<PublishQueue>);

impl std::ops::Deref for QueueEnd {
    type Target = PublishQueue;

    fn deref(&self) -> &PublishQueue {
        &self.0
    }
}

impl Drop for QueueEnd {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.0.lock();
            state.is_closed = true;
            std::mem::take(&mut state.waiting)
        };
        for queued in waiting {
            queued.outcome.resolve(Err(AppendError::Closed));
        }
    }
}

impl Size {
    fn of(records: &[ClusterRecord]) -> Self {
        let bytes = records.iter().map(|record| {
            let body = record.payload.as_ref().map_or(0, Vec::len);
            EVENT_COST_BYTES + body + record.to.len() * ADDRESS_COST_BYTES
        });
        Self { events: records.len(), bytes: bytes.sum() }
    }
}

/// An event as the nodes exchange it. The node's thread computes the event's fingerprint (a hash of
/// its content) later, because the key of the hub comes from the journal.
fn record<T: Send + Sync + 'static>(now: Timestamp, draft: Draft<Record<T>>) -> ClusterRecord {
    let Draft { to, id, key, fingerprint, finish, body, payload } = draft;
    ClusterRecord {
        at: now,
        to: to.into_vec(),
        id,
        key,
        fingerprint,
        finish,
        payload: body.filter(|_| payload.is_some()),
    }
}
