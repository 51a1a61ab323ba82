//! The cache of a replica: its contents, and the files that it opens. A mark is a hash of
//! everything up to a position of a cluster's journal. The base is the offset at which position 0
//! begins.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use downlink_log::{
    ClockState, Epoch, EvictionNumber, Floor, MARKS_MAX, Offset,
    store::{
        Cache, FeedChunk, Finished, Losses, Mark, Marks, Store, StoreError, StoreReader,
        StoredEvent,
    },
};
use downlink_sqlite::{SqliteCache, SqliteOptions, SqliteStore};

use crate::support::{Folder, NOW, at, commit, event, fresh_epoch, open, topic};

fn cache(path: &Path) -> SqliteCache {
    SqliteCache::open(path, SqliteOptions::default()).unwrap()
}

fn chunk(events: impl IntoIterator<Item = StoredEvent>, next: u64) -> FeedChunk {
    FeedChunk {
        floors: Vec::new(),
        others: Floor::NONE,
        events: events.into_iter().collect(),
        next: Offset::new(next),
        clock: ClockState { at: at(next), delta_ms: 7 },
        marks: Marks::default(),
        node: None,
    }
}

fn apply(cache: &mut SqliteCache, chunk: &FeedChunk) {
    cache.apply(chunk, &Losses::default()).unwrap();
}

fn epochs(number: u64) -> Vec<(Epoch, Offset)> {
    vec![(Epoch::from_random(number), Offset::FIRST)]
}

/// The offsets in the cache, in order.
fn offsets(reader: &dyn StoreReader) -> Vec<u64> {
    let all = downlink_log::Batch { events_max: 1_000, bytes_max: usize::MAX };
    reader.newest(all).unwrap().iter().map(|event| event.offset.get()).collect()
}

#[test]
fn a_cache_keeps_position_epochs_marks_and_clock() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    assert_eq!((new.opened().position, new.opened().clock), (None, None));
    new.begin(&epochs(5), false);
    let marks = Marks { base: 3, first: 0, marks: vec![Mark::new(11), Mark::new(12)] };
    apply(&mut new, &FeedChunk { marks: marks.clone(), ..chunk([event(4, &[topic("a")])], 9) });
    // A chunk without events moves the position too. A repeated mark is stored only once.
    let more = Marks { first: 1, marks: vec![Mark::new(12), Mark::new(13)], ..marks };
    apply(&mut new, &FeedChunk { marks: more, ..chunk([], 20) });
    drop(new);
    let old = cache(&path);
    let opened = old.opened();
    assert_eq!((opened.position, &opened.epochs), (Some(Offset::new(20)), &epochs(5)));
    assert_eq!(opened.clock, Some(ClockState { at: at(20), delta_ms: 7 }));
    let marks = [11, 12, 13].map(Mark::new).to_vec();
    assert_eq!(opened.marks, Marks { base: 3, first: 0, marks });
    assert_eq!((offsets(&*old.reader()), opened.discarded.clone()), (vec![4], None));
}

#[test]
fn a_hole_in_the_marks_and_a_new_base_remove_earlier_marks() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    let with = |base, first, next| FeedChunk {
        marks: Marks { base, first, marks: vec![Mark::new(first)] },
        ..chunk([], next)
    };
    let reopened = |new: SqliteCache| {
        drop(new);
        let new = cache(&path);
        let Marks { base, first, marks } = new.opened().marks.clone();
        ((base, first, marks.len()), new)
    };
    apply(&mut new, &with(1, 0, 2));
    apply(&mut new, &with(1, 5, 3));
    let (marks, mut new) = reopened(new);
    assert_eq!(marks, (1, 5, 1));
    apply(&mut new, &with(9, 6, 4));
    let (marks, mut new) = reopened(new);
    assert_eq!(marks, (9, 6, 1));
    apply(&mut new, &with(9, 7, 5));
    assert_eq!(reopened(new).0, (9, 6, 2));
}

#[test]
fn the_oldest_marks_are_removed_at_the_limit() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    drop(cache(&path));
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute(
        "WITH RECURSIVE positions(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM positions WHERE n < ?)
         INSERT INTO marks SELECT n, n, NULL FROM positions",
        [MARKS_MAX as i64 - 1],
    )
    .unwrap();
    drop(db);
    let mut full = cache(&path);
    assert_eq!(full.opened().marks.marks.len(), MARKS_MAX);
    let next = Marks { base: 0, first: MARKS_MAX as u64, marks: vec![Mark::new(5)] };
    apply(&mut full, &FeedChunk { marks: next, ..chunk([], 2) });
    drop(full);
    let Marks { first, marks, .. } = cache(&path).opened().marks.clone();
    assert_eq!((first, marks.len(), marks.last()), (1, MARKS_MAX, Some(&Mark::new(5))));
}

