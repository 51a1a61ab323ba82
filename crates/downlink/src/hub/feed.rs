//! The feed of a hub: its log as another hub gets it.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    task::{Poll, Waker},
};

use downlink_log::{
    Cursor, Feed, Offset,
    store::{FeedChunk, FeedStart, StoreError},
};

use super::{Hub, HubClock, record::Record, stored};

/// A feed of a hub's log.
pub(crate) struct HubFeed<T: Send + Sync + 'static> {
    feed: Feed<Record<T>>,
    clock: HubClock,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Opens a feed that continues at this position, or begins anew.
    pub(crate) fn open_feed(&self, position: Option<Cursor>) -> HubFeed<T> {
        let feed = self.0.log.feed(position, stored::body_of);
        HubFeed { feed, clock: self.0.clock.clone() }
    }

    /// The number of open feeds.
    pub(crate) fn open_feeds(&self) -> &Arc<AtomicUsize> {
        &self.0.feeds
    }
}

impl<T: Send + Sync + 'static> HubFeed<T> {
    pub(crate) fn start(&self) -> &FeedStart {
        self.feed.start()
    }

    pub(crate) fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        self.feed.poll_ready(waker)
    }

    /// Whether [`read`](Self::read) takes long or waits for the disk.
    pub(crate) fn is_behind(&self) -> bool {
        self.feed.is_behind()
    }

    /// The next chunk, and the tail of the log when the chunk was made. `None` if the feed has
    /// ended.
    pub(crate) fn read(&mut self) -> Result<Option<(FeedChunk, Offset)>, StoreError> {
        let chunk = self.feed.read(self.clock.state())?;
        Ok(chunk.map(|chunk| (chunk, self.feed.tail())))
    }
}
