//! The log itself: the only file that knows all of its parts.

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
    /// When a commit counts.
    pub durability: Durability,
    /// Makes payloads from stored events.
    pub decode: Arc<Decode<P>>,
    /// Called once for each stored event that cannot be read. Nothing by default.
    pub on_unreadable: Option<Box<OnUnreadable>>,
    /// Told when the store takes no events, and when it takes events again. Nothing by default.
    pub on_report: Option<Box<OnReport>>,
    /// The time between two tries whether the store takes events again.
    pub retry_every: Duration,
    /// The log's clock, for retention while nothing is published.
    pub clock: Box<StoreClock>,
    /// Called first on each thread that reads the store, for example to lower its priority. Does
    /// nothing by default.
    pub begin_reading: fn(),
}

impl<P> StoreOptions<P> {
    /// Defaults with this decoder and clock.
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
    /// It is appended, and readers see it.
    Appended(Answers),
    /// It waits for its commit. It gets its offsets, and readers see it, with the commit.
    Queued(Commit),
}

/// A bounded log of events. Clones are handles to one log.
pub struct Log<P: Payload> {
    core: Arc<Core<P>>,
    store: Option<Arc<StoreSide<P>>>,
}

/// The way to the store. Its threads end when the last handle is gone. The writing thread writes
/// everything first.
struct StoreSide<P: Payload> {
    queue: Arc<CommitQueue<P>>,
    replays: Arc<StoreReplays<P>>,
}

impl<P: Payload> Drop for StoreSide<P> {
    fn drop(&mut self) {
        // The file is closed for readers before the writer lets go of it.
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

    /// A log that continues a store's history. The store's opening began a new epoch, which
    /// replaces the epoch of the options.
    ///
    /// Starts one thread that writes and several that read. They end with the last handle.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
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

    /// The options it was made with.
    pub fn options(&self) -> &LogOptions {
        &self.core.history.options
    }

    /// The next offset to become visible. A reader at this cursor has read everything.
    pub fn tail(&self) -> Cursor {
        let next = Offset::new(self.core.history.tail());
        Cursor { epoch: self.core.ids.current(), next }
    }

    /// The id of the event at an offset, as a cursor. Its epoch is that in which the event was
    /// published.
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.core.ids.id_of(offset.get())
    }

    /// Appends a batch: all drafts, or none. Never waits for a reader or for the store.
    ///
    /// In memory, readers see the batch at once and are woken before this returns. With a store,
    /// the batch is queued: readers see it when it is committed. Drafts that repeat an earlier one,
    /// by key or id, get its answer.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; then nothing was appended. With a store, the commit reports errors of the
    /// drafts themselves.
    ///
    /// # Limits
    ///
    /// A batch stays whole, even if it alone is more than the log's `bytes_max`; the caller bounds
    /// its length. The sequence lock is held for the whole batch.
    pub fn append(&self, now: Timestamp, drafts: Drafts<P>) -> Result<Submitted, AppendError> {
        if let Some(store) = &self.store {
            return store.queue.submit(now, drafts).map(Submitted::Queued);
        }
        let Core { history, sequencer, ids } = &*self.core;
        self.expire(now);
        sequencer.append(history, ids, now, drafts).map(Submitted::Appended)
    }

    /// Opens a reader. It reads every event that is appended after this returns.
    ///
    /// Finding the first offset may take a search, in the store or through the events of many
    /// topics: see [`poll_begun`](Reader::poll_begun).
    ///
    /// # Errors
    ///
    /// [`OpenError`]; then nothing was changed.
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
            // Under the sequence lock, so every append after this one finds the patterns.
            let _sequence = self.core.sequencer.lock();
            let tail = history.tail();
            patterns.iter().for_each(|seat| seat.pattern.begin(tail));
        }
        let seats = Seats::new(topics, patterns, set);
        let replays = self.store.as_ref().map(|store| Arc::clone(&store.replays));
        Ok(Reader::begin(Arc::clone(&self.core), replays, state, seats, start))
    }

    /// Evicts events that are too old now, in one bounded step of about a millisecond. Appending,
    /// opening and reading call it too. An idle log needs a caller.
    pub fn expire(&self, now: Timestamp) {
        self.core.settle(self.core.history.expire(now));
    }

    /// Ends the log: every later append and open fails, every reader reads what there is and ends.
    ///
    /// Never waits for a reader. Closing twice is closing once. With a store, what waits for its
    /// commit is committed first: see [`poll_closed`](Self::poll_closed).
    pub fn close(&self) {
        self.core.sequencer.close();
        self.core.history.topics.close();
        match &self.store {
            Some(store) => store.queue.close(),
            None => self.end_all(EndReason::Closed),
        }
    }

    /// Whether a log that was closed has written everything and let go of its store. Until then the
    /// waker is kept and woken then. A log without a store is ready at once.
    pub fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        match &self.store {
            Some(store) => store.queue.ended.poll(waker, |_| ()).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Why the store takes no events at present. `None`: it takes them, or there is no store.
    pub fn store_error(&self) -> Option<StoreError> {
        self.store.as_ref().and_then(|store| store.queue.error())
    }

    /// Ends every reader, each after it has read what there is. One that waits for the store ends
    /// at once, and goes on there when its client comes back.
    pub fn end_all(&self, reason: EndReason) {
        end_each(&self.core.history.topics.everyone.readers, reason);
    }

    /// Ends every reader of one client at once, and says how many there were.
    pub fn disconnect(&self, client: &ClientId) -> usize {
        let inbox = self.core.history.topics.find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| end_each(&inbox.readers, EndReason::Disconnected))
    }

    /// How many readers one client has.
    pub fn subscribers_of(&self, client: &ClientId) -> usize {
        let inbox = self.core.history.topics.find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| inbox.readers.lock().len())
    }

    /// The sizes now.
    pub fn totals(&self, now: Timestamp) -> Totals {
        self.expire(now);
        let refusals = self.store.as_ref().map(|store| store.queue.refusals());
        Totals { refusals: refusals.unwrap_or_default(), ..self.core.totals() }
    }

    /// What there is at one address; `None` if it has no events, no mark and no reader that named
    /// it.
    pub fn topic(&self, now: Timestamp, address: &Address) -> Option<TopicOverview> {
        self.expire(now);
        self.core.topic(address)
    }

    /// At most `count` topics whose name begins with `prefix`, by name, after `after`.
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

    /// Every reader.
    pub fn readers(&self) -> Vec<ReaderOverview> {
        self.core.readers()
    }
}
