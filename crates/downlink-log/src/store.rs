//! The interface between a log and a durable store.
//!
//! A store has one writer, [`Store`], which one thread owns. Any number of threads can read at the
//! same time through [`StoreReader`]. The log assigns the offsets, and a store only keeps them.
//! When a commit returns, the store's readers see the whole batch. They never see a part of a
//! batch.
//!
//! Every call may wait for the disk, so a thread that runs async tasks must not call a store. All
//! calls are synchronous, so no call can be cancelled halfway. All times are log time, which never
//! goes back and does not follow the jumps of the wall clock (see [`LogClock`](crate::LogClock)).

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::types::{
    address::Address,
    clock::ClockState,
    event::Batch,
    floor::{EvictionNumber, Floor},
    identity::{Fingerprint, IdempotencyKey},
    offset::{Epoch, Offset, Timestamp},
    retention::RetentionRules,
    trie::PatternSet,
};
pub use crate::types::{
    mark::{Link, Mark, Marks, NodeState},
    store_error::StoreError,
};

/// The only writer of a store.
///
/// The thread that owns the writer calls [`commit`](Self::commit) with the queued events and then
/// [`trim`](Self::trim). With relaxed durability, it also calls [`flush`](Self::flush), within the
/// time [`RELAXED_WITHIN`](crate::RELAXED_WITHIN) after a commit. When the writer is dropped, it
/// releases the store's file, so that another process can open the file.
pub trait Store: Send + fmt::Debug + 'static {
    /// The state that the store had when it was opened.
    fn opened(&self) -> &Opened;

    /// The read side of the store. It stays usable after the writer has failed, and after the
    /// writer was dropped.
    fn reader(&self) -> Arc<dyn StoreReader>;

    /// The fingerprint and the offset of the kept event to which a publisher gave this id; `None`
    /// if there is no such event. A fingerprint is a hash of an event's content.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// The fingerprint and the offset of the event that was committed with an idempotency key.
    /// `None` if there is no such event, or if it was committed more than
    /// [`KEY_WINDOW`](crate::KEY_WINDOW) ago.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// Sets the difference between wall clock and log time. If the difference has changed, the next
    /// commit or trim writes it to the file.
    fn set_clock_delta(&mut self, delta_ms: i64);

    /// Keeps a batch: all of it, or nothing. Offsets rise within a batch and from batch to batch.
    /// The log may skip offsets. A skipped offset does not mean that an event is missing.
    ///
    /// With [`Durability::Commit`], everything committed so far is on the disk when this returns.
    /// With [`Durability::Relaxed`], the batch survives the end of the process, but a power cut may
    /// lose it. This is possible until the next flush, or until the next commit with
    /// [`Durability::Commit`]. A power cut loses only the newest events: if an event is lost, all
    /// newer events are lost too.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. After [`StoreError::OutcomeUnknown`], the whole batch may be kept, or
    /// nothing of it. After every other error, nothing of the batch is kept. The offsets of the
    /// batch are not used again. After an error that [is final](StoreError::is_final), the store
    /// accepts no events until it is opened again. Earlier commits stay readable.
    fn commit(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<(), StoreError>;

    /// Writes all commits to the disk. Does nothing if all of them are on the disk already.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for a commit.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// Does one bounded step of the work that keeps the store within its limits. The store evicts
    /// the events that exceed the limits of their topic's retention rule (number, bytes and age).
    /// While the store exceeds its own limit of bytes, it also evicts the oldest events. It deletes
    /// old idempotency keys, and it moves committed data from its write-ahead log into the main
    /// file.
    ///
    /// The caller calls this after each commit, and again while it returns [`Trimmed::More`]. A
    /// step takes some milliseconds, and the caller may commit between two steps. When nothing is
    /// published, the caller calls this at the time in [`Trimmed::Until`]. A step waits for the
    /// disk only when it moves committed data into the main file. Other changes of a step need not
    /// be on the disk when the step returns, because no publisher waits for them.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. The next call repeats the failed step.
    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError>;

    /// Replaces the retention rules. The next calls of [`trim`](Self::trim) evict the events that
    /// the new rules no longer allow. This call does not read or write the file.
    fn set_retention(&mut self, rules: RetentionRules);

    /// Checks whether the store accepts events again after a failure that was not final. The check
    /// writes about `bytes` bytes to the disk, and frees them again.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for a commit.
    fn probe(&mut self, bytes: usize) -> Result<(), StoreError>;
}

