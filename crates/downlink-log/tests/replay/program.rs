//! One program: publishers and readers of one log, drawn from a seed, on threads of their own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use downlink_log::{
    Address, Commit, Draft, Epoch, Log, LogOptions, Payload, Retention, RetentionRules,
    StoreOptions, TopicSelector,
    store::{Durability, Store, StoreReader},
};
use fastrand::Rng;

use crate::{
    files::{self, Folder},
    reading,
    support::{Stamp, block_on, draft_of, ms, topic},
};

/// The topics, from one that keeps nearly everything to one that keeps hardly anything.
pub(crate) const TOPICS: [&str; 4] = ["a/1", "a/2", "b", "c"];

/// Events that a ring keeps: nearly every replay crosses from the store to the rings.
const RING_EVENTS: usize = 4;
const PUBLISHERS: u64 = 3;
const BATCHES: usize = 60;
const READERS: u64 = 6;

/// The number of the last event; it is for everyone.
pub(crate) const LAST: u64 = u64::MAX;

/// A payload that says which event it is.
#[derive(Clone, Debug)]
pub(crate) struct Numbered(pub(crate) u64);

impl Payload for Numbered {
    fn bytes(&self) -> usize {
        8
    }
}

/// What was published: by offset, which event it is and for whom.
pub(crate) type Published = BTreeMap<u64, (u64, Vec<Address>)>;

pub(crate) struct World {
    pub(crate) log: Log<Numbered>,
    pub(crate) store: Arc<dyn StoreReader>,
    pub(crate) published: Mutex<Published>,
    progress: Mutex<Progress>,
    went_on: Condvar,
}

#[derive(Default)]
struct Progress {
    batches: usize,
    /// Publishers that have nothing more to publish.
    done: u64,
    opened: u64,
}

impl World {
    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().unwrap());
        self.went_on.notify_all();
    }

    /// Publishes a batch and notes it; its commit is still to come.
    fn publish(&self, drafts: Vec<(u64, Vec<Address>)>) -> impl Iterator<Item = Commit> {
        let batch = drafts.iter().map(|(number, to)| draft(*number, to)).collect();
        let (submitted, wakes) = self.log.submit(ms(1_000), batch).unwrap();
        wakes.wake();
        let offsets = submitted.answers.iter().map(|answer| answer.offset.get());
        self.published.lock().unwrap().extend(offsets.zip(drafts));
        submitted.commit.into_iter()
    }

    pub(crate) fn note_opened(&self) {
        self.note(|progress| progress.opened += 1);
    }

    /// Waits until so many batches more are published, or all.
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

/// Runs the program of a seed, and says how many gaps were told.
pub(crate) fn run(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let folder = Folder::new();
    let world = &open(&folder, &mut rng);
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
        // A reader that comes after the last event would wait for ever.
        world.await_opened();
        world.publish(vec![(LAST, vec![Address::Everyone])]).for_each(committed);
        let published = world.published.lock().unwrap();
        let diaries = readers.into_iter().map(|reader| reader.join().unwrap());
        diaries.map(|diary| diary.check(&published)).sum()
    })
}

fn open(folder: &Folder, rng: &mut Rng) -> World {
    let keep = |events_max| Retention { events_max, ..files::ALL };
    let rules = [("a/*", 30), ("b", 8)];
    let rules = rules.map(|(text, events)| (TopicSelector::parse(text).unwrap(), keep(events)));
    let mut options = files::keeping(keep(60));
    options.retention = RetentionRules { rules: rules.into(), ..options.retention };
    let store = files::open_with(&folder.file("replay.db"), options);
    let reader = store.reader();
    let mut options = LogOptions::new(Epoch::from_random(1));
    let ring = keep(RING_EVENTS);
    options.retention = RetentionRules { default: ring, everyone: ring, ..options.retention };
    let decode = |stored: downlink_log::Stored| {
        Some(Numbered(u64::from_le_bytes(stored.payload.try_into().ok()?)))
    };
    let durability = if rng.bool() { Durability::Commit } else { Durability::Relaxed };
    let side = StoreOptions { durability, ..StoreOptions::new(decode, || ms(1_000)) };
    let log = Log::with_store(options, store, side).unwrap();
    World {
        log,
        store: reader,
        published: Mutex::default(),
        progress: Mutex::default(),
        went_on: Condvar::new(),
    }
}

/// Publishes batches; sometimes waits for one, and for all at the end.
fn publish(world: &World, publisher: u64, mut rng: Rng) {
    let mut waiting = Vec::new();
    for batch in 0..BATCHES as u64 {
        let drafts: Vec<_> = (0..rng.u64(1..4))
            .map(|number| (publisher << 32 | batch << 8 | number, addresses(&mut rng)))
            .collect();
        waiting.extend(world.publish(drafts));
        // In relaxed durability a wait is long.
        let patience = if waiting.len() < 4 { 0 } else { rng.usize(0..=8) };
        if patience == 8 {
            waiting.drain(..).for_each(committed);
        }
        world.note(|progress| progress.batches += 1);
    }
    waiting.into_iter().for_each(committed);
    world.note(|progress| progress.done += 1);
}

fn committed(commit: Commit) {
    block_on(std::future::poll_fn(|task| commit.poll(task.waker()))).unwrap();
}

/// One topic, sometimes two, now and then everyone.
fn addresses(rng: &mut Rng) -> Vec<Address> {
    if rng.u8(0..20) == 0 {
        return vec![Address::Everyone];
    }
    let first = rng.usize(0..TOPICS.len());
    let second = if rng.u8(0..5) == 0 { rng.usize(0..TOPICS.len()) } else { first };
    let mut to = vec![topic(TOPICS[first])];
    if second != first {
        to.push(topic(TOPICS[second]));
    }
    to
}

fn draft(number: u64, to: &[Address]) -> Draft<Stamp<Numbered>> {
    Draft { body: Some(number.to_le_bytes().to_vec()), ..draft_of(to, Numbered(number)) }
}
