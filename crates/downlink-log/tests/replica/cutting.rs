//! A replica removes its newest events if the history that it follows has lost them. It then goes
//! on with other events. This happens in a cluster: the engine, which puts the entries of all nodes
//! in one order, may lose its newest entries. Each node then cuts its log. A position is a run of
//! offsets, and a mark stands for the history up to a position.

use downlink_log::{
    AppendError, Applier, ClockState, Cursor, Draft, EndReason, Fingerprint, Floor, GapReason,
    IdempotencyKey, Log, Offset, POSITION_OFFSETS, Read, Retention, RetentionRules, Start,
    store::{FeedChunk, Mark, Marks, StoredEvent},
};

use crate::feed::{
    Text, apply, asked, chunk, chunk_with_floors, event, everyone, floor, mark, open, replica,
    start,
};
use crate::support::{Seen, draft_of, ms, topic};

/// The first offset of a position. The tests have at most one event in a position.
const fn at(position: u64) -> u64 {
    1 + position * POSITION_OFFSETS
}

/// The mark of a position. A history that was cut gets other marks.
fn mark_of(position: u64, history: u64) -> Mark {
    Mark::new(1_000 * history + position)
}

/// The chunk with some positions of a history, from the position `first` on.
fn positions(first: u64, history: u64, events: Vec<StoredEvent>) -> FeedChunk {
    let until = first + events.len() as u64;
    let marks = (first..until).map(|position| mark_of(position, history)).collect();
    FeedChunk { marks: Marks { base: 1, first, marks }, ..chunk(events, at(until)) }
}

/// Continues after the event of a position.
fn after(position: u64, history: u64) -> Start {
    let epoch = mark_of(position, history).in_id();
    Start::After(Cursor { epoch, next: Offset::new(at(position) + 1) }.to_string().into())
}

/// When the replica asks for the end of its upstream, answers that the replica has reached it.
fn confirm(applier: &Applier<Text>) {
    let follower = applier.follower();
    let question = asked(&follower).expect("readers wait");
    follower.confirm(question, applier.position().expect("a position"));
}

/// The positions of some offsets.
fn positions_of(offsets: &[u64]) -> Vec<u64> {
    offsets.iter().map(|offset| (offset - 1) / POSITION_OFFSETS).collect()
}

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

/// A payload. It is taken from an event of another replica, because only a log can make one.
fn text() -> Text {
    let (log, mut applier) = replica(|_| {});
    let mut reader = open(&log, &["a"], Start::Live);
    apply(&mut applier, chunk([event(1, &["a"])], 2));
    let mut out = Vec::new();
    assert_eq!(reader.read(ms(0), crate::support::ALL, &mut out), Read::Events);
    out.remove(0).payload
}

fn plan(applier: &mut Applier<Text>, draft: Draft<Text>) -> Result<Option<Offset>, AppendError> {
    applier.plan(ms(0), &[draft].into_iter().collect()).map(|plans| plans[0])
}

#[test]
fn the_events_from_the_cut_on_are_gone_and_others_take_their_offsets() {
    let (log, mut applier) = replica(|_| {});
    let events = [named(at(0), "first", 1), event(at(1), &["b"]), named(at(2), "lost", 3)];
    apply(&mut applier, positions(0, 1, events.to_vec()));
    let mut reader = open(&log, &["*"], Start::Earliest);
    let (number, published) = (reader.number(), log.totals(ms(0)).published);
    assert_eq!(applier.cut_to(Offset::new(at(2))), ["lost".into()]);
    assert_eq!(applier.position(), Some(log.tail()));
    let totals = log.totals(ms(0));
    assert_eq!((log.tail().next.get(), totals.published), (at(2), published));
    let mut old = Seen::default();
    assert_eq!(old.read_all(&mut reader, 0), Read::Ended(EndReason::Drained));
    confirm(&applier);
    assert_eq!(positions_of(&seen(&log, "*", Start::Earliest).offsets), [0, 1]);
    apply(&mut applier, positions(2, 2, vec![event(at(2), &["b"]), event(at(3), &["a"])]));
    let mut new = open(&log, &["*"], after(0, 1));
    assert!(new.number() > number, "numbers of readers are unique");
    let mut all = Seen::default();
    let _ = all.read_all(&mut new, 0);
    assert_eq!((positions_of(&all.offsets), all.gaps), (vec![1, 2, 3], vec![]));
    assert_eq!(positions_of(&seen(&log, "b", after(0, 1)).offsets), [1, 2]);
}

