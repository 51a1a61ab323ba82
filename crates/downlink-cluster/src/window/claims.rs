//! Claims: the names, keys, ids and finished topics of an entry, as hashes.

use downlink_log::{Address, IdempotencyKey, Topic};

use crate::{
    entry::{EntryName, Group, Record},
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

    fn finish(&self, topic: &Topic) -> u64 {
        self.hash(b'f', &[topic.as_str().as_bytes()])
    }

    fn hash(&self, kind: u8, parts: &[&[u8]]) -> u64 {
        let mut content = vec![kind];
        parts.iter().for_each(|part| content.extend_from_slice(part));
        self.key.hash(&content)
    }

    /// The claims that a group makes.
    pub(crate) fn made_by(&self, group: &Group) -> Vec<u64> {
        let mut claims: Vec<u64> = self.unique(group).collect();
        for record in group.records.iter().filter(|record| record.finish) {
            claims.extend(topics(record).map(|topic| self.finish(topic)));
        }
        claims
    }

    /// The claims that no entry between may have made, if the group is to be applied.
    pub(crate) fn excluding(&self, group: &Group) -> Vec<u64> {
        let topics = group.records.iter().flat_map(topics);
        self.unique(group).chain(topics.map(|topic| self.finish(topic))).collect()
    }

    /// The names, keys and ids of a group.
    fn unique(&self, group: &Group) -> impl Iterator<Item = u64> {
        let names = group.replaces.iter().map(|name| self.name(*name));
        let keys = group.records.iter().filter_map(|record| record.key.as_ref());
        let ids = group.records.iter().filter_map(|record| record.id.as_ref());
        let keys = keys.map(|key| self.key(key));
        names.chain(keys).chain(ids.map(|id| self.hash(b'i', &[id.as_bytes()])))
    }
}

fn topics(record: &Record) -> impl Iterator<Item = &Topic> {
    record.to.iter().filter_map(Address::topic)
}
