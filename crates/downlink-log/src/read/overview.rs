//! Overviews of a log: its totals, its topics and its readers.
//!
//! Each number was right at some moment during the call, but the numbers of one overview may come
//! from different moments.

use std::{ops::Bound, sync::Arc};

use crate::commit::{Refusals, StoreTotals};
use crate::core::Core;
use crate::readers::{ReaderOverview, ReaderState};
use crate::topics::{Topic, start_of};
use crate::types::address::Topic as TopicName;
use crate::types::{Address, Offset, Payload, Timestamp};

/// The totals of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// The number of readers.
    pub subscribers: usize,
    /// The number of topics and clients' inboxes that exist. A topic exists while it has events, is
    /// finished, or is named by a reader.
    pub topics: usize,
    /// The number of kept events. An event of several topics counts once for each of them.
    pub events: usize,
    /// The number of kept bytes.
    pub bytes: usize,
    /// The number of events published since this log was opened. A publish that has no event and
    /// only finishes topics does not count.
    pub published: u64,
    /// The numbers of publishes that were refused because of the store, one for each reason.
    pub refusals: Refusals,
    /// The numbers of the store. `None` if the log has no store.
    pub store: Option<StoreTotals>,
}

/// The upper bounds of the buckets of [`Lags`], in events, in ascending order.
pub const LAG_EVENTS: [u64; 7] = [0, 1, 10, 100, 1_000, 10_000, 100_000];

/// The lags of all readers as a histogram. See [`ReaderOverview::lag`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lags {
    /// The lag of the reader that is furthest behind.
    pub max: u64,
    /// The sum of all lags.
    pub sum: u64,
    /// The number of readers in each bucket of [`LAG_EVENTS`], and then the number of readers with
    /// a larger lag.
    pub counts: [u64; LAG_EVENTS.len() + 1],
}

impl Lags {
    fn note(&mut self, lag: u64) {
        self.max = self.max.max(lag);
        self.sum = self.sum.saturating_add(lag);
        let bucket = LAG_EVENTS.iter().take_while(|bound| lag > **bound).count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }
}

/// An overview of one topic or inbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicOverview {
    /// The topic's address.
    pub address: Address,
    /// The number of readers that named the topic, plus the number of readers of each pattern that
    /// matches it. A reader that has several of these selectors counts once for each of them.
    pub subscribers: usize,
    /// The number of kept events.
    pub events: usize,
    /// The number of kept bytes.
    pub bytes: usize,
    /// The number of events published since the topic was created in memory. A topic that nothing
    /// uses is removed from memory. When it is created again, this number starts at 0.
    pub published: u64,
    /// The offset of the oldest kept event.
    pub oldest: Option<Offset>,
    /// The offset of the newest kept event.
    pub newest: Option<Offset>,
    /// Whether the topic is finished.
    pub finished: bool,
}

impl<P: Payload> Core<P> {
    pub(crate) fn totals(&self) -> Totals {
        let (topics, subscribers) = self.history.topics.len();
        let (events, bytes) = self.history.sizes();
        let published = self.history.published();
        let (refusals, store) = (Refusals::default(), None);
        Totals { subscribers, topics, events, bytes, published, refusals, store }
    }

    pub(crate) fn topic(&self, address: &Address) -> Option<TopicOverview> {
        let topic = self.history.topics.find(address)?;
        Some(self.overview(&topic))
    }

    pub(crate) fn list_topics(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        count: usize,
    ) -> Vec<TopicOverview> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => {
                Bound::Excluded(Address::Topic(after.clone()))
            }
            _ => start_of(prefix),
        };
        let listed = self.history.topics.list(prefix, &from, count);
        listed.found.iter().map(|topic| self.overview(topic)).collect()
    }

    pub(crate) fn readers(&self, now: Timestamp) -> Vec<ReaderOverview> {
        let mut overviews = Vec::new();
        self.each_reader(|reader| overviews.push(reader.overview(now)));
        overviews
    }

    pub(crate) fn lags(&self) -> Lags {
        let mut lags = Lags::default();
        self.each_reader(|reader| lags.note(reader.lag()));
        lags
    }

    /// Calls `see` with each reader. The list of readers is locked only for one batch,
    /// so that readers can come and leave between two batches.
    fn each_reader(&self, mut see: impl FnMut(&ReaderState)) {
        let mut from = Some(0);
        while let Some(start) = from {
            let readers = self.history.topics.everyone.readers.lock();
            let (batch, next) = readers.batch(start);
            from = next;
            batch.iter().flatten().for_each(|reader| see(reader));
        }
    }

    fn overview(&self, topic: &Arc<Topic<P>>) -> TopicOverview {
        let matching = self.history.patterns.hold().matching(topic);
        let by_pattern: usize = matching.iter().map(|pattern| pattern.readers.lock().len()).sum();
        let subscribers = topic.readers.lock().len() + by_pattern;
        let ring = topic.ring.read();
        TopicOverview {
            address: topic.address.clone(),
            subscribers,
            events: ring.len(),
            bytes: ring.bytes(),
            published: ring.pushed(),
            oldest: ring.front().map(|entry| Offset::new(entry.offset)),
            newest: ring.newest_first().next().map(Offset::new),
            finished: ring.finish().is_some(),
        }
    }
}
