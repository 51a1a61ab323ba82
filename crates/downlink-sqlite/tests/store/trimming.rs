//! Tests of retention by topic, by age and by the size of the file. When a topic evicts events, the
//! store remembers the topic's floor, which is the offset after the last evicted event.

use std::time::Duration;

use downlink_log::{
    Address, Fingerprint, Floor, IdempotencyKey, Offset, Retention,
    store::{Durability, Finished, Store, StoreError, StoredEvent, Trimmed},
};
use downlink_sqlite::{SqliteOptions, SqliteStore};

use crate::support::{
    ALL, Folder, at, client, commit, event, floor_of_wanted, keeping, offsets, open_with, topic,
    trim, wanted,
};

const EIGHT: Retention = Retention { events_max: 8, ..ALL };

fn append(store: &mut SqliteStore, range: std::ops::RangeInclusive<u64>, to: &[Address]) {
    let batch: Vec<_> = range.map(|offset| event(offset, to)).collect();
    commit(store, &batch);
}

fn floor(store: &SqliteStore, address: &Address) -> (u64, u64) {
    let floor = store.reader().floor_of(address).unwrap();
    assert_eq!(floor, floor_of_wanted(store, &wanted(std::slice::from_ref(address), &[])));
    let Floor { offset, at } = floor;
    (offset.get(), at.as_millis())
}

#[test]
fn a_topic_is_trimmed_when_it_has_over_an_eighth_more_events_than_its_rule_allows() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(EIGHT));
    let a = topic("a");
    append(&mut store, 1..=9, std::slice::from_ref(&a));
    trim(&mut store, 9);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])).len(), 9);
    append(&mut store, 10..=10, std::slice::from_ref(&a));
    trim(&mut store, 10);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), (3..=10).collect::<Vec<_>>());
    assert_eq!(floor(&store, &a), (3, 2));
    assert_eq!(floor(&store, &topic("b")), (1, 0));
}

#[test]
fn a_topic_is_trimmed_by_bytes_and_keeps_its_newest_event() {
    let folder = Folder::new();
    let bytes_max = 2 * (96 + "event 1".len());
    let mut store = open_with(&folder.file("a.db"), keeping(Retention { bytes_max, ..ALL }));
    let a = topic("a");
    append(&mut store, 1..=3, std::slice::from_ref(&a));
    trim(&mut store, 3);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [2, 3]);
    let large = StoredEvent { payload: Some(vec![0; 10_000]), ..event(4, &[topic("a")]) };
    commit(&mut store, &[large]);
    trim(&mut store, 4);
    assert_eq!(floor(&store, &a), (4, 3));
}

#[test]
fn trimming_evicts_events_by_age_and_returns_the_next_deadline() {
    let folder = Folder::new();
    let mut options = keeping(Retention { age_max: Some(Duration::from_millis(100)), ..ALL });
    options.retention.inbox.age_max = Some(Duration::from_millis(10));
    let mut store = open_with(&folder.file("a.db"), options);
    let (a, c) = (topic("a"), client("c"));
    append(&mut store, 1..=5, &[a.clone(), c.clone()]);
    assert_eq!(trim(&mut store, 10), Some(at(11)));
    assert_eq!(trim(&mut store, 13), Some(at(14)));
    assert_eq!(offsets(&store, &wanted(&[client("c")], &[])), [4, 5]);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [1, 2, 3, 4, 5]);
    assert_eq!(trim(&mut store, 102), Some(at(103)));
    assert_eq!(offsets(&store, &wanted(&[client("c")], &[])), Vec::<u64>::new());
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [3, 4, 5]);
    assert_eq!(trim(&mut store, 105), Some(at(5_105)), "the next step must free memory of SQLite");
    assert_eq!(trim(&mut store, 5_105), None);
    assert_eq!((floor(&store, &a), floor(&store, &c)), ((6, 5), (6, 5)));
}

#[test]
fn an_event_stays_while_one_of_its_topics_keeps_it() {
    let folder = Folder::new();
    let mut options = keeping(ALL);
    options.retention.inbox.events_max = 1;
    let mut store = open_with(&folder.file("a.db"), options);
    append(&mut store, 1..=4, &[topic("a"), client("c")]);
    trim(&mut store, 4);
    assert_eq!(offsets(&store, &wanted(&[client("c")], &[])), [4]);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [1, 2, 3, 4]);
    assert_eq!(offsets(&store, &wanted(&[topic("a"), client("c")], &[])), [1, 2, 3, 4]);
}

