//! Overviews of a hub for pages and monitoring: its topics and its clients.

use std::cmp::Reverse;

use downlink_log::{Address, Offset};
use downlink_proto::EventId;

use super::{ClientId, ClientOverview, Hub, InvalidName, Topic, record::cursor_id};

/// The current state of one topic.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TopicOverview {
    /// The name of the topic.
    pub topic: String,
    /// The number of subscriptions that read the topic, by its name or by a pattern. If a
    /// subscription selects the topic in several ways, such as by its name and by a pattern, it
    /// counts several times.
    pub subscribers: usize,
    /// The number of retained events.
    pub events: usize,
    /// The size of the retained events in bytes.
    pub bytes: usize,
    /// The number of events published since the topic was created. The hub forgets a topic that
    /// keeps no events and that no subscription names. If the topic is created again, the number
    /// starts from 0.
    pub published: u64,
    /// The id that the hub gave to the oldest retained event. If the publisher also gave the event
    /// an id, clients see that id instead.
    pub oldest: Option<EventId>,
    /// A subscription that resumes after this id misses no event that is published from now on.
    pub cursor: EventId,
    /// Whether the topic is finished.
    pub finished: bool,
}

/// The order of subscriptions in [`Hub::client_overviews_by`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientOrder {
    /// The subscription that is furthest behind comes first.
    #[default]
    Lag,
    /// The oldest subscription comes first.
    Age,
    /// The subscription that has read the most bytes comes first.
    Bytes,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// The current state of one topic, even if nothing was ever published to it. An app can call
    /// this before it renders a page from a database. If the page then subscribes after `cursor`,
    /// it misses no event.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if `topic` is not a valid topic.
    pub fn topic_overview(&self, topic: impl AsRef<str>) -> Result<TopicOverview, InvalidName> {
        let topic = Topic::new(topic.as_ref())?;
        // The cursor must be read before the log. If an event is published between the two reads,
        // its id is later than the cursor, so a subscription that resumes after the cursor gets it.
        let cursor = self.cursor();
        let found = self.0.log.topic(self.now(), &Address::Topic(topic.clone()));
        Ok(self.overview(&topic, found.as_ref(), cursor))
    }

    /// Returns at most `count` topics whose names begin with `prefix`, in the order of their names.
    /// If `after` is given, the result contains only names that come after it in this order.
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

    /// Returns at most `count` subscriptions. The subscription that is furthest behind comes first.
    pub fn client_overviews(&self, count: usize) -> Vec<ClientOverview> {
        self.client_overviews_by(ClientOrder::Lag, count)
    }

    /// Returns at most `count` subscriptions in this order. The call reads all subscriptions, which
    /// takes about 0.2 ms for a thousand. It locks their list for a few microseconds at a time.
    /// With many subscriptions, call it in a thread that may block.
    pub fn client_overviews_by(&self, order: ClientOrder, count: usize) -> Vec<ClientOverview> {
        let mut clients = self.0.log.readers(self.now());
        let key = |client: &ClientOverview| {
            let first = match order {
                ClientOrder::Lag => client.lag,
                // A later subscription has a higher number, so the number orders subscriptions of
                // the same second.
                ClientOrder::Age => client.age.as_secs(),
                ClientOrder::Bytes => client.bytes,
            };
            (Reverse(first), client.number)
        };
        // There may be a million clients. A caller that shows a hundred must not wait until all
        // clients are sorted.
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
        // The id contains the epoch of the event. An epoch is a period in which the offsets of a
        // hub are unique. The epoch of the event may be earlier than the current epoch, because the
        // hub begins a new epoch whenever it may have lost history.
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
