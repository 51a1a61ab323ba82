//! The smallest log that a node can feed: it keeps every event in a map.

use std::collections::{BTreeMap, HashMap, HashSet};

use downlink_cluster::{
    Applied, FedLog, History, HistoryStart, Mark, Plan, Position, Record, Refusal, Rules,
};
use downlink_log::{
    Address, Fingerprint, IdempotencyKey, Offset, Topic,
    store::{Link, StoredEvent},
};

/// A position with its mark, and the offsets and numbers of its events.
pub(crate) type AppliedEvents = (Position, Mark, Vec<(u64, u64)>);

#[derive(Clone, Debug, Default)]
pub(crate) struct ModelLog {
    pub(crate) events: BTreeMap<u64, StoredEvent>,
    keys: HashMap<IdempotencyKey, (Fingerprint, Offset)>,
    ids: HashMap<Box<str>, (Fingerprint, Offset)>,
    finished: HashSet<Topic>,
    /// The links that a cache would keep.
    links: Vec<Link>,
    /// The states of the hub that a cache would keep, each with its position.
    states: Vec<(Position, Vec<u8>)>,
    /// This number rises each time the log ends its readers.
    pub(crate) life: u64,
    /// The positions that were applied since the check last took this list, with the offsets of
    /// their events.
    pub(crate) applied: Vec<AppliedEvents>,
    /// All calls of the log, with its answers.
    pub(crate) calls: Vec<Call>,
}

/// A call of a log, with the answer.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Plan(Vec<Record>, Result<Plan, Refusal>),
    Apply(Applied),
    /// Remove the events from the offset on. The answer has the ids of publishers.
    CutTo(Offset, Vec<Box<str>>),
    Restart(Option<HistoryStart>),
    /// The cache was deleted.
    Delete,
    /// A power cut has removed the events from the offset on.
    PowerCut(Offset),
    /// The node was started again. The cache has kept these links and this state.
    Reopen(Vec<Link>, Option<Vec<u8>>),
}

impl ModelLog {
    fn add(&mut self, event: StoredEvent) {
        let known = (event.fingerprint, event.offset);
        if let Some(key) = event.key.clone() {
            self.keys.entry(key).or_insert(known);
        }
        if let Some(id) = event.id.clone() {
            self.ids.entry(id).or_insert(known);
        }
        for topic in event.to.iter().filter_map(Address::topic) {
            if event.finish {
                self.finished.insert(topic.clone());
            } else {
                self.finished.remove(topic);
            }
        }
        self.events.insert(event.offset.get(), event);
    }

    /// Removes the events from `offset` on, as a power cut of a cache does. Returns the ids that
    /// publishers gave to them.
    fn forget_from(&mut self, offset: Offset) -> Vec<Box<str>> {
        let removed = self.events.range(offset.get()..);
        let ids: Vec<Box<str>> = removed.filter_map(|(_, event)| event.id.clone()).collect();
        self.calls.push(Call::CutTo(offset, ids.clone()));
        let (events, calls) = (std::mem::take(&mut self.events), std::mem::take(&mut self.calls));
        let (links, states) = (std::mem::take(&mut self.links), std::mem::take(&mut self.states));
        *self = Self { life: self.life + 1, calls, links, states, ..Self::default() };
        events.into_values().filter(|event| event.offset < offset).for_each(|e| self.add(e));
        ids
    }

    /// Removes everything, as if the cache had been deleted.
    pub(crate) fn forget_all(&mut self) {
        self.forget_from(Offset::FIRST);
        self.links.clear();
        self.states.clear();
        self.calls.pop();
        self.calls.push(Call::Delete);
    }

    /// Notes that the node is started again.
    pub(crate) fn reopen(&mut self) {
        self.life += 1;
        let state = self.states.last().map(|(_, state)| state.clone());
        self.calls.push(Call::Reopen(self.links.clone(), state));
    }

