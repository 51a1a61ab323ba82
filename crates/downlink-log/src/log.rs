//! The log itself. Only this file uses all parts of a log.

use std::{
    fmt,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::commit::{
    Commit, CommitQueue, OnReport, Outages, Shared, StoreClock, Writer, outage::RETRY_EVERY,
    restore,
};
use crate::core::Core;
use crate::history::History;
use crate::read::{Reader, ReaderOverview, Seats, Start, StoreReplays, TopicOverview, Totals};
use crate::readers::end_each;
use crate::sequence::{
    Answers, AppendError, Decode, Drafts, Epochs, OnUnreadable, PayloadDecoder, Sequencer, Stored,
};
use crate::store::{Durability, Opened, Store, StoreError};
use crate::types::address::Topic;
use crate::types::{
    Address, ClientId, ClockState, Cursor, EndReason, LogOptions, Offset, OpenError, PatternSet,
    Payload, Selection, Timestamp,
};

/// How a log uses its store.
pub struct StoreOptions<P> {
    /// When a commit counts as done.
    pub durability: Durability,
    /// Makes payloads from stored events.
    pub decode: Arc<Decode<P>>,
    /// Called once for each stored event that cannot be read. `None` by default.
    pub on_unreadable: Option<Box<OnUnreadable>>,
    /// Called when the store stops taking events, and when it takes events again. `None` by
    /// default.
    pub on_report: Option<Box<OnReport>>,
    /// After a failure, the time between two checks whether the store takes events again.
    pub retry_every: Duration,
    /// The log's clock. The writing thread uses it for retention while nothing is published. The
    /// store keeps the clock's difference from the wall clock.
    pub clock: Box<StoreClock>,
    /// Called when a thread that reads the store starts, on that thread, for example to lower its
    /// priority. Does nothing by default.
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

/// The outcome of an append, as far as it is known.
#[derive(Clone, Debug)]
#[must_use]
pub enum Submitted {
    /// The batch is appended, and readers see it.
    Appended(Answers),
    /// The batch waits for its commit. When it is committed, it gets its offsets and readers see
    /// it.
    Queued(Commit),
}

/// A bounded log of events. Clones are handles to the same log.
pub struct Log<P: Payload> {
    core: Arc<Core<P>>,
    store: Option<Arc<StoreSide<P>>>,
}

/// The queues to the threads that write and read the store. The threads end when the last handle of
/// the log is dropped. Before it ends, the writing thread writes all queued events.
struct StoreSide<P: Payload> {
    queue: Arc<CommitQueue<P>>,
    replays: Arc<StoreReplays<P>>,
}

impl<P: Payload> Drop for StoreSide<P> {
    fn drop(&mut self) {
        // The read side closes the file before the writer releases it.
        self.replays.stop();
        self.queue.close();
    }
}

impl<P: Payload> Clone for Log<P> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), store: self.store.clone() }
    }
}

impl<P: Payload> fmt::Debug for Log<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("epoch", &self.core.ids.current()).finish_non_exhaustive()
    }
}

impl<P: Payload> Log<P> {
    /// An empty log in memory.
    pub fn new(options: LogOptions) -> Self {
        let ids = Epochs::new(vec![(options.epoch, Offset::FIRST)], options.epoch);
        let sequencer = Sequencer::new(Offset::FIRST, Timestamp::default());
        let history = History::new(options, Offset::FIRST);
        Self { core: Arc::new(Core { history, sequencer, ids }), store: None }
    }

