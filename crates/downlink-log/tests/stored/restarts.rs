//! A log is closed, and a new log is opened over the same store. The new log still has the ids, the
//! idempotency keys and the finished topics. It fills the rings (the lists of the newest events in
//! memory) from the store. Readers get a gap for events that the store has lost.

use downlink_log::{
    Address, AppendError, EndReason, Epoch, GapReason, Offset, Start, store::Durability,
};

use crate::{
    support::topic,
    world::{BROKEN, World, id, is_caught_up, last, note, note_to, read, with_id, with_key},
};

#[test]
fn a_reader_with_an_id_of_an_earlier_epoch_gets_exactly_the_later_events() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", 0..8);
    world.reopen();
    world.publish("a", 8..16);
    world.reopen();
    for (epoch, offset) in [(1, 0), (1, 3), (1, 8), (2, 8), (2, 12), (2, 16), (3, 16)] {
        let mut reader = world.open(&["a"], id(epoch, offset));
        let got = read(&mut reader, 16 - offset as usize);
        assert_eq!((got.numbers, got.gaps), ((offset..16).collect::<Vec<_>>(), vec![]));
        assert!(is_caught_up(&mut reader));
    }
}

#[test]
fn after_a_restart_offsets_continue_and_new_events_have_the_new_epoch() {
    let mut world = World::new(Durability::Commit);
    assert_eq!(world.publish("a", 0..3), [1, 2, 3]);
    world.reopen();
    assert_eq!(world.publish("a", 3..5), [4, 5]);
    let of = |offset| world.log.id_of(Offset::new(offset)).epoch;
    assert_eq!((of(3), of(4)), (Epoch::from_random(1), world.log.options().epoch));
}

#[test]
fn an_id_beyond_the_end_of_its_epoch_gives_a_gap_with_the_reason_lost() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", 0..8);
    world.shelf.lose_from(6);
    world.begin_again();
    world.publish("a", 100..103);
    let got = read(&mut world.open(&["a"], id(1, 7)), 3);
    assert_eq!(got.numbers, [100, 101, 102]);
    let [gap] = got.gaps[..] else { panic!("{got:?}") };
    assert_eq!((gap.reason, gap.next), (GapReason::Lost, Offset::new(6)));
    assert_eq!(gap.oldest, Some(Offset::new(6)));
    // The store still has the event with this id, so the reader resumes after it.
    let got = read(&mut world.open(&["a"], id(1, 4)), 4);
    assert_eq!((got.numbers, got.gaps), (vec![4, 100, 101, 102], vec![]));
}

#[test]
fn an_id_with_an_unknown_epoch_gives_a_gap_with_the_reason_new_epoch() {
    let world = World::new(Durability::Commit);
    world.publish("a", 0..8);
    let got = read(&mut world.open(&["a"], id(9, 3)), 8);
    let reasons: Vec<_> = got.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!((got.numbers, reasons), ((0..8).collect::<Vec<_>>(), vec![GapReason::NewEpoch]));
    let got = read(&mut world.open(&["a"], Start::After("what".into())), 8);
    assert_eq!(got.gaps[0].reason, GapReason::UnknownId);
}

#[test]
fn the_rings_are_filled_after_a_restart() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", 0..4);
    world.reopen();
    let before = world.shelf.pages();
    let got = read(&mut world.open(&["a"], id(1, 1)), 3);
    assert_eq!((got.numbers, world.shelf.pages()), (vec![1, 2, 3], before));
}

/// Each topic has its own retention, so topic `b` may evict an event although topic `a` still keeps
/// an older event.
#[test]
fn a_reader_gets_a_gap_for_an_event_evicted_between_restored_events() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", [0]);
    world.publish("b", [1]);
    world.publish("a", [2]);
    world.publish("b", [3]);
    world.shelf.evict(&topic("b"), 3);
    world.reopen();
    let got = read(&mut world.open(&["a", "b"], id(1, 1)), 2);
    assert_eq!((got.numbers, got.gaps.len()), (vec![2, 3], 1));
    let got = read(&mut world.open(&["a"], id(1, 1)), 1);
    assert_eq!(
        (got.numbers, got.gaps.len()),
        (vec![2], 0),
        "topic `a`, the only topic of this reader, has evicted no event"
    );
}

