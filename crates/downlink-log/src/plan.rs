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
    topic::TopicLog,
};

/// What becomes of one draft.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    Fresh,
    Repeat(Appended),
    /// The same as an earlier draft of this batch.
    RepeatOf(usize),
}

impl Plan {
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }
}

impl<P: Payload> Shared<P> {
    /// Decides for each draft of a batch whether it is new, and whether its topics take it.
    pub(crate) fn plan<F>(
        &self,
        sequence: &Sequence,
        batch: &Appending<'_, F, P>,
    ) -> Result<SmallVec<[Plan; 1]>, AppendError> {
        let plan = |(at, draft)| match batch.repeats.get(at) {
            Some(Some(of)) => Ok(Plan::RepeatOf(*of)),
            _ => self.plan_one(sequence, at, draft),
        };
        let plans: SmallVec<_> =
            batch.drafts.iter().enumerate().map(plan).collect::<Result<_, _>>()?;
        check_finished(batch, &plans)?;
        Ok(plans)
    }

    fn plan_one<F>(
        &self,
        sequence: &Sequence,
        at: usize,
        draft: &Draft<F>,
    ) -> Result<Plan, AppendError> {
        let same = |fingerprint: Fingerprint| fingerprint == draft.fingerprint;
        let by_key = draft.key.as_ref().and_then(|key| sequence.keys.get(key));
        match by_key {
            Some((fingerprint, answer)) if same(*fingerprint) => return Ok(Plan::Repeat(*answer)),
            Some(_) => return Err(AppendError::KeyReused { draft: at }),
            None => {}
        }
        let by_id = draft.id.as_ref().and_then(|id| self.given.lock().get(id).copied());
        match by_id {
            Some(given) if same(given.fingerprint) => Ok(Plan::Repeat(given.answer)),
            Some(_) => Err(AppendError::IdTaken { draft: at }),
            None => Ok(Plan::Fresh),
        }
    }
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
            topic.finished().is_some() || finishing.contains(&topic.identity())
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