#[test]
fn the_file_stays_within_its_limit_of_bytes() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let bytes_max = 1 << 20;
    let mut options = keeping(ALL);
    options.bytes_max = bytes_max;
    let mut store = open_with(&path, options);
    for round in 0..200 {
        let batch: Vec<_> = (1..=64)
            .map(|n| StoredEvent {
                payload: Some(vec![7; 1_000]),
                ..event(round * 64 + n, &[topic(&format!("t/{}", n % 10))])
            })
            .collect();
        commit(&mut store, &batch);
        trim(&mut store, round);
    }
    let oldest = store.reader().first_since(at(0)).unwrap().unwrap().get();
    let kept = 200 * 64 - oldest;
    assert!((500..1_100).contains(&kept), "a file of 1 MiB keeps {kept} events of 1,000 bytes");
    drop(store);
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 2 * bytes_max, "after events of 12.8 MB, the file has {size} bytes");
    let store = open_with(&path, keeping(ALL));
    let floor = floor_of_wanted(&store, &wanted(&[], &["t/*"]));
    assert!(floor.offset.get() <= oldest && floor.offset.get() > oldest - 20);
}

#[test]
fn floors_are_kept_when_the_store_is_opened_again_and_gets_new_events() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let short = Retention { age_max: Some(Duration::from_millis(10)), ..ALL };
    let mut store = open_with(&path, keeping(short));
    append(&mut store, 1..=3, &[topic("a")]);
    append(&mut store, 4..=5, &[topic("b")]);
    trim(&mut store, 100);
    drop(store);
    let mut store = open_with(&path, keeping(short));
    assert_eq!(floor(&store, &topic("a")), (4, 3));
    commit(&mut store, &[StoredEvent { at: at(100), ..event(6, &[topic("a")]) }]);
    assert_eq!(floor(&store, &topic("a")), (4, 3));
    assert_eq!(floor(&store, &topic("b")), (6, 5));
    assert_eq!(floor(&store, &topic("c")), (1, 0));
    let all = floor_of_wanted(&store, &wanted(&[], &["*"]));
    assert_eq!((all.offset.get(), all.at), (6, at(5)));
}

/// The store remembers only a limited number of floors of empty topics. It forgets the lowest
/// floors, and uses the highest forgotten floor for every topic that it does not know. So a reader
/// may get a gap although it missed nothing. But if it missed events, it always gets a gap.
#[test]
fn forgotten_floors_raise_the_floor_of_unknown_topics() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut options = keeping(Retention { age_max: Some(Duration::from_millis(10)), ..ALL });
    options.floors_max = 2;
    let mut store = open_with(&path, options.clone());
    for (offset, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        append(&mut store, offset..=offset, &[topic(name)]);
    }
    trim(&mut store, 100);
    for _ in 0..2 {
        let floors: Vec<_> =
            ["a", "b", "c", "d", "e"].map(|name| floor(&store, &topic(name))).into();
        assert_eq!(floors, [(3, 2), (3, 2), (4, 3), (5, 4), (3, 2)]);
        drop(store);
        store = open_with(&path, options.clone());
    }
    commit(&mut store, &[StoredEvent { at: at(100), ..event(5, &[topic("e"), topic("d")]) }]);
    assert_eq!(floor(&store, &topic("e")), (3, 2));
    assert_eq!(floor(&store, &topic("d")), (5, 4));
    assert_eq!(offsets(&store, &wanted(&[topic("e")], &[])), [5]);
}

/// A finish mark records that a topic is finished.
#[test]
fn a_finish_mark_is_kept_for_the_time_in_its_retention_rule() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut options = keeping(Retention { age_max: Some(Duration::from_millis(10)), ..ALL });
    options.retention.finished_keep = Duration::from_millis(50);
    options.floors_max = 0;
    let mut store = open_with(&path, options.clone());
    let mark = StoredEvent { payload: None, finish: true, ..event(2, &[topic("a")]) };
    commit(&mut store, &[event(1, &[topic("a")]), mark]);
    assert_eq!(trim(&mut store, 20), Some(at(52)));
    drop(store);
    let mut store = open_with(&path, options);
    let finished = Finished { offset: Offset::new(2), at: at(2) };
    let marks = vec![(topic("a"), finished)];
    assert_eq!(store.reader().finished_topics(10), Ok(marks));
    assert_eq!(store.reader().finished_topics(0), Ok(vec![]));
    assert_eq!(trim(&mut store, 51), Some(at(52)));
    assert_eq!(trim(&mut store, 52), None);
    assert_eq!(store.reader().finished_topics(10), Ok(vec![]));
    assert_eq!(floor(&store, &topic("a")), (2, 1));
}

