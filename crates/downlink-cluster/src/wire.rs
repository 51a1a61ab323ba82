//! The bytes of a journal entry.
//!
//! Postcard encodes the numbers and texts. The counts of groups, events, addresses and control
//! records are separate numbers, and the decoder compares each with its limit before it reserves
//! memory. So hostile bytes never cause a panic, and decoding takes at most
//! [`DECODED_BYTES_MAX`] of memory.

use downlink_log::{
    Address, ClientId, Epoch, Fingerprint, IdempotencyKey, InvalidName, Offset, Timestamp, Topic,
    resembles_cursor,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    entry::{
        Control, Entry, EntryName, FORMAT_VERSION, Fork, Group, Heartbeat, HubId,
        NODE_NAME_BYTES_MAX, Record, Snapshot,
    },
    mark::{HubKey, Mark},
    position::{Base, ENTRY_EVENTS_MAX, Position},
};

/// The maximum number of bytes of an entry. The engines that this design is made for take entries
/// of at least 900 KiB, and none of them needs more than a megabyte for its best throughput.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// The maximum number of addresses of all events of an entry. It allows 16 for each event.
pub const ENTRY_ADDRESSES_MAX: usize = 16 * ENTRY_EVENTS_MAX;
/// The maximum number of control records of an entry. A node appends at most four: a heartbeat, two
/// forks and a snapshot.
pub const ENTRY_CONTROLS_MAX: usize = 64;
/// The maximum number of earlier entries that a group can replace. A group usually replaces an
/// entry that has expired, and a publisher waits for less than four lifetimes of an entry. Clones
/// of the process and forks can cause some more replacements.
pub const REPLACES_MAX: usize = 8;
/// The maximum number of bytes in a publisher's id.
pub const ID_BYTES_MAX: usize = 128;
/// The maximum number of forks in a snapshot. The oldest forks are merged when there are more.
pub const FORKS_MAX: usize = 64;
/// The maximum number of lost publishers' ids in a fork.
pub const FORK_IDS_MAX: usize = 1_024;
/// The maximum number of old epochs in a snapshot.
pub const EPOCHS_MAX: usize = 1_024;

/// The maximum memory of a decoded entry: 16 times the bytes of an entry. The memory of one event
/// or address is at most 16 times its encoded size, and the texts and payloads take as much as
/// their encoded bytes.
pub const DECODED_BYTES_MAX: usize = 16 * ENTRY_BYTES_MAX;

/// The reason why bytes are not an entry that this version can decode.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The entry has too many bytes.
    #[error("the entry has {bytes} bytes, at most {ENTRY_BYTES_MAX} are allowed")]
    TooLarge {
        /// The number of bytes.
        bytes: usize,
    },
    /// The entry has another version.
    #[error("the entry has version {version}, this program reads version {FORMAT_VERSION}")]
    Version {
        /// The version of the entry.
        version: u16,
        /// The hub of the entry; `None` if the bytes are no entry.
        hub: Option<HubId>,
    },
    /// The entry has too many parts of a kind.
    #[error("the entry has {count} {part}, at most {count_max} are allowed")]
    TooMany {
        /// The kind of part.
        part: &'static str,
        /// The number in the entry.
        count: u64,
        /// The maximum number.
        count_max: usize,
    },
    /// A topic or a client id breaks the grammar.
    #[error("an address of the entry is not valid")]
    Address(#[from] InvalidName),
    /// A publisher's id is too long, empty, or looks like an id of the log.
    #[error("a publisher's id in the entry is not valid")]
    Id,
    /// The bytes do not follow the format.
    #[error("the entry does not follow the format")]
    Malformed,
}

/// The reason why an entry cannot be encoded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The entry has too many bytes.
    #[error("the entry has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// The number of bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The entry has too many parts of a kind.
    #[error("the entry has {count} {part}, at most {count_max} are allowed")]
    TooMany {
        /// The kind of part.
        part: &'static str,
        /// The number in the entry.
        count: usize,
        /// The maximum number.
        count_max: usize,
    },
}

