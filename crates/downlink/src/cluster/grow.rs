//! Grows a cluster from a single server: copies the events of the server's store into the cache of
//! the first node. A node is a hub that is part of a cluster.

use downlink_cluster::{Base, History, HubKey, Snapshot};
use downlink_log::{
    POSITION_OFFSETS,
    store::{FeedChunk, FeedStart, Marks, NodeState},
};

use crate::hub::{HubBuilder, HubError, HubStore, Limits, Retention};

/// Copies the events of a single server into a new cache, and returns the snapshot with which the
/// hub of the cluster begins. With this cache as its store, a node has the old events under their
/// old ids. Nodes without this cache give a gap to clients with old ids.
///
/// `store` is the store of the server, which must not run. `cache` is a file that does not exist.
/// `builder` makes a builder with the encoding of the server, and is called twice. The retention
/// rules of the builder are not used, so all events are copied. The call takes some seconds for a
/// million events.
///
/// # Errors
///
/// [`HubError`] if one of the files cannot be used, or if the cache cannot be written.
pub fn grow<T: Send + Sync + 'static>(
    store: HubStore,
    cache: HubStore,
    builder: impl Fn() -> HubBuilder<T>,
) -> Result<Snapshot, HubError> {
    let unlimited = Retention { events_max: usize::MAX, bytes_max: usize::MAX, age_max: None };
    let old = builder().retention(unlimited).store(store).build()?;
    let mut feed = old.open_feed(None);
    let FeedStart { epochs, from, .. } = feed.start().clone();
    let (_log, mut applier) = builder()
        .retention(unlimited)
        .limits(Limits { bytes_max: CACHE_BYTES, ..Limits::default() })
        .store(cache)
        .build_cache()?;
    applier.begin(FeedStart { epochs: epochs.clone(), from, resumed: false });
    let end = old.log_end();
    let mut next = from;
    while next < end {
        let read = feed.read().map_err(|error| HubError::Cluster(error.to_string()))?;
        let ended = || HubError::Cluster("the store could not be read to its end".to_owned());
        let (chunk, _) = read.ok_or_else(ended)?;
        next = chunk.next;
        check(applier.apply_here(chunk))?;
    }
    let base = Base::above(end);
    // The cluster takes over the server's key for fingerprints. A publisher may repeat, under the
    // same id, an event that the server has already accepted. With this key, a node recognizes it.
    let key = HubKey::from_random(old.fingerprint_key());
    let snapshot = Snapshot { key, base, epochs, forks: Vec::new() };
    let state = History::before_first_entry(&snapshot).state();
    let first = base.offset(downlink_cluster::Position::FIRST, 0);
    check(applier.apply_here(FeedChunk {
        floors: Vec::new(),
        others: downlink_log::Floor::NONE,
        events: Vec::new(),
        next: first,
        clock: applier.clock(),
        marks: Marks { base: first.get() - POSITION_OFFSETS, first: 1, marks: Vec::new() },
        node: Some(NodeState { hub: Some(state), links: Vec::new() }),
    }))?;
    old.close();
    Ok(snapshot)
}

/// The maximum size of the events in memory. It may be small, because the file has all events.
const CACHE_BYTES: usize = 16 << 20;

fn check(is_written: bool) -> Result<(), HubError> {
    let failed = || HubError::Cluster("the cache cannot be written".to_owned());
    is_written.then_some(()).ok_or_else(failed)
}
