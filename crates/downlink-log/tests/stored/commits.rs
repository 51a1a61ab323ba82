//! What is visible when, and what a failing disk does to publishers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
};

use downlink_log::{
    AppendError, Draft, EndReason, Start,
    store::{Durability, StoreError},
};

use crate::{
    support::topic,
    world::{DEADLINE, World, durable, is_caught_up, note, note_to, read, with_key},
};

#[test]
fn an_event_is_visible_after_its_commit() {
    let world = World::new(Durability::Commit);
    let mut reader = world.open(&["a"], Start::Live);
    world.shelf.hold();
    let submitted = world.submit(vec![note("a", 7)]).unwrap();
    assert_eq!(submitted.answers[0].offset.get(), 1);
    assert_eq!(world.log.tail().next.get(), 1);
    assert!(is_caught_up(&mut reader));
    world.shelf.let_go();
    let answers = durable(&submitted).unwrap();
    assert_eq!((answers[0].offset.get(), answers[0].matched), (1, 1));
    assert_eq!(read(&mut reader, 1).numbers, [7]);
}

/// Whoever takes the wake-ups of a commit decides when readers hear of it; they could look before.
#[test]
fn the_wake_ups_of_a_commit_can_be_left_to_somebody_else() {
    let (send, wakes) = mpsc::channel();
    let world = World::waking(Box::new(move |wakes| drop(send.send(wakes))));
    let mut reader = world.open(&["a"], Start::Live);
    let woken = Arc::new(Woken::default());
    reader.register(&Waker::from(Arc::clone(&woken)));
    let submitted = world.submit(vec![note("a", 7)]).unwrap();
    durable(&submitted).unwrap();
    let held_back = wakes.recv_timeout(DEADLINE).unwrap();
    assert!(!woken.0.load(Ordering::SeqCst));
    drop(held_back);
    assert!(woken.0.load(Ordering::SeqCst));
    assert_eq!(read(&mut reader, 1).numbers, [7]);
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn relaxed_events_are_visible_before_their_commit() {
    let world = World::new(Durability::Relaxed);
    let mut reader = world.open(&["a"], Start::Live);
    world.shelf.hold();
    let submitted = world.submit(vec![note("a", 7)]).unwrap();
    assert_eq!(submitted.answers[0].matched, 1);
    assert_eq!(read(&mut reader, 1).numbers, [7]);
    assert_eq!(world.shelf.offsets(), []);
    world.shelf.let_go();
    durable(&submitted).unwrap();
    assert_eq!(world.shelf.offsets(), [1]);
}

/// What gathers while the disk is busy goes into the next commit together.
#[test]
fn commits_gather_what_waits() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let first = world.submit(vec![note("a", 0)]).unwrap();
    let rest: Vec<_> = (1..100).map(|n| world.submit(vec![note("a", n)]).unwrap()).collect();
    world.shelf.let_go();
    durable(&first).unwrap();
    for submitted in &rest {
        durable(submitted).unwrap();
    }
    assert_eq!(world.shelf.offsets(), (1..=100).collect::<Vec<_>>());
    assert!(world.shelf.commits() <= 3, "{}", world.shelf.commits());
}

#[test]
fn a_failed_commit_fails_its_publishers_and_burns_their_offsets() {
    let world = World::new(Durability::Commit);
    let mut reader = world.open(&["a"], Start::Live);
    world.shelf.fail_with([Some(StoreError::DiskFull)]);
    let failed = world.submit(vec![note("a", 1), note("b", 2)]).unwrap();
    assert_eq!(durable(&failed), Err(StoreError::DiskFull));
    assert_eq!(world.publish("a", [3]), [3]);
    let got = read(&mut reader, 1);
    assert_eq!((got.numbers, got.gaps), (vec![3], vec![]));
    assert_eq!(world.shelf.offsets(), [3]);
}

#[test]
fn after_an_unknown_outcome_nothing_is_taken_and_reads_go_on() {
    let world = World::new(Durability::Commit);
    world.publish("a", [1]);
    world.shelf.fail_with([Some(StoreError::OutcomeUnknown)]);
    let failed = world.submit(vec![note("a", 2)]).unwrap();
    assert_eq!(durable(&failed), Err(StoreError::OutcomeUnknown));
    let refused = world.submit(vec![note("a", 3)]);
    assert_eq!(refused.err(), Some(AppendError::Store(StoreError::OutcomeUnknown)));
    let mut reader = world.open(&["a"], Start::Earliest);
    assert_eq!(read(&mut reader, 1).numbers, [1]);
    assert!(is_caught_up(&mut reader));
}

