//! Readers see events only after the commit of these events. If the disk fails, publishers get an
//! error.

use std::sync::{Arc, atomic::Ordering};

use downlink_log::{
    Address, Answers, AppendError, ClockState, Cursor, Draft, EndReason, Epoch, Log, Payload,
    Retention, RetentionRules, Start, StoreOptions, Timestamp,
    store::{Durability, StoreError},
};

use crate::{
    shelf::Shelf,
    support::{Count, append_all, draft_of, ms, options, selection, topic},
    world::{
        BOTH, CLOCK_DELTA_MS, Note, World, is_caught_up, last, note, note_to, outcome, read,
        with_id, with_key,
    },
};

const FULL: AppendError = AppendError::Store(StoreError::DiskFull);

#[test]
fn an_event_is_visible_after_its_commit() {
    for durability in BOTH {
        let world = World::new(durability);
        let mut reader = world.open(&["a"], Start::Live);
        world.shelf.hold();
        let commit = world.submit(vec![note("a", 7)]).unwrap();
        world.shelf.await_held();
        assert_eq!(world.log.tail().next.get(), 1);
        assert!(is_caught_up(&mut reader));
        world.shelf.let_go();
        let answers = outcome(&commit).unwrap();
        assert_eq!((answers[0].offset.get(), answers[0].matched), (1, 1));
        assert_eq!(read(&mut reader, 1).numbers, [7]);
    }
}

#[test]
fn a_durable_commit_is_flushed_before_its_answer() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..3);
    assert_eq!(world.shelf.flushed_below(), 4);
}

/// The writer sleeps for up to a minute if there is nothing to write. A change of the retention
/// rules wakes it.
#[test]
fn an_idle_writer_gives_new_retention_rules_to_the_store_at_once() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..5);
    let newest = Retention { events_max: 2, ..Retention::DEFAULT };
    let rules = RetentionRules { default: newest, ..RetentionRules::default() };
    world.log.set_retention(ms(1_000), rules);
    assert_eq!(world.shelf.await_rules().default, newest);
    assert_eq!(world.log.topic(ms(1_000), &topic("a")).unwrap().events, 2);
    // Memory has evicted the events, but this store still has them.
    assert_eq!(read(&mut world.open(&["a"], Start::Earliest), 5).numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn a_busy_writer_gives_new_retention_rules_to_the_store_after_the_commit() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let commit = world.submit(vec![note("a", 7)]).unwrap();
    world.shelf.await_held();
    world.log.set_retention(ms(1_000), RetentionRules::default());
    world.shelf.let_go();
    outcome(&commit).unwrap();
    assert_eq!(world.shelf.await_rules().inbox, Retention::INBOX);
}

#[test]
fn relaxed_events_are_visible_before_they_are_flushed() {
    let world = World::new(Durability::Relaxed);
    let mut reader = world.open(&["a"], Start::Live);
    world.publish("a", [7]);
    world.shelf.hold();
    assert_eq!(read(&mut reader, 1).numbers, [7]);
    world.shelf.let_go();
    world.shelf.await_flushed(2);
}

/// While one commit waits for the disk, several events arrive. The log commits them together in the
/// next commit.
#[test]
fn waiting_events_share_a_commit() {
    for durability in BOTH {
        let world = World::new(durability);
        world.shelf.hold();
        let submit = |n| world.submit(vec![note("a", n)]).unwrap();
        let commits: Vec<_> = (0..100).map(submit).collect();
        world.shelf.let_go();
        assert!(commits.iter().all(|commit| outcome(commit).is_ok()));
        assert_eq!(world.shelf.offsets(), (1..=100).collect::<Vec<_>>());
        assert!(world.shelf.commits() <= 3, "too many commits: {}", world.shelf.commits());
    }
}

