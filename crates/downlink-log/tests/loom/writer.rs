//! Tests of a log with a store. Loom runs each test in many orders of the threads' steps. The store
//! is a shelf, which keeps its events in memory. The log's writer thread commits events to the
//! store. A reader must get each event once, and only after the event's commit. If the commit
//! fails, no reader may get the event.
//!
//! No time passes under loom, so no timer wakes the writer. If a publish does not wake it either,
//! loom reports a deadlock.

use std::{collections::BTreeSet, future::poll_fn, task::Poll};

use downlink_log::{
    Answers, AppendError, ClockState, Commit, Draft, EndReason, Epoch, Log, Reader, Start,
    StoreOptions, Submitted, store::StoreError,
};
use loom::{future::block_on, thread};

use crate::{
    model, open,
    shelf::Shelf,
    support::{ALL, Load, Seen, draft, ms, options, topic},
};

fn over(shelf: &Shelf) -> Log<Load> {
    let side = StoreOptions::new(|_| Some(Load), || ClockState { at: ms(0), delta_ms: 0 });
    Log::with_store(options(), shelf.open(Epoch::from_random(7)), side).expect("a readable shelf")
}

/// Publishes to a topic and does not wait for the commit.
fn submit(log: &Log<Load>, name: &str) -> Result<Commit, AppendError> {
    let draft = Draft { body: Some(Vec::new()), ..draft(&[topic(name)]) };
    match log.append(ms(0), [draft].into_iter().collect())? {
        Submitted::Queued(commit) => Ok(commit),
        Submitted::Appended(answers) => panic!("appended without a commit: {answers:?}"),
    }
}

fn committed(commit: &Commit) -> Result<Answers, AppendError> {
    block_on(poll_fn(|task| commit.poll(task.waker(), Answers::clone)))
}

/// Publishes an event and waits for its commit. Returns the offset if the event was stored.
fn publish(log: &Log<Load>, name: &str) -> Option<u64> {
    let commit = submit(log, name).ok()?;
    committed(&commit).ok().map(|answers| answers[0].offset.get())
}

/// Reads everything that is readable now. Asserts that the shelf has every event that was read.
fn look(reader: &mut Reader<Load>, shelf: &Shelf, seen: &mut Seen) {
    let _ = seen.read_by(reader, 0, ALL);
    let kept: BTreeSet<u64> = shelf.offsets().into_iter().collect();
    assert!(
        seen.offsets.iter().all(|offset| kept.contains(offset)),
        "the reader got an event before its commit: {seen:?}, {kept:?}"
    );
    assert_eq!(seen.gaps, []);
}

/// Reads until `enough` returns true or the log ends the reader. Waits if there is nothing to read.
fn follow(reader: &mut Reader<Load>, shelf: &Shelf, enough: impl Fn(&Seen) -> bool) -> Seen {
    let mut seen = Seen::default();
    block_on(poll_fn(|task| {
        for _ in 0..2 {
            look(reader, shelf, &mut seen);
            if seen.end.is_some() || enough(&seen) {
                return Poll::Ready(());
            }
            reader.register(task.waker());
        }
        Poll::Pending
    }));
    seen
}

#[test]
fn a_waiting_reader_sees_each_event_once_and_after_its_commit() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher =
            thread::spawn(move || [(); 2].map(|()| submit(&log, "a").expect("room in the queue")));
        let seen = follow(&mut reader, &shelf, |seen| seen.offsets.len() == 2);
        assert_eq!(seen.offsets, [1, 2]);
        let commits = publisher.join().unwrap();
        assert!(commits.iter().all(|commit| committed(commit).is_ok()));
    });
}

#[test]
fn a_reader_that_opens_during_a_publish_sees_the_events_after_its_cursor_once() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || publish(&log, "a"))
        };
        let mut reader = open(&log, &["a"], Start::Live);
        let next = reader.cursor().next.get();
        let mut seen = Seen::default();
        look(&mut reader, &shelf, &mut seen);
        assert_eq!(publisher.join().unwrap(), Some(1));
        // A reader that reads right after the acknowledgement gets the event.
        look(&mut reader, &shelf, &mut seen);
        assert_eq!(seen.offsets, (next..2).collect::<Vec<_>>());
    });
}

#[test]
fn two_concurrent_publishers_both_get_their_offsets() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let other = {
            let log = log.clone();
            thread::spawn(move || publish(&log, "a"))
        };
        let mine = publish(&log, "b");
        let offsets = BTreeSet::from([mine, other.join().unwrap()]);
        assert_eq!(offsets, BTreeSet::from([Some(1), Some(2)]));
        assert_eq!(shelf.offsets(), [1, 2]);
    });
}

/// The first commit fails. It may have the events of one or both publishers. The reader must see
/// only committed events.
#[test]
fn events_of_a_failed_commit_stay_invisible() {
    model(2, || {
        let shelf = Shelf::default();
        shelf.fail_with(StoreError::DiskFull);
        let log = over(&shelf);
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || publish(&log, "a"))
        };
        let mine = publish(&log, "a");
        let theirs = publisher.join().unwrap();
        let kept: Vec<u64> = BTreeSet::from([mine, theirs]).into_iter().flatten().collect();
        let mut seen = Seen::default();
        look(&mut reader, &shelf, &mut seen);
        assert!(kept.len() < 2, "the first commit must fail");
        assert_eq!((&seen.offsets, shelf.offsets()), (&kept, kept.clone()));
    });
}

#[test]
fn accepted_events_are_committed_before_the_log_ends() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let mut reader = open(&log, &["a"], Start::Live);
        let closer = {
            let log = log.clone();
            thread::spawn(move || log.close())
        };
        let kept = publish(&log, "a");
        let seen = follow(&mut reader, &shelf, |_| false);
        assert_eq!(seen.end, Some(EndReason::Closed));
        assert_eq!((&seen.offsets, shelf.offsets()), (&Vec::from_iter(kept), Vec::from_iter(kept)));
        closer.join().unwrap();
    });
}

#[test]
fn a_publish_during_the_close_gets_an_answer() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || match submit(&log, "a") {
                Ok(commit) => committed(&commit).map(|answers| answers[0].offset.get()),
                Err(error) => Err(error),
            })
        };
        log.close();
        block_on(poll_fn(|task| log.poll_closed(task.waker())));
        match publisher.join().unwrap() {
            Ok(offset) => assert_eq!(shelf.offsets(), [offset]),
            Err(error) => assert_eq!((error, shelf.offsets()), (AppendError::Closed, vec![])),
        }
    });
}

#[test]
fn a_pattern_reader_that_opens_during_a_commit_sees_the_events_after_its_cursor() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let commit = submit(&log, "a/x").expect("room in the queue");
        let mut reader = open(&log, &["a/*"], Start::Live);
        let next = reader.cursor().next.get();
        assert!(committed(&commit).is_ok());
        let mut seen = Seen::default();
        look(&mut reader, &shelf, &mut seen);
        assert_eq!(seen.offsets, (next..2).collect::<Vec<_>>());
    });
}
