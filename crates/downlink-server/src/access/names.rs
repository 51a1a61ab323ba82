//! Counts the topics and patterns in the open subscriptions of each client address.
//!
//! Each name that subscriptions use takes memory, and the server has a limit of all names
//! (`--subscribed-names-max`). Without a limit for each address, one stranger could use up all
//! names. Names that several subscriptions of an address have in common count several times.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use downlink::serve::AddressKey;
use parking_lot::Mutex;

/// The maximum number of topics and patterns of a subscription that does not count.
///
/// Most subscriptions are small, and must not pay a byte for the count. Over HTTP/1.1, the limit of
/// connections bounds them: with its default of 1,000, an address can name 16,000 topics without a
/// count, which take 4 MB. Over HTTP/2, a connection has many streams, so every subscription
/// counts. With half the number, many ordinary subscriptions would pay. With twice the number, an
/// address could take 8 MB.
pub(super) const UNCOUNTED_NAMES_MAX: usize = 16;

/// How long a client waits if its address has too many names. Names are free again when a stream of
/// the address ends, and the server cannot know when. With half the time, many clients of an address
/// would try in vain. With twice the time, people would notice that a page does not update.
const WAIT: Duration = Duration::from_secs(10);

/// The number of names of each address.
#[derive(Debug)]
pub(super) struct NameCounts {
    names_max: NonZeroU32,
    /// The names of each address that has a permit.
    ///
    /// Invariant: an entry is the sum of the open permits of its address, so it is not 0. The limit
    /// of all subscriptions bounds the number of entries. Locked for a lookup, and never together
    /// with another lock.
    open: Mutex<HashMap<AddressKey, usize>>,
}

/// The names of one open subscription. Dropping the permit frees them.
#[derive(Debug)]
pub(crate) struct NamesPermit {
    counts: Arc<NameCounts>,
    address: AddressKey,
    names: usize,
}

impl NameCounts {
    /// Allows each address this many names.
    pub(super) fn new(names_max: NonZeroU32) -> Self {
        Self { names_max, open: Mutex::default() }
    }

    /// Counts the names of a subscription until the permit is dropped.
    ///
    /// # Errors
    ///
    /// If the address would exceed the limit, how long the client should wait. The names then do not
    /// count.
    pub(super) fn take(
        self: &Arc<Self>,
        address: AddressKey,
        names: usize,
    ) -> Result<NamesPermit, Duration> {
        let mut open = self.open.lock();
        let sum = names.saturating_add(open.get(&address).copied().unwrap_or(0));
        if sum > self.names_max.get() as usize {
            return Err(WAIT);
        }
        open.insert(address, sum);
        Ok(NamesPermit { counts: Arc::clone(self), address, names })
    }
}

impl Drop for NamesPermit {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock();
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

    fn counts(names_max: u32) -> Arc<NameCounts> {
        Arc::new(NameCounts::new(NonZeroU32::new(names_max).expect("not zero")))
    }

    fn address(number: u32) -> AddressKey {
        AddressKey::of(IpAddr::V4(Ipv4Addr::from(number)))
    }

    #[test]
    fn an_address_may_have_exactly_the_names_of_its_limit() {
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
    fn nothing_is_kept_of_addresses_without_permits() {
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