#[test]
fn an_idempotency_key_is_forgotten_after_ten_minutes() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), SqliteOptions::default());
    let key = IdempotencyKey { credential: "".into(), key: "k".into() };
    let fingerprint = Fingerprint::keyed(&[1; 16], b"content");
    let keyed = |offset| StoredEvent {
        key: Some(key.clone()),
        fingerprint,
        ..event(offset, &[topic("a")])
    };
    commit(&mut store, &[keyed(1)]);
    trim(&mut store, 600_000);
    assert_eq!(store.idempotency_key(&key), Ok(Some((fingerprint, Offset::new(1)))));
    trim(&mut store, 600_001);
    assert_eq!(store.idempotency_key(&key), Ok(None));
    commit(&mut store, &[StoredEvent { at: at(600_001), ..keyed(2) }]);
    assert_eq!(store.idempotency_key(&key), Ok(Some((fingerprint, Offset::new(2)))));
}

#[test]
fn stricter_rules_apply_to_topics_without_new_events() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(ALL));
    for number in 0..100 {
        append(&mut store, number * 10 + 1..=number * 10 + 10, &[topic(&format!("t/{number}"))]);
    }
    trim(&mut store, 0);
    drop(store);
    let mut store = open_with(&path, keeping(EIGHT));
    trim(&mut store, 0);
    for number in [0, 57, 99] {
        assert_eq!(offsets(&store, &wanted(&[topic(&format!("t/{number}"))], &[])).len(), 8);
    }
}

#[test]
fn an_open_store_applies_new_rules_to_all_topics_and_keeps_them_at_the_next_opening() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(EIGHT));
    let names: Vec<_> = (0..100).map(|number| topic(&format!("t/{number}"))).collect();
    let kept = |store: &SqliteStore, name: usize| offsets(store, &wanted(&names[name..=name], &[]));
    append(&mut store, 1..=20, &names);
    trim(&mut store, 0);
    store.set_retention(keeping(ALL).retention);
    append(&mut store, 21..=40, &names);
    trim(&mut store, 0);
    assert_eq!(kept(&store, 57), (13..=40).collect::<Vec<_>>());
    store.set_retention(keeping(Retention { events_max: 2, ..ALL }).retention);
    trim(&mut store, 0);
    assert!((0..100).all(|name| kept(&store, name) == [39, 40]));
    let short = Retention { age_max: Some(Duration::from_millis(10)), ..ALL };
    store.set_retention(keeping(short).retention);
    assert_eq!(trim(&mut store, 45), Some(at(49)));
    assert_eq!(trim(&mut store, 49), Some(at(50)));
    assert_eq!(kept(&store, 57), [40]);
    drop(store);
    let store = open_with(&path, keeping(short));
    assert_eq!(kept(&store, 57), [40]);
}

/// The file stores the rules with which all of its topics were compared. While the topics are
/// compared with new rules, the file has no rules. Otherwise a store that is opened with its
/// earlier rules would not notice that a topic has grown in the meantime.
#[test]
fn a_store_opened_with_earlier_rules_checks_topics_that_grew_under_other_rules() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(EIGHT));
    let batch: Vec<_> = (1..=1_500).map(|n| event(n, &[topic(&format!("t/{n}"))])).collect();
    commit(&mut store, &batch);
    trim(&mut store, 0);
    store.set_retention(keeping(ALL).retention);
    append(&mut store, 1_501..=1_600, &[topic("a")]);
    append(&mut store, 1_601..=3_600, &[topic("b")]);
    assert_eq!(store.trim(at(0)), Ok(Trimmed::More));
    drop(store);
    let mut store = open_with(&path, keeping(EIGHT));
    trim(&mut store, 0);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])).len(), 8);
}

#[test]
fn a_step_of_trimming_evicts_a_limited_number_of_events() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(EIGHT));
    append(&mut store, 1..=5_000, &[topic("a")]);
    let mut steps = 0;
    while store.trim(at(5_000)).unwrap() == Trimmed::More {
        steps += 1;
    }
    assert!(steps >= 5_000 / 512, "trimming took only {steps} steps");
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])).len(), 8);
}

