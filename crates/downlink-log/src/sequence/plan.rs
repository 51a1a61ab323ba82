//! What becomes of each draft of a batch: new, or the repetition of something earlier.
//!
//! All of a batch is decided before anything is changed.

use std::{collections::HashMap, sync::Arc};

use smallvec::{SmallVec, smallvec};

use crate::{
    append::Appending,
    draft::{AppendError, Appended, Draft},
    given::Fingerprint,
    log::{Payload, Sequence, Shared},
    offset::Offset,
    queue::Awaited,
    topic::TopicLog,
};

/// What becomes of one draft.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Fresh,
    Repeat(Appended),
    /// The same as a draft that is not committed yet.
    Awaited(Awaited),
    /// The same as an earlier draft of this batch.
    RepeatOf(usize),
}

impl Plan {
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }

    fn awaited(awaited: &Awaited) -> (Fingerprint, Self) {
        (awaited.fingerprint, Self::Awaited(awaited.clone()))
    }

    /// How many it was for is not kept.
    fn stored((fingerprint, offset): (Fingerprint, Offset)) -> (Fingerprint, Self) {
        (fingerprint, Self::Repeat(Appended { offset, matched: 0, repeated: true }))
    }
}

impl<P: Payload> Shared<P> {
    /// Decides for each draft of a batch whether it is new, and whether its topics take it.
    pub(crate) fn plan<F>(
        &self,
        sequence: &Sequence<P>,
        batch: &Appending<'_, F, P>,
    ) -> Result<SmallVec<[Plan; 1]>, AppendError> {
        let plan = |(at, draft)| match batch.repeats.get(at) {
            Some(Some(of)) => Ok(Plan::RepeatOf(*of)),
            _ => self.plan_one(sequence, at, draft, batch.looked.get(at)),
        };
        let plans: SmallVec<_> =
            batch.drafts.iter().enumerate().map(plan).collect::<Result<_, _>>()?;
        check_finished(sequence, batch, &plans)?;
        Ok(plans)
    }

    fn plan_one<F>(
        &self,
        sequence: &Sequence<P>,
        at: usize,
        draft: &Draft<F>,
        stored: Option<&Looked>,
    ) -> Result<Plan, AppendError> {
        let same = |fingerprint: Fingerprint| fingerprint == draft.fingerprint;
        let by_key = draft.key.as_ref().and_then(|key| {
            let known =
                sequence.keys.get(key).map(|&(print, answer)| (print, Plan::Repeat(answer)));
            let pending = || sequence.pending.keys.get(key).map(Plan::awaited);
            known.or_else(pending).or_else(|| stored?.key.map(Plan::stored))
        });
        match by_key {
            Some((print, plan)) if same(print) => return Ok(plan),
            Some(_) => return Err(AppendError::KeyReused { draft: at }),
            None => {}
        }
        let by_id = draft.id.as_ref().and_then(|id| {
            let known = self.given.lock().get(id).copied();
            let known = known.map(|given| (given.fingerprint, Plan::Repeat(given.answer)));
            let pending = || sequence.pending.ids.get(id).map(Plan::awaited);
            known.or_else(pending).or_else(|| stored?.id.map(Plan::stored))
        });
        match by_id {
            Some((print, plan)) if same(print) => Ok(plan),
            Some(_) => Err(AppendError::IdTaken { draft: at }),
            None => Ok(Plan::Fresh),
        }
    }

    /// Asks the store for the keys and ids of drafts that the memory does not know. Not under a lock.
    pub(crate) fn look_up<F>(&self, drafts: &[Draft<F>]) -> Result<Vec<Looked>, AppendError> {
        let Some(durable) = &self.durable else { return Ok(Vec::new()) };
        if drafts.iter().all(|draft| draft.id.is_none() && draft.key.is_none()) {
            return Ok(Vec::new());
        }
        let look = |draft: &Draft<F>| {
            let id = draft.id.as_deref().filter(|id| self.given.lock().get(id).is_none());
            let id = id.map(|id| durable.reader.given(id)).transpose()?;
            let key = draft.key.as_ref().map(|key| durable.reader.key(key)).transpose()?;
            Ok(Looked { id: id.flatten(), key: key.flatten() })
        };
        drafts.iter().map(look).collect::<Result<_, _>>().map_err(AppendError::Store)
    }
}

/// What the store said of a draft.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked {
    id: Option<(Fingerprint, Offset)>,
    key: Option<(Fingerprint, Offset)>,
}

/// For each draft the earlier one of the same batch that it repeats.
pub(crate) fn repeats_within<F>(
    drafts: &[Draft<F>],
) -> Result<SmallVec<[Option<usize>; 1]>, AppendError> {
    let mut repeats = smallvec![None; drafts.len()];
    if drafts.len() == 1 {
        return Ok(repeats);
    }
    let (mut keys, mut ids) = (HashMap::new(), HashMap::new());
    for (at, (draft, repeat)) in drafts.iter().zip(&mut repeats).enumerate() {
        let same = |of: &usize| {
            drafts.get(*of).is_some_and(|other| other.fingerprint == draft.fingerprint)
        };
        let by_key = draft.key.as_ref().and_then(|key| keys.insert(key, at));
        let by_id = draft.id.as_ref().and_then(|id| ids.insert(id, at));
        match (by_key, by_id) {
            (Some(of), _) if !same(&of) => return Err(AppendError::KeyReused { draft: at }),
            (None, Some(of)) if !same(&of) => return Err(AppendError::IdTaken { draft: at }),
            (of, other) => *repeat = of.or(other),
        }
    }
    Ok(repeats)
}

/// Refuses drafts for topics that are finished, or that an earlier draft of the batch finishes.
fn check_finished<F, P: Payload>(
    sequence: &Sequence<P>,
    batch: &Appending<'_, F, P>,
    plans: &[Plan],
) -> Result<(), AppendError> {
    let mut finishing: Vec<usize> = Vec::new();
    let drafts = batch.drafts.iter().zip(&batch.places.topics).zip(plans).enumerate();
    for (at, ((draft, topics), plan)) in drafts {
        if !plan.is_fresh() {
            continue;
        }
        let finished = |topic: &Arc<TopicLog<P>>| {
            topic.finished().is_some()
                || finishing.contains(&topic.identity())
                || sequence.pending.finishing.contains(&topic.identity())
        };
        if topics.iter().any(finished) {
            return Err(AppendError::Finished { draft: at });
        }
        if draft.finish {
            finishing.extend(topics.iter().map(|topic| topic.identity()));
        }
    }
    Ok(())
}
