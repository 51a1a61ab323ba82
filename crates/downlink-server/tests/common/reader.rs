//! A reader hops between the servers: it connects to one at random, reads for a while, connects to
//! another one with its last id, and records what it gets.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use downlink_proto::{DecodedEvent, Decoder, Item};
use fastrand::Rng;
use tokio::time::{sleep, timeout};

use crate::{
    ledger::{END, Got, Hole, Life, Restarts},
    socket::{Connection, Progress},
};

/// The number of steps of a reader that a failed test shows.
const STEPS_SHOWN: usize = 40;

/// The state that the readers and publishers of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) restarts: Restarts,
    began: Instant,
    /// Whether publishing is over. The readers then read to the last event.
    is_over: AtomicBool,
    /// The number of readers that have a last event id.
    arrived: AtomicUsize,
}

impl Run {
    pub(crate) fn new(servers: Vec<SocketAddr>, restarts: Restarts) -> Arc<Self> {
        let (is_over, arrived) = (AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Self { servers, restarts, began: Instant::now(), is_over, arrived })
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }
}

/// One subscriber over all its connections.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) name: String,
    query: String,
    pub(crate) topics: BTreeSet<String>,
    rng: Rng,
    decoder: Decoder,
    /// The events and gaps of the reader. There is one record for each history that the servers
    /// have had.
    pub(crate) lives: Vec<Life>,
    /// Whether the last event was a `downlink.open` without an id. Only a gap may follow such an
    /// event.
    owed_a_gap: bool,
    pub(crate) has_end: bool,
    pub(crate) connections: usize,
    /// The number of streams that a server has refused with 503.
    pub(crate) refusals: usize,
    /// The last steps of the reader, for the message of a failed test.
    steps: VecDeque<String>,
}

impl Reader {
    pub(crate) fn new(name: String, query: String, topics: BTreeSet<String>, rng: Rng) -> Self {
        Self {
            name,
            query,
            topics,
            rng,
            decoder: Decoder::default(),
            lives: Vec::new(),
            owed_a_gap: false,
            has_end: false,
            connections: 0,
            refusals: 0,
            steps: VecDeque::new(),
        }
    }

    /// Hops until the reader has the last event of the run.
    pub(crate) async fn read(mut self, run: Arc<Run>) -> Self {
        while !self.has_end {
            self.visit(&run).await;
            if !run.is_over() {
                sleep(Duration::from_millis(self.rng.u64(0..300))).await;
            }
        }
        self
    }

    /// Reads from one server. While events are published, the visit ends after a random number of
    /// bytes or a random silence.
    async fn visit(&mut self, run: &Run) {
        let at = self.rng.usize(0..run.servers.len());
        let last = self.decoder.last_event_id().to_owned();
        self.note(run, format!("{}: connects to {at} with {last:?}", self.connections + 1));
        let asked = Connection::ask(run.servers[at], &self.query, &last);
        let connection = timeout(Duration::from_secs(1), asked).await;
        let Ok(Ok(mut connection)) = connection else { return };
        self.owed_a_gap = false;
        self.connections += 1;
        let mut left = match self.rng.u8(0..10) {
            0..3 => self.rng.usize(0..1_000),
            3..9 => self.rng.usize(0..20_000),
            _ => usize::MAX,
        };
        let silence_max = Duration::from_millis(self.rng.u64(100..3_000));
        while left > 0 || run.is_over() {
            let most = if run.is_over() { usize::MAX } else { left };
            let silence_max = if run.is_over() { Duration::from_secs(5) } else { silence_max };
            let read = timeout(silence_max, connection.read(most, &mut self.decoder)).await;
            let Ok((read, progress)) = read else { break };
            self.take_items(run);
            if let Progress::Refused(head) = &progress {
                assert!(head.starts_with("http/1.1 503 "), "{}: {head}", self.name);
                assert!(head.contains("\r\nretry-after: "), "{}: {head}", self.name);
                self.refusals += 1;
            }
            if progress != Progress::Open || self.has_end {
                self.note(run, format!("{progress:?}"));
                break;
            }
            left = left.saturating_sub(read);
        }
        self.decoder.handle_end();
    }