#[test]
fn after_a_failed_commit_publishers_get_the_error_and_offsets_are_not_reused() {
    for durability in BOTH {
        let world = World::new(durability);
        let mut reader = world.open(&["a"], Start::Live);
        world.shelf.fail_with(StoreError::DiskFull);
        assert_eq!(world.append(vec![note("a", 1), note("b", 2)]), Err(FULL));
        assert_eq!(world.publish("a", [3]), [3]);
        let got = read(&mut reader, 1);
        assert_eq!((got.numbers, got.gaps), (vec![3], vec![]));
        assert_eq!(world.shelf.offsets(), [3]);
        // Topic `b` has no event, so the log has removed it again.
        assert_eq!(world.log.topic(ms(1_000), &topic("b")), None);
    }
}

#[test]
fn after_a_commit_with_unknown_outcome_publishers_get_errors_and_readers_go_on() {
    for durability in BOTH {
        let world = World::new(durability);
        world.publish("a", [1]);
        world.shelf.fail_with(StoreError::OutcomeUnknown);
        let unknown = AppendError::Store(StoreError::OutcomeUnknown);
        assert_eq!(world.append(vec![note("a", 2)]), Err(unknown.clone()));
        assert_eq!(world.submit(vec![note("a", 3)]).err(), Some(unknown));
        let mut reader = world.open(&["a"], Start::Earliest);
        assert_eq!(read(&mut reader, 1).numbers, [1]);
        assert!(is_caught_up(&mut reader));
    }
}

#[test]
fn after_a_commit_with_unknown_outcome_waiting_publishers_get_the_error() {
    let world = World::new(Durability::Commit);
    world.shelf.fail_with(StoreError::OutcomeUnknown);
    world.shelf.hold();
    let first = world.submit(vec![note("a", 1)]).unwrap();
    world.shelf.await_held();
    let second = world.submit(vec![note("a", 2)]).unwrap();
    world.shelf.let_go();
    let unknown = AppendError::Store(StoreError::OutcomeUnknown);
    assert_eq!((outcome(&first), outcome(&second)), (Err(unknown.clone()), Err(unknown)));
    assert_eq!(world.shelf.commits(), 1);
}

#[test]
fn the_log_reports_a_full_disk_until_a_retry_succeeds() {
    let world = World::new(Durability::Commit);
    assert_eq!(world.log.store_error(), None);
    // The publish fails, and then the first retry of the log's writer fails too.
    world.shelf.fail_with(StoreError::DiskFull);
    world.shelf.fail_with(StoreError::DiskFull);
    let full = AppendError::Store(StoreError::DiskFull);
    assert_eq!(world.append(vec![note("a", 1)]), Err(full));
    assert_eq!(world.log.store_error(), Some(StoreError::DiskFull));
    while world.log.store_error().is_some() {
        std::thread::yield_now();
    }
    let totals = world.log.totals(ms(1_000));
    assert_eq!((totals.refusals.disk_full, totals.refusals.all(), totals.published), (1, 1, 0));
    world.publish("a", [2]);
    assert_eq!(world.log.totals(ms(1_000)).published, 1);
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", [1]);
    world.log.close();
    world.shelf.fail_with(StoreError::DiskFull);
    world.reopen();
    while world.log.store_error().is_some() {
        std::thread::yield_now();
    }
    world.publish("a", [2]);
    assert_eq!(read(&mut world.open(&["a"], Start::Earliest), 2).numbers, [1, 2]);
}

#[test]
fn after_a_final_store_error_each_publish_is_rejected_and_counted() {
    let world = World::new(Durability::Commit);
    world.shelf.fail_with(StoreError::OutcomeUnknown);
    for number in 0..3 {
        assert!(world.append(vec![note("a", number)]).is_err());
        assert_eq!(world.log.store_error(), Some(StoreError::OutcomeUnknown));
    }
    assert_eq!(world.log.totals(ms(1_000)).refusals.store_failed, 3);
}

#[test]
fn publishers_get_a_final_error_that_occurs_during_trimming() {
    let world = World::new(Durability::Commit);
    let damage = StoreError::Corrupt { reason: "a page".into() };
    world.shelf.fail_trim_with(damage.clone());
    // The writer trims the store after the first commit. By then, the first publish may have got
    // its answer, so only the second publish must fail.
    let _ = world.append(vec![note("a", 1)]);
    assert_eq!(world.append(vec![note("a", 2)]), Err(AppendError::Store(damage)));
}

