//! A replica with a cache in a file. A floor is the offset below which an address may have lost
//! events.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use downlink_log::{
    Applied, Applier, Cursor, EndReason, Fingerprint, IdempotencyKey, Log, LogOptions, Offset,
    Read, Reader, Start, StoreReport, Timestamp,
    store::{Cache, FeedChunk, Losses, OpenedCache, StoreError, StoreReader, Trimmed},
};
use downlink_sqlite::{SqliteCache, SqliteOptions};

use crate::feed::{
    Text, UNREADABLE, after, apply, asked, chunk, chunk_with_floors, confirm, epoch, event,
    everyone, floor, mark, open, side, start,
};
use crate::support::{Seen, block_on, ms, options, topic};

/// A folder that is removed with its files.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("replica-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    pub(crate) fn cache(&self) -> SqliteCache {
        SqliteCache::open(&self.0.join("cache.db"), SqliteOptions::default()).expect("a cache")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The options of a replica whose memory keeps one event.
pub(crate) fn small() -> LogOptions {
    let mut options = options();
    options.limits.bytes_max = 1;
    options
}

fn replica(folder: &Folder, options: LogOptions) -> (Log<Text>, Applier<Text>) {
    Log::replica(options, side(), Some(Box::new(folder.cache()))).expect("a replica")
}

