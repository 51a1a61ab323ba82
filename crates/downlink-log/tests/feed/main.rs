//! Feeds of a log. The follower of a feed gets each published event, or learns that the event may
//! be missing.
//!
//! The tests keep a list of everything that they publish. A copy applies the chunks of a feed as
//! another log would. A floor is the offset below which the events of an address may be missing. So
//! each published event must be in the copy, or below the floor that the copy has for the event's
//! address. The ring of a topic has the events that memory keeps of this topic. The backlog has the
//! newest events of all topics for the open feeds. A finish mark says that a topic gets no more
//! events.
#![cfg(not(downlink_loom))]
#![allow(clippy::unwrap_used)]

mod copy;
#[path = "../replay/files.rs"]
mod files;
#[path = "../support/mod.rs"]
mod support;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use downlink_log::{
    Address, Answers, Behind, ClockState, Epoch, Log, LogOptions, Offset, Retention,
    RetentionRules, StoreOptions, Submitted, store::Durability,
};
use downlink_sqlite::SqliteOptions;
use fastrand::Rng;

use crate::{
    copy::{Copy, Published, World},
    files::{ALL, Folder},
    support::{Load, block_on, client, draft, draft_of, ms, options, topic},
};

fn clock() -> ClockState {
    ClockState::default()
}

/// A log in memory whose topics keep this many events.
fn small(events_max: usize) -> LogOptions {
    LogOptions { retention: rules(Retention { events_max, ..Retention::DEFAULT }), ..options() }
}

/// The same retention for topics, inboxes and everyone's topic.
fn rules(default: Retention) -> RetentionRules {
    RetentionRules { default, inbox: default, everyone: default, ..RetentionRules::default() }
}

#[test]
fn a_feed_that_keeps_up_has_each_event_although_the_rings_evict_it() {
    let world = World::in_memory(small(1));
    let mut copy = Copy::new();
    let mut feed = world.feed(&copy);
    for number in 0..10 {
        for _ in 0..number {
            world.publish(&[topic("a")], false);
        }
        copy.apply_all(&mut feed);
        assert!(copy.floors.is_empty(), "no floor is needed: {:?}", copy.floors);
    }
    assert_eq!(copy.events.len(), 45);
    world.check(&copy);
}

#[test]
fn a_new_feed_has_the_kept_events_and_the_floors_of_the_evicted_ones() {
    let world = World::in_memory(small(2));
    for name in ["a", "b", "a", "a", "a"] {
        world.publish(&[topic(name)], false);
    }
    world.publish(&[Address::Everyone, Address::Client(client("alice"))], false);
    let mut copy = Copy::new();
    let mut feed = world.feed(&copy);
    assert_eq!((feed.start().resumed, feed.start().from), (false, Offset::FIRST));
    copy.apply_all(&mut feed);
    assert_eq!(copy.events.keys().copied().collect::<Vec<_>>(), [2, 4, 5, 6]);
    assert_eq!(copy.floors.iter().collect::<Vec<_>>(), [(&topic("a"), &4)]);
    world.check(&copy);
}

#[test]
fn a_feed_that_is_further_behind_than_the_backlog_gets_floors_and_goes_on() {
    let world = World::in_memory(small(3));
    let mut copy = Copy::new();
    let mut feed = world.feed(&copy);
    world.publish(&[topic("quiet")], false);
    for number in 0..70_000 {
        world.publish(&[topic(["a", "b"][number % 2])], false);
    }
    copy.apply_all(&mut feed);
    assert_eq!(copy.floors.len(), 2, "only the busy topics have lost events: {:?}", copy.floors);
    assert_eq!(copy.events.len(), 7);
    world.publish(&[topic("a")], false);
    copy.apply_all(&mut feed);
    assert_eq!(copy.events.len(), 8);
    world.check(&copy);
}

