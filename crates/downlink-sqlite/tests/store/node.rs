//! The cache of a cluster node: the state of the node, cuts, and lookups of ids and keys. A link is
//! a position of the cluster's journal with its mark (a hash of everything up to it) and its time.
//! A cut removes the newest positions.

use std::path::Path;

use downlink_log::{
    Address, Batch, CUT_IDS_MAX, ClockState, Fingerprint, Floor, IdempotencyKey, LINKS_MAX, Offset,
    POSITION_OFFSETS, Timestamp,
    store::{
        Cache, FeedChunk, Finished, Link, Losses, Mark, Marks, NodeState, OpenedCache, StoreError,
        StoreReader, StoredEvent, Trimmed,
    },
};
use downlink_sqlite::{SqliteCache, SqliteOptions};

use crate::support::{Folder, event, topic};

const BASE: u64 = 1;

fn cache(path: &Path) -> SqliteCache {
    SqliteCache::open(path, SqliteOptions::default()).unwrap()
}

/// The first offset of a position.
fn at(position: u64) -> u64 {
    BASE + position * POSITION_OFFSETS
}

fn link(position: u64) -> Link {
    let time = Timestamp::from_millis(position * 10);
    Link { position, mark: u64::MAX - position, time }
}

/// The chunk of one position.
fn position(position: u64, events: impl IntoIterator<Item = StoredEvent>) -> FeedChunk {
    let link = link(position);
    FeedChunk {
        floors: Vec::new(),
        others: Floor::NONE,
        events: events.into_iter().collect(),
        next: Offset::new(at(position + 1)),
        clock: ClockState { at: link.time, delta_ms: 0 },
        marks: Marks { base: BASE, first: position, marks: vec![Mark::new(link.mark)] },
        node: Some(NodeState { hub: None, links: vec![link] }),
    }
}

fn with_state(chunk: FeedChunk, state: &[u8]) -> FeedChunk {
    let node = chunk.node.map(|node| NodeState { hub: Some(state.into()), ..node });
    FeedChunk { node, ..chunk }
}

/// The event of a position.
fn at_position(number: u64, topics: &[&str]) -> StoredEvent {
    let to: Vec<Address> = topics.iter().map(|name| topic(name)).collect();
    StoredEvent { at: Timestamp::from_millis(number * 10), ..event(at(number), &to) }
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey { credential: "bob".into(), key: name.into() }
}

fn named(number: u64, name: &str) -> StoredEvent {
    StoredEvent {
        id: Some(name.into()),
        key: Some(key(name)),
        fingerprint: Fingerprint::keyed(&[1; 16], name.as_bytes()),
        ..at_position(number, &["a"])
    }
}

fn apply(cache: &mut SqliteCache, chunk: &FeedChunk) {
    cache.apply(chunk, &Losses::default()).unwrap();
}

fn trim(cache: &mut SqliteCache, now: u64) {
    while cache.trim(Timestamp::from_millis(now)).unwrap() == Trimmed::More {}
}

const ALL: Batch = Batch { events_max: 100_000, bytes_max: usize::MAX };

/// The positions of the events in the cache.
fn positions(reader: &dyn StoreReader) -> Vec<u64> {
    let position = |event: StoredEvent| (event.offset.get() - BASE) / POSITION_OFFSETS;
    reader.newest(ALL).unwrap().into_iter().map(position).collect()
}

fn finished(reader: &dyn StoreReader) -> Vec<(Address, u64)> {
    let position = |mark: Finished| (mark.offset.get() - BASE) / POSITION_OFFSETS;
    let mut marks: Vec<_> = { reader.finished_topics(9).unwrap().into_iter() }
        .map(|(address, mark)| (address, position(mark)))
        .collect();
    marks.sort();
    marks
}

#[test]
fn a_cache_keeps_links_and_the_newest_state_of_the_hub() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    assert_eq!(new.opened().node, NodeState::default());
    apply(&mut new, &with_state(position(1, [at_position(1, &["a"])]), b"one"));
    apply(&mut new, &position(2, []));
    apply(&mut new, &with_state(position(3, []), b"three"));
    apply(&mut new, &position(4, []));
    drop(new);
    let mut old = cache(&path);
    let OpenedCache { node, marks, position: next, .. } = old.opened().clone();
    assert_eq!(node.links, (1..=4).map(link).collect::<Vec<_>>());
    assert_eq!(node.hub.as_deref(), Some(&b"three"[..]));
    assert_eq!(next, Some(Offset::new(at(5))));
    // These marks have only the bits that an id contains.
    assert_eq!(marks.marks, (1..=4).map(|at| Mark::new(link(at).mark)).collect::<Vec<_>>());
    // After the next chunk, the cache no longer keeps the links and marks in memory.
    apply(&mut old, &position(5, []));
    assert_eq!(
        (&old.opened().node, &old.opened().marks),
        (&NodeState::default(), &Marks::default())
    );
}

