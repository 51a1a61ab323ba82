//! Readers that are behind their rings read from the store.

use downlink_log::{AppendError, EndReason, GapReason, Offset, Start, store::Durability};

use crate::{
    support::{ms, topic},
    world::{BOTH, BROKEN, World, id, is_caught_up, note, note_to, read, with_id},
};

#[test]
fn what_the_rings_have_lost_is_read_from_the_store() {
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
fn a_reader_that_is_overtaken_goes_on_without_a_gap() {
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
fn one_event_to_several_topics_comes_once() {
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
fn starts_reach_into_the_store() {
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
fn a_publisher_id_that_only_the_store_knows_resumes_exactly() {
    let world = World::new(Durability::Commit);
    world.append(vec![with_id("a", 0, "mine")]).unwrap();
    world.publish("a", 1..20);
    let got = read(&mut world.open(&["a"], Start::After("mine".into())), 19);
    assert_eq!((got.numbers, got.gaps), ((1..20).collect::<Vec<_>>(), vec![]));
}

#[test]
fn an_id_that_only_the_store_knows_is_repeated_or_refused() {
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
fn a_gap_is_what_the_store_has_evicted_exactly() {
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
    // The other topic has no gap.
    let got = read(&mut world.open(&["b"], id(1, 3)), 10);
    assert_eq!((got.numbers, got.gaps), ((10..20).collect::<Vec<_>>(), vec![]));
    // A reader without an id has no gap either.
    let got = read(&mut world.open(&["a"], Start::Earliest), 3);
    assert_eq!((got.numbers, got.gaps), (vec![7, 8, 9], vec![]));
}

#[test]
fn an_event_that_no_longer_decodes_is_a_gap() {
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
fn a_damaged_event_is_one_gap_and_reported_once_for_two_readers() {
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

/// Retention continues while a reader is behind. Events evicted before it opened are not missing.
#[test]
fn a_reader_of_history_misses_only_what_is_evicted_while_it_reads() {
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

/// A page waits for its reader. A slow reader costs one page of memory and no further reads.
#[test]
fn a_replay_goes_at_its_readers_pace() {
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
fn many_readers_are_served_by_few_threads() {
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
fn readers_that_leave_in_between_leave_nothing_behind() {
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

/// Events are published while readers replay. Each reader gets every event once and in order, also
/// when it changes from the store to the rings.
#[test]
fn the_handing_over_loses_and_repeats_nothing() {
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
