//! A replica whose history has lost its newest events removes them, and goes on with others. A node
//! of a cluster does this when the engine of the cluster has lost entries.

use downlink_log::{
    AppendError, Applier, ClockState, Draft, EndReason, Fingerprint, GapReason, IdempotencyKey,
    Log, Offset, Read, Retention, RetentionRules, Start, store::StoredEvent,
};

use crate::feed::{
    Text, after, apply, chunk, chunk_with_floors, confirm, event, mark, open, replica,
};
use crate::support::{Seen, draft_of, ms, topic};

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey { credential: "".into(), key: name.into() }
}

fn content(number: u8) -> Fingerprint {
    Fingerprint::keyed(&[0; 16], &[number])
}

/// An event with an id of its publisher, an idempotency key and a content.
fn named(offset: u64, name: &str, number: u8) -> StoredEvent {
    StoredEvent {
        id: Some(name.into()),
        key: Some(key(name)),
        fingerprint: content(number),
        ..event(offset, &["a"])
    }
}

fn seen(log: &Log<Text>, selector: &str, start: Start) -> Seen {
    let mut seen = Seen::default();
    let _ = seen.read_all(&mut open(log, &[selector], start), 0);
    seen
}

fn draft(name: &str, number: u8) -> Draft<Text> {
    Draft { key: Some(key(name)), fingerprint: content(number), ..draft_of(&[topic("a")], text()) }
}

/// A payload, from an event of another replica.
fn text() -> Text {
    let (log, mut applier) = replica(|_| {});
    let mut reader = open(&log, &["a"], Start::Live);
    apply(&mut applier, chunk([event(1, &["a"])], 2));
    let mut out = Vec::new();
    assert_eq!(reader.read(ms(0), crate::support::ALL, &mut out), Read::Events);
    out.remove(0).payload
}

fn plan(applier: &Applier<Text>, draft: Draft<Text>) -> Result<Option<Offset>, AppendError> {
    applier.plan(ms(0), &[draft].into_iter().collect()).map(|plans| plans[0])
}

#[test]
fn the_events_from_the_cut_on_are_gone_and_others_take_their_offsets() {
    let (log, mut applier) = replica(|_| {});
    let events = [named(1, "first", 1), event(2, &["b"]), named(3, "lost", 3), event(4, &["b"])];
    apply(&mut applier, chunk(events, 5));
    let (mut reader, number) = {
        let reader = open(&log, &["*"], after(1, 0));
        let number = reader.number();
        (reader, number)
    };
    let published = log.totals(ms(0)).published;
    assert_eq!(applier.cut_to(Offset::new(3)), ["lost".into()]);
    assert_eq!(applier.position(), Some(log.tail()));
    assert_eq!((log.tail().next, log.totals(ms(0)).published), (Offset::new(3), published));
    let mut old = Seen::default();
    assert_eq!(old.read_all(&mut reader, 0), Read::Ended(EndReason::Drained));
    confirm(&applier, 1, 3);
    assert_eq!(seen(&log, "*", after(1, 0)).offsets, [1, 2]);
    apply(&mut applier, chunk([event(3, &["b"]), event(6, &["a"])], 7));
    let mut new = open(&log, &["*"], after(1, 0));
    assert!(new.number() > number, "numbers of readers are unique");
    let mut all = Seen::default();
    let _ = all.read_all(&mut new, 0);
    assert_eq!((all.offsets, all.gaps), (vec![1, 2, 3, 6], vec![]));
    assert_eq!(seen(&log, "b", after(1, 0)).offsets, [2, 3]);
}

