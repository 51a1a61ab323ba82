//! These tests check that one call of a replay reads only a limited part of the file. For this,
//! they count the instructions of SQLite's virtual machine. A hole is the range of evicted events
//! that a reader has missed.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use downlink_log::{
    Address, Batch, EvictionNumber, Offset, PatternSet, Topic, TopicSelector, store::Page,
};
use rusqlite::{Connection, OpenFlags};

use crate::{file::connect, lock::WriterLock, schema, sql::Sql as _};

use super::{target::ROWS_MAX, *};

/// The maximum number of instructions that SQLite runs for one row, including the loop that reads
/// the rows.
const INSTRUCTIONS_PER_ROW: u64 = 50;

/// Makes a file with topics. Each topic has one event. The floor of each topic, which is the offset
/// after its last evicted event, is below this event.
fn file(name: &str, topics: u64) -> (PathBuf, Arc<Pool>, Arc<AtomicU64>) {
    let folder = std::env::temp_dir().join(format!("downlink-replay-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut db = connect(&path, flags).unwrap();
    schema::migrate(&mut db, schema::STEPS, downlink_log::Timestamp::from_millis(0)).unwrap();
    add_topics(&db, "t", 1..=topics);
    db.execute("UPDATE meta SET value = 1 WHERE name = 'evictions'", []).unwrap();
    let lock = WriterLock::take(&path, std::time::Duration::ZERO).unwrap();
    let pool = Arc::new(Pool::new(path.clone(), &lock));
    pool.read(|_| Ok(())).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let hundred = move || {
        counted.fetch_add(100, Ordering::Relaxed);
        false
    };
    let mut idle = pool.idle.lock();
    idle.as_mut().unwrap()[0].progress_handler(100, Some(hundred)).unwrap();
    drop(idle);
    (path, pool, count)
}

fn add_topics(db: &Connection, prefix: &str, numbers: std::ops::RangeInclusive<u64>) {
    let tx = db.unchecked_transaction().unwrap();
    for number in numbers {
        let (name, offset) = (format!("{prefix}{}/{number}", number % 1_000), number + 100_000);
        let floor = number + 1;
        let topic =
            "INSERT INTO topics (kind, name, floor, floor_at, evicted) VALUES (2, ?, ?, 0, 1)";
        tx.run(topic, (&name, floor)).unwrap();
        let topic = tx.last_insert_rowid();
        let event = "INSERT INTO events VALUES (?, 0, ?, NULL, NULL, 0, x'', NULL)";
        tx.run(event, (offset, topic)).unwrap();
        tx.run("INSERT INTO memberships VALUES (?, ?, 96)", (topic, offset)).unwrap();
        tx.run("UPDATE meta SET value = ? WHERE name = 'indexed'", [offset + 1]).unwrap();
    }
    tx.commit().unwrap();
}

fn patterns(texts: impl IntoIterator<Item = String>) -> Wanted {
    let selectors = texts.into_iter().map(|text| TopicSelector::parse(&text).unwrap());
    Wanted { addresses: Vec::new(), patterns: Arc::new(PatternSet::new(selectors)) }
}

/// The result of a call, and the number of instructions that the call took.
fn counted<T>(count: &AtomicU64, call: impl FnOnce() -> T) -> (T, u64) {
    let before = count.load(Ordering::Relaxed);
    let answer = call();
    (answer, count.load(Ordering::Relaxed) - before)
}

/// Reads to the end. Returns all pages, the number of calls, and the maximum number of instructions
/// in one call.
fn read(replay: &mut Replay, count: &AtomicU64) -> (Vec<Page>, usize, u64) {
    let (mut from, until) = (Offset::FIRST, Offset::new(1_000_000));
    let batch = Batch { events_max: 256, bytes_max: usize::MAX };
    let (mut pages, mut calls, mut most) = (Vec::new(), 0, 0);
    while from < until {
        let page = || replay.page(Range { from, until }, EvictionNumber::NONE, batch).unwrap();
        let (step, took) = counted(count, page);
        (calls, most) = (calls + 1, most.max(took));
        assert!(calls < 1_000, "the replay makes no progress");
        if let Step::Done(page) = step {
            from = page.next;
            pages.push(page);
        }
    }
    (pages, calls, most)
}

#[test]
fn each_call_reads_few_rows_even_with_a_thousand_patterns_and_many_topics() {
    let (path, pool, count) = file("patterns", 20_000);
    // No topic matches these patterns. So the replay reads rows without finding an event, and no
    // full page ends a call early.
    let misses = patterns((0..1_000).map(|n| format!("t{n}/{{id}}/x")));
    let mut replay = Replay::new(Arc::clone(&pool), misses);
    let (pages, calls, most) = read(&mut replay, &count);
    assert!(pages.iter().all(|page| page.events.is_empty() && page.hole.is_none()));
    assert!(calls > 20_000 / ROWS_MAX, "the replay took only {calls} calls");
    assert!(most < 2 * ROWS_MAX as u64 * INSTRUCTIONS_PER_ROW, "one call took {most} instructions");
    let (floor, took) = counted(&count, || replay.floor().unwrap());
    assert_eq!(floor, Step::More);
    assert!(took < 2 * ROWS_MAX as u64 * INSTRUCTIONS_PER_ROW, "the call took {took} instructions");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_replay_with_a_thousand_patterns_finds_every_event_and_the_hole() {
    let (path, pool, count) = file("matching", 20_000);
    let all = patterns((0..1_000).map(|n| format!("t{n}/*")));
    let (pages, _, most) = read(&mut Replay::new(pool, all), &count);
    assert_eq!(pages.iter().map(|page| page.events.len()).sum::<usize>(), 20_000);
    assert_eq!(pages[0].hole, Some(Offset::new(20_000)));
    assert!(most < 2 * ROWS_MAX as u64 * INSTRUCTIONS_PER_ROW, "one call took {most} instructions");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn topic_names_are_looked_up_only_in_the_first_call() {
    let (path, pool, count) = file("names", 20_000);
    let name = |number| format!("t{}/{number}", number % 1_000);
    let topics = (1..=1_000).map(|number| Address::Topic(Topic::new(&name(number * 20)).unwrap()));
    let wanted = Wanted { addresses: topics.collect(), ..patterns([]) };
    let mut replay = Replay::new(pool, wanted);
    let (from, until) = (Offset::new(120_000), Offset::new(120_001));
    let batch = Batch { events_max: 1, bytes_max: usize::MAX };
    let mut page = || replay.page(Range { from, until }, EvictionNumber::NONE, batch).unwrap();
    let (first, took_first) = counted(&count, &mut page);
    let (second, took_second) = counted(&count, &mut page);
    assert_eq!(first, second);
    assert!(
        took_second * 2 < took_first,
        "the first call took {took_first} instructions, the second {took_second}"
    );
    std::fs::remove_file(path).unwrap();
}

/// Between two reads of the replay, 10,000 topics are added. One call checks only a part of them.
#[test]
fn many_new_topics_are_checked_in_several_calls() {
    let (path, pool, count) = file("new", 10);
    let mut replay = Replay::new(pool, patterns(["u1/*".to_owned()]));
    read(&mut replay, &count);
    let db = Connection::open(&path).unwrap();
    add_topics(&db, "u", 1_001..=11_000);
    let (pages, calls, most) = read(&mut replay, &count);
    let events: Vec<u64> =
        pages.iter().flat_map(|page| &page.events).map(|entry| entry.offset.get()).collect();
    assert_eq!(events, (1..=10).map(|n| 100_001 + n * 1_000).collect::<Vec<_>>());
    assert!(calls > 10_000 / ROWS_MAX && most < 2 * ROWS_MAX as u64 * INSTRUCTIONS_PER_ROW);
    std::fs::remove_file(path).unwrap();
}

/// If a search in an index began at the wrong row, it would read every row.
#[test]
fn index_searches_begin_at_the_right_row() {
    let (path, pool, count) = file("places", 20_000);
    let first = |sql: &'static str, params: (i64, i64)| {
        let find = |db: &Connection| db.first::<(u64,)>(sql, params);
        counted(&count, || pool.read(find).unwrap()).1
    };
    let highest = "SELECT max(floor) FROM topics WHERE floor <> 1 AND ?1 <> ?2";
    let above = "SELECT floor FROM topics WHERE floor <> 1 AND floor > ?1 AND ?2 = 0";
    for (sql, params) in [
        (floors::FLOORS_DOWN, (i64::MAX, i64::MAX)),
        (floors::FLOORS_DOWN, (2, 0)),
        (floors::EVICTIONS_UP, (1, i64::MAX)),
        (floors::EVICTIONS_UP, (0, 0)),
        (highest, (0, 1)),
        (above, (20_001, 0)),
    ] {
        let took = first(sql, params);
        assert!(took <= 200, "the search took {took} instructions with {params:?}: {sql}");
    }
    std::fs::remove_file(path).unwrap();
}
