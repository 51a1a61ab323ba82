//! The log of a cluster node with a cache in a file. A position is a run of offsets, and a mark
//! stands for the history up to a position. A cut removes the newest positions.

use std::sync::{Arc, Mutex};

use downlink_log::{
    AppendError, Applied, Applier, Batch, Cursor, Draft, EndReason, Epoch, Fingerprint, Gap,
    GapReason, IdempotencyKey, KEY_WINDOW, Log, LogOptions, LostEnd, Offset, POSITION_OFFSETS,
    Read, Start, Timestamp,
    store::{
        Cache, FeedChunk, Link, Losses, Mark, Marks, NodeState, OpenedCache, StoreError,
        StoreReader, StoredEvent, Trimmed,
    },
};

use crate::cached::{Folder, seen, small};
use crate::feed::{Text, apply, asked, chunk, event, floor, open, side, start};
use crate::support::{block_on, draft_of, ms, options, topic};

/// The first offset of a position. The tests have at most one event in a position.
const fn at(position: u64) -> u64 {
    1 + position * POSITION_OFFSETS
}

/// The mark of a position. A history that was cut gets other marks.
fn mark_of(position: u64, history: u64) -> u64 {
    (1 << 60) + 1_000 * history + position
}

/// The chunk of one position.
fn position(number: u64, history: u64, events: &[StoredEvent]) -> FeedChunk {
    let mark = mark_of(number, history);
    let links = vec![Link { position: number, mark, time: ms(number) }];
    FeedChunk {
        marks: Marks { base: 1, first: number, marks: vec![Mark::new(mark)] },
        node: Some(NodeState { hub: None, links }),
        ..chunk(events.iter().cloned(), at(number + 1))
    }
}

fn after(position: u64, history: u64) -> Start {
    let epoch = Mark::new(mark_of(position, history)).in_id();
    Start::After(Cursor { epoch, next: Offset::new(at(position) + 1) }.to_string().into())
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey { credential: "".into(), key: name.into() }
}

fn content(name: &str) -> Fingerprint {
    Fingerprint::keyed(&[0; 16], name.as_bytes())
}

/// An event with an id and a key.
fn named(number: u64, name: &str) -> StoredEvent {
    StoredEvent {
        id: Some(name.into()),
        key: Some(key(name)),
        fingerprint: content(name),
        ..event(at(number), &["a"])
    }
}

fn with_key(name: &str, content_of: &str) -> Draft<Text> {
    Draft {
        key: Some(key(name)),
        fingerprint: content(content_of),
        ..draft_of(&[topic("a")], Text::default())
    }
}

fn with_id(name: &str, content_of: &str) -> Draft<Text> {
    Draft { id: Some(name.into()), key: None, ..with_key(name, content_of) }
}

fn plan(
    applier: &mut Applier<Text>,
    now: Timestamp,
    draft: Draft<Text>,
) -> Result<Option<u64>, AppendError> {
    let plans = applier.plan(now, &[draft].into_iter().collect());
    plans.map(|plans| plans[0].map(Offset::get))
}

/// The calls of a cache, and the number of calls that succeed.
#[derive(Debug)]
struct Calls {
    chunks: Vec<usize>,
    left: usize,
}

/// A cache that counts its calls, and fails from a given call on.
#[derive(Debug)]
struct Counting<C>(C, Arc<Mutex<Calls>>);

impl<C> Counting<C> {
    fn call(&self) -> Result<(), StoreError> {
        let mut calls = self.1.lock().expect("no panic under the lock");
        calls.left = calls.left.checked_sub(1).ok_or(StoreError::DiskFull)?;
        Ok(())
    }
}

