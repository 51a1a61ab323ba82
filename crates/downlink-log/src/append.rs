//! Appending: from drafts to offsets, all of a batch or nothing.
//!
//! Under the sequence lock the drafts are checked, their rings are reserved, their payloads made, and
//! only then is anything changed; the tail moves once, at the end. A topic that was collected between
//! being looked up and being reserved is looked up again.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    address::Address,
    draft::{Answers, AppendError, Appended, Draft},
    evict::Evicted,
    given::GivenId,
    index::Topics,
    log::{Log, Payload, Sequence, Shared},
    offset::{Offset, Timestamp},
    places::Places,
    plan::{Plan, repeats_within},
    ring::Kept,
    sync::Ordering,
    topic::TopicLog,
    watcher::wake_all,
};

/// A batch on its way into the log. Outlives every lock, so whatever is left of it is dropped with
/// none held.
pub(crate) struct Appending<'a, F, P: Payload> {
    now: Timestamp,
    pub(crate) drafts: SmallVec<[Draft<F>; 1]>,
    /// For each draft the earlier one of the batch that it repeats.
    pub(crate) repeats: SmallVec<[Option<usize>; 1]>,
    pub(crate) places: Places<'a, P>,
    plans: SmallVec<[Plan; 1]>,
    /// The payload of each new draft that has one.
    payloads: SmallVec<[Option<P>; 1]>,
}

/// An event that has its offset, or a finish mark.
struct Stamped<P> {
    offset: u64,
    at: Timestamp,
    payload: Option<P>,
    finish: bool,
}

impl<P: Payload> Log<P> {
    /// Appends a batch: all drafts, or none. Wakes the readers concerned; waits for none of them.
    ///
    /// Readers see the batch at once. Drafts that repeat an earlier one, by key or id, get its answer.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; then nothing was appended.
    ///
    /// # Limits
    ///
    /// A batch stays whole, even if it alone is more than the log's `bytes_max`; how long it may be
    /// is for the caller to bound. The sequence lock is held for all of it.
    pub fn append<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        now: Timestamp,
        drafts: SmallVec<[Draft<F>; 1]>,
    ) -> Result<Answers, AppendError> {
        let shared = &*self.0;
        shared.expire(now);
        let repeats = repeats_within(&drafts)?;
        let places = Places::of(shared, &drafts)?;
        let (plans, payloads) = (SmallVec::new(), SmallVec::new());
        let mut batch = Appending { now, drafts, repeats, places, plans, payloads };
        let mut evicted = Evicted::new();
        let answers = loop {
            if let Some(answers) = shared.append_at(&mut batch, &mut evicted)? {
                break answers;
            }
            batch.places = Places::of(shared, &batch.drafts)?;
        };
        batch.places.filled = batch.plans.iter().all(Plan::is_fresh);
        shared.settle(&mut evicted);
        batch.wake();
        // Payloads are dropped last: if one of them panics, nothing is left undone.
        Ok(answers)
    }
}

impl<F, P: Payload> Appending<'_, F, P> {
    /// Wakes the readers of each topic that got something, once.
    fn wake(&self) {
        let mut topics: SmallVec<[_; 1]> = self.places.fresh(&self.plans).collect();
        topics.sort_unstable_by_key(|topic| topic.number);
        topics.dedup_by_key(|topic| topic.number);
        topics.iter().for_each(|topic| wake_all(&topic.watchers));
    }
}

