//! The ids that publishers chose for the events that are kept in memory.

use std::collections::HashMap;

use crate::sequence::Appended;
use crate::sync::Mutex;
use crate::types::Fingerprint;

/// Looks up a kept event by the id that its publisher chose. Each topic has a ring, which holds its
/// events. An event of several topics is in several rings. An id is added before its event is
/// pushed into the rings. It is removed when the last ring that keeps the event has evicted it.
#[derive(Debug)]
pub(crate) struct PublisherIds {
    /// No other lock is taken while this lock is held.
    ids: Mutex<HashMap<Box<str>, PublisherId>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PublisherId {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) answer: Appended,
    /// The number of rings that still keep the event.
    pub(crate) rings: usize,
}

impl PublisherIds {
    pub(crate) fn new() -> Self {
        Self { ids: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn get(&self, id: &str) -> Option<PublisherId> {
        self.ids.lock().get(id).copied()
    }

    pub(crate) fn insert(&self, id: Box<str>, publisher_id: PublisherId) {
        self.ids.lock().insert(id, publisher_id);
    }

    /// Like [`insert`](Self::insert), but if a kept event has the same id, the id stays with this
    /// event. A replica may keep an event that its upstream has evicted. The upstream may then use
    /// the id of the event again. A reader of the replica that continues after this id continues
    /// after the older event, so it gets more events rather than fewer.
    pub(crate) fn insert_if_free(&self, id: Box<str>, publisher_id: PublisherId) {
        self.ids.lock().entry(id).or_insert(publisher_id);
    }

    /// Notes that one ring has evicted the event at `offset`. After the last ring has evicted the
    /// event, the id may be used for another event.
    pub(crate) fn release(&self, id: &str, offset: u64) {
        let mut ids = self.ids.lock();
        let Some(known) = ids.get_mut(id).filter(|known| known.answer.offset.get() == offset)
        else {
            return;
        };
        known.rings -= 1;
        if known.rings == 0 {
            ids.remove(id);
        }
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::types::{Epoch, Offset};

    #[test]
    fn an_id_is_free_again_when_the_last_ring_has_evicted_its_event() {
        let ids = PublisherIds::new();
        let answer = Appended {
            offset: Offset::new(7),
            epoch: Epoch::from_random(1),
            matched: 0,
            repeated: false,
        };
        ids.insert(
            "x".into(),
            PublisherId { fingerprint: Fingerprint::default(), answer, rings: 2 },
        );
        ids.release("x", 6);
        ids.release("x", 7);
        assert!(ids.get("x").is_some());
        ids.release("x", 7);
        assert!(ids.get("x").is_none());
    }
}
