//! The idempotency keys of the last ten minutes, with the answers that their publishers got.
//!
//! Each key is kept for a fixed time, even if its event is evicted earlier, because the publisher
//! may still repeat the publish.

use std::collections::{HashMap, VecDeque};

use crate::sequence::Appended;
use crate::types::{Fingerprint, IdempotencyKey, KEY_WINDOW, KEYS_MAX, Timestamp};

#[derive(Debug, Default)]
pub(crate) struct KeyWindow {
    keys: HashMap<IdempotencyKey, (Fingerprint, Appended)>,
    order: VecDeque<(Timestamp, IdempotencyKey)>,
}

impl KeyWindow {
    pub(crate) fn get(&self, key: &IdempotencyKey) -> Option<(Fingerprint, Appended)> {
        self.keys.get(key).copied()
    }

    pub(crate) fn insert(
        &mut self,
        now: Timestamp,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        answer: Appended,
    ) {
        if self.keys.len() >= KEYS_MAX {
            self.drop_oldest();
        }
        self.keys.insert(key.clone(), (fingerprint, answer));
        self.order.push_back((now, key));
    }

    /// The keys of the events below an offset.
    pub(crate) fn below(&self, until: u64) -> Self {
        let is_below = |key: &IdempotencyKey| {
            self.keys.get(key).is_some_and(|(_, answer)| answer.offset.get() < until)
        };
        let order: VecDeque<_> =
            self.order.iter().filter(|(_, key)| is_below(key)).cloned().collect();
        let known = order.iter().filter_map(|(_, key)| self.keys.get_key_value(key));
        Self { keys: known.map(|(key, known)| (key.clone(), *known)).collect(), order }
    }

    /// Removes the keys that are older than [`KEY_WINDOW`].
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
    use crate::types::{Epoch, Offset};

    fn key(key: &str) -> IdempotencyKey {
        IdempotencyKey { credential: "".into(), key: key.into() }
    }

    fn answer(offset: u64) -> Appended {
        Appended {
            offset: Offset::new(offset),
            epoch: Epoch::from_random(1),
            matched: 0,
            repeated: false,
        }
    }

    fn minutes(minutes: u64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000)
    }

    #[test]
    fn a_key_is_removed_after_ten_minutes() {
        let mut window = KeyWindow::default();
        window.insert(minutes(0), key("a"), Fingerprint::default(), answer(1));
        window.expire(Timestamp::from_millis(10 * 60_000 - 1));
        assert!(window.get(&key("a")).is_some());
        window.expire(minutes(10));
        assert!(window.get(&key("a")).is_none());
    }

    #[test]
    fn a_new_key_replaces_the_oldest_key_at_the_limit() {
        let mut window = KeyWindow::default();
        for name in 0..=KEYS_MAX {
            let key = key(&name.to_string());
            window.insert(minutes(0), key, Fingerprint::default(), answer(1));
        }
        assert!(window.get(&key("0")).is_none());
        assert!(window.get(&key("1")).is_some());
    }

    #[test]
    fn equal_keys_of_different_credentials_are_different_keys() {
        let mut window = KeyWindow::default();
        window.insert(minutes(0), key("a"), Fingerprint::default(), answer(1));
        let other = IdempotencyKey { credential: "bob".into(), key: "a".into() };
        assert!(window.get(&other).is_none());
    }
}
