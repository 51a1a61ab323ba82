//! Collection: a topic with no history and no reader of its own ceases to exist.
//!
//! Patterns do not keep a topic alive. Its floor is remembered, by name and by the readers that had
//! it through a pattern, so that whoever has not read up to there is told.

use std::sync::Arc;

use crate::{
    address::Address,
    log::{Payload, Shared},
    registry::Registry,
    topic::TopicLog,
    watcher::Watcher,
};

/// Topics collected under one hold of the registry, so that publishers are not kept waiting when a
/// hundred thousand expire at once.
const COLLECT_BATCH: usize = 256;

impl<P: Payload> Shared<P> {
    /// Collects those of the topics that nothing holds any more.
    pub(crate) fn collect(&self, topics: &[Arc<TopicLog<P>>]) {
        for batch in topics.chunks(COLLECT_BATCH) {
            if !batch.iter().any(|topic| topic.ring.read().is_idle()) {
                continue;
            }
            let mut registry = self.registry.write();
            batch.iter().for_each(|topic| collect_one(&mut registry, topic));
        }
    }
}

/// Collects a topic if nothing holds it any more.
pub(crate) fn collect_one<P: Payload>(registry: &mut Registry<P>, topic: &Arc<TopicLog<P>>) {
    if topic.address == Address::Everyone || topic.watchers.lock().has_exact() {
        return;
    }
    let floor = {
        let mut ring = topic.ring.write();
        if ring.is_dead() || !ring.bury() {
            return;
        }
        topic.set_queued_for(None);
        ring.floor()
    };
    // A reader that is leaving has taken its seats, and takes itself off the list.
    let readers: Vec<Arc<Watcher<P>>> = topic.watchers.lock().iter().cloned().collect();
    for reader in readers {
        let mut attached = reader.attached.lock();
        if let Some(key) = attached.remove(topic) {
            attached.note_detached(floor);
            topic.watchers.lock().remove(key, false);
        }
    }
    registry.remove(topic, floor);
}
