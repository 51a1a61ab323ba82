//! Claims: the names, keys, ids and finished topics of an entry, as hashes.

use downlink_log::{Address, IdempotencyKey, Topic};
use smallvec::SmallVec;

use crate::{
    entry::{EntryName, Group},
    mark::HubKey,
};

/// Computes claims. A claim is a keyed hash with 64 bits. If two different claims have the same
/// hash by chance, all nodes drop the same event, and its writer appends it again.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    pub(crate) key: &'a HubKey,
}

impl Claims<'_> {
    pub(crate) fn name(&self, name: EntryName) -> u64 {
        let numbers = [name.writer.0.to_le_bytes(), name.counter.to_le_bytes()];
        self.hash(b'n', &[numbers.as_flattened()])
    }

    fn key(&self, key: &IdempotencyKey) -> u64 {
        let length = (key.credential.len() as u64).to_le_bytes();
        self.hash(b'k', &[&length, key.credential.as_bytes(), key.key.as_bytes()])
    }

    fn topic(&self, topic: &Topic) -> u64 {
        self.hash(b'f', &[topic.as_str().as_bytes()])
    }

    fn hash(&self, kind: u8, parts: &[&[u8]]) -> u64 {
        let mut content: SmallVec<[u8; 128]> = SmallVec::new();
        content.push(kind);
        parts.iter().for_each(|part| content.extend_from_slice(part));
        self.key.hash(&content)
    }

    /// The claims of a group.
    pub(crate) fn of(&self, group: &Group) -> GroupClaims {
        let mut claims = GroupClaims {
            unique: group.replaces.iter().map(|name| self.name(*name)).collect(),
            ..GroupClaims::default()
        };
        for record in &group.records {
            claims.unique.extend(record.key.as_ref().map(|key| self.key(key)));
            claims.unique.extend(record.id.as_ref().map(|id| self.hash(b'i', &[id.as_bytes()])));
            let topics = record.to.iter().filter_map(Address::topic).map(|topic| self.topic(topic));
            let before = claims.topics.len();
            claims.topics.extend(topics);
            if record.finish {
                claims.finished.extend_from_slice(&claims.topics[before..]);
            }
        }
        claims
    }
}

/// The claims of a group. A node compares them with the claims of the *entries between*. These are
/// the entries after the position at which the events were planned, and before the entry of the
/// group.
#[derive(Debug, Default)]
pub(crate) struct GroupClaims {
    /// Replaced names, keys and ids. The group makes these claims, and is dropped if an entry
    /// between has made one of them.
    unique: Vec<u64>,
    /// Finished topics. The group makes these claims.
    finished: Vec<u64>,
    /// All topics of the group. The group is dropped if an entry between has finished one of them.
    topics: Vec<u64>,
}

impl GroupClaims {
    /// The claims that the group makes.
    pub(crate) fn made(&self) -> impl Iterator<Item = u64> {
        self.unique.iter().chain(&self.finished).copied()
    }

    /// The group is dropped if one of the entries between has made one of these claims.
    pub(crate) fn excluding(&self) -> impl Iterator<Item = u64> {
        self.unique.iter().chain(&self.topics).copied()
    }
}
