//! What can be seen of a hub from outside: its topics and its clients.

use std::cmp::Reverse;

use downlink_log::{Address, Offset};
use downlink_proto::EventId;

use super::{ClientId, ClientOverview, Hub, InvalidName, Topic, record::cursor_id};

/// One topic.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TopicOverview {
    /// Its name.
    pub topic: String,
    /// Subscriptions that named it, and those of each pattern that matches it. One that has several
    /// of these counts for each.
    pub subscribers: usize,
    /// Events kept.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Events published since the topic came into being. It counts from 0 again after the topic was
    /// forgotten. A topic is forgotten when it keeps nothing and no subscription names it.
    pub published: u64,
    /// The hub's id of the oldest event kept.
    pub oldest: Option<EventId>,
    /// The id after which a subscription misses nothing from now on.
    pub cursor: EventId,
    /// Whether it is finished.
    pub finished: bool,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// One topic, also if nothing was ever published to it. A page can render from a database and
    /// then start after `cursor`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if it is not a topic.
    pub fn topic_overview(&self, topic: impl AsRef<str>) -> Result<TopicOverview, InvalidName> {
        let topic = Topic::new(topic.as_ref())?;
        // Taken before the look, so events that are published in between are after the cursor.
        let cursor = self.cursor();
        let found = self.0.log.topic(self.now(), &Address::Topic(topic.clone()));
        Ok(self.overview(&topic, found.as_ref(), cursor))
    }

    /// At most `count` topics whose name begins with `prefix`, by name, after `after`.
    pub fn topic_overviews(
        &self,
        prefix: &str,
        after: Option<&Topic>,
        count: usize,
    ) -> Vec<TopicOverview> {
        let cursor = self.cursor();
        let found = self.0.log.topics(self.now(), prefix, after, count);
        let topics = found.iter().filter_map(|found| {
            let topic = found.address.topic()?;
            Some(self.overview(topic, Some(found), cursor.clone()))
        });
        topics.collect()
    }

    /// At most `count` subscriptions, the one furthest behind first.
    pub fn client_overviews(&self, count: usize) -> Vec<ClientOverview> {
        let mut clients = self.0.log.readers();
        let key = |client: &ClientOverview| (Reverse(client.lag), client.number);
        // There may be a million clients. A caller that shows a hundred must not wait until all are
        // sorted.
        if count < clients.len() {
            clients.select_nth_unstable_by_key(count, key);
            clients.truncate(count);
        }
        clients.sort_unstable_by_key(key);
        clients
    }

    /// How many subscriptions a client has.
    pub fn subscribers_of(&self, client: &str) -> usize {
        ClientId::new(client).map_or(0, |client| self.0.log.subscribers_of(&client))
    }

    fn overview(
        &self,
        topic: &Topic,
        found: Option<&downlink_log::TopicOverview>,
        cursor: EventId,
    ) -> TopicOverview {
        // The id has the epoch in which the event was published.
        let id = |offset: Offset| cursor_id(self.0.log.id_of(offset));
        let size = |of: fn(&downlink_log::TopicOverview) -> usize| found.map_or(0, of);
        TopicOverview {
            topic: topic.as_str().to_owned(),
            subscribers: size(|found| found.subscribers),
            events: size(|found| found.events),
            bytes: size(|found| found.bytes),
            published: found.map_or(0, |found| found.published),
            oldest: found.and_then(|found| found.oldest).map(id),
            cursor,
            finished: found.is_some_and(|found| found.finished),
        }
    }
}
