//! Real threads use one log. They publish, read and reconnect, and at the end one thread closes the
//! log. The log keeps only a few events, so slow readers get gaps. The retention rules change again
//! and again.
//!
//! For each client, the test checks every event for the client. The event must be delivered once
//! and in order, or lie in a gap that the client got. At the end, the log must have no topic, no
//! event and no reader.
#![cfg(not(downlink_loom))]

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use downlink_log::{
    Address, AppendError, Batch, EndReason, Log, OpenError, Read, Reader, Retention,
    RetentionRules, Selection, Start, Timestamp,
};
use support::{Load, Seen, append_all, client, draft, ms, options, selection, topic};

const PUBLISHERS: u64 = 3;

/// The time in seconds for which the publishers run. `DOWNLINK_TORTURE_SECONDS` sets another time.
const SECONDS: u64 = 2;

/// The maximum number of events per read. It is small, so that clients fall behind.
const BATCH_EVENTS: usize = 7;

/// A random number generator. It has a fixed seed, so two runs of the test differ only in their
/// timing.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The state that the threads share: the log, its clock, and the published events.
struct World {
    log: Log<Load>,
    began: Instant,
    published: Mutex<Vec<(u64, Vec<Address>)>>,
    finished: AtomicU64,
}

impl World {
    fn new() -> Self {
        let mut options = options();
        options.retention = rules(20);
        options.limits.bytes_max = 20_000;
        Self {
            log: Log::new(options),
            began: Instant::now(),
            published: Mutex::default(),
            finished: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("a short test")
    }

    fn publish(&self, mut dice: Dice) {
        let mut mine = Vec::new();
        loop {
            let to = target(&mut dice);
            let mut event = draft(&to);
            event.finish = dice.roll(50) == 0 && to.iter().all(|address| address.topic().is_some());
            match append_all(&self.log, self.now(), [event]) {
                Ok(answers) => mine.push((answers[0].offset.get(), to)),
                Err(AppendError::Finished { .. }) => {
                    self.finished.fetch_add(1, Ordering::Relaxed);
                }
                Err(AppendError::Closed) => break,
                Err(error) => panic!("{error}"),
            }
            if dice.roll(64) == 0 {
                thread::yield_now();
            }
        }
        self.published.lock().expect("no publisher panicked").extend(mine);
    }

    /// Reads the log as one client, over one connection after another, until the log is closed.
    fn follow(&self, number: u64) -> Followed {
        let mut dice = Dice(number);
        let wanted = wanted(number);
        let mut seen = Seen::default();
        let mut last_id = None;
        let mut first = None;
        let mut next = 0;
        let mut refused_at = u64::MAX;
        loop {
            let start = last_id.clone().map_or(Start::Live, Start::After);
            let mut reader = match self.log.open(ms(self.now()), &wanted, &start) {
                Ok(reader) => reader,
                Err(OpenError::Closed) => {
                    refused_at = next;
                    break;
                }
                Err(error) => panic!("{error}"),
            };
            // The reader may begin before this offset: if its only topic is finished, it begins
            // with the history of this topic. The log promises the reader only the events from here
            // on.
            first = first.or(Some(self.log.tail().next.get()));
            let end = self.connection(&mut reader, &mut seen, &mut dice);
            next = reader.cursor().next.get();
            last_id = Some(reader.cursor().to_string().into());
            if end == Some(EndReason::Closed) {
                break;
            }
        }
        Followed { wanted, seen, first: first.unwrap_or(u64::MAX), refused_at }
    }

    /// One connection of a client. The client reads a random number of times, or until the log ends
    /// the reader.
    fn connection(
        &self,
        reader: &mut Reader<Load>,
        seen: &mut Seen,
        dice: &mut Dice,
    ) -> Option<EndReason> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let events_max = if dice.roll(2) == 0 { 1 } else { BATCH_EVENTS };
        let batch = Batch { events_max, bytes_max: usize::MAX };
        let mut registered = false;
        for _ in 0..10 + dice.roll(500) {
            match seen.read(reader, self.now(), batch) {
                Read::Ended(reason) => return Some(reason),
                Read::CaughtUp if registered => {
                    thread::park();
                    registered = false;
                }
                Read::CaughtUp => {
                    reader.register(&waker);
                    registered = true;
                }
                _ => registered = false,
            }
        }
        None
    }
}

struct Followed {
    wanted: Selection,
    seen: Seen,
    /// The end of the log right after the client's first reader was opened. The client must get
    /// every event from there on.
    first: u64,
    /// The offset of the client's cursor (the next event that it needs), if the client was
    /// disconnected when the log was closed. The client could not request the events from this
    /// offset on, so the test does not expect these events. For other clients, the value is
    /// `u64::MAX`.
    refused_at: u64,
}

impl Followed {
    fn check(&self, published: &[(u64, Vec<Address>)]) {
        let mine = published
            .iter()
            .filter(|(_, to)| to.iter().any(|address| wants(&self.wanted, address)));
        let mine: BTreeSet<u64> = mine.map(|(offset, _)| *offset).collect();
        assert!(self.seen.offsets.iter().all(|offset| mine.contains(offset)));
        for &offset in mine.range(self.first..self.refused_at.max(self.first)) {
            assert!(
                self.seen.covers(std::iter::once(offset)),
                "event {offset} is missing. The client began at {} with {:?}",
                self.first,
                self.wanted
            );
        }
    }
}