/// The floor of an address is the offset after its last evicted event. A store may delete the floor
/// of an address that has no events any more.
#[test]
fn a_reader_gets_a_gap_for_an_evicted_event_to_everyone_after_the_store_has_deleted_the_floor() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", [0]);
    world.append(vec![note_to(&[Address::Everyone], 1, None)]).unwrap();
    world.publish("a", [2]);
    world.shelf.evict(&Address::Everyone, 3);
    world.shelf.forget(&Address::Everyone);
    world.reopen();
    let got = read(&mut world.open(&["a"], id(1, 1)), 1);
    assert_eq!((got.numbers, got.gaps.len()), (vec![2], 1));
    let got = read(&mut world.open(&["a"], id(1, 2)), 1);
    assert_eq!((got.numbers, got.gaps.len()), (vec![2], 0));
}

#[test]
fn restored_rings_begin_after_an_unreadable_event() {
    let mut world = World::new(Durability::Commit);
    world.publish("a", [0, BROKEN, 2, 3]);
    world.reopen();
    let got = read(&mut world.open(&["a"], id(1, 0)), 3);
    assert_eq!((got.numbers, got.gaps.len()), (vec![0, 2, 3], 1));
    assert_eq!(world.unreadable(), [2]);
}

#[test]
fn keys_and_publisher_chosen_ids_survive_a_restart() {
    let mut world = World::new(Durability::Commit);
    world.append(vec![with_key("a", 1, "k")]).unwrap();
    world.append(vec![with_id("a", 2, "x")]).unwrap();
    world.publish("a", 10..30);
    world.reopen();
    let answer = |draft| world.append(vec![draft]).map(|answers| answers[0]);
    let by_key = answer(with_key("a", 1, "k")).unwrap();
    assert_eq!((by_key.offset.get(), by_key.repeated), (1, true));
    assert_eq!(by_key.epoch, Epoch::from_random(1));
    let by_id = answer(with_id("a", 2, "x")).unwrap();
    assert_eq!((by_id.offset.get(), by_id.repeated), (2, true));
    assert_eq!(answer(with_key("a", 9, "k")), Err(AppendError::KeyReused { draft: 0 }));
    assert_eq!(answer(with_id("a", 9, "x")), Err(AppendError::IdTaken { draft: 0 }));
}

#[test]
fn finished_topics_survive_a_restart() {
    let mut world = World::new(Durability::Commit);
    world.append(vec![last("f", 3)]).unwrap();
    world.reopen();
    let late = world.append(vec![note("f", 4)]);
    assert_eq!(late, Err(AppendError::Finished { draft: 0 }));
    let got = read(&mut world.open(&["f"], Start::Live), 9);
    assert_eq!((got.numbers, got.end), (vec![3], Some(EndReason::Finished)));
    assert!(world.open(&["f"], id(1, 1)).is_at_end());
    assert!(!world.open(&["f"], id(1, 0)).is_at_end());
}

/// The older events of the finished topic are only in the store, not in memory.
#[test]
fn a_finished_topic_is_read_from_the_store() {
    let mut world = World::new(Durability::Commit);
    world.publish("f", 0..20);
    world.append(vec![last("f", 20)]).unwrap();
    world.reopen();
    let got = read(&mut world.open(&["f"], Start::Live), 99);
    assert_eq!((got.numbers, got.end), ((0..21).collect::<Vec<_>>(), Some(EndReason::Finished)));
    assert!(!world.open(&["f"], id(1, 3)).is_at_end());
    assert!(world.open(&["f"], id(1, 21)).is_at_end());
}

/// A pattern may match more topics than the log keeps in memory. The store knows the evictions of
/// each of these topics.
#[test]
fn a_reader_of_a_pattern_gets_a_gap_for_events_evicted_before_the_restart() {
    let mut world = World::new(Durability::Commit);
    world.publish("a/x", 0..3);
    world.publish("b", 3..6);
    world.shelf.evict(&topic("a/x"), 3);
    world.reopen();
    let got = read(&mut world.open(&["a/*", "b"], id(1, 0)), 4);
    assert_eq!(got.numbers, [2, 3, 4, 5]);
    let [gap] = got.gaps[..] else { panic!("{got:?}") };
    assert_eq!((gap.after, gap.until), (Some(Offset::new(0)), Some(Offset::new(2))));
    let got = read(&mut world.open(&["c/*", "b"], id(1, 0)), 3);
    assert_eq!((got.numbers, got.gaps), (vec![3, 4, 5], vec![]));
}
