//! Measures the cost of many topics and many patterns. Run it with
//! `cargo bench -p downlink-log --bench patterns`.
//!
//! The benchmark prints figures and does not compare them with limits. Times that come from `cpu`
//! are processor time of the thread. All other times are wall-clock time.
#![allow(clippy::print_stdout, reason = "the output is the result")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeSet,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::{Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use downlink_log::{
    Address, Batch, Cursor, Draft, Entry, Epoch, Fingerprint, Log, LogOptions, Next, Payload, Read,
    Reader, Retention, Selection, Start, Submitted, Timestamp, Topic, TopicSelector,
};

struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

#[allow(unsafe_code, reason = "an allocator that counts")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Clone, Debug)]
struct Load;

impl Payload for Load {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        100
    }
}

const TOPICS: usize = 100_000;
const PATTERNS: usize = 1_000;
const BATCH: Batch = Batch { events_max: 64, bytes_max: 64 << 10 };

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn log(change: impl FnOnce(&mut LogOptions)) -> Log<Load> {
    let mut options = LogOptions::new(Epoch::from_random(7));
    options.limits.topics_max = 2 * TOPICS;
    options.limits.bytes_max = 1 << 30;
    change(&mut options);
    Log::new(options)
}

fn append(log: &Log<Load>, now: u64, name: &str) -> u64 {
    let draft = Draft {
        to: [Address::Topic(Topic::new(name).expect("a valid topic"))].into_iter().collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        body: None,
        payload: Some(Load),
    };
    let appended = log.append(ms(now), [draft].into_iter().collect()).expect("within the limits");
    let Submitted::Appended(answers) = appended else { panic!("there is no store") };
    answers[0].offset.get()
}

fn selection(selectors: &[String]) -> Selection {
    let selectors =
        selectors.iter().map(|text| TopicSelector::parse(text).expect("a valid selector"));
    Selection { selectors: selectors.collect(), client: None }
}

/// The processor time that this thread has used.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code, reason = "the standard library has no such clock")]
    // SAFETY: `time` is valid for a write.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed<R>(longest: &mut Duration, call: impl FnOnce() -> R) -> R {
    let before = cpu();
    let result = call();
    *longest = (*longest).max(cpu() - before);
    result
}

struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

const SEGMENTS: [&str; 11] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];

fn deep_topic(number: usize) -> String {
    format!("{}/{number}", SEGMENTS.join("/"))
}

/// Returns different patterns. Each of them matches every topic that `deep_topic` makes.
fn deep_patterns() -> Vec<String> {
    let mut patterns = BTreeSet::new();
    for len in (5..=SEGMENTS.len()).rev() {
        for places in 0_u32..1 << len {
            if places.count_ones() <= 4 && patterns.len() < PATTERNS {
                let segment = |at: usize| match places >> at & 1 {
                    0 => SEGMENTS[at],
                    _ => "{x}",
                };
                let segments: Vec<&str> = (0..len).map(segment).collect();
                patterns.insert(format!("{}/*", segments.join("/")));
            }
        }
    }
    patterns.into_iter().collect()
}

