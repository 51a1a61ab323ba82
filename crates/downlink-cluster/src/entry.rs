//! Journal entries: the unit that a node appends to the journal.
//!
//! An entry contains groups of events, and control records. The events of a group are applied
//! together or not at all. Before a node appends events, it *plans* them: it asks its own log which
//! of them are new. The bytes of an entry are in [`wire`](crate::wire).

use std::fmt;

use downlink_log::{
    Address, Epoch, Fingerprint, IdempotencyKey, Offset, Timestamp, store::StoredEvent,
};
use serde::{Deserialize, Serialize};

use crate::{
    mark::{HubKey, Mark},
    position::{Base, Position},
};

/// The version of the format, and of the rules by which nodes decide which events are applied. A
/// node decodes entries of this version only.
pub const FORMAT_VERSION: u16 = 1;

/// The identity of a hub. It is random, and all entries of a hub contain it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct HubId(pub [u8; 16]);

/// The identity of a writer, which appends entries. Each process takes a random one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct WriterId(pub u64);

/// The name of an entry. Two entries with the same name are copies of each other, unless the
/// process was cloned.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct EntryName {
    /// The writer of the entry.
    pub writer: WriterId,
    /// The number that the writer gave to the entry.
    pub counter: u64,
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.writer.0, self.counter)
    }
}

/// A journal entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The hub of the entry.
    pub hub: HubId,
    /// The name of the entry.
    pub name: EntryName,
    /// The last position that the writer had applied when it planned the events. If it planned them
    /// at different positions, this is the lowest of them.
    pub seen: Position,
    /// The writer's mark at `seen`.
    pub seen_mark: Mark,
    /// The events.
    pub groups: Vec<Group>,
    /// The control records.
    pub controls: Vec<Control>,
}

impl Entry {
    /// All events, in order.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.groups.iter().flat_map(|group| &group.records)
    }

    /// Whether the entry has no events. Such entries do not expire.
    pub fn is_control(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Events that are applied together or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Group {
    /// The earlier entries in which the writer has appended these events, but which were not
    /// applied. If a late copy of an earlier entry arrives, either the copy or this group is
    /// applied, but not both.
    pub replaces: Vec<EntryName>,
    /// The events.
    pub records: Vec<Record>,
}

/// An event without its offset. The offset follows from the position of the entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// When the event was published, in the log time of the node that took the publish.
    pub at: Timestamp,
    /// The addresses of the event.
    pub to: Vec<Address>,
    /// The event id that the publisher chose, if any.
    pub id: Option<Box<str>>,
    /// The idempotency key, if any.
    pub key: Option<IdempotencyKey>,
    /// The fingerprint of the event's content.
    pub fingerprint: Fingerprint,
    /// Whether this event finishes its topics.
    pub finish: bool,
    /// The payload; `None` if the event only finishes its topics.
    pub payload: Option<Vec<u8>>,
}

impl Record {
    /// The event at `offset`.
    pub(crate) fn at_offset(&self, offset: Offset) -> StoredEvent {
        StoredEvent {
            offset,
            at: self.at,
            to: self.to.iter().cloned().collect(),
            id: self.id.clone(),
            key: self.key.clone(),
            fingerprint: self.fingerprint,
            finish: self.finish,
            payload: self.payload.clone(),
        }
    }
}

/// A control record: a message from a node to all nodes.
///
/// A record of an unknown kind is kept as [`Unknown`](Self::Unknown). So later versions can add
/// kinds that an older node may ignore.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Control {
    /// The node is alive.
    Heartbeat(Heartbeat),
    /// The knowledge that a node needs when it begins in the middle of the journal.
    Snapshot(Snapshot),
    /// The engine has lost entries.
    Fork(Fork),
    /// All later entries may have this version. Nodes that cannot decode it stop.
    Version(u16),
    /// A record of a kind that this version does not know.
    Unknown {
        /// The number of the kind.
        kind: u16,
    },
}

/// The maximum length of the name of a node in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 64;

/// The state of a live node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Heartbeat {
    /// The last position that the node has applied.
    pub applied: Position,
    /// The highest version that the node can decode.
    pub version_max: u16,
    /// A hash of the node's retention rules. The hashes of all nodes should be equal.
    pub retention: u64,
    /// Whether the node has a cache, which makes its restart quick.
    pub has_cache: bool,
    /// The name of the node, which its operator chooses; at most [`NODE_NAME_BYTES_MAX`] bytes.
    pub node: Box<str>,
}

/// The knowledge that a node needs when it begins in the middle of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// The hub's key.
    pub key: HubKey,
    /// The base of the offsets.
    pub base: Base,
    /// The epochs of the single node that the cluster grew from, oldest first, each with its first
    /// offset.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The known forks.
    pub forks: Vec<Fork>,
}

/// The engine has lost the entries after a position, and gives their positions to other entries.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fork {
    /// The last position that was not lost.
    pub at: Position,
    /// The last position that was lost.
    pub until: Position,
    /// Ids that publishers gave to lost events.
    pub ids: Vec<Box<str>>,
}
