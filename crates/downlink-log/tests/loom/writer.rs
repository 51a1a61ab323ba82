//! A log over a store, with the thread that writes: an event is seen once, after its commit, or never.
//!
//! The writer waits as it does outside of models, and no time passes: a publisher that it does not
//! hear of is a deadlock.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc, task::Poll};

use downlink_log::{
    Answers, Commit, EndReason, Epoch, Log, Reader, Start, StoreOptions, store::StoreError,
};
use loom::{future::block_on, thread};

use crate::{
    model, open,
    shelf::Shelf,
    support::{ALL, Load, Seen, draft, ms, options, topic},
};

fn over(shelf: &Shelf) -> Log<Load> {
    let side = StoreOptions::new(|_| Some(Load), || ms(0));
    Log::with_store(options(), shelf.open(Epoch::from_random(7)), side).expect("a readable shelf")
}

/// Publishes to a topic; readers are woken by the commit.
fn submit(log: &Log<Load>, name: &str) -> (u64, Arc<Commit>) {
    let mut draft = draft(&[topic(name)]);
    draft.body = Some(Vec::new());
    let (submitted, _) = log.submit(ms(0), [draft].into_iter().collect()).expect("room");
    let commit = submitted.commit.expect("it is to be committed");
    (submitted.answers[0].offset.get(), Arc::new(commit))
}

fn committed(commit: &Commit) -> Result<Answers, StoreError> {
    block_on(poll_fn(|task| commit.poll(task.waker())))
}

/// Publishes and waits; the offset if it was kept.
fn publish(log: &Log<Load>, name: &str) -> Option<u64> {
    let (offset, commit) = submit(log, name);
    committed(&commit).is_ok().then_some(offset)
}

/// Looks once, and says whether anything was there. What is seen is on the shelf.
fn look(reader: &mut Reader<Load>, shelf: &Shelf, seen: &mut Seen) {
    let _ = seen.read_by(reader, 0, ALL);
    let kept: BTreeSet<u64> = shelf.offsets().into_iter().collect();
    assert!(seen.offsets.iter().all(|offset| kept.contains(offset)), "{seen:?} before {kept:?}");
    assert_eq!(seen.gaps, []);
}

/// Reads, and waits when there is nothing, until it is enough or the end.
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
        let publisher = thread::spawn(move || [(); 2].map(|()| submit(&log, "a").0));
        let seen = follow(&mut reader, &shelf, |seen| seen.offsets.len() == 2);
        assert_eq!(seen.offsets, publisher.join().unwrap());
    });
}

#[test]
fn a_reader_that_comes_meanwhile_sees_what_follows_its_cursor_once() {
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
        // What was acknowledged is there: nobody has to wait.
        look(&mut reader, &shelf, &mut seen);
        assert_eq!(seen.offsets, (next..2).collect::<Vec<_>>());
    });
}

#[test]
fn two_publishers_are_both_heard_of() {
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

/// Of two publishers one fails, or both: what is told to them is what the reader sees.
#[test]
fn a_commit_that_fails_makes_nothing_visible() {
    model(2, || {
        let shelf = Shelf::default();
        shelf.fail_with([Some(StoreError::DiskFull)]);
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
        assert!(kept.len() < 2, "the first commit has failed");
        assert_eq!((&seen.offsets, shelf.offsets()), (&kept, kept.clone()));
    });
}

#[test]
fn what_was_taken_is_committed_before_the_end() {
    model(2, || {
        let shelf = Shelf::default();
        let log = over(&shelf);
        let mut reader = open(&log, &["a"], Start::Live);
        let closer = {
            let log = log.clone();
            thread::spawn(move || log.close())
        };
        let mut draft = draft(&[topic("a")]);
        draft.body = Some(Vec::new());
        let submitted = log.submit(ms(0), [draft].into_iter().collect());
        let kept = submitted.is_ok_and(|(submitted, _)| {
            committed(&submitted.commit.expect("it is to be committed")).is_ok()
        });
        let seen = follow(&mut reader, &shelf, |_| false);
        assert_eq!(seen.end, Some(EndReason::Closed));
        assert_eq!(seen.offsets, if kept { vec![1] } else { vec![] });
        assert_eq!(seen.offsets, shelf.offsets());
        closer.join().unwrap();
    });
}