/// The only writer of a cache, which the thread of the applier owns. A replica is a log that copies
/// another log, its upstream. A cache is a file in which a replica keeps the events that it has
/// applied, so that it need not fetch them again after a restart. Deleting a cache loses nothing
/// but time.
///
/// A cache has no epoch of its own. It has the epochs, marks and floors of the upstream, and the
/// position up to which it has applied the feed. In the ids of a cluster, a mark takes the place of
/// the epoch. A floor is the offset below which an address may have lost events.
pub trait Cache: Send + fmt::Debug + 'static {
    /// The state that the cache had when it was opened. The marks and the node state in it take up
    /// to 14 MiB of memory, so the cache may drop them at the first write.
    fn opened(&self) -> &OpenedCache;

    /// The read side of the cache. It stays usable after the writer has failed. If the cache
    /// discards its contents, every call of this read side fails from then on, so no reader gets
    /// events of another history.
    fn reader(&self) -> Arc<dyn StoreReader>;

    /// Like [`Store::publisher_id`]. If there are two such events, the result is the older one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// Like [`Store::idempotency_key`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// Begins a feed with these epochs. If `discards` is true, the contents of the cache belong to
    /// another history. Then [`reader`](Self::reader) returns a read side of the new contents. It
    /// must not be used before the next [`apply`](Self::apply). This call does not write to the
    /// disk. The next `apply` discards the old contents, and writes the epochs.
    fn begin(&mut self, epochs: &[(Epoch, Offset)], discards: bool);

    /// Writes a chunk in one transaction: its events, marks, position, clock and node state.
    /// `losses` is written instead of the floors of the chunk. An event with an offset below the
    /// position is written already, and is skipped. A power cut loses only the newest chunks.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. The whole chunk is kept, or nothing of it. The log then drops the cache.
    fn apply(&mut self, chunk: &FeedChunk, losses: &Losses) -> Result<(), StoreError>;

    /// Removes all events at and above an offset, with their marks, links, keys and ids, in one
    /// transaction. The next chunk continues at this offset, which is the first offset of a
    /// position (see [`Mark`]).
    ///
    /// A floor that is above `until` is lowered to `until`. A topic that a removed event has
    /// finished or reopened gets the finish mark of its newest event that stays. The state of the
    /// hub stays, and so does the clock, because log time never goes back. Every call of an earlier
    /// read side fails from then on, and [`reader`](Self::reader) returns a new one.
    ///
    /// Returns ids that publishers gave to the removed events: the oldest ones, at most
    /// [`CUT_IDS_MAX`](crate::CUT_IDS_MAX).
    ///
    /// # Errors
    ///
    /// [`StoreError`]. The log then drops the cache.
    fn cut_to(&mut self, until: Offset) -> Result<Vec<Box<str>>, StoreError>;

    /// Writes all chunks to the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for a chunk.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// Does one bounded step of the work that keeps the cache within its limits, like
    /// [`Store::trim`].
    ///
    /// # Errors
    ///
    /// [`StoreError`]. The next call repeats the failed step.
    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError>;

    /// Replaces the retention rules, like [`Store::set_retention`].
    fn set_retention(&mut self, rules: RetentionRules);
}

/// The floors to apply with a chunk. None of them is above the chunk's `next`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// Addresses with their floors. Events of the address below the floor may be missing.
    pub floors: Vec<(Address, Floor)>,
    /// Every address that is not in `known` may have lost events below this floor.
    pub others: Option<Floor>,
    /// The addresses to which `others` does not apply.
    pub known: HashSet<Address>,
}

impl Losses {
    /// Whether no address has lost anything.
    pub fn is_empty(&self) -> bool {
        self.floors.is_empty() && self.others.is_none()
    }
}