#[derive(Deserialize, Serialize)]
struct Head {
    hub: HubId,
    name: EntryName,
    seen: Position,
    seen_mark: Mark,
    groups: u64,
    controls: u64,
}

#[derive(Deserialize, Serialize)]
struct GroupHead {
    replaces: u64,
    records: u64,
}

#[derive(Deserialize, Serialize)]
struct RecordHead<'a> {
    at: u64,
    #[serde(borrow)]
    id: Option<&'a str>,
    #[serde(borrow)]
    key: Option<(&'a str, &'a str)>,
    fingerprint: [u8; 16],
    finish: bool,
    #[serde(borrow)]
    payload: Option<&'a [u8]>,
    addresses: u64,
}

#[derive(Deserialize, Serialize)]
enum AddressText<'a> {
    Everyone,
    #[serde(borrow)]
    Client(&'a str),
    #[serde(borrow)]
    Topic(&'a str),
}

#[derive(Deserialize, Serialize)]
struct ControlHead<'a> {
    kind: u16,
    #[serde(borrow)]
    body: &'a [u8],
}

#[derive(Deserialize, Serialize)]
struct SnapshotHead {
    key: HubKey,
    base: Base,
    epochs: u64,
    forks: u64,
}

#[derive(Deserialize, Serialize)]
struct ForkHead {
    at: Position,
    until: Position,
    ids: u64,
}

const HEARTBEAT: u16 = 1;
const SNAPSHOT: u16 = 2;
const FORK: u16 = 3;
const VERSION: u16 = 4;

/// Appends the encoded value. Encoding into memory does not fail for the types of this file.
pub(crate) fn put(bytes: &mut Vec<u8>, value: &impl Serialize) {
    match postcard::to_extend(value, std::mem::take(bytes)) {
        Ok(extended) => *bytes = extended,
        Err(error) => debug_assert!(false, "encoding into memory failed: {error}"),
    }
}

/// The encoded bytes of a group. A node uses their number to fill an entry up to the limit of its
/// engine.
pub(crate) fn group_bytes(group: &Group) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_group(&mut bytes, group);
    bytes
}

fn put_group(bytes: &mut Vec<u8>, group: &Group) {
    let (replaces, records) = (group.replaces.len() as u64, group.records.len() as u64);
    put(bytes, &GroupHead { replaces, records });
    group.replaces.iter().for_each(|name| put(bytes, name));
    for record in &group.records {
        let key = record.key.as_ref().map(|key| (&*key.credential, &*key.key));
        let head = RecordHead {
            at: record.at.as_millis(),
            id: record.id.as_deref(),
            key,
            fingerprint: record.fingerprint.to_bytes(),
            finish: record.finish,
            payload: record.payload.as_deref(),
            addresses: record.to.len() as u64,
        };
        put(bytes, &head);
        for address in &record.to {
            put(
                bytes,
                &match address {
                    Address::Client(client) => AddressText::Client(client.as_str()),
                    Address::Topic(topic) => AddressText::Topic(topic.as_str()),
                    _ => AddressText::Everyone,
                },
            );
        }
    }
}

fn put_control(bytes: &mut Vec<u8>, control: &Control) {
    let mut body = Vec::new();
    let kind = match control {
        Control::Heartbeat(heartbeat) => {
            put(&mut body, heartbeat);
            HEARTBEAT
        }
        Control::Snapshot(snapshot) => {
            put_snapshot(&mut body, snapshot);
            SNAPSHOT
        }
        Control::Fork(fork) => {
            put_fork(&mut body, fork);
            FORK
        }
        Control::Version(version) => {
            put(&mut body, version);
            VERSION
        }
        Control::Unknown { kind } => *kind,
    };
    put(bytes, &ControlHead { kind, body: &body });
}

