//! The grants that may be used again. A grant is a list of rights, with which the app answers a
//! question about a subscription. For the same question, the server can use the grant again and
//! need not ask the app.
//!
//! Each grant has a time until which it may be used. If the cache is full, it removes the oldest
//! grants. For a removed grant, the server only has to ask the app again. No request gets a wrong
//! answer.

use std::collections::{BTreeMap, HashMap};

use downlink::hub::Timestamp;
use downlink_access::Grant;
use tokio::time::Instant;

use super::{answer::Granted, question::Key};

/// The maximum number of grants in the cache. Each user with an open page has one or a few grants.
pub(crate) const CACHE_ENTRIES_MAX: usize = 50_000;

/// The maximum number of bytes of all grants in the cache. 50,000 grants with four topics each fit.
pub(crate) const CACHE_BYTES_MAX: usize = 32 << 20;

/// The number of bytes of a grant without its client id and its selectors, which are topics and
/// patterns. This includes the space of the grant in the two maps of [`GrantCache`].
const ENTRY_BYTES: usize = 384;
/// The number of bytes of a selector without its text.
const SELECTOR_BYTES: usize = 48;

/// The grants that may be used again.
///
/// Invariant: `order` has exactly the keys of `entries`, and `bytes` is the sum of their bytes.
#[derive(Debug, Default)]
pub(super) struct GrantCache {
    entries: HashMap<Key, Entry>,
    /// The keys in the order of insertion.
    order: BTreeMap<u64, Key>,
    bytes: usize,
    /// The number of the next entry.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    granted: Granted,
    until: Instant,
    number: u64,
    bytes: usize,
}

impl GrantCache {
    /// The grant for a question, if it may still be used.
    pub(super) fn get(&self, key: &Key, now: Instant, wall: Timestamp) -> Option<&Granted> {
        let Entry { granted, until, .. } = self.entries.get(key)?;
        (now < *until && !granted.grant.is_over(wall)).then_some(granted)
    }

    /// Stores a grant that may be used again before the time `until`. If the cache is then above
    /// its limits, removes the oldest grants.
    pub(super) fn insert(&mut self, key: Key, granted: Granted, until: Instant) {
        let (number, bytes) = (self.next, bytes(&granted.grant));
        self.next += 1;
        self.order.insert(number, key);
        self.bytes += bytes;
        if let Some(older) = self.entries.insert(key, Entry { granted, until, number, bytes }) {
            self.order.remove(&older.number);
            self.bytes -= older.bytes;
        }
        while self.entries.len() > CACHE_ENTRIES_MAX || self.bytes > CACHE_BYTES_MAX {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_first() else { return };
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
    }
}

/// The bytes of a grant in the cache.
fn bytes(grant: &Grant) -> usize {
    let selectors = grant.subscribe().iter();
    let topics: usize = selectors.map(|topic| SELECTOR_BYTES + topic.as_str().len()).sum();
    let client = grant.client().map_or(0, |client| client.as_str().len());
    ENTRY_BYTES + topics + client
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use downlink::hub::TopicSelector;

    use super::*;

    const WALL: Timestamp = Timestamp::from_millis(1_000_000);

    fn granted(topic: &str) -> Granted {
        let grant = Grant::none().with_subscribe(TopicSelector::parse(topic).unwrap());
        Granted { grant, asked_at: WALL }
    }

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Key::from_bytes(key)
    }

    fn check(cache: &GrantCache) {
        let numbers = cache.entries.values().map(|entry| entry.number);
        assert_eq!(numbers.collect::<std::collections::BTreeSet<_>>().len(), cache.order.len());
        assert_eq!(cache.entries.values().map(|entry| entry.bytes).sum::<usize>(), cache.bytes);
    }

    #[test]
    fn a_grant_is_used_until_its_time_in_the_cache_is_over() {
        let (mut cache, start) = (GrantCache::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        cache.insert(key(1), granted("a"), end);
        assert_eq!(cache.get(&key(1), end - Duration::from_nanos(1), WALL), Some(&granted("a")));
        assert_eq!(cache.get(&key(1), end, WALL), None);
        assert_eq!(cache.get(&key(2), start, WALL), None);
    }

    #[test]
    fn a_grant_is_not_used_after_its_own_end() {
        let (mut cache, start) = (GrantCache::default(), Instant::now());
        let until = WALL.after(Duration::from_secs(1));
        let grant = granted("a").grant.with_until(until);
        let end = start + Duration::from_secs(60);
        cache.insert(key(1), Granted { grant, asked_at: WALL }, end);
        assert!(cache.get(&key(1), start, WALL).is_some());
        assert_eq!(cache.get(&key(1), start, until), None);
    }

    #[test]
    fn a_newer_grant_replaces_an_older_one() {
        let (mut cache, start) = (GrantCache::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        for topic in ["a", "b/c", "d"] {
            cache.insert(key(1), granted(topic), end);
            assert_eq!(cache.get(&key(1), start, WALL), Some(&granted(topic)));
            check(&cache);
        }
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn the_oldest_grant_is_removed_above_the_maximum_number_of_grants() {
        let (mut cache, start) = (GrantCache::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        (0..CACHE_ENTRIES_MAX).for_each(|number| cache.insert(key(number), granted("a"), end));
        assert!(cache.get(&key(0), start, WALL).is_some());
        cache.insert(key(CACHE_ENTRIES_MAX), granted("a"), end);
        assert!(cache.get(&key(0), start, WALL).is_none());
        assert!(cache.get(&key(1), start, WALL).is_some());
        assert!(cache.get(&key(CACHE_ENTRIES_MAX), start, WALL).is_some());
        check(&cache);
    }

    #[test]
    fn the_oldest_grants_are_removed_above_the_maximum_number_of_bytes() {
        let (mut cache, start) = (GrantCache::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        let topic = TopicSelector::parse(&"t".repeat(256)).unwrap();
        let topics = std::iter::repeat_n(topic, 256);
        let grant = topics.fold(Grant::none(), Grant::with_subscribe);
        let fit = CACHE_BYTES_MAX / bytes(&grant);
        let large = Granted { grant, asked_at: WALL };
        (0..fit).for_each(|number| cache.insert(key(number), large.clone(), end));
        assert_eq!(cache.entries.len(), fit);
        cache.insert(key(fit), large, end);
        assert!(cache.bytes <= CACHE_BYTES_MAX && cache.entries.len() == fit);
        assert!(cache.get(&key(0), start, WALL).is_none());
        check(&cache);
    }
}
