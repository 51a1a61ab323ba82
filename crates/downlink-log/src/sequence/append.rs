//! Appending: from drafts to offsets, all of a batch or nothing.
//!
//! Under the sequence lock the drafts are checked, their rings are reserved, their payloads made, and
//! only then is anything changed. A topic that was collected between being looked up and being
//! reserved is looked up again. Making a batch visible is the other half (see `install`).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    draft::{Answers, AppendError, Appended, Draft, Submitted},
    evict::Evicted,
    install::{Assigned, Decided, Fresh},
    log::{Log, Payload, Sequence, Shared},
    offset::{Offset, Timestamp},
    places::Places,
    plan::{Looked, Plan, repeats_within},
    queue::{Content, Queued, cost_bytes, draft_cost_bytes},
    store::{Durability, StoredEvent},
    sync::Ordering,
    ticket::{Commit, Ticket},
    wakes::Wakes,
};

/// A batch on its way to its offsets. Outlives every lock, so whatever is left of it is dropped with
/// none held.
pub(crate) struct Appending<'a, F, P: Payload> {
    now: Timestamp,
    pub(crate) drafts: SmallVec<[Draft<F>; 1]>,
    /// For each draft the earlier one of the batch that it repeats.
    pub(crate) repeats: SmallVec<[Option<usize>; 1]>,
    /// For each draft what the store knows of it; empty if nothing is to be known.
    pub(crate) looked: Vec<Looked>,
    pub(crate) places: Places<'a, P>,
}

impl<P: Payload> Log<P> {
    /// Appends a batch: all drafts, or none. The readers concerned are woken when the [`Wakes`] are
    /// dropped; nothing waits for any of them.
    ///
    /// Readers see the batch at once, in a log with a store when it is committed: what that waits for
    /// is told by [`submit`](Self::submit). Drafts that repeat an earlier one, by key or id, get its
    /// answer.
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
    ) -> Result<(Answers, Wakes<P>), AppendError> {
        self.submit(now, drafts).map(|(submitted, wakes)| (submitted.answers, wakes))
    }

    /// Appends a batch, and says what its durability waits for.
    ///
    /// Never waits for a commit or a reader. With a store, ids and keys that the memory does not know
    /// are looked up there, which takes some tens of microseconds each.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; then nothing was appended.
    pub fn submit<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        now: Timestamp,
        drafts: SmallVec<[Draft<F>; 1]>,
    ) -> Result<(Submitted, Wakes<P>), AppendError> {
        let shared = &*self.0;
        shared.expire(now);
        let repeats = repeats_within(&drafts)?;
        let places = Places::of(shared, &drafts)?;
        let mut batch = Appending { now, drafts, repeats, looked: Vec::new(), places };
        let mut evicted = Evicted::new();
        let (mut visible, submitted) = loop {
            let asked = shared.durable.as_ref().map(|_| shared.given.lock().releases());
            batch.looked = shared.look_up(&batch.drafts)?;
            let mut sequence = shared.sequence.lock();
            // An id that was freed meanwhile may be in the store, and was perhaps not when asked.
            let again = asked.filter(|_| !batch.looked.is_empty());
            if again.is_some_and(|asked| shared.given.lock().releases() != asked) {
                continue;
            }
            if let Some(assigned) = shared.assign(&mut sequence, &mut batch)? {
                break shared.place(&mut sequence, assigned, &mut evicted);
            }
            drop(sequence);
            batch.places = Places::of(shared, &batch.drafts)?;
        };
        shared.settle(&mut evicted);
        let wakes = visible.as_mut().map_or_else(Wakes::none, Wakes::of);
        // Payloads are dropped last: if one of them panics, nothing is left undone.
        Ok((submitted, wakes))
    }
}

