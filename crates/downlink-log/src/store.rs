//! The interface between a log and a durable store.
//!
//! A store has one writer, [`Store`], which one thread owns, and any number of threads that read at
//! the same time through [`StoreReader`]. The log assigns offsets; a store keeps them and never
//! assigns any. A commit is visible to the store's readers when it returns, all of a batch or
//! nothing.
//!
//! Every call may wait for the disk, so none belongs on a thread that drives tasks. Everything is
//! synchronous: nothing can be cancelled halfway. Times are log time (see
//! [`LogClock`](crate::LogClock)).

use std::{fmt, path::Path, sync::Arc};

use smallvec::SmallVec;
use thiserror::Error;

use crate::types::{
    address::Address,
    clock::ClockState,
    event::Batch,
    floor::{EvictionNumber, Floor},
    identity::{Fingerprint, IdempotencyKey},
    offset::{Epoch, Offset, Timestamp},
    trie::PatternSet,
};

/// The one writer of a store.
///
/// The thread that owns it calls [`commit`](Self::commit) with the waiting events and then
/// [`trim`](Self::trim); in relaxed durability also [`flush`](Self::flush), within the time that it
/// promises to its publishers. Dropping it releases the store's file to the next process.
pub trait Store: Send + fmt::Debug + 'static {
    /// The state that the store had when it was opened.
    fn opened(&self) -> &Opened;

    /// The read side. It stays usable after the writer has failed, and after it was dropped.
    fn reader(&self) -> Arc<dyn StoreReader>;

    /// The event kept under an id that its publisher gave: its fingerprint, and its offset.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// The event committed under an idempotency key, while the key's window lasts.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// Notes the difference between wall clock and log time. It goes into the file with the next
    /// commit or trim, if it has changed.
    fn set_clock_delta(&mut self, delta_ms: i64);

    /// Keeps a batch: all of it, or nothing. Offsets rise within a batch and from batch to batch;
    /// holes mean nothing.
    ///
    /// With [`Durability::Commit`] everything committed so far is on the disk when this returns.
    /// With [`Durability::Relaxed`] it survives the end of the process, but a power cut may take it
    /// until the next flush or durable commit. A power cut always takes the newest events, and
    /// never leaves a hole.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then nothing of the batch is kept and its offsets are not used again. After
    /// [`StoreError::OutcomeUnknown`] and every other error that
    /// [`is_final`](StoreError::is_final), the store takes nothing more until it is opened anew;
    /// earlier commits stay readable.
    fn commit(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<(), StoreError>;

    /// Puts everything committed so far on the disk. Does nothing if it is there already.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for a commit.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// One bounded step of the work that keeps the store within its limits: it evicts by each
    /// topic's rule, by age and by the store's byte bound, forgets old keys, and moves committed
    /// pages into the file.
    ///
    /// The caller calls it after each commit, and again while it answers [`Trimmed::More`], with
    /// commits between: a step takes some milliseconds. When idle, it calls at the time that the
    /// store names. No publisher waits for a step, so a step waits for the disk only when it moves
    /// pages.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the next call repeats a step that failed.
    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError>;

    /// Finds out whether the store takes events again after a failure that was not final: writes
    /// about this many bytes to the disk, and frees them again.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for a commit.
    fn probe(&mut self, bytes: usize) -> Result<(), StoreError>;
}

/// The work that is left after a step of trimming.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Trimmed {
    /// There is more to do now.
    More,
    /// Nothing before this time, unless something is committed; never if `None`.
    Until(Option<Timestamp>),
}

/// The state of a store when it was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Every life of the log that the store knows, oldest first, each with its first offset. A life
    /// ends where the next one begins. This opening began the last one.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The next offset to be assigned: the first of the last epoch, above every offset that the
    /// store has ever been given.
    pub next_offset: Offset,
    /// The state of the log's clock when the store was last written; `None` in a new store. No time
    /// stamp in the store is later than its `at`.
    pub clock: Option<ClockState>,
    /// The key of the store's fingerprints: random, made with the file and kept in it, so that
    /// fingerprints are the same in each process that opens this file.
    pub fingerprint_key: [u8; 16],
    /// Why the store takes no events yet, although it can be read. The next commit or
    /// [`probe`](Store::probe) tries again; this opening's life begins in the file when one succeeds.
    pub refuses: Option<StoreError>,
}