#[test]
fn ids_and_keys_stay_with_the_events_that_stay() {
    let (_log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([named(1, "first", 1), named(2, "lost", 2)], 3));
    for name in ["first", "lost"] {
        assert!(applier.publisher_id(name).is_some());
        assert!(matches!(plan(&applier, draft(name, 9)), Err(AppendError::KeyReused { draft: 0 })));
    }
    assert_eq!(plan(&applier, draft("lost", 2)), Ok(Some(Offset::new(2))));
    assert_eq!(applier.cut_to(Offset::new(2)), ["lost".into()]);
    assert_eq!(applier.publisher_id("first"), Some(Offset::new(1)));
    assert_eq!(applier.publisher_id("lost"), None);
    assert_eq!(plan(&applier, draft("first", 1)), Ok(Some(Offset::new(1))));
    assert_eq!(plan(&applier, draft("lost", 9)), Ok(None));
    let id = Draft { id: Some("first".into()), key: None, ..draft("", 9) };
    assert!(matches!(plan(&applier, id), Err(AppendError::IdTaken { draft: 0 })));
    // Two drafts of one publish with the same key.
    let twice = [draft("new", 1), draft("new", 1)].into_iter().collect();
    let refused = applier.plan(ms(0), &twice);
    assert!(matches!(refused, Err(AppendError::KeyReused { draft: 1 })), "{refused:?}");
}

#[test]
fn a_topic_is_finished_only_by_an_event_that_stays() {
    let (_log, mut applier) = replica(|_| {});
    let last = StoredEvent { finish: true, ..event(2, &["event"]) };
    apply(&mut applier, chunk([mark(1, "mark"), last, mark(3, "lost")], 4));
    let on = |applier: &Applier<Text>, name: &str| {
        plan(applier, draft_of(&[topic(name)], text())).map(drop)
    };
    let finished = Err(AppendError::Finished { draft: 0 });
    for name in ["mark", "event", "lost"] {
        assert_eq!(on(&applier, name), finished);
    }
    applier.cut_to(Offset::new(3));
    assert_eq!((on(&applier, "mark"), on(&applier, "event")), (finished.clone(), finished));
    assert_eq!(on(&applier, "lost"), Ok(()));
}

#[test]
fn what_was_lost_before_a_cut_is_still_a_gap_after_it() {
    let two = Retention { events_max: 2, ..Retention::DEFAULT };
    let (log, mut applier) = replica(|options| {
        options.retention = RetentionRules { default: two, ..Default::default() }
    });
    apply(&mut applier, chunk_with_floors(&[("old", 2)], (1..=5).map(|at| event(at, &["a"])), 6));
    applier.cut_to(Offset::new(5));
    confirm(&applier, 1, 5);
    // The events 1 to 3 were evicted, and event 5 was removed.
    let of_a = seen(&log, "a", after(1, 1));
    assert_eq!((of_a.gaps, of_a.offsets), (vec![(1, 3)], vec![4]));
    assert_eq!(seen(&log, "old", after(1, 0)).gaps, [(0, 1)]);
    // All events of the topic that stayed were evicted, so its floor ends at the cut.
    applier.cut_to(Offset::new(3));
    confirm(&applier, 1, 3);
    assert_eq!(seen(&log, "a", after(1, 1)).gaps, [(1, 2)]);
    apply(&mut applier, chunk([event(3, &["a"])], 4));
    assert_eq!(seen(&log, "a", after(1, 2)).offsets, [3]);
    assert_eq!(seen(&log, "a", after(1, 2)).gaps, []);
}

#[test]
fn an_id_from_the_removed_end_is_lost() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    applier.cut_to(Offset::new(2));
    let mut reader = open(&log, &["a"], after(1, 2));
    confirm(&applier, 1, 2);
    let Read::Gap(gap) = reader.read(ms(0), crate::support::ALL, &mut Vec::new()) else {
        panic!("the event is gone")
    };
    assert_eq!((gap.reason, gap.next), (GapReason::Lost, Offset::new(2)));
}

/// A feed of the replica ends, because the events that it has passed on are gone.
#[test]
fn feeds_end_at_a_cut() {
    let (log, mut applier) = replica(|_| {});
    let mut feed = log.feed(None, |text| text.bytes.clone());
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    let read = feed.read(ClockState::default()).unwrap().expect("the feed is open");
    assert_eq!(read.events.len(), 2);
    applier.cut_to(Offset::new(2));
    assert_eq!(feed.read(ClockState::default()), Ok(None));
    let position = Some(log.id_of(Offset::new(2)));
    assert!(!log.feed(position, |text| text.bytes.clone()).start().resumed);
}
