//! A reader of a fault run: it hops between the nodes with its last event id, and records
//! everything that it gets.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use downlink_proto::{DecodedEvent, Decoder, Item};
use fastrand::Rng;
use tokio::time::{sleep, timeout};

use super::Run;
use crate::{
    ledger::END,
    socket::{Connection, Progress},
};

/// A step in the record of a reader.
#[derive(Debug)]
pub(super) enum Step {
    /// The reader connects to this node with this last event id.
    Visit {
        at: Instant,
        node: usize,
        last: String,
    },
    Opened {
        id: Option<String>,
    },
    Event {
        id: String,
        data: String,
    },
    Gap {
        id: String,
        reason: String,
        body: String,
    },
    Ended(Progress),
}

/// One subscriber over all its connections.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) topics: BTreeSet<String>,
    rng: Rng,
    decoder: Decoder,
    pub(super) steps: Vec<Step>,
    has_end: bool,
}

impl Reader {
    pub(super) fn new(name: String, query: String, topics: BTreeSet<String>, rng: Rng) -> Self {
        let (decoder, steps) = (Decoder::default(), Vec::new());
        Self { name, query, topics, rng, decoder, steps, has_end: false }
    }

    /// Hops until the reader has the last event of the run.
    pub(super) async fn read(mut self, run: Arc<Run>) -> Self {
        while !self.has_end {
            self.visit(&run).await;
            // After the last event is published, each node can serve the reader up to this event.
            // So the pauses are short.
            let pause_max = if run.has_end() { 20 } else { 200 };
            sleep(Duration::from_millis(self.rng.u64(0..pause_max))).await;
        }
        self
    }

    /// Reads from one node. The visit ends after a random number of bytes or a random silence.
    async fn visit(&mut self, run: &Run) {
        let node = self.rng.usize(0..run.nodes.len());
        let last = self.decoder.last_event_id().to_owned();
        self.steps.push(Step::Visit { at: Instant::now(), node, last: last.clone() });
        let query = match last.is_empty() {
            true => format!("{}&start=earliest", self.query),
            false => self.query.clone(),
        };
        let asked = Connection::ask(run.nodes[node], &query, &last);
        let connection = timeout(Duration::from_secs(1), asked).await;
        let Ok(Ok(mut connection)) = connection else { return };
        let mut left = match self.rng.u8(0..10) {
            0..3 => self.rng.usize(0..1_000),
            3..9 => self.rng.usize(0..20_000),
            _ => usize::MAX,
        };
        let silence_max = Duration::from_millis(self.rng.u64(100..2_500));
        while left > 0 || run.has_end() {
            let most = if run.has_end() { usize::MAX } else { left };
            let silence_max = if run.has_end() { Duration::from_secs(15) } else { silence_max };
            let read = timeout(silence_max, connection.read(most, &mut self.decoder)).await;
            let Ok((read, progress)) = read else { break };
            self.take_items();
            if let Progress::Refused(head) = &progress {
                assert!(head.starts_with("http/1.1 503 "), "{}: {head}", self.name);
                assert!(head.contains("\r\nretry-after: "), "{}: {head}", self.name);
            }
            if progress != Progress::Open || self.has_end {
                self.steps.push(Step::Ended(progress));
                break;
            }
            left = left.saturating_sub(read);
        }
        self.decoder.handle_end();
    }

    fn take_items(&mut self) {
        while let Some(item) = self.decoder.poll_item() {
            let Item::Event(event) = item else { continue };
            if let Some(step) = self.step(event) {
                self.steps.push(step);
            }
        }
    }

    fn step(&mut self, event: DecodedEvent) -> Option<Step> {
        let id = event.last_event_id.to_string();
        match &*event.event_type {
            "downlink.alive" => None,
            "downlink.open" => Some(Step::Opened { id: event.has_own_id.then_some(id) }),
            "downlink.gap" => {
                let body: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                let reason = body["reason"].as_str().expect("a reason").to_owned();
                Some(Step::Gap { id, reason, body: event.data })
            }
            "message" => {
                self.has_end |= event.data.starts_with(END);
                Some(Step::Event { id, data: event.data })
            }
            other => panic!("{}: the type {other}", self.name),
        }
    }

    /// All ids that the reader has got, and where it has got each of them.
    pub(super) fn ids(&self, run: &Run) -> Vec<(&str, String)> {
        let (mut from, mut ids) = (String::new(), Vec::new());
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Visit { at, node, .. } => {
                    from = format!("{} at node {node} at {:.3} s", self.name, run.since(*at));
                }
                Step::Opened { id: Some(id) } => ids.push((&**id, format!("{from}, opened"))),
                Step::Event { id, data } => ids.push((id, format!("{from}, step {at}, {data}"))),
                Step::Gap { .. } | Step::Opened { id: None } | Step::Ended(_) => {}
            }
        }
        ids
    }

    pub(super) fn count(&self, is_counted: impl Fn(&Step) -> bool) -> usize {
        self.steps.iter().filter(|step| is_counted(step)).count()
    }

    /// The steps around this one, for the message of a failed test.
    pub(super) fn story(&self, around: usize, run: &Run) -> String {
        let from = around.saturating_sub(20);
        let mut text = format!("{} ({}):\n", self.name, self.query);
        for (at, step) in self.steps.iter().enumerate().skip(from).take(40) {
            let line = match step {
                Step::Visit { at, node, last } => {
                    format!("{:.3} s: connects to {node} with {last:?}", run.since(*at))
                }
                Step::Opened { id } => format!("opened at {id:?}"),
                Step::Event { id, data } => format!("event {id} {data}"),
                Step::Gap { id, body, .. } => format!("gap at {id}: {body}"),
                Step::Ended(progress) => format!("{progress:?}"),
            };
            let mark = if at == around { ">" } else { " " };
            text += &format!("{mark} {at} {line}\n");
        }
        for (at, step) in self.steps.iter().enumerate() {
            if let Step::Gap { id, body, .. } = step {
                text += &format!("gap in step {at} at {id}: {body}\n");
            }
        }
        text
    }
}
