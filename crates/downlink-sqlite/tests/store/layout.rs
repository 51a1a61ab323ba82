//! Tests of files whose tables have an older layout, and of damaged rows. Other tests check the
//! clock state in the file: the newest time stamp, and the difference between the wall clock and
//! the time stamps. A floor is the offset after the last evicted event of a topic.

use std::path::Path;

use downlink_log::{
    Batch, ClockState, EvictionNumber, IdempotencyKey, Offset,
    store::{Finished, Store, StoredEvent},
};
use rusqlite::Connection;

use crate::support::{
    ALL, Folder, LARGE, NOW, at, client, commit, event, first_page, keeping, offsets, open,
    open_with, payload, topic, trim, wanted,
};

const FIRST: &str = include_str!("../../src/layout/1.sql");

/// Creates a file of the first layout. The clock of the server that wrote this file was ahead for a
/// while.
fn make_layout_1(path: &Path) {
    let future = NOW.as_millis() + 5_000;
    let old = Connection::open(path).unwrap();
    old.pragma_update(None, "journal_mode", "WAL").unwrap();
    old.execute_batch(FIRST).unwrap();
    old.execute_batch(&format!(
        "PRAGMA application_id = {};
         PRAGMA user_version = 1;
         INSERT INTO epochs VALUES (1, 'aaaaaaaa', 1);
         INSERT INTO topics VALUES
             (1, 2, 'a', 3, {future}, NULL, NULL, NULL),
             (2, 1, 'c', 1, 0, 6, {future}, NULL),
             (3, 2, 'gone', 2, 1, NULL, NULL, 1);
         INSERT INTO keys VALUES (4, {future}, 'bob', 'k', zeroblob(16));
         UPDATE meta SET value = {future} WHERE name IN ('newest_at', 'forgotten_at');
         UPDATE meta SET value = 7 WHERE name = 'next_offset';
         UPDATE meta SET value = 5 WHERE name = 'indexed';
         INSERT INTO memberships VALUES (1, 3, 103), (1, 4, 103);",
        0x646f_776e
    ))
    .unwrap();
    for (offset, stamp, topics) in [(3, 3, 1), (4, 4, 1), (5, future, 1), (6, future + 1, 2)] {
        old.execute(
            "INSERT INTO events VALUES (?, ?, ?, NULL, NULL, 0, ?)",
            (offset, stamp, topics, payload(offset)),
        )
        .unwrap();
    }
}

#[test]
fn a_file_of_layout_1_keeps_its_events_floors_and_keys() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    make_layout_1(&path);
    for _ in 0..2 {
        let mut store = open_with(&path, keeping(ALL));
        let reader = store.reader();
        assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [3, 4, 5]);
        assert_eq!(offsets(&store, &wanted(&[client("c")], &[])), [6]);
        assert_eq!(reader.newest_eviction(), Ok(EvictionNumber::new(1)));
        let page = first_page(&*reader, &wanted(&[topic("a")], &[]), 1..7, LARGE);
        let hole = Offset::new(2);
        assert_eq!(page.hole, Some(hole));
        assert_eq!(reader.floor_of(&topic("gone")).unwrap().offset, Offset::new(2));
        let key = IdempotencyKey { credential: "bob".into(), key: "k".into() };
        assert_eq!(store.idempotency_key(&key).unwrap().unwrap().1, Offset::new(4));
        assert_eq!(store.opened().next_offset, Offset::new(7));
        assert_eq!(store.opened().epochs[0].0.as_str(), "aaaaaaaa");
    }
}

#[test]
fn time_stamps_in_the_future_are_lowered_to_the_time_of_the_opening() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    make_layout_1(&path);
    let store = open_with(&path, keeping(ALL));
    let reader = store.reader();
    assert_eq!(store.opened().clock, Some(ClockState { at: NOW, delta_ms: 0 }));
    let page = first_page(&*reader, &wanted(&[topic("a")], &[]), 1..7, LARGE);
    assert_eq!(page.events.iter().map(|entry| entry.at).collect::<Vec<_>>(), [at(3), at(4), NOW]);
    assert_eq!(reader.floor_of(&topic("a")).unwrap().at, NOW);
    let finished = vec![(client("c"), Finished { offset: Offset::new(6), at: NOW })];
    assert_eq!(reader.finished_topics(9), Ok(finished));
    assert_eq!(reader.first_since(NOW), Ok(Some(Offset::new(5))));
}

