//! Clients hop between a log and its replica, which is a copy of the log. The replica gets the
//! events in random chunks. Each chunk has the floors of the model: for each address, the offset
//! below which its events were evicted. The replica also begins again at random, and has a cache in
//! some runs.
//!
//! The log itself is compared with the model, as in the other runs. Across all connections of a
//! client, to the log or to the replica, every event must be delivered once or lie in a gap.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    future::poll_fn,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    task::{Poll, Waker},
};

use downlink_log::{
    Applied, Applier, ClockState, Cursor, Floor, FollowerTask, Log, LogOptions, Offset, Read,
    Reader, Start, StoreOptions, Stored,
    store::{Cache, FeedChunk, FeedStart, Marks},
};
use downlink_sqlite::{SqliteCache, SqliteOptions};
use proptest::prelude::*;

use crate::program::{self, Op, limits, retention};
use crate::support::block_on;
use crate::{ALL, Load, World, epoch};

/// An operation on the log or on the replica.
#[derive(Clone, Debug)]
enum RelayOp {
    Upstream(Op),
    /// Feeds the events of at most this many offsets. If `unlisted` is above 1, the chunk leaves
    /// out the floors of the addresses whose number is a multiple of `unlisted`. Instead, the chunk
    /// has one floor for all of them: the highest of the floors that it leaves out.
    Feed {
        offsets: u64,
        unlisted: usize,
    },
    /// If the replica asks for the end of the log, answers with the log's tail.
    Confirm,
    /// The upstream has another history, so the replica begins again. The epoch stays the same, so
    /// the ids of the clients stay valid.
    Restart,
    /// The process of the replica ends and starts again.
    Reopen,
    /// Connects a client to the replica.
    Connect {
        client: u8,
    },
    Drop {
        client: u8,
    },
    Read {
        client: u8,
        events_max: usize,
    },
    SetRetention {
        rules: u8,
    },
}

fn relay_op() -> impl Strategy<Value = RelayOp> {
    prop_oneof![
        8 => program::op().prop_map(RelayOp::Upstream),
        4 => (1..8u64, 0..4usize).prop_map(|(offsets, unlisted)| RelayOp::Feed { offsets, unlisted }),
        1 => Just(RelayOp::Confirm),
        1 => Just(RelayOp::Restart),
        1 => Just(RelayOp::Reopen),
        4 => (0..8u8).prop_map(|client| RelayOp::Connect { client }),
        2 => (0..8u8).prop_map(|client| RelayOp::Drop { client }),
        6 => (0..8u8, 1..6usize).prop_map(|(client, events_max)| RelayOp::Read { client, events_max }),
        1 => (0..4u8).prop_map(|rules| RelayOp::SetRetention { rules }),
    ]
}

/// The folder of a cache.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("model-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Relay {
    world: World,
    log: Log<Load>,
    applier: Applier<Load>,
    /// The next offset to feed.
    fed: u64,
    readers: BTreeMap<u8, Reader<Load>>,
    folder: Option<Folder>,
}

fn make(folder: Option<&Folder>) -> (Log<Load>, Applier<Load>) {
    let mut options = LogOptions::new(epoch());
    options.limits = limits();
    options.retention = retention(0);
    let decode =
        |stored: Stored| Some(Load { bytes: stored.payload.len(), id: stored.publisher_id });
    let side = StoreOptions::new(decode, ClockState::default);
    let cache = folder.map(|folder| {
        let mut settings = SqliteOptions::default();
        settings.retention = retention(2);
        let cache = SqliteCache::open(&folder.0.join("cache.db"), settings).expect("a cache");
        Box::new(cache) as Box<dyn Cache>
    });
    Log::replica(options, side, cache).expect("a replica")
}