#[test]
fn an_event_is_written_once_and_not_to_topics_that_have_lost_it() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    apply(&mut new, &chunk([event(1, &[topic("a"), topic("b")])], 2));
    apply(&mut new, &chunk([event(1, &[topic("a")]), event(2, &[topic("a")])], 3));
    assert_eq!(offsets(&*new.reader()), [1, 2]);
    let floor = Floor { offset: Offset::new(5), at: at(9) };
    let losses = Losses { floors: vec![(topic("a"), floor)], ..Losses::default() };
    let mark = StoredEvent { payload: None, finish: true, ..event(4, &[topic("a")]) };
    let events = [event(3, &[topic("a"), topic("b")]), mark, event(6, &[topic("a")])];
    new.apply(&chunk(events, 7), &losses).unwrap();
    let reader = new.reader();
    assert_eq!(offsets(&*reader), [1, 3, 6]);
    let all = downlink_log::Batch { events_max: 9, bytes_max: usize::MAX };
    let kept = reader.newest(all).unwrap();
    assert_eq!(
        [0, 1, 2].map(|at| kept[at].to.to_vec()),
        [vec![topic("b")], vec![topic("b")], vec![topic("a")]]
    );
    assert_eq!(reader.floor_of(&topic("a")).unwrap(), floor);
    assert_eq!(reader.floor_of(&topic("b")).unwrap(), Floor::NONE);
    assert_eq!(reader.newest_eviction().unwrap(), EvictionNumber::new(1));
    // The event 6 has reopened the topic.
    assert_eq!(reader.finished_topics(9).unwrap(), []);
    let mark = StoredEvent { payload: None, finish: true, ..event(8, &[topic("b")]) };
    apply(&mut new, &chunk([mark], 9));
    let finished = Finished { offset: Offset::new(8), at: at(8) };
    assert_eq!(new.reader().finished_topics(9).unwrap(), [(topic("b"), finished)]);
}

#[test]
fn discarded_contents_cannot_be_read_any_more() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    new.begin(&epochs(5), false);
    apply(&mut new, &chunk((1..100).map(|at| event(at, &[topic("a")])), 100));
    let old_reader = new.reader();
    assert_eq!(offsets(&*old_reader).len(), 99);
    new.begin(&epochs(6), true);
    // A crash before the next chunk leaves the old contents with the old position.
    let copy = folder.file("copy.db");
    new.flush().unwrap();
    for end in ["", "-wal"] {
        let name = |file: &str| folder.file(&format!("{file}{end}"));
        fs::copy(name("cache.db"), name("copy.db")).unwrap();
    }
    assert_eq!(cache(&copy).opened().position, Some(Offset::new(100)));
    apply(&mut new, &chunk([event(3, &[topic("b")])], 4));
    let all = downlink_log::Batch { events_max: 9, bytes_max: usize::MAX };
    assert_eq!(old_reader.newest(all), Err(StoreError::Stopped));
    assert_eq!(offsets(&*new.reader()), [3]);
    drop(new);
    let old = cache(&path);
    assert_eq!((old.opened().position, &old.opened().epochs), (Some(Offset::new(4)), &epochs(6)));
}

#[test]
fn a_store_is_refused_as_a_cache_and_a_cache_as_a_store() {
    let folder = Folder::new();
    let (of_store, of_cache) = (folder.file("store.db"), folder.file("cache.db"));
    let mut store = open(&of_store);
    commit(&mut store, &[event(1, &[topic("a")])]);
    drop(store);
    let refused = SqliteCache::open(&of_store, SqliteOptions::default());
    assert_eq!(refused.err(), Some(StoreError::IsStore));
    let store = open(&of_store);
    assert_eq!(offsets(&*store.reader()), [1], "the store is unchanged");
    drop(cache(&of_cache));
    let refused = SqliteStore::open(&of_cache, fresh_epoch(), NOW, SqliteOptions::default());
    assert_eq!(refused.err(), Some(StoreError::IsCache));
    let other = folder.file("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let refused = SqliteCache::open(&other, SqliteOptions::default());
    assert_eq!(refused.err(), Some(StoreError::NotAStore));
    let text = folder.file("text");
    fs::write(&text, [b'x'; 5_000]).unwrap();
    let refused = SqliteCache::open(&text, SqliteOptions::default());
    assert_eq!(refused.err(), Some(StoreError::NotAStore));
    assert_eq!(fs::read(&text).unwrap(), [b'x'; 5_000]);
}

/// Makes a cache with 49 events, and closes it.
fn filled(path: &Path) {
    let mut new = cache(path);
    apply(&mut new, &chunk((1..50).map(|at| event(at, &[topic("a")])), 50));
}

#[test]
fn a_cache_of_another_version_is_emptied() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    filled(&path);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA user_version = 99; CREATE TABLE later (a)").unwrap();
    drop(db);
    let mut new = cache(&path);
    let discarded = StoreError::NewerVersion { found: 99, known: 2 };
    assert_eq!((new.opened().position, &new.opened().discarded), (None, &Some(discarded)));
    apply(&mut new, &chunk([event(7, &[topic("a")])], 8));
    drop(new);
    let old = cache(&path);
    assert_eq!((old.opened().position, &old.opened().discarded), (Some(Offset::new(8)), &None));
}

/// The test overwrites each page of the file in turn, but not the first page, because its header
/// says that the file is a cache.
#[test]
fn a_damaged_cache_is_emptied_or_read_but_never_wrong() {
    let folder = Folder::new();
    let whole = folder.file("whole.db");
    filled(&whole);
    let pages = fs::metadata(&whole).unwrap().len() / 4_096;
    let mut emptied = 0;
    for page in 1..pages {
        let path = folder.file(&format!("{page}.db"));
        fs::copy(&whole, &path).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(page * 4_096)).unwrap();
        file.write_all(&[0xa5; 4_096]).unwrap();
        drop(file);
        let mut opened = cache(&path);
        let is_emptied = opened.opened().discarded.is_some();
        assert_eq!(opened.opened().position, (!is_emptied).then_some(Offset::new(50)));
        emptied += u64::from(is_emptied);
        let applied = opened.apply(&chunk([event(60, &[topic("a")])], 61), &Losses::default());
        // If the damage was not found when the cache was opened, a write may find it. The replica
        // then drops the cache.
        assert!(applied.is_ok() || (!is_emptied && applied.unwrap_err().is_final()));
    }
    assert!(emptied > 0 && emptied < pages - 1, "{emptied} of {pages}");
}
