//! Gives all events one order. A draft is an event without an offset. A batch of drafts is appended
//! in three steps: plan, assign and apply. The sequence lock lets only one thread at a time assign
//! offsets and apply events.
//!
//! *Plan* decides which drafts are new, and may refuse the batch. *Assign* gives each new event its
//! offset, and makes its payload. *Apply* puts the events into the history, and cannot fail. In a
//! log in memory, the publisher's thread does all three steps while it holds the sequence lock. In
//! a log with a store, the writer's thread plans and assigns several batches, commits them to the
//! store while it holds no lock, and then applies them.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::history::{EventTopics, Evicted, History, Published, Pushed};
use crate::patterns::{Held, Matching};
use crate::readers::{ReaderList, ReaderState, wake_all};
use crate::sequence::{
    Answers, AppendError, Appended, Assigned, DraftTopics, Drafts, Earlier, Epochs, Fresh,
    KeyWindow, Plans, PublisherId, PublisherIds, Repeat, plan,
};
use crate::store::StoreError;
use crate::sync::{Mutex, MutexGuard};
use crate::topics::Topic;
use crate::types::{Address, Fingerprint, IdempotencyKey, Offset, Payload, Timestamp};

#[derive(Debug)]
pub(crate) struct Sequencer {
    /// This lock is taken before all other locks of the history. It is held while events get their
    /// offsets, and while events are put into the history.
    sequence: Mutex<Sequence>,
    pub(crate) publisher_ids: PublisherIds,
}

/// The state that the sequence lock protects.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// The next offset to be assigned. While events wait for their commit, they have offsets but
    /// readers cannot see them. So the log's tail, the next offset that readers will see, is then
    /// lower than this.
    next: u64,
    /// The newest time stamp of an event. Log time does not go back, but two publishers may read
    /// the clock in one order and get the lock in the other order. Then both events get the later
    /// time.
    at: Timestamp,
    keys: KeyWindow,
    closed: bool,
}

/// The topics and patterns whose readers must be woken after an append.
#[must_use = "the readers wait until they are woken"]
pub(crate) struct Wakes<P> {
    pub(crate) topics: EventTopics<P>,
    pub(crate) patterns: Matching<P>,
    /// The offset of the newest event.
    pub(crate) newest: u64,
}

impl<P> Wakes<P> {
    /// Wakes the readers of each topic and pattern once. The caller must hold no lock.
    pub(crate) fn wake(mut self) {
        if self.topics.len() > 1 {
            self.topics.sort_unstable_by_key(|topic| topic.identity());
            self.topics.dedup_by_key(|topic| topic.identity());
            self.patterns.sort_unstable_by_key(|pattern| Arc::as_ptr(pattern).addr());
            self.patterns.dedup_by_key(|pattern| Arc::as_ptr(pattern).addr());
        }
        self.topics.iter().for_each(|topic| wake_all(&topic.readers, self.newest));
        self.patterns.iter().for_each(|pattern| wake_all(&pattern.readers, self.newest));
    }
}

impl Sequencer {
    pub(crate) fn new(next: Offset, at: Timestamp) -> Self {
        let keys = KeyWindow::default();
        let sequence = Sequence { next: next.get(), at, keys, closed: false };
        Self { sequence: Mutex::new(sequence), publisher_ids: PublisherIds::new() }
    }

