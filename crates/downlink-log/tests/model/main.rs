//! Compares a log with a naive model of it. Each run makes a random list of operations (publishes,
//! connections, reads and so on), and applies it to a log with small limits and to the model.
//!
//! The model keeps everything in plain maps and computes each result from scratch. At every step,
//! the log must give the same answers, events, gaps and sizes as the model. A second check looks at
//! all connections of each client. Every event for the client must be delivered once, or lie in a
//! gap that was reported to the client.
#![cfg(not(downlink_loom))]

mod naive;
mod program;
mod relay;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use downlink_log::{
    Address, Answers, AppendError, Appended, Batch, Cursor, Draft, EndReason, Entry, Epoch,
    Fingerprint, Gap, Log, LogOptions, Next, OpenError, Payload, Read, Reader, Selection, Start,
    Submitted, Timestamp, TopicSelector,
};
use naive::Naive;
use program::{Op, Target, limits, retention};
use proptest::prelude::*;

/// A payload of a given size, with or without an id.
#[derive(Clone, Debug)]
struct Load {
    bytes: usize,
    id: Option<Box<str>>,
}

impl Payload for Load {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn publisher_id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

const ALL: Batch = Batch { events_max: usize::MAX, bytes_max: usize::MAX };

fn epoch() -> Epoch {
    Epoch::from_random(7)
}

/// One client across all its connections.
struct Client {
    reader: Option<Reader<Load>>,
    naive: Option<naive::Reader>,
    selection: Selection,
    last_id: Option<String>,
    /// The offsets of the events that must be delivered to the client or lie in a gap. The set has
    /// all events for the client from the start of the client's first connection on.
    wanted: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    gaps: Vec<(u64, u64)>,
}

struct World {
    log: Log<Load>,
    naive: Naive,
    clients: BTreeMap<u8, Client>,
    now: u64,
    /// A reader of many further topics, to which nothing is published. With so many topics, a
    /// reader of a pattern searches a list of all events instead of each topic. Only some runs have
    /// this reader.
    _crowd: Option<Reader<Load>>,
}

impl World {
    fn new(has_crowd: bool) -> Self {
        let mut options = LogOptions::new(epoch());
        options.limits = limits();
        options.retention = retention(0);
        let (log, naive, now) = (Log::new(options), Naive::new(), 1_000);
        let crowd = has_crowd.then(|| {
            let names = program::crowd();
            let selectors = names.iter().map(|name| TopicSelector::parse(name).expect("valid"));
            let selection = Selection { selectors: selectors.collect(), client: None };
            naive.open(now, &selection, &Start::Live).expect("within the limits");
            log.open(Timestamp::from_millis(now), &selection, &Start::Live)
                .expect("within the limits")
        });
        Self { log, naive, clients: BTreeMap::new(), now, _crowd: crowd }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Append { targets, bytes, id, finish } => self.append(targets, *bytes, *id, *finish),
            Op::Finish { target } => self.finish(target),
            Op::Connect { client, start } => self.connect(*client, start.clone()),
            Op::Drop { client } => self.drop_connection(*client),
            Op::Read { client, events_max } => self.read(*client, *events_max),
            Op::Advance { ms } => self.now += ms,
            Op::SetRetention { rules } => {
                self.log.set_retention(self.now(), retention(*rules));
                self.naive.set_retention(self.now, retention(*rules));
            }
        }
        self.compare_sizes();
    }

    fn append(&mut self, targets: &[Target], bytes: usize, id: Option<u8>, finish: bool) {
        let to: BTreeSet<Address> = targets.iter().map(Target::address).collect();
        let id: Option<Box<str>> = id.map(|id| format!("given-{id}").into());
        let fingerprint = Fingerprint::keyed(&[7; 16], format!("{to:?} {bytes}").as_bytes());
        let stamped_id = id.clone();
        let draft = Draft {
            to: to.iter().cloned().collect(),
            id: id.clone(),
            key: None,
            fingerprint,
            finish,
            body: None,
            payload: Some(Load { bytes, id: stamped_id }),
        };
        let got = self.log.append(self.now(), [draft].into_iter().collect()).map(answers);
        let want = self.naive.append(self.now, &to, bytes, id.as_deref(), finish);
        let got = got.map(|answers| answers[0]);
        assert_eq!(got, want);
        if let Ok(Appended { offset, repeated: false, .. }) = got {
            for client in self.clients.values_mut().filter(|client| client.last_id.is_some()) {
                if naive::wants(&client.selection, &to) {
                    client.wanted.insert(offset.get());
                }
            }
        }
    }

