//! A hole is the range of evicted events that a reader misses. The store numbers its evictions.
//! When a reader begins to read, it takes the number of the newest eviction, and passes this number
//! with each request for a page. So the reader finds only the holes of later evictions.

use downlink_log::{
    Address, Batch, EvictionNumber, Offset, Retention,
    store::{Store, StoreReplay},
};
use downlink_sqlite::SqliteStore;

use crate::support::{
    ALL, Folder, LARGE, client, commit, done, event, keeping, open_with, range, topic, trim, wanted,
};

const FOUR: Retention = Retention { events_max: 4, ..ALL };

fn append(store: &mut SqliteStore, offsets: std::ops::RangeInclusive<u64>, to: &[Address]) {
    commit(store, &offsets.map(|offset| event(offset, to)).collect::<Vec<_>>());
    trim(store, 0);
}

fn hole(below: u64) -> Option<Offset> {
    Some(Offset::new(below - 1))
}

/// Reads one page from an offset on, and returns the last offset of its hole. Only evictions with a
/// number above `after` count.
fn hole_after(
    store: &SqliteStore,
    topics: &[Address],
    from: u64,
    after: EvictionNumber,
) -> Option<Offset> {
    let mut replay = store.reader().replay(wanted(topics, &[]));
    done(|| replay.page(range(from..1_000), after, LARGE).unwrap()).hole
}

#[test]
fn evictions_are_numbered_in_order() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(FOUR));
    assert_eq!(store.reader().newest_eviction(), Ok(EvictionNumber::NONE));
    append(&mut store, 1..=4, &[topic("a")]);
    assert_eq!(store.reader().newest_eviction(), Ok(EvictionNumber::NONE));
    append(&mut store, 5..=8, &[topic("a")]);
    assert_eq!(store.reader().newest_eviction(), Ok(EvictionNumber::new(1)));
    drop(store);
    let mut store = open_with(&path, keeping(FOUR));
    append(&mut store, 9..=9, &[topic("a")]);
    assert_eq!(store.reader().newest_eviction(), Ok(EvictionNumber::new(2)));
}

#[test]
fn only_evictions_above_the_given_number_make_a_hole() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(FOUR));
    append(&mut store, 1..=8, &[topic("a")]);
    let begun = store.reader().newest_eviction().unwrap();
    assert_eq!(hole_after(&store, &[topic("a")], 1, EvictionNumber::NONE), hole(5));
    assert_eq!(hole_after(&store, &[topic("a")], 1, begun), None);
    append(&mut store, 9..=10, &[topic("a")]);
    assert_eq!(hole_after(&store, &[topic("a")], 1, begun), hole(7));
    assert_eq!(hole_after(&store, &[topic("a")], 7, begun), None);
}

/// A topic's floor is the offset below which the topic has evicted its events. Here, the topic
/// `fast` has a higher floor than the topic `slow`. Between two pages of a reader, `slow` evicts
/// events that are below the floor of `fast`. The reader must still find this hole.
#[test]
fn a_new_hole_below_the_floor_of_another_topic_is_found() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(FOUR));
    append(&mut store, 1..=4, &[topic("slow")]);
    append(&mut store, 5..=12, &[topic("fast")]);
    for patterns in [&["*"][..], &[]] {
        let both = wanted(&[topic("slow"), topic("fast")], patterns);
        let mut replay = store.reader().replay(both);
        let begun = store.reader().newest_eviction().unwrap();
        let one = Batch { events_max: 1, bytes_max: usize::MAX };
        let first = done(|| replay.page(range(1..13), begun, one).unwrap());
        assert_eq!((first.hole, first.events[0].offset.get()), (None, first.next.get() - 1));
        let from = first.next.get();
        let next = store.opened().next_offset.get().max(13) + from * 10;
        append(&mut store, next..=next + 1, &[topic("slow")]);
        let second = done(|| replay.page(range(from..13), begun, LARGE).unwrap());
        let floor = store.reader().floor_of(&topic("slow")).unwrap().offset.get();
        assert_eq!(second.hole, hole(floor).filter(|_| floor > from));
        assert!(second.hole.is_some() || patterns.is_empty());
    }
}

