//! The events and gaps of readers of a replica. A replica is a log that copies another log, its
//! upstream. A floor, which comes with the feed, is the offset below which the events of a topic
//! may be missing.

use downlink_log::{
    AppendError, GapReason, Offset, Read, Retention, RetentionRules, Start, store::FeedChunk,
};

use crate::feed::{
    UNREADABLE, after, apply, chunk, chunk_with_floors, event, everyone, floor, has_begun, mark,
    open, replica, start,
};
use crate::support::{ALL, SINGLY, Seen, append_all, draft_of, ms, sizes, topic};

/// The events and gaps that a reader gets until it has caught up.
fn seen(reader: &mut downlink_log::Reader<crate::feed::Text>) -> Seen {
    let mut seen = Seen::default();
    let _ = seen.read_all(reader, 0);
    seen
}

#[test]
fn readers_get_the_events_of_the_feed_with_their_offsets_times_and_ids() {
    let (log, mut applier) = replica(|_| {});
    let mut live = open(&log, &["a"], Start::Live);
    let mut pattern = open(&log, &["*"], Start::Live);
    apply(&mut applier, chunk([event(3, &["a"]), event(5, &["a", "b"]), event(9, &["b"])], 12));
    let mut out = Vec::new();
    assert_eq!(live.read(ms(0), ALL, &mut out), Read::Events);
    let entries: Vec<_> = out.iter().map(|entry| (entry.offset.get(), entry.at)).collect();
    assert_eq!(entries, [(3, ms(3)), (5, ms(5))]);
    assert_eq!(live.id_of(Offset::new(5)).to_string(), format!("{}-5", crate::feed::epoch(1)));
    assert_eq!(live.cursor().next, Offset::new(12));
    assert_eq!(seen(&mut pattern).offsets, [3, 5, 9]);
    assert_eq!(log.tail().next, Offset::new(12));
    assert_eq!(applier.position(), Some(log.tail()));
    let mut resumed = open(&log, &["b"], after(1, 5));
    assert_eq!((seen(&mut resumed).offsets, log.totals(ms(0)).published), (vec![9], 3));
}

#[test]
fn a_replica_refuses_publishes() {
    let (log, _applier) = replica(|_| {});
    let payload = {
        let (other, mut applier) = replica(|_| {});
        let mut reader = open(&other, &["a"], Start::Live);
        apply(&mut applier, chunk([event(1, &["a"])], 2));
        let mut out = Vec::new();
        assert_eq!(reader.read(ms(0), ALL, &mut out), Read::Events);
        out.remove(0).payload
    };
    let refused = append_all(&log, 0, [draft_of(&[topic("a")], payload)]);
    assert_eq!(refused.err(), Some(AppendError::ReadOnly));
}

/// A replica that began after its upstream had evicted the events 1 to 4 of the topic `a`.
fn with_lost_events()
-> (downlink_log::Log<crate::feed::Text>, downlink_log::Applier<crate::feed::Text>) {
    let (log, mut applier) = crate::feed::unfed(|_| {});
    applier.begin(crate::feed::start(&[(1, 1)], 1, false));
    let events = [event(3, &["b"]), event(5, &["a"]), event(6, &["b"])];
    apply(&mut applier, chunk_with_floors(&[("a", 5)], events, 7));
    crate::feed::confirm(&applier, 1, 7);
    (log, applier)
}

#[test]
fn events_that_the_upstream_evicted_are_a_gap_on_a_fresh_replica() {
    let (log, _applier) = with_lost_events();
    for selectors in [&["a"][..], &["*"], &["a", "b"], &["a", "{x}"]] {
        let mut reader = open(&log, selectors, after(1, 2));
        let seen = seen(&mut reader);
        assert_eq!(seen.gaps, [(2, 4)], "{selectors:?}");
        let others = if selectors == ["a"] { vec![5] } else { vec![3, 5, 6] };
        assert_eq!(seen.offsets, others, "{selectors:?}");
    }
    assert_eq!(seen(&mut open(&log, &["b"], after(1, 2))).gaps, []);
    let mut since = open(&log, &["a"], Start::Since(ms(4)));
    let mut out = Vec::new();
    let Read::Gap(gap) = since.read(ms(0), ALL, &mut out) else { panic!("events are missing") };
    assert_eq!((gap.reason, gap.until), (GapReason::Evicted, Some(Offset::new(4))));
    for start in [Start::Earliest, Start::Last(9)] {
        for selectors in [&["a"][..], &["*"]] {
            let seen = seen(&mut open(&log, selectors, start.clone()));
            // These readers request only the kept events.
            assert_eq!(seen.gaps, [], "{start:?} {selectors:?}");
            assert_eq!(seen.offsets.last(), Some(if selectors == ["a"] { &5 } else { &6 }));
        }
    }
}