/// The read side of a store: usable from many threads at once, also while the writer writes.
///
/// It sees committed events, and nothing else.
pub trait StoreReader: Send + Sync + fmt::Debug {
    /// Begins to read some topics. This does not touch the disk.
    fn replay(&self, wanted: Wanted) -> Box<dyn StoreReplay>;

    /// The number of the newest eviction; [`EvictionNumber::NONE`] if nothing was ever evicted.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn newest_eviction(&self) -> Result<EvictionNumber, StoreError>;

    /// The highest floor of all addresses, including those that no longer exist. Nothing at or
    /// above it was ever evicted.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn highest_floor(&self) -> Result<Offset, StoreError>;

    /// The floor of an address, also of one that no longer exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn floor_of(&self, address: &Address) -> Result<Floor, StoreError>;

    /// Calls `each` for every address with a floor above `from`; those that no longer exist are not
    /// among them.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; some addresses may have been given before.
    fn floors_above(
        &self,
        from: Offset,
        each: &mut dyn FnMut(Address, Offset),
    ) -> Result<(), StoreError>;

    /// The first offset kept in any topic with this time stamp or a later one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError>;

    /// The newest events of all topics, at most as many as the batch allows, in offset order, back
    /// to the first damaged one: a log that opens fills its rings with them.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError>;

    /// The offset of the event kept under an id that its publisher gave.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn publisher_id(&self, id: &str) -> Result<Option<Offset>, StoreError>;

    /// Every finished topic whose mark is kept, at most `topics_max`, newest marks first. A log
    /// that opens takes them all, so publishes never ask the store for marks.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError>;

    /// Closes the read side: every later call fails with [`StoreError::Stopped`]. A log calls it
    /// when its last handle is gone, so that readers that are left keep no file open.
    fn close(&self);
}

/// Reads some topics of a store, page after page. It remembers between pages how it reads them.
///
/// Each call is one short read transaction with a bounded amount of work. [`Step::More`] says that
/// the call has only made progress towards the answer: call again, after others had their turn.
pub trait StoreReplay: Send + fmt::Debug {
    /// Events of the wanted topics in the range, in offset order, each once. The hole counts only
    /// evictions after `evicted_after`.
    ///
    /// The end must not be above the log's tail: the replay would pass over events that are
    /// committed there later.
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

    /// The highest floor of the wanted topics, those that no longer exist included.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn floor(&mut self) -> Result<Step<Floor>, StoreError>;

    /// The oldest of the newest `count` offsets below `until` in the wanted topics; `None` if they
    /// keep nothing.
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
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
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

/// The topics that a read is about.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Exact addresses. Everyone's topic only if it is named.
    pub addresses: Vec<Address>,
    /// Patterns of topics.
    pub patterns: Arc<PatternSet>,
}

/// A page of events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// In offset order. May be empty although more follows: a page looks at a bounded number of
    /// rows.
    pub events: Vec<StoredEntry>,
    /// Everything wanted below this is in this page or an earlier one. When nothing more follows,
    /// this is the end that was asked for.
    pub next: Offset,
    /// The last offset known to be missing in the wanted topics when the page was read. It is not
    /// below the range that was asked for.
    ///
    /// An event that another wanted topic still keeps is not missing. The store knows this only for
    /// the last evicted event of each topic. For earlier ones it may report a hole although another
    /// topic keeps the event.
    pub hole: Option<Offset>,
}

/// An event as a replay gets it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEntry {
    /// The event's position.
    pub offset: Offset,
    /// When it was published.
    pub at: Timestamp,
    /// The id that its publisher gave.
    pub id: Option<Box<str>>,
    /// The bytes that were stored; `None` if they are damaged.
    pub payload: Option<Vec<u8>>,
}

