//! The log itself: what its parts share, and in which order their locks may be held.
//!
//! Locks, outermost first; each is taken with some of those above it held, or none:
//!
//! 1. `sequence`, or `registry`; never both
//! 2. one reader's `attached`; never under `sequence`
//! 3. `index`
//! 4. one topic's `ring`
//! 5. one topic's `watchers`, the expiry queue, `given`; one at a time, and `watchers` under no ring
//! 6. one waker's slot
//!
//! None is held while a waker or a [`WakeMany`](crate::WakeMany) runs or a payload is dropped. A reader
//! that reads takes neither of the first two; only its coming, its going, and the making and collection
//! of a topic write to the registry.

use std::{fmt, sync::Arc};

use crate::{
    address::Address,
    durable::Durable,
    expiry::Expiry,
    forgotten::{FORGOTTEN_MAX, Floor},
    given::{GivenIds, KEYS_MAX, KeyWindow},
    index::Index,
    offset::{Cursor, Epoch, Offset, Timestamp},
    queue::{Pending, Queue},
    reader::EndReason,
    registry::Registry,
    retention::RetentionRules,
    store::StoreError,
    sync::{AtomicU64, AtomicUsize, Mutex, Ordering, RwLock},
    ticket::Commit,
    topic::TopicLog,
    watcher::end_each,
};

/// What a log keeps for each event. Cheap to clone: every reader takes a clone.
///
/// Cloning and the methods below run while locks are held: they do not panic, wait, or call into the
/// log. Dropping is free to do all of that.
pub trait Payload: Clone + Send + Sync + 'static {
    /// What it counts towards the byte bounds: always the same. Each event counts 96 bytes more.
    fn bytes(&self) -> usize;

    /// The id that its publisher gave, if one did: its draft's. Frees the id with the event.
    fn given_id(&self) -> Option<&str> {
        None
    }
}

/// The named maxima of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Readers at a time.
    pub subscribers_max: usize,
    /// Readers of one client at a time.
    pub subscribers_per_client_max: usize,
    /// Topics and patterns of one reader. What its patterns match is bounded by `topics_max`.
    pub selectors_max: usize,
    /// Topics that exist at a time, clients' inboxes among them.
    pub topics_max: usize,
    /// Bytes of history in all topics together.
    pub bytes_max: usize,
}

impl Default for Limits {
    /// As many subscribers as descriptors allow, a thousand selectors, a hundred thousand topics and
    /// 256 MiB: more than one process serves today, and bounded.
    fn default() -> Self {
        Self {
            subscribers_max: 1_000_000,
            subscribers_per_client_max: 1_000,
            selectors_max: 1_000,
            topics_max: 100_000,
            bytes_max: 256 << 20,
        }
    }
}

/// How a log is to be.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Names this life of the log; random in production.
    pub epoch: Epoch,
    /// How much history topics keep.
    pub retention: RetentionRules,
    /// Maxima.
    pub limits: Limits,
    /// How long a finished topic stays finished, and its history readable.
    pub finished_keep: std::time::Duration,
    /// How many events are replayed at most after an id that the log does not know.
    pub gap_replay_max: usize,
    /// How many collected topics are remembered by name; `None` is 65,536.
    pub forgotten_max: Option<usize>,
}

impl LogOptions {
    /// Defaults under this epoch.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            retention: RetentionRules::default(),
            limits: Limits::default(),
            finished_keep: std::time::Duration::from_secs(60 * 60),
            gap_replay_max: 1_000,
            forgotten_max: None,
        }
    }
}

/// A bounded log of events. Clones are handles to one log.
pub struct Log<P>(pub(crate) Arc<Shared<P>>, Option<Arc<Handle<P>>>);

impl<P> Clone for Log<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), self.1.clone())
    }
}

/// That somebody outside has a log: the threads of its store hold it too, and end with the last one.
struct Handle<P>(Arc<Shared<P>>);

impl<P> Drop for Handle<P> {
    fn drop(&mut self) {
        self.0.close_sequence();
        if let Some(durable) = &self.0.durable {
            durable.replay.stop();
        }
    }
}

impl<P> fmt::Debug for Log<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("epoch", &self.0.options.epoch).finish_non_exhaustive()
    }
}

pub(crate) struct Shared<P> {
    pub(crate) options: LogOptions,
    /// The next offset to be assigned. Stored (Release) after everything below it is in its rings;
    /// who loads it (Acquire) finds all of that.
    pub(crate) tail: AtomicU64,
    /// At least the highest floor of any topic there is or was. Raised (AcqRel) before the index
    /// forgets a row; who looks at the index and then loads it (Acquire) knows of each missing row.
    pub(crate) floor_max: AtomicU64,
    /// The newest offset in any inbox. Raised (AcqRel) before the tail is moved: who has loaded the
    /// tail, and finds this and `floor_max` below its cursor, need not look at its inbox, which few
    /// others have lately touched.
    pub(crate) newest_of_inboxes: AtomicU64,
    /// Bytes and events kept in all rings. Changed under the lock of the ring concerned, and ordered
    /// with nothing else (Relaxed): who reads them without is right at some moment.
    pub(crate) bytes: AtomicUsize,
    pub(crate) events: AtomicUsize,
    /// Topics that are finished now. Counted up before the tail is stored, so that who sees the tail
    /// behind a finish mark sees the mark counted (Relaxed).
    pub(crate) finished: AtomicUsize,
    /// Assigns offsets. Held while an event goes into its rings.
    pub(crate) sequence: Mutex<Sequence<P>>,
    pub(crate) index: Mutex<Index<P>>,
    pub(crate) given: Mutex<GivenIds>,
    pub(crate) expiry: Expiry<P>,
    /// Which topics and readers there are.
    pub(crate) registry: RwLock<Registry<P>>,
    /// Read by every reader, and never collected.
    pub(crate) everyone: Arc<TopicLog<P>>,
    /// The store, if there is one.
    pub(crate) durable: Option<Durable<P>>,
}