#[test]
fn after_a_panic_of_the_store_no_publisher_or_reader_waits_forever() {
    for durability in BOTH {
        let world = World::new(durability);
        let mut reader = world.open(&["a"], Start::Live);
        world.shelf.hold();
        let first = world.submit(vec![note("a", 1)]).unwrap();
        world.shelf.await_held();
        let second = world.submit(vec![note("a", 2)]).unwrap();
        world.shelf.panic_at_commit();
        world.shelf.let_go();
        let stopped = Err(AppendError::Store(StoreError::Stopped));
        assert_eq!(outcome(&first), stopped);
        assert_eq!(outcome(&second), stopped);
        assert_eq!(world.append(vec![note("a", 3)]), stopped);
        assert_eq!(read(&mut reader, 1).end, Some(EndReason::Closed));
    }
}

/// A payload whose drop may panic.
#[derive(Clone)]
struct Angry(bool);

impl Drop for Angry {
    fn drop(&mut self) {
        assert!(!self.0, "dropped");
    }
}

impl Payload for Angry {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        1
    }
}

/// The log's writer thread drops the evicted payload after it has woken publishers and readers.
#[test]
fn a_panic_in_the_drop_of_an_evicted_payload_leaves_no_publisher_or_reader_waiting() {
    let mut options = options();
    options.retention.default = Retention { events_max: 1, ..Retention::DEFAULT };
    let clock = || ClockState { at: ms(0), delta_ms: 0 };
    let side = StoreOptions::new(|_| Some(Angry(false)), clock);
    let log = Log::with_store(options, Shelf::default().open(Epoch::from_random(7)), side).unwrap();
    let reader = log.open(ms(0), &selection(&["a"]), &Start::Live).unwrap();
    let publish = |angry| {
        let draft = draft_of(&[topic("a")], Angry(angry));
        append_all(&log, 0, [Draft { body: Some(Vec::new()), ..draft }])
    };
    publish(true).unwrap();
    let woken = Arc::new(Count::default());
    reader.register(&woken.clone().into());
    assert_eq!(publish(false).unwrap()[0].offset.get(), 2);
    assert!(woken.0.load(Ordering::Relaxed) > 0);
    assert_eq!(publish(false).err(), Some(AppendError::Store(StoreError::Stopped)));
}

#[test]
fn a_repetition_of_a_pending_publish_gets_the_first_answer() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let first = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    world.shelf.await_held();
    let again = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    let other = world.submit(vec![with_key("a", 2, "k")]).unwrap();
    world.shelf.let_go();
    let (first, again) = (outcome(&first).unwrap()[0], outcome(&again).unwrap()[0]);
    assert_eq!((first.offset, first.repeated), (again.offset, false));
    assert!(again.repeated);
    assert_eq!(outcome(&other), Err(AppendError::KeyReused { draft: 0 }));
    let later = world.append(vec![with_key("a", 1, "k")]).unwrap()[0];
    assert_eq!((later.offset, later.repeated), (first.offset, true));
    assert_eq!(world.shelf.offsets(), [1]);
}

/// Queues batches while a commit waits for the disk, so that all of them are in the next
/// transaction. Returns the outcome of each batch.
fn together<const N: usize>(
    world: &World,
    batches: [Vec<Draft<Note>>; N],
) -> [Result<Answers, AppendError>; N] {
    world.shelf.hold();
    let first = world.submit(vec![note("first", 0)]).expect("room in the queue");
    world.shelf.await_held();
    let commits = batches.map(|batch| world.submit(batch).expect("room in the queue"));
    world.shelf.let_go();
    outcome(&first).expect("a commit");
    commits.map(|commit| outcome(&commit))
}