/// Waiting for a disk that is full would be in vain; who has locked the store does so for a moment.
#[test]
fn a_store_that_refuses_is_not_behind() {
    for (refusal, is_behind) in [(StoreError::DiskFull, false), (StoreError::Locked, true)] {
        let world = World::new(Durability::Relaxed);
        world.shelf.fail_once_and_hold(refusal);
        let many = || (0..10_000).map(|n| note("a", n)).collect();
        let first = world.submit(many()).unwrap();
        world.shelf.await_held();
        let submitted: Vec<_> = (0..5).map(|_| world.submit(many()).unwrap()).collect();
        assert_eq!(submitted.iter().any(|submitted| submitted.is_behind), is_behind);
        world.shelf.let_go();
        durable(&first).unwrap();
    }
}

/// What readers have seen is not given up: it is tried again until the disk takes it.
#[test]
fn a_relaxed_commit_that_fails_is_tried_again() {
    let world = World::new(Durability::Relaxed);
    world.shelf.fail_with([Some(StoreError::DiskFull), Some(StoreError::DiskFull)]);
    let submitted = world.submit(vec![note("a", 1)]).unwrap();
    durable(&submitted).unwrap();
    assert_eq!((world.shelf.offsets(), world.shelf.commits()), (vec![1], 3));
}

#[test]
fn a_duplicate_of_an_uncommitted_publish_waits_for_it() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let first = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    let again = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    let other = world.submit(vec![with_key("a", 2, "k")]);
    assert_eq!(other.err(), Some(AppendError::KeyReused { draft: 0 }));
    assert!(again.commit.is_some() && again.answers[0].repeated);
    world.shelf.let_go();
    assert_eq!(durable(&first).unwrap()[0].offset, durable(&again).unwrap()[0].offset);
    assert_eq!(world.shelf.offsets(), [1]);
    let later = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    assert!(later.commit.is_none() && later.answers[0].repeated);
}

/// The duplicate and whatever is in its batch: all or nothing.
#[test]
fn a_batch_that_repeats_a_publish_that_fails_fails_like_it() {
    let world = World::new(Durability::Commit);
    world.shelf.fail_with([Some(StoreError::DiskFull)]);
    world.shelf.hold();
    let to_a = [topic("a")];
    let first = world.submit(vec![note_to(&to_a, 1, Some("given"))]).unwrap();
    world.shelf.await_held();
    let batch = vec![note_to(&to_a, 1, Some("given")), note("b", 2)];
    let again = world.submit(batch).unwrap();
    world.shelf.let_go();
    assert_eq!(durable(&first), Err(StoreError::DiskFull));
    assert_eq!(durable(&again), Err(StoreError::DiskFull));
    let third = world.submit(vec![note_to(&to_a, 1, Some("given"))]).unwrap();
    assert!(!durable(&third).unwrap()[0].repeated);
}

#[test]
fn a_topic_that_is_being_finished_takes_nothing_more() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let last = Draft { finish: true, ..note("a", 1) };
    let finished = world.submit(vec![last]).unwrap();
    let late = world.submit(vec![note("a", 2)]);
    assert_eq!(late.err(), Some(AppendError::Finished { draft: 0 }));
    world.shelf.let_go();
    durable(&finished).unwrap();
    let mut reader = world.open(&["a"], Start::Live);
    let got = read(&mut reader, 2);
    assert_eq!((got.numbers, got.end), (vec![1], Some(EndReason::Finished)));
}

#[test]
fn a_full_queue_refuses_the_newcomer() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let mut waiting = Vec::new();
    let refused = loop {
        match world.submit((0..1_000).map(|n| note("a", n)).collect()) {
            Ok(submitted) => waiting.push(submitted),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Busy);
    assert_eq!(waiting.len(), downlink_log::QUEUE_EVENTS_MAX / 1_000);
    // Half of it is 32,768.
    assert_eq!(waiting.iter().position(|submitted| submitted.is_behind), Some(32));
    assert!(waiting.iter().skip(32).all(|submitted| submitted.is_behind));
    world.shelf.let_go();
    for submitted in &waiting {
        durable(submitted).unwrap();
    }
    let after = world.submit(vec![note("a", 1)]).unwrap();
    assert!(!after.is_behind);
    durable(&after).unwrap();
}

#[test]
fn a_log_that_closes_commits_what_waits() {
    for durability in [Durability::Commit, Durability::Relaxed] {
        let mut world = World::new(durability);
        let mut reader = world.open(&["a"], Start::Live);
        let waiting: Vec<_> = (0..4).map(|n| world.submit(vec![note("a", n)]).unwrap()).collect();
        world.reopen();
        assert_eq!(world.shelf.offsets(), [1, 2, 3, 4]);
        assert!(waiting.iter().all(|submitted| durable(submitted).is_ok()));
        let got = read(&mut reader, 9);
        assert_eq!((got.numbers, got.end), (vec![0, 1, 2, 3], Some(EndReason::Closed)));
    }
}

#[test]
fn a_log_whose_handles_are_gone_commits_what_waits() {
    let mut world = World::new(Durability::Relaxed);
    let waiting = world.submit(vec![note("a", 1)]).unwrap();
    world.begin_again();
    durable(&waiting).unwrap();
    assert_eq!(world.shelf.offsets(), [1]);
}
