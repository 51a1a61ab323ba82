//! What is stored and what is read back. The payload is opaque here: bytes in, the same bytes out.

use smallvec::SmallVec;

use crate::{
    address::Address,
    given::{Fingerprint, IdempotencyKey},
    offset::{Offset, Timestamp},
    selector::TopicSelector,
};

/// An event on its way into a store, or out of it into a log's rings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEvent {
    /// Where it stands.
    pub offset: Offset,
    /// When it was published. Never before that of a lower offset.
    pub at: Timestamp,
    /// Whom it is for, each once. With no address nobody reads it, and only its key is kept. Read
    /// back, only those that have not evicted it.
    pub to: SmallVec<[Address; 1]>,
    /// The id that its publisher gave; unique among what is kept, which the log has checked.
    pub id: Option<Box<str>>,
    /// The key under which it is published only once. `None` when read back.
    pub key: Option<IdempotencyKey>,
    /// What it says. Kept if there is an id or a key.
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

/// The topics that a read is about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Exact addresses. Everyone's topic only if it is named.
    pub addresses: Vec<Address>,
    /// Patterns of topics; an exact selector is as good as an address.
    pub patterns: Vec<TopicSelector>,
}

/// A page of events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// In offset order. May be empty although more follows: a page looks at a bounded number of
    /// rows.
    pub events: Vec<StoredEntry>,
    /// Everything wanted below this is in this page or before it. The end that was asked for when
    /// there is nothing more.
    pub next: Offset,
    /// The highest floor among the wanted topics at the moment of this page: at or below `from`, the
    /// page has no hole.
    pub floor: StoredFloor,
}

/// An event as a replay gets it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEntry {
    /// Where it stands.
    pub offset: Offset,
    /// When it was published.
    pub at: Timestamp,
    /// The id that its publisher gave.
    pub id: Option<Box<str>>,
    /// The bytes that were stored.
    pub payload: Vec<u8>,
}

/// Up to where a topic's events are gone, and when the last of them was still there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoredFloor {
    /// Last evicted offset + 1; 1 if nothing was ever evicted.
    pub offset: Offset,
    /// No evicted event is younger.
    pub at: Timestamp,
}

impl StoredFloor {
    /// Nothing was ever evicted.
    pub const NONE: Self = Self { offset: Offset::FIRST, at: Timestamp::from_millis(0) };

    /// Both together, perhaps higher than either.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { offset: self.offset.max(other.offset), at: self.at.max(other.at) }
    }
}

/// The mark of a finished topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finished {
    /// The offset of the event that finished it.
    pub offset: Offset,
    /// When.
    pub at: Timestamp,
}