impl Relay {
    fn new(has_cache: bool, has_crowd: bool) -> Self {
        let folder = has_cache.then(Folder::new);
        let (log, applier) = make(folder.as_ref());
        let mut relay = Self {
            world: World::new(has_crowd),
            log,
            applier,
            fed: 1,
            readers: BTreeMap::new(),
            folder,
        };
        relay.begin(false);
        relay
    }

    /// Begins a feed at the position of the replica, or at the first offset.
    fn begin(&mut self, resumed: bool) {
        let from =
            if resumed { self.applier.position().map(|position| position.next) } else { None };
        let from = from.unwrap_or(Offset::FIRST);
        let epochs = vec![(epoch(), Offset::FIRST)];
        self.applier.begin(FeedStart { epochs, from, resumed });
        self.fed = from.get();
    }

    fn run(&mut self, op: &RelayOp) {
        match op {
            RelayOp::Upstream(Op::Connect { client, .. }) if self.readers.contains_key(client) => {}
            RelayOp::Upstream(op) => self.world.run(op),
            RelayOp::Feed { offsets, unlisted } => self.feed(*offsets, *unlisted),
            RelayOp::Confirm => self.confirm(),
            RelayOp::Restart => self.begin(false),
            RelayOp::Reopen => self.reopen(),
            RelayOp::Connect { client } => self.connect(*client),
            RelayOp::Drop { client } => drop(self.readers.remove(client)),
            RelayOp::Read { client, events_max } => drop(self.read(*client, *events_max)),
            RelayOp::SetRetention { rules } => {
                self.log.set_retention(self.world.now(), retention(*rules));
            }
        }
    }

    fn reopen(&mut self) {
        if self.folder.is_none() {
            return;
        }
        self.readers.clear();
        // The file must be released before it can be opened again.
        let (log, applier) = make(None);
        (self.log, self.applier) = (log, applier);
        (self.log, self.applier) = make(self.folder.as_ref());
        let resumed = self.applier.position().is_some();
        self.begin(resumed);
    }

    fn feed(&mut self, offsets: u64, unlisted: usize) {
        let tail = self.world.log.tail().next.get();
        let next = (self.fed + offsets).min(tail);
        let (events, floors) = self.world.naive.feed(self.fed..next);
        let mut others = Floor::NONE;
        let mut listed = Vec::new();
        for (number, (address, floor)) in floors.into_iter().enumerate() {
            if unlisted > 1 && number % unlisted == 0 {
                others = others.max(floor);
            } else {
                listed.push((address, floor));
            }
        }
        let clock = ClockState { at: self.world.now(), delta_ms: 0 };
        let (next, marks) = (Offset::new(next), Marks::default());
        let chunk = FeedChunk { floors: listed, others, events, next, clock, marks, node: None };
        assert_eq!(self.applier.apply(chunk), Applied::Next);
        self.fed = next.get();
        let _ = self.applier.idle(self.world.now());
    }

    fn confirm(&mut self) {
        let follower = self.applier.follower();
        if let Poll::Ready(task) = follower.poll_task(Waker::noop()) {
            let FollowerTask::AskForEnd(question) = task else { panic!("the log is open") };
            follower.confirm(question, self.world.log.tail());
        }
    }

    /// Feeds everything, and answers when the replica asks for the end of the log.
    fn catch_up(&mut self) {
        self.feed(u64::MAX / 2, 0);
        self.confirm();
        self.confirm();
    }

    /// Waits until a reader has begun. The reader may look for its id in the cache first, and wait
    /// for the answer of the upstream after that.
    fn begin_reading(&mut self, reader: &mut Reader<Load>) {
        self.catch_up();
        let begun = block_on(poll_fn(|task| {
            let begun = reader.poll_begun(task.waker());
            if begun.is_pending() {
                self.confirm();
            }
            begun
        }));
        begun.expect("the cache is readable");
    }

