//! Runs random operations on a store, and compares the store with a list of all events that were
//! ever committed.
//!
//! The floor of a topic is the offset after its last evicted event. The store must have all events
//! of the topic at or above the floor. The retention rule must allow the eviction of each event
//! below the floor. A reader must get exactly the events at or above the floor. A hole is the range
//! of events that a reader misses because they were evicted after it started.

use std::{collections::BTreeSet, time::Duration};

use downlink_log::{
    Address, Batch, EvictionNumber, Retention,
    store::{Store, StoreReplay, Wanted},
};
use downlink_sqlite::{SqliteOptions, SqliteStore};
use proptest::prelude::*;

use crate::support::{
    Folder, at, client, commit, done, event, keeping, nth_newest, open_with, range, read_pages,
    topic, trim, wanted,
};

/// The rules for topics and for all other addresses. A store begins with the first pair, and an
/// operation may choose another pair.
const RULES: [(Retention, Retention); 3] = [
    (keep(8, 6 * 110, 40), keep(3, usize::MAX, 15)),
    (keep(2, usize::MAX, 15), keep(1, usize::MAX, 40)),
    (keep(30, 20 * 110, 90), keep(20, usize::MAX, 40)),
];

const fn keep(events_max: usize, bytes_max: usize, age_ms: u64) -> Retention {
    Retention { events_max, bytes_max, age_max: Some(Duration::from_millis(age_ms)) }
}

#[derive(Clone, Debug)]
enum Op {
    /// Commits some events. Each event has the indices of its addresses, and a step that is added
    /// to the offset and the time of the previous event.
    Commit(Vec<(Vec<usize>, u64)>),
    /// Lets this many milliseconds pass, and then trims until nothing is left to do.
    Trim(u64),
    /// Runs one step of trimming.
    Step,
    Reopen,
    /// Gives the open store the rules with this number.
    SetRetention(usize),
    /// Starts a reader with the selection that has this index.
    Begin(usize),
    /// Reads one page with each reader.
    Pages,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let to = proptest::collection::vec(0..addresses().len(), 1..4);
    let batch = proptest::collection::vec((to, 1..4_u64), 1..12);
    let op = prop_oneof![
        6 => batch.prop_map(Op::Commit),
        2 => (0..30_u64).prop_map(Op::Trim),
        2 => Just(Op::Step),
        1 => Just(Op::Reopen),
        1 => (0..RULES.len()).prop_map(Op::SetRetention),
        1 => (0..selections().len()).prop_map(Op::Begin),
        2 => Just(Op::Pages),
    ];
    proptest::collection::vec(op, 1..40)
}

fn addresses() -> Vec<Address> {
    vec![
        topic("a"),
        topic("a/b"),
        topic("a/c"),
        topic("d/e"),
        client("a"),
        client("x"),
        Address::Everyone,
    ]
}

/// All committed events, in order.
#[derive(Default)]
struct Naive {
    events: Vec<(u64, BTreeSet<Address>)>,
    now: u64,
    /// The number of the rules in force.
    rules: usize,
    /// The events that the store was allowed to evict by an earlier rule of their address.
    were_allowed: BTreeSet<(Address, u64)>,
}

impl Naive {
    fn of<'a>(&'a self, address: &'a Address) -> impl DoubleEndedIterator<Item = u64> + 'a {
        self.events.iter().filter(move |(_, to)| to.contains(address)).map(|(offset, _)| *offset)
    }

    fn set_rules(&mut self, rules: usize) {
        for address in addresses() {
            let offsets: Vec<u64> = self.of(&address).collect();
            let allowed = offsets.into_iter().filter(|&offset| self.may_be_gone(&address, offset));
            let allowed: Vec<_> = allowed.map(|offset| (address.clone(), offset)).collect();
            self.were_allowed.extend(allowed);
        }
        self.rules = rules;
    }

    fn rule(&self, address: &Address) -> Retention {
        let (topics, others) = RULES[self.rules];
        if address.topic().is_some() { topics } else { others }
    }

    /// Whether a rule allows the eviction of an event, or has allowed it before. This depends on
    /// the current time and on the newer events of the same address.
    fn may_be_gone(&self, address: &Address, offset: u64) -> bool {
        let rule = self.rule(address);
        let newer: Vec<_> = self.of(address).filter(|&other| other > offset).collect();
        let bytes: usize =
            newer.iter().chain([&offset]).map(|&n| crate::support::payload(n).len() + 96).sum();
        let old = offset + rule.age_max.unwrap().as_millis() as u64 <= self.now;
        old || newer.len() >= rule.events_max
            || (bytes > rule.bytes_max && !newer.is_empty())
            || self.were_allowed.contains(&(address.clone(), offset))
    }
}