    fn take_items(&mut self, run: &Run) {
        while let Some(item) = self.decoder.poll_item() {
            if let Item::Event(event) = item {
                self.take(&event, run);
            }
        }
    }

    fn take(&mut self, event: &DecodedEvent, run: &Run) {
        let owed_a_gap = std::mem::take(&mut self.owed_a_gap);
        let is_gap = event.event_type == "downlink.gap";
        assert!(is_gap || !owed_a_gap, "a gap must follow an open without id: {}", self.story());
        match &*event.event_type {
            "downlink.open" if !event.has_own_id => {
                assert!(
                    !self.lives.is_empty(),
                    "a reader without an id must get an id first: {}",
                    self.story()
                );
                self.owed_a_gap = true;
            }
            "downlink.open" if self.lives.is_empty() => {
                self.begin(event, run);
                run.arrived.fetch_add(1, Ordering::Relaxed);
            }
            "downlink.open" | "downlink.alive" if event.has_own_id => {
                self.move_to(event, run);
            }
            "downlink.open" | "downlink.alive" => {}
            "downlink.gap" => self.take_gap(event, run),
            "message" => {
                let offset = self.move_to(event, run);
                self.has_end |= event.data.starts_with(END);
                let life = self.lives.last_mut().expect("a reader begins with an id");
                let over = self.connections;
                life.events.push(Got { offset, data: event.data.clone(), over });
            }
            other => panic!("{}: the type {other}", self.name),
        }
    }

    /// Begins the record of a history.
    fn begin(&mut self, event: &DecodedEvent, run: &Run) {
        let (history, since) = run.restarts.split(&event.last_event_id);
        let is_unknown = self.lives.iter().all(|life| life.history != history);
        assert!(is_unknown, "the reader comes back to {history}: {}", self.story());
        let (events, holes) = (Vec::new(), Vec::new());
        let is_new = !self.lives.is_empty();
        self.lives.push(Life { history, since, is_new, position: since, events, holes });
    }

    fn take_gap(&mut self, event: &DecodedEvent, run: &Run) {
        self.note(run, format!("gap {:?} {}", event.last_event_id, event.data));
        let gap: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        let story = self.story();
        let life = self.lives.last_mut().expect("a reader gets a gap after its first id");
        let (history, after) = run.restarts.split(gap["after"].as_str().expect("an id"));
        assert_eq!(history, life.history, "{story}");
        match gap["reason"].as_str() {
            Some("evicted" | "lagged") => {
                let until = run.restarts.split(gap["until"].as_str().expect("an id")).1;
                let events_before = life.events.len();
                life.holes.push(Hole { after, until, events_before, over: self.connections });
                self.move_to(event, run);
            }
            Some("new_epoch") if run.restarts == Restarts::LoseHistory => self.begin(event, run),
            _ => panic!("an unexpected gap {gap}: {story}"),
        }
    }

    /// Moves the reader to the id of this event, and returns the offset in it.
    fn move_to(&mut self, event: &DecodedEvent, run: &Run) -> u64 {
        let (history, offset) = run.restarts.split(&event.last_event_id);
        let (position, of_life) = match self.lives.last() {
            Some(life) => (life.position, life.history.clone()),
            None => panic!("an event before the first id: {}", self.story()),
        };
        assert_eq!(history, of_life, "{event:?}: {}", self.story());
        assert!(offset >= position, "{event:?} is before {position}: {}", self.story());
        self.lives.last_mut().expect("the life exists").position = offset;
        offset
    }

    fn note(&mut self, run: &Run, step: String) {
        if self.steps.len() == STEPS_SHOWN {
            self.steps.pop_front();
        }
        self.steps.push_back(format!("{:.3} s: {step}", run.began.elapsed().as_secs_f64()));
    }

    /// The last steps of the reader.
    pub(crate) fn story(&self) -> String {
        let steps: Vec<&str> = self.steps.iter().map(String::as_str).collect();
        format!("{} ({}):\n{}", self.name, self.query, steps.join("\n"))
    }
}
