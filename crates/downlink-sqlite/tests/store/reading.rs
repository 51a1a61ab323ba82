//! Tests of reading pages, with named topics and with patterns, from stores with few and with many
//! topics. The pages together must have each wanted event once and in order.

use downlink_log::{
    Address, Batch, Offset,
    store::{Store, Wanted},
};
use downlink_sqlite::SqliteStore;

use crate::support::{
    ALL, Folder, at, client, commit, event, first_page, keeping, nth_newest, offsets, open_with,
    read_pages, topic, trim, wanted,
};

fn filled(folder: &Folder, events: u64, to: impl Fn(u64) -> Vec<Address>) -> SqliteStore {
    let mut store = open_with(&folder.file("a.db"), keeping(ALL));
    let batch: Vec<_> = (1..=events).map(|offset| event(offset, &to(offset))).collect();
    commit(&mut store, &batch);
    store
}

#[test]
fn an_event_of_several_wanted_topics_is_read_once() {
    let folder = Folder::new();
    let store = filled(&folder, 3, |_| vec![topic("a"), topic("b"), client("c")]);
    assert_eq!(offsets(&store, &wanted(&[topic("a"), topic("b")], &["*"])), [1, 2, 3]);
}

#[test]
fn a_pattern_matches_topics_but_no_inboxes() {
    let folder = Folder::new();
    let names = ["orders/1", "orders/2/status", "orders0", "other/1"];
    let store = filled(&folder, 5, |offset| match offset {
        5 => vec![client("orders/9")],
        _ => vec![topic(names[offset as usize - 1])],
    });
    assert_eq!(offsets(&store, &wanted(&[], &["orders/*"])), [1, 2]);
    assert_eq!(offsets(&store, &wanted(&[], &["orders/{id}/status"])), [2]);
    assert_eq!(offsets(&store, &wanted(&[], &["*"])), [1, 2, 3, 4]);
    assert_eq!(offsets(&store, &wanted(&[], &["{a}/{b}", "orders0"])), [1, 3, 4]);
    assert_eq!(offsets(&store, &wanted(&[], &["nothing/*"])), Vec::<u64>::new());
}

#[test]
fn pages_have_a_limited_number_of_events_and_bytes() {
    let folder = Folder::new();
    let store = filled(&folder, 9, |offset| vec![topic(if offset % 2 == 0 { "a" } else { "b" })]);
    let reader = store.reader();
    let page = |wanted, from, events_max, bytes_max| {
        let batch = Batch { events_max, bytes_max };
        let page = first_page(&*reader, &wanted, from..10, batch);
        let offsets: Vec<_> = page.events.iter().map(|entry| entry.offset.get()).collect();
        (offsets, page.next.get())
    };
    let (one, both) = (wanted(&[topic("a")], &[]), wanted(&[topic("a"), topic("b")], &[]));
    assert_eq!(page(one.clone(), 1, 2, usize::MAX), (vec![2, 4], 5));
    assert_eq!(page(one.clone(), 5, 2, usize::MAX), (vec![6, 8], 9));
    assert_eq!(page(both.clone(), 1, 3, usize::MAX), (vec![1, 2, 3], 4));
    assert_eq!(page(both.clone(), 1, 100, 8), (vec![1, 2], 3));
    assert_eq!(page(both, 1, 0, 0), (vec![1], 2));
    assert_eq!(page(one, 9, 5, usize::MAX), (vec![], 10));
}

/// A replay makes a list of its topics only if there are few. This pattern matches too many topics,
/// so the replay walks all events instead. It reads only a limited number of events for each page.
#[test]
fn a_pattern_over_many_topics_reads_every_event() {
    let folder = Folder::new();
    let name = |offset| format!("many/{offset}");
    let store = filled(&folder, 9_000, |offset| vec![topic(&name(offset))]);
    let all: Vec<u64> = (1..=9_000).collect();
    assert_eq!(offsets(&store, &wanted(&[], &["many/*"])), all);
    let every_thousandth = wanted(&[topic(&name(7_777))], &["many/{id}/x", "many/*"]);
    assert_eq!(offsets(&store, &every_thousandth), all);
    let none = wanted(&[topic(&name(7_777))], &["many/{id}/{x}"]);
    assert_eq!(offsets(&store, &none), [7_777]);
    let batch = Batch { events_max: 10, bytes_max: usize::MAX };
    let page = first_page(&*store.reader(), &none, 1..9_001, batch);
    assert!(
        page.events.is_empty() && page.next.get() < 7_777,
        "a page must read a bounded number of rows"
    );
    let newest = |wanted: &Wanted, count| nth_newest(&store, wanted, count, 9_001);
    assert_eq!(newest(&wanted(&[], &["many/*"]), 5_000), Some(4_001));
    assert_eq!(newest(&none, 3), Some(7_777));
    assert_eq!(newest(&wanted(&[], &["many/{id}/{x}"]), 3), None);
}