impl<P: Payload> Shared<P> {
    /// Gives a batch its offsets. `None`: a topic was collected meanwhile, look up again.
    fn assign<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        sequence: &mut Sequence<P>,
        batch: &mut Appending<'_, F, P>,
    ) -> Result<Option<Assigned<P>>, AppendError> {
        if sequence.closed {
            return Err(AppendError::Closed);
        }
        if let Some(error) = &sequence.failed {
            return Err(AppendError::Store(error.clone()));
        }
        sequence.keys.expire(batch.now);
        let plans = self.plan(sequence, batch)?;
        if self.durable.is_some() && !has_room(sequence, &batch.drafts, &plans) {
            return Err(AppendError::Busy);
        }
        let (first, at) = (sequence.next, sequence.at.max(batch.now));
        let Some(reserved) = batch.places.reserve(&plans) else { return Ok(None) };
        let payloads = stamp(&mut batch.drafts, &plans, Offset::new(first), at);
        reserved.keep();
        sequence.at = at;
        let drafts = batch.drafts.iter_mut().zip(plans).zip(&mut batch.places.topics);
        let decided = drafts.zip(payloads).map(|(((draft, plan), topics), payload)| match plan {
            Plan::Repeat(answer) => Decided::Repeat(answer),
            Plan::RepeatOf(of) => Decided::RepeatOf(of),
            Plan::Awaited(awaited) => Decided::Awaited(awaited),
            Plan::Fresh => {
                sequence.next += 1;
                Decided::Fresh(Fresh {
                    offset: sequence.next - 1,
                    payload,
                    topics: std::mem::take(topics),
                    id: draft.id.take(),
                    key: draft.key.take(),
                    fingerprint: draft.fingerprint,
                    finish: draft.finish,
                    body: draft.body.take(),
                })
            }
        });
        let drafts = decided.collect();
        Ok(Some(Assigned { now: batch.now, at, first, drafts }))
    }

    /// Makes a batch visible, or puts it into the store's queue, or both. Gives it back if its
    /// readers are to be woken.
    fn place(
        &self,
        sequence: &mut Sequence<P>,
        mut batch: Assigned<P>,
        evicted: &mut Evicted<P>,
    ) -> (Option<Assigned<P>>, Submitted) {
        let Some(durable) = &self.durable else {
            let answers = self.install(sequence, &mut batch, evicted);
            return (Some(batch), Submitted { answers, commit: None, is_behind: false });
        };
        let events = stored_events(&mut batch);
        let answers = batch.answers();
        let is_certain = |answer: &Appended| {
            answer.repeated && answer.offset.get() < durable.committed.load(Ordering::Acquire)
        };
        if answers.iter().all(is_certain) {
            return (None, Submitted { answers, commit: None, is_behind: false });
        }
        let ticket = Ticket::new();
        let commit = Some(Commit(Arc::clone(&ticket)));
        let (count, bytes) = (events.len(), events.iter().map(cost_bytes).sum());
        let (visible, answers, content) = match durable.durability {
            Durability::Commit => {
                sequence.pending.note(&batch, &ticket);
                (None, answers, Content::Hidden(batch))
            }
            Durability::Relaxed => {
                let answers = self.install(sequence, &mut batch, evicted);
                (Some(batch), answers.clone(), Content::Visible(answers))
            }
        };
        sequence.queue.push(Queued { content, events, count, ticket, bytes });
        if sequence.queue.is_due() {
            durable.to_commit.notify_one();
        }
        let is_behind = sequence.queue.is_behind();
        (visible, Submitted { answers, commit, is_behind })
    }
}

impl<P> Assigned<P> {
    /// The answers as far as they are known before the batch is visible.
    fn answers(&self) -> Answers {
        let mut answers = Answers::new();
        for decided in &self.drafts {
            let matched = 0;
            let answer = match decided {
                Decided::Repeat(answer) => Appended { repeated: true, ..*answer },
                Decided::RepeatOf(of) => Appended { repeated: true, ..answers[*of] },
                Decided::Awaited(awaited) => {
                    Appended { offset: awaited.offset, matched, repeated: true }
                }
                Decided::Fresh(fresh) => {
                    Appended { offset: Offset::new(fresh.offset), matched, repeated: false }
                }
            };
            answers.push(answer);
        }
        answers
    }
}

/// Whether the store's queue has room for the new drafts.
fn has_room<F, P>(sequence: &Sequence<P>, drafts: &[Draft<F>], plans: &[Plan]) -> bool {
    let fresh = drafts.iter().zip(plans).filter(|(_, plan)| plan.is_fresh());
    let costs = fresh.map(|(draft, _)| draft_cost_bytes(draft.body.as_ref()));
    let (events, bytes) = costs.fold((0, 0), |(events, bytes), cost| (events + 1, bytes + cost));
    sequence.queue.has_room(events, bytes)
}

/// The new events of a batch as the store keeps them.
fn stored_events<P: Payload>(batch: &mut Assigned<P>) -> Vec<StoredEvent> {
    let at = batch.at;
    let fresh = batch.drafts.iter_mut().filter_map(|decided| match decided {
        Decided::Fresh(fresh) => Some(fresh),
        _ => None,
    });
    let event = |fresh: &mut Fresh<P>| StoredEvent {
        offset: Offset::new(fresh.offset),
        at,
        to: fresh.topics.iter().map(|topic| topic.address.clone()).collect(),
        id: fresh.id.clone().filter(|_| fresh.is_kept()),
        key: fresh.key.clone(),
        fingerprint: fresh.fingerprint,
        finish: fresh.finish,
        payload: fresh.body.take().filter(|_| fresh.payload.is_some()),
    };
    fresh.map(event).collect()
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