#[test]
fn readers_of_history_get_a_gap_if_the_upstream_evicts_events_later() {
    for start in [Start::Live, Start::Earliest, Start::Last(9), Start::Since(ms(1))] {
        for selectors in [&["a"][..], &["*"], &["{x}"], &["a", "*"]] {
            for batch in [ALL, SINGLY] {
                let (log, mut applier) = replica(|_| {});
                apply(&mut applier, chunk([event(1, &["a"]), event(2, &["b"])], 3));
                let mut reader = open(&log, selectors, start.clone());
                assert!(has_begun(&mut reader));
                let _ = seen(&mut reader);
                apply(&mut applier, chunk_with_floors(&[("a", 6)], [event(7, &["a"])], 8));
                let mut seen = Seen::default();
                let _ = seen.read_by(&mut reader, 0, batch);
                assert_eq!((seen.gaps, seen.offsets), (vec![(2, 5)], vec![7]), "{selectors:?}");
            }
        }
    }
}

#[test]
fn a_floor_below_the_position_evicts_nothing() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    apply(&mut applier, chunk_with_floors(&[("a", 3)], [event(3, &["a"])], 4));
    let seen = seen(&mut open(&log, &["a"], after(1, 0)));
    assert_eq!((seen.gaps, seen.offsets), (vec![], vec![1, 2, 3]));
}

#[test]
fn a_floor_above_the_end_of_a_chunk_also_applies_to_the_next_chunks() {
    for selector in ["a", "*"] {
        let (log, mut applier) = replica(|_| {});
        apply(&mut applier, chunk_with_floors(&[("a", 20)], [event(3, &["b"])], 5));
        // A pattern that begins now has not seen the floor.
        let mut reader = open(&log, &[selector], after(1, 4));
        apply(&mut applier, chunk([event(9, &["b"])], 10));
        apply(&mut applier, chunk([event(21, &["a"])], 30));
        let seen = seen(&mut reader);
        assert_eq!(seen.gaps, [(4, 19)], "{selector}");
        assert!(seen.covers(5..20) && seen.offsets.contains(&21), "{seen:?}");
    }
}

#[test]
fn a_shared_floor_above_the_end_of_a_chunk_also_applies_to_the_next_chunks() {
    let (log, mut applier) = replica(|_| {});
    let mut part = chunk_with_floors(&[("b", 1), ("c", 1)], [], 5);
    part.floors.push((everyone(), floor(1)));
    apply(&mut applier, FeedChunk { others: floor(20), ..part });
    let mut readers: Vec<_> = ["a", "b", "c"].map(|name| open(&log, &[name], after(1, 4))).into();
    // Only `b` is exempt from both floors.
    let mut part = chunk_with_floors(&[("b", 1)], [], 10);
    part.floors.push((everyone(), floor(1)));
    apply(&mut applier, FeedChunk { others: floor(15), ..part });
    apply(&mut applier, chunk([event(8, &["a"]), event(21, &["a"]), event(22, &["c"])], 30));
    let seen: Vec<_> = readers.iter_mut().map(seen).collect();
    assert_eq!(
        seen.iter().map(|seen| seen.gaps.clone()).collect::<Vec<_>>(),
        [vec![(4, 19)], vec![], vec![(4, 19)]]
    );
    assert_eq!((&*seen[0].offsets, &*seen[2].offsets), (&[21][..], &[22][..]));
}

#[test]
fn a_shared_floor_applies_to_names_with_and_without_topics() {
    let (log, mut applier) = replica(|_| {});
    let mut readers: Vec<_> =
        ["a", "b", "c", "*"].map(|name| open(&log, &[name], Start::Live)).into();
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["b"])], 3));
    let mut part = chunk_with_floors(&[("b", 1)], [event(8, &["b"])], 9);
    part.floors.push((everyone(), floor(1)));
    apply(&mut applier, FeedChunk { others: floor(6), ..part });
    let seen: Vec<_> = readers.iter_mut().map(seen).collect();
    // The event 1 was evicted before its reader read it.
    assert_eq!(
        seen.iter().map(|seen| seen.gaps.clone()).collect::<Vec<_>>(),
        [vec![(0, 5)], vec![], vec![(0, 5)], vec![(0, 5)]]
    );
    assert_eq!((&*seen[1].offsets, &*seen[3].offsets), (&[2, 8][..], &[2, 8][..]));
    let gaps = |name: &str| self::seen(&mut open(&log, &[name], after(1, 3))).gaps;
    assert_eq!([gaps("never seen"), gaps("b"), gaps("a")], [vec![(3, 5)], vec![], vec![(3, 5)]]);
}

#[test]
fn an_event_that_cannot_be_decoded_is_a_gap_with_the_reason_unreadable() {
    for selector in ["a", "*"] {
        let (log, mut applier) = replica(|_| {});
        let mut reader = open(&log, &[selector], Start::Live);
        let mut bad = event(2, &["a"]);
        bad.payload = Some(UNREADABLE.to_vec());
        apply(&mut applier, chunk([event(1, &["b"]), bad, event(3, &["a"])], 4));
        let mut out = Vec::new();
        let Read::Gap(gap) = reader.read(ms(0), ALL, &mut out) else { panic!("an event is lost") };
        assert_eq!((gap.reason, gap.until), (GapReason::Unreadable, Some(Offset::new(2))));
        assert_eq!(seen(&mut reader).offsets.last(), Some(&3));
    }
}