#[test]
fn an_event_that_a_topic_has_evicted_is_not_missing_if_another_wanted_topic_keeps_it() {
    let folder = Folder::new();
    let mut options = keeping(FOUR);
    options.retention.inbox = ALL;
    let mut store = open_with(&folder.file("a.db"), options);
    append(&mut store, 1..=3, &[topic("a")]);
    append(&mut store, 4..=5, &[topic("a"), client("c")]);
    append(&mut store, 6..=7, &[topic("a")]);
    let none = EvictionNumber::NONE;
    // The topic has evicted events 1 to 3.
    assert_eq!(hole_after(&store, &[topic("a"), client("c")], 1, none), hole(4));
    assert_eq!(hole_after(&store, &[topic("a"), client("c")], 4, none), None);
    append(&mut store, 8..=8, &[topic("a")]);
    // The topic has also evicted event 4, but the client's inbox keeps event 4.
    assert_eq!(hole_after(&store, &[topic("a")], 1, none), hole(5));
    assert_eq!(hole_after(&store, &[topic("a"), client("c")], 1, none), hole(4));
    assert_eq!(hole_after(&store, &[topic("a"), client("c")], 4, none), None);
}

#[test]
fn a_replay_reads_topics_created_between_two_pages() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(ALL));
    append(&mut store, 1..=2, &[topic("a/1")]);
    let mut replays = [wanted(&[], &["a/*"]), wanted(&[topic("a/1"), topic("a/2")], &[])]
        .map(|selection| store.reader().replay(selection));
    let page = |replay: &mut dyn StoreReplay| {
        let page = done(|| replay.page(range(1..1_000), EvictionNumber::NONE, LARGE).unwrap());
        page.events.iter().map(|entry| entry.offset.get()).collect::<Vec<_>>()
    };
    let [pattern, names] = &mut replays;
    assert_eq!((page(&mut **pattern), page(&mut **names)), (vec![1, 2], vec![1, 2]));
    append(&mut store, 3..=3, &[topic("b")]);
    append(&mut store, 4..=4, &[topic("a/2")]);
    append(&mut store, 5..=5, &[topic("a/3")]);
    assert_eq!((page(&mut **pattern), page(&mut **names)), (vec![1, 2, 4, 5], vec![1, 2, 4]));
}

/// This store keeps no floors of topics without events, because `floors_max` is 0. It remembers
/// only the highest of the forgotten floors, and uses this floor for every topic that it does not
/// know.
#[test]
fn a_topic_whose_floor_was_forgotten_leaves_a_hole() {
    let folder = Folder::new();
    let mut options =
        keeping(Retention { age_max: Some(std::time::Duration::from_millis(10)), ..ALL });
    options.floors_max = 0;
    let mut store = open_with(&folder.file("a.db"), options);
    append(&mut store, 1..=2, &[topic("a")]);
    let mut replays = [wanted(&[topic("a")], &[]), wanted(&[], &["*"])]
        .map(|selection| store.reader().replay(selection));
    let begun = store.reader().newest_eviction().unwrap();
    for replay in &mut replays {
        let page = done(|| replay.page(range(1..2), begun, LARGE).unwrap());
        assert_eq!((page.hole, page.events.len()), (None, 1));
    }
    trim(&mut store, 100);
    for replay in &mut replays {
        let page = done(|| replay.page(range(2..3), begun, LARGE).unwrap());
        assert_eq!((page.hole, page.events.len()), (hole(3), 0));
    }
    let now = store.reader().newest_eviction().unwrap();
    assert_eq!(hole_after(&store, &[topic("b")], 1, now), None);
    assert_eq!(hole_after(&store, &[topic("b")], 1, begun), hole(3));
}