    /// Removes the newest positions, as a power cut of a cache does. Returns whether the log has
    /// lost anything.
    pub(crate) fn lose_end(&mut self, positions: u64, history: &History) -> bool {
        let chain = history.chain();
        let last = chain.last().get().saturating_sub(positions);
        let last = Position::new(last).max(chain.first());
        let from = history.first_offset(last.next());
        self.forget_from(from);
        self.calls.pop();
        self.calls.push(Call::PowerCut(from));
        self.links.retain(|link| link.position <= last.get());
        self.states.retain(|(position, _)| *position <= last);
        last < chain.last()
    }

    /// The history that the cache has kept.
    pub(crate) fn history(&self, rules: &Rules) -> Option<History> {
        let (_, state) = self.states.last()?;
        History::restore(rules, state, self.links.iter().copied())
    }

    /// The offset of the event with a publisher's id.
    pub(crate) fn offset_of(&self, id: &str) -> Option<Offset> {
        self.ids.get(id).map(|(_, offset)| *offset)
    }

    fn decide(&self, records: &[Record]) -> Result<Plan, Refusal> {
        let (mut repeats, mut finishing) = (Vec::new(), HashSet::new());
        for (at, record) in records.iter().enumerate() {
            let by_key = record.key.as_ref().and_then(|key| self.keys.get(key));
            let by_id = record.id.as_ref().and_then(|id| self.ids.get(id));
            let repeat = match (by_key, by_id) {
                (Some((same, offset)), _) if *same == record.fingerprint => Some(*offset),
                (Some(_), _) => return Err(Refusal::KeyReused { record: at }),
                (None, Some((same, offset))) if *same == record.fingerprint => Some(*offset),
                (None, Some(_)) => return Err(Refusal::IdTaken { record: at }),
                (None, None) => None,
            };
            let topics = || record.to.iter().filter_map(Address::topic);
            let is_finished =
                |topic: &Topic| self.finished.contains(topic) || finishing.contains(&topic);
            if repeat.is_none() && topics().any(is_finished) {
                return Err(Refusal::Finished { record: at });
            }
            if repeat.is_none() && record.finish {
                finishing.extend(topics());
            }
            repeats.push(repeat);
        }
        Ok(Plan { repeats })
    }
}

/// The number in an event's payload.
pub(crate) fn serial_of(event: &StoredEvent) -> u64 {
    serial_of_payload(event.payload.as_deref())
}

pub(crate) fn serial_of_payload(payload: Option<&[u8]>) -> u64 {
    u64::from_le_bytes(payload.unwrap_or_default().try_into().unwrap())
}

impl FedLog for ModelLog {
    fn plan(&mut self, records: &[Record]) -> Result<Plan, Refusal> {
        let plan = self.decide(records);
        self.calls.push(Call::Plan(records.to_vec(), plan.clone()));
        plan
    }

    fn apply(&mut self, applied: Applied) {
        self.calls.push(Call::Apply(applied.clone()));
        let Applied { position, mark, time, events, state, .. } = applied;
        self.links.push(Link { position: position.get(), mark: mark.get(), time });
        self.states.extend(state.map(|state| (position, state)));
        let shown = events.iter().map(|event| (event.offset.get(), serial_of(event))).collect();
        self.applied.push((position, mark, shown));
        events.into_iter().for_each(|event| self.add(event));
    }

    fn cut_to(&mut self, last: Position, removed_from: Offset) -> Vec<Box<str>> {
        self.links.retain(|link| link.position <= last.get());
        // A cut keeps the newest state.
        self.states.iter_mut().for_each(|(position, _)| *position = last.min(*position));
        let applied = std::mem::take(&mut self.applied);
        let ids = self.forget_from(removed_from);
        self.applied = applied;
        ids
    }

    fn restart(&mut self, start: Option<&HistoryStart>) {
        self.calls.push(Call::Restart(start.cloned()));
        let (applied, calls) = (std::mem::take(&mut self.applied), std::mem::take(&mut self.calls));
        *self = Self { life: self.life + 1, applied, calls, ..Self::default() };
    }

    fn publisher_id(&mut self, id: &str) -> Option<Offset> {
        self.offset_of(id)
    }
}