impl<C: Cache> Cache for Counting<C> {
    fn opened(&self) -> &OpenedCache {
        self.0.opened()
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        self.0.reader()
    }

    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        self.call()?;
        self.0.publisher_id(id)
    }

    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        self.call()?;
        self.0.idempotency_key(key)
    }

    fn begin(&mut self, epochs: &[(Epoch, Offset)], discards: bool) {
        self.0.begin(epochs, discards);
    }

    fn apply(&mut self, chunk: &FeedChunk, losses: &Losses) -> Result<(), StoreError> {
        self.call()?;
        self.1.lock().expect("no panic under the lock").chunks.push(chunk.marks.marks.len());
        self.0.apply(chunk, losses)
    }

    fn cut_to(&mut self, until: Offset) -> Result<Vec<Box<str>>, StoreError> {
        self.call()?;
        self.0.cut_to(until)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.call()?;
        self.0.flush()
    }

    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        self.call()?;
        self.0.trim(now)
    }

    fn set_retention(&mut self, rules: downlink_log::RetentionRules) {
        self.0.set_retention(rules);
    }
}

struct Node {
    log: Log<Text>,
    applier: Applier<Text>,
    calls: Arc<Mutex<Calls>>,
}

impl Node {
    fn open(folder: &Folder, options: LogOptions) -> Self {
        let calls = Arc::new(Mutex::new(Calls { chunks: Vec::new(), left: usize::MAX }));
        let cache = Box::new(Counting(folder.cache(), Arc::clone(&calls)));
        let (log, applier) = Log::replica(options, side(), Some(cache)).expect("a replica");
        Self { log, applier, calls }
    }

    /// A new node with the events of some positions.
    fn filled(folder: &Folder, options: LogOptions, events: &[StoredEvent]) -> Self {
        let mut node = Self::open(folder, options);
        assert!(node.applier.begin(start(&[(1, 1)], 1, false)));
        for (number, event) in (1..).zip(events) {
            node.apply(position(number, 1, std::slice::from_ref(event)));
        }
        node.confirm();
        node
    }

    fn apply(&mut self, chunk: FeedChunk) {
        apply(&mut self.applier, chunk);
    }

    fn confirm(&self) {
        if let Some(question) = asked(&self.applier.follower()) {
            self.applier.follower().confirm(question, self.log.tail());
        }
    }

    fn positions(&self, selector: &str, start: Start) -> (Vec<u64>, Vec<(u64, u64)>) {
        let mut reader = open(&self.log, &[selector], start);
        self.confirm();
        let seen = seen(&mut reader);
        let position = |offset: &u64| (offset - 1) / POSITION_OFFSETS;
        (seen.offsets.iter().map(position).collect(), seen.gaps)
    }

    /// The gap that a reader gets first, and the positions of the events that it gets.
    fn first_gap(&self, selector: &str, start: Start) -> (Option<Gap>, Vec<u64>) {
        let mut reader = open(&self.log, &[selector], start);
        // The reader waits for the cache, and then for the answer of the upstream.
        let begun = std::future::poll_fn(|task| {
            self.confirm();
            reader.poll_begun(task.waker())
        });
        block_on(begun).expect("begun");
        let mut out = Vec::new();
        let gap = match reader.read(ms(0), Batch { events_max: 1, bytes_max: 1 }, &mut out) {
            Read::Gap(gap) => Some(gap),
            _ => None,
        };
        let seen = seen(&mut reader);
        assert_eq!(seen.gaps, []);
        let read = out.iter().map(|entry| entry.offset.get()).chain(seen.offsets);
        (gap, read.map(|offset| (offset - 1) / POSITION_OFFSETS).collect())
    }

    fn chunks(&self) -> Vec<usize> {
        self.calls.lock().expect("no panic under the lock").chunks.clone()
    }

    fn fail_after(&self, calls: usize) {
        self.calls.lock().expect("no panic under the lock").left = calls;
    }
}

fn events(range: std::ops::RangeInclusive<u64>) -> Vec<StoredEvent> {
    range.map(|number| event(at(number), &["a"])).collect()
}