#[test]
fn a_batch_that_repeats_an_id_or_key_of_the_same_commit_gets_the_first_answer() {
    let world = World::new(Durability::Commit);
    let [first, again, other] = together(
        &world,
        [
            vec![note("b", 0), with_id("a", 1, "x"), with_key("a", 2, "k")],
            vec![with_key("a", 2, "k"), note("b", 3), with_id("a", 1, "x")],
            vec![with_id("a", 9, "x")],
        ],
    );
    assert_eq!(world.shelf.commits(), 2);
    let facts = |answers: Answers| -> Vec<(u64, bool)> {
        answers.iter().map(|answer| (answer.offset.get(), answer.repeated)).collect()
    };
    assert_eq!(facts(first.unwrap()), [(2, false), (3, false), (4, false)]);
    assert_eq!(facts(again.unwrap()), [(4, true), (5, false), (3, true)]);
    assert_eq!(other, Err(AppendError::IdTaken { draft: 0 }));
    assert_eq!(world.shelf.offsets(), [1, 2, 3, 4, 5]);
}

/// If a commit fails, all batches in the commit fail. Afterwards, another event may use the id of a
/// failed event.
#[test]
fn a_repetition_of_a_failed_publish_in_the_same_commit_fails() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let before = world.submit(vec![note("b", 0)]).unwrap();
    world.shelf.await_held();
    world.shelf.succeed_then_fail_with(StoreError::DiskFull);
    let first = world.submit(vec![with_id("a", 1, "x")]).unwrap();
    let again = world.submit(vec![with_id("a", 1, "x"), note("b", 2)]).unwrap();
    world.shelf.let_go();
    assert!(outcome(&before).is_ok());
    assert_eq!((outcome(&first), outcome(&again)), (Err(FULL), Err(FULL)));
    assert!(!world.append(vec![with_id("a", 1, "x")]).unwrap()[0].repeated);
}

/// The first batch finishes topic `a` and takes the id `x`, so the other two batches conflict with
/// the first batch. All three batches are in one commit, which fails. The first batch is not
/// stored, so there is no conflict. The other two batches fail with the error of the commit.
#[test]
fn a_batch_that_conflicts_with_a_failed_publish_gets_the_error_of_the_commit() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let before = world.submit(vec![note("b", 0)]).unwrap();
    world.shelf.await_held();
    world.shelf.succeed_then_fail_with(StoreError::DiskFull);
    let first = Draft { finish: true, ..with_id("a", 1, "x") };
    let batches = [first, note("a", 2), with_id("b", 3, "x")];
    let commits = batches.map(|draft| world.submit(vec![draft]).unwrap());
    world.shelf.let_go();
    assert!(outcome(&before).is_ok());
    assert!(commits.iter().all(|commit| outcome(commit) == Err(FULL)));
    assert!(world.append(vec![note("a", 2), with_id("b", 3, "x")]).is_ok());
}

#[test]
fn a_repetition_queued_while_the_first_publish_fails_is_a_new_event() {
    let world = World::new(Durability::Commit);
    world.shelf.fail_with(StoreError::DiskFull);
    world.shelf.hold();
    let first = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    world.shelf.await_held();
    let again = world.submit(vec![with_key("a", 1, "k")]).unwrap();
    world.shelf.let_go();
    assert_eq!(outcome(&first), Err(FULL));
    let again = outcome(&again).unwrap()[0];
    assert_eq!((again.offset.get(), again.repeated), (2, false));
}

#[test]
fn a_publish_to_a_topic_with_a_pending_finish_is_rejected() {
    let world = World::new(Durability::Commit);
    let [finished, late] = together(&world, [vec![last("a", 1)], vec![note("a", 2)]]);
    assert!(finished.is_ok());
    assert_eq!(late, Err(AppendError::Finished { draft: 0 }));
    let got = read(&mut world.open(&["a"], Start::Live), 2);
    assert_eq!((got.numbers, got.end), (vec![1], Some(EndReason::Finished)));
}

#[test]
fn a_rejected_batch_does_not_affect_other_batches_of_the_commit() {
    let world = World::new(Durability::Commit);
    let mut reader = world.open(&["a", "b"], Start::Live);
    let [one, refused, two] = together(
        &world,
        [vec![with_id("a", 1, "x")], vec![note("b", 2), with_id("b", 3, "x")], vec![note("b", 4)]],
    );
    assert_eq!(refused, Err(AppendError::IdTaken { draft: 1 }));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(read(&mut reader, 2).numbers, [1, 4]);
}