impl<P: Payload> Shared<P> {
    /// Appends under the sequence lock. `None`: a topic was collected meanwhile, look up again.
    fn append_at<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        batch: &mut Appending<'_, F, P>,
        evicted: &mut Evicted<P>,
    ) -> Result<Option<Answers>, AppendError> {
        let mut sequence = self.sequence.lock();
        if sequence.closed {
            return Err(AppendError::Closed);
        }
        sequence.keys.expire(batch.now);
        batch.plans = self.plan(&sequence, batch)?;
        let first = sequence.next;
        let at = sequence.at.max(batch.now);
        let Some(reserved) = batch.places.reserve(&batch.plans) else { return Ok(None) };
        batch.payloads = stamp(&mut batch.drafts, &batch.plans, Offset::new(first), at);
        reserved.keep();
        let answers = self.install(&mut sequence, at, batch, evicted);
        self.tail.store(sequence.next, Ordering::Release);
        self.trim_all(batch.places.fresh(&batch.plans), first, evicted);
        self.tidy_index();
        Ok(Some(answers))
    }

    /// Gives each new draft its offset and puts it into its rings.
    fn install<F>(
        &self,
        sequence: &mut Sequence,
        at: Timestamp,
        batch: &mut Appending<'_, F, P>,
        evicted: &mut Evicted<P>,
    ) -> Answers {
        sequence.at = at;
        let mut answers = Answers::new();
        let payloads = batch.payloads.iter_mut();
        let drafts = batch.drafts.iter_mut().zip(&batch.plans).zip(payloads);
        for (((draft, plan), payload), topics) in drafts.zip(&batch.places.topics) {
            let answer = match plan {
                Plan::Repeat(answer) => Appended { repeated: true, ..*answer },
                Plan::RepeatOf(of) => Appended { repeated: true, ..answers[*of] },
                Plan::Fresh => {
                    let offset = sequence.next;
                    sequence.next += 1;
                    let matched = count(topics, offset);
                    let answer = Appended { offset: Offset::new(offset), matched, repeated: false };
                    if let Some(key) = draft.key.take() {
                        sequence.keys.insert(batch.now, key, draft.fingerprint, answer);
                    }
                    let kept = payload.is_some() && !topics.is_empty();
                    if let Some(id) = draft.id.take().filter(|_| kept) {
                        // Before the event is where it can be evicted, which frees the id again.
                        let (fingerprint, rings) = (draft.fingerprint, topics.len());
                        self.given.lock().insert(id, GivenId { fingerprint, answer, rings });
                    }
                    let payload = if kept { payload.take() } else { None };
                    let finish = draft.finish;
                    self.push(Stamped { offset, at, payload, finish }, topics, evicted);
                    answer
                }
            };
            answers.push(answer);
        }
        answers
    }

    /// Puts an event into its rings, which were reserved for it.
    fn push(&self, mut event: Stamped<P>, topics: &Topics<P>, evicted: &mut Evicted<P>) {
        let Stamped { offset, at, finish, .. } = event;
        if event.payload.is_some() {
            self.index.lock().push(offset, topics.clone());
        }
        for (left, topic) in (0..topics.len()).rev().zip(topics) {
            let payload = if left == 0 { event.payload.take() } else { event.payload.clone() };
            let mut ring = topic.ring.write();
            ring.unreserve();
            if let Some(payload) = payload {
                let cost = ring.push(Kept { offset, at, payload });
                self.bytes.fetch_add(cost, Ordering::Relaxed);
                self.events.fetch_add(1, Ordering::Relaxed);
                topic.set_newest(offset);
                self.trim(topic, &mut ring, evicted);
            }
            if finish {
                ring.set_finished_at(Some(at));
                topic.set_finished(Some(offset));
            }
            self.queue_expiry(topic, &ring);
        }
    }
}

/// Makes the payloads of the new drafts, whose offsets begin with `first`.
fn stamp<F: FnOnce(Offset, Timestamp) -> P, P>(
    drafts: &mut [Draft<F>],
    plans: &[Plan],
    first: Offset,
    at: Timestamp,
) -> SmallVec<[Option<P>; 1]> {
    let mut next = first.get();
    let stamp = |(draft, plan): (&mut Draft<F>, &Plan)| {
        let offset = Offset::new(next);
        next += u64::from(plan.is_fresh());
        let stamp = if plan.is_fresh() { draft.stamp.take() } else { None };
        stamp.map(|stamp| stamp(offset, at))
    };
    drafts.iter_mut().zip(plans).map(stamp).collect()
}

/// Distinct readers of the topics.
fn count<P>(topics: &[Arc<TopicLog<P>>], offset: u64) -> usize {
    let everyone = topics.iter().find(|topic| topic.address == Address::Everyone);
    match (topics, everyone) {
        ([topic], _) | (_, Some(topic)) => topic.watchers.lock().len(),
        _ => topics
            .iter()
            .map(|topic| {
                let watchers = topic.watchers.lock();
                watchers.iter().filter(|watcher| watcher.count_once(offset)).count()
            })
            .sum(),
    }
}