#[test]
fn a_cut_keeps_the_events_below_it_in_memory_and_in_the_cache() {
    for options in [options(), small()] {
        let folder = Folder::new();
        let mut node = Node::filled(&folder, options.clone(), &events(1..=6));
        let mut old = open(&node.log, &["a"], after(1, 1));
        assert_eq!(node.applier.cut_to(Offset::new(at(4))), [] as [Box<str>; 0]);
        assert_eq!(seen(&mut old).end, Some(EndReason::Drained));
        assert_eq!(node.applier.position(), Some(node.log.tail()));
        assert_eq!(node.log.tail().next, Offset::new(at(4)));
        assert_eq!(node.positions("a", Start::Earliest), (vec![1, 2, 3], vec![]));
        node.apply(position(4, 2, &events(4..=4)));
        assert_eq!(node.positions("*", after(1, 1)), (vec![2, 3, 4], vec![]));
        drop((node, old));
        let node = Node::open(&folder, options);
        assert_eq!(node.positions("*", after(1, 1)), (vec![2, 3, 4], vec![]));
        assert_eq!(node.log.tail().next, Offset::new(at(5)));
    }
}

#[test]
fn a_cut_returns_the_ids_of_events_that_are_no_longer_in_memory() {
    let folder = Folder::new();
    let all = ["x", "y", "z"].map(|name| named(1 + u64::from(name.as_bytes()[0] - b'x'), name));
    let mut node = Node::filled(&folder, small(), &all);
    assert_eq!(node.applier.cut_to(Offset::new(at(2))), ["y".into(), "z".into()]);
    assert_eq!(
        ["x", "y", "z"].map(|id| node.applier.publisher_id(id)),
        [Some(Offset::new(at(1))), None, None]
    );
    assert_eq!(plan(&mut node.applier, ms(0), with_key("y", "other")), Ok(None));
    assert_eq!(plan(&mut node.applier, ms(0), with_key("x", "x")), Ok(Some(at(1))));
}

#[test]
fn a_topic_reopened_by_a_removed_event_is_finished_again_after_a_cut() {
    let folder = Folder::new();
    let finish = StoredEvent { finish: true, ..event(at(1), &["a"]) };
    let all = [finish, event(at(2), &["a"])];
    let mut node = Node::filled(&folder, options(), &all);
    let on = |node: &mut Node| plan(&mut node.applier, ms(0), with_key("new", "new"));
    assert_eq!(on(&mut node), Ok(None));
    node.applier.cut_to(Offset::new(at(2)));
    assert_eq!(on(&mut node), Err(AppendError::Finished { draft: 0 }));
    node.apply(position(2, 2, &[event(at(2), &["a"])]));
    assert_eq!(on(&mut node), Ok(None));
}

#[test]
fn ids_and_keys_are_known_after_memory_has_evicted_their_events_and_after_a_restart() {
    let folder = Folder::new();
    let all = [named(1, "x"), named(2, "y"), event(at(3), &["a"])];
    let mut node = Node::filled(&folder, small(), &all);
    for is_restarted in [false, true] {
        if is_restarted {
            drop(node);
            node = Node::open(&folder, small());
        }
        let applier = &mut node.applier;
        assert_eq!(applier.publisher_id("x"), Some(Offset::new(at(1))));
        assert_eq!(applier.publisher_id("new"), None);
        assert_eq!(plan(applier, ms(9), with_id("x", "x")), Ok(Some(at(1))));
        let taken = Err(AppendError::IdTaken { draft: 0 });
        assert_eq!(plan(applier, ms(9), with_id("x", "other")), taken);
        assert_eq!(plan(applier, ms(9), with_key("y", "y")), Ok(Some(at(2))));
        let reused = Err(AppendError::KeyReused { draft: 0 });
        assert_eq!(plan(applier, ms(9), with_key("y", "other")), reused);
        assert_eq!(plan(applier, ms(9), with_key("new", "new")), Ok(None));
    }
    // All keys of the cache are too old.
    let later = ms(at(4)).after(KEY_WINDOW);
    node.fail_after(0);
    assert_eq!(plan(&mut node.applier, later, with_key("y", "other")), Ok(None));
    assert_eq!(node.log.store_error(), None, "the cache is not asked");
}

