//! The log itself: the type that programs use. It joins the parts of a log, which are in the other
//! modules.

use std::{
    fmt,
    ops::Deref,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::commit::{
    Commit, CommitQueue, OnReport, Outages, Shared, StoreClock, Writer, outage::RETRY_EVERY,
    restore,
};
use crate::core::Core;
use crate::feed::Feed;
use crate::history::History;
use crate::read::{Lags, Reader, Seats, Start, StoreReplays, TopicOverview, Totals};
use crate::readers::{Confirmations, ReaderOverview, end_each, end_one, wake_all};
use crate::replica::{Applier, CacheSide, Ending, FloorsAhead, Life, ReplicaHandle, ReplicaShared};
use crate::sequence::{
    Answers, AppendError, Decode, Drafts, Epochs, OnUnreadable, PayloadDecoder, Sequencer, Stored,
};
use crate::store::{Cache, Durability, Opened, OpenedCache, Store, StoreError};
use crate::sync::{Mutex, RwLock};
use crate::types::address::Topic;
use crate::types::{
    Address, ClientId, ClockState, Cursor, EndReason, LogOptions, Offset, OpenError, PatternSet,
    Payload, RetentionRules, Selection, Timestamp,
};

/// How a log uses its store.
pub struct StoreOptions<P> {
    /// Whether a commit counts as done when the disk has it, or when the operating system has it.
    pub durability: Durability,
    /// Makes payloads from stored events.
    pub decode: Arc<Decode<P>>,
    /// Called once for each stored event that cannot be read. `None` by default.
    pub on_unreadable: Option<Box<OnUnreadable>>,
    /// Called when the store begins to refuse events, and when it accepts events again. `None` by
    /// default.
    pub on_report: Option<Box<OnReport>>,
    /// The time between two checks of a store that has failed. After a failure, the log checks
    /// again and again whether the store accepts events.
    pub retry_every: Duration,
    /// The log's clock. It returns the log time, which never goes back, and the difference between
    /// wall clock and log time (see [`LogClock`](crate::LogClock)). While nothing is published, the
    /// writing thread uses the log time to evict events that are too old. The store keeps the
    /// difference.
    pub clock: Box<StoreClock>,
    /// Each thread that reads the store calls this function once when it starts, for example to
    /// lower its priority. The default function does nothing.
    pub begin_reading: fn(),
}

impl<P> StoreOptions<P> {
    /// The default options with this decoder and this clock.
    pub fn new(
        decode: impl Fn(Stored) -> Option<P> + Send + Sync + 'static,
        clock: impl Fn() -> ClockState + Send + 'static,
    ) -> Self {
        Self {
            durability: Durability::default(),
            decode: Arc::new(decode),
            on_unreadable: None,
            on_report: None,
            retry_every: RETRY_EVERY,
            clock: Box::new(clock),
            begin_reading: || {},
        }
    }
}

impl<P> fmt::Debug for StoreOptions<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// The outcome of an append, as far as it is known when [`Log::append`] returns.
#[derive(Clone, Debug)]
#[must_use]
pub enum Submitted {
    /// The batch is appended, and readers see it.
    Appended(Answers),
    /// The batch waits until the store has committed it. Then its events get their offsets, and
    /// readers see them.
    Queued(Commit),
}

/// A bounded log of events. Clones are handles to the same log.
pub struct Log<P: Payload> {
    source: Source<P>,
}

/// Where a log gets its events from.
enum Source<P: Payload> {
    /// Publishers append them.
    Own { core: Arc<Core<P>>, store: Option<Arc<StoreSide<P>>> },
    /// An applier adds the events that it gets from another log. The core of a replica can be
    /// replaced.
    Replica(Arc<ReplicaHandle<P>>),
}

/// The core of a log: the parts that publishers and readers share. The core of a replica can be
/// replaced, so a call holds its own reference to it. A log that is not a replica only lends its
/// core, which costs nothing.
enum CoreInUse<'a, P> {
    Lent(&'a Arc<Core<P>>),
    Shared(Arc<Core<P>>),
}

impl<P> Deref for CoreInUse<'_, P> {
    type Target = Core<P>;

    fn deref(&self) -> &Core<P> {
        match self {
            Self::Lent(core) => core,
            Self::Shared(core) => core,
        }
    }
}

/// The queues of the threads that write and read the store. The threads end when the last handle of
/// the log is dropped. The writing thread first writes all queued events.
struct StoreSide<P: Payload> {
    queue: Arc<CommitQueue<P>>,
    replays: Arc<StoreReplays<P>>,
}