    fn finish(&mut self, target: &Target) {
        let to = BTreeSet::from([target.address()]);
        let draft = Draft {
            to: to.iter().cloned().collect(),
            id: None,
            key: None,
            fingerprint: Fingerprint::default(),
            finish: true,
            body: None,
            payload: None,
        };
        let got = self.log.append(self.now(), [draft].into_iter().collect()).map(answers);
        let want = self.naive.finish(self.now, &to);
        assert_eq!(got.map(|answers| answers[0]), want);
    }

    fn connect(&mut self, id: u8, start: Start) {
        if self.clients.get(&id).is_some_and(|client| client.reader.is_some()) {
            return;
        }
        let selection = program::selection(id);
        let last_id = self.clients.get(&id).and_then(|client| client.last_id.clone());
        let start = last_id.clone().map_or(start, |last| Start::After(last.into()));
        let got = self.log.open(self.now(), &selection, &start);
        let want = self.naive.open(self.now, &selection, &start);
        match (got, want) {
            (Ok(reader), Ok(naive)) => {
                assert_eq!(
                    reader.cursor().next.get(),
                    naive.next(),
                    "the log and the model begin at different offsets for {start:?}"
                );
                assert_eq!(reader.is_at_end(), self.naive.is_at_end(&naive));
                let client = self.clients.entry(id).or_insert_with(|| Client::new(selection));
                if client.last_id.is_none() {
                    client.last_id = Some(reader.cursor().to_string());
                    // Each event that the log keeps now must be delivered or lie in a reported
                    // gap.
                    client.wanted.extend(self.naive.kept_from(&client.selection, naive.start()));
                }
                client.reader = Some(reader);
                client.naive = Some(naive);
            }
            (got, want) => assert_eq!(got.err(), want.err()),
        }
    }

    fn drop_connection(&mut self, id: u8) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.reader = None;
        if let Some(naive) = client.naive.take() {
            self.naive.close(&naive);
        }
    }

    fn read(&mut self, id: u8, events_max: usize) {
        let now = self.now();
        let Some(client) = self.clients.get_mut(&id) else { return };
        let (Some(reader), Some(naive)) = (&mut client.reader, &mut client.naive) else { return };
        let mut out: Vec<Entry<Load>> = Vec::new();
        let next = if events_max == 1 { reader.read_next(|| now) } else { Next::Other };
        let got = match next {
            Next::Event(entry) => {
                out.push(entry);
                Read::Events
            }
            Next::CaughtUp => Read::CaughtUp,
            _ => reader.read(now, Batch { events_max, ..ALL }, &mut out),
        };
        let offsets: Vec<u64> = out.iter().map(|entry| entry.offset.get()).collect();
        let (want, want_offsets) = self.naive.read(self.now, naive, events_max);
        assert_eq!((&got, &offsets), (&want, &want_offsets));
        assert!(got != Read::CaughtUp || reader.lag(reader.cursor().next) == 0);
        client.note(&got, &offsets);
        if matches!(got, Read::Ended(_)) {
            self.drop_connection(id);
        }
    }

    fn compare_sizes(&self) {
        let got = self.log.totals(self.now());
        let want = self.naive.totals(self.now);
        assert_eq!(got, want);
    }

    /// Lets all clients read to the end. Each wanted event must be delivered or lie in a gap.
    fn settle(&mut self) {
        let ids: Vec<u8> = self.clients.keys().copied().collect();
        ids.iter().for_each(|&id| self.drop_connection(id));
        for id in ids {
            self.connect(id, Start::Live);
            if self.clients.get(&id).is_none_or(|client| client.reader.is_none()) {
                continue; // The log has refused the reader.
            }
            for _ in 0..10_000 {
                let Some(client) = self.clients.get_mut(&id) else { break };
                let Some(reader) = &mut client.reader else { break };
                let mut out = Vec::new();
                let got = reader.read(Timestamp::from_millis(self.now), ALL, &mut out);
                let offsets: Vec<u64> = out.iter().map(|entry| entry.offset.get()).collect();
                client.note(&got, &offsets);
                if matches!(got, Read::CaughtUp | Read::Ended(_)) {
                    break;
                }
            }
            if let Some(client) = self.clients.get(&id) {
                client.check_conservation();
            }
            self.drop_connection(id);
        }
    }
}