/// The publisher used the id again after its own node had evicted the first event.
#[test]
fn a_reader_with_an_id_of_two_events_continues_after_the_older_one() {
    let folder = Folder::new();
    let mut all = events(1..=5);
    (all[0], all[3]) = (named(1, "x"), named(4, "x"));
    // Memory keeps both events, the second one, or none of them.
    let mut two = options();
    two.retention.default.events_max = 2;
    for options in [options(), two, small()] {
        let node = Node::filled(&folder, options, &all);
        assert_eq!(node.positions("a", Start::After("x".into())), (vec![2, 3, 4, 5], vec![]));
    }
}

/// Almost all events of the reader come from the cache.
#[test]
fn a_reader_with_a_lost_id_continues_at_the_lost_end() {
    let folder = Folder::new();
    let mut all = events(1..=6);
    all[4] = named(5, "again");
    let mut node = Node::filled(&folder, small(), &all);
    let end =
        |position, id: &str| LostEnd { from: Offset::new(at(position)), ids: vec![id.into()] };
    for is_restarted in [false, true] {
        if is_restarted {
            drop(node);
            node = Node::open(&folder, small());
        }
        node.applier.set_lost_ends(vec![end(3, "gone"), end(4, "again")]);
        let cases = [
            (after(2, 1), None),
            (after(3, 9), Some((3, GapReason::Lost))),
            (after(8, 9), Some((3, GapReason::Lost))),
            (Start::After("gone".into()), Some((3, GapReason::Lost))),
            (Start::After("again".into()), Some((4, GapReason::Lost))),
            (after(2, 9), Some((1, GapReason::NewEpoch))),
            (Start::After("unknown".into()), Some((1, GapReason::UnknownId))),
        ];
        for (start, expected) in cases {
            for selector in ["a", "*"] {
                let (gap, positions) = node.first_gap(selector, start.clone());
                let from = expected.map_or(3, |(from, _)| from);
                let reason = expected.map(|(_, reason)| reason);
                assert_eq!(gap.map(|gap| gap.reason), reason, "{selector} {start:?}");
                assert_eq!(positions, (from..=6).collect::<Vec<_>>(), "{selector} {start:?}");
            }
        }
    }
}

#[test]
fn the_cache_remembers_that_a_node_does_not_have_the_whole_history() {
    let folder = Folder::new();
    let mut node = Node::open(&folder, options());
    assert!(node.applier.begin(start(&[(1, 1)], at(5), false)));
    node.apply(FeedChunk { others: floor(at(6)), ..position(5, 1, &[]) });
    node.apply(position(6, 1, &events(6..=6)));
    for _ in 0..2 {
        let (gap, _) = node.first_gap("a", Start::After("unknown".into()));
        assert_eq!(gap.map(|gap| gap.reason), Some(GapReason::Evicted));
        drop(node);
        node = Node::open(&folder, options());
    }
}

#[test]
fn positions_without_events_are_written_together() {
    let folder = Folder::new();
    let mut node = Node::filled(&folder, options(), &events(1..=1));
    let bare = |node: &mut Node, range: std::ops::RangeInclusive<u64>| {
        range.for_each(|number| node.apply(position(number, 1, &[])));
    };
    bare(&mut node, 2..=9);
    assert_eq!(node.chunks(), [1]);
    // An event is written after the positions before it.
    node.apply(position(10, 1, &events(10..=10)));
    assert_eq!(node.chunks(), [1, 8, 1]);
    // A new state of the hub is also written after the positions before it.
    bare(&mut node, 11..=12);
    let links = position(13, 1, &[]).node.expect("a node").links;
    let node_state = Some(NodeState { hub: Some(b"state".to_vec()), links });
    node.apply(FeedChunk { node: node_state, ..position(13, 1, &[]) });
    assert_eq!(node.chunks(), [1, 8, 1, 2, 1]);
    // Positions without events wait for ten seconds of log time.
    bare(&mut node, 14..=15);
    assert!(node.applier.idle(ms(20_000)) <= std::time::Duration::from_secs(10));
    assert!(!node.applier.idle(ms(29_999)).is_zero());
    assert_eq!(node.chunks().len(), 5);
    let _ = node.applier.idle(ms(30_000));
    assert_eq!(node.chunks(), [1, 8, 1, 2, 1, 2]);
    // 256 positions without events are written at once.
    bare(&mut node, 16..=16 + 300);
    assert_eq!(node.chunks(), [1, 8, 1, 2, 1, 2, 256]);
    // The rest is written at the end.
    drop(node);
    let node = Node::open(&folder, options());
    assert_eq!(node.applier.position(), Some(node.log.tail()));
    assert_eq!(node.log.tail().next, Offset::new(at(317)));
    let cache = node.log.tail();
    drop(node);
    let opened = folder.cache().opened().clone();
    assert_eq!(opened.node.links.len(), 316);
    assert_eq!(opened.node.hub.as_deref(), Some(&b"state"[..]));
    assert_eq!(opened.position, Some(cache.next));
}