impl<P: Payload> Drop for StoreSide<P> {
    fn drop(&mut self) {
        // The reading threads must close the file before the writing thread releases it for other
        // processes.
        self.replays.stop();
        self.queue.close();
    }
}

impl<P: Payload> Clone for Log<P> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Own { core, store } => {
                Source::Own { core: Arc::clone(core), store: store.clone() }
            }
            Source::Replica(handle) => Source::Replica(Arc::clone(handle)),
        };
        Self { source }
    }
}

impl<P: Payload> fmt::Debug for Log<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("epoch", &self.core().ids.current()).finish_non_exhaustive()
    }
}

impl<P: Payload> Log<P> {
    /// Makes an empty log in memory.
    pub fn new(options: LogOptions) -> Self {
        let ids = Epochs::new(vec![(options.epoch, Offset::FIRST)], options.epoch);
        let sequencer = Sequencer::new(Offset::FIRST, Timestamp::default());
        let history = History::new(options, Offset::FIRST);
        let core = Arc::new(Core { history, sequencer, ids, confirmations: None });
        Self { source: Source::Own { core, store: None } }
    }

    /// Makes a log that continues the history of a store. The log uses the epoch that began when
    /// the store was opened, and ignores the epoch in `options`.
    ///
    /// Starts one thread that writes the store and several threads that read it. The threads end
    /// when the last handle of the log is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read, or if a thread cannot be started.
    pub fn with_store(
        mut options: LogOptions,
        store: impl Store,
        side: StoreOptions<P>,
    ) -> Result<Self, StoreError> {
        let Opened { epochs, next_offset, clock, refuses, .. } = store.opened().clone();
        if let Some((epoch, _)) = epochs.last() {
            options.epoch = *epoch;
        }
        let ids = Epochs::new(epochs, options.epoch);
        let sequencer = Sequencer::new(next_offset, clock.unwrap_or_default().at);
        let history = History::new(options, next_offset);
        let core = Arc::new(Core { history, sequencer, ids, confirmations: None });
        let reader = store.reader();
        let decoder = Arc::new(PayloadDecoder::new(side.decode, side.on_unreadable));
        restore(&core, &*reader, &decoder, next_offset)?;
        let queue = Arc::new(CommitQueue::new(refuses));
        let replays = StoreReplays::start(reader, decoder, side.begin_reading)?;
        let writer = Writer {
            store: Box::new(store),
            durability: side.durability,
            clock: side.clock,
            pacing: None,
            unflushed: None,
            outages: Outages::new(side.retry_every, side.on_report),
            shared: Shared { core: Arc::clone(&core), queue: Arc::clone(&queue) },
        };
        let store = Some(Arc::new(StoreSide { queue, replays: Arc::new(replays) }));
        writer.start()?;
        Ok(Self { source: Source::Own { core, store } })
    }

    /// Makes a replica: a log that gets its events from another log, its upstream. The [`Applier`]
    /// is its only writer, and [`append`](Self::append) is refused. In all other ways, the replica
    /// is read like any other log. `options` has the retention rules and limits of the replica
    /// itself, which may differ from those of the upstream. The epoch in `options` is used only
    /// until the first feed begins.
    ///
    /// With a cache, the replica begins with the contents of the cache. Of the fields of `side`,
    /// the log uses the decoder, the two reports and `begin_reading`. It needs no clock, because
    /// the caller passes the time to [`Applier::idle`], and no durability, because the durability
    /// of a cache is always relaxed.
    ///
    /// Until a new replica has reached the end of its upstream, its readers wait in
    /// [`poll_begun`](Reader::poll_begun), because a half-filled replica must not look like a
    /// complete one. A replica that begins with a cache serves readers at once: it has everything
    /// up to its position in the feed, and later events follow in order. Later, a reader waits only
    /// if it continues after an id that the replica does not know. Such an id may come from a node
    /// of a cluster that is ahead of this one. A reader that has waited for ten seconds ends with
    /// [`EndReason::Drained`].
    ///
    /// The log is closed when the applier is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the cache cannot be read, or if a thread cannot be started.
    pub fn replica(
        options: LogOptions,
        side: StoreOptions<P>,
        cache: Option<Box<dyn Cache>>,
    ) -> Result<(Self, Applier<P>), StoreError> {
        let nothing = OpenedCache::default();
        let opened = cache.as_ref().map_or(&nothing, |cache| cache.opened());
        let (position, is_node) = (opened.position, opened.node.hub.is_some());
        let ids = Epochs::growing(opened.epochs.clone(), options.epoch);
        ids.add_marks(&opened.marks);
        ids.note_unknown_below(opened.unknown_below.map_or(0, Offset::get));
        let next = position.unwrap_or(Offset::FIRST);
        let sequencer = Sequencer::new(next, opened.clock.unwrap_or_default().at);
        let history = History::new(options.clone(), next);
        let rules = history.rules();
        let confirmations = Arc::new(Confirmations::new(position.is_some()));
        let core =
            Core { history, sequencer, ids, confirmations: Some(Arc::clone(&confirmations)) };
        let core = Arc::new(core);
        let decoder = Arc::new(PayloadDecoder::new(side.decode, side.on_unreadable));
        let mut replays = None;
        if let Some(cache) = &cache {
            let reader = cache.reader();
            restore(&core, &*reader, &decoder, next)?;
            let started = StoreReplays::start(reader, Arc::clone(&decoder), side.begin_reading)?;
            replays = Some(Arc::new(started));
        }
        let shared = Arc::new(ReplicaShared {
            options,
            life: RwLock::new(Life { core, replays, is_closed: false }),
            confirmations,
            ended: Commit::new(),
            cache_error: Mutex::new(None),
        });
        let applier = Applier {
            cache: cache.map(|cache| CacheSide::new(cache, rules)),
            decoder,
            on_report: side.on_report,
            begin_reading: side.begin_reading,
            has_begun: position.is_some(),
            is_node,
            floors_below: position.map_or(0, Offset::get),
            ahead: FloorsAhead::default(),
            ending: Ending(Arc::clone(&shared)),
        };
        Ok((Self { source: Source::Replica(Arc::new(ReplicaHandle(shared))) }, applier))
    }