/// The state of a cache when it was opened.
#[derive(Clone, Debug, Default)]
pub struct OpenedCache {
    /// The epochs of the upstream, oldest first, each with its first offset. Empty if nothing was
    /// applied yet.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The marks of the upstream.
    pub marks: Marks,
    /// The state of the cluster node, if any: the newest state of the hub, and the newest links, at
    /// most [`LINKS_MAX`](crate::LINKS_MAX). They belong to the same positions as the events.
    pub node: NodeState,
    /// The cache knows no event of any address below this offset. `None` if there is no such
    /// offset.
    pub unknown_below: Option<Offset>,
    /// The offset up to which the cache has applied the feed. `None` if nothing was applied yet.
    pub position: Option<Offset>,
    /// The clock of the upstream when it made the last chunk; `None` if nothing was applied yet.
    pub clock: Option<ClockState>,
    /// The secret key from which fingerprints are computed, as in [`Opened::fingerprint_key`].
    pub fingerprint_key: [u8; 16],
    /// Why the contents of an older cache were discarded when it was opened.
    pub discarded: Option<StoreError>,
}

/// The work that is left after a call of [`Store::trim`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Trimmed {
    /// There is more to do now.
    More,
    /// If nothing is committed, there is nothing to do before this time. If the time is `None`,
    /// there is nothing to do until the next commit.
    Until(Option<Timestamp>),
}

/// The state of a store when it was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// All epochs of the log that the store knows, oldest first, each with its first offset. An
    /// epoch ends where the next one begins. The last epoch began when the store was opened.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The next offset that the log must assign. It is the first offset of the last epoch, and is
    /// higher than every offset that the store has ever been given.
    pub next_offset: Offset,
    /// The state of the log's clock when the store was last written; `None` in a new store. No time
    /// stamp in the store is later than the clock's `at`.
    pub clock: Option<ClockState>,
    /// The secret key from which fingerprints are computed. The store made a random key when it
    /// made the file, and keeps it in the file. So every process that opens this file computes the
    /// same fingerprints.
    pub fingerprint_key: [u8; 16],
    /// Why the store can be read but accepts no events yet; `None` if it accepts events. The next
    /// [`commit`](Store::commit) or [`probe`](Store::probe) tries again to write. The first success
    /// also writes the last epoch of `epochs` to the file.
    pub refuses: Option<StoreError>,
}

/// The read side of a store. Many threads can use it at the same time, even while the writer
/// writes. They see only committed events.
pub trait StoreReader: Send + Sync + fmt::Debug {
    /// Makes a replay that reads some topics. This call does not read the disk.
    fn replay(&self, wanted: Wanted) -> Box<dyn StoreReplay>;

    /// The number of the newest eviction; [`EvictionNumber::NONE`] if nothing was ever evicted.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn newest_eviction(&self) -> Result<EvictionNumber, StoreError>;

    /// The highest floor of all addresses. The floor of an address is the offset after its last
    /// evicted event. An address exists in a store while the store has an entry for it. If an
    /// address has no events left, the store may delete its entry. The floor of the address still
    /// counts here. So no event at or above the highest floor was ever evicted.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn highest_floor(&self) -> Result<Offset, StoreError>;

    /// The floor of an address, even if the address no longer exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn floor_of(&self, address: &Address) -> Result<Floor, StoreError>;

    /// Calls `each` for every address that exists and has a floor above `from`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. `each` may have been called for some addresses before the error.
    fn floors_above(
        &self,
        from: Offset,
        each: &mut dyn FnMut(Address, Floor),
    ) -> Result<(), StoreError>;

    /// The offset of the oldest kept event, in any topic, with this time stamp or a later one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError>;

    /// The newest events of all topics in offset order, within the limits of `batch`. If some of
    /// them are damaged, only the events after the last damaged event are returned. A log that
    /// starts with this store fills its memory with these events.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError>;

    /// The offset of the kept event to which a publisher gave this id.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn publisher_id(&self, id: &str) -> Result<Option<Offset>, StoreError>;

