//! How a repeated publish is recognised: fingerprints and idempotency keys.

use std::{hash::Hasher, time::Duration};

/// How long an idempotency key is kept. Publishers usually stop retrying before ten minutes are
/// over.
pub const KEY_WINDOW: Duration = Duration::from_secs(10 * 60);

/// The maximum number of idempotency keys that are kept. When another key is added, the oldest key
/// is removed. This many keys of ordinary length take about 10 MiB.
pub const KEYS_MAX: usize = 65_536;

/// A number that stands for the content of a published event. Equal contents have equal numbers.
///
/// The number has 128 bits and depends on a secret key. Two different contents practically never
/// get the same number by chance. An attacker without the key cannot find two different contents
/// with the same number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint(u64, u64);

impl Fingerprint {
    /// The fingerprint of some bytes under a random key. It consists of two results of SipHash-2-4.
    /// A store keeps one key for all its events, so that a fingerprint can be compared with the
    /// fingerprints that were stored earlier.
    pub fn keyed(key: &[u8; 16], content: &[u8]) -> Self {
        let number = u128::from_le_bytes(*key);
        let (low, high) = (number as u64, (number >> 64) as u64);
        Self(sip_hash(low, high, content), sip_hash(!low, !high, content))
    }

    /// Makes a fingerprint from the bytes that a store has kept.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self(number as u64, (number >> 64) as u64)
    }

    /// The bytes of the fingerprint, for a store to keep.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0) | u128::from(self.1) << 64).to_le_bytes()
    }
}

#[expect(
    deprecated,
    reason = "this is always SipHash-2-4; the algorithm of its replacement may change"
)]
fn sip_hash(low: u64, high: u64, content: &[u8]) -> u64 {
    let mut hasher = std::hash::SipHasher::new_with_keys(low, high);
    hasher.write(content);
    hasher.finish()
}

/// A key that a publisher gives to an event, together with the publisher's credential. When the
/// publisher repeats a publish with the same key, the event is not added again.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct IdempotencyKey {
    /// The publisher's credential; empty for anonymous publishers.
    pub credential: Box<str>,
    /// The key as the publisher gave it.
    pub key: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_contents_or_keys_give_different_fingerprints() {
        let of = |key: u8, content: &[u8]| Fingerprint::keyed(&[key; 16], content);
        assert_eq!(of(1, b"a"), of(1, b"a"));
        assert_ne!(of(1, b"a"), of(1, b"b"));
        assert_ne!(of(1, b"a"), of(2, b"a"));
        assert_eq!(Fingerprint::from_bytes(of(1, b"a").to_bytes()), of(1, b"a"));
    }
}