#[test]
fn a_finish_mark_comes_with_its_event_or_alone() {
    let world = World::in_memory(small(1));
    world.publish(&[topic("kept")], true);
    world.publish(&[topic("one"), topic("two")], true);
    let mut finish = draft(&[topic("empty")]);
    (finish.finish, finish.payload) = (true, None);
    let _submitted = world.log.append(ms(1), [finish].into_iter().collect()).unwrap();
    let mut copy = Copy::new();
    let mut feed = world.feed(&copy);
    copy.apply_all(&mut feed);
    let finished: Vec<_> =
        copy.finished.iter().map(|(address, at)| (address.clone(), *at)).collect();
    let expected = [("empty", 3), ("kept", 1), ("one", 2), ("two", 2)];
    assert_eq!(finished, expected.map(|(name, at)| (topic(name), at)));
    assert_eq!(copy.events.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

/// The index of a log has a row for each event, but no row for a finish mark. A feed copies the
/// rows in pieces of 512 rows. The test publishes events that fill no piece, a part of a piece, one
/// piece, or two pieces. Then it publishes two finish marks.
#[test]
fn a_new_feed_reaches_the_tail_if_the_last_offsets_have_no_rows() {
    for events in [0, 1, 512, 1_024] {
        let world = World::in_memory(small(2_000));
        (0..events).for_each(|_| world.publish(&[topic("a")], false));
        for name in ["one", "two"] {
            let mut finish = draft(&[topic(name)]);
            (finish.finish, finish.payload) = (true, None);
            let _submitted = world.log.append(ms(1), [finish].into_iter().collect()).unwrap();
        }
        let mut feed = world.feed(&Copy::new());
        assert_eq!(feed.try_read(clock()), Err(Behind), "the feed begins before the backlog");
        let chunk = feed.read(clock()).unwrap().unwrap();
        assert_eq!((chunk.events.len() as u64, chunk.next.get()), (events + 2, events + 3));
        let rest = feed.try_read(clock()).unwrap().unwrap();
        assert!(rest.events.is_empty() && feed.next() == feed.tail());
    }
}

#[test]
fn a_feed_resumes_at_its_position_only_in_the_same_history() {
    let world = World::in_memory(small(10));
    (0..5).for_each(|_| world.publish(&[topic("a")], false));
    let mut copy = Copy::new();
    copy.apply_all(&mut world.feed(&copy));
    (0..2).for_each(|_| world.publish(&[topic("a")], false));
    let mut feed = world.feed(&copy);
    assert_eq!((feed.start().resumed, feed.start().from.get()), (true, 6));
    assert_eq!(feed.start().epochs, [(world.log.options().epoch, Offset::FIRST)]);
    assert_eq!(feed.tail().get() - feed.next().get(), 2);
    copy.apply_all(&mut feed);
    assert_eq!(copy.events.len(), 7);

    let other = World::in_memory(LogOptions { epoch: Epoch::from_random(8), ..small(10) });
    assert!(!other.feed(&copy).start().resumed, "the other log has another epoch");
    let shorter = World::in_memory(small(10));
    shorter.publish(&[topic("a")], false);
    assert!(!shorter.feed(&copy).start().resumed, "the other log ends before the position");
}

#[test]
fn a_feed_waits_for_events_and_ends_after_the_last_event_of_a_closed_log() {
    let world = World::in_memory(small(10));
    let mut copy = Copy::new();
    let mut feed = world.feed(&copy);
    assert_eq!(feed.poll_ready(Waker::noop()), Poll::Pending);
    thread::scope(|scope| {
        scope.spawn(|| {
            block_on(poll_fn(|task| feed.poll_ready(task.waker())));
            copy.apply_all(&mut feed);
        });
        world.publish(&[topic("a")], false);
    });
    assert_eq!(copy.events.len(), 1);
    world.publish(&[topic("a")], false);
    world.log.close();
    assert_eq!(feed.poll_ready(Waker::noop()), Poll::Ready(()));
    copy.apply_all(&mut feed);
    assert_eq!(copy.events.len(), 2);
    assert_eq!(feed.read(clock()), Ok(None), "the feed has ended");
}

/// The backlog holds the newest events for open feeds. While no feed is open, it must be empty, so
/// that the memory of evicted payloads is freed.
#[test]
fn the_backlog_lives_only_as_long_as_a_feed() {
    let counted = Arc::new(());
    let log = Log::<copy::Counted>::new(small(1));
    let publish = || {
        let draft = draft_of(&[topic("a")], copy::Counted(Arc::clone(&counted)));
        let _submitted = log.append(ms(1), [draft].into_iter().collect()).unwrap();
    };
    publish();
    publish();
    assert_eq!(Arc::strong_count(&counted), 2);
    let feed = log.feed(None, |_| Vec::new());
    let second = log.feed(None, |_| Vec::new());
    publish();
    publish();
    // The ring has the newest event, and the backlog has two events.
    assert_eq!(Arc::strong_count(&counted), 4);
    drop(feed);
    assert_eq!(Arc::strong_count(&counted), 4);
    drop(second);
    assert_eq!(Arc::strong_count(&counted), 2);
}

/// The addresses of the random tests.
fn addresses() -> Vec<Address> {
    let topics = ["a", "a/1", "a/2", "b", "b/1", "c", "d", "e", "f"].map(topic);
    let clients = ["alice", "bob"].map(|name| Address::Client(client(name)));
    topics.into_iter().chain(clients).chain([Address::Everyone]).collect()
}

/// One random run: publishes, finishes, evictions by age, and a feed that reads now and then, is
/// opened again, or begins anew.
fn random_run(seed: u64, world: &World, rng: &mut Rng) -> (usize, usize) {
    let addresses = addresses();
    let mut copy = Copy::new();
    let mut feed = world.feed(&copy);
    let (mut floors, mut fresh) = (0, 0);
    for _ in 0..rng.usize(20..120) {
        match rng.u32(0..10) {
            0..=5 => {
                for _ in 0..rng.usize(1..6) {
                    let mut to = vec![rng.choice(&addresses).unwrap().clone()];
                    let second = rng.choice(&addresses).unwrap();
                    if rng.u32(0..4) == 0 && *second != to[0] {
                        to.push(second.clone());
                    }
                    world.publish(&to, rng.u32(0..12) == 0);
                }
            }
            6 => world.pass(rng.u64(1..20)),
            7 => {
                if let Some(chunk) = feed.read(clock()).unwrap() {
                    copy.apply(chunk);
                }
            }
            // The old feed is closed first. Otherwise the backlog (the list of the newest events
            // for feeds) would not begin anew with the next feed.
            8 => {
                drop(feed);
                for _ in 0..rng.usize(0..4) {
                    world.publish(&[rng.choice(&addresses).unwrap().clone()], false);
                }
                feed = world.feed(&copy);
            }
            _ => {
                drop(feed);
                floors += copy.floors.len();
                copy = Copy::new();
                feed = world.feed(&copy);
                fresh += 1;
            }
        }
        world.check(&copy);
    }
    copy.apply_all(&mut feed);
    assert_eq!(copy.next, world.log.tail().next.get(), "seed {seed}");
    world.check(&copy);
    (floors + copy.floors.len(), fresh)
}

#[test]
fn every_published_event_is_in_the_copy_or_below_a_floor() {
    let (mut floors, mut fresh) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let mut options = small(rng.usize(1..4));
        if rng.bool() {
            let age_max = Some(Duration::from_millis(rng.u64(1..30)));
            options.retention = rules(Retention { age_max, ..options.retention.default });
        }
        options.collected_max = Some(rng.usize(0..4));
        let world = World::in_memory(options);
        let counts = random_run(seed, &world, &mut rng);
        (floors, fresh) = (floors + counts.0, fresh + counts.1);
    }
    assert!(floors > 400 && fresh > 400, "{floors} floors, {fresh} new feeds");
}

#[test]
fn a_feed_of_a_store_has_what_memory_no_longer_has() {
    let (mut floors, mut fresh) = (0, 0);
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let folder = Folder::new();
        let mut options = SqliteOptions::default();
        options.retention = rules(Retention { events_max: rng.usize(1..8), ..ALL });
        options.floors_max = rng.usize(0..4);
        let store = folder.open(options);
        let mut side = StoreOptions::new(|_| Some(Load), clock);
        side.durability = Durability::Relaxed;
        let log = Log::with_store(small(2), store, side).unwrap();
        let world = World::new(log);
        let counts = random_run(seed, &world, &mut rng);
        (floors, fresh) = (floors + counts.0, fresh + counts.1);
    }
    assert!(floors > 40 && fresh > 40, "{floors} floors, {fresh} new feeds");
}