#[test]
fn a_cut_keeps_the_ids_and_keys_of_the_remaining_events() {
    let (_log, mut applier) = replica(|_| {});
    let events = [named(at(0), "first", 1), named(at(1), "lost", 2)];
    apply(&mut applier, positions(0, 1, events.to_vec()));
    for name in ["first", "lost"] {
        assert!(applier.publisher_id(name).is_some());
        assert!(matches!(
            plan(&mut applier, draft(name, 9)),
            Err(AppendError::KeyReused { draft: 0 })
        ));
    }
    assert_eq!(plan(&mut applier, draft("lost", 2)), Ok(Some(Offset::new(at(1)))));
    assert_eq!(applier.cut_to(Offset::new(at(1))), ["lost".into()]);
    assert_eq!(applier.publisher_id("first"), Some(Offset::new(at(0))));
    assert_eq!(applier.publisher_id("lost"), None);
    assert_eq!(plan(&mut applier, draft("first", 1)), Ok(Some(Offset::new(at(0)))));
    assert_eq!(plan(&mut applier, draft("lost", 9)), Ok(None));
    let id = Draft { id: Some("first".into()), key: None, ..draft("", 9) };
    assert!(matches!(plan(&mut applier, id), Err(AppendError::IdTaken { draft: 0 })));
    // Two drafts of one publish with the same key.
    let twice = [draft("new", 1), draft("new", 1)].into_iter().collect();
    let refused = applier.plan(ms(0), &twice);
    assert!(matches!(refused, Err(AppendError::KeyReused { draft: 1 })), "{refused:?}");
}

#[test]
fn a_cut_removes_the_finish_marks_of_removed_events() {
    let (_log, mut applier) = replica(|_| {});
    let last = StoredEvent { finish: true, ..event(at(1), &["event"]) };
    let events = vec![mark(at(0), "mark"), last, mark(at(2), "lost")];
    apply(&mut applier, positions(0, 1, events));
    let on = |applier: &mut Applier<Text>, name: &str| {
        plan(applier, draft_of(&[topic(name)], text())).map(drop)
    };
    let finished = Err(AppendError::Finished { draft: 0 });
    for name in ["mark", "event", "lost"] {
        assert_eq!(on(&mut applier, name), finished);
    }
    applier.cut_to(Offset::new(at(2)));
    assert_eq!((on(&mut applier, "mark"), on(&mut applier, "event")), (finished.clone(), finished));
    assert_eq!(on(&mut applier, "lost"), Ok(()));
}

#[test]
fn events_lost_before_a_cut_are_still_a_gap_after_the_cut() {
    let two = Retention { events_max: 2, ..Retention::DEFAULT };
    let rules = RetentionRules { default: two, ..RetentionRules::default() };
    let (log, mut applier) = replica(|options| options.retention = rules);
    let events = (0..5).map(|position| event(at(position), &["a"])).collect();
    let lost = chunk_with_floors(&[("old", at(1))], [], 2).floors;
    apply(&mut applier, FeedChunk { floors: lost, ..positions(0, 1, events) });
    applier.cut_to(Offset::new(at(4)));
    confirm(&applier);
    // The events of the positions 0 to 2 were evicted, and the event of position 4 was removed.
    let of_a = seen(&log, "a", after(0, 1));
    assert_eq!((of_a.gaps.len(), positions_of(&of_a.offsets)), (1, vec![3]));
    assert_eq!(positions_of(&[of_a.gaps[0].1]), [2]);
    assert_eq!(seen(&log, "old", after(0, 1)).gaps, [(1, at(1) - 1)]);
    // This cut also removes position 3. The events of the remaining positions were all evicted, so
    // the gap of the topic ends right before the cut.
    applier.cut_to(Offset::new(at(2)));
    confirm(&applier);
    assert_eq!(positions_of(&[seen(&log, "a", after(0, 1)).gaps[0].1]), [1]);
    apply(&mut applier, positions(2, 2, vec![event(at(2), &["a"])]));
    let of_a = seen(&log, "a", after(1, 1));
    assert_eq!((positions_of(&of_a.offsets), of_a.gaps), (vec![2], vec![(at(1), at(2) - 1)]));
}