#[test]
fn a_cut_removes_positions_that_were_not_written_yet() {
    let folder = Folder::new();
    let mut node = Node::filled(&folder, options(), &events(1..=1));
    (2..=5).for_each(|number| node.apply(position(number, 1, &[])));
    node.applier.cut_to(Offset::new(at(4)));
    node.apply(position(4, 2, &events(4..=4)));
    drop(node);
    let opened = folder.cache().opened().clone();
    let marks: Vec<u64> = opened.node.links.iter().map(|link| link.mark).collect();
    let expected = [(1, 1), (2, 1), (3, 1), (4, 2)].map(|(number, of)| mark_of(number, of));
    assert_eq!((marks, opened.position), (expected.to_vec(), Some(Offset::new(at(5)))));
}

/// The disk fails at a chunk, at a cut, when the cache is trimmed, or when an id is looked up.
#[test]
fn a_node_whose_cache_fails_goes_on_with_the_events_in_memory() {
    type Call = fn(&mut Node);
    let calls: [Call; 5] = [
        |node| assert_eq!(node.applier.apply(position(4, 1, &events(4..=4))), Applied::Next),
        |node| drop(node.applier.cut_to(Offset::new(at(4)))),
        |node| _ = node.applier.idle(ms(0)),
        |node| assert_eq!(node.applier.publisher_id("new"), None),
        |node| assert_eq!(plan(&mut node.applier, ms(0), with_id("new", "new")), Ok(None)),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let folder = Folder::new();
        let all = [named(1, "x"), named(2, "y"), named(3, "z")];
        let mut node = Node::filled(&folder, options(), &all);
        let mut reader = open(&node.log, &["a"], Start::Earliest);
        node.fail_after(0);
        call(&mut node);
        assert_eq!(node.log.store_error(), Some(StoreError::DiskFull), "{number}");
        assert_eq!(seen(&mut reader).end, Some(EndReason::Drained));
        let first = if number == 0 { 5 } else { 4 };
        assert_eq!(node.log.tail().next, Offset::new(at(first)));
        node.apply(position(first, 1, &events(first..=first)));
        let expected: Vec<u64> = (1..=first).collect();
        assert_eq!(node.positions("*", Start::Earliest), (expected, vec![]));
        assert_eq!(node.applier.publisher_id("x"), Some(Offset::new(at(1))));
        assert_eq!(plan(&mut node.applier, ms(0), with_key("y", "y")), Ok(Some(at(2))));
    }
}

#[test]
fn a_new_node_whose_cache_fails_at_once_begins_in_memory() {
    let folder = Folder::new();
    let mut node = Node::open(&folder, options());
    assert!(node.applier.begin(start(&[(1, 1)], at(5), false)));
    node.fail_after(0);
    node.apply(FeedChunk { others: floor(at(6)), ..position(5, 1, &[]) });
    node.apply(position(6, 1, &events(6..=6)));
    assert_eq!(node.positions("a", Start::Earliest), (vec![6], vec![]));
}
