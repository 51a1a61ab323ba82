//! Folders that vanish, events in one line, and reading a store to its end.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use downlink_log::{
    Address, Batch, ClientId, Epoch, Fingerprint, Offset, Retention, RetentionRules, Timestamp,
    Topic, TopicSelector,
    store::{
        Durability, SqliteOptions, SqliteStore, Store, StoreReader, StoredEntry, StoredEvent,
        StoredFloor, Trimmed, Wanted,
    },
};

/// A folder of one test, removed with all that is in it.
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

/// An epoch that no other opening of this run has.
pub(crate) fn fresh_epoch() -> Epoch {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    Epoch::from_random(NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn open(path: &Path) -> SqliteStore {
    open_with(path, SqliteOptions::default())
}

pub(crate) fn open_with(path: &Path, options: SqliteOptions) -> SqliteStore {
    SqliteStore::open(path, fresh_epoch(), options).unwrap()
}

/// Options under which each topic follows one rule.
pub(crate) fn keeping(retention: Retention) -> SqliteOptions {
    let rules = RetentionRules {
        rules: Vec::new(),
        default: retention,
        inbox: retention,
        everyone: retention,
    };
    let mut options = SqliteOptions::default();
    options.retention = rules;
    options
}

/// Keeps everything.
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

/// An event whose payload is its offset in words, published at as many milliseconds.
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

/// Trims until nothing is left to do, and says when the next thing falls due.
pub(crate) fn trim(store: &mut SqliteStore, now: u64) -> Option<Timestamp> {
    loop {
        if let Trimmed::Until(next) = store.trim(at(now)).unwrap() {
            return next;
        }
    }
}

pub(crate) fn wanted(addresses: &[Address], patterns: &[&str]) -> Wanted {
    let patterns = patterns.iter().map(|pattern| TopicSelector::parse(pattern).unwrap()).collect();
    Wanted { addresses: addresses.to_vec(), patterns }
}

/// Everything wanted in `from..until`, read in pages, and the highest floor that any of them named.
pub(crate) fn read_pages(
    reader: &dyn StoreReader,
    wanted: &Wanted,
    range: std::ops::Range<u64>,
    batch: Batch,
) -> (Vec<StoredEntry>, StoredFloor) {
    let (mut events, mut floor) = (Vec::new(), StoredFloor::NONE);
    let (mut from, until) = (Offset::new(range.start), Offset::new(range.end));
    while from < until {
        let page = reader.page(wanted, from, until, batch).unwrap();
        assert!(page.events.len() <= batch.events_max);
        assert!(page.next > from, "a page moves on");
        events.extend(page.events);
        floor = floor.max(page.floor);
        from = page.next;
    }
    (events, floor)
}

/// The offsets of everything wanted, read in large pages.
pub(crate) fn offsets(store: &SqliteStore, wanted: &Wanted) -> Vec<u64> {
    let batch = Batch { events_max: 1_000, bytes_max: usize::MAX };
    let (events, _) = read_pages(&*store.reader(), wanted, 1..1_000_000, batch);
    events
        .into_iter()
        .map(|entry| {
            assert_eq!(entry.payload, payload(entry.offset.get()));
            entry.offset.get()
        })
        .collect()
}