/// A table has the floors (the offsets below which events are missing) of names without a topic.
/// All names outside the table share one high floor. A cut must not give this floor to a topic that
/// still has older events, whether the table is full or has room.
#[test]
fn a_cut_keeps_old_events_below_the_floor_that_other_names_share() {
    for collected_max in [0, 10] {
        let (log, mut applier) = replica(|options| options.collected_max = Some(collected_max));
        let events = vec![named(at(0), "old", 1), event(at(1), &["b"]), event(at(2), &["a"])];
        let others = floor(at(2));
        let known = vec![(everyone(), Floor::NONE), (topic("a"), Floor::NONE)];
        let first = FeedChunk { others, floors: known, ..positions(0, 1, events) };
        apply(&mut applier, first);
        let check = |log: &Log<Text>, applier: &mut Applier<Text>| {
            let of_a = seen(log, "a", after(0, 1));
            assert_eq!(
                (positions_of(&of_a.offsets), of_a.gaps),
                (vec![2], vec![]),
                "{collected_max}"
            );
            assert_eq!(positions_of(&seen(log, "a", Start::Earliest).offsets), [0, 2]);
            assert_eq!(seen(log, "b", Start::Earliest).offsets, []);
            assert_eq!(seen(log, "b", after(0, 1)).gaps.len(), 1);
            assert_eq!(applier.publisher_id("old"), Some(Offset::new(at(0))));
        };
        check(&log, &mut applier);
        assert_eq!(applier.cut_to(Offset::new(at(3))), [] as [Box<str>; 0]);
        confirm(&applier);
        check(&log, &mut applier);
    }
}

#[test]
fn a_reader_with_the_id_of_a_removed_event_gets_a_gap() {
    let (log, mut applier) = replica(|_| {});
    let events = vec![event(at(0), &["a"]), event(at(1), &["a"])];
    apply(&mut applier, positions(0, 1, events));
    applier.cut_to(Offset::new(at(1)));
    apply(&mut applier, positions(1, 2, vec![event(at(1), &["a"])]));
    let mut reader = open(&log, &["a"], after(1, 1));
    confirm(&applier);
    let Read::Gap(gap) = reader.read(ms(0), crate::support::ALL, &mut Vec::new()) else {
        panic!("the event is gone")
    };
    assert_eq!(gap.reason, GapReason::NewEpoch);
}

/// A feed of the replica ends, because the events that it has passed on are gone.
#[test]
fn feeds_end_at_a_cut() {
    let (log, mut applier) = replica(|_| {});
    let mut feed = log.feed(None, |text| text.bytes.clone());
    let events = vec![event(at(0), &["a"]), event(at(1), &["a"])];
    apply(&mut applier, positions(0, 1, events));
    let read = feed.read(ClockState::default()).unwrap().expect("the feed is open");
    assert_eq!(read.events.len(), 2);
    let position = Some(log.id_of(Offset::new(at(1))));
    applier.cut_to(Offset::new(at(1)));
    assert_eq!(feed.read(ClockState::default()), Ok(None));
    assert!(!log.feed(position, |text| text.bytes.clone()).start().resumed);
}

/// If the upstream is not a cluster, ids have an epoch instead of a mark. After a cut, a new event
/// could then get the same id as a removed event.
#[test]
fn a_replica_whose_ids_have_no_marks_discards_everything_instead() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    applier.cut_to(Offset::new(2));
    assert_eq!((applier.position(), log.tail().next), (None, Offset::FIRST));
    assert!(applier.begin(start(&[(2, 1)], 1, false)));
    apply(&mut applier, chunk([event(1, &["a"])], 2));
    confirm(&applier);
    assert_eq!(seen(&log, "a", Start::Earliest).offsets, [1]);
}