#[test]
fn the_next_transaction_stores_the_state_of_the_clock() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    assert_eq!(store.opened().clock, None);
    store.set_clock_delta(-7);
    drop(store);
    let mut store = open(&path);
    assert_eq!(store.opened().clock, None);
    store.set_clock_delta(-7);
    commit(&mut store, &[event(5, &[topic("a")])]);
    drop(store);
    let mut store = open(&path);
    assert_eq!(store.opened().clock, Some(ClockState { at: at(5), delta_ms: -7 }));
    store.set_clock_delta(90);
    trim(&mut store, 10);
    drop(store);
    assert_eq!(open(&path).opened().clock, Some(ClockState { at: at(5), delta_ms: 90 }));
}

/// A finish mark records that a topic is finished. Here, the finish mark is newer than every event,
/// so no row of an event has the time of the mark.
#[test]
fn the_stored_clock_is_not_behind_the_time_of_a_finish_mark() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    let mark = StoredEvent { payload: None, finish: true, ..event(9, &[topic("a")]) };
    commit(&mut store, &[event(1, &[topic("a")]), mark]);
    drop(store);
    assert_eq!(open(&path).opened().clock.unwrap().at, at(9));
}

/// Creates a store with five events that have ids. The SQL statement damages one of the events.
fn damaged(folder: &Folder, statement: &str) -> downlink_sqlite::SqliteStore {
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(ALL));
    let with_id = |offset| StoredEvent {
        id: Some(format!("id {offset}").into()),
        ..event(offset, &[topic("a")])
    };
    commit(&mut store, &(1..=5).map(with_id).collect::<Vec<_>>());
    drop(store);
    assert_eq!(Connection::open(&path).unwrap().execute(statement, []).unwrap(), 1);
    open_with(&path, keeping(ALL))
}

#[test]
fn a_damaged_event_is_read_without_its_payload() {
    // The changes are: another payload ("event 2" differs from "event 3" in only one bit), another
    // id, no id, and another checksum.
    for change in ["payload = x'6576656e742032'", "id = 'id 4'", "id = NULL", "checksum = 1"] {
        let folder = Folder::new();
        let store = damaged(&folder, &format!("UPDATE events SET {change} WHERE offset = 3"));
        let page = first_page(&*store.reader(), &wanted(&[topic("a")], &[]), 1..6, LARGE);
        let payloads: Vec<_> = page.events.into_iter().map(|entry| entry.payload).collect();
        let mut expected: Vec<_> = (1..=5).map(|offset| Some(payload(offset))).collect();
        expected[2] = None;
        assert_eq!(payloads, expected, "{change}");
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let intact = payload(3);
    for bit in 0..intact.len() * 8 {
        let folder = Folder::new();
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let store =
            damaged(&folder, &format!("UPDATE events SET payload = x'{hex}' WHERE offset = 3"));
        let page = first_page(&*store.reader(), &wanted(&[topic("a")], &[]), 3..4, LARGE);
        assert_eq!((page.events.len(), &page.events[0].payload), (1, &None));
        if bit > 2 {
            continue;
        }
        let newest = store.reader().newest(Batch { events_max: 9, bytes_max: usize::MAX }).unwrap();
        assert_eq!(newest.iter().map(|event| event.offset.get()).collect::<Vec<_>>(), [4, 5]);
    }
}

#[test]
fn an_event_without_a_checksum_is_not_verified() {
    let folder = Folder::new();
    let change = "UPDATE events SET checksum = NULL, payload = x'00' WHERE offset = 3";
    let store = damaged(&folder, change);
    let page = first_page(&*store.reader(), &wanted(&[topic("a")], &[]), 3..4, LARGE);
    assert_eq!(page.events[0].payload, Some(vec![0]));
}