/// Reads until the reader has caught up or must end. Waits for the cache.
pub(crate) fn seen(reader: &mut Reader<Text>) -> Seen {
    let mut seen = Seen::default();
    block_on(std::future::poll_fn(|task| {
        reader.register(task.waker());
        match seen.read_all(reader, 0) {
            Read::Fetching => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    }));
    seen
}

#[test]
fn a_restarted_replica_goes_on_at_its_position_with_its_history() {
    let folder = Folder::new();
    let (log, mut applier) = replica(&folder, small());
    assert_eq!(applier.position(), None);
    applier.begin(start(&[(1, 1)], 1, false));
    let mut given = event(3, &["b"]);
    given.id = Some("x".into());
    apply(&mut applier, chunk_with_floors(&[("a", 3)], [given, event(4, &["a"])], 6));
    apply(&mut applier, chunk([event(6, &["a", "b"]), mark(7, "a")], 9));
    drop((log, applier));
    let (log, mut applier) = replica(&folder, small());
    let position = Cursor { epoch: epoch(1), next: Offset::new(9) };
    assert_eq!((applier.position(), log.tail()), (Some(position), position));
    assert!(log.topic(ms(0), &topic("a")).is_some_and(|topic| topic.finished));
    // The replica serves what it has, even before it has reached the upstream.
    let mut early = open(&log, &["*"], Start::Earliest);
    assert_eq!(seen(&mut early).offsets, [3, 4, 6]);
    applier.begin(start(&[(1, 1), (2, 9)], 9, true));
    apply(&mut applier, chunk([event(10, &["a"])], 11));
    assert_eq!(asked(&applier.follower()), None);
    assert_eq!(seen(&mut early).offsets, [10]);
    for selector in ["a", "*"] {
        let seen = seen(&mut open(&log, &[selector], after(1, 0)));
        assert_eq!(seen.gaps, [(0, 2)], "{selector}");
        let expected: &[u64] = if selector == "a" { &[4, 6, 10] } else { &[3, 4, 6, 10] };
        assert_eq!(seen.offsets, expected);
    }
    assert_eq!(seen(&mut open(&log, &["b"], after(1, 0))).gaps, []);
    assert_eq!(seen(&mut open(&log, &["b"], Start::After("x".into()))).offsets, [6]);
    assert!(log.topic(ms(0), &topic("a")).is_some_and(|topic| !topic.finished));
    drop((log, applier, early));
    let (log, _applier) = replica(&folder, options());
    assert!(log.topic(ms(0), &topic("a")).is_some_and(|topic| !topic.finished));
    assert_eq!(log.tail().epoch, epoch(2));
}

#[test]
fn floors_evict_the_events_below_them_from_the_cache() {
    let folder = Folder::new();
    let (log, mut applier) = replica(&folder, small());
    applier.begin(start(&[(1, 1)], 1, false));
    apply(&mut applier, chunk((1..=6).map(|at| event(at, &[["a", "b", "c"][at as usize % 3]])), 7));
    confirm(&applier, 1, 7);
    let mut readers: Vec<_> = ["a", "b", "c", "*"]
        .iter()
        .flat_map(|name| [after(1, 0), Start::Earliest, Start::Last(9)].map(|start| (name, start)))
        .map(|(name, start)| {
            let mut reader = open(&log, &[name], start.clone());
            block_on(std::future::poll_fn(|task| reader.poll_begun(task.waker()))).expect("begun");
            (*name, start, reader)
        })
        .collect();
    let mut part = chunk_with_floors(&[("b", 9), ("c", 1)], [event(12, &["a", "b"])], 13);
    part.floors.push((everyone(), floor(1)));
    apply(&mut applier, FeedChunk { others: floor(11), ..part });
    for (name, start, reader) in &mut readers {
        let seen = seen(reader);
        let expected: (Vec<_>, Vec<_>) = match *name {
            "a" => (vec![10], vec![12]),
            "b" => (vec![8], vec![12]),
            "c" => (vec![], vec![2, 5]),
            _ => (vec![10], vec![2, 5, 12]),
        };
        let until: Vec<_> = seen.gaps.iter().map(|gap| gap.1).collect();
        assert_eq!((until, seen.offsets), expected, "{name} {start:?}");
    }
    let gaps = |name: &str| seen(&mut open(&log, &[name], after(1, 7))).gaps;
    assert_eq!(
        ["a", "b", "c", "new"].map(gaps),
        [vec![(7, 10)], vec![(7, 8)], vec![], vec![(7, 10)]]
    );
}

#[test]
fn an_event_that_memory_cannot_hold_comes_from_the_cache() {
    let folder = Folder::new();
    let mut options = options();
    options.limits.topics_max = 1;
    let (log, mut applier) = replica(&folder, options);
    applier.begin(start(&[(1, 1)], 1, false));
    confirm(&applier, 1, 1);
    let mut readers = ["b", "*"].map(|name| open(&log, &[name], Start::Live));
    let mut bad = event(3, &["b"]);
    bad.payload = Some(UNREADABLE.to_vec());
    let events = [event(1, &["a"]), event(2, &["b"]), bad, event(4, &["b"])];
    apply(&mut applier, chunk(events, 5));
    let seen = readers.each_mut().map(seen);
    assert_eq!((&*seen[0].offsets, &*seen[0].gaps), (&[2, 4][..], &[(2, 3)][..]));
    assert_eq!((&*seen[1].offsets, &*seen[1].gaps), (&[1, 2, 4][..], &[(2, 3)][..]));
}

#[test]
fn a_new_history_empties_the_cache() {
    let folder = Folder::new();
    let (log, mut applier) = replica(&folder, small());
    applier.begin(start(&[(1, 1)], 1, false));
    apply(&mut applier, chunk((1..=8).map(|at| event(at, &["a"])), 9));
    apply(&mut applier, chunk([event(9, &["a"])], 10));
    confirm(&applier, 1, 10);
    let mut old = open(&log, &["a"], after(1, 0));
    applier.begin(start(&[(2, 1)], 1, false));
    // The old reader needs the cache, which no longer has the reader's events.
    let ended = seen(&mut old);
    assert_eq!((ended.end, &*ended.offsets), (Some(EndReason::Drained), &[][..]));
    let mut waiting = open(&log, &["a"], Start::Earliest);
    apply(&mut applier, chunk([event(2, &["a"]), event(3, &["a"])], 4));
    confirm(&applier, 2, 4);
    assert_eq!(seen(&mut waiting).offsets, [2, 3]);
    assert_eq!(seen(&mut open(&log, &["a"], after(2, 1))).offsets, [2, 3]);
    drop((log, applier, old, waiting));
    let (log, applier) = replica(&folder, options());
    assert_eq!(applier.position(), Some(Cursor { epoch: epoch(2), next: Offset::new(4) }));
    assert_eq!(log.totals(ms(0)).events, 2);
}

/// A cache that fails from a given call on.
#[derive(Debug)]
struct Failing {
    cache: SqliteCache,
    calls_left: Arc<Mutex<usize>>,
}

impl Failing {
    fn call(&self) -> Result<(), StoreError> {
        let mut left = self.calls_left.lock().expect("no panic under the lock");
        *left = left.checked_sub(1).ok_or(StoreError::DiskFull)?;
        Ok(())
    }
}

impl Cache for Failing {
    fn opened(&self) -> &OpenedCache {
        self.cache.opened()
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        self.cache.reader()
    }

    fn begin(&mut self, epochs: &[(downlink_log::Epoch, Offset)], discards: bool) {
        self.cache.begin(epochs, discards);
    }

    fn apply(&mut self, chunk: &FeedChunk, losses: &Losses) -> Result<(), StoreError> {
        self.call()?;
        self.cache.apply(chunk, losses)
    }

    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        self.cache.publisher_id(id)
    }

    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        self.cache.idempotency_key(key)
    }

    fn cut_to(&mut self, until: Offset) -> Result<Vec<Box<str>>, StoreError> {
        self.cache.cut_to(until)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.call()?;
        self.cache.flush()
    }

    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        self.call()?;
        self.cache.trim(now)
    }

    fn set_retention(&mut self, rules: downlink_log::RetentionRules) {
        self.cache.set_retention(rules);
    }
}

