//! A replica is a log that copies another log, its upstream. A replica learns its losses from its
//! upstream: events that the upstream has evicted before the replica got them. They are noted like
//! evictions, so readers find them in the same way. A floor is an offset below which events of a
//! topic may be missing.

use std::{collections::HashSet, sync::Arc};

use crate::history::{Evicted, History};
use crate::topics::{Lost, Topic};
use crate::types::{Address, Floor, Payload};

/// The number of topics that [`History::lose_others`] lists while it holds the lock of the names.
/// To list them takes some 20 microseconds.
const LOST_LISTED: usize = 256;

impl<P: Payload> History<P> {
    /// Reserves the topic of an address, so that it is not collected (removed from memory) until
    /// [`unreserve`](Self::unreserve) is called. `None` if the address has no topic.
    fn reserve_existing(&self, address: &Address) -> Option<Arc<Topic<P>>> {
        // A topic that was collected after it was found is no longer found under its name.
        std::iter::from_fn(|| Some(self.topics.find(address)))
            .find(|topic| topic.as_ref().is_none_or(|topic| self.reserve(topic)))?
    }

    /// Notes that events of an address below a floor may be missing, and evicts the events of the
    /// address below this floor. Returns the topic of the address, if it has one.
    ///
    /// The caller must hold the sequence lock, which every append takes, until the tail (the next
    /// offset that readers will see) is at or above the floor. A new pattern begins under the same
    /// lock. Therefore no pattern begins while the floor is above the tail. So a reader of a new
    /// pattern finds the floor when it searches the history from before the pattern began.
    pub(crate) fn lose(
        &self,
        address: &Address,
        floor: Floor,
        evicted: &mut Evicted<P>,
    ) -> Option<Arc<Topic<P>>> {
        loop {
            if let Some(topic) = self.reserve_existing(address) {
                self.lose_of_topic(&topic, floor, evicted);
                return Some(topic);
            }
            let note = |lost: Lost| {
                let last = lost.floor.offset.get() - 1;
                self.patterns.hold().note_loss(address, lost.number, last);
            };
            if self.topics.lose_absent(address, floor, || self.next_eviction(floor), note) {
                return None;
            }
        }
    }

    /// Notes that events of a topic below a floor may be missing, and evicts the topic's events
    /// below this floor. The topic must be reserved. This ends the reservation.
    fn lose_of_topic(&self, topic: &Arc<Topic<P>>, floor: Floor, evicted: &mut Evicted<P>) {
        let held = self.patterns.hold();
        let patterns = held.matching(topic);
        let mut ring = topic.ring.write();
        if ring.floor() < floor.offset.get() {
            while ring.front().is_some_and(|entry| entry.offset < floor.offset.get()) {
                self.evict_one(&patterns, topic, &mut ring, evicted);
            }
            let (number, last) = (self.next_eviction(floor), floor.offset.get() - 1);
            ring.raise_floor(Lost::below(floor, number));
            topic.raise_newest(last);
            patterns.iter().for_each(|pattern| pattern.note_loss(number, last));
        }
        self.change(topic, &mut ring, |ring| ring.unreserve());
        self.queue_age(topic, &ring);
        drop(ring);
        evicted.emptied.push(Arc::clone(topic));
    }

    /// Notes that every address may have lost events below a floor, except the addresses in
    /// `known`. The caller must hold the sequence lock, as for [`lose`](Self::lose). The caller
    /// must then wake all readers.
    pub(crate) fn lose_others(
        &self,
        known: &HashSet<Address>,
        floor: Floor,
        evicted: &mut Evicted<P>,
    ) {
        // The table of names is changed first. So a topic that is made later gets the new floor,
        // and all topics that were made earlier are listed below.
        let number = self.next_eviction(floor);
        self.topics.lose_unknown(Lost::below(floor, number), known);
        self.patterns.hold().note_loss_of_all(number, floor.offset.get() - 1);
        let mut topics = vec![Arc::clone(&self.topics.everyone)];
        while let Some(last) = topics.last() {
            let last = last.address.clone();
            for topic in &topics {
                // A topic that cannot be reserved was collected. Its name is then in the table of
                // names, or belongs to a newer topic, which got its floor from this table.
                if !known.contains(&topic.address)
                    && let Some(topic) = self.reserve_existing(&topic.address)
                {
                    self.lose_of_topic(&topic, floor, evicted);
                }
            }
            topics = self.topics.list_after(&last, LOST_LISTED);
        }
    }
}
