//! Ids and keys that publishers give: the memory that makes a repeated publish one event.
//!
//! An id is remembered while its event is kept. An idempotency key has a window of its own, since a
//! publisher repeats within minutes, whatever retention does meanwhile.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::{BuildHasher, Hash, Hasher},
    sync::OnceLock,
    time::Duration,
};

use crate::{draft::Appended, offset::Timestamp};

/// How long a key is remembered. Publishers that retry give up sooner.
pub(crate) const KEY_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Keys remembered; the oldest goes first. About 10 MiB with keys of ordinary length.
pub(crate) const KEYS_MAX: usize = 65_536;

/// What a publish says, as a number: equal for equal content, otherwise different.
///
/// 128 bits under keys that are random in each process; two contents that collide are not to be
/// expected in the life of the universe, and nobody outside can search for a pair.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint(u64, u64);

impl Fingerprint {
    /// The fingerprint of anything that hashes.
    pub fn of(content: &impl Hash) -> Self {
        static KEYS: OnceLock<(RandomState, RandomState)> = OnceLock::new();
        let (first, second) = KEYS.get_or_init(Default::default);
        Self(first.hash_one(content), second.hash_one(content))
    }

    /// The fingerprint of some bytes under a key that outlives the process: SipHash-2-4 twice.
    pub fn keyed(key: &[u8; 16], content: &[u8]) -> Self {
        let number = u128::from_le_bytes(*key);
        let (low, high) = (number as u64, (number >> 64) as u64);
        Self(sip_hash(low, high, content), sip_hash(!low, !high, content))
    }

    /// The fingerprint with these bytes, as a store kept them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self(number as u64, (number >> 64) as u64)
    }

    /// Its bytes, as a store keeps them.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0) | u128::from(self.1) << 64).to_le_bytes()
    }
}

#[expect(deprecated, reason = "its algorithm is fixed by name; that of its successor may change")]
fn sip_hash(low: u64, high: u64, content: &[u8]) -> u64 {
    let mut hasher = std::hash::SipHasher::new_with_keys(low, high);
    hasher.write(content);
    hasher.finish()
}

/// A key under which a publish happens once, and whose publisher's it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct IdempotencyKey {
    /// The credential that the window belongs to; empty for anonymous publishers.
    pub credential: Box<str>,
    /// The key as the publisher gave it.
    pub key: Box<str>,
}

/// Publisher-given ids of the events that are kept.
#[derive(Debug, Default)]
pub(crate) struct GivenIds {
    ids: HashMap<Box<str>, GivenId>,
    /// Ids that were freed so far: who has asked a store meanwhile asks again.
    releases: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenId {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) answer: Appended,
    /// Rings that still keep the event.
    pub(crate) rings: usize,
}

impl GivenIds {
    pub(crate) fn get(&self, id: &str) -> Option<&GivenId> {
        self.ids.get(id)
    }

    pub(crate) fn insert(&mut self, id: Box<str>, given: GivenId) {
        self.ids.insert(id, given);
    }

    /// A ring no longer keeps the event; after the last one the id is free again.
    pub(crate) fn release(&mut self, id: &str, offset: u64) {
        let Some(given) = self.ids.get_mut(id).filter(|given| given.answer.offset.get() == offset)
        else {
            return;
        };
        given.rings -= 1;
        if given.rings == 0 {
            self.ids.remove(id);
            self.releases += 1;
        }
    }

    pub(crate) fn releases(&self) -> u64 {
        self.releases
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Idempotency keys of the last minutes.
#[derive(Debug)]
pub(crate) struct KeyWindow {
    keys: HashMap<IdempotencyKey, (Fingerprint, Appended)>,
    order: VecDeque<(Timestamp, IdempotencyKey)>,
    keys_max: usize,
}

impl KeyWindow {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self { keys: HashMap::new(), order: VecDeque::new(), keys_max }
    }

    pub(crate) fn get(&self, key: &IdempotencyKey) -> Option<&(Fingerprint, Appended)> {
        self.keys.get(key)
    }

    pub(crate) fn insert(
        &mut self,
        now: Timestamp,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        answer: Appended,
    ) {
        if self.keys.len() >= self.keys_max {
            self.drop_oldest();
        }
        self.keys.insert(key.clone(), (fingerprint, answer));
        self.order.push_back((now, key));
    }

    /// Drops the keys whose window is over.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(at, _)| at.after(KEY_WINDOW) <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;

    fn key(key: &str) -> IdempotencyKey {
        IdempotencyKey { credential: "".into(), key: key.into() }
    }

    fn answer(offset: u64) -> Appended {
        Appended { offset: Offset::new(offset), matched: 0, repeated: false }
    }

    fn minutes(minutes: u64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000)
    }

    #[test]
    fn fingerprints_tell_contents_apart() {
        assert_eq!(Fingerprint::of(&("a", 1)), Fingerprint::of(&("a", 1)));
        assert_ne!(Fingerprint::of(&("a", 1)), Fingerprint::of(&("a", 2)));
    }

    #[test]
    fn a_key_is_forgotten_after_ten_minutes() {
        let mut window = KeyWindow::new(10);
        window.insert(minutes(0), key("a"), Fingerprint::default(), answer(1));
        window.expire(Timestamp::from_millis(10 * 60_000 - 1));
        assert!(window.get(&key("a")).is_some());
        window.expire(minutes(10));
        assert!(window.get(&key("a")).is_none());
    }

    #[test]
    fn the_oldest_key_makes_room() {
        let mut window = KeyWindow::new(2);
        for name in ["a", "b", "c"] {
            window.insert(minutes(0), key(name), Fingerprint::default(), answer(1));
        }
        assert!(window.get(&key("a")).is_none());
        assert!(window.get(&key("b")).is_some() && window.get(&key("c")).is_some());
    }

    #[test]
    fn credentials_do_not_share_keys() {
        let mut window = KeyWindow::new(2);
        window.insert(minutes(0), key("a"), Fingerprint::default(), answer(1));
        let other = IdempotencyKey { credential: "bob".into(), key: "a".into() };
        assert!(window.get(&other).is_none());
    }

    #[test]
    fn an_id_is_free_again_when_the_last_ring_has_evicted_it() {
        let mut ids = GivenIds::default();
        let given = GivenId { fingerprint: Fingerprint::default(), answer: answer(7), rings: 2 };
        ids.insert("x".into(), given);
        ids.release("x", 6);
        ids.release("x", 7);
        assert!(ids.get("x").is_some());
        ids.release("x", 7);
        assert_eq!(ids.len(), 0);
    }
}
