//! One run of the test: several publishers and readers use one log, each in its own thread. The
//! seed of the run determines what they do.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    mem,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use downlink_log::{
    Address, ClockState, Commit, Cursor, Draft, Epoch, Log, LogOptions, Payload, Retention,
    RetentionRules, StoreOptions, Stored, Submitted, Timestamp, TopicSelector,
    store::{Durability, Store, StoreReader},
};
use downlink_sqlite::SqliteOptions;
use fastrand::Rng;

use crate::{
    files::{ALL, Folder},
    reading,
    support::{block_on, draft_of, ms, topic},
};

/// The busy topics. The store keeps up to 30 events of each topic `a/…`, 8 of `b`, and 60 of `c`.
const TOPICS: [&str; 4] = ["a/1", "a/2", "b", "c"];

/// The number of rare topics, `r/0`, `r/1` and so on, which have few events each. There are many
/// rare topics, so that a reader of `r/*` searches the index (a list of all events) instead of each
/// topic.
const RARE_TOPICS: usize = 100;

/// The number of events that a ring keeps. A ring is the list of a topic's newest events in memory.
/// The store keeps at least as many events of each topic. So nearly every reader first reads from
/// the store, and later from the rings.
const RING_EVENTS: usize = 4;
const PUBLISHERS: u64 = 3;
const BATCHES: usize = 60;
const READERS: u64 = 6;

/// The number in the payload of the last event, which is published to everyone.
pub(crate) const LAST: u64 = u64::MAX;

/// A payload with the number of its event.
#[derive(Clone, Debug)]
pub(crate) struct Numbered(pub(crate) u64);

impl Payload for Numbered {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        8
    }
}

/// The published events by offset: for each event, the number in its payload, and its addresses.
pub(crate) type Published = BTreeMap<u64, (u64, Vec<Address>)>;

/// The retention and the durability in one run. The seed determines both.
#[derive(Clone, Copy)]
struct Keeping {
    durability: Durability,
    /// The maximum age of an event in milliseconds of the run's clock, which advances by one for
    /// each batch. `None` means no limit.
    age_max: Option<u64>,
    /// Whether the log and the store keep the floors of only two empty topics. The floor of a topic
    /// is the offset after its last evicted event.
    forgets: bool,
}

pub(crate) struct World {
    pub(crate) log: Log<Numbered>,
    pub(crate) store: Arc<dyn StoreReader>,
    pub(crate) published: Mutex<Published>,
    /// Whether the last offset of every gap must be the offset of an evicted event.
    pub(crate) is_exact: bool,
    /// The clock of the run. It advances by one millisecond for each batch.
    clock: Arc<AtomicU64>,
    progress: Mutex<Progress>,
    went_on: Condvar,
}

#[derive(Default)]
struct Progress {
    batches: usize,
    /// The number of publishers that have finished.
    done: u64,
    opened: u64,
}

/// A batch that waits for its commit.
struct Waiting {
    commit: Commit,
    drafts: Vec<(u64, Vec<Address>)>,
}

impl World {
    fn open(folder: &Folder, keeping: Keeping, clock: &Arc<AtomicU64>) -> Self {
        let Keeping { durability, age_max, forgets } = keeping;
        let keep = |events_max| Retention {
            events_max,
            age_max: age_max.map(Duration::from_millis),
            ..ALL
        };
        let rule = |text, events| (TopicSelector::parse(text).unwrap(), keep(events));
        let rules = [rule("a/*", 30), rule("b", 8), rule("r/*", RING_EVENTS)];
        let mut stored = SqliteOptions::default();
        stored.retention = RetentionRules {
            rules: rules.into(),
            default: keep(60),
            inbox: keep(60),
            everyone: keep(60),
            ..RetentionRules::default()
        };
        let ring = keep(RING_EVENTS);
        let mut options = LogOptions::new(Epoch::from_random(1));
        options.retention =
            RetentionRules { default: ring, inbox: ring, everyone: ring, ..Default::default() };
        if forgets {
            stored.floors_max = 2;
            options.collected_max = Some(2);
        }
        let store = folder.open(stored);
        let reader = store.reader();
        let decode =
            |stored: Stored| Some(Numbered(u64::from_le_bytes(stored.payload.try_into().ok()?)));
        let time = Arc::clone(clock);
        let now = move || ClockState { at: ms(time.load(Ordering::SeqCst)), delta_ms: 0 };
        let side = StoreOptions { durability, ..StoreOptions::new(decode, now) };
        Self {
            log: Log::with_store(options, store, side).unwrap(),
            store: reader,
            published: Mutex::default(),
            is_exact: !forgets,
            clock: Arc::clone(clock),
            progress: Mutex::default(),
            went_on: Condvar::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        ms(self.clock.load(Ordering::SeqCst))
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().unwrap());
        self.went_on.notify_all();
    }