/// Retention rules with which a topic keeps at most `events_max` events.
fn rules(events_max: usize) -> RetentionRules {
    let small = |events_max, age| Retention {
        events_max,
        bytes_max: 5_000,
        age_max: Some(Duration::from_millis(age)),
    };
    RetentionRules {
        rules: Vec::new(),
        default: small(events_max, 5),
        inbox: small(events_max.div_ceil(2), 20),
        everyone: small(events_max, 50),
        finished_keep: Duration::from_millis(3),
    }
}

fn target(dice: &mut Dice) -> Vec<Address> {
    match dice.roll(40) {
        0 => vec![Address::Everyone],
        1 | 2 => vec![Address::Client(client(&format!("c{}", dice.roll(3))))],
        3 => vec![topic("a/0"), topic("b/1"), Address::Client(client("c0"))],
        4..=7 => vec![topic(&format!("rare/{}", dice.roll(200)))],
        _ => {
            let letter = ["a", "b", "c"][usize::try_from(dice.roll(3)).unwrap_or_default()];
            vec![topic(&format!("{letter}/{}", dice.roll(4)))]
        }
    }
}

fn wanted(number: u64) -> Selection {
    let all: Vec<String> =
        ["a", "b", "c"].iter().flat_map(|l| (0..4).map(move |n| format!("{l}/{n}"))).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let selectors: &[&str] = match number % 6 {
        0 => &["a/0"],
        1 => &["a/*", "rare/{n}"],
        2 => &["*"],
        3 => &all,
        4 => &["b/1", "c/*"],
        _ => &[],
    };
    let client = number.is_multiple_of(2).then(|| client(&format!("c{}", number % 3)));
    Selection { client, ..selection(selectors) }
}

fn wants(selection: &Selection, address: &Address) -> bool {
    match address {
        Address::Client(client) => selection.client.as_ref() == Some(client),
        Address::Topic(topic) => selection.selectors.iter().any(|wanted| wanted.matches(topic)),
        _ => true,
    }
}

fn seconds() -> u64 {
    let set = std::env::var("DOWNLINK_TORTURE_SECONDS").ok();
    set.and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS)
}

#[test]
fn with_many_threads_no_event_is_lost_and_the_log_is_empty_at_the_end() {
    let until = Instant::now() + Duration::from_secs(seconds());
    let world = World::new();
    let followed: Vec<Followed> = thread::scope(|scope| {
        let world = &world;
        let clients: Vec<_> =
            (0..6).map(|number| scope.spawn(move || world.follow(number))).collect();
        for seed in 0..PUBLISHERS {
            scope.spawn(move || world.publish(Dice(seed + 100)));
        }
        // Until the time is over, this thread calls the methods that inspect the log, and changes
        // the retention rules.
        let mut dice = Dice(7);
        while Instant::now() < until {
            let totals = world.log.totals(ms(world.now()));
            assert!(totals.topics <= 215 && totals.subscribers <= 6, "{totals:?}");
            assert!(world.log.readers(Timestamp::default()).len() <= 6);
            assert!(world.log.topics(ms(world.now()), "rare/", None, 1_000).len() <= 200);
            world.log.disconnect(&client("c0"));
            let events_max = [1, 5, 20, 30][dice.roll(4) as usize];
            world.log.set_retention(ms(world.now()), rules(events_max));
            for topic in world.log.topics(ms(world.now()), "", None, 1_000) {
                assert!(topic.events <= events_max, "more than {events_max}: {topic:?}");
            }
            thread::yield_now();
        }
        world.log.close();
        clients.into_iter().map(|client| client.join().expect("no client panicked")).collect()
    });
    let mut published = world.published.into_inner().expect("no publisher panicked");
    published.sort_unstable_by_key(|(offset, _)| *offset);
    assert!(published.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for client in &followed {
        client.check(&published);
    }
    let delivered: usize = followed.iter().map(|client| client.seen.offsets.len()).sum();
    let gaps: usize = followed.iter().map(|client| client.seen.gaps.len()).sum();
    println!(
        "{} published, {} refused, {delivered} delivered, {gaps} gaps",
        published.len(),
        world.finished.load(Ordering::Relaxed)
    );
    assert!(delivered > 0 && gaps > 0);
    let end = ms(u64::MAX - 1);
    // One call of `expire` evicts at most 128 events.
    (0..16).for_each(|_| world.log.expire(end));
    assert_eq!(support::sizes(&world.log, end), (0, 0, 0, 0));
}

/// One reader of both topics stays open. It must match every event, even while other readers are
/// opened and closed.
#[test]
fn every_event_matches_an_open_reader_while_other_readers_open_and_close() {
    let log: Log<Load> = Log::new(options());
    let both = selection(&["a", "b"]);
    let stays = log.open(ms(0), &both, &Start::Live).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop(log.open(ms(0), &both, &Start::Live).unwrap());
                }
            });
        }
        let publisher = scope.spawn(|| {
            let to = [topic("a"), topic("b")];
            (0..20_000).all(|_| append_all(&log, 0, [draft(&to)]).unwrap()[0].matched >= 1)
        });
        let matched = publisher.join();
        is_over.store(true, Ordering::Relaxed);
        assert!(
            matched.expect("no publish panics"),
            "every event must match the reader that stays"
        );
    });
    drop(stays);
}