fn options(rules: usize) -> SqliteOptions {
    let (topics, others) = RULES[rules];
    let mut options = keeping(topics);
    options.retention.inbox = others;
    options.retention.everyone = others;
    options.floors_max = 2;
    options
}

fn read(store: &SqliteStore, wanted: &Wanted, until: u64, events_max: usize) -> (Vec<u64>, u64) {
    let batch = Batch { events_max, bytes_max: usize::MAX };
    let (events, floor) = read_pages(&*store.reader(), wanted, 1..until, batch);
    for entry in &events {
        assert_eq!(entry.payload, Some(crate::support::payload(entry.offset.get())));
        assert_eq!(entry.at, at(entry.offset.get()));
    }
    (events.iter().map(|entry| entry.offset.get()).collect(), floor)
}

/// Compares everything that can be read from the store with the list. Returns the events that each
/// address keeps.
fn compare(store: &SqliteStore, naive: &Naive) -> Vec<Vec<u64>> {
    let until = naive.events.last().map_or(1, |(offset, _)| offset + 1);
    let mut kept = Vec::new();
    for address in addresses() {
        let (read, floor) = read(store, &wanted(std::slice::from_ref(&address), &[]), until, 3);
        let expected: Vec<_> = naive.of(&address).filter(|&offset| offset >= floor).collect();
        assert_eq!(read, expected, "{address:?} has wrong events at or above its floor {floor}");
        for gone in naive.of(&address).filter(|&offset| offset < floor) {
            assert!(naive.may_be_gone(&address, gone), "{address:?} must keep event {gone}");
        }
        kept.push(read);
    }
    compare_unions(store, &kept, until);
    kept
}

/// The selections that readers use. Each has the indices of the addresses that it matches.
fn selections() -> Vec<(Wanted, Vec<usize>)> {
    vec![
        (wanted(&addresses(), &[]), vec![0, 1, 2, 3, 4, 5, 6]),
        (wanted(&[], &["*"]), vec![0, 1, 2, 3]),
        (wanted(&[client("x")], &["a/*"]), vec![1, 2, 5]),
        (wanted(&[Address::Everyone], &["{x}/e", "a"]), vec![0, 3, 6]),
    ]
}

/// A reader of one selection, which started after some of the operations.
struct Reading {
    replay: Box<dyn StoreReplay>,
    addresses: Vec<usize>,
    begun: EvictionNumber,
    /// The events that the reader could get when it started. `tail` was then the offset of the next
    /// event.
    kept: BTreeSet<u64>,
    tail: u64,
    next: u64,
}

impl Reading {
    fn begin(store: &SqliteStore, naive: &Naive, selection: usize) -> Self {
        let (wanted, addresses) = selections().swap_remove(selection);
        let begun = store.reader().newest_eviction().unwrap();
        let kept = union(&compare(store, naive), &addresses).into_iter().collect();
        let tail = naive.events.last().map_or(1, |(offset, _)| offset + 1);
        Self { replay: store.reader().replay(wanted), addresses, begun, kept, tail, next: 1 }
    }

    /// Reads a page. Asserts that the page's hole covers every missing event. Also asserts that the
    /// page has a hole only if an event was evicted after the reader started.
    fn page(&mut self, store: &SqliteStore, naive: &Naive) {
        let until = naive.events.last().map_or(1, |(offset, _)| offset + 1);
        let batch = Batch { events_max: 2, bytes_max: usize::MAX };
        let (from, begun) = (self.next, self.begun);
        let page = done(|| self.replay.page(range(from..until), begun, batch).unwrap());
        let kept = union(&compare(store, naive), &self.addresses);
        let next = page.next.get();
        let expected = kept.iter().copied().filter(|offset| (from..next).contains(offset));
        assert!(page.events.iter().map(|entry| entry.offset.get()).eq(expected));
        let committed = naive
            .events
            .iter()
            .filter(|(_, to)| self.addresses.iter().any(|&index| to.contains(&addresses()[index])));
        let later = committed
            .map(|(offset, _)| *offset)
            .filter(|offset| self.kept.contains(offset) || *offset >= self.tail);
        let missing = later.filter(|offset| *offset >= from && !kept.contains(offset)).max();
        let below = page.hole.map_or(from, |hole| hole.get() + 1);
        assert!(
            missing.is_none_or(|missing| missing < below),
            "event {missing:?} is missing, but it is not in the hole {:?}",
            page.hole
        );
        let highest = store.reader().highest_floor().unwrap().get();
        assert!(page.hole.is_none_or(|hole| hole.get() < highest && hole.get() >= from));
        let newest = store.reader().newest_eviction().unwrap();
        assert!(
            page.hole.is_none() || newest > begun,
            "there is a hole, but nothing was evicted since the reader began"
        );
        self.next = next;
    }
}