    /// A log that continues the history of a store. A new epoch began when the store was opened. It
    /// replaces the epoch in the options.
    ///
    /// Starts one thread that writes and several threads that read. They end when the last handle
    /// of the log is dropped.
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
        let core = Arc::new(Core { history: History::new(options, next_offset), sequencer, ids });
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
        Ok(Self { core, store })
    }

    /// The options that the log was made with.
    pub fn options(&self) -> &LogOptions {
        &self.core.history.options
    }

    /// The offset of the next event that readers will see, as a cursor. A reader at this cursor has
    /// read everything.
    pub fn tail(&self) -> Cursor {
        let next = Offset::new(self.core.history.tail());
        Cursor { epoch: self.core.ids.current(), next }
    }

    /// The id of the event at an offset, as a cursor. The epoch of this cursor is the one in which
    /// the event was published.
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.core.ids.id_of(offset.get())
    }

    /// Appends a batch: all drafts, or none. Never waits for a reader or for the store.
    ///
    /// Without a store, readers see the batch at once and are woken before this returns. With a
    /// store, the batch is queued, and readers see it when it is committed. A draft that repeats
    /// the key or id of an earlier event gets the answer of that event.
    ///
    /// # Errors
    ///
    /// [`AppendError`]. Nothing is appended then. With a store, the [`Commit`] reports errors in
    /// the drafts.
    ///
    /// # Limits
    ///
    /// A batch is never split, even if it is larger than the log's `bytes_max`. The caller must
    /// limit its length. The sequence lock is held for the whole batch.
    pub fn append(&self, now: Timestamp, drafts: Drafts<P>) -> Result<Submitted, AppendError> {
        if let Some(store) = &self.store {
            return store.queue.submit(now, drafts).map(Submitted::Queued);
        }
        let Core { history, sequencer, ids } = &*self.core;
        self.expire(now);
        sequencer.append(history, ids, now, drafts).map(Submitted::Appended)
    }

    /// Opens a reader. The reader misses no event that is appended after this returns.
    ///
    /// Finding the first offset may need a search in the store, or through the events of many
    /// topics: see [`poll_begun`](Reader::poll_begun).
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
        self.expire(now);
        let history = &self.core.history;
        let note_lost = |address: &Address, lost| history.patterns.note_lost(address, lost);
        let (state, topics) = history.topics.enter(selection, note_lost)?;
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
            // While the sequence lock is held, no event is appended. So every later append finds
            // the patterns.
            let _sequence = self.core.sequencer.lock();
            let tail = history.tail();
            patterns.iter().for_each(|seat| seat.pattern.begin(tail));
        }
        let seats = Seats::new(topics, patterns, set);
        let replays = self.store.as_ref().map(|store| Arc::clone(&store.replays));
        Ok(Reader::begin(Arc::clone(&self.core), replays, state, seats, start))
    }

    /// Evicts events that are too old at `now`, in one bounded step of about a millisecond. Every
    /// append, open and read does this too. If the log is idle, the program must call this function
    /// from time to time.
    pub fn expire(&self, now: Timestamp) {
        self.core.settle(self.core.history.expire(now));
    }

    /// Ends the log. Every later append and open fails. Every reader reads the events that are left
    /// and ends.
    ///
    /// Never waits for a reader. A second call changes nothing. With a store, the queued events are
    /// committed first: see [`poll_closed`](Self::poll_closed).
    pub fn close(&self) {
        self.core.sequencer.close();
        self.core.history.topics.close();
        match &self.store {
            Some(store) => store.queue.close(),
            None => self.end_all(EndReason::Closed),
        }
    }

    /// Ready once a closed log has written everything and released its store. An earlier call keeps
    /// the waker, and the waker is woken when the log is ready. A log without a store is ready at
    /// once.
    pub fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        match &self.store {
            Some(store) => store.queue.ended.poll(waker, |_| ()).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Why the store takes no events at present. `None` if the store takes events, or if there is
    /// no store.
    pub fn store_error(&self) -> Option<StoreError> {
        self.store.as_ref().and_then(|store| store.queue.error())
    }

    /// Ends every reader after it has read the events that are left. A reader that waits for the
    /// store ends at once. Its client can come back and continue at the same cursor.
    pub fn end_all(&self, reason: EndReason) {
        end_each(&self.core.history.topics.everyone.readers, reason);
    }

    /// Ends every reader of one client at once, and returns the number of these readers.
    pub fn disconnect(&self, client: &ClientId) -> usize {
        let inbox = self.core.history.topics.find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| end_each(&inbox.readers, EndReason::Disconnected))
    }

    /// The number of readers of one client.
    pub fn subscribers_of(&self, client: &ClientId) -> usize {
        let inbox = self.core.history.topics.find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| inbox.readers.lock().len())
    }

    /// The totals of the log.
    pub fn totals(&self, now: Timestamp) -> Totals {
        self.expire(now);
        let refusals = self.store.as_ref().map(|store| store.queue.refusals());
        Totals { refusals: refusals.unwrap_or_default(), ..self.core.totals() }
    }

    /// An overview of the topic at one address. `None` if the topic has no events, no finish mark
    /// and no reader that named it.
    pub fn topic(&self, now: Timestamp, address: &Address) -> Option<TopicOverview> {
        self.expire(now);
        self.core.topic(address)
    }

    /// Overviews of topics whose names begin with `prefix`, ordered by name: the first `count`
    /// topics after `after`.
    pub fn topics(
        &self,
        now: Timestamp,
        prefix: &str,
        after: Option<&Topic>,
        count: usize,
    ) -> Vec<TopicOverview> {
        self.expire(now);
        self.core.list_topics(prefix, after, count)
    }

    /// Overviews of all readers.
    pub fn readers(&self) -> Vec<ReaderOverview> {
        self.core.readers()
    }
}
