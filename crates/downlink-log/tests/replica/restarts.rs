//! The upstream starts again, with or without its history.

use downlink_log::{Address, EndReason, GapReason, Offset, Read, Retention, RetentionRules, Start};

use crate::feed::{
    after, apply, chunk, chunk_with_floors, confirm, epoch, event, has_begun, open, replica, start,
};
use crate::support::{ALL, Seen, client, ms, selection, topic};

#[test]
fn streams_stay_open_when_the_upstream_continues_in_a_new_epoch() {
    let (log, mut applier) = replica(|_| {});
    let mut reader = open(&log, &["a"], Start::Live);
    apply(&mut applier, chunk([event(1, &["a"])], 2));
    applier.begin(start(&[(1, 1), (2, 5)], 2, true));
    apply(&mut applier, chunk([event(5, &["a"])], 6));
    let mut seen = Seen::default();
    assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
    assert_eq!((seen.offsets, seen.gaps), (vec![1, 5], vec![]));
    assert_eq!([1, 5].map(|at| reader.id_of(Offset::new(at)).epoch), [epoch(1), epoch(2)]);
    assert_eq!(log.tail().epoch, epoch(2));
    assert_eq!(applier.position(), Some(log.tail()));
    assert!(has_begun(&mut open(&log, &["a"], after(1, 1))));
}

#[test]
fn a_replica_begins_again_when_the_upstream_has_another_history() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    let mut old = open(&log, &["a"], after(1, 0));
    let (number, count) = (old.number(), log.totals(ms(0)).published);
    applier.begin(start(&[(9, 1)], 1, false));
    assert_eq!(log.totals(ms(0)).subscribers, 0);
    // The old reader first gets what it has not read yet.
    let mut seen = Seen::default();
    assert_eq!(seen.read_all(&mut old, 0), Read::Ended(EndReason::Drained));
    assert_eq!(seen.offsets, [1, 2]);
    assert_eq!(old.id_of(Offset::new(2)).epoch, epoch(1));
    let mut returns = open(&log, &["a"], after(1, 2));
    assert!(!has_begun(&mut returns), "the new history is not complete");
    assert!(returns.number() > number, "numbers of readers are unique");
    apply(&mut applier, chunk([event(1, &["a"])], 2));
    confirm(&applier, 9, 2);
    let mut out = Vec::new();
    let Read::Gap(gap) = returns.read(ms(0), ALL, &mut out) else { panic!("the epoch is unknown") };
    assert_eq!((gap.reason, gap.next), (GapReason::NewEpoch, Offset::new(1)));
    assert_eq!(log.totals(ms(0)).published, count + 1);
    drop(old);
    assert_eq!(log.totals(ms(0)).subscribers, 1);
}

#[test]
fn floors_of_the_new_history_may_be_below_the_old_position() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(90, &["a"])], 100));
    applier.begin(start(&[(9, 1)], 1, false));
    apply(&mut applier, chunk_with_floors(&[("a", 5)], [event(7, &["a"])], 8));
    confirm(&applier, 9, 8);
    let mut seen = Seen::default();
    let _ = seen.read_all(&mut open(&log, &["a"], after(9, 2)), 0);
    assert_eq!((seen.gaps, seen.offsets), (vec![(2, 4)], vec![7]));
}

#[test]
fn an_answer_to_a_question_from_before_the_restart_does_not_count() {
    let (log, mut applier) = replica(|_| {});
    let follower = applier.follower();
    let waiting = open(&log, &["a"], after(1, 9));
    let question = crate::feed::asked(&follower).expect("a reader waits");
    applier.begin(start(&[(9, 1)], 1, false));
    follower.confirm(question, log.tail());
    let mut reader = open(&log, &["a"], Start::Live);
    assert!(!has_begun(&mut reader));
    confirm(&applier, 9, 1);
    assert!(has_begun(&mut reader));
    assert_eq!(waiting.told_to_end(), Some(EndReason::Drained));
}

#[test]
fn calls_on_the_log_go_to_the_new_history() {
    let (log, mut applier) = replica(|_| {});
    let rules = |events_max| {
        let default = Retention { events_max, ..Retention::DEFAULT };
        RetentionRules { default, ..RetentionRules::default() }
    };
    log.set_retention(ms(0), rules(2));
    applier.begin(start(&[(9, 1)], 1, false));
    let mut selection = selection(&["a"]);
    selection.client = Some(client("c"));
    let mut reader = log.open(ms(0), &selection, &Start::Live).expect("room");
    confirm(&applier, 9, 1);
    assert!(has_begun(&mut reader));
    apply(&mut applier, chunk((1..=5).map(|at| event(at, &["a"])), 6));
    assert_eq!(log.topic(ms(0), &topic("a")).map(|topic| topic.events), Some(2));
    log.set_retention(ms(0), rules(1));
    assert_eq!(log.topic(ms(0), &topic("a")).map(|topic| topic.events), Some(1));
    assert_eq!(log.topics(ms(0), "", None, 9).len(), 1);
    assert_eq!((log.readers(ms(0)).len(), log.subscribers_of(&client("c"))), (1, 1));
    assert_eq!(log.lags().counts.iter().sum::<u64>(), 1);
    assert_eq!(log.topic(ms(0), &Address::Client(client("c"))).map(|inbox| inbox.events), Some(0));
    assert_eq!(log.disconnect(&client("c")), 1);
    assert_eq!(reader.read(ms(0), ALL, &mut Vec::new()), Read::Ended(EndReason::Disconnected));
    assert!(!log.disconnect_reader(999));
    log.close();
    applier.begin(start(&[(11, 1)], 1, false));
    let opened = log.open(ms(0), &crate::support::selection(&["a"]), &Start::Live);
    assert_eq!(opened.err(), Some(downlink_log::OpenError::Closed));
}
