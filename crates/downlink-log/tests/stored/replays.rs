//! The log keeps only the newest events of each topic in memory, in a ring. Readers get older
//! events from the store.

use downlink_log::{AppendError, EndReason, GapReason, Offset, Start, store::Durability};

use crate::{
    support::{ms, topic},
    world::{BOTH, BROKEN, World, id, is_caught_up, note, note_to, read, with_id},
};

#[test]
fn events_that_the_rings_evicted_are_read_from_the_store() {
    for durability in BOTH {
        let world = World::new(durability);
        world.publish("a", 0..20);
        let mut reader = world.open(&["a"], id(1, 0));
        let got = read(&mut reader, 20);
        assert_eq!((got.numbers, got.gaps), ((0..20).collect::<Vec<_>>(), vec![]));
        assert!(is_caught_up(&mut reader));
    }
}

#[test]
fn a_reader_that_falls_behind_the_rings_gets_no_gap() {
    for durability in BOTH {
        let world = World::new(durability);
        let mut reader = world.open(&["a", "b/*"], Start::Live);
        let mut got = Vec::new();
        for round in 0..6 {
            world.publish("a", [10 * round]);
            world.publish("b/x", (1..10).map(|number| 10 * round + number));
            got.extend(read(&mut reader, 3).numbers);
        }
        let rest = read(&mut reader, 60 - got.len());
        got.extend(rest.numbers);
        assert_eq!((got, rest.gaps), ((0..60).collect::<Vec<_>>(), vec![]));
    }
}

#[test]
fn a_stored_event_to_several_topics_is_read_once() {
    let world = World::new(Durability::Commit);
    let both = [topic("a"), topic("b/x")];
    for number in 0..10 {
        world.append(vec![note_to(&both, number, None)]).unwrap();
    }
    let mut reader = world.open(&["a", "b/*"], Start::Earliest);
    assert_eq!(read(&mut reader, 10).numbers, (0..10).collect::<Vec<_>>());
    assert!(is_caught_up(&mut reader));
}

#[test]
fn readers_may_start_at_events_that_are_only_in_the_store() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..20);
    let first = |start| read(&mut world.open(&["a"], start), 1).numbers[0];
    assert_eq!(first(Start::Earliest), 0);
    assert_eq!(first(Start::Last(12)), 8);
    assert_eq!(first(Start::Last(3)), 17);
    assert_eq!(first(Start::Since(ms(1))), 0);
    assert!(is_caught_up(&mut world.open(&["a"], Start::Last(0))));
    assert!(is_caught_up(&mut world.open(&["b"], Start::Earliest)));
}

#[test]
fn a_reader_resumes_exactly_after_an_event_id_that_only_the_store_knows() {
    let world = World::new(Durability::Commit);
    world.append(vec![with_id("a", 0, "mine")]).unwrap();
    world.publish("a", 1..20);
    let got = read(&mut world.open(&["a"], Start::After("mine".into())), 19);
    assert_eq!((got.numbers, got.gaps), ((1..20).collect::<Vec<_>>(), vec![]));
}

#[test]
fn a_publish_with_a_stored_id_is_a_repetition_or_is_rejected() {
    let world = World::new(Durability::Commit);
    world.append(vec![with_id("a", 0, "mine")]).unwrap();
    world.publish("a", 1..20);
    let again = world.append(vec![with_id("a", 0, "mine")]).unwrap()[0];
    assert!(again.repeated && again.offset == Offset::FIRST);
    let other = world.append(vec![with_id("a", 9, "mine")]);
    assert_eq!(other, Err(AppendError::IdTaken { draft: 0 }));
    world.shelf.evict(&topic("a"), 2);
    assert!(!world.append(vec![with_id("a", 9, "mine")]).unwrap()[0].repeated);
}

#[test]
fn a_gap_covers_exactly_the_events_that_the_store_evicted() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..10);
    world.publish("b", 10..20);
    world.shelf.evict(&topic("a"), 8);
    let mut reader = world.open(&["a"], id(1, 3));
    let got = read(&mut reader, 3);
    assert_eq!(got.numbers, [7, 8, 9]);
    let [gap] = got.gaps[..] else { panic!("{got:?}") };
    assert_eq!(gap.reason, GapReason::Evicted);
    assert_eq!((gap.after, gap.until), (Some(Offset::new(3)), Some(Offset::new(7))));
    assert_eq!((gap.oldest, gap.next), (Some(Offset::new(8)), Offset::new(8)));
    // Topic `b` has evicted no event, so its reader gets no gap.
    let got = read(&mut world.open(&["b"], id(1, 3)), 10);
    assert_eq!((got.numbers, got.gaps), ((10..20).collect::<Vec<_>>(), vec![]));
    // A reader that starts without an id gets no gap either.
    let got = read(&mut world.open(&["a"], Start::Earliest), 3);
    assert_eq!((got.numbers, got.gaps), (vec![7, 8, 9], vec![]));
}