    fn connect(&mut self, id: u8) {
        let client = self.world.clients.get(&id);
        let is_connected = client.is_some_and(|client| client.reader.is_some());
        if is_connected || self.readers.contains_key(&id) {
            return;
        }
        let last_id = client.and_then(|client| client.last_id.clone());
        let is_new = last_id.is_none();
        let start = last_id.map_or(Start::Live, |last| Start::After(last.into()));
        let selection = program::selection(id);
        let Ok(mut reader) = self.log.open(self.world.now(), &selection, &start) else { return };
        if is_new {
            self.begin_reading(&mut reader);
            let next = reader.cursor().next.get();
            let wanted = self.world.naive.published_from(&selection, next);
            let client =
                self.world.clients.entry(id).or_insert_with(|| crate::Client::new(selection));
            client.last_id = Some(reader.cursor().to_string());
            client.wanted.extend(wanted);
        }
        self.readers.insert(id, reader);
    }

    /// Reads once. Returns `None` if the client is not connected to the replica any more, or has
    /// caught up.
    fn read(&mut self, id: u8, events_max: usize) -> Option<()> {
        let mut reader = self.readers.remove(&id)?;
        if reader.poll_begun(Waker::noop()).is_pending() {
            self.begin_reading(&mut reader);
        }
        let (now, batch) = (self.world.now(), downlink_log::Batch { events_max, ..ALL });
        let mut out = Vec::new();
        let read = block_on(poll_fn(|task| {
            reader.register(task.waker());
            match reader.read(now, batch, &mut out) {
                Read::Fetching => Poll::Pending,
                read => Poll::Ready(read),
            }
        }));
        let offsets: Vec<u64> = out.iter().map(|entry| entry.offset.get()).collect();
        let known: HashSet<Cursor> =
            offsets.iter().map(|at| reader.id_of(Offset::new(*at))).collect();
        assert!(known.iter().all(|id| id.epoch == epoch()));
        let client = self.world.clients.get_mut(&id)?;
        client.note(&read, &offsets);
        match read {
            Read::Ended(_) => None,
            read => {
                self.readers.insert(id, reader);
                (read != Read::CaughtUp).then_some(())
            }
        }
    }

    /// Lets all clients read to the end of the replica, and then of the log.
    fn settle(&mut self) {
        self.catch_up();
        let ids: Vec<u8> = self.world.clients.keys().copied().collect();
        for id in ids {
            self.readers.remove(&id);
            self.world.drop_connection(id);
            self.connect(id);
            if !self.readers.contains_key(&id) {
                continue; // The replica has refused the reader.
            }
            while self.read(id, usize::MAX).is_some() {}
            self.world.clients[&id].check_conservation();
            self.readers.remove(&id);
        }
        self.world.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clients_that_hop_get_each_event_once_or_in_a_gap(
        has_cache in prop::bool::weighted(0.3),
        has_crowd: bool,
        ops in prop::collection::vec(relay_op(), 1..150),
    ) {
        let mut relay = Relay::new(has_cache, has_crowd);
        for op in &ops {
            relay.run(op);
        }
        relay.settle();
    }
}

/// The replica begins again while a reader waits for the cache. The reader must end, and must not
/// report that the cache cannot be read.
#[test]
fn a_reader_that_waits_for_the_cache_ends_when_the_replica_begins_again() {
    for _ in 0..20 {
        let mut relay = Relay::new(true, false);
        let append = Op::Append {
            targets: vec![program::Target::Everyone],
            bytes: 0,
            id: None,
            finish: false,
        };
        let ops = [RelayOp::Upstream(append), RelayOp::Connect { client: 5 }, RelayOp::Reopen];
        let again = [RelayOp::Restart, RelayOp::Connect { client: 5 }, RelayOp::Restart];
        // When the other client connects, the replica reaches the end of the new history.
        let other = RelayOp::Connect { client: 0 };
        let read = RelayOp::Read { client: 5, events_max: 1 };
        ops.iter().chain(&again).chain([&other, &read]).for_each(|op| relay.run(op));
        relay.settle();
    }
}