    /// A part of a feed. It has the kept events in the range within the limits of `batch`, each
    /// with the addresses that have not evicted it. It also has the finish marks in the part of the
    /// range that was read, and the floors above the start of the range. All of this is read in one
    /// transaction. The clock of the chunk is not set. A damaged event has an empty payload.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn feed(&self, range: Range, batch: Batch) -> Result<FeedChunk, StoreError>;

    /// The topics whose [finish marks](Finished) the store keeps: at most `topics_max` topics,
    /// newest marks first. A log loads the marks when it starts, so a publish never has to read a
    /// mark from the store.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError>;

    /// Closes the read side. Every later call fails with [`StoreError::Stopped`]. A log calls this
    /// when its last handle is dropped. A subscription may still hold the read side then. After
    /// this call, the read side must not keep the file open.
    fn close(&self);
}

/// Reads some topics of a store in pages, which are bounded lists of events. Between two pages, a
/// replay keeps the place that it has reached.
///
/// Each call is one short read transaction with a bounded amount of work. [`Step::More`] means that
/// the call has made progress but has no answer yet. The caller lets other replays work, and then
/// calls again.
pub trait StoreReplay: Send + fmt::Debug {
    /// The events of the wanted topics in the range, in offset order. An event of several wanted
    /// topics is returned once. For [`Page::hole`], only events that were evicted after the
    /// eviction `evicted_after` count as missing.
    ///
    /// The end of the range must not be above the log's tail, which is the offset of the next event
    /// that readers will see. With a higher end, the replay would skip events that are committed
    /// later within the range.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn page(
        &mut self,
        range: Range,
        evicted_after: EvictionNumber,
        batch: Batch,
    ) -> Result<Step<Page>, StoreError>;

    /// The highest floor of the wanted topics, including topics that no longer exist. No event of
    /// these topics at or above that floor was ever evicted.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn floor(&mut self) -> Result<Step<Floor>, StoreError>;

    /// The lowest offset among the newest `count` events below `until` in the wanted topics. `None`
    /// if these topics keep no event below `until`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn nth_newest(
        &mut self,
        count: usize,
        until: Offset,
    ) -> Result<Step<Option<Offset>>, StoreError>;
}

/// A half-open range of offsets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// The first offset of the range.
    pub from: Offset,
    /// The offset after the last offset of the range.
    pub until: Offset,
}

/// The outcome of one bounded step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Step<T> {
    /// There is more to do: call again.
    More,
    /// The answer.
    Done(T),
}

/// The topics to read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The exact addresses. Everyone's topic is read only if [`Address::Everyone`] is among them.
    pub addresses: Vec<Address>,
    /// Patterns of topics.
    pub patterns: Arc<PatternSet>,
}

/// A page of events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The events in offset order. A page may be empty although more events follow, because one
    /// call does only a bounded amount of work.
    pub events: Vec<StoredEntry>,
    /// The offset where the next page begins. All wanted events below it are in this page or in an
    /// earlier page. If the range has no further event, this is the end of the range.
    pub next: Offset,
    /// The highest offset at which an event of the wanted topics was missing when the page was
    /// read; `None` if no event is missing. The offset is not below the requested range.
    ///
    /// An event that one topic has evicted is not missing if another wanted topic still keeps it.
    /// The store checks this only for the last evicted event of each topic. So it may report an
    /// earlier evicted event as missing although another topic keeps this event.
    pub hole: Option<Offset>,
}

/// An event that a replay has read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEntry {
    /// The event's position.
    pub offset: Offset,
    /// The time when the event was published.
    pub at: Timestamp,
    /// The event id that the publisher chose, if any.
    pub id: Option<Box<str>>,
    /// The bytes that were stored; `None` if they are damaged.
    pub payload: Option<Vec<u8>>,
}

