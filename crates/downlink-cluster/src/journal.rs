//! The interface between a node and an engine.
//!
//! An engine keeps one list of byte strings, the journal, and gives each of them a position and a
//! time. It knows nothing of topics, keys or ids. One task owns a journal.
//!
//! Engines lose entries, so a node checks the answers of the engine. The mark in an entry shows
//! whether the earlier entries are still the same.

use std::{
    future::Future,
    ops::Range,
    task::{Context, Poll},
};

use downlink_log::Timestamp;
use thiserror::Error;

use crate::{entry::EntryName, position::Position};

/// The identity of an engine's list, such as the time at which it was created. A new identity is a
/// hint that entries are lost. An old identity does not prove that they are still there.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct JournalId(pub u64);

/// The first and the last position that the engine keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// The first position that is kept. If no entry is kept, it is the position after `last`.
    pub first: Position,
    /// The last position; the origin if the journal has never had an entry.
    pub last: Position,
}

/// The state of a journal when it was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The identity.
    pub id: JournalId,
    /// The positions.
    pub bounds: Bounds,
    /// The largest entry that the engine takes.
    pub entry_bytes_max: usize,
    /// The meaning of an acknowledgement.
    pub durability: JournalDurability,
}

/// The promise that the engine makes when it acknowledges an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JournalDurability {
    /// The entry survives the failure of one machine, including its power.
    Durable,
    /// The entry may be lost in a failover or a power cut. Readers learn of such a loss.
    Relaxed,
}

/// An entry as the engine keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawEntry {
    /// The position.
    pub position: Position,
    /// The time that the engine gave to the entry.
    pub time: Timestamp,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The next thing that a tail yields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TailItem {
    /// An entry.
    Entry(RawEntry),
    /// The engine no longer has the entries of these positions, and gives these positions to no
    /// other entries.
    Hole(Range<Position>),
    /// The tail has yielded everything that the engine had up to this position. A tail that begins
    /// at the end of the journal reports the position before its beginning. If a tail reports a
    /// lower position, the journal is shorter than the caller expected.
    CaughtUp(Position),
}

/// The reason why a journal did not answer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum JournalError {
    /// The engine did not answer. An entry may have been appended, or may still be appended later.
    #[error("the engine did not answer")]
    Unavailable,
    /// The engine refuses the entry for good, for example because of its size. This attempt has not
    /// appended the entry, but an earlier attempt may have.
    #[error("the engine refuses the entry")]
    Refused,
    /// The engine has no room for the entry, and has not appended it. An earlier attempt without an
    /// answer may still have appended it.
    #[error("the engine is full")]
    Full,
    /// The last position is not the given one.
    #[error("the last position is {last}")]
    NotLast {
        /// The last position.
        last: Position,
    },
    /// The identity of the journal has changed: it must be opened again.
    #[error("the journal was replaced")]
    Replaced,
}

/// The journal of one hub in an engine.
pub trait Journal {
    /// The entries from a position on.
    type Tail: Tail;

    /// Opens the journal.
    fn open(&mut self) -> impl Future<Output = Result<Opened, JournalError>> + Send + 'static;

    /// Appends an entry at least once, and returns a position of the entry. If an append is
    /// repeated, `name` is the same, so an engine may use it to skip copies.
    ///
    /// With `only_if_last`, the entry is appended only if the last position is the given one.
    fn append(
        &mut self,
        name: EntryName,
        bytes: Vec<u8>,
        only_if_last: Option<Position>,
    ) -> impl Future<Output = Result<Position, JournalError>> + Send + 'static;

    /// Reads the entries of a range in order, with the bounds at the time of the read. The answer
    /// has fewer entries if the engine does not have all of them.
    fn read(
        &mut self,
        range: Range<Position>,
    ) -> impl Future<Output = Result<(Vec<RawEntry>, Bounds), JournalError>> + Send + 'static;

    /// The bounds. `last` is at least as high as every position that the engine acknowledged before
    /// this call, unless the engine has lost entries.
    fn bounds(&mut self) -> impl Future<Output = Result<Bounds, JournalError>> + Send + 'static;

    /// Reads the entries from `from` on, and waits for new ones.
    fn tail(&mut self, from: Position) -> Self::Tail;
}

/// Yields entries in order.
pub trait Tail {
    /// The next item. After an error, the caller opens another tail.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<TailItem, JournalError>>;
}
