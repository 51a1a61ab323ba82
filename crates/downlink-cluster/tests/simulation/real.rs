//! Repeats the calls that the log of a node got in a run, with the real log. The real log must give
//! the same answers, and must have the same events with the same ids.

use std::{collections::BTreeMap, time::Duration};

use downlink_cluster::{HistoryStart, Node, Plan, Record, Refusal};
use downlink_log::{
    AppendError, Applied, Applier, ClockState, Cursor, Draft, Drafts, Epoch, Floor, KEY_WINDOW,
    Log, LogOptions, Offset, POSITION_OFFSETS, Payload, Retention, RetentionRules, StoreOptions,
    Stored, Timestamp,
    store::{FeedChunk, FeedStart, Link, Marks, NodeState},
};

use super::model::{Call, ModelLog};

/// A payload with its bytes and the id that its publisher chose.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>, Option<Box<str>>);

impl Payload for Bytes {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn publisher_id(&self) -> Option<&str> {
        self.1.as_deref()
    }
}

/// How the real log differs from the model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Difference(pub(crate) String);

struct RealLog {
    log: Log<Bytes>,
    applier: Applier<Bytes>,
    /// The latest time of an event.
    at: Timestamp,
}

/// Repeats the calls that the log of `node` got, and compares the events at the end.
pub(crate) fn repeat(node: &Node<ModelLog>) -> Result<(), Difference> {
    let mut real = RealLog::new();
    let mut times = BTreeMap::new();
    for call in &node.log().calls {
        match call {
            Call::Plan(records, answer) => real.compare_plan(records, answer, &times)?,
            Call::Apply(applied) => {
                times.extend(applied.events.iter().map(|event| (event.offset, event.at)));
                real.apply(applied);
            }
            Call::CutTo(from, ids) => {
                let mut removed = real.applier.cut_to(*from);
                let mut ids = ids.clone();
                removed.sort();
                ids.sort();
                if removed != ids {
                    return Err(Difference(format!("removed ids: {removed:?}, {ids:?}")));
                }
            }
            Call::Restart(start) => real.begin(start.as_ref()),
        }
    }
    real.compare_events(node)
}

impl RealLog {
    fn new() -> Self {
        let default = Retention { events_max: usize::MAX, bytes_max: usize::MAX, age_max: None };
        let retention = RetentionRules {
            default,
            inbox: default,
            everyone: default,
            finished_keep: Duration::from_secs(1 << 30),
            ..RetentionRules::default()
        };
        let options = LogOptions { retention, ..LogOptions::new(Epoch::from_random(7)) };
        let decode = |stored: Stored| Some(Bytes(stored.payload, stored.publisher_id));
        let side = StoreOptions::new(decode, ClockState::default);
        let (log, applier) = Log::replica(options, side, None).unwrap();
        Self { log, applier, at: Timestamp::default() }
    }

    /// Begins a history. If its start is not known yet, the log becomes empty.
    fn begin(&mut self, start: Option<&HistoryStart>) {
        let (epochs, from) =
            start.map_or((Vec::new(), Offset::FIRST), |start| (start.epochs.clone(), start.first));
        assert!(self.applier.begin(FeedStart { epochs, from, resumed: false }));
    }

    fn apply(&mut self, applied: &downlink_cluster::Applied) {
        let first = applied.first.get();
        let position = applied.position.get();
        let link = Link { position, mark: applied.mark.get(), time: applied.time };
        let next = Offset::new(first + POSITION_OFFSETS);
        // The node knows no events of a position that it does not show.
        let floor = Floor { offset: next, at: self.at };
        self.at = applied.events.iter().map(|event| event.at).fold(self.at, Timestamp::max);
        let chunk = FeedChunk {
            floors: Vec::new(),
            others: if applied.is_shown { Floor::NONE } else { floor },
            events: applied.events.clone(),
            next,
            clock: ClockState { at: self.at, delta_ms: 0 },
            marks: Marks {
                base: first - position * POSITION_OFFSETS,
                first: position,
                marks: vec![applied.mark.in_log()],
            },
            node: Some(NodeState { hub: applied.state.clone(), links: vec![link] }),
        };
        assert_eq!(self.applier.apply(chunk), Applied::Next);
        if let Some(ends) = &applied.lost_ends {
            self.applier.set_lost_ends(ends.clone());
        }
    }

    fn compare_plan(
        &self,
        records: &[Record],
        answer: &Result<Plan, Refusal>,
        times: &BTreeMap<Offset, Timestamp>,
    ) -> Result<(), Difference> {
        let drafts: Drafts<Bytes> = records.iter().map(draft).collect();
        let own = match self.applier.plan(self.at, &drafts) {
            Ok(repeats) => Ok(Plan { repeats: repeats.to_vec() }),
            Err(AppendError::KeyReused { draft }) => Err(Refusal::KeyReused { record: draft }),
            Err(AppendError::IdTaken { draft }) => Err(Refusal::IdTaken { record: draft }),
            Err(AppendError::Finished { draft }) => Err(Refusal::Finished { record: draft }),
            Err(error) => return Err(Difference(format!("the real log refuses: {error}"))),
        };
        // The model never forgets a key.
        let is_forgotten =
            |offset: &Offset| times.get(offset).is_some_and(|at| at.after(KEY_WINDOW) <= self.at);
        let forgets =
            answer.as_ref().is_ok_and(|plan| plan.repeats.iter().flatten().any(is_forgotten));
        if own == *answer || forgets {
            return Ok(());
        }
        Err(Difference(format!("a plan: {own:?}, {answer:?}")))
    }

    fn compare_events(&self, node: &Node<ModelLog>) -> Result<(), Difference> {
        for id in node.log().events.values().filter_map(|event| event.id.as_deref()) {
            let [own, expected] = [self.applier.publisher_id(id), node.log().offset_of(id)];
            if own != expected {
                return Err(Difference(format!("the id {id}: {own:?}, {expected:?}")));
            }
        }
        let mut own = BTreeMap::new();
        let mut feed = self.log.feed(None, |payload| payload.0.clone());
        while feed.next() < feed.tail() {
            let chunk = feed.read(ClockState::default()).unwrap().expect("the log is open");
            for event in chunk.events.into_iter().filter(|event| event.payload.is_some()) {
                let id = self.log.id_of(event.offset).to_string();
                own.insert(event.offset, (id, event.payload, event.id));
            }
        }
        let events = node.log().events.iter().filter(|(_, event)| event.payload.is_some());
        let expected: BTreeMap<_, _> = events
            .map(|(offset, event)| {
                let offset = Offset::new(*offset);
                let id = node.id(offset).map(|id| id.to_string()).unwrap_or_default();
                (offset, (id, event.payload.clone(), event.id.clone()))
            })
            .collect();
        let differs = |offset: &&Offset| own.get(*offset) != expected.get(*offset);
        match own.keys().chain(expected.keys()).find(differs) {
            None => Ok(()),
            Some(at) => {
                let [own, expected] = [own.get(at), expected.get(at)];
                Err(Difference(format!("the event at {at:?}: {own:?}, {expected:?}")))
            }
        }
    }
}

fn draft(record: &Record) -> Draft<Bytes> {
    let payload = record.payload.clone();
    Draft {
        to: record.to.iter().cloned().collect(),
        id: record.id.clone(),
        key: record.key.clone(),
        fingerprint: record.fingerprint,
        finish: record.finish,
        body: None,
        payload: payload.map(|payload| Bytes(payload, record.id.clone())),
    }
}
