//! The signatures that were verified lately.
//!
//! Verifying a signature with a public key takes more time than everything else that the server
//! does for a new connection. After a cut of the network, thousands of clients reconnect with the
//! tokens that they had before. The server recognises these tokens, and does not verify their
//! signatures again. It still checks their times and all other claims.
//!
//! The table keeps a mark for each verified signature: the first 12 bytes of an HMAC over the key's
//! id, the token and the signature. The HMAC has a random key of its own, which never leaves the
//! process. So a client cannot make a token that has the mark of another token.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;

use crate::jwt::parts::Parts;
use crate::secret::KeyId;

/// The maximum number of verified signatures that a verifier keeps. The table has 12 bytes for each
/// signature, so it takes 768 KiB. If more tokens than this are in use, some signatures are
/// verified again.
pub const VERIFIED_SIGNATURES_MAX: usize = 65_536;

/// The number of marks in a group. The table has many groups, and a hash decides to which group a
/// mark belongs. A new mark displaces the mark of its group that was used least recently. If a
/// group had only one mark, 10,000 tokens would displace about 700 marks, although the table has
/// room for more than 10,000.
const MARKS: usize = 4;

const GROUPS: usize = VERIFIED_SIGNATURES_MAX / MARKS;

/// A mark of 96 bits. A token with a wrong signature is accepted if its mark is equal to one of the
/// 4 marks of its group. The probability is 4 in 2⁹⁶.
type Mark = [u8; 12];

type Group = [Mark; MARKS];

/// The value of a free place in a group. The mark of a token is equal to this value with a
/// probability of 1 in 2⁹⁶.
const EMPTY: Mark = [0; 12];

/// The marks of the verified signatures.
pub(crate) struct VerifiedSignatures {
    /// `None` if the system has no random bytes. Then nothing is kept.
    key: Option<hmac::Key>,
    /// Empty until the first signature is verified. The lock is held only for one look or one
    /// change. No other lock is taken meanwhile.
    groups: Mutex<Vec<Group>>,
}

/// The group and the mark of a signature.
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

    /// The place for the signature of this token. If another key verifies the same signature, the
    /// place is different. `None` if the system has no random bytes.
    pub(crate) fn place(&self, key: KeyId, parts: &Parts<'_>) -> Option<Place> {
        let mut hash = hmac::Context::with_key(self.key.as_ref()?);
        hash.update(key.as_bytes());
        hash.update(parts.message);
        // This dot separates the message and the signature. The message itself has exactly one dot,
        // so it always ends before the second dot.
        hash.update(b".");
        hash.update(&parts.signature);
        let hash = hash.sign();
        let (mark, rest) = hash.as_ref().split_first_chunk()?;
        let number = u32::from_le_bytes(*rest.first_chunk()?);
        Some(Place { group: number as usize % GROUPS, mark: *mark })
    }

    /// Whether the signature at this place was verified. If so, its mark now counts as the one that
    /// was used last in its group.
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
        assert!(!contains(1), "a mark was found in an empty table");
        (1..=4).for_each(|number| signatures.insert(place(7, number)));
        assert!(contains(1), "the first mark was not found");
        signatures.insert(place(7, 5));
        assert_eq!([1, 2, 3, 4, 5].map(contains), [true, false, true, true, true]);
        assert!(!signatures.contains(place(8, 1)), "a mark was found in another group");
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
        assert_ne!(other.place(key, &parts).unwrap().mark, marks[0], "each table has its own key");
    }
}