    fn core(&self) -> CoreInUse<'_, P> {
        match &self.source {
            Source::Own { core, .. } => CoreInUse::Lent(core),
            Source::Replica(handle) => CoreInUse::Shared(handle.0.core()),
        }
    }

    /// The queues of the store of a log that is not a replica.
    fn store(&self) -> Option<&StoreSide<P>> {
        match &self.source {
            Source::Own { store, .. } => store.as_deref(),
            Source::Replica(_) => None,
        }
    }

    /// The options that the log was made with. The retention rules may have changed since then.
    pub fn options(&self) -> &LogOptions {
        match &self.source {
            Source::Own { core, .. } => &core.history.options,
            Source::Replica(handle) => &handle.0.options,
        }
    }

    /// The offset of the next event that readers will see, as a cursor. A reader at this cursor has
    /// read everything.
    pub fn tail(&self) -> Cursor {
        let core = self.core();
        core.ids.cursor(core.history.tail())
    }

    /// The id of the event at an offset, as a cursor. The cursor has the epoch in which the event
    /// was published.
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.core().ids.id_of(offset.get())
    }

    /// Appends a batch: all drafts, or none. A draft is an event that has no offset yet. The call
    /// does not wait for readers or for the store.
    ///
    /// Without a store, readers see the batch at once, and they are woken before the call returns.
    /// With a store, the batch is queued, and readers see it when it is committed. A draft may
    /// repeat the idempotency key or the id of an earlier event. Then the draft is not appended,
    /// and its answer has the offset of the earlier event.
    ///
    /// # Errors
    ///
    /// [`AppendError`]. Nothing is appended then. With a store, the drafts are checked later, so
    /// the [`Commit`] reports their errors.
    ///
    /// # Limits
    ///
    /// A batch is never split, even if it is larger than the log's `bytes_max`. Other publishers
    /// wait until the whole batch is appended, because the batch is appended under one lock. So the
    /// caller must limit the length of a batch.
    pub fn append(&self, now: Timestamp, drafts: Drafts<P>) -> Result<Submitted, AppendError> {
        let Source::Own { core, store } = &self.source else { return Err(AppendError::ReadOnly) };
        if let Some(store) = store {
            return store.queue.submit(now, drafts).map(Submitted::Queued);
        }
        let Core { history, sequencer, ids, .. } = &**core;
        core.settle(history.expire(now));
        sequencer.append(history, ids, now, drafts).map(Submitted::Appended)
    }

    /// Opens a reader. The reader misses no event that is appended after this returns.
    ///
    /// The reader may not know its first offset yet. To find this offset, it may have to search the
    /// store or the events of many topics. [`poll_begun`](Reader::poll_begun) does this search.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Nothing is changed then.
    pub fn open(
        &self,
        now: Timestamp,
        selection: &Selection,
        start: &Start,
    ) -> Result<Reader<P>, OpenError> {
        match &self.source {
            Source::Own { core, store } => {
                let replays = store.as_ref().map(|store| &store.replays);
                open(core, replays, now, selection, start)
            }
            Source::Replica(handle) => loop {
                let Life { core, replays, is_closed } = handle.0.life();
                match open(&core, replays.as_ref(), now, selection, start) {
                    // The history was replaced meanwhile, and the next attempt finds the new one.
                    Err(OpenError::Closed) if !is_closed => {}
                    opened => return opened,
                }
            },
        }
    }

    /// Opens a feed, from which another log gets the same events under the same ids. The feed
    /// carries everything that the log has, and then every event that is appended. `position` is
    /// the position of the other log: the id after which the other log continues. It is `None` if
    /// the other log has nothing yet.
    ///
    /// `to_bytes` makes the bytes that a store keeps for a payload. While a feed is open, each
    /// append also puts its events into a backlog, from which the feeds read. The backlog has at
    /// most 65,536 events and 32 MiB.
    pub fn feed(
        &self,
        position: Option<Cursor>,
        to_bytes: impl Fn(&P) -> Vec<u8> + Send + Sync + 'static,
    ) -> Feed<P> {
        let (core, replays) = match &self.source {
            Source::Own { core, store } => {
                (Arc::clone(core), store.as_ref().map(|store| Arc::clone(&store.replays)))
            }
            Source::Replica(handle) => {
                let Life { core, replays, .. } = handle.0.life();
                (core, replays)
            }
        };
        let reader = replays.map(|replays| Arc::clone(&replays.reader));
        Feed::open(core, reader, position, Arc::new(to_bytes))
    }

    /// Evicts events that are too old at `now`, in one bounded step of about a millisecond. Every
    /// append, open and read does the same step. While a program makes none of these calls, it must
    /// call this function from time to time.
    pub fn expire(&self, now: Timestamp) {
        let core = self.core();
        core.settle(core.history.expire(now));
    }

    /// Replaces the retention rules of the log, for topics that exist and for topics that are made
    /// later. Appends and reads go on in the meantime.
    ///
    /// If the new rules allow fewer events, fewer bytes or a shorter time, this evicts the events
    /// that they no longer allow. Readers that have not read these events get a gap. When the call
    /// returns, memory has only events that the new rules allow at the time `now`. If the new rules
    /// allow more, the log keeps more events from now on. Evicted events do not return.
    ///
    /// With a store, the call does not wait until the writing thread has evicted the events from
    /// the store too. Until then, readers can still get these events from the store.
    ///
    /// If the rules are the same as before, the call does nothing. Otherwise it visits every topic,
    /// and the store compares each of its topics with the new rules. The call evicts at most 128
    /// events while it holds the lock of a topic, which takes some ten microseconds, and then
    /// releases all locks. Until a topic is within its new rule, the old rule still limits the
    /// topic. If several threads call this at the same time, all topics follow the rules of one of
    /// these calls in the end.
    pub fn set_retention(&self, now: Timestamp, rules: RetentionRules) {
        match &self.source {
            Source::Own { core, store } => {
                if core.history.set_rules(rules) {
                    if let Some(store) = store {
                        store.queue.note_new_rules();
                    }
                    core.retain_all(now);
                }
            }
            Source::Replica(handle) => {
                let mut core = handle.0.core();
                // If the history is replaced before the rules are set, the new history has the old
                // rules.
                while core.history.set_rules(rules.clone()) {
                    core.retain_all(now);
                    core = handle.0.core();
                }
            }
        }
    }

    /// Ends the log. Every later append and open fails. Every reader first reads the events that it
    /// has not read yet, and then ends.
    ///
    /// The call returns at once. A second call changes nothing. With a store, the writing thread
    /// commits the queued events before the readers end; [`poll_closed`](Self::poll_closed) tells
    /// when this is done.
    pub fn close(&self) {
        let (core, store) = match &self.source {
            Source::Own { core, store } => (core, store),
            Source::Replica(handle) => return handle.0.close(),
        };
        core.sequencer.close();
        core.history.topics.close();
        match store {
            Some(store) => store.queue.close(),
            None => self.end_all(EndReason::Closed),
        }
    }

    /// Ready once a closed log has written everything and released its store. Until then, the log
    /// keeps the waker of each call, and wakes these wakers when the store is released. A replica
    /// is ready once its applier has ended. Any other log without a store is always ready.
    pub fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        match &self.source {
            Source::Own { store: Some(store), .. } => {
                store.queue.ended.poll(waker, |_| ()).map(drop)
            }
            Source::Own { store: None, .. } => Poll::Ready(()),
            Source::Replica(handle) => handle.0.ended.poll(waker, |_| ()).map(drop),
        }
    }

    /// Why the store refuses events at present. `None` if the store accepts events, or if there is
    /// no store. In a replica, the result is the error with which its cache has failed, or `None`.
    pub fn store_error(&self) -> Option<StoreError> {
        match &self.source {
            Source::Own { store, .. } => store.as_ref().and_then(|store| store.queue.error()),
            Source::Replica(handle) => handle.0.cache_error.lock().clone(),
        }
    }

    /// Ends every reader and every [`Feed`] as soon as it has read all its events. A reader that
    /// waits for the store ends at once. Its client can open a new reader and continue at the same
    /// cursor.
    pub fn end_all(&self, reason: EndReason) {
        let core = self.core();
        end_each(&core.history.topics.everyone.readers, reason);
        core.history.backlog.close();
    }

    /// Wakes every reader, even if there is nothing to read.
    pub fn wake_all(&self) {
        // The second argument is the offset of a new event. A reader's lag is computed from the
        // highest offset for which it was woken. Here, there is no new event. The offset 0 is below
        // all events, so it does not change the lag.
        wake_all(&self.core().history.topics.everyone.readers, 0);
    }

    /// Ends all readers of one client, and returns the number of these readers.
    pub fn disconnect(&self, client: &ClientId) -> usize {
        let inbox = self.core().history.topics.find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| end_each(&inbox.readers, EndReason::Disconnected))
    }

    /// Ends the reader with this number. Returns `false` if there is none.
    pub fn disconnect_reader(&self, number: u64) -> bool {
        end_one(&self.core().history.topics.everyone.readers, number, EndReason::Disconnected)
    }

    /// The number of readers of one client.
    pub fn subscribers_of(&self, client: &ClientId) -> usize {
        let inbox = self.core().history.topics.find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| inbox.readers.lock().len())
    }

    /// The totals of the log.
    pub fn totals(&self, now: Timestamp) -> Totals {
        self.expire(now);
        let queue = self.store().map(|store| &store.queue);
        let refusals = queue.map(|queue| queue.refusals()).unwrap_or_default();
        Totals { refusals, store: queue.map(|queue| queue.totals()), ..self.core().totals() }
    }

    /// An overview of the topic at one address. `None` if the topic has no events, is not finished,
    /// and is named by no open reader.
    pub fn topic(&self, now: Timestamp, address: &Address) -> Option<TopicOverview> {
        self.expire(now);
        self.core().topic(address)
    }

    /// Overviews of at most `count` topics, ordered by name. Each name begins with `prefix`. With
    /// `after`, each name also comes after this name in the order.
    pub fn topics(
        &self,
        now: Timestamp,
        prefix: &str,
        after: Option<&Topic>,
        count: usize,
    ) -> Vec<TopicOverview> {
        self.expire(now);
        self.core().list_topics(prefix, after, count)
    }

    /// How far the readers are behind. The call takes about 0.1 ms for a thousand readers. It locks
    /// the list of readers for a few microseconds at a time.
    pub fn lags(&self) -> Lags {
        self.core().lags()
    }

    /// Overviews of all readers.
    pub fn readers(&self, now: Timestamp) -> Vec<ReaderOverview> {
        self.core().readers(now)
    }
}

