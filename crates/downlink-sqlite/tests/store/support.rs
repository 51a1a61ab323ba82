//! Functions that the tests share. They make temporary folders and events, and read the events of a
//! store.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use downlink_log::{
    Address, Batch, ClientId, Epoch, EvictionNumber, Fingerprint, Floor, Offset, PatternSet,
    Retention, RetentionRules, Timestamp, Topic, TopicSelector,
    store::{
        Durability, Page, Range, Step, Store, StoreReader, StoreReplay, StoredEntry, StoredEvent,
        Trimmed, Wanted,
    },
};
use downlink_sqlite::{SqliteOptions, SqliteStore};

/// The folder of one test. Dropping this value removes the folder with all its files.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("store-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns an epoch that no other store in this process has.
pub(crate) fn fresh_epoch() -> Epoch {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    Epoch::from_random(NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The time of the wall clock that the tests pass when they open a store. It is later than the time
/// of every event in the tests.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000_000);

pub(crate) fn open(path: &Path) -> SqliteStore {
    open_with(path, SqliteOptions::default())
}

pub(crate) fn open_with(path: &Path, options: SqliteOptions) -> SqliteStore {
    SqliteStore::open(path, fresh_epoch(), NOW, options).unwrap()
}

/// The options of a store with one retention rule for all topics.
pub(crate) fn keeping(retention: Retention) -> SqliteOptions {
    let rules = RetentionRules {
        default: retention,
        inbox: retention,
        everyone: retention,
        ..RetentionRules::default()
    };
    let mut options = SqliteOptions::default();
    options.retention = rules;
    options
}

/// A retention that keeps everything.
pub(crate) const ALL: Retention =
    Retention { events_max: usize::MAX / 2, bytes_max: usize::MAX, age_max: None };

pub(crate) fn topic(name: &str) -> Address {
    Address::Topic(Topic::new(name).unwrap())
}

pub(crate) fn client(name: &str) -> Address {
    Address::Client(ClientId::new(name).unwrap())
}

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Makes an event. Its payload has the offset as text, and its time is the offset in milliseconds.
pub(crate) fn event(offset: u64, to: &[Address]) -> StoredEvent {
    StoredEvent {
        offset: Offset::new(offset),
        at: at(offset),
        to: to.iter().cloned().collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(payload(offset)),
    }
}

pub(crate) fn payload(offset: u64) -> Vec<u8> {
    format!("event {offset}").into_bytes()
}

pub(crate) fn commit(store: &mut SqliteStore, batch: &[StoredEvent]) {
    store.commit(batch, Durability::Relaxed).unwrap();
}

/// Trims until nothing is left to do. Returns the time at which the store must be trimmed again.
pub(crate) fn trim(store: &mut SqliteStore, now: u64) -> Option<Timestamp> {
    loop {
        if let Trimmed::Until(next) = store.trim(at(now)).unwrap() {
            return next;
        }
    }
}

pub(crate) fn wanted(addresses: &[Address], patterns: &[&str]) -> Wanted {
    let patterns = patterns.iter().map(|pattern| TopicSelector::parse(pattern).unwrap());
    Wanted { addresses: addresses.to_vec(), patterns: Arc::new(PatternSet::new(patterns)) }
}

/// Repeats a call of a replay until the call returns its answer. A call may need several steps.
pub(crate) fn done<T>(mut call: impl FnMut() -> Step<T>) -> T {
    for _ in 0..1_000 {
        if let Step::Done(answer) = call() {
            return answer;
        }
    }
    panic!("no progress in a thousand calls")
}

/// A range of offsets.
pub(crate) fn range(range: std::ops::Range<u64>) -> Range {
    Range { from: Offset::new(range.start), until: Offset::new(range.end) }
}

/// The limits of a large page: 1,000 events, and any number of bytes.
pub(crate) const LARGE: Batch = Batch { events_max: 1_000, bytes_max: usize::MAX };

/// Reads a page. The hole of a page is the range of evicted events that the reader misses. Here,
/// every eviction counts, as for a reader that started before the first eviction.
pub(crate) fn page_of(
    replay: &mut dyn StoreReplay,
    offsets: std::ops::Range<u64>,
    batch: Batch,
) -> Page {
    done(|| replay.page(range(offsets.clone()), EvictionNumber::NONE, batch).unwrap())
}

/// The first page of a new replay.
pub(crate) fn first_page(
    reader: &dyn StoreReader,
    wanted: &Wanted,
    offsets: std::ops::Range<u64>,
    batch: Batch,
) -> Page {
    page_of(&mut *reader.replay(wanted.clone()), offsets, batch)
}

/// Reads all wanted events in a range, in pages. Returns the events, and the offset after the last
/// missing event (1 if no event is missing).
pub(crate) fn read_pages(
    reader: &dyn StoreReader,
    wanted: &Wanted,
    offsets: std::ops::Range<u64>,
    batch: Batch,
) -> (Vec<StoredEntry>, u64) {
    let mut replay = reader.replay(wanted.clone());
    let (mut events, mut below) = (Vec::new(), 1);
    let mut from = offsets.start;
    while from < offsets.end {
        let page = page_of(&mut *replay, from..offsets.end, batch);
        assert!(page.events.len() <= batch.events_max.max(1));
        assert!(page.next.get() > from, "each page must make progress");
        events.extend(page.events);
        below = below.max(page.hole.map_or(1, |hole| hole.get() + 1));
        from = page.next.get();
    }
    (events, below)
}

/// The highest floor of the wanted topics. A topic's floor is the offset below which the topic has
/// evicted its events.
pub(crate) fn floor_of_wanted(store: &SqliteStore, wanted: &Wanted) -> Floor {
    let mut replay = store.reader().replay(wanted.clone());
    done(|| replay.floor().unwrap())
}

/// Takes the newest `count` wanted events below `until`, and returns the offset of the oldest of
/// them.
pub(crate) fn nth_newest(
    store: &SqliteStore,
    wanted: &Wanted,
    count: usize,
    until: u64,
) -> Option<u64> {
    let mut replay = store.reader().replay(wanted.clone());
    done(|| replay.nth_newest(count, Offset::new(until)).unwrap()).map(Offset::get)
}

/// The offsets of all wanted events, read in large pages.
pub(crate) fn offsets(store: &SqliteStore, wanted: &Wanted) -> Vec<u64> {
    let (events, _) = read_pages(&*store.reader(), wanted, 1..1_000_000, LARGE);
    events
        .into_iter()
        .map(|entry| {
            assert_eq!(entry.payload, Some(payload(entry.offset.get())));
            entry.offset.get()
        })
        .collect()
}
