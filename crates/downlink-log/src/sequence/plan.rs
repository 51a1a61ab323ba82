//! Decides for each draft of a batch whether it is new or repeats an earlier event. A draft is an
//! event without an offset. It repeats an earlier event if it has the same id or the same
//! idempotency key, and the same fingerprint, which is a hash of the content.
//!
//! The decision is made for all drafts before anything changes, so a batch can be refused as a
//! whole.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use smallvec::{SmallVec, smallvec};

use crate::sequence::{AppendError, Draft, DraftTopics, Epochs, Plans, Repeat};
use crate::store::StoreError;
use crate::topics::Topic;
use crate::types::{Fingerprint, IdempotencyKey, Offset, Payload};

/// Looks up earlier events and drafts by their ids and keys, and tells which topics are about to be
/// finished.
pub(crate) trait Earlier<P> {
    /// The earlier event or draft with this idempotency key, and its fingerprint.
    fn key(&mut self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Repeat)>, StoreError>;

    /// The earlier event or draft with this id, and its fingerprint.
    fn id(&mut self, id: &str) -> Result<Option<(Fingerprint, Repeat)>, StoreError>;

    /// Whether an event that finishes the topic is waiting for its commit.
    fn is_finishing(&self, topic: &Topic<P>) -> bool;
}

/// The answer for a draft that repeats a stored event. The answer says that 0 readers got the
/// event, because the store does not keep the number of readers.
pub(crate) fn stored(
    ids: &Epochs,
    (fingerprint, offset): (Fingerprint, Offset),
) -> (Fingerprint, Repeat) {
    (fingerprint, Repeat::Answered(ids.appended(offset, 0, true)))
}

/// Decides for each draft of a batch whether it is new, and refuses the batch if a topic does not
/// accept a new draft. `before` is the number of drafts in the earlier batches that are committed
/// together with this batch.
pub(crate) fn plan<P: Payload>(
    drafts: &[Draft<P>],
    topics: &DraftTopics<'_, P>,
    before: usize,
    earlier: &mut impl Earlier<P>,
) -> Result<Plans, AppendError> {
    let mut plans = Plans::with_capacity(drafts.len());
    for (at, (draft, repeat)) in drafts.iter().zip(repeats_within(drafts)?).enumerate() {
        plans.push(match repeat {
            Some(of) => Some(Repeat::Of(before + of)),
            None => plan_one(at, draft, earlier)?,
        });
    }
    check_finished(drafts, topics, &plans, earlier)?;
    Ok(plans)
}

fn plan_one<P: Payload>(
    at: usize,
    draft: &Draft<P>,
    earlier: &mut impl Earlier<P>,
) -> Result<Option<Repeat>, AppendError> {
    let repeat = |known: (Fingerprint, Repeat), other| {
        if known.0 == draft.fingerprint { Ok(Some(known.1)) } else { Err(other) }
    };
    let by_key = draft.key.as_ref().map(|key| earlier.key(key)).transpose()?;
    if let Some(known) = by_key.flatten() {
        return repeat(known, AppendError::KeyReused { draft: at });
    }
    let by_id = draft.id.as_ref().map(|id| earlier.id(id)).transpose()?.flatten();
    by_id.map_or(Ok(None), |known| repeat(known, AppendError::IdTaken { draft: at }))
}

/// For each draft, the earlier draft of the same batch that it repeats, if any.
fn repeats_within<P: Payload>(
    drafts: &[Draft<P>],
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

/// Refuses the batch if a topic of a new draft is already finished, or is finished by an earlier
/// draft.
fn check_finished<P: Payload>(
    drafts: &[Draft<P>],
    topics: &DraftTopics<'_, P>,
    plans: &Plans,
    earlier: &impl Earlier<P>,
) -> Result<(), AppendError> {
    let mut finishing = HashSet::new();
    for (at, ((draft, topics), plan)) in drafts.iter().zip(&topics.topics).zip(plans).enumerate() {
        if plan.is_some() {
            continue;
        }
        let finished = |topic: &Arc<Topic<P>>| {
            topic.finished().is_some()
                || finishing.contains(&topic.identity())
                || earlier.is_finishing(topic)
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