/// An event that a log writes to a store, or reads from a store into memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEvent {
    /// The event's position.
    pub offset: Offset,
    /// When the event was published. It is never earlier than the time of an event with a lower
    /// offset.
    pub at: Timestamp,
    /// The addresses of the event. No address appears twice. An event without addresses has no
    /// readers, and the store keeps only its idempotency key. If the event was read from the store,
    /// this list has only the addresses that have not evicted the event.
    pub to: SmallVec<[Address; 1]>,
    /// The event id that the publisher chose, if any. The log has checked that no kept event has
    /// the same id.
    pub id: Option<Box<str>>,
    /// The idempotency key: of several publishes with the same key, only the first adds an event.
    /// `None` when the event is read from the store.
    pub key: Option<IdempotencyKey>,
    /// The fingerprint of the event's content. The store keeps it only if the event has an id or a
    /// key.
    pub fingerprint: Fingerprint,
    /// Whether this event finishes its topics.
    pub finish: bool,
    /// The payload's bytes, which the store does not interpret. `None` if the event only finishes
    /// its topics.
    pub payload: Option<Vec<u8>>,
}

/// The first message of a feed, which carries the events of a log to a replica.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FeedStart {
    /// All epochs that the upstream knows, oldest first, each with its first offset.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The offset from which the feed continues.
    pub from: Offset,
    /// Whether the replica's position belongs to the history of the upstream. If this is false, the
    /// upstream has another history, or it has lost events that the replica has. The replica must
    /// then discard all that it has, and apply the feed to an empty log.
    pub resumed: bool,
}

/// A part of a feed. A replica applies its floors first, and then its events. Afterwards, the
/// replica has everything below `next` that the upstream has, and knows what is missing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FeedChunk {
    /// Addresses that have lost events, each with its floor. Events of the address below the floor
    /// may be missing in this feed.
    pub floors: Vec<(Address, Floor)>,
    /// If this is not [`Floor::NONE`], every address that is not in `floors` may have lost events
    /// below this floor.
    pub others: Floor,
    /// The events, in the order of their offsets. Each event has only the addresses that have not
    /// evicted it. In the feed of a log, an event has no idempotency key. In the chunks of a
    /// cluster node, an event keeps its key. An event without a payload is the finish mark of its
    /// topics.
    pub events: Vec<StoredEvent>,
    /// The offset where the next chunk begins.
    pub next: Offset,
    /// The clock of the upstream when it made the chunk.
    pub clock: ClockState,
    /// The marks of the positions that begin in this chunk. Empty if the ids of the upstream have
    /// epochs.
    pub marks: Marks,
    /// The part of a cluster node's state that a cache keeps together with this chunk. `None` in
    /// the feed of a log. Otherwise it has a link for each mark.
    pub node: Option<NodeState>,
}

impl FeedChunk {
    /// Adds finish marks to the events. If the chunk has the event that finished a topic, this
    /// event finishes the topic here too. If the topic has evicted the event, the topic is added to
    /// the event's addresses. If the chunk does not have this event, an event without a payload is
    /// added for the mark.
    pub fn add_finish_marks(&mut self, marks: Vec<(Address, Finished)>) {
        if marks.is_empty() {
            return;
        }
        let mut events: BTreeMap<Offset, StoredEvent> = std::mem::take(&mut self.events)
            .into_iter()
            .map(|event| (event.offset, event))
            .collect();
        for (address, Finished { offset, at }) in marks {
            let event = events.entry(offset).or_insert_with(|| StoredEvent {
                offset,
                at,
                to: SmallVec::new(),
                id: None,
                key: None,
                fingerprint: Fingerprint::default(),
                finish: true,
                payload: None,
            });
            event.finish = true;
            if !event.to.contains(&address) {
                event.to.push(address);
            }
        }
        self.events = events.into_values().collect();
    }
}

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// A commit counts as done when it is on the disk. It then survives a power cut.
    #[default]
    Commit,
    /// A commit counts as done when the operating system has it. It then survives the end of the
    /// process. After the next flush, it also survives a power cut.
    Relaxed,
}

/// The finish mark: it says that a topic is finished and gets no more events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finished {
    /// The offset of the event that finished the topic.
    pub offset: Offset,
    /// When the topic was finished.
    pub at: Timestamp,
}