    /// The sequencer for a copy of a history from which the events at or above `next` are removed.
    /// `before` is the sequencer of the original history. The copy has the idempotency keys of the
    /// events below `next`. The ids of publishers are added later, when these events are pushed
    /// into the new history.
    pub(crate) fn cut(before: &Self, next: Offset) -> Self {
        let before = before.lock();
        let (keys, at) = (before.keys.below(next.get()), before.at);
        let sequence = Sequence { next: next.get(), at, keys, closed: false };
        Self { sequence: Mutex::new(sequence), publisher_ids: PublisherIds::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Sequence> {
        self.sequence.lock()
    }

    /// Refuses appends from now on.
    pub(crate) fn close(&self) {
        self.sequence.lock().closed = true;
    }

    /// Decides which drafts of a batch are new, like an append to a log in memory. It appends
    /// nothing.
    pub(crate) fn plan<P: Payload>(
        &self,
        history: &History<P>,
        now: Timestamp,
        drafts: &Drafts<P>,
    ) -> Result<Plans, AppendError> {
        // The topics are dropped after the sequence lock is released, because their drop may take
        // the lock of the names.
        let topics = DraftTopics::find(history, drafts);
        let mut sequence = self.lock();
        let mut earlier = InMemoryKeys { keys: sequence.keys(now), ids: &self.publisher_ids };
        let plans = plan(drafts, &topics, 0, &mut earlier)?;
        topics.check_room(&plans)?;
        Ok(plans)
    }

    /// Appends a batch to a log in memory: all drafts, or none.
    pub(crate) fn append<P: Payload>(
        &self,
        history: &History<P>,
        ids: &Epochs,
        now: Timestamp,
        mut drafts: Drafts<P>,
    ) -> Result<Answers, AppendError> {
        // These values are declared first, so they are dropped last. If dropping a payload panics,
        // everything else is already done.
        let (mut evicted, mut answers) = (Evicted::new(), Answers::new());
        let (_batch, wakes) = loop {
            let mut topics = DraftTopics::find(history, &drafts);
            let mut sequence = self.lock();
            if sequence.closed {
                return Err(AppendError::Closed);
            }
            let mut earlier = InMemoryKeys { keys: sequence.keys(now), ids: &self.publisher_ids };
            let plans = plan(&drafts, &topics, 0, &mut earlier)?;
            let assigned = sequence.assign(ids, now, &mut drafts, &mut topics, plans)?;
            // A topic may be removed from memory after it was found and before the lock was taken.
            // Then the topics are looked up again.
            let Some(mut batch) = assigned else { continue };
            let held = history.patterns.hold();
            let parts = (history, ids);
            let wakes =
                self.apply(&mut sequence, parts, &held, &mut batch, &mut answers, &mut evicted);
            break (batch, wakes);
        };
        self.settle(history, &evicted);
        wakes.wake();
        history.backlog.wake();
        Ok(answers)
    }

    /// Puts a batch into the history, makes it visible, and evicts events that exceed the limits.
    /// `answers` has the answers to the earlier batches of the same commit. This function adds the
    /// answers to this batch.
    pub(crate) fn apply<P: Payload>(
        &self,
        sequence: &mut Sequence,
        (history, ids): (&History<P>, &Epochs),
        held: &Held<'_, P>,
        batch: &mut Assigned<P>,
        answers: &mut Answers,
        evicted: &mut Evicted<P>,
    ) -> Wakes<P> {
        let mut wakes = Wakes { topics: EventTopics::new(), patterns: Matching::new(), newest: 0 };
        let mut tail = history.tail();
        let (now, at) = (batch.now, batch.at);
        for draft in &mut batch.drafts {
            let repeated = |answer: &Appended| Appended { repeated: true, ..*answer };
            let answer = match draft {
                Err(Repeat::Answered(answer)) => repeated(answer),
                Err(Repeat::Of(draft)) => repeated(&answers[*draft]),
                Ok(fresh) => {
                    tail = fresh.offset + 1;
                    wakes.newest = fresh.offset;
                    let patterns: SmallVec<[Matching<P>; 1]> =
                        fresh.topics.iter().map(|topic| held.matching(topic)).collect();
                    let matched = matched(&fresh.topics, &patterns, fresh.offset);
                    let answer = ids.appended(Offset::new(fresh.offset), matched, false);
                    let is_kept = fresh.is_kept();
                    history.note_published(is_kept);
                    // The key and the id are added before the event is pushed, because the event
                    // may be evicted during the push.
                    let (fingerprint, rings) = (fresh.fingerprint, fresh.topics.len());
                    if let Some(key) = fresh.key.take() {
                        sequence.keys.insert(now, key, fingerprint, answer);
                    }
                    if let Some(id) = fresh.id.take().filter(|_| is_kept) {
                        self.publisher_ids.insert(id, PublisherId { fingerprint, answer, rings });
                    }
                    if history.backlog.is_open() && !fresh.topics.is_empty() {
                        let unneeded = history.backlog.push(Published {
                            offset: fresh.offset,
                            at,
                            topics: fresh.topics.clone(),
                            payload: fresh.payload.clone(),
                            finish: fresh.finish,
                        });
                        evicted.unneeded.extend(unneeded);
                    }
                    let event = Pushed {
                        offset: fresh.offset,
                        at,
                        payload: fresh.payload.take_if(|_| is_kept),
                        topics: &fresh.topics,
                        patterns: &patterns,
                        finish: fresh.finish,
                    };
                    history.push(event, evicted);
                    wakes.topics.extend(fresh.topics.iter().cloned());
                    patterns.into_iter().for_each(|matching| wakes.patterns.extend(matching));
                    answer
                }
            };
            answers.push(answer);
        }
        history.set_tail(tail);
        history.trim_all(held, batch.topics(), batch.first, evicted);
        history.tidy_index();
        wakes
    }

    /// Frees the ids of evicted events, and removes the topics that became empty from memory. The
    /// caller must hold no lock.
    pub(crate) fn settle<P: Payload>(&self, history: &History<P>, evicted: &Evicted<P>) {
        for entry in &evicted.entries {
            if let Some(id) = entry.payload.publisher_id() {
                self.publisher_ids.release(id, entry.offset);
            }
        }
        history.collect(&evicted.emptied);
    }
}

impl Sequence {
    pub(crate) fn keys(&mut self, now: Timestamp) -> &KeyWindow {
        self.keys.expire(now);
        &self.keys
    }

    /// Notes the idempotency key of an event that another log has accepted, such as the upstream of
    /// a replica. If the key is known already, it stays with its earlier event.
    pub(crate) fn note_key(
        &mut self,
        at: Timestamp,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        answer: Appended,
    ) {
        self.at = self.at.max(at);
        let now = self.at;
        if self.keys(now).get(&key).is_none() {
            self.keys.insert(now, key, fingerprint, answer);
        }
    }

    /// Gives the new drafts of a planned batch their offsets, and makes their payloads. `None` if
    /// one of the topics was removed from memory; the caller must then look up the topics again.
    pub(crate) fn assign<P: Payload>(
        &mut self,
        ids: &Epochs,
        now: Timestamp,
        drafts: &mut Drafts<P>,
        topics: &mut DraftTopics<'_, P>,
        plans: Plans,
    ) -> Result<Option<Assigned<P>>, AppendError> {
        topics.check_room(&plans)?;
        let Some(reserved) = topics.reserve(&plans) else { return Ok(None) };
        let (first, at) = (self.next, self.at.max(now));
        let mut next = first;
        // `reserved` keeps the topics of the batch in memory until their events are pushed. `stamp`
        // is the app's code. If it panics, `reserved` is dropped, which releases the topics, and
        // nothing is appended.
        let stamped: SmallVec<[Option<P>; 1]> = drafts
            .iter_mut()
            .zip(&plans)
            .map(|(draft, plan)| {
                // The payload of a repetition stays in its draft. The drafts are dropped when no
                // lock is held.
                let payload = draft.payload.take_if(|_| plan.is_none());
                let stamped = payload.map(|payload| P::stamp(payload, ids.id_of(next), at));
                next += u64::from(plan.is_none());
                stamped
            })
            .collect();
        reserved.keep();
        self.at = at;
        let parts = drafts.iter_mut().zip(plans).zip(&mut topics.topics).zip(stamped);
        let drafts = parts
            .map(|(((draft, plan), topics), payload)| match plan {
                Some(repeat) => Err(repeat),
                None => {
                    self.next += 1;
                    Ok(Fresh {
                        offset: self.next - 1,
                        payload,
                        topics: std::mem::take(topics),
                        id: draft.id.take(),
                        key: draft.key.take(),
                        fingerprint: draft.fingerprint,
                        finish: draft.finish,
                        body: draft.body.take(),
                    })
                }
            })
            .collect();
        Ok(Some(Assigned { now, at, first, drafts }))
    }
}

/// The ids and keys that are in memory.
struct InMemoryKeys<'a> {
    keys: &'a KeyWindow,
    ids: &'a PublisherIds,
}

impl<P> Earlier<P> for InMemoryKeys<'_> {
    fn key(&mut self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Repeat)>, StoreError> {
        let known = self.keys.get(key);
        Ok(known.map(|(fingerprint, answer)| (fingerprint, Repeat::Answered(answer))))
    }

