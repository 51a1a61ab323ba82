//! The feed of a hub: its log as another hub gets it.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    task::{Poll, Waker},
};

use downlink_log::{
    Behind, Cursor, Feed, Offset,
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

    /// The next chunk, and the tail of the log when the chunk was made. `None` if the feed has
    /// ended. The call may wait for the disk.
    pub(crate) fn read(&mut self) -> Result<Option<(FeedChunk, Offset)>, StoreError> {
        let chunk = self.feed.read(self.clock.state())?;
        Ok(chunk.map(|chunk| (chunk, self.feed.tail())))
    }

    /// Like [`read`](Self::read), but never waits for the disk.
    pub(crate) fn try_read(&mut self) -> Result<Option<(FeedChunk, Offset)>, Behind> {
        let chunk = self.feed.try_read(self.clock.state())?;
        Ok(chunk.map(|chunk| (chunk, self.feed.tail())))
    }
}