fn union(kept: &[Vec<u64>], indices: &[usize]) -> Vec<u64> {
    let all: BTreeSet<u64> = indices.iter().flat_map(|&index| kept[index].clone()).collect();
    all.into_iter().collect()
}

fn compare_unions(store: &SqliteStore, kept: &[Vec<u64>], until: u64) {
    for (wanted, indices) in selections() {
        let expected = union(kept, &indices);
        assert_eq!(read(store, &wanted, until, 2).0, expected, "{wanted:?}");
        assert_eq!(read(store, &wanted, until, 1_000).0, expected, "{wanted:?}");
        for count in [1, 3, 100] {
            let newest = nth_newest(store, &wanted, count, until);
            let place = expected.len().saturating_sub(count);
            assert_eq!(newest, expected.get(place).copied());
        }
    }
    let all = union(kept, &[0, 1, 2, 3, 4, 5, 6]);
    let newest = store.reader().newest(Batch { events_max: 5, bytes_max: usize::MAX }).unwrap();
    for (address, kept) in addresses().iter().zip(kept) {
        let of = newest.iter().filter(|event| event.to.contains(address));
        let first = newest.first().map_or(0, |event| event.offset.get());
        let expected = kept.iter().copied().filter(|&offset| offset >= first);
        assert!(of.map(|event| event.offset.get()).eq(expected), "{address:?}");
    }
    let newest: Vec<_> = newest.iter().map(|event| event.offset.get()).collect();
    assert_eq!(newest, all[all.len().saturating_sub(5)..]);
}

/// Asserts that every topic is within its rule. This must be true when trimming has nothing left to
/// do.
fn check_rules(kept: &[Vec<u64>], naive: &Naive) {
    let now = naive.now;
    for (address, kept) in addresses().iter().zip(kept) {
        let rule = naive.rule(address);
        assert!(kept.len() <= rule.events_max + rule.events_max / 8);
        let bytes: usize = kept.iter().map(|&n| crate::support::payload(n).len() + 96).sum();
        assert!(kept.len() <= 1 || bytes <= rule.bytes_max);
        let age = rule.age_max.unwrap().as_millis() as u64;
        assert!(
            kept.iter().all(|offset| offset + age > now),
            "{address:?} keeps events that are too old at {now}: {kept:?}"
        );
    }
}

fn run(ops: Vec<Op>) {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, options(0));
    let (mut naive, mut next) = (Naive::default(), 1);
    let mut readings = Vec::new();
    for op in ops {
        match op {
            Op::Commit(batch) => {
                let mut events = Vec::new();
                for (to, step) in batch {
                    next += step;
                    let to: BTreeSet<_> =
                        to.into_iter().map(|index| addresses()[index].clone()).collect();
                    events.push(event(next, &to.iter().cloned().collect::<Vec<_>>()));
                    naive.events.push((next, to));
                }
                naive.now = naive.now.max(next);
                commit(&mut store, &events);
            }
            Op::Trim(after) => {
                naive.now += after;
                trim(&mut store, naive.now);
                check_rules(&compare(&store, &naive), &naive);
            }
            Op::Step => {
                let _ = store.trim(at(naive.now)).unwrap();
            }
            Op::Reopen => {
                readings.clear();
                drop(store);
                store = open_with(&path, options(naive.rules));
                let given = naive.events.last().map_or(0, |(offset, _)| *offset);
                assert_eq!(store.opened().next_offset.get(), given + 1);
            }
            Op::SetRetention(rules) => {
                naive.set_rules(rules);
                store.set_retention(options(rules).retention);
            }
            Op::Begin(selection) => readings.push(Reading::begin(&store, &naive, selection)),
            Op::Pages => readings.iter_mut().for_each(|reading| reading.page(&store, &naive)),
        }
        compare(&store, &naive);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_store_agrees_with_the_list_of_its_events(ops in ops()) {
        run(ops);
    }
}
