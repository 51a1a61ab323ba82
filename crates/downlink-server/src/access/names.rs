//! Counts the names in the open subscriptions of each client address. The names of a subscription
//! are its topics and its patterns. A subscription without topics and patterns counts as one name.
//!
//! Each name takes memory. So the server limits the names of all subscriptions together: topics and
//! clients with `--subscribed-names-max`, and patterns with `--patterns-max`. Without a limit for
//! each address, one stranger could use up these limits. If several subscriptions of an address
//! have the same name, it counts once for each of them.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use downlink::serve::AddressKey;
use parking_lot::Mutex;

/// Over HTTP/1.1, a subscription with at most this many names does not count.
///
/// Most subscriptions are small, and counting takes some memory for each subscription. Over
/// HTTP/1.1, each subscription has its own connection, so the limit of connections also limits the
/// number of small subscriptions. With the default limit of 1,000 connections, an address can have
/// 16,000 uncounted names, which take 4 MB. A larger number would allow an address to take more
/// memory. With a smaller number, many ordinary subscriptions would need the memory for the count.
/// Over HTTP/2, a connection can have many subscriptions, so every subscription counts.
pub(super) const UNCOUNTED_NAMES_MAX: usize = 16;

/// How long a client should wait if its address has too many names. The client can subscribe when
/// another stream of the address has ended, and the server cannot know when that happens. With a
/// much shorter wait, most attempts would fail again. With a much longer wait, people would notice
/// that their page does not update.
const WAIT: Duration = Duration::from_secs(10);

/// The number of names of each address.
#[derive(Debug)]
pub(super) struct NameCounts {
    names_max: NonZeroU32,
    /// For each address with an open permit, the number of its names.
    ///
    /// Invariant: an entry is the number of names in all open permits of its address. An address
    /// has an entry only while it has an open permit, so the maximum number of subscriptions also
    /// limits the number of entries. The lock is held only for a lookup, and never together with
    /// another lock.
    open: Arc<Mutex<HashMap<AddressKey, usize>>>,
}

/// Counts the names of one open subscription for its address until the permit is dropped.
#[derive(Debug)]
pub(crate) struct NamesPermit {
    open: Arc<Mutex<HashMap<AddressKey, usize>>>,
    address: AddressKey,
    names: usize,
}

impl NameCounts {
    /// Allows each address this many names.
    pub(super) fn new(names_max: NonZeroU32) -> Self {
        Self { names_max, open: Arc::default() }
    }

    /// The same counts with another maximum number of names for each address. The open permits
    /// still count.
    pub(super) fn with_names_max(&self, names_max: NonZeroU32) -> Self {
        Self { names_max, open: Arc::clone(&self.open) }
    }

    /// Counts the names of a subscription until the permit is dropped.
    ///
    /// # Errors
    ///
    /// The address would exceed its limit. The error is the time that the client should wait. The
    /// names then do not count.
    pub(super) fn take(&self, address: AddressKey, names: usize) -> Result<NamesPermit, Duration> {
        let mut open = self.open.lock();
        let sum = names.saturating_add(open.get(&address).copied().unwrap_or(0));
        if sum > self.names_max.get() as usize {
            return Err(WAIT);
        }
        open.insert(address, sum);
        Ok(NamesPermit { open: Arc::clone(&self.open), address, names })
    }
}

impl Drop for NamesPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        match open.get_mut(&self.address) {
            Some(sum) if *sum > self.names => *sum -= self.names,
            _ => drop(open.remove(&self.address)),
        }
        // After an attack, the table must not keep the memory of its largest size.
        if open.capacity() > 1_024 && open.len() < open.capacity() / 8 {
            open.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn counts(names_max: u32) -> NameCounts {
        NameCounts::new(NonZeroU32::new(names_max).expect("not zero"))
    }

    fn address(number: u32) -> AddressKey {
        AddressKey::of(IpAddr::V4(Ipv4Addr::from(number)))
    }

    #[test]
    fn an_address_may_have_as_many_names_as_its_limit() {
        let counts = counts(100);
        let permit = counts.take(address(1), 60).expect("there is room");
        assert_eq!(counts.take(address(1), 41).err(), Some(WAIT));
        let rest = counts.take(address(1), 40).expect("there is room");
        assert_eq!(counts.take(address(1), 17).err(), Some(WAIT));
        assert!(counts.take(address(2), 100).is_ok(), "another address");
        assert_eq!(counts.take(address(2), 101).err(), Some(WAIT));
        drop(permit);
        assert_eq!(counts.take(address(1), 61).err(), Some(WAIT));
        assert!(counts.take(address(1), 60).is_ok());
        drop(rest);
        assert!(counts.take(address(1), 100).is_ok());
        assert_eq!(counts.take(address(1), usize::MAX).err(), Some(WAIT));
    }

    #[test]
    fn open_permits_count_towards_a_new_maximum() {
        let counts = counts(100);
        let permit = counts.take(address(1), 60).expect("there is room");
        let raised = counts.with_names_max(NonZeroU32::new(120).expect("not zero"));
        assert_eq!(raised.take(address(1), 61).err(), Some(WAIT));
        let more = raised.take(address(1), 60).expect("there is room");
        drop(permit);
        assert_eq!(raised.take(address(1), 61).err(), Some(WAIT));
        drop(more);
        assert!(raised.take(address(1), 120).is_ok());
    }

    #[test]
    fn an_address_without_permits_takes_no_memory() {
        let counts = counts(100);
        let permits: Vec<_> = (0..20_000)
            .flat_map(|number| [50, 20].map(|names| counts.take(address(number), names)))
            .collect();
        assert_eq!(counts.open.lock().len(), 20_000);
        drop(permits);
        let open = counts.open.lock();
        assert_eq!(open.len(), 0);
        assert!(open.capacity() <= 1_024, "{}", open.capacity());
    }
}