pub(crate) fn put_snapshot(body: &mut Vec<u8>, snapshot: &Snapshot) {
    let Snapshot { key, base, epochs, forks } = snapshot;
    let (epoch_count, fork_count) = (epochs.len() as u64, forks.len() as u64);
    put(body, &SnapshotHead { key: *key, base: *base, epochs: epoch_count, forks: fork_count });
    epochs.iter().for_each(|(epoch, first)| put(body, &(epoch.as_str(), first.get())));
    forks.iter().for_each(|fork| put_fork(body, fork));
}

fn put_fork(body: &mut Vec<u8>, fork: &Fork) {
    put(body, &ForkHead { at: fork.at, until: fork.until, ids: fork.ids.len() as u64 });
    fork.ids.iter().for_each(|id| put(body, id));
}

impl Entry {
    /// Encodes the entry.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the entry exceeds a limit. `bytes_max` is the limit of the engine; the
    /// limit [`ENTRY_BYTES_MAX`] always applies.
    pub fn encode(&self, bytes_max: usize) -> Result<Vec<u8>, EncodeError> {
        let limit = |part, count, count_max| {
            let error = EncodeError::TooMany { part, count, count_max };
            if count > count_max { Err(error) } else { Ok(()) }
        };
        limit("events", self.records().count(), ENTRY_EVENTS_MAX)?;
        limit("groups", self.groups.len(), ENTRY_EVENTS_MAX)?;
        limit("addresses", self.records().map(|r| r.to.len()).sum(), ENTRY_ADDRESSES_MAX)?;
        limit("control records", self.controls.len(), ENTRY_CONTROLS_MAX)?;
        let mut bytes = Vec::new();
        put(&mut bytes, &FORMAT_VERSION);
        let Self { hub, name, seen, seen_mark, groups, controls } = self;
        let (hub, name, seen, seen_mark) = (*hub, *name, *seen, *seen_mark);
        let (group_count, control_count) = (groups.len() as u64, controls.len() as u64);
        let head =
            Head { hub, name, seen, seen_mark, groups: group_count, controls: control_count };
        put(&mut bytes, &head);
        groups.iter().for_each(|group| put_group(&mut bytes, group));
        controls.iter().for_each(|control| put_control(&mut bytes, control));
        let bytes_max = bytes_max.min(ENTRY_BYTES_MAX);
        match bytes.len() {
            len if len > bytes_max => Err(EncodeError::TooLarge { bytes: len, bytes_max }),
            _ => Ok(bytes),
        }
    }

    /// Decodes an entry.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]. Every node gets the same error for the same bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(DecodeError::TooLarge { bytes: bytes.len() });
        }
        let mut rest = Input { bytes, events: ENTRY_EVENTS_MAX, addresses: ENTRY_ADDRESSES_MAX };
        let version = rest.take::<u16>()?;
        if version != FORMAT_VERSION {
            // All versions have the hub at this place.
            let hub = rest.take().ok();
            return Err(DecodeError::Version { version, hub });
        }
        let Head { hub, name, seen, seen_mark, groups, controls } = rest.take()?;
        let groups = rest.list("groups", groups, ENTRY_EVENTS_MAX, Input::group)?;
        let controls =
            rest.list("control records", controls, ENTRY_CONTROLS_MAX, Input::control)?;
        rest.end()?;
        Ok(Self { hub, name, seen, seen_mark, groups, controls })
    }
}