    fn publish(&self, drafts: Vec<(u64, Vec<Address>)>) -> Waiting {
        self.clock.fetch_add(1, Ordering::SeqCst);
        let batch = drafts.iter().map(|(number, to)| draft(*number, to)).collect();
        match self.log.append(self.now(), batch).unwrap() {
            Submitted::Queued(commit) => Waiting { commit, drafts },
            Submitted::Appended(answers) => panic!("appended without a commit: {answers:?}"),
        }
    }

    /// Waits for the commit of a batch and records the offsets of the batch's events.
    fn finish(&self, Waiting { commit, drafts }: Waiting) {
        let answers =
            block_on(poll_fn(|task| commit.poll(task.waker(), |answers| answers.clone()))).unwrap();
        let offsets = answers.iter().map(|answer| answer.offset.get());
        self.published.lock().unwrap().extend(offsets.zip(drafts));
    }

    pub(crate) fn note_opened(&self) {
        self.note(|progress| progress.opened += 1);
    }

    /// Waits until the publishers have published this many more batches, or have published all of
    /// their batches.
    pub(crate) fn pause(&self, batches: usize) {
        let progress = self.progress.lock().unwrap();
        let until = progress.batches + batches;
        let goes_on =
            |progress: &mut Progress| progress.batches < until && progress.done < PUBLISHERS;
        drop(self.went_on.wait_while(progress, goes_on).unwrap());
    }

    fn await_opened(&self) {
        let progress = self.progress.lock().unwrap();
        let few = |progress: &mut Progress| progress.opened < READERS;
        drop(self.went_on.wait_while(progress, few).unwrap());
    }
}

/// Does the run with this seed, and returns the number of reported gaps.
pub(crate) fn run(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let (folder, clock) = (Folder::new(), Arc::new(AtomicU64::new(1_000)));
    let keeping = Keeping {
        durability: if rng.bool() { Durability::Commit } else { Durability::Relaxed },
        age_max: rng.bool().then(|| rng.u64(20..200)),
        forgets: rng.u8(0..4) == 0,
    };
    let earlier = if rng.bool() {
        publish_before(&World::open(&folder, keeping, &clock), rng.fork())
    } else {
        Published::new()
    };
    let world = &World::open(&folder, keeping, &clock);
    *world.published.lock().unwrap() = earlier;
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| (publisher, rng.fork()))
            .map(|(publisher, rng)| scope.spawn(move || publish(world, publisher, rng)))
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|_| rng.fork())
            .map(|rng| scope.spawn(move || reading::follow(world, rng)))
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        // A reader that is opened after the last event would wait forever for that event.
        world.await_opened();
        world.finish(world.publish(vec![(LAST, vec![Address::Everyone])]));
        let published = world.published.lock().unwrap();
        let diaries = readers.into_iter().map(|reader| reader.join().unwrap());
        diaries.map(|diary| diary.check(&published, world.is_exact)).sum()
    })
}

/// Publishes some events in an earlier epoch of the log, before any reader exists.
fn publish_before(world: &World, rng: Rng) -> Published {
    publish(world, PUBLISHERS, rng);
    world.log.close();
    block_on(poll_fn(|task| world.log.poll_closed(task.waker())));
    mem::take(&mut world.published.lock().unwrap())
}

/// Publishes all batches of one publisher. The publisher waits for its pending commits at random
/// times and at the end.
fn publish(world: &World, publisher: u64, mut rng: Rng) {
    let rare = rng.u8(0..=2);
    let mut waiting = Vec::new();
    for batch in 0..BATCHES as u64 {
        let drafts: Vec<_> = (0..rng.u64(1..4))
            .map(|number| (publisher << 32 | batch << 8 | number, addresses(&mut rng, rare)))
            .collect();
        waiting.push(world.publish(drafts));
        if waiting.len() >= 4 && rng.u8(0..8) == 0 {
            waiting.drain(..).for_each(|batch| world.finish(batch));
        }
        world.note(|progress| progress.batches += 1);
    }
    waiting.into_iter().for_each(|batch| world.finish(batch));
    world.note(|progress| progress.done += 1);
}

/// Picks the addresses of an event: usually one topic, sometimes two topics, and occasionally
/// everyone. In `rare` out of four cases, a picked topic is a rare topic.
fn addresses(rng: &mut Rng, rare: u8) -> Vec<Address> {
    if rng.u8(0..20) == 0 {
        return vec![Address::Everyone];
    }
    let one = |rng: &mut Rng| {
        if rng.u8(0..4) < rare {
            return topic(&format!("r/{}", rng.usize(0..RARE_TOPICS)));
        }
        topic(TOPICS[rng.usize(0..TOPICS.len())])
    };
    let mut to = vec![one(rng)];
    if rng.u8(0..5) == 0 {
        to.push(one(rng));
    }
    to.dedup();
    to
}

fn draft(number: u64, to: &[Address]) -> Draft<Numbered> {
    Draft { body: Some(number.to_le_bytes().to_vec()), ..draft_of(to, Numbered(number)) }
}
