//! What can be seen of a log from outside: totals, topics, readers.
//!
//! Each number was right at some moment during the call, but perhaps not all at the same moment.

use std::{ops::Bound, sync::Arc};

use crate::commit::Refusals;
use crate::core::Core;
use crate::readers::WAKE_BATCH;
use crate::topics::{Topic, start_of};
use crate::types::address::Topic as TopicName;
use crate::types::{Address, ClientId, Offset, Payload};

/// Sizes of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Readers.
    pub subscribers: usize,
    /// Topics and clients' inboxes that exist: with events, finished, or named by a reader.
    pub topics: usize,
    /// Events kept; one that is in several topics counts in each.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Events published since the log began; finish marks are none.
    pub published: u64,
    /// Publishes that were refused because of the store.
    pub refusals: Refusals,
}

/// One topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicOverview {
    /// Its address.
    pub address: Address,
    /// Readers that named it, and readers of each pattern that matches it. A reader of several of
    /// these counts for each.
    pub subscribers: usize,
    /// Events kept.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Events published since the topic was made; it is made anew after it was collected.
    pub published: u64,
    /// The oldest retained offset.
    pub oldest: Option<Offset>,
    /// The newest retained offset.
    pub newest: Option<Offset>,
    /// Whether it is finished.
    pub finished: bool,
}

/// One reader.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ReaderOverview {
    /// Unique among the readers of a log.
    pub number: u64,
    /// The client whose inbox it reads.
    pub client: Option<ClientId>,
    /// How far it is behind.
    pub lag: u64,
    /// Topics and patterns that it subscribed to.
    pub selectors: usize,
}

impl<P: Payload> Core<P> {
    pub(crate) fn totals(&self) -> Totals {
        let (topics, subscribers) = self.history.topics.len();
        let (events, bytes) = self.history.sizes();
        let published = self.history.published();
        Totals { subscribers, topics, events, bytes, published, refusals: Refusals::default() }
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

    pub(crate) fn readers(&self) -> Vec<ReaderOverview> {
        let (mut overviews, mut from) = (Vec::new(), Some(0));
        // The list is locked for one batch at a time, so that readers can come and leave.
        while let Some(start) = from {
            overviews.reserve(WAKE_BATCH);
            let tail = self.history.tail();
            let readers = self.history.topics.everyone.readers.lock();
            let (batch, next) = readers.batch(start);
            from = next;
            overviews.extend(batch.iter().flatten().map(|reader| ReaderOverview {
                number: reader.number,
                client: reader.client.clone(),
                lag: reader.lag(tail),
                selectors: reader.selectors as usize,
            }));
        }
        overviews
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