/// An engine whose clock is wrong may give any time.
#[test]
fn marks_and_times_may_have_any_value() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    let links = [(1, 0, 0), (2, u64::MAX, u64::MAX), (3, 1 << 63, 1 << 63)].map(
        |(position, mark, millis)| Link { position, mark, time: Timestamp::from_millis(millis) },
    );
    for link in links {
        let node = Some(NodeState { hub: None, links: vec![link] });
        apply(&mut new, &FeedChunk { node, ..position(link.position, []) });
    }
    drop(new);
    assert_eq!(cache(&path).opened().node.links, links);
}

#[test]
fn the_newest_links_are_read_up_to_their_limit() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    drop(cache(&path));
    let db = rusqlite::Connection::open(&path).unwrap();
    let fill = "WITH RECURSIVE positions(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM positions WHERE n < ?)
                INSERT INTO marks SELECT n, -1 - n, 10 * n FROM positions";
    db.execute(fill, [LINKS_MAX as i64]).unwrap();
    drop(db);
    let links = cache(&path).opened().node.links.clone();
    assert_eq!((links.len(), links[0]), (LINKS_MAX, link(1)));
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE marks SET time = NULL WHERE position = 1000", []).unwrap();
    drop(db);
    let opened = cache(&path).opened().clone();
    assert_eq!((opened.node.links[0], opened.marks.marks.len()), (link(1_001), LINKS_MAX + 1));
}

#[test]
fn a_cut_removes_the_events_with_their_links_keys_and_ids() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    apply(&mut new, &with_state(position(1, [named(1, "kept")]), b"state"));
    apply(&mut new, &position(2, [named(2, "lost")]));
    apply(&mut new, &position(3, [named(3, "later")]));
    let old = new.reader();
    assert_eq!(new.cut_to(Offset::new(at(2))), Ok(vec!["lost".into(), "later".into()]));
    assert_eq!(old.newest(ALL), Err(StoreError::Stopped), "another history follows");
    let known = (named(1, "kept").fingerprint, Offset::new(at(1)));
    for mut cache in [new, cache_after_copy(&folder, &path)] {
        assert_eq!(positions(&*cache.reader()), [1]);
        assert_eq!(cache.publisher_id("kept"), Ok(Some(known)));
        assert_eq!(cache.idempotency_key(&key("kept")), Ok(Some(known)));
        assert_eq!(cache.publisher_id("lost"), Ok(None));
        assert_eq!(cache.idempotency_key(&key("lost")), Ok(None));
        apply(&mut cache, &position(2, [at_position(2, &["b"])]));
        assert_eq!(positions(&*cache.reader()), [1, 2]);
    }
}

/// Another process opens a copy of the file.
fn cache_after_copy(folder: &Folder, path: &Path) -> SqliteCache {
    let copy = folder.file("copy.db");
    for end in ["", "-wal"] {
        let name = |path: &Path| format!("{}{end}", path.display());
        std::fs::copy(name(path), name(&copy)).unwrap();
    }
    let opened = cache(&copy);
    let OpenedCache { position, node, clock, discarded, .. } = opened.opened().clone();
    assert_eq!((position, discarded), (Some(Offset::new(at(2))), None));
    assert_eq!((node.links, node.hub.as_deref()), (vec![link(1)], Some(&b"state"[..])));
    // Log time never goes back.
    assert_eq!(clock.map(|clock| clock.at), Some(Timestamp::from_millis(30)));
    opened
}

#[test]
fn a_cut_restores_the_finish_marks_that_removed_events_had_changed() {
    let folder = Folder::new();
    let mut new = cache(&folder.file("cache.db"));
    let finish = |number, name: &str| StoredEvent { finish: true, ..at_position(number, &[name]) };
    let mark = |number, name: &str| StoredEvent { payload: None, ..finish(number, name) };
    apply(&mut new, &position(1, [finish(1, "reopened")]));
    apply(&mut new, &position(2, [finish(2, "twice")]));
    apply(&mut new, &position(3, [mark(3, "kept")]));
    apply(&mut new, &position(4, [at_position(4, &["reopened", "twice"])]));
    apply(&mut new, &position(5, [finish(5, "twice")]));
    apply(&mut new, &position(6, [finish(6, "lost")]));
    apply(&mut new, &position(7, [mark(7, "never")]));
    let names = ["kept", "lost", "never", "twice"].map(topic);
    assert_eq!(finished(&*new.reader()), names.into_iter().zip([3, 6, 7, 5]).collect::<Vec<_>>());
    new.cut_to(Offset::new(at(4))).unwrap();
    let names = ["kept", "reopened", "twice"].map(topic);
    assert_eq!(finished(&*new.reader()), names.into_iter().zip([3, 1, 2]).collect::<Vec<_>>());
    // The topic is open again after the next event.
    apply(&mut new, &position(4, [at_position(4, &["twice"])]));
    let names = ["kept", "reopened"].map(topic);
    assert_eq!(finished(&*new.reader()), names.into_iter().zip([3, 1]).collect::<Vec<_>>());
}

