//! Compares the time of a durable commit with the lowest possible time (the floor). For the floor,
//! the benchmark appends the same bytes to a plain file and flushes the file.
//!
//! The benchmark measures commits and the floor in turn, so that other load on the machine affects
//! both times. Run it with `cargo bench -p downlink-sqlite --bench store`. `DOWNLINK_BENCH_FOLDER`
//! sets the folder, and so the disk; the default is the target folder. `DOWNLINK_BENCH_TOPICS` sets
//! the number of topics.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use downlink_log::{
    Address, Batch, Epoch, EvictionNumber, Fingerprint, Offset, PatternSet, Retention,
    RetentionRules, Timestamp, Topic, TopicSelector,
    store::{Durability, Range, Step, Store, StoredEvent, Trimmed, Wanted},
};
use downlink_sqlite::{SqliteOptions, SqliteStore};

/// The number of bytes of an event.
const EVENT_BYTES: usize = 256;

/// The benchmark runs in rounds. A round measures writes to the plain file for this time, and then
/// durable commits for this time. Relaxed commits, which are not flushed at once, get a quarter of
/// this time. `ROUNDS` is the number of rounds.
const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 6;

/// The measurements of one kind of write.
#[derive(Default)]
struct Tally {
    batches: u32,
    spent: Duration,
}

impl Tally {
    fn run(&mut self, mut batch: impl FnMut()) {
        let until = Instant::now() + ROUND;
        while Instant::now() < until {
            let started = Instant::now();
            batch();
            self.spent += started.elapsed();
            self.batches += 1;
        }
    }

    fn micros(&self) -> f64 {
        self.spent.as_secs_f64() * 1e6 / f64::from(self.batches)
    }
}

fn main() {
    let folder = std::env::var("DOWNLINK_BENCH_FOLDER")
        .map_or_else(|_| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from)
        .join(format!("bench-store-{}", std::process::id()));
    let topics = std::env::var("DOWNLINK_BENCH_TOPICS").map_or(1_000, |n| n.parse().unwrap());
    fs::create_dir_all(&folder).unwrap();
    println!("{EVENT_BYTES}-byte events over {topics} topics; microseconds per batch");
    println!("batch    floor   commit  and trim   relaxed   floor/commit  and trim  events/s");
    for size in [1, 16, 64, 100, 256] {
        measure(&folder, size, topics);
    }
    measure_opening(&folder.join("large.db"));
    fs::remove_dir_all(&folder).unwrap();
}

/// Measures how long a store with a hundred thousand topics takes to open. Also measures how long a
/// reader waits for its first page (the first part of the events that it wants).
fn measure_opening(path: &Path) {
    let mut store = open(path, 1);
    for round in 0..1_000 {
        let batch: Vec<_> = (1..=1_000).map(|n| event(round * 1_000 + n, 100_000)).collect();
        store.commit(&batch, Durability::Relaxed).unwrap();
        while store.trim(Timestamp::from_millis(0)).unwrap() == Trimmed::More {}
    }
    drop(store);
    let bytes = fs::metadata(path).unwrap().len();
    let started = Instant::now();
    let store = open(path, 2);
    let opened = started.elapsed();
    let limits = Batch { events_max: 1_000, bytes_max: usize::MAX };
    let page = |wanted: &Wanted, from| {
        let started = Instant::now();
        let range = Range { from: Offset::new(from), until: Offset::new(1_000_001) };
        let mut replay = store.reader().replay(wanted.clone());
        loop {
            let page = replay.page(range, EvictionNumber::NONE, limits).unwrap();
            if let Step::Done(page) = page {
                break (page.events.len(), started.elapsed());
            }
        }
    };
    let exact = Wanted {
        addresses: event(77, 100_000).to.to_vec(),
        patterns: Arc::new(PatternSet::new([])),
    };
    let pattern = TopicSelector::parse("topics/*").unwrap();
    let pattern = Wanted { addresses: Vec::new(), patterns: Arc::new(PatternSet::new([pattern])) };
    println!("1,000,000 events of 100,000 topics, {} MB: opened in {opened:?}", bytes / 1_000_000);
    println!("first page of one topic (events, time): {:?}", page(&exact, 1));
    println!("first page of all topics: {:?}", page(&pattern, 500_000));
}

fn measure(folder: &Path, size: u64, topics: u64) {
    let mut plain = File::create(folder.join(format!("plain-{size}"))).unwrap();
    let bytes = vec![7; EVENT_BYTES * size as usize];
    let mut store = open(&folder.join(format!("store-{size}.db")), 1);
    let (mut floor, mut commit, mut relaxed) =
        (Tally::default(), Tally::default(), Tally::default());
    let (mut trimmed, mut uncounted) = (Duration::ZERO, Duration::ZERO);
    let mut next = 1;
    for _ in 0..ROUNDS {
        floor.run(|| {
            plain.write_all(&bytes).unwrap();
            plain.sync_data().unwrap();
        });
        let mut step = |durability, trimmed: &mut Duration| {
            let batch: Vec<_> = (0..size).map(|n| event(next + n, topics)).collect();
            next += size;
            let started = Instant::now();
            store.commit(&batch, durability).unwrap();
            let committed = started.elapsed();
            while store.trim(Timestamp::from_millis(0)).unwrap() == Trimmed::More {}
            *trimmed += started.elapsed() - committed;
            committed
        };
        let until = Instant::now() + ROUND;
        while Instant::now() < until {
            commit.spent += step(Durability::Commit, &mut trimmed);
            commit.batches += 1;
        }
        let until = Instant::now() + ROUND / 4;
        while Instant::now() < until {
            relaxed.spent += step(Durability::Relaxed, &mut uncounted);
            relaxed.batches += 1;
        }
    }
    let whole = commit.micros() + trimmed.as_secs_f64() * 1e6 / f64::from(commit.batches);
    println!(
        "{size:5} {:8.0} {:8.0} {whole:9.0} {:9.0} {:14.2} {:9.2} {:9.0}",
        floor.micros(),
        commit.micros(),
        relaxed.micros(),
        floor.micros() / commit.micros(),
        floor.micros() / whole,
        size as f64 * 1e6 / whole,
    );
}

fn open(path: &Path, epoch: u64) -> SqliteStore {
    let keep = Retention { events_max: 1_000, bytes_max: usize::MAX, age_max: None };
    let mut options = SqliteOptions::default();
    options.retention =
        RetentionRules { default: keep, inbox: keep, everyone: keep, ..Default::default() };
    SqliteStore::open(path, Epoch::from_random(epoch), Timestamp::from_millis(0), options).unwrap()
}

/// An event for one topic. Events with consecutive offsets have topics whose names are far apart in
/// SQLite's index of topic names.
fn event(offset: u64, topics: u64) -> StoredEvent {
    let topic = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    StoredEvent {
        offset: Offset::new(offset),
        at: Timestamp::from_millis(offset),
        to: [Address::Topic(Topic::new(&format!("topics/{}", topic % topics)).unwrap())].into(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(vec![7; EVENT_BYTES]),
    }
}
