//! Readers come back to a replica whose history has lost events. At a lost end, the history has
//! lost all its newer events and has gone on with other events. In a cluster, this is a fork. The
//! replica has a list of the lost ends. A position is a run of offsets, and a mark stands for the
//! history up to a position.

use downlink_log::{
    Applier, Cursor, Gap, GapReason, Log, LostEnd, Offset, POSITION_OFFSETS, Read, Retention,
    RetentionRules, Start,
    store::{FeedChunk, Mark, Marks, StoredEvent},
};

use crate::feed::{Text, apply, asked, chunk, event, floor, has_begun, open, replica};
use crate::support::{ALL, Seen, ms};

/// The first offset of a position. The tests have at most one event in a position.
const fn at(position: u64) -> u64 {
    1 + position * POSITION_OFFSETS
}

/// A replica with the events of the positions 1 to 5, of the topic `a`.
fn filled(rules: RetentionRules) -> (Log<Text>, Applier<Text>) {
    let (log, mut applier) = replica(|options| options.retention = rules);
    apply(&mut applier, positions(1..6));
    (log, applier)
}

/// The chunk with an event for each position.
fn positions(range: std::ops::Range<u64>) -> FeedChunk {
    let marks = range.clone().map(Mark::new).collect();
    let marks = Marks { base: 1, first: range.start, marks };
    let events = range.clone().map(|position| event(at(position), &["a"]));
    FeedChunk { marks, ..chunk(events, at(range.end)) }
}

fn lost_end(position: u64, id: &str) -> LostEnd {
    LostEnd { from: Offset::new(at(position)), ids: vec![id.into()] }
}

/// The start after a lost event. Its position had another mark than the position has now.
fn after_lost(position: u64) -> Start {
    let epoch = Mark::new(99).in_id();
    let cursor = Cursor { epoch, next: Offset::new(at(position) + 1) };
    Start::After(cursor.to_string().into())
}

/// The first gap of a reader, and then everything that it sees. It waits until the replica has
/// reached the end of its upstream.
fn seen(log: &Log<Text>, applier: &Applier<Text>, selector: &str, start: Start) -> (Gap, Seen) {
    let mut reader = open(log, &[selector], start);
    assert!(!has_begun(&mut reader), "the upstream may know the id");
    let question = asked(&applier.follower()).expect("a reader waits");
    applier.follower().confirm(question, log.tail());
    assert!(has_begun(&mut reader));
    let Read::Gap(gap) = reader.read(ms(0), ALL, &mut Vec::new()) else { panic!("no gap") };
    let mut seen = Seen::default();
    let _ = seen.read_all(&mut reader, 0);
    (gap, seen)
}

fn offsets(positions: &[u64]) -> Vec<u64> {
    positions.iter().map(|position| at(*position)).collect()
}

#[test]
fn a_reader_with_a_lost_id_continues_at_the_lowest_lost_end_below_it() {
    let (log, mut applier) = filled(RetentionRules::default());
    applier.set_lost_ends(vec![lost_end(4, "x"), lost_end(3, "y")]);
    for selector in ["a", "*"] {
        for (start, from) in [
            (after_lost(3), 3),
            (after_lost(4), 3),
            (after_lost(9), 3),
            (Start::After("x".into()), 4),
            (Start::After("y".into()), 3),
        ] {
            let (gap, seen) = seen(&log, &applier, selector, start.clone());
            assert_eq!((gap.reason, gap.next.get()), (GapReason::Lost, at(from)), "{start:?}");
            let expected = offsets(&(from..6).collect::<Vec<_>>());
            assert_eq!((seen.offsets, seen.gaps), (expected, vec![]), "{start:?}");
        }
        let (gap, _) = seen(&log, &applier, selector, after_lost(2));
        assert_eq!(gap.reason, GapReason::NewEpoch, "nothing before it was lost");
        let (gap, _) = seen(&log, &applier, selector, Start::After("z".into()));
        assert_eq!(gap.reason, GapReason::UnknownId);
    }
    // The events from position 5 on are lost too. The replica keeps its list of lost ends.
    applier.cut_to(Offset::new(at(5)));
    let (gap, _) = seen(&log, &applier, "a", after_lost(9));
    assert_eq!((gap.reason, gap.next.get()), (GapReason::Lost, at(3)));
}

/// The publisher has published the lost event again, so the log knows its id.
#[test]
fn a_reader_whose_lost_event_was_published_again_continues_at_the_lost_end() {
    let (log, mut applier) = filled(RetentionRules::default());
    let again = StoredEvent { id: Some("x".into()), ..event(at(6), &["a"]) };
    apply(&mut applier, FeedChunk { events: vec![again], ..positions(6..7) });
    applier.set_lost_ends(vec![lost_end(4, "x")]);
    let (gap, seen) = seen(&log, &applier, "a", Start::After("x".into()));
    assert_eq!((gap.reason, gap.next.get()), (GapReason::Lost, at(4)));
    assert_eq!(seen.offsets, offsets(&[4, 5, 6]));
}

/// The reader learns of both: events were lost, and some of the events that took their places were
/// evicted.
#[test]
fn events_that_were_evicted_after_a_lost_end_are_a_gap() {
    let default = Retention { events_max: 2, ..Retention::DEFAULT };
    let (log, mut applier) = filled(RetentionRules { default, ..RetentionRules::default() });
    applier.set_lost_ends(vec![lost_end(2, "x")]);
    for selector in ["a", "*"] {
        let (gap, seen) = seen(&log, &applier, selector, after_lost(3));
        assert_eq!((gap.reason, gap.next.get()), (GapReason::Lost, at(2)));
        assert_eq!((seen.offsets, seen.gaps), (offsets(&[4, 5]), vec![(at(2) - 1, at(3))]));
    }
}

/// A node of a cluster that began in the middle of the journal, which is the list of the entries of
/// all nodes.
#[test]
fn a_replica_without_the_whole_history_answers_evicted_for_an_unknown_id() {
    let (log, mut applier) = replica(|_| {});
    let unknown = FeedChunk { others: floor(at(5)), events: Vec::new(), ..positions(4..5) };
    apply(&mut applier, unknown);
    apply(&mut applier, positions(5..7));
    applier.set_lost_ends(vec![lost_end(2, "x")]);
    for selector in ["a", "*"] {
        let (gap, seen_) = seen(&log, &applier, selector, Start::After("z".into()));
        assert_eq!((gap.reason, seen_.offsets), (GapReason::Evicted, offsets(&[5, 6])));
        // The replica knows nothing between the lost end and its first position.
        let (gap, seen_) = seen(&log, &applier, selector, Start::After("x".into()));
        assert_eq!((gap.reason, gap.next.get()), (GapReason::Lost, at(5)));
        assert_eq!((seen_.offsets, seen_.gaps), (offsets(&[5, 6]), vec![]));
    }
}
