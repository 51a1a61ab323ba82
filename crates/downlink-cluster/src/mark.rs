//! Marks: a keyed hash of all entries up to a position.
//!
//! Every node computes the marks from the entries. Two histories that differ in one entry have
//! different marks at this entry and at all later ones. So one mark is enough to compare two
//! histories.

use std::fmt;

use downlink_log::{Epoch, Fingerprint, Timestamp};
use serde::{Deserialize, Serialize};

use crate::rules::{Mutant, Rules};

/// The secret key of a hub. Marks and claims (see [`Window`](crate::Window)) are computed with it,
/// so a publisher cannot choose events whose hashes are equal.
#[derive(Clone, Copy, Deserialize, Eq, PartialEq, Serialize)]
pub struct HubKey([u8; 16]);

impl HubKey {
    /// A key from random bytes.
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The fingerprint of the content of an event. All nodes compute the same one, so that a node
    /// recognises a publish that is repeated at another node.
    pub fn fingerprint(&self, content: &[u8]) -> Fingerprint {
        Fingerprint::keyed(&self.0, content)
    }

    /// The bytes of the key. They are as secret as the journal itself.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The first eight bytes of the keyed hash.
    pub(crate) fn hash(&self, content: &[u8]) -> u64 {
        let bytes = Fingerprint::keyed(&self.0, content).to_bytes();
        u64::from_le_bytes(std::array::from_fn(|at| bytes[at]))
    }

    /// The hash of the bytes of an entry.
    pub(crate) fn digest(&self, bytes: &[u8]) -> Digest {
        Digest(Fingerprint::keyed(&self.0, bytes).to_bytes())
    }
}

impl fmt::Debug for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubKey(..)")
    }
}

/// The keyed hash of the bytes of one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Digest([u8; 16]);

/// The mark of a position. It depends on all entries up to this position, and on the times that the
/// engine has given to them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Mark(u64);

impl Mark {
    /// The mark before the first entry.
    pub const ORIGIN: Self = Self(0);

    /// The mark with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The eight characters that stand for this mark in the ids of events. They contain 41 bits of
    /// the mark.
    pub fn epoch(self) -> Epoch {
        self.in_log().in_id()
    }

    /// The bits of this mark that a log keeps.
    pub const fn in_log(self) -> downlink_log::store::Mark {
        downlink_log::store::Mark::new(self.0)
    }

    /// The mark of the next entry.
    pub(crate) fn next(self, key: &HubKey, digest: Digest, time: Timestamp, rules: &Rules) -> Self {
        let mut content = [0; 32];
        if !rules.has(Mutant::RandomMarks) {
            content[..8].copy_from_slice(&self.0.to_le_bytes());
            content[8..16].copy_from_slice(&time.as_millis().to_le_bytes());
        }
        content[16..].copy_from_slice(&digest.0);
        Self(key.hash(&content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HubKey = HubKey::from_random([7; 16]);

    fn next(mark: u64, key: &HubKey, bytes: &[u8], millis: u64) -> Mark {
        let time = Timestamp::from_millis(millis);
        Mark(mark).next(key, key.digest(bytes), time, &Rules::default())
    }

    #[test]
    fn a_mark_depends_on_key_previous_mark_bytes_and_time() {
        let mark = next(1, &KEY, b"a", 5);
        assert_eq!(mark, next(1, &KEY, b"a", 5));
        assert_ne!(mark, next(2, &KEY, b"a", 5));
        assert_ne!(mark, next(1, &HubKey::from_random([8; 16]), b"a", 5));
        assert_ne!(mark, next(1, &KEY, b"b", 5));
        assert_ne!(mark, next(1, &KEY, b"a", 6));
    }

    #[test]
    fn a_key_prints_no_secret() {
        assert_eq!(format!("{KEY:?}"), "HubKey(..)");
    }
}