/// Topics are created, lose their events and are removed from memory while a new feed reads the
/// index and the floors.
#[test]
fn a_feed_that_begins_during_evictions_misses_nothing_silently() {
    let mut options = small(2);
    options.collected_max = Some(8);
    options.limits.bytes_max = 20_000;
    let world = World::in_memory(options);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut rng = Rng::with_seed(1);
            while !stop.load(Ordering::Relaxed) {
                world.publish(&[topic(&format!("t/{}", rng.u32(0..300)))], false);
            }
        });
        while world.published().len() < 5_000 {
            let mut copy = Copy::new();
            let mut feed = world.feed(&copy);
            for _ in 0..3 {
                copy.apply(feed.read(clock()).unwrap().expect("the log is open"));
            }
            world.check(&copy);
        }
        stop.store(true, Ordering::Relaxed);
        publisher.join().unwrap();
    });
}

/// The offsets of an append, when it is done. `None` if it was refused.
fn appended(submitted: Submitted) -> Option<Vec<u64>> {
    let answers = match submitted {
        Submitted::Appended(answers) => answers,
        Submitted::Queued(commit) => {
            block_on(poll_fn(|task| commit.poll(task.waker(), Answers::clone))).ok()?
        }
    };
    Some(answers.iter().map(|answer| answer.offset.get()).collect())
}

impl Published {
    fn has(&self, address: &Address, offset: u64) -> bool {
        self.get(&offset).is_some_and(|to| to.contains(address))
    }
}
