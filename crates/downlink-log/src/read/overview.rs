//! What can be seen of a log from outside: totals, topics, readers.
//!
//! Every number is right at some moment during the call; together they need not be.

use std::sync::Arc;

use crate::{
    address::{Address, ClientId, Topic},
    log::{Log, Payload},
    offset::{Offset, Timestamp},
    reader::lag,
    sync::Ordering,
    topic::TopicLog,
};

/// Sizes of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Readers there are.
    pub subscribers: usize,
    /// Topics there are, clients' inboxes among them.
    pub topics: usize,
    /// Events kept; one that is in several topics counts in each.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
}

/// One topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicOverview {
    /// Its address.
    pub address: Address,
    /// Readers attached, by name or by pattern.
    pub subscribers: usize,
    /// Events kept.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Events published since the topic came into being; it does so anew after it was collected.
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
pub struct ReaderOverview {
    /// Unique among the readers of a log.
    pub number: u64,
    /// Whose inbox it reads.
    pub client: Option<ClientId>,
    /// The next offset to read.
    pub next: Offset,
    /// How far it is behind.
    pub lag: u64,
    /// Topics attached, the inbox and everyone's not counted.
    pub topics: usize,
}

impl<P: Payload> Log<P> {
    /// The sizes now.
    pub fn totals(&self, now: Timestamp) -> Totals {
        self.0.expire(now);
        let registry = self.0.registry.read();
        Totals {
            subscribers: registry.readers,
            topics: registry.topics_len(),
            events: self.0.events.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
        }
    }

    /// What there is at one address; `None` if nothing was published there and nobody reads it.
    pub fn topic(&self, now: Timestamp, address: &Address) -> Option<TopicOverview> {
        self.0.expire(now);
        let topic = self.0.registry.read().find(address)?;
        Some(overview(&topic))
    }

    /// At most `count` topics whose name begins with `prefix`, by name, after `after`.
    pub fn topics(
        &self,
        now: Timestamp,
        prefix: &str,
        after: Option<&Topic>,
        count: usize,
    ) -> Vec<TopicOverview> {
        self.0.expire(now);
        let registry = self.0.registry.read();
        let topics: Vec<_> =
            registry.topics_with_prefix(prefix, after).take(count).cloned().collect();
        drop(registry);
        topics.iter().map(overview).collect()
    }

    /// How many readers one client has.
    pub fn subscribers_of(&self, client: &ClientId) -> usize {
        let inbox = self.0.registry.read().find(&Address::Client(client.clone()));
        inbox.map_or(0, |inbox| inbox.watchers.lock().len())
    }

    /// Every reader.
    pub fn readers(&self) -> Vec<ReaderOverview> {
        let readers: Vec<_> = self.0.everyone.watchers.lock().iter().cloned().collect();
        let overviews = readers.iter().map(|reader| {
            let attached = reader.attached.lock();
            let next = reader.next.load(Ordering::Relaxed).min(self.0.tail());
            let named = attached.iter().filter(|seat| seat.topic.address.topic().is_some());
            ReaderOverview {
                number: reader.number,
                client: reader.client().cloned(),
                next: Offset::new(next),
                lag: lag(&attached, next),
                topics: named.count(),
            }
        });
        overviews.collect()
    }
}

fn overview<P: Payload>(topic: &Arc<TopicLog<P>>) -> TopicOverview {
    let subscribers = topic.watchers.lock().len();
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
