//! The signatures that were verified lately.
//!
//! To verify a signature of a public key takes more time than the rest of a connect. After a cut of
//! the network, thousands of clients come back with the tokens that they had before. The server
//! recognises these tokens, and does not verify their signatures again. It still checks their times
//! and all other claims.
//!
//! A mark stands for a key, a token and its signature. It is a part of an HMAC with a random key
//! that never leaves the process. So nobody can make a token that has the mark of another token.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;

use crate::jwt::parts::Parts;
use crate::secret::KeyId;

/// The maximum number of verified signatures that a verifier keeps. The table has 12 bytes for each
/// one, so it takes 768 KiB. With more tokens than this in use, some signatures are verified again.
pub const VERIFIED_SIGNATURES_MAX: usize = 65_536;

/// The marks of one group. A mark belongs to one group, and a new mark displaces the mark of its
/// group that was used least recently. With one mark in a group, 10,000 tokens would displace 700
/// of each other's marks.
const MARKS: usize = 4;

const GROUPS: usize = VERIFIED_SIGNATURES_MAX / MARKS;

/// 96 bits. A wrong token has the mark of one in its group with a probability of 4 in 2⁹⁶.
type Mark = [u8; 12];

type Group = [Mark; MARKS];

/// No mark. A token has this mark with a probability of 1 in 2⁹⁶.
const EMPTY: Mark = [0; 12];

/// The marks of the verified signatures.
pub(crate) struct VerifiedSignatures {
    /// `None` if the system has no random bytes. Then nothing is kept.
    key: Option<hmac::Key>,
    /// Empty until the first signature is verified. Held alone, for one look or one change.
    groups: Mutex<Vec<Group>>,
}

/// The place of a signature in the table.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    group: usize,
    mark: Mark,
}

impl VerifiedSignatures {
    pub(crate) fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self { key: key.ok(), groups: Mutex::default() }
    }

    /// The place of the signature that a key has to verify.
    pub(crate) fn place(&self, key: KeyId, parts: &Parts<'_>) -> Option<Place> {
        let mut hash = hmac::Context::with_key(self.key.as_ref()?);
        hash.update(key.as_bytes());
        hash.update(parts.message);
        // The message has exactly one dot. So the second dot is always its end.
        hash.update(b".");
        hash.update(&parts.signature);
        let hash = hash.sign();
        let (mark, rest) = hash.as_ref().split_first_chunk()?;
        let number = u32::from_le_bytes(*rest.first_chunk()?);
        Some(Place { group: number as usize % GROUPS, mark: *mark })
    }

    /// Whether the signature at this place was verified.
    pub(crate) fn contains(&self, place: Place) -> bool {
        let mut groups = self.groups.lock();
        let Some(group) = groups.get_mut(place.group) else { return false };
        let found = group.iter().position(|mark| *mark == place.mark);
        // The first mark is the one that was used last.
        found.map(|at| group[..=at].rotate_right(1)).is_some()
    }

    /// Keeps a verified signature.
    pub(crate) fn insert(&self, place: Place) {
        let mut groups = self.groups.lock();
        if groups.is_empty() {
            *groups = vec![[EMPTY; MARKS]; GROUPS];
        }
        let Some(group) = groups.get_mut(place.group) else { return };
        group.rotate_right(1);
        group[0] = place.mark;
    }
}

impl fmt::Debug for VerifiedSignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedSignatures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(group: usize, number: u8) -> Place {
        Place { group, mark: [number; 12] }
    }

    #[test]
    fn a_full_group_drops_the_mark_that_was_used_least_recently() {
        let signatures = VerifiedSignatures::new();
        let contains = |number| signatures.contains(place(7, number));
        assert!(!contains(1), "the table is empty");
        (1..=4).for_each(|number| signatures.insert(place(7, number)));
        assert!(contains(1), "the first mark is used again");
        signatures.insert(place(7, 5));
        assert_eq!([1, 2, 3, 4, 5].map(contains), [true, false, true, true, true]);
        assert!(!signatures.contains(place(8, 1)), "a mark belongs to one group");
    }

    #[test]
    fn a_mark_depends_on_the_key_the_message_and_the_signature() {
        let signatures = VerifiedSignatures::new();
        let token =
            |claims: &str, signature: &str| format!("eyJhbGciOiJFUzI1NiJ9.{claims}.{signature}");
        let marks = [
            (1, token("AAAA", "AAAA")),
            (2, token("AAAA", "AAAA")),
            (1, token("AAAB", "AAAA")),
            (1, token("AAAA", "AAAB")),
        ]
        .map(|(key, token)| {
            let parts = Parts::parse(&token).unwrap();
            let key = KeyId::from_bytes([key; KeyId::BYTES]);
            signatures.place(key, &parts).unwrap().mark
        });
        for (at, mark) in marks.iter().enumerate() {
            assert!(!marks[..at].contains(mark) && *mark != EMPTY, "{at}");
        }
        let parts = token("AAAA", "AAAA");
        let parts = Parts::parse(&parts).unwrap();
        let key = KeyId::from_bytes([1; KeyId::BYTES]);
        let other = VerifiedSignatures::new();
        assert_eq!(signatures.place(key, &parts).unwrap().mark, marks[0]);
        assert_ne!(other.place(key, &parts).unwrap().mark, marks[0], "each process has its key");
    }
}