#[test]
fn a_reader_gets_a_gap_for_an_event_that_can_no_longer_be_decoded() {
    let world = World::new(Durability::Commit);
    world.publish("a", [0, 1, BROKEN, 3, BROKEN]);
    world.publish("a", 5..15);
    let got = read(&mut world.open(&["a"], Start::Earliest), 13);
    assert_eq!(got.numbers, [0, 1, 3].into_iter().chain(5..15).collect::<Vec<_>>());
    let holes: Vec<_> = got.gaps.iter().map(|gap| (gap.reason, gap.until)).collect();
    let unreadable = |offset| (GapReason::Unreadable, Some(Offset::new(offset)));
    assert_eq!(holes, [unreadable(3), unreadable(5)]);
}

#[test]
fn each_reader_gets_a_gap_for_a_damaged_event_but_the_log_reports_the_damage_once() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..10);
    world.shelf.damage(3);
    for _ in 0..2 {
        let got = read(&mut world.open(&["a"], Start::Earliest), 9);
        assert_eq!(got.numbers, [0, 1, 3, 4, 5, 6, 7, 8, 9]);
        let [gap] = got.gaps[..] else { panic!("{got:?}") };
        assert_eq!((gap.reason, gap.after), (GapReason::Unreadable, Some(Offset::new(2))));
        assert_eq!((gap.until, gap.next), (Some(Offset::new(3)), Offset::new(4)));
    }
    assert_eq!(world.unreadable(), [3]);
}

/// Retention evicts some events before the reader is opened, and more events while the reader
/// reads. The reader gets a gap only for the events that were evicted while it read.
#[test]
fn a_reader_of_history_gets_a_gap_only_for_events_evicted_while_it_reads() {
    for selectors in [["a"], ["*"]] {
        let world = World::new(Durability::Commit);
        world.publish("a", 0..30);
        world.shelf.evict(&topic("a"), 4);
        let mut reader = world.open(&selectors, Start::Earliest);
        let got = read(&mut reader, 3);
        assert_eq!((got.numbers, got.gaps), (vec![3, 4, 5], vec![]));
        world.shelf.evict(&topic("a"), 11);
        let got = read(&mut reader, 20);
        assert_eq!(got.numbers, (10..30).collect::<Vec<_>>());
        let [gap] = got.gaps[..] else { panic!("{got:?}") };
        assert_eq!((gap.after, gap.until), (Some(Offset::new(6)), Some(Offset::new(10))));
        assert_eq!(gap.next, Offset::new(11));
    }
}

/// For a slow reader, the log keeps one page of events in memory. The log reads the next page from
/// the store only after the reader has read this page.
#[test]
fn a_replay_reads_a_page_only_after_the_reader_has_read_the_previous_page() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..60);
    let mut reader = world.open(&["a"], Start::Earliest);
    let before = world.shelf.pages();
    assert_eq!(read(&mut reader, 3).numbers, [0, 1, 2]);
    assert_eq!(world.shelf.pages(), before + 1);
    assert_eq!(reader.cursor().next, Offset::new(4));
    assert_eq!(read(&mut reader, 57).numbers, (3..60).collect::<Vec<_>>());
}

#[test]
fn many_readers_replay_at_the_same_time() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..40);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut reader = world.open(&["a"], Start::Earliest);
                assert_eq!(read(&mut reader, 40).numbers, (0..40).collect::<Vec<_>>());
            });
        }
    });
}

#[test]
fn readers_dropped_during_a_replay_do_not_block_later_readers() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..20);
    for _ in 0..100 {
        let mut reader = world.open(&["a"], id(1, 0));
        let mut out = Vec::new();
        let batch = downlink_log::Batch { events_max: 3, bytes_max: 100 };
        let _ = reader.read(ms(1_000), batch, &mut out);
    }
    assert_eq!(read(&mut world.open(&["a"], id(1, 0)), 20).numbers.len(), 20);
}

#[test]
fn a_reader_ends_when_the_store_cannot_be_read() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..20);
    let mut reader = world.open(&["a"], id(1, 0));
    world.shelf.be_unreadable();
    let got = read(&mut reader, 1);
    assert_eq!((got.numbers, got.end), (vec![], Some(EndReason::Unreadable)));
}

/// A publisher publishes while readers read old events from the store. Each reader gets every event
/// once and in order, also when it changes from the store to the rings in memory.
#[test]
fn a_change_from_the_store_to_the_rings_loses_and_repeats_no_event() {
    let world = World::new(Durability::Commit);
    let publisher = || {
        for number in 0..400 {
            world.append(vec![note("a", number)]).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(publisher);
        for _ in 0..3 {
            scope.spawn(|| {
                let mut reader = world.open(&["a"], id(1, 0));
                let got = read(&mut reader, 400);
                assert_eq!((got.numbers, got.gaps), ((0..400).collect::<Vec<_>>(), vec![]));
            });
        }
    });
}
