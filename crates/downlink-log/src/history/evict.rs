//! Eviction: by a topic's own rule, then by the byte bound of the whole log.
//!
//! What is evicted is collected while locks are held and dropped after them, because dropping a
//! payload may run a user's code.

use std::sync::Arc;

use crate::{
    log::{Payload, Shared},
    ring::{Kept, Ring},
    sync::Ordering,
    topic::TopicLog,
};

/// What was evicted under locks, to be disposed of without.
#[derive(Debug)]
pub(crate) struct Evicted<P> {
    entries: Vec<Kept<P>>,
    /// Topics that keep nothing any more.
    emptied: Vec<Arc<TopicLog<P>>>,
}

impl<P> Evicted<P> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), emptied: Vec::new() }
    }

    /// Notes a topic that may be collected.
    pub(crate) fn note_empty(&mut self, topic: &Arc<TopicLog<P>>) {
        self.emptied.push(Arc::clone(topic));
    }
}

impl<P: Payload> Shared<P> {
    /// Evicts the oldest entry of a ring; `false` if there is none.
    pub(crate) fn evict_one(
        &self,
        topic: &Arc<TopicLog<P>>,
        ring: &mut Ring<P>,
        evicted: &mut Evicted<P>,
    ) -> bool {
        let Some(entry) = ring.evict() else { return false };
        self.floor_max.fetch_max(ring.floor().offset, Ordering::AcqRel);
        self.bytes.fetch_sub(entry.cost(), Ordering::Relaxed);
        self.events.fetch_sub(1, Ordering::Relaxed);
        evicted.entries.push(entry);
        if ring.len() == 0 && ring.finish().is_none() {
            evicted.note_empty(topic);
        }
        true
    }

    /// Brings a ring within its topic's count and bytes. The newest entry stays.
    pub(crate) fn trim(
        &self,
        topic: &Arc<TopicLog<P>>,
        ring: &mut Ring<P>,
        evicted: &mut Evicted<P>,
    ) {
        let rule = self.options.retention.rule(ring.rule);
        while ring.len() > 1 && (ring.len() > rule.events_max || ring.bytes() > rule.bytes_max) {
            self.evict_one(topic, ring, evicted);
        }
    }

    /// Brings the log within its byte bound: the topics just appended to pay first, then the oldest
    /// events anywhere. Events from `newest` on stay.
    pub(crate) fn trim_all<'a>(
        &self,
        appended_to: impl Iterator<Item = &'a Arc<TopicLog<P>>>,
        newest: u64,
        evicted: &mut Evicted<P>,
    ) {
        if !self.is_over() {
            return;
        }
        for topic in appended_to {
            let mut ring = topic.ring.write();
            while self.is_over() && ring.front().is_some_and(|entry| entry.offset < newest) {
                self.evict_one(topic, &mut ring, evicted);
            }
        }
        while self.is_over() && self.evict_oldest(newest, evicted) {}
    }

    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.options.limits.bytes_max
    }

    /// Evicts the oldest event below `newest`, from all its topics.
    fn evict_oldest(&self, newest: u64, evicted: &mut Evicted<P>) -> bool {
        let row = {
            let mut index = self.index.lock();
            let Some(oldest) = index.front().map(|row| row.offset).filter(|&row| row < newest)
            else {
                return false;
            };
            // A reader that no longer finds the row must find that there may be a hole.
            self.floor_max.fetch_max(oldest + 1, Ordering::AcqRel);
            index.pop_front()
        };
        let Some(row) = row else { return false };
        for topic in &row.topics {
            let mut ring = topic.ring.write();
            while ring.front().is_some_and(|entry| entry.offset <= row.offset) {
                self.evict_one(topic, &mut ring, evicted);
            }
        }
        true
    }

    /// Takes what was evicted out of the index, if that is worth it.
    pub(crate) fn tidy_index(&self) {
        let live = self.events.load(Ordering::Relaxed);
        let is_kept = |offset, topic: &TopicLog<P>| topic.ring.read().floor().offset <= offset;
        self.index.lock().tidy(live, is_kept);
    }

    /// Frees the ids of evicted events and collects emptied topics. Called with no lock held.
    pub(crate) fn settle(&self, evicted: &mut Evicted<P>) {
        let ids = evicted
            .entries
            .iter()
            .filter_map(|entry| entry.payload.given_id().map(|id| (id, entry.offset)));
        for (id, offset) in ids {
            self.given.lock().release(id, offset);
        }
        self.collect(&std::mem::take(&mut evicted.emptied));
    }
}