#[test]
fn each_reader_that_matches_an_event_is_counted_once() {
    let world = World::new(Durability::Commit);
    let _both = world.open(&["a/x", "a/*"], Start::Live);
    let _pattern = world.open(&["a/{n}", "b"], Start::Live);
    let _other = world.open(&["c"], Start::Live);
    let matched = |to: &[Address]| world.append(vec![note_to(to, 1, None)]).unwrap()[0].matched;
    assert_eq!(matched(&[topic("a/x")]), 2);
    assert_eq!(matched(&[topic("a/x"), topic("b")]), 2);
    assert_eq!(matched(&[topic("b")]), 1);
    assert_eq!(matched(&[topic("b"), topic("c")]), 2);
    assert_eq!(matched(&[topic("d")]), 0);
    assert_eq!(matched(&[Address::Everyone]), 3);
}

#[test]
fn a_full_queue_rejects_the_next_batch() {
    let world = World::new(Durability::Commit);
    world.shelf.hold();
    let mut waiting = Vec::new();
    let refused = loop {
        match world.submit((0..1_000).map(|n| note("a", n)).collect()) {
            Ok(commit) => waiting.push(commit),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Busy);
    assert_eq!(waiting.len(), downlink_log::QUEUE_EVENTS_MAX / 1_000);
    world.shelf.let_go();
    assert!(waiting.iter().all(|commit| outcome(commit).is_ok()));
    assert!(world.append(vec![note("a", 1)]).is_ok());
}

/// Every address of a waiting event takes memory, even an address with a short name.
#[test]
fn events_to_many_topics_reach_the_limit_of_bytes_of_the_queue() {
    let world = World::new(Durability::Commit);
    let to: Vec<Address> = (0..1_000).map(|n| topic(&n.to_string())).collect();
    world.shelf.hold();
    let mut waiting = Vec::new();
    while let Ok(commit) = world.submit(vec![note_to(&to, 1, None)]) {
        waiting.push(commit);
    }
    let bytes = to.len() * size_of::<Address>() * waiting.len();
    assert!(
        bytes < downlink_log::QUEUE_BYTES_MAX,
        "{} waiting events exceed the limit of bytes",
        waiting.len()
    );
    // The test no longer needs the waiting events, so this makes their commit fail.
    world.shelf.fail_with(StoreError::OutcomeUnknown);
    world.shelf.let_go();
    assert!(waiting.iter().all(|commit| outcome(commit).is_err()));
}

#[test]
fn a_closing_log_commits_waiting_events() {
    for durability in BOTH {
        let mut world = World::new(durability);
        let mut reader = world.open(&["a"], Start::Live);
        let waiting: Vec<_> = (0..4).map(|n| world.submit(vec![note("a", n)]).unwrap()).collect();
        let log = world.log.clone();
        world.reopen();
        assert!(matches!(
            log.append(ms(1_000), vec![note("a", 9)].into()),
            Err(AppendError::Closed)
        ));
        assert_eq!(world.shelf.offsets(), [1, 2, 3, 4]);
        assert!(waiting.iter().all(|commit| outcome(commit).is_ok()));
        let got = read(&mut reader, 9);
        assert_eq!((got.numbers, got.end), (vec![0, 1, 2, 3], Some(EndReason::Closed)));
    }
}

#[test]
fn a_log_whose_handles_are_dropped_commits_waiting_events() {
    for durability in BOTH {
        let mut world = World::new(durability);
        let waiting = world.submit(vec![note("a", 1)]).unwrap();
        world.begin_again();
        assert!(outcome(&waiting).is_ok());
        assert_eq!(world.shelf.offsets(), [1]);
    }
}

#[test]
fn the_store_keeps_the_difference_between_wall_clock_and_log_time() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", [1]);
    world.reopen();
    let kept = world.shelf.clock().unwrap();
    assert_eq!((kept.at.as_millis(), kept.delta_ms), (1_000, CLOCK_DELTA_MS));
}
