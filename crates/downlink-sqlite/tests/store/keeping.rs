//! Committed events can be read at once, and also after the store was closed and opened again.

use downlink_log::{
    Batch, Epoch, Fingerprint, IdempotencyKey, Offset,
    store::{Durability, Store, StoreError, StoredEvent},
};
use downlink_sqlite::{SqliteOptions, SqliteStore};

use crate::support::{
    ALL, Folder, NOW, at, client, commit, event, fresh_epoch, keeping, offsets, open, topic, trim,
    wanted,
};

#[test]
fn a_batch_can_be_read_after_the_store_is_opened_again() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    let batch = [event(1, &[topic("a")]), event(3, &[topic("b"), client("c")])];
    store.commit(&batch, Durability::Commit).unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(offsets(&store, &wanted(&[topic("a"), topic("b")], &[])), [1, 3]);
    assert_eq!(offsets(&store, &wanted(&[client("c")], &[])), [3]);
    assert_eq!(store.opened().next_offset, Offset::new(4));
    assert_eq!(store.opened().clock.unwrap().at, at(3));
}

#[test]
fn the_offsets_of_a_new_epoch_are_above_all_earlier_offsets() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let epochs = [Epoch::from_random(100_001), Epoch::from_random(100_002)];
    let mut store = SqliteStore::open(&path, epochs[0], NOW, SqliteOptions::default()).unwrap();
    commit(&mut store, &[event(1, &[topic("a")]), event(2, &[topic("a")])]);
    drop(store);
    let store = SqliteStore::open(&path, epochs[1], NOW, SqliteOptions::default()).unwrap();
    let expected = vec![(epochs[0], Offset::new(1)), (epochs[1], Offset::new(3))];
    assert_eq!(store.opened().epochs, expected);
    drop(store);
    let again = SqliteStore::open(&path, epochs[1], NOW, SqliteOptions::default());
    assert_eq!(again.map(|_| ()), Err(StoreError::EpochTaken));
}

/// A finish mark records that a topic is finished. It takes an offset, as an event does. The store
/// must not assign an offset again, even if no event in the file has this offset any more.
#[test]
fn offsets_of_finish_marks_and_evicted_events_are_not_assigned_again() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    let mark = StoredEvent { payload: None, finish: true, ..event(5, &[topic("a")]) };
    commit(&mut store, &[event(4, &[topic("a")]), mark]);
    drop(store);
    let short =
        downlink_log::Retention { age_max: Some(std::time::Duration::from_millis(10)), ..ALL };
    let mut store = crate::support::open_with(&path, keeping(short));
    assert_eq!(store.opened().next_offset, Offset::new(6));
    commit(&mut store, &[event(6, &[topic("b")])]);
    trim(&mut store, 1_000);
    assert_eq!(offsets(&store, &wanted(&[topic("a"), topic("b")], &[])), Vec::<u64>::new());
    drop(store);
    let store = open(&path);
    assert_eq!(store.opened().next_offset, Offset::new(7));
    assert_eq!(store.opened().clock.unwrap().at, at(6));
}

/// An id consists of an epoch and an offset. In a restored store, the old epoch ends with the last
/// event of the backup. So the id of an event that was published after the backup is beyond the end
/// of its epoch. The restored store may give the same offset to a new event. The two ids still
/// differ, because the new event has the new epoch.
#[test]
fn a_restored_backup_ends_the_old_epoch_after_its_last_event() {
    let folder = Folder::new();
    let (path, copy) = (folder.file("a.db"), folder.file("copy.db"));
    let mut store = open(&path);
    let epoch = store.opened().epochs[0].0;
    commit(&mut store, &[event(1, &[topic("a")]), event(2, &[topic("a")])]);
    store.backup().run(&copy).unwrap();
    commit(&mut store, &[event(3, &[topic("a")])]);
    let restored = open(&copy);
    assert_eq!(restored.opened().epochs[0], (epoch, Offset::new(1)));
    assert_eq!(restored.opened().epochs[1].1, Offset::new(3));
    assert_eq!(offsets(&restored, &wanted(&[topic("a")], &[])), [1, 2]);
}