#[test]
fn an_event_of_a_topic_above_the_limit_of_topics_is_a_gap() {
    let (log, mut applier) = replica(|options| options.limits.topics_max = 2);
    let mut readers: Vec<_> = ["c", "*"].map(|name| open(&log, &[name], Start::Live)).into();
    let to_all = |offset| {
        let mut event = event(offset, &["c"]);
        event.to.push(everyone());
        event
    };
    let events =
        [event(1, &["a"]), event(2, &["b"]), event(3, &["c"]), to_all(4), event(5, &["a"])];
    apply(&mut applier, chunk(events, 6));
    let seen: Vec<_> = readers.iter_mut().map(seen).collect();
    // Event 4 is in the gap. It is delivered too, because it was also published to everyone.
    assert_eq!((&*seen[0].gaps, &*seen[0].offsets), (&[(0, 4)][..], &[4][..]));
    assert!(seen[1].covers(1..6), "{seen:?}");
    let late = self::seen(&mut open(&log, &["c"], after(1, 1)));
    assert_eq!((late.gaps, late.offsets), (vec![(1, 4)], vec![4]));
}

#[test]
fn a_finish_mark_ends_readers_and_a_later_event_reopens_the_topic() {
    let (log, mut applier) = replica(|_| {});
    let mut reader = open(&log, &["a"], Start::Live);
    apply(&mut applier, chunk([event(1, &["a"]), mark(2, "a")], 3));
    let ended = seen(&mut reader);
    assert_eq!((&*ended.offsets, ended.end), (&[1][..], Some(downlink_log::EndReason::Finished)));
    assert!(log.topic(ms(0), &topic("a")).is_some_and(|topic| topic.finished));
    apply(&mut applier, chunk([event(3, &["a"])], 4));
    assert!(log.topic(ms(0), &topic("a")).is_some_and(|topic| !topic.finished));
    let mut reader = open(&log, &["a"], after(1, 1));
    let seen = seen(&mut reader);
    assert_eq!((&*seen.offsets, seen.end), (&[3][..], None));
}

#[test]
fn a_finish_mark_below_the_floor_still_finishes_its_topic() {
    let (log, mut applier) = crate::feed::unfed(|_| {});
    applier.begin(crate::feed::start(&[(1, 1)], 1, false));
    apply(&mut applier, chunk_with_floors(&[("a", 5)], [mark(4, "a")], 7));
    assert!(log.topic(ms(0), &topic("a")).is_some_and(|topic| topic.finished));
}

#[test]
fn the_replica_evicts_by_its_own_rules() {
    let (log, mut applier) = replica(|options| {
        let default = Retention { events_max: 2, ..Retention::DEFAULT };
        options.retention = RetentionRules { default, ..RetentionRules::default() };
    });
    apply(&mut applier, chunk((1..=5).map(|offset| event(offset, &["a"])), 6));
    let seen = seen(&mut open(&log, &["a"], after(1, 0)));
    assert_eq!((seen.gaps, seen.offsets), (vec![(0, 3)], vec![4, 5]));
}

#[test]
fn a_reader_can_resume_after_a_publisher_id_until_the_event_is_evicted() {
    let (log, mut applier) = replica(|_| {});
    let with_id = |offset, id: &str| {
        let mut event = event(offset, &["a"]);
        event.id = Some(id.into());
        event
    };
    apply(&mut applier, chunk([with_id(1, "x"), event(2, &["a"]), with_id(3, "y")], 4));
    let after = |id: &str| open(&log, &["a"], Start::After(id.into()));
    assert_eq!(seen(&mut after("x")).offsets, [2, 3]);
    // The upstream has used the id again. In the replica, the older event still has it.
    apply(&mut applier, chunk([with_id(4, "x")], 5));
    assert_eq!(seen(&mut after("x")).offsets, [2, 3, 4]);
    apply(&mut applier, chunk_with_floors(&[("a", 7)], [], 8));
    assert!(!has_begun(&mut after("y")), "the id is not known any more");
    assert_eq!(sizes(&log, ms(0)).2, 0);
}

#[test]
fn an_event_that_is_applied_twice_appears_once() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    apply(&mut applier, chunk([event(2, &["a"]), event(3, &["a"])], 4));
    assert_eq!(seen(&mut open(&log, &["a"], after(1, 0))).offsets, [1, 2, 3]);
}

/// If the replica accepted a feed that resumes at a position which the replica does not have, the
/// events before this position would be missing without a gap.
#[test]
fn a_feed_that_resumes_at_another_position_is_refused_and_the_replica_begins_again() {
    let (log, mut applier) = replica(|_| {});
    apply(&mut applier, chunk([event(1, &["a"])], 2));
    assert!(!applier.begin(start(&[(1, 1)], 9, true)), "the replica is at another position");
    assert_eq!((applier.position(), log.tail().next), (None, Offset::FIRST));
    assert!(!applier.begin(start(&[(1, 1)], 9, true)), "the replica has no position");
    assert!(applier.begin(start(&[(1, 1)], 1, false)));
    assert!(applier.position().is_some());
}