/// Some rules need work on very many topics. This work must not delay the other rules. The test
/// checks this after a failed commit and after a change of the rules.
#[test]
fn retention_continues_after_a_failed_commit_and_after_new_rules() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut options = keeping(Retention { age_max: Some(Duration::from_millis(4_000)), ..ALL });
    let mut store = open_with(&path, options.clone());
    let batch: Vec<_> = (1..=2_000).map(|n| event(n, &[topic(&format!("t/{n}"))])).collect();
    commit(&mut store, &batch);
    trim(&mut store, 0);
    let refused = store.commit(&batch[..1], Durability::Relaxed);
    assert!(matches!(refused, Err(StoreError::OffsetNotRising { .. })), "{refused:?}");
    assert_eq!(store.trim(at(0)), Ok(Trimmed::Until(Some(at(4_001)))));
    drop(store);
    options.retention.default.events_max = 8;
    let mut store = open_with(&path, options);
    for _ in 0..4 {
        assert_eq!(store.trim(at(4_100)), Ok(Trimmed::More));
    }
    assert_eq!(floor(&store, &topic("t/100")), (101, 100));
}

/// An event is indexed if the table `memberships` has a row for each of its topics. Commits do not
/// index events. Trimming indexes them later.
#[test]
fn a_step_of_trimming_indexes_a_limited_number_of_events() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(EIGHT));
    let to: Vec<_> = (0..250).map(|n| topic(&format!("t/{n}"))).collect();
    append(&mut store, 1..=60, &to);
    let other = rusqlite::Connection::open(&path).unwrap();
    let lists = || {
        let count = "SELECT count(DISTINCT offset) FROM memberships";
        other.query_row(count, [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!(store.trim(at(0)), Ok(Trimmed::More));
    assert!((1..=50).contains(&lists()), "one step has indexed {} events", lists());
    trim(&mut store, 0);
    assert_eq!(offsets(&store, &wanted(&to[..1], &[])), (53..=60).collect::<Vec<_>>());
    assert_eq!(offsets(&store, &wanted(&[], &["t/*"])), (53..=60).collect::<Vec<_>>());
    let mut aged = EIGHT;
    aged.age_max = Some(Duration::from_millis(10));
    append(&mut store, 61..=72, &to);
    drop(store);
    let mut store = open_with(&path, keeping(aged));
    trim(&mut store, 80);
    assert_eq!(offsets(&store, &wanted(&[], &["t/*"])), [71, 72]);
    assert_eq!(floor(&store, &to[249]), (71, 70));
}

/// If publishers never pause, the server runs only one step of trimming after each commit. The file
/// must still not grow far beyond its rules.
#[test]
fn trimming_keeps_up_with_publishers_that_never_pause() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut one = EIGHT;
    one.events_max = 1;
    let mut store = open_with(&path, keeping(one));
    let topics: Vec<_> = (0..1_500).map(|n| [topic(&format!("t/{n}"))]).collect();
    let other = rusqlite::Connection::open(&path).unwrap();
    let kept =
        || other.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, u64>(0)).unwrap();
    let mut offsets = 1_u64..;
    for _ in 0..10 {
        let commit = topics.iter().zip(&mut offsets).map(|(to, offset)| event(offset, to));
        store.commit(&commit.collect::<Vec<_>>(), Durability::Relaxed).unwrap();
        let _ = store.trim(at(0)).unwrap();
    }
    assert!(kept() <= 6_000, "the file keeps {} events", kept());
}

/// SQLite keeps up to 16 MiB of the file's pages in memory for the writer.
#[test]
fn the_cache_is_freed_five_seconds_after_the_last_commit() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(ALL));
    let a = topic("a");
    assert_eq!(trim(&mut store, 0), None);
    append(&mut store, 1..=10, std::slice::from_ref(&a));
    assert_eq!(trim(&mut store, 1_000), Some(at(6_000)));
    append(&mut store, 11..=20, std::slice::from_ref(&a));
    assert_eq!(
        trim(&mut store, 2_000),
        Some(at(7_000)),
        "after another commit, the cache must stay for five seconds again"
    );
    assert_eq!(trim(&mut store, 6_999), Some(at(7_000)));
    assert_eq!(trim(&mut store, 7_000), None);
    assert_eq!(trim(&mut store, 8_000), None);
}