/// What is needed to assign an offset.
pub(crate) struct Sequence<P> {
    /// The next offset to be assigned. The tail is behind it while the store has not committed.
    pub(crate) next: u64,
    /// The newest time stamp. Time does not run backwards in a log, whatever the clock does.
    pub(crate) at: Timestamp,
    pub(crate) keys: KeyWindow,
    pub(crate) closed: bool,
    /// What is on its way to the store, and what of it nobody sees yet.
    pub(crate) queue: Queue<P>,
    pub(crate) pending: Pending,
    /// Why the store takes nothing more.
    pub(crate) failed: Option<StoreError>,
}

impl<P: Payload> Log<P> {
    /// An empty log in memory.
    pub fn new(options: LogOptions) -> Self {
        Self::begin_at(options, Offset::FIRST, Timestamp::default(), None, (0, 0))
    }

    /// An empty log whose next offset is `next`, with room for so many events and bytes on their way
    /// to its store.
    pub(crate) fn begin_at(
        options: LogOptions,
        next: Offset,
        at: Timestamp,
        durable: Option<Durable<P>>,
        (queue_events_max, queue_bytes_max): (usize, usize),
    ) -> Self {
        let everyone = TopicLog::new(Address::Everyone, &options, Floor::NONE);
        let forgotten_max = options.forgotten_max.unwrap_or(FORGOTTEN_MAX);
        let registry = Registry::new(Arc::clone(&everyone), forgotten_max);
        let sequence = Sequence {
            next: next.get(),
            at,
            keys: KeyWindow::new(KEYS_MAX),
            closed: false,
            queue: Queue::new(queue_events_max, queue_bytes_max),
            pending: Pending::default(),
            failed: None,
        };
        let shared = Arc::new(Shared {
            options,
            tail: AtomicU64::new(next.get()),
            floor_max: AtomicU64::new(Offset::FIRST.get()),
            newest_of_inboxes: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            sequence: Mutex::new(sequence),
            index: Mutex::new(Index::new()),
            given: Mutex::new(GivenIds::default()),
            expiry: Expiry::new(),
            registry: RwLock::new(registry),
            everyone,
            durable,
        });
        let handle = shared.durable.is_some().then(|| Arc::new(Handle(Arc::clone(&shared))));
        Self(shared, handle)
    }

    /// The options it was made with.
    pub fn options(&self) -> &LogOptions {
        &self.0.options
    }

    /// The next offset to be assigned: a cursor here has everything behind it.
    pub fn tail(&self) -> Cursor {
        Cursor { epoch: self.0.options.epoch, next: Offset::new(self.0.tail()) }
    }

    /// Evicts what is too old now. Appending, opening, and reading what there is do it as well; in a
    /// log where nothing happens somebody has to look at the time.
    pub fn expire(&self, now: Timestamp) {
        self.0.expire(now);
    }

    /// Ends the log: every later append and open fails, every reader reads what there is and ends.
    ///
    /// Never waits for a reader. Closing twice is closing once. With a store, what waits for its
    /// commit is committed first: see [`poll_closed`](Self::poll_closed).
    pub fn close(&self) {
        self.0.close_sequence();
        self.0.registry.write().closed = true;
        if self.0.durable.is_none() {
            self.end_all(EndReason::Closed);
        }
    }

    /// Whether a log that was closed has written everything and let go of its store. Until then the
    /// waker is kept and woken then. A log without a store is ready at once.
    pub fn poll_closed(&self, waker: &std::task::Waker) -> std::task::Poll<()> {
        match &self.0.durable {
            Some(durable) => Commit(Arc::clone(&durable.ended)).poll(waker).map(|_| ()),
            None => std::task::Poll::Ready(()),
        }
    }

    /// Ends every reader there is, each after it has read what there is.
    pub fn end_all(&self, reason: EndReason) {
        end_each(&self.0.everyone.watchers, reason);
    }

    /// Ends every reader of one client at once, and says how many there were.
    pub fn disconnect(&self, client: &crate::ClientId) -> usize {
        let inbox = self.0.registry.read().find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| end_each(&inbox.watchers, EndReason::Disconnected))
    }
}

impl<P> Shared<P> {
    /// Refuses appends from now on, and lets the writer end when it has written what there is.
    fn close_sequence(&self) {
        self.sequence.lock().closed = true;
        if let Some(durable) = &self.durable {
            durable.to_commit.notify_one();
            durable.has_committed.notify_all();
        }
    }

    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }
}