#[test]
fn a_cut_lowers_the_floors_that_are_above_it() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    for number in 1..=6 {
        apply(&mut new, &position(number, [at_position(number, &["a", "b"])]));
    }
    let floor = |position| Floor { offset: Offset::new(at(position)), at: Timestamp::default() };
    let floors = vec![(topic("a"), floor(6)), (topic("b"), floor(3)), (topic("c"), floor(7))];
    let losses = Losses { floors, others: Some(floor(5)), ..Losses::default() };
    let known = [topic("a"), topic("b"), topic("c")].into_iter().collect();
    new.apply(&position(7, []), &Losses { known, ..losses }).unwrap();
    new.cut_to(Offset::new(at(4))).unwrap();
    let reader = new.reader();
    let of = |name| reader.floor_of(&topic(name)).unwrap().offset.get();
    assert_eq!(["a", "b", "c", "other"].map(of), [4, 3, 4, 4].map(at));
    assert_eq!(reader.highest_floor(), Ok(Offset::new(at(4))));
    assert_eq!(positions(&*reader), [3]);
    let kept = reader.newest(ALL).unwrap();
    assert_eq!(kept[0].to.to_vec(), [topic("b")]);
    trim(&mut new, 0);
    drop(new);
    assert_eq!(cache(&path).opened().unknown_below, None);
}

/// Trimming has indexed most of the events: it has added them to the lists of their topics.
#[test]
fn a_cut_removes_indexed_and_unindexed_events_and_retention_goes_on() {
    let folder = Folder::new();
    let mut options = SqliteOptions::default();
    options.retention.default.events_max = 100;
    let mut new = SqliteCache::open(&folder.file("cache.db"), options).unwrap();
    for number in 1..=20_000 {
        let name = format!("t{}", number % 50);
        apply(&mut new, &position(number, [at_position(number, &[&name])]));
        if number % 500 == 0 {
            trim(&mut new, 0);
        }
    }
    new.cut_to(Offset::new(at(17_001))).unwrap();
    let kept = positions(&*new.reader());
    assert_eq!((kept.last(), kept.len() > 1_500), (Some(&17_000), true));
    for number in 17_001..=25_000 {
        let name = format!("t{}", number % 50);
        apply(&mut new, &position(number, [at_position(number, &[&name])]));
        if number % 500 == 0 {
            trim(&mut new, 0);
        }
    }
    let kept = positions(&*new.reader());
    assert!(kept.len() <= 50 * 113 && kept.len() >= 50 * 100, "{}", kept.len());
    let newest: Vec<u64> = (20_001..=25_000).collect();
    assert!(kept.ends_with(&newest));
}

#[test]
fn a_cut_returns_as_many_ids_as_the_limit() {
    let folder = Folder::new();
    let mut new = cache(&folder.file("cache.db"));
    let events = (0..=CUT_IDS_MAX as u64).map(|index| StoredEvent {
        id: Some(index.to_string().into()),
        ..event(at(1) + index, &[topic("a")])
    });
    let next = Offset::new(at(9));
    apply(&mut new, &FeedChunk { next, ..position(1, events) });
    let ids = new.cut_to(Offset::new(at(1))).unwrap();
    assert_eq!((ids.len(), &*ids[0]), (CUT_IDS_MAX, "0"));
    assert_eq!(positions(&*new.reader()), []);
}

#[test]
fn of_two_events_with_one_id_the_older_one_is_found() {
    let folder = Folder::new();
    let mut new = cache(&folder.file("cache.db"));
    apply(&mut new, &position(1, [named(1, "x")]));
    let second = StoredEvent { fingerprint: Fingerprint::default(), ..named(2, "x") };
    apply(&mut new, &position(2, [second]));
    let found = new.publisher_id("x").unwrap().map(|(_, offset)| offset);
    assert_eq!(found, Some(Offset::new(at(1))));
    assert_eq!(new.reader().publisher_id("x"), Ok(Some(Offset::new(at(1)))));
}

#[test]
fn a_cache_that_knows_nothing_below_an_offset_says_so_after_it_is_opened_again() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let mut new = cache(&path);
    assert_eq!(new.opened().unknown_below, None);
    let floor = Floor { offset: Offset::new(at(5)), at: Timestamp::default() };
    let losses = Losses { others: Some(floor), ..Losses::default() };
    new.apply(&position(4, []), &losses).unwrap();
    let known = [topic("a")].into_iter().collect();
    let higher = Floor { offset: Offset::new(at(6)), ..floor };
    new.apply(&position(5, []), &Losses { others: Some(higher), known, ..losses }).unwrap();
    drop(new);
    let mut old = cache(&path);
    assert_eq!(old.opened().unknown_below, Some(Offset::new(at(5))));
    old.cut_to(Offset::new(at(5))).unwrap();
    old.cut_to(Offset::new(at(4))).unwrap();
    drop(old);
    assert_eq!(cache(&path).opened().unknown_below, Some(Offset::new(at(4))));
}
