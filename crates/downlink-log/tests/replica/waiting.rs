//! Readers that wait until the replica knows as much as its upstream, which is the log that it
//! copies. For this, the replica asks its upstream a question: where does the upstream's log end?

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Poll, Waker},
};

use downlink_log::{Cursor, EndReason, FollowerTask, GapReason, Log, Offset, Read, Reader, Start};

use crate::feed::{
    Text, after, apply, asked, chunk, confirm, epoch, event, has_begun, open, replica, start, unfed,
};
use crate::support::{ALL, Count, Seen, ms};

fn read(reader: &mut Reader<Text>) -> Read {
    reader.read(ms(0), ALL, &mut Vec::new())
}

fn every_start() -> [Start; 6] {
    let unknown = Start::After("a publisher's id".into());
    [Start::Live, Start::Earliest, Start::Last(3), Start::Since(ms(0)), after(1, 1), unknown]
}

#[test]
fn every_reader_waits_until_the_replica_has_reached_the_end_of_its_upstream() {
    let (log, mut applier) = unfed(|_| {});
    let mut early = every_start().map(|start| open(&log, &["a"], start));
    assert!(!early.iter_mut().any(has_begun));
    applier.begin(start(&[(1, 1)], 1, false));
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    confirm(&applier, 1, 5);
    let mut late = every_start().map(|start| open(&log, &["*"], start));
    assert!(!early.iter_mut().chain(&mut late).any(has_begun));
    apply(&mut applier, chunk([event(4, &["a"])], 5));
    assert!(early.iter_mut().all(has_begun));
    // The second question is for the readers that came after the first question was asked.
    assert!(!late.iter_mut().any(has_begun));
    confirm(&applier, 1, 5);
    assert!(late.iter_mut().all(has_begun));
    let offsets = early.each_mut().map(|reader| {
        let mut seen = Seen::default();
        while !matches!(reader.read(ms(0), ALL, &mut Vec::new()), Read::CaughtUp | Read::Ended(_)) {
        }
        seen.offsets.push(reader.cursor().next.get());
        seen.offsets
    });
    assert!(offsets.iter().all(|offsets| offsets == &[5]), "{offsets:?}");
}

#[test]
fn a_reader_with_an_id_that_is_ahead_resumes_when_its_event_has_arrived() {
    let ids = [after(1, 4), after(2, 6), Start::After("x".into())];
    for start_after in ids {
        let (log, mut applier) = replica(|_| {});
        let follower = applier.follower();
        let mut reader = open(&log, &["a"], start_after.clone());
        assert!(!has_begun(&mut reader));
        let question = asked(&follower).expect("a reader waits");
        follower.confirm(question, Cursor { epoch: epoch(2), next: Offset::new(8) });
        assert_eq!(asked(&follower), None);
        applier.begin(start(&[(1, 1), (2, 6)], 1, true));
        let mut given = event(3, &["a"]);
        given.id = Some("x".into());
        apply(&mut applier, chunk([given, event(5, &["a"]), event(6, &["a"])], 7));
        assert!(!has_begun(&mut reader));
        let count = Arc::new(Count::default());
        assert!(reader.poll_begun(&Waker::from(Arc::clone(&count))).is_pending());
        apply(&mut applier, chunk([event(7, &["b"])], 8));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(has_begun(&mut reader));
        let mut seen = Seen::default();
        let _ = seen.read_all(&mut reader, 0);
        let expected: &[u64] = if start_after == after(2, 6) { &[] } else { &[5, 6] };
        assert_eq!((&*seen.offsets, seen.gaps), (expected, vec![]), "{start_after:?}");
    }
}

#[test]
fn an_id_that_the_upstream_does_not_know_gives_a_gap_after_the_upstream_was_asked() {
    let cases = [
        (after(1, 99), GapReason::Lost),
        (after(7, 2), GapReason::NewEpoch),
        (Start::After("x".into()), GapReason::UnknownId),
    ];
    for (start_after, reason) in cases {
        let (log, mut applier) = replica(|_| {});
        apply(&mut applier, chunk([event(1, &["a"])], 2));
        let mut reader = open(&log, &["a"], start_after);
        assert!(!has_begun(&mut reader));
        confirm(&applier, 1, 2);
        assert!(has_begun(&mut reader));
        let Read::Gap(gap) = read(&mut reader) else { panic!("the id is not known") };
        assert_eq!(gap.reason, reason);
    }
}

#[test]
fn a_reader_with_a_known_id_does_not_wait() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    for start in [Start::Live, Start::Earliest, Start::Last(1), Start::Since(ms(0)), after(1, 1)] {
        assert!(has_begun(&mut open(&log, &["a"], start)));
    }
    assert_eq!(asked(&applier.follower()), None);
}