/// Opens a reader of one core.
fn open<P: Payload>(
    core: &Arc<Core<P>>,
    replays: Option<&Arc<StoreReplays<P>>>,
    now: Timestamp,
    selection: &Selection,
    start: &Start,
) -> Result<Reader<P>, OpenError> {
    core.settle(core.history.expire(now));
    let history = &core.history;
    let note_lost = |address: &Address, lost| history.patterns.note_lost(address, lost);
    let (state, topics) = history.topics.enter(now, selection, note_lost)?;
    let patterns = selection.selectors.iter().filter(|selector| selector.exact().is_none());
    let set = PatternSet::new(patterns.cloned());
    let patterns = match history.patterns.enter(set.patterns(), &state) {
        Ok(patterns) => patterns,
        Err(refused) => {
            history.topics.leave(topics, note_lost);
            return Err(refused);
        }
    };
    if patterns.iter().any(|seat| !seat.pattern.has_begun()) {
        // While this thread holds the sequence lock, no event is appended. So every event from
        // `tail` on is appended after the patterns were added. A pattern notes each event that
        // it matches, so none of these events is left out.
        let _sequence = core.sequencer.lock();
        let tail = history.tail();
        patterns.iter().for_each(|seat| seat.pattern.begin(tail));
    }
    let seats = Seats::new(topics, patterns, set);
    Ok(Reader::begin(Arc::clone(core), replays.cloned(), state, seats, start))
}
