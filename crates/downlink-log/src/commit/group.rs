//! A group consists of the batches that are written to the store in one transaction.
//!
//! A batch consists of drafts, which are events without an offset. The writer's thread takes one
//! batch after another, decides which of its drafts are new, and gives the new drafts their
//! offsets. A later batch may repeat an event id or an idempotency key of an earlier batch, or
//! publish to a topic that the earlier batch finishes. A finished topic gets no more events. The
//! store does not know these ids, keys and topics yet, so the group keeps them.

use std::collections::{HashMap, HashSet};

use crate::commit::Queued;
use crate::core::Core;
use crate::sequence::{AppendError, Assigned, DraftTopics, Earlier, Fresh, Repeat, plan, stored};
use crate::store::{Store, StoreError, StoredEvent};
use crate::topics::Topic;
use crate::types::{Fingerprint, IdempotencyKey, Offset, Payload, Timestamp};

/// The events of one transaction, and the ids, keys and finished topics of its batches. The drafts
/// of the group are numbered from 0, and the numbers continue from batch to batch.
#[derive(Default)]
pub(crate) struct CommitGroup {
    pub(crate) events: Vec<StoredEvent>,
    drafts: usize,
    keys: HashMap<IdempotencyKey, (Fingerprint, usize)>,
    ids: HashMap<Box<str>, (Fingerprint, usize)>,
    /// The topics that the group finishes, by [`Topic::identity`]. When a topic is removed from
    /// memory, a new topic may get its identity. The batches keep the topics of the group in
    /// memory, so this does not happen while the group exists.
    finishing: HashSet<usize>,
}

impl CommitGroup {
    /// Decides which drafts of a batch are new, gives the new drafts their offsets, and adds the
    /// batch to the group.
    ///
    /// # Errors
    ///
    /// [`AppendError`] says why the batch is refused. The group is then unchanged.
    pub(crate) fn add<P: Payload>(
        &mut self,
        core: &Core<P>,
        store: &mut dyn Store,
        queued: &mut Queued<P>,
    ) -> Result<Assigned<P>, AppendError> {
        let (drafts, now) = (&mut queued.drafts, queued.now);
        let mut assigned = loop {
            let mut topics = DraftTopics::find(&core.history, drafts);
            let mut earlier = EarlierInStore { core, store, group: self, now };
            let plans = plan(drafts, &topics, self.drafts, &mut earlier)?;
            let mut sequence = core.sequencer.lock();
            let assigned = sequence.assign(&core.ids, now, drafts, &mut topics, plans)?;
            // A topic may be removed from memory after it was found and before the lock was taken.
            // Then the topics are looked up again.
            if let Some(assigned) = assigned {
                break assigned;
            }
        };
        // Later batches may repeat the ids and keys of this batch, or conflict with them.
        for (draft, fresh) in (self.drafts..).zip(&mut assigned.drafts) {
            let Ok(fresh) = fresh else { continue };
            let noted = (fresh.fingerprint, draft);
            if let Some(key) = &fresh.key {
                self.keys.insert(key.clone(), noted);
            }
            if let Some(id) = fresh.id.as_ref().filter(|_| fresh.is_kept()) {
                self.ids.insert(id.clone(), noted);
            }
            if fresh.finish {
                self.finishing.extend(fresh.topics.iter().map(|topic| topic.identity()));
            }
            self.events.push(stored_event(fresh, assigned.at));
        }
        self.drafts += assigned.drafts.len();
        Ok(assigned)
    }

    /// The total size of the payloads in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.events.iter().filter_map(|event| event.payload.as_ref()).map(Vec::len).sum()
    }
}

/// A new event as the store keeps it.
fn stored_event<P: Payload>(fresh: &mut Fresh<P>, at: Timestamp) -> StoredEvent {
    StoredEvent {
        offset: Offset::new(fresh.offset),
        at,
        to: fresh.topics.iter().map(|topic| topic.address.clone()).collect(),
        id: fresh.id.clone().filter(|_| fresh.is_kept()),
        key: fresh.key.clone(),
        fingerprint: fresh.fingerprint,
        finish: fresh.finish,
        payload: fresh.body.take().filter(|_| fresh.payload.is_some()),
    }
}

/// Looks up ids and keys in memory, in the group and in the store. The store is needed because the
/// id of an event leaves memory when the event is evicted from memory. Other threads may run
/// between these three steps. This is safe, because only the writer's thread adds or changes ids
/// and keys, and the lookup runs on this thread.
struct EarlierInStore<'a, P> {
    core: &'a Core<P>,
    store: &'a mut dyn Store,
    group: &'a CommitGroup,
    now: Timestamp,
}

impl<P: Payload> Earlier<P> for EarlierInStore<'_, P> {
    fn key(&mut self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Repeat)>, StoreError> {
        let remembered = self.core.sequencer.lock().keys(self.now).get(key);
        if let Some((fingerprint, answer)) = remembered {
            return Ok(Some((fingerprint, Repeat::Answered(answer))));
        }
        if let Some(&(fingerprint, draft)) = self.group.keys.get(key) {
            return Ok(Some((fingerprint, Repeat::Of(draft))));
        }
        Ok(self.store.idempotency_key(key)?.map(|known| stored(&self.core.ids, known)))
    }

    fn id(&mut self, id: &str) -> Result<Option<(Fingerprint, Repeat)>, StoreError> {
        if let Some(known) = self.core.sequencer.publisher_ids.get(id) {
            return Ok(Some((known.fingerprint, Repeat::Answered(known.answer))));
        }
        if let Some(&(fingerprint, draft)) = self.group.ids.get(id) {
            return Ok(Some((fingerprint, Repeat::Of(draft))));
        }
        Ok(self.store.publisher_id(id)?.map(|known| stored(&self.core.ids, known)))
    }

    fn is_finishing(&self, topic: &Topic<P>) -> bool {
        self.group.finishing.contains(&topic.identity())
    }
}