#[test]
fn the_search_for_the_nth_newest_event_counts_each_event_once() {
    let folder = Folder::new();
    let store = filled(&folder, 9, |offset| match offset % 3 {
        0 => vec![topic("a"), topic("b")],
        1 => vec![topic("a")],
        _ => vec![topic("c")],
    });
    let newest = |count, until| {
        let both = wanted(&[topic("a"), topic("b")], &[]);
        nth_newest(&store, &both, count, until)
    };
    assert_eq!(newest(1, 10), Some(9));
    assert_eq!(newest(3, 10), Some(6));
    assert_eq!(newest(2, 9), Some(6));
    assert_eq!(newest(100, 10), Some(1));
    assert_eq!(newest(0, 10), None);
    assert_eq!(newest(5, 1), None);
}

#[test]
fn the_first_event_at_or_after_a_time_is_found() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(ALL));
    assert_eq!(store.reader().first_since(at(0)), Ok(None));
    let batch: Vec<_> = [3, 10, 11, 50].map(|offset| event(offset, &[topic("a")])).into();
    commit(&mut store, &batch);
    let first = |since| store.reader().first_since(at(since)).unwrap().map(Offset::get);
    for (since, found) in [(0, 3), (3, 3), (4, 10), (10, 10), (11, 11), (12, 50), (50, 50)] {
        assert_eq!(first(since), Some(found), "the first event at or after {since} is wrong");
    }
    assert_eq!(first(51), None);
}

/// Trimming puts events on the lists of their topics (it indexes the events). These lists make
/// reading faster. New events are not on these lists yet. A reader must get the indexed events and
/// the new events.
#[test]
fn indexed_and_unindexed_events_are_read_together() {
    let folder = Folder::new();
    let name = |offset: u64| topic(if offset.is_multiple_of(50) { "a" } else { "b" });
    let mut store = filled(&folder, 5_000, |offset| vec![name(offset)]);
    trim(&mut store, 0);
    let batch: Vec<_> = (5_001..=5_200).map(|offset| event(offset, &[name(offset)])).collect();
    commit(&mut store, &batch);
    let a = wanted(&[topic("a")], &[]);
    let all: Vec<u64> = (1..=104).map(|n| n * 50).collect();
    for events_max in [1, 7, 100, 1_000] {
        let batch = Batch { events_max, bytes_max: usize::MAX };
        let (events, _) = read_pages(&*store.reader(), &a, 1..5_201, batch);
        assert_eq!(events.iter().map(|entry| entry.offset.get()).collect::<Vec<_>>(), all);
    }
    for (count, until, oldest) in
        [(1, 5_201, 5_200), (3, 5_200, 5_050), (4, 5_200, 5_000), (7, 5_001, 4_700), (500, 9, 0)]
    {
        let found = nth_newest(&store, &a, count, until);
        assert_eq!(
            found.unwrap_or(0),
            oldest,
            "the newest {count} events below {until} begin at the wrong offset"
        );
    }
    assert_eq!(offsets(&store, &wanted(&[], &["*"])).len(), 5_200);
}

#[test]
fn reading_stops_at_the_end_of_the_range() {
    let folder = Folder::new();
    let store = filled(&folder, 5, |_| vec![topic("a")]);
    let batch = Batch { events_max: 100, bytes_max: usize::MAX };
    let (events, _) = read_pages(&*store.reader(), &wanted(&[topic("a")], &[]), 2..4, batch);
    let offsets: Vec<_> = events.iter().map(|entry| entry.offset.get()).collect();
    assert_eq!(offsets, [2, 3]);
}
