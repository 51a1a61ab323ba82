//! A group: the batches that go into one transaction.
//!
//! The writer plans and assigns batch after batch. What an earlier batch of the group brings (ids,
//! keys, finish marks) counts for the later ones, although nothing of it is in the store yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::commit::{Outcome, Queued, Size};
use crate::core::Core;
use crate::sequence::{
    AppendError, Assigned, DraftOutcome, DraftTopics, Earlier, Fresh, Ids, Plan, Remembered, plan,
};
use crate::store::{Store, StoreError, StoredEvent};
use crate::topics::Topic;
use crate::types::{Fingerprint, IdempotencyKey, Offset, Payload, Timestamp};

/// The batches of one transaction, with their offsets.
pub(crate) struct Group<P> {
    pub(crate) batches: Vec<Planned<P>>,
    pub(crate) events: Vec<StoredEvent>,
    keys: HashMap<IdempotencyKey, (Fingerprint, Place)>,
    ids: HashMap<Box<str>, (Fingerprint, Place)>,
    /// Topics that an event of the group finishes, by their identity: the batches hold them.
    finishing: HashSet<usize>,
}

/// A batch of a group.
pub(crate) struct Planned<P> {
    pub(crate) assigned: Assigned<P>,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) size: Size,
}

/// A draft of a group.
#[derive(Clone, Copy, Debug)]
struct Place {
    batch: usize,
    draft: usize,
}

impl From<Place> for Plan {
    fn from(Place { batch, draft }: Place) -> Self {
        Self::RepeatIn { batch, draft }
    }
}

impl<P: Payload> Group<P> {
    pub(crate) fn new() -> Self {
        Self {
            batches: Vec::new(),
            events: Vec::new(),
            keys: HashMap::new(),
            ids: HashMap::new(),
            finishing: HashSet::new(),
        }
    }

    /// Plans a batch, gives it its offsets and adds it.
    ///
    /// # Errors
    ///
    /// Why the batch is refused; then the group is as before.
    pub(crate) fn add(
        &mut self,
        core: &Core<P>,
        store: &mut dyn Store,
        queued: &mut Queued<P>,
    ) -> Result<(), AppendError> {
        let (drafts, now) = (&mut queued.drafts, queued.now);
        let mut assigned = loop {
            let mut topics = DraftTopics::find(&core.history, drafts);
            let mut earlier = EarlierInStore { core, store, group: self, now };
            let plans = plan(drafts, &topics, &mut earlier)?;
            let mut sequence = core.sequencer.lock();
            let assigned = sequence.assign(&core.ids, now, drafts, &mut topics, plans)?;
            // A topic was collected between the look-up and the lock: look up again.
            if let Some(assigned) = assigned {
                break assigned;
            }
        };
        self.note(&mut assigned);
        self.batches.push(Planned {
            assigned,
            outcome: Arc::clone(&queued.outcome),
            size: queued.size,
        });
        Ok(())
    }

    /// Notes what a batch has that later ones may repeat or run into, and what the store keeps of it.
    fn note(&mut self, assigned: &mut Assigned<P>) {
        let batch = self.batches.len();
        for (draft, outcome) in assigned.drafts.iter_mut().enumerate() {
            let DraftOutcome::Fresh(fresh) = outcome else { continue };
            let noted = (fresh.fingerprint, Place { batch, draft });
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

/// The ids and keys in memory, in the group, and in the store. The writer alone changes them, but for
/// ids that are freed by eviction; those the store still has.
struct EarlierInStore<'a, P> {
    core: &'a Core<P>,
    store: &'a mut dyn Store,
    group: &'a Group<P>,
    now: Timestamp,
}

impl<P: Payload> Earlier<P> for EarlierInStore<'_, P> {
    fn key(&mut self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Plan)>, StoreError> {
        let sequencer = &self.core.sequencer;
        let remembered = {
            let mut sequence = sequencer.lock();
            let (keys, ids) = (sequence.keys(self.now), &sequencer.publisher_ids);
            Earlier::<P>::key(&mut Remembered { keys, ids }, key)?
        };
        if remembered.is_some() {
            return Ok(remembered);
        }
        if let Some(&(fingerprint, place)) = self.group.keys.get(key) {
            return Ok(Some((fingerprint, place.into())));
        }
        Ok(self.store.idempotency_key(key)?.map(|known| stored(&self.core.ids, known)))
    }

    fn id(&mut self, id: &str) -> Result<Option<(Fingerprint, Plan)>, StoreError> {
        if let Some(known) = self.core.sequencer.publisher_ids.get(id) {
            return Ok(Some((known.fingerprint, Plan::Repeat(known.answer))));
        }
        if let Some(&(fingerprint, place)) = self.group.ids.get(id) {
            return Ok(Some((fingerprint, place.into())));
        }
        Ok(self.store.publisher_id(id)?.map(|known| stored(&self.core.ids, known)))
    }

    fn is_finishing(&self, topic: &Topic<P>) -> bool {
        self.group.finishing.contains(&topic.identity())
    }
}

/// The plan for a repetition of a stored event. How many readers it matched is not kept.
fn stored(ids: &Ids, (fingerprint, offset): (Fingerprint, Offset)) -> (Fingerprint, Plan) {
    (fingerprint, Plan::Repeat(ids.appended(offset, 0, true)))
}
