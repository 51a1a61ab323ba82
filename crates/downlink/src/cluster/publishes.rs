//! The publishes that the node has, until they have their outcome.

use std::{collections::HashMap, sync::Arc};

use downlink_cluster::{Answer, HubKey, Node, Publish, PublishId, Record, Refusal};
use downlink_log::{Address, Answers, AppendError, Fingerprint, IdempotencyKey, Timestamp};

use super::log::ClusterLog;
use crate::hub::{PublishQueue, Queued, fingerprint_content};

/// The publishes that the node has.
pub(super) struct Publishes {
    queue: Arc<PublishQueue>,
    open: HashMap<PublishId, Open>,
}

/// A publish that the node has.
struct Open {
    /// The publish, which takes room in the queue until it has its outcome.
    queued: Queued,
    /// The addresses of each event that the node has.
    to: Vec<Vec<Address>>,
    /// For each event of the publish, the index of the event that the node has for it. That is the
    /// same event, or an earlier event that it repeats.
    places: Vec<usize>,
}

impl Publishes {
    pub(super) fn new(queue: Arc<PublishQueue>) -> Self {
        Self { queue, open: HashMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Gives a publish to the node.
    pub(super) fn publish<T: Send + Sync + 'static>(
        &mut self,
        now: Timestamp,
        node: &mut Node<ClusterLog<T>>,
        mut queued: Queued,
    ) {
        let mut records = std::mem::take(&mut queued.records);
        if let Some(history) = node.history() {
            fingerprint(history.key(), &mut records);
        }
        let (places, records) = without_repeats(records);
        let to = records.iter().map(|record| record.to.clone()).collect();
        let id = node.publish(now, Publish { records, stream: queued.stream });
        self.open.insert(id, Open { queued, to, places });
    }

    /// Tells the publisher the answer of the node.
    pub(super) fn answer<T: Send + Sync + 'static>(
        &mut self,
        log: &ClusterLog<T>,
        id: PublishId,
        answer: Answer,
    ) {
        let Some(open) = self.open.remove(&id) else { return };
        let outcome = open.outcome(log, answer);
        open.queued.outcome.resolve(outcome);
        self.queue.release(open.queued.size);
    }
}

impl Open {
    fn outcome<T: Send + Sync + 'static>(
        &self,
        log: &ClusterLog<T>,
        answer: Answer,
    ) -> Result<Answers, AppendError> {
        // The node refuses a publish because of one of the events that the node has. This finds the
        // first event of the publish for which the node has that event.
        let draft = |record| self.places.iter().position(|place| *place == record).unwrap_or(0);
        match answer {
            Answer::Applied { events } => {
                let answers: Vec<_> = events
                    .iter()
                    .zip(&self.to)
                    .map(|(event, to)| log.applier.answer(*event, to))
                    .collect();
                let mut seen = 0;
                let of_event = |place: &usize| {
                    let answer = answers.get(*place).copied()?;
                    let is_first = *place == seen;
                    seen += usize::from(is_first);
                    Some(downlink_log::Appended {
                        repeated: answer.repeated || !is_first,
                        ..answer
                    })
                };
                let all: Option<Answers> = self.places.iter().map(of_event).collect();
                all.ok_or(AppendError::OutcomeUnknown)
            }
            Answer::Refused(Refusal::KeyReused { record }) => {
                Err(AppendError::KeyReused { draft: draft(record) })
            }
            Answer::Refused(Refusal::IdTaken { record }) => {
                Err(AppendError::IdTaken { draft: draft(record) })
            }
            Answer::Refused(Refusal::Finished { record }) => {
                Err(AppendError::Finished { draft: draft(record) })
            }
            Answer::Refused(_) => {
                Err(AppendError::TooManyTopics { draft: 0, topics_max: log.applier.topics_max() })
            }
            Answer::TooLarge => Err(AppendError::EntryTooLarge),
            Answer::Unavailable { appended: false } => Err(AppendError::EngineAway),
            Answer::Full => Err(AppendError::EngineFull),
            _ => Err(AppendError::OutcomeUnknown),
        }
    }
}

/// Computes the fingerprints of the events that may be repeated.
fn fingerprint(key: &HubKey, records: &mut [Record]) {
    for record in records.iter_mut().filter(|record| record.id.is_some() || record.key.is_some()) {
        record.fingerprint = key.fingerprint(&fingerprint_content(record));
    }
}

/// Removes the events that repeat an earlier event of the same publish. Returns the events that
/// stay, and for each event of the publish the index of the event that stays for it. Events with
/// the same key or id and another content stay: the log refuses them.
fn without_repeats(records: Vec<Record>) -> (Vec<usize>, Vec<Record>) {
    if records.len() == 1 {
        return (vec![0], records);
    }
    let mut by_key: HashMap<IdempotencyKey, (usize, Fingerprint)> = HashMap::new();
    let mut by_id: HashMap<Box<str>, (usize, Fingerprint)> = HashMap::new();
    let (mut places, mut kept) = (Vec::with_capacity(records.len()), Vec::new());
    for record in records {
        let known = record.key.as_ref().and_then(|key| by_key.get(key));
        let known = known.or_else(|| record.id.as_ref().and_then(|id| by_id.get(id)));
        if let Some((place, _)) = known.filter(|(_, known)| *known == record.fingerprint) {
            places.push(*place);
            continue;
        }
        let noted = (kept.len(), record.fingerprint);
        by_key.extend(record.key.clone().map(|key| (key, noted)));
        by_id.extend(record.id.clone().map(|id| (id, noted)));
        places.push(kept.len());
        kept.push(record);
    }
    (places, kept)
}