/// Opens a reader, reads everything and drops the reader. Returns the time of the longest call for
/// each of these three steps, and the number of events.
fn follow(log: &Log<Load>, selection: &Selection, start: &Start) -> ([Duration; 3], usize) {
    let [mut opening, mut reading, mut leaving] = [Duration::ZERO; 3];
    let woken = Arc::new(WakeFlag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut reader =
        timed(&mut opening, || log.open(ms(1), selection, start).expect("within the limits"));
    while timed(&mut opening, || reader.poll_begun(&waker)).is_pending() {
        assert!(woken.0.swap(false, Ordering::SeqCst), "the reader must wake itself to continue");
    }
    let mut events = 0;
    let mut out: Vec<Entry<Load>> = Vec::new();
    loop {
        out.clear();
        reader.register(&waker);
        match timed(&mut reading, || reader.read(ms(1), BATCH, &mut out)) {
            Read::CaughtUp => break,
            Read::Fetching => assert!(woken.0.swap(false, Ordering::SeqCst)),
            _ => events += out.len(),
        }
    }
    timed(&mut leaving, || drop(reader));
    ([opening, reading, leaving], events)
}

fn every_start() {
    let log = log(|options| {
        options.retention.default = Retention { events_max: 1, ..Retention::DEFAULT };
    });
    for number in 0..TOPICS {
        append(&log, number as u64 / 1_000, &deep_topic(number));
    }
    // Some readers have to search through evictions when they start, so this loop makes several
    // thousand evictions.
    (0..5_000).for_each(|number| {
        append(&log, 200, &deep_topic(number * 20));
    });
    let selection = selection(&deep_patterns());
    println!(
        "{} patterns, all matching {TOPICS} topics of 12 segments:",
        selection.selectors.len()
    );
    let after = |offset: u64| Start::After(format!("70000000-{offset}").into());
    let starts = [
        ("live", Start::Live),
        ("earliest", Start::Earliest),
        ("last:50", Start::Last(50)),
        ("last:1000000", Start::Last(1_000_000)),
        ("since", Start::Since(ms(50))),
        ("after an id", after(50_000)),
        ("after an unknown id", Start::After("unknown".into())),
    ];
    for (name, start) in starts {
        let ([opening, reading, leaving], events) = follow(&log, &selection, &start);
        println!(
            "  {name}: longest call: open {opening:?}, read {reading:?}, leave {leaving:?}; {events} events"
        );
    }
    let reader = log.open(ms(1), &selection, &Start::Live).expect("within the limits");
    let mut longest = Duration::ZERO;
    for number in 0..1_000 {
        timed(&mut longest, || append(&log, 201, &deep_topic(TOPICS + number)));
    }
    println!("  longest publish to a new topic while that reader is open: {longest:?}");
    drop(reader);
}

fn new_topic_beside_many_patterns() {
    let log = log(|_| {});
    let mut readers = Vec::new();
    for reader in 0..200 {
        let patterns: Vec<String> =
            (0..1_000).map(|n| format!("user/{}/*", reader * 1_000 + n)).collect();
        readers
            .push(log.open(ms(0), &selection(&patterns), &Start::Live).expect("within the limits"));
    }
    let ten: Vec<String> = [
        "*",
        "{a}/*",
        "{a}/{b}/*",
        "{a}/{b}/{c}",
        "new/*",
        "new/{b}/*",
        "new/{b}/{c}",
        "{a}/x/*",
        "{a}/x/{c}",
        "new/x/*",
    ]
    .map(String::from)
    .into();
    readers.push(log.open(ms(0), &selection(&ten), &Start::Live).expect("within the limits"));
    let mut times: Vec<Duration> = (0..10_000)
        .map(|number| {
            let before = Instant::now();
            append(&log, 0, &format!("new/x/{number}"));
            before.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "publish to a new topic with 200,000 patterns, of which ten match: median {:?}",
        times[5_000]
    );
}

fn memory_of_a_subscription() {
    let log = log(|_| {});
    (0..TOPICS).for_each(|number| {
        append(&log, 0, &format!("t/{number}"));
    });
    let publish = || {
        let before = LIVE_BYTES.load(Ordering::Relaxed);
        (0..1_000).for_each(|number| {
            append(&log, 0, &format!("t/{number}"));
        });
        LIVE_BYTES.load(Ordering::Relaxed) - before
    };
    let events = publish();
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let reader =
        log.open(ms(0), &selection(&["*".into()]), &Start::Live).expect("within the limits");
    let opened = LIVE_BYTES.load(Ordering::Relaxed) - before + size_of::<Reader<Load>>() as i64;
    println!(
        "a subscription of * at {TOPICS} topics: {opened} bytes, and {} more after 1,000 events",
        publish() - events
    );
    drop(reader);
}

fn memory_of_patterns() {
    let bytes_each = |selectors: &dyn Fn(usize) -> String| {
        const READERS: usize = 1_000;
        let log = log(|_| {});
        let mut readers = Vec::with_capacity(READERS);
        let before = LIVE_BYTES.load(Ordering::Relaxed);
        let open = |n| log.open(ms(0), &selection(&[selectors(n)]), &Start::Live);
        readers.extend((0..READERS).map(|n| open(n).expect("within the limits")));
        (LIVE_BYTES.load(Ordering::Relaxed) - before) / READERS as i64
    };
    let name = bytes_each(&|n| format!("user/{n}/x"));
    let short = bytes_each(&|n| format!("user/{n}/*"));
    let long = bytes_each(&|n| {
        let segments: Vec<String> = (0..15).map(|place| format!("{place}-{n}")).collect();
        format!("{}/*", segments.join("/"))
    });
    println!("a subscription of user/N/x {name}, of user/N/* {short}, of 16 segments {long} bytes");
}

fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

fn publishing_while_others_leave_and_expire() {
    let log = log(|options| {
        options.retention.default.age_max = Some(Duration::from_millis(10));
    });
    (0..TOPICS).for_each(|number| {
        append(&log, 0, &format!("t/{number}"));
    });
    let readers: Vec<Reader<Load>> = (0..600)
        .map(|_| {
            log.open(ms(0), &selection(&["*".into()]), &Start::Live).expect("within the limits")
        })
        .collect();
    let barrier = Arc::new(Barrier::new(2));
    let leaving = {
        let barrier = Arc::clone(&barrier);
        thread::spawn(move || {
            barrier.wait();
            drop(readers);
        })
    };
    barrier.wait();
    let publish = |now: u64| {
        let before = Instant::now();
        append(&log, now, "other");
        before.elapsed()
    };
    let mut times: Vec<Duration> = (0..20_000).map(|_| publish(0)).collect();
    leaving.join().expect("no panic");
    println!(
        "publish while 600 readers of * leave: p99.9 {:?}, longest {:?}",
        percentile(&mut times, 0.999),
        percentile(&mut times, 1.0)
    );
    let mut times: Vec<Duration> = (0..20_000).map(|_| publish(10)).collect();
    println!(
        "publish while {TOPICS} topics expire: p99.9 {:?}, longest {:?}; topics left {}",
        percentile(&mut times, 0.999),
        percentile(&mut times, 1.0),
        log.totals(ms(10)).topics
    );
}

/// A log with many readers. Each reader reads the topic of one user.
struct Users {
    log: Log<Load>,
    readers: Vec<Reader<Load>>,
    names: Vec<String>,
}

impl Users {
    fn new(selector: impl Fn(usize) -> String) -> Self {
        const READERS: usize = 10_000;
        let log = log(|_| {});
        let open = |n| log.open(ms(0), &selection(&[selector(n)]), &Start::Live);
        let readers = (0..READERS).map(|n| open(n).expect("within the limits")).collect();
        let names = (0..READERS).map(|n| format!("user/{n}/x")).collect();
        Self { log, readers, names }
    }

    /// For each reader in turn, publishes one event and lets the reader read the event. Returns the
    /// processor time per delivery in nanoseconds.
    fn round(&mut self) -> f64 {
        let before = cpu();
        for (reader, name) in self.readers.iter_mut().zip(&self.names) {
            append(&self.log, 0, name);
            assert!(matches!(reader.read_next(|| ms(0)), Next::Event(_)));
            reader.register(Waker::noop());
            assert!(reader.is_idle() || matches!(reader.read_next(|| ms(0)), Next::CaughtUp));
        }
        (cpu() - before).as_secs_f64() * 1e9 / self.names.len() as f64
    }
}

fn finish(log: &Log<Load>, name: &str) {
    let draft = Draft {
        to: [Address::Topic(Topic::new(name).expect("a valid topic"))].into_iter().collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: true,
        body: None,
        payload: None,
    };
    let _ = log.append(ms(0), [draft].into_iter().collect()).expect("within the limits");
}

/// Compares three kinds of readers: readers by name, readers by pattern, and readers by name in a
/// log that also has a finished topic. The three kinds take turns, so that a busy machine slows all
/// of them equally. The first rounds are not measured: they fill the lists of newest events that
/// the patterns keep. Afterwards, the lists keep their length.
fn deliveries() {
    const FIRST_ROUNDS: usize = 65;
    const ROUNDS: usize = 60;
    let mut users = [
        Users::new(|n| format!("user/{n}/x")),
        Users::new(|n| format!("user/{n}/*")),
        Users::new(|n| format!("user/{n}/x")),
    ];
    finish(&users[2].log, "finished");
    let mut rounds = Vec::new();
    for round in 0..FIRST_ROUNDS + ROUNDS {
        let times = users.each_mut().map(Users::round);
        if round >= FIRST_ROUNDS {
            rounds.push(times);
        }
    }
    println!("publish, wake and read, without sockets, by name: median {:.0} ns", {
        let mut exact: Vec<f64> = rounds.iter().map(|times| times[0]).collect();
        exact.sort_by(f64::total_cmp);
        exact[ROUNDS / 2]
    });
    for (place, what) in [(1, "user/N/*"), (2, "by name beside a finished topic")] {
        let mut ratios: Vec<f64> = rounds.iter().map(|times| times[place] / times[0]).collect();
        ratios.sort_by(f64::total_cmp);
        println!("  {what}: median {:.3} of the time by name", ratios[ROUNDS / 2]);
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "deliveries") {
        return deliveries();
    }
    every_start();
    new_topic_beside_many_patterns();
    memory_of_a_subscription();
    memory_of_patterns();
    publishing_while_others_leave_and_expire();
    deliveries();
}
