//! What can be seen of a hub from outside: its topics and its clients.

use downlink_log::{Address, Offset};
use downlink_proto::EventId;

use super::{ClientId, Hub, InvalidName, Topic, record::cursor_id};

/// One topic.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TopicOverview {
    /// Its name.
    pub topic: String,
    /// Subscriptions that named it, and those of each pattern that matches it. One that has several of
    /// these counts for each.
    pub subscribers: usize,
    /// Events kept.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Events published since the topic came into being. It counts from 0 again after the topic was
    /// forgotten, which it is when it keeps nothing and nobody asked for it by name.
    pub published: u64,
    /// The hub's id of the oldest event kept.
    pub oldest: Option<EventId>,
    /// The id after which a subscription misses nothing from now on.
    pub cursor: EventId,
    /// Whether it is finished.
    pub finished: bool,
}

/// One subscription, with its client.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClientOverview {
    /// Unique among the subscriptions of a hub.
    pub number: u64,
    /// Whose it is.
    pub client: Option<ClientId>,
    /// How far it is behind.
    pub lag: u64,
    /// Topics and patterns that it subscribed to.
    pub topics: usize,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// One topic, also if nothing was ever published to it: a page renders from a database and
    /// starts after `cursor`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if it is not a topic.
    pub fn topic(&self, topic: &str) -> Result<TopicOverview, InvalidName> {
        let topic = Topic::new(topic)?;
        // Before the look: what is published in between is after the cursor.
        let cursor = self.cursor();
        let found = self.0.log.topic(self.now(), &Address::Topic(topic.clone()));
        Ok(match found {
            Some(found) => self.overview(&topic, &found, cursor),
            None => TopicOverview {
                topic: topic.as_str().to_owned(),
                subscribers: 0,
                events: 0,
                bytes: 0,
                published: 0,
                oldest: None,
                cursor,
                finished: false,
            },
        })
    }

    /// At most `count` topics whose name begins with `prefix`, by name, after `after`.
    pub fn topics(&self, prefix: &str, after: Option<&Topic>, count: usize) -> Vec<TopicOverview> {
        let cursor = self.cursor();
        let found = self.0.log.topics(self.now(), prefix, after, count);
        let topics = found.iter().filter_map(|found| {
            let topic = found.address.topic()?;
            Some(self.overview(topic, found, cursor.clone()))
        });
        topics.collect()
    }

    /// Every subscription, the one furthest behind first.
    pub fn clients(&self) -> Vec<ClientOverview> {
        let readers = self.0.log.readers();
        let mut clients: Vec<_> = readers
            .into_iter()
            .map(|reader| ClientOverview {
                number: reader.number,
                client: reader.client,
                lag: reader.lag,
                topics: reader.selectors,
            })
            .collect();
        clients.sort_by_key(|client| (std::cmp::Reverse(client.lag), client.number));
        clients
    }

    /// How many subscriptions a client has.
    pub fn subscribers_of(&self, client: &str) -> usize {
        ClientId::new(client).map_or(0, |client| self.0.log.subscribers_of(&client))
    }

    fn overview(
        &self,
        topic: &Topic,
        found: &downlink_log::TopicOverview,
        cursor: EventId,
    ) -> TopicOverview {
        // Of the life of the hub that it was published in.
        let id = |offset: Offset| cursor_id(self.0.log.id_of(offset));
        TopicOverview {
            topic: topic.as_str().to_owned(),
            subscribers: found.subscribers,
            events: found.events,
            bytes: found.bytes,
            published: found.published,
            oldest: found.oldest.map(id),
            cursor,
            finished: found.finished,
        }
    }
}