    fn id(&mut self, id: &str) -> Result<Option<(Fingerprint, Repeat)>, StoreError> {
        let known = self.ids.get(id);
        Ok(known.map(|known| (known.fingerprint, Repeat::Answered(known.answer))))
    }

    fn is_finishing(&self, _: &Topic<P>) -> bool {
        false
    }
}

/// The number of distinct readers of an event. Each topic and each pattern has a list of its
/// readers. Usually, the result is the sum of the lengths of these lists. This sum would count a
/// reader twice if the reader is on two of the lists. Each list knows whether any of its readers is
/// also on another list. If at least two of the lists have such readers, the readers are counted
/// one by one.
pub(crate) fn matched<P>(topics: &EventTopics<P>, patterns: &[Matching<P>], offset: u64) -> usize {
    if let Some(everyone) = topics.iter().find(|topic| topic.address == Address::Everyone) {
        return everyone.readers.lock().len();
    }
    let of_patterns = patterns.iter().flatten().map(|pattern| &pattern.readers);
    let mut lists: SmallVec<[&Mutex<ReaderList>; 4]> =
        topics.iter().map(|topic| &topic.readers).chain(of_patterns).collect();
    if topics.len() > 1 {
        // If a pattern matches several of the topics, `lists` has the pattern's readers more than
        // once.
        lists.sort_unstable_by_key(|list| std::ptr::from_ref(*list).addr());
        lists.dedup_by_key(|list| std::ptr::from_ref(*list).addr());
    }
    let (mut readers, mut lists_with_several) = (0, 0);
    for list in &lists {
        let list = list.lock();
        readers += list.len();
        lists_with_several += usize::from(list.has_several());
    }
    if lists_with_several < 2 {
        return readers;
    }
    let once = |reader: &&Arc<ReaderState>| !reader.has_several || reader.count_once(offset);
    lists.iter().map(|list| list.lock().iter().filter(once).count()).sum()
}