/// The bytes that are not decoded yet, and how many events and addresses may still follow.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    events: usize,
    addresses: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, events: 0, addresses: 0 }
    }

    /// Takes a value without lists. So it reserves memory for one text at most.
    pub(crate) fn take<T: Deserialize<'a>>(&mut self) -> Result<T, DecodeError> {
        let (value, rest) =
            postcard::take_from_bytes(self.bytes).map_err(|_| DecodeError::Malformed)?;
        self.bytes = rest;
        Ok(value)
    }

    /// Takes a list. Each element has at least one byte, so a count above the number of bytes is
    /// wrong, and its list reserves no memory.
    fn list<T>(
        &mut self,
        part: &'static str,
        count: u64,
        count_max: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let within = usize::try_from(count).ok().filter(|count| *count <= count_max);
        let count = within.ok_or(DecodeError::TooMany { part, count, count_max })?;
        if count > self.bytes.len() {
            return Err(DecodeError::Malformed);
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn group(&mut self) -> Result<Group, DecodeError> {
        let head: GroupHead = self.take()?;
        let replaces = self.list("replaced entries", head.replaces, REPLACES_MAX, Self::take)?;
        let records = self.list("events", head.records, self.events, Self::record)?;
        self.events -= records.len();
        if records.is_empty() {
            return Err(DecodeError::Malformed);
        }
        Ok(Group { replaces, records })
    }

    fn record(&mut self) -> Result<Record, DecodeError> {
        let head: RecordHead<'_> = self.take()?;
        let is_valid =
            |id: &&str| !id.is_empty() && id.len() <= ID_BYTES_MAX && !resembles_cursor(id);
        if !head.id.iter().all(is_valid) {
            return Err(DecodeError::Id);
        }
        let to = self.list("addresses", head.addresses, self.addresses, Self::address)?;
        self.addresses -= to.len();
        let key = head.key.map(|(credential, key)| IdempotencyKey {
            credential: credential.into(),
            key: key.into(),
        });
        Ok(Record {
            at: Timestamp::from_millis(head.at),
            to,
            id: head.id.map(Into::into),
            key,
            fingerprint: Fingerprint::from_bytes(head.fingerprint),
            finish: head.finish,
            payload: head.payload.map(Into::into),
        })
    }

    fn address(&mut self) -> Result<Address, DecodeError> {
        Ok(match self.take()? {
            AddressText::Everyone => Address::Everyone,
            AddressText::Client(id) => Address::Client(ClientId::new(id)?),
            AddressText::Topic(name) => Address::Topic(Topic::new(name)?),
        })
    }

    fn control(&mut self) -> Result<Control, DecodeError> {
        let ControlHead { kind, body } = self.take()?;
        let mut body = Self::new(body);
        let control = match kind {
            VERSION => Control::Version(body.take()?),
            HEARTBEAT => Control::Heartbeat(body.heartbeat()?),
            SNAPSHOT => Control::Snapshot(body.snapshot()?),
            FORK => Control::Fork(body.fork()?),
            kind => return Ok(Control::Unknown { kind }),
        };
        body.end()?;
        Ok(control)
    }

    fn heartbeat(&mut self) -> Result<Heartbeat, DecodeError> {
        let head: (Position, u16, u64, bool, &str) = self.take()?;
        let (applied, version_max, retention, has_cache, node) = head;
        if node.len() > NODE_NAME_BYTES_MAX {
            return Err(DecodeError::Malformed);
        }
        Ok(Heartbeat { applied, version_max, retention, has_cache, node: node.into() })
    }

    pub(crate) fn snapshot(&mut self) -> Result<Snapshot, DecodeError> {
        let SnapshotHead { key, base, epochs, forks } = self.take()?;
        let epochs = self.list("epochs", epochs, EPOCHS_MAX, |rest| {
            let (epoch, first): (&str, u64) = rest.take()?;
            let epoch = Epoch::parse(epoch).ok_or(DecodeError::Malformed)?;
            Ok((epoch, Offset::new(first)))
        })?;
        let forks = self.list("forks", forks, FORKS_MAX, Self::fork)?;
        Ok(Snapshot { key, base, epochs, forks })
    }

    fn fork(&mut self) -> Result<Fork, DecodeError> {
        let ForkHead { at, until, ids } = self.take()?;
        let ids = self.list("lost ids", ids, FORK_IDS_MAX, |rest| {
            let id: &str = rest.take()?;
            if id.len() > ID_BYTES_MAX { Err(DecodeError::Id) } else { Ok(Box::from(id)) }
        })?;
        Ok(Fork { at, until, ids })
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Malformed) }
    }
}
