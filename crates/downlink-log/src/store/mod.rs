//! The seam to a durable store: what the log writes to it, and what it reads back.
//!
//! A store has one writer, [`Store`], owned by one thread, and any number of threads that read at the
//! same time through [`StoreReader`]. Offsets are assigned by the log; a store keeps them, and never
//! assigns any. What is committed is visible to readers of the store when the commit returns, all of
//! a batch or nothing.
//!
//! Every call may wait for the disk: none belongs on a thread that drives tasks. Everything is
//! synchronous, so nothing can be cancelled halfway.

mod error;
mod event;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::{fmt, sync::Arc};

use crate::{
    address::Address,
    given::{Fingerprint, IdempotencyKey},
    merge::Batch,
    offset::{Epoch, Offset, Timestamp},
};

pub use self::{
    error::StoreError,
    event::{Durability, Finished, Page, StoredEntry, StoredEvent, StoredFloor, Wanted},
};

#[cfg(feature = "sqlite")]
pub use self::sqlite::{Backup, SqliteOptions, SqliteStore};

/// The one writer of a store.
///
/// The thread that owns it calls [`commit`](Self::commit) with what has gathered and then
/// [`trim`](Self::trim); in relaxed durability also [`flush`](Self::flush), within the time that it
/// promises to its publishers. Dropping it releases the store's file to the next process.
pub trait Store: Send + fmt::Debug + 'static {
    /// What was found when the store was opened.
    fn opened(&self) -> &Opened;

    /// The read side; it stays usable after the writer has failed, and after it was dropped.
    fn reader(&self) -> Arc<dyn StoreReader>;

    /// Keeps a batch: all of it, or nothing. Offsets rise within a batch and from batch to batch;
    /// holes mean nothing.
    ///
    /// With [`Durability::Commit`] everything committed so far is on the disk when this returns.
    /// With [`Durability::Relaxed`] it survives the end of the process, but a power cut may take it
    /// until the next flush or durable commit; what is taken is always the newest, never a hole.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then nothing of the batch is kept and its offsets are burnt, except after
    /// [`StoreError::OutcomeUnknown`] and every [`StoreError::is_final`]: then the store takes nothing
    /// more until it is opened anew, and what was committed before stays readable.
    fn commit(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<(), StoreError>;

    /// Puts everything committed so far on the disk. Does nothing if it is there already.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for a commit.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// One bounded step of what keeps the store within its limits: evicts by each topic's rule, by
    /// age and by the store's byte bound, forgets old keys, and moves committed pages into the file.
    ///
    /// To be called after each commit, and again while it answers [`Trimmed::More`], with commits
    /// between: a step takes some milliseconds. When idle, at the time it names. Nothing it does is
    /// acknowledged to anybody, so it waits for the disk only when it moves pages.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a step that failed is repeated by the next call.
    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError>;
}

/// What is left to do after a step of trimming.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Trimmed {
    /// There is more to do now.
    More,
    /// Nothing before this time, unless something is committed; never if `None`.
    Until(Option<Timestamp>),
}

/// What a store found when it was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Every life of the log that the store knows, oldest first, each with its first offset; it ends
    /// where the next one begins. The last is the one that this opening began.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The next offset to be assigned: the first of the last epoch, above every offset that the
    /// store has ever been given.
    pub next_offset: Offset,
    /// No time stamp in the store is younger. Time does not run backwards in a log.
    pub at: Timestamp,
    /// Random, made with the file and kept in it: keys the fingerprints, so that they are the same
    /// in each process that opens this file, and nobody outside can search for two equal ones.
    pub fingerprint_key: [u8; 16],
}

/// The read side of a store: usable from many threads at once, also while the writer writes.
///
/// Reads of events take turns, first come, first served, at no more than `replay_readers_max` at a
/// time; a call waits for its turn. Look-ups ([`given`](Self::given), [`key`](Self::key),
/// [`finished`](Self::finished)) do not queue behind them and take some tens of microseconds.
///
/// All of them see what is committed, and nothing else.
pub trait StoreReader: Send + Sync + fmt::Debug {
    /// Events of the wanted topics in `from..until`, in offset order, each once.
    ///
    /// A page is one short read; the caller goes on at [`Page::next`]. The end must not be above the
    /// log's tail: what is committed there later would be passed over.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn page(
        &self,
        wanted: &Wanted,
        from: Offset,
        until: Offset,
        batch: Batch,
    ) -> Result<Page, StoreError>;

    /// The highest floor among the wanted topics, those that no longer exist included.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn floor(&self, wanted: &Wanted) -> Result<StoredFloor, StoreError>;

    /// The highest floor of all addresses, those that no longer exist included: from there on nothing
    /// was ever evicted.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn highest_floor(&self) -> Result<Offset, StoreError>;

    /// Every address with a floor above `from`, and that floor; those that no longer exist are not
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

    /// The oldest of the newest `count` offsets below `until` in the wanted topics; `None` if they
    /// keep nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn nth_newest(
        &self,
        wanted: &Wanted,
        count: usize,
        until: Offset,
    ) -> Result<Option<Offset>, StoreError>;

    /// The first offset kept, of whatever topic, with this time stamp or a later one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError>;

    /// The newest events of all topics, at most as many as the batch allows, in offset order: what a
    /// log warms its rings with.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError>;

    /// The event kept under an id that its publisher gave: what it said, and where it stands.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn given(&self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// What was committed under an idempotency key, while its window lasts.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn key(&self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Offset)>, StoreError>;

    /// Whether a topic is finished, while its mark is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn finished(&self, address: &Address) -> Result<Option<Finished>, StoreError>;

    /// Every finished topic whose mark is kept, at most `topics_max`, newest marks first: a log that
    /// opens takes them all, so that no publish has to ask.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError>;
}