#[test]
fn one_question_serves_all_readers_that_wait_when_it_is_asked() {
    let (log, applier) = replica(|_| {});
    let follower = applier.follower();
    let wait = |log: &Log<Text>| open(log, &["a"], after(1, 9));
    let mut first: Vec<_> = (0..100).map(|_| wait(&log)).collect();
    let question = asked(&follower).expect("readers wait");
    // The upstream may have been asked before these readers came.
    let mut second: Vec<_> = (0..100).map(|_| wait(&log)).collect();
    assert_eq!(asked(&follower), None, "one question is asked at a time");
    let count = Arc::new(Count::default());
    assert!(follower.poll_task(&Waker::from(Arc::clone(&count))).is_pending());
    follower.confirm(question, log.tail());
    assert!(first.iter_mut().all(has_begun) && !second.iter_mut().any(has_begun));
    assert_eq!(count.0.load(Ordering::Relaxed), 1, "the next question may be asked");
    let next = asked(&follower).expect("readers wait");
    follower.confirm(next, log.tail());
    assert!(second.iter_mut().all(has_begun));
    assert_eq!(asked(&follower), None);
}

/// A replica that falls behind gets more answers than it keeps. No reader may be forgotten.
#[test]
fn no_waiting_reader_is_forgotten_if_there_are_more_answers_than_are_kept() {
    let (log, mut applier) = replica(|_| {});
    let mut readers: Vec<_> = (0..20)
        .map(|number| {
            let reader = open(&log, &["a"], after(1, 99));
            confirm(&applier, 1, 10 + number);
            reader
        })
        .collect();
    apply(&mut applier, chunk([], 12));
    let begun = |readers: &mut [Reader<Text>]| {
        readers.iter_mut().map(has_begun).filter(|has_begun| *has_begun).count()
    };
    assert_eq!(begun(&mut readers), 3);
    apply(&mut applier, chunk([], 30));
    assert_eq!(begun(&mut readers), 20);
}

fn assert_drained(reader: &mut Reader<Text>) {
    assert!(reader.poll_begun(Waker::noop()).is_ready() && !reader.has_begun());
    assert_eq!(read(reader), Read::Ended(EndReason::Drained));
}

#[test]
fn readers_end_if_the_upstream_cannot_be_asked() {
    let (log, applier) = replica(|_| {});
    let follower = applier.follower();
    let mut readers = [(); 2].map(|()| open(&log, &["a"], after(1, 9)));
    let question = asked(&follower).expect("readers wait");
    let mut later = open(&log, &["a"], after(1, 9));
    follower.fail(question);
    readers.iter_mut().for_each(assert_drained);
    assert!(!has_begun(&mut later), "its question was not asked yet");
    let next = asked(&follower).expect("a reader waits");
    follower.fail(next);
    assert_drained(&mut later);
    assert!(has_begun(&mut open(&log, &["a"], Start::Live)), "the replica still serves");
}

#[test]
fn readers_end_after_ten_seconds() {
    let (log, mut applier) = replica(|_| {});
    let selection = crate::support::selection(&["a"]);
    let mut reader = log.open(ms(5_000), &selection, &after(1, 9)).expect("room");
    confirm(&applier, 1, 20);
    assert_eq!(applier.idle(ms(14_000)).as_millis(), 1_000);
    assert!(!has_begun(&mut reader));
    let _ = applier.idle(ms(15_000));
    assert_drained(&mut reader);
    // A reader that leaves is forgotten.
    drop(log.open(ms(15_000), &selection, &after(1, 9)).expect("room"));
    assert_eq!(applier.idle(ms(15_001)).as_secs(), 60);
}

#[test]
fn a_closed_replica_ends_its_readers_and_tells_its_follower() {
    let (log, applier) = replica(|_| {});
    let follower = applier.follower();
    let mut waiting = open(&log, &["a"], after(1, 9));
    let mut live = open(&log, &["a"], Start::Live);
    let count = Arc::new(Count::default());
    assert!(asked(&follower).is_some());
    assert!(follower.poll_task(&Waker::from(Arc::clone(&count))).is_pending());
    assert!(log.poll_closed(Waker::noop()).is_pending());
    log.close();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(follower.poll_task(Waker::noop()), Poll::Ready(FollowerTask::Close));
    assert_eq!(read(&mut waiting), Read::Ended(EndReason::Closed));
    assert_eq!(read(&mut live), Read::Ended(EndReason::Closed));
    let opened = log.open(ms(0), &crate::support::selection(&["a"]), &Start::Live);
    assert_eq!(opened.err(), Some(downlink_log::OpenError::Closed));
    assert!(log.poll_closed(Waker::noop()).is_pending(), "the applier is not dropped yet");
    drop(applier);
    assert!(log.poll_closed(Waker::noop()).is_ready());
}

#[test]
fn a_replica_without_handles_or_without_an_applier_is_closed() {
    let (log, applier) = replica(|_| {});
    let follower = applier.follower();
    let mut reader = open(&log, &["a"], Start::Live);
    drop(log.clone());
    assert_eq!(read(&mut reader), Read::CaughtUp);
    drop(log);
    assert_eq!(follower.poll_task(Waker::noop()), Poll::Ready(FollowerTask::Close));
    assert_eq!(read(&mut reader), Read::Ended(EndReason::Closed));
    let (log, applier) = replica(|_| {});
    let mut reader = open(&log, &["a"], Start::Live);
    drop(applier);
    assert_eq!(read(&mut reader), Read::Ended(EndReason::Closed));
}