/// The cache fails at the first chunk, at the second chunk, or when it is trimmed.
#[test]
fn a_replica_whose_cache_fails_begins_again_in_memory() {
    for calls in 0..3 {
        let folder = Folder::new();
        let calls_left = Arc::new(Mutex::new(calls));
        let cache = Failing { cache: folder.cache(), calls_left };
        let mut side = side();
        let (sender, reports) = std::sync::mpsc::channel();
        side.on_report = Some(Box::new(move |report| sender.send(report).expect("open")));
        let (log, mut applier) =
            Log::replica(small(), side, Some(Box::new(cache))).expect("a replica");
        let mut reader = open(&log, &["a"], Start::Live);
        let mut fed = Vec::new();
        for _ in 0..2 {
            applier.begin(start(&[(1, 1)], 1, false));
            fed = [chunk([event(1, &["a"])], 2), chunk([event(2, &["a"])], 3)]
                .map(|chunk| applier.apply(chunk))
                .into();
            if fed == [Applied::Next; 2] {
                let _ = applier.idle(ms(0));
            }
            if applier.position().is_some() {
                break;
            }
            assert_eq!(seen(&mut reader).end, Some(EndReason::Drained));
            assert_eq!(log.store_error(), Some(StoreError::DiskFull));
        }
        assert_eq!(fed, [Applied::Next; 2]);
        let report = StoreReport::CacheDropped { error: StoreError::DiskFull };
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [report]);
        let question = asked(&applier.follower()).expect("the new history is not complete");
        applier.follower().confirm(question, log.tail());
        // Memory keeps one event, and there is no cache.
        let seen = seen(&mut open(&log, &["a"], after(1, 0)));
        assert_eq!((seen.gaps, seen.offsets), (vec![(0, 1)], vec![2]));
    }
}

/// A cut removes the newest events of a replica. If ids have epochs instead of marks, a later event
/// could get the id of a removed event. So the replica discards everything and begins anew.
#[test]
fn a_replica_with_a_cache_and_without_marks_begins_anew_at_a_cut() {
    let folder = Folder::new();
    let (log, mut applier) = replica(&folder, options());
    applier.begin(start(&[(1, 1)], 1, false));
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["a"])], 3));
    applier.cut_to(Offset::new(2));
    assert_eq!(applier.position(), None);
    applier.begin(start(&[(1, 1)], 1, false));
    apply(&mut applier, chunk([event(1, &["a"]), event(2, &["b"])], 3));
    confirm(&applier, 1, 3);
    assert_eq!(seen(&mut open(&log, &["*"], after(1, 0))).offsets, [1, 2]);
    drop((log, applier));
    let (log, applier) = replica(&folder, options());
    assert_eq!(applier.position(), Some(log.tail()));
    for (name, offset) in [("a", 1), ("b", 2)] {
        let of_name = seen(&mut open(&log, &[name], Start::Earliest));
        assert_eq!(of_name.offsets, [offset], "the file has the new events only");
    }
}
