//! The copy of a log that a follower makes from a feed, and the check of this copy against all
//! published events.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use downlink_log::{
    Address, Cursor, Epoch, Feed, Log, LogOptions, Offset, Payload, Timestamp,
    store::{FeedChunk, StoredEvent},
};

use crate::{
    appended, clock,
    support::{Load, draft, ms},
};

/// A payload whose clones are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted(#[expect(dead_code, reason = "only counted")] pub(crate) Arc<()>);

impl Payload for Counted {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        1
    }
}

/// The addresses of each published event, by its offset.
#[derive(Debug, Default)]
pub(crate) struct Published(BTreeMap<u64, Vec<Address>>);

impl Deref for Published {
    type Target = BTreeMap<u64, Vec<Address>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A log, and everything that was published to it.
pub(crate) struct World {
    pub(crate) log: Log<Load>,
    published: Mutex<Published>,
    now: AtomicU64,
}

impl World {
    pub(crate) fn in_memory(options: LogOptions) -> Self {
        Self::new(Log::new(options))
    }

    pub(crate) fn new(log: Log<Load>) -> Self {
        Self { log, published: Mutex::default(), now: AtomicU64::new(1) }
    }

    pub(crate) fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap()
    }

    /// Publishes one event. If one of its topics is finished, nothing is published.
    pub(crate) fn publish(&self, to: &[Address], finish: bool) {
        let mut draft = draft(to);
        draft.finish = finish && !to.contains(&Address::Everyone);
        draft.body = Some(vec![1]);
        let now = ms(self.now.load(Ordering::Relaxed));
        // The list is locked during the append, so a check never misses the newest event.
        let mut published = self.published();
        let Ok(submitted) = self.log.append(now, [draft].into_iter().collect()) else { return };
        let Some(offsets) = appended(submitted) else { return };
        published.0.insert(offsets[0], to.to_vec());
    }

    /// Lets time pass, and evicts the events that are too old.
    pub(crate) fn pass(&self, millis: u64) {
        let now = self.now.fetch_add(millis, Ordering::Relaxed) + millis;
        self.log.expire(ms(now));
    }

    /// Opens a feed for a copy.
    pub(crate) fn feed(&self, copy: &Copy) -> Feed<Load> {
        let epoch = copy.epoch.unwrap_or_else(|| self.log.tail().epoch);
        let position = Cursor { epoch, next: Offset::new(copy.next) };
        let position = (copy.next > 0).then_some(position);
        self.log.feed(position, |_| vec![1])
    }

    /// Checks that each published event below the position of the copy is in the copy, or is below
    /// the floor of its address. Also checks that the copy has no other event.
    pub(crate) fn check(&self, copy: &Copy) {
        let published = self.published();
        for (&offset, to) in published.range(..copy.next) {
            for address in to {
                let is_kept = copy.events.get(&offset).is_some_and(|to| to.contains(address));
                let floor = copy.floor_of(address);
                assert!(
                    is_kept || offset < floor,
                    "{address:?} misses {offset} silently: its floor is {floor}"
                );
            }
        }
        for (&offset, to) in &copy.events {
            to.iter().for_each(|address| assert!(published.has(address, offset)));
        }
    }
}

/// The events, floors and finish marks that the follower of a feed has received. A floor is the
/// offset below which the events of an address may be missing. A finish mark says that a topic gets
/// no more events.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) next: u64,
    pub(crate) events: BTreeMap<u64, Vec<Address>>,
    /// The floors of the addresses that have a floor of their own. The shared floor raises them
    /// too.
    pub(crate) floors: BTreeMap<Address, u64>,
    /// The shared floor of all other addresses.
    others: u64,
    pub(crate) finished: BTreeMap<Address, u64>,
    epoch: Option<Epoch>,
}

impl Copy {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            events: BTreeMap::new(),
            floors: BTreeMap::new(),
            others: 1,
            finished: BTreeMap::new(),
            epoch: None,
        }
    }

    fn floor_of(&self, address: &Address) -> u64 {
        self.floors.get(address).copied().unwrap_or(self.others)
    }

    /// Applies all chunks that a feed has. Returns `None` if the feed has ended.
    pub(crate) fn apply_all(&mut self, feed: &mut Feed<Load>) -> Option<()> {
        loop {
            let chunk = feed.read(clock()).expect("the store is readable")?;
            let is_last = feed.next() == feed.tail();
            self.apply(chunk);
            if is_last {
                return Some(());
            }
        }
    }

    pub(crate) fn apply(&mut self, chunk: FeedChunk) {
        let FeedChunk { floors, others, events, next, .. } = chunk;
        let listed: BTreeSet<Address> = floors.iter().map(|(address, _)| address.clone()).collect();
        for (address, floor) in floors {
            let own = self.floor_of(&address).max(floor.offset.get());
            self.floors.insert(address, own);
        }
        let unlisted = self.floors.iter_mut().filter(|(address, _)| !listed.contains(address));
        unlisted.for_each(|(_, floor)| *floor = others.offset.get().max(*floor));
        self.others = self.others.max(others.offset.get());
        self.floors.retain(|_, floor| *floor > 1);
        let mut last = self.next.saturating_sub(1);
        for StoredEvent { offset, to, finish, payload, .. } in events {
            let offset = offset.get();
            assert!(offset > last || last == 0, "{offset} must be above {last}");
            last = offset;
            if finish {
                self.finished.extend(to.iter().cloned().map(|address| (address, offset)));
            }
            if payload.is_some() {
                let kept: Vec<_> =
                    to.into_iter().filter(|address| offset >= self.floor_of(address)).collect();
                if !kept.is_empty() {
                    self.events.insert(offset, kept);
                }
            }
        }
        assert!(next.get() >= self.next, "the position must not go back");
        self.next = next.get();
    }
}