/// An event on its way into a store, or out of it into a log's rings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEvent {
    /// The event's position.
    pub offset: Offset,
    /// When it was published. Never before that of a lower offset.
    pub at: Timestamp,
    /// Its addresses, each once. An event without addresses has no readers, and the store keeps
    /// only its key. An event that is read back has only the addresses that have not evicted it.
    pub to: SmallVec<[Address; 1]>,
    /// The id that its publisher gave; unique among the kept events, which the log has checked.
    pub id: Option<Box<str>>,
    /// The key under which it is published only once. `None` when read back.
    pub key: Option<IdempotencyKey>,
    /// Its content. Kept if there is an id or a key.
    pub fingerprint: Fingerprint,
    /// Whether its topics are finished with it.
    pub finish: bool,
    /// Opaque bytes; `None` for a finish mark alone.
    pub payload: Option<Vec<u8>>,
}

/// When a commit counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// When it is on the disk: it survives a power cut.
    #[default]
    Commit,
    /// When it is with the operating system: it survives the end of the process, and a power cut
    /// after the next flush.
    Relaxed,
}

/// The mark of a finished topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finished {
    /// The offset of the event that finished it.
    pub offset: Offset,
    /// When.
    pub at: Timestamp,
}

/// A store could not be opened, written or read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the file.
    #[error(
        "{} is in use by another process: stop that process, or choose another file",
        file.display()
    )]
    InUse {
        /// The file.
        file: Box<Path>,
    },
    /// This process has the file open already.
    #[error(
        "{} is open in this process already: use that hub, or close it and wait until it is closed",
        file.display()
    )]
    OpenTwice {
        /// The file.
        file: Box<Path>,
    },
    /// Another program holds a lock on the database, and did not let go in time.
    #[error("another program holds a lock on the store: end its transaction and try again")]
    Locked,
    /// The disk is full.
    #[error("the disk of the store is full: free some space; publishing works again then")]
    DiskFull,
    /// The file or its folder cannot be written.
    #[error("the store cannot be written: make the file and its folder writable for this user")]
    ReadOnly,
    /// The file or its folder cannot be opened or made.
    #[error(
        "the store cannot be opened ({reason}): check that its folder exists and belongs to this user"
    )]
    CannotOpen {
        /// The system's words.
        reason: Box<str>,
    },
    /// The file is a database of some other program, or none at all.
    #[error("the file is not a store: choose another name, or move the file out of the way")]
    NotAStore,
    /// The file was written by a newer version.
    #[error(
        "the store has layout {found}, and this version reads up to {known}: start the newer version \
         that wrote it, or choose another file"
    )]
    NewerVersion {
        /// The layout of the file.
        found: u32,
        /// The newest layout that this version reads.
        known: u32,
    },
    /// Something in the file contradicts itself.
    #[error("the store is damaged ({reason}): keep a copy, and start from a backup or a new file")]
    Corrupt {
        /// The contradiction.
        reason: Box<str>,
    },
    /// The disk did not confirm a write. The next opening of the store shows whether it was kept.
    #[error(
        "the disk did not confirm a write: check the disk and start again; the start shows whether \
         the last events were kept, and all earlier events can be read until then"
    )]
    OutcomeUnknown,
    /// The disk failed to read or write.
    #[error("the disk of the store failed ({reason}): check the disk")]
    Io {
        /// The system's words.
        reason: Box<str>,
    },
    /// An earlier failure was final; the store takes nothing more until it is opened anew.
    #[error("the store stopped after an earlier failure: check the disk and start again")]
    Stopped,
    /// An offset did not rise above the one before. The caller's mistake.
    #[error("offset {offset} is not above what the store has: {least} or more is")]
    OffsetNotRising {
        /// The offset.
        offset: u64,
        /// The lowest offset that would have been accepted.
        least: u64,
    },
    /// The epoch is one that the file already knows. The caller's mistake, or a chance of one in
    /// 10^12.
    #[error("the store has had this epoch before: choose another")]
    EpochTaken,
}

impl StoreError {
    /// Whether the store takes nothing more until it is opened anew. Committed events stay
    /// readable.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::OutcomeUnknown | Self::Corrupt { .. } | Self::NotAStore | Self::Stopped
        )
    }
}