/// If a process is killed, the operating system still has everything that the process has written
/// to the file and to the write-ahead log.
#[test]
fn relaxed_commits_survive_a_kill_of_the_program() {
    let folder = Folder::new();
    let mut store = open(&folder.file("a.db"));
    let mut offset = 0;
    for round in 0..20 {
        let batch: Vec<_> = (1..=7).map(|n| event(offset + n, &[topic("a")])).collect();
        offset += 7;
        store.commit(&batch, Durability::Relaxed).unwrap();
        if round % 3 == 0 {
            trim(&mut store, 0);
        }
        let left = Folder::new();
        for name in ["a.db", "a.db-wal"] {
            std::fs::copy(folder.file(name), left.file(name)).unwrap();
        }
        let found = open(&left.file("a.db"));
        let expected: Vec<u64> = (1..=offset).collect();
        assert_eq!(offsets(&found, &wanted(&[topic("a")], &[])), expected);
        assert_eq!(found.opened().next_offset, Offset::new(offset + 1));
    }
}

#[test]
fn offsets_that_do_not_rise_are_refused() {
    let folder = Folder::new();
    let mut store = open(&folder.file("a.db"));
    let twice = [event(1, &[topic("a")]), event(1, &[topic("a")])];
    let refused = store.commit(&twice, Durability::Commit);
    assert_eq!(refused, Err(StoreError::OffsetNotRising { offset: 1, least: 2 }));
    commit(&mut store, &[event(7, &[topic("a")])]);
    let refused = store.commit(&[event(7, &[topic("a")])], Durability::Commit);
    assert_eq!(refused, Err(StoreError::OffsetNotRising { offset: 7, least: 8 }));
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [7]);
}

#[test]
fn events_are_found_by_the_id_of_the_publisher_and_by_the_idempotency_key() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    let fingerprint = Fingerprint::keyed(&[1; 16], b"content");
    let key = IdempotencyKey { credential: "bob".into(), key: "k".into() };
    let other = IdempotencyKey { credential: "eve".into(), key: "k".into() };
    let given = StoredEvent { id: Some("x".into()), fingerprint, ..event(1, &[topic("a")]) };
    let keyed = StoredEvent { key: Some(key.clone()), fingerprint, ..event(2, &[topic("a")]) };
    let unaddressed = StoredEvent { key: Some(other.clone()), fingerprint, ..event(3, &[]) };
    commit(&mut store, &[given, keyed, unaddressed]);
    drop(store);
    let mut store = open(&path);
    let reader = store.reader();
    assert_eq!(reader.publisher_id("x"), Ok(Some(Offset::new(1))));
    assert_eq!(reader.publisher_id("y"), Ok(None));
    assert_eq!(store.publisher_id("x"), Ok(Some((fingerprint, Offset::new(1)))));
    assert_eq!(store.publisher_id("y"), Ok(None));
    assert_eq!(store.idempotency_key(&key), Ok(Some((fingerprint, Offset::new(2)))));
    assert_eq!(store.idempotency_key(&other), Ok(Some((fingerprint, Offset::new(3)))));
    assert_eq!(store.opened().next_offset, Offset::new(4));
}

#[test]
fn the_newest_events_are_read_back_with_all_their_fields() {
    let folder = Folder::new();
    let mut store = open(&folder.file("a.db"));
    let batch: Vec<_> = (1..=9)
        .map(|offset| StoredEvent {
            id: Some(format!("id {offset}").into()),
            fingerprint: Fingerprint::keyed(&[1; 16], &[offset as u8]),
            finish: offset == 9,
            ..event(offset, &[topic("a"), client("b"), downlink_log::Address::Everyone])
        })
        .collect();
    commit(&mut store, &batch);
    let newest =
        |events_max, bytes_max| store.reader().newest(Batch { events_max, bytes_max }).unwrap();
    assert_eq!(newest(3, usize::MAX), batch[6..]);
    assert_eq!(newest(100, usize::MAX), batch);
    // The newest two events, "event 9" and "event 8", have 14 bytes together. So event 8 reaches
    // the limit of bytes.
    assert_eq!(newest(100, 14), batch[7..]);
}

#[test]
fn each_file_has_a_different_fingerprint_key_that_never_changes() {
    let folder = Folder::new();
    let key = |name| open(&folder.file(name)).opened().fingerprint_key;
    let first = key("a.db");
    assert_eq!(key("a.db"), first);
    assert_ne!(key("b.db"), first);
}

#[test]
fn a_flush_without_unflushed_events_succeeds() {
    let folder = Folder::new();
    let mut store =
        SqliteStore::open(&folder.file("a.db"), fresh_epoch(), NOW, SqliteOptions::default())
            .unwrap();
    store.flush().unwrap();
    store.commit(&[event(1, &[topic("a")])], Durability::Relaxed).unwrap();
    store.flush().unwrap();
    store.flush().unwrap();
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [1]);
}
