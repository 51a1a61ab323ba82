//! Appending: from drafts to offsets, all of a batch or nothing.
//!
//! Under the sequence lock the drafts are checked, their rings are reserved, their payloads made, and
//! only then is anything changed. A topic that was collected between being looked up and being
//! reserved is looked up again. Making a batch visible is the other half (see `install`).

use smallvec::SmallVec;

use crate::{
    draft::{Answers, AppendError, Draft},
    evict::Evicted,
    install::{Assigned, Decided, Fresh},
    log::{Log, Payload, Sequence, Shared},
    offset::{Offset, Timestamp},
    places::Places,
    plan::{Plan, repeats_within},
    wakes::Wakes,
};

/// A batch on its way to its offsets. Outlives every lock, so whatever is left of it is dropped with
/// none held.
pub(crate) struct Appending<'a, F, P: Payload> {
    now: Timestamp,
    pub(crate) drafts: SmallVec<[Draft<F>; 1]>,
    /// For each draft the earlier one of the batch that it repeats.
    pub(crate) repeats: SmallVec<[Option<usize>; 1]>,
    pub(crate) places: Places<'a, P>,
}

impl<P: Payload> Log<P> {
    /// Appends a batch: all drafts, or none. The readers concerned are woken when the [`Wakes`] are
    /// dropped; nothing waits for any of them.
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
    ) -> Result<(Answers, Wakes<P>), AppendError> {
        let shared = &*self.0;
        shared.expire(now);
        let repeats = repeats_within(&drafts)?;
        let places = Places::of(shared, &drafts)?;
        let mut batch = Appending { now, drafts, repeats, places };
        let mut evicted = Evicted::new();
        let (mut assigned, answers) = loop {
            let mut sequence = shared.sequence.lock();
            if let Some(mut assigned) = shared.assign(&mut sequence, &mut batch)? {
                let answers = shared.install(&mut sequence, &mut assigned, &mut evicted);
                break (assigned, answers);
            }
            drop(sequence);
            batch.places = Places::of(shared, &batch.drafts)?;
        };
        shared.settle(&mut evicted);
        // Payloads are dropped last: if one of them panics, nothing is left undone.
        Ok((answers, Wakes::of(&mut assigned)))
    }
}

impl<P: Payload> Shared<P> {
    /// Gives a batch its offsets. `None`: a topic was collected meanwhile, look up again.
    fn assign<F: FnOnce(Offset, Timestamp) -> P>(
        &self,
        sequence: &mut Sequence,
        batch: &mut Appending<'_, F, P>,
    ) -> Result<Option<Assigned<P>>, AppendError> {
        if sequence.closed {
            return Err(AppendError::Closed);
        }
        sequence.keys.expire(batch.now);
        let plans = self.plan(sequence, batch)?;
        let (first, at) = (sequence.next, sequence.at.max(batch.now));
        let Some(reserved) = batch.places.reserve(&plans) else { return Ok(None) };
        let payloads = stamp(&mut batch.drafts, &plans, Offset::new(first), at);
        reserved.keep();
        sequence.at = at;
        let drafts = batch.drafts.iter_mut().zip(plans).zip(&mut batch.places.topics);
        let decided = drafts.zip(payloads).map(|(((draft, plan), topics), payload)| match plan {
            Plan::Repeat(answer) => Decided::Repeat(answer),
            Plan::RepeatOf(of) => Decided::RepeatOf(of),
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
                })
            }
        });
        let drafts = decided.collect();
        Ok(Some(Assigned { now: batch.now, at, first, drafts }))
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