impl Client {
    fn new(selection: Selection) -> Self {
        Self {
            reader: None,
            naive: None,
            selection,
            last_id: None,
            wanted: BTreeSet::new(),
            delivered: BTreeSet::new(),
            gaps: Vec::new(),
        }
    }

    fn note(&mut self, read: &Read, offsets: &[u64]) {
        for &offset in offsets {
            assert!(self.delivered.insert(offset), "event {offset} was delivered twice");
            self.last_id = Some(id_of(offset));
        }
        if let Read::Gap(Gap { after, until: Some(until), next, .. }) = read {
            self.gaps.push((after.map_or(0, |after| after.get()), until.get()));
            self.last_id = Some(id_of(next.get() - 1));
        }
    }

    fn check_conservation(&self) {
        for offset in self.wanted.difference(&self.delivered) {
            let reported = self.gaps.iter().any(|(after, until)| after < offset && offset <= until);
            assert!(
                reported,
                "event {offset} was not delivered, and lies in no gap: {:?}",
                self.gaps
            );
        }
    }
}

/// The answers to a publish. A log in memory has no commits, so it answers at once.
fn answers(submitted: Submitted) -> Answers {
    match submitted {
        Submitted::Appended(answers) => answers,
        Submitted::Queued(_) => unreachable!("there is no store"),
    }
}

fn id_of(offset: u64) -> String {
    Cursor::parse_id(&format!("{}-{offset}", epoch())).expect("an id of the log").to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_gives_the_same_results_as_the_model(
        has_crowd: bool,
        ops in prop::collection::vec(program::op(), 1..120),
    ) {
        let mut world = World::new(has_crowd);
        for op in &ops {
            world.run(op);
        }
        world.settle();
    }
}

#[test]
fn a_closed_log_rejects_calls_and_its_readers_end_after_the_last_event() {
    let mut world = World::new(false);
    world.connect(0, Start::Live);
    world.append(&[Target::Topic(0)], 1, None, false);
    world.log.close();
    let client = world.clients.get_mut(&0).unwrap();
    let reader = client.reader.as_mut().unwrap();
    let mut out = Vec::new();
    let now = Timestamp::from_millis(world.now);
    assert_eq!(reader.read(now, ALL, &mut out), Read::Events);
    assert_eq!(out.len(), 1);
    out.clear();
    assert_eq!(reader.read(now, ALL, &mut out), Read::Ended(EndReason::Closed));
    let opened = world.log.open(now, &Selection::default(), &Start::Live);
    assert_eq!(opened.err(), Some(OpenError::Closed));
    let draft = Draft {
        to: [Address::Everyone].into_iter().collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        body: None,
        payload: Some(Load { bytes: 1, id: None }),
    };
    let appended = world.log.append(now, [draft].into_iter().collect()).map(answers);
    assert_eq!(appended.err(), Some(AppendError::Closed));
}

/// The reader takes one event per batch. In the index (the list of all events), it finds the row of
/// an event that was evicted before the reader was opened. The search must go on after this row.
#[test]
fn a_reader_that_reads_one_event_at_a_time_skips_rows_of_evicted_events() {
    let append = |target| Op::Append { targets: vec![target], bytes: 0, id: None, finish: false };
    let mut ops = vec![append(Target::Topic(4)), append(Target::Topic(2)), Op::Advance { ms: 30 }];
    ops.extend([Op::Connect { client: 3, start: Start::Earliest }, append(Target::Topic(0))]);
    ops.push(Op::Read { client: 3, events_max: 1 });
    ops.extend((0..4).map(|_| append(Target::Everyone)));
    ops.extend((0..3).map(|_| append(Target::Client(0))));
    ops.push(Op::Read { client: 3, events_max: 1 });
    let mut world = World::new(true);
    ops.iter().for_each(|op| world.run(op));
    world.settle();
}
