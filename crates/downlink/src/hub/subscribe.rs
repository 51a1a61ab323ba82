//! The builder of a subscription. It sets which events to read, and where to begin.

use std::{future::poll_fn, sync::Arc};

use downlink_log::{
    ClientId, InvalidName, OpenError, Selection, Start as LogStart, Timestamp, Topic, TopicSelector,
};
use downlink_proto::EventId;

use super::{
    Hub, SubscribeError, SubscribeErrorKind, Subscription,
    publish::{EARLIEST, joined},
    subscription::Filter,
};

/// Builder for a [`Subscription`], from [`Hub::subscribe`].
///
/// [`open`](Self::open) reports the first error. Every subscription reads the events for everyone,
/// even if it selects no topic. A subscription with a client id also reads the events for that
/// client.
///
/// # Limits
///
/// [`Limits`](super::Limits) bounds the number of topics and patterns of one subscription, and the
/// number of subscriptions of one client and of the hub. At a limit, the hub refuses the new
/// subscription. Open subscriptions stay open.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), downlink::SubscribeError> {
/// use downlink::hub::{Hub, Start};
///
/// let hub = Hub::<String>::text();
/// let subscribe = hub.subscribe().topic("news").pattern("orders/*").client("alice");
/// let subscription = subscribe.start(Start::Last(50)).open().await?;
/// assert_eq!(subscription.client().map(|client| client.as_str()), Some("alice"));
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is subscribed until `open` is called"]
pub struct Subscribe<T: Send + Sync + 'static> {
    hub: Hub<T>,
    selection: Selection,
    start: Start,
    resume: Resume,
    filter: Option<Filter<T>>,
    announce_alive: bool,
    open_event: bool,
    tag: [u64; 2],
    error: Option<SubscribeErrorKind>,
}

/// Where a subscription begins if its client gave no last event id.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// The subscription gets the events that are published from now on, and all retained events of
    /// finished topics (topics that accept no more events).
    #[default]
    Live,
    /// The subscription first gets at most this many of its newest retained events. The events of
    /// all its topics and the events for its client count together. To get the newest events of
    /// each topic, open one subscription for each topic.
    Last(usize),
    /// The subscription first gets all retained events.
    Earliest,
    /// The subscription first gets the retained events that were published at this time or later.
    Since(Timestamp),
}

/// The client's last event id, if it has one, and whether the client is a browser.
/// [`Subscribe::resume`] takes this value.
///
/// Make it from a [`LastEventId`](crate::LastEventId), or from an id that a program has kept.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    pub(crate) id: Option<Box<str>>,
    pub(crate) by_browser: bool,
}

impl From<&str> for Resume {
    fn from(id: &str) -> Self {
        Self { id: (!id.is_empty()).then(|| id.into()), by_browser: false }
    }
}

impl From<&EventId> for Resume {
    fn from(id: &EventId) -> Self {
        id.as_str().into()
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Returns a builder for a subscription.
    pub fn subscribe(&self) -> Subscribe<T> {
        Subscribe {
            hub: self.clone(),
            selection: Selection::default(),
            start: Start::default(),
            resume: Resume::default(),
            filter: None,
            announce_alive: false,
            open_event: self.0.settings.open_event,
            tag: [0, 0],
            error: None,
        }
    }
}

impl<T: Send + Sync + 'static> Subscribe<T> {
    /// Reads a topic. A pattern is an error here, so a name from a request cannot select other
    /// topics.
    pub fn topic(self, topic: impl AsRef<str>) -> Self {
        let topic = topic.as_ref();
        self.select(topic, Topic::new(topic).map(TopicSelector::from))
    }

    /// Reads the topic with these segments. Use this if a segment comes from a request: a segment
    /// that contains `/` is an error, so it cannot name another topic.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), downlink::SubscribeError> {
    /// let hub = downlink::Hub::<String>::text();
    /// assert!(hub.subscribe().topic_segments(["rooms", "lobby/typing"]).open().await.is_err());
    /// let subscription = hub.subscribe().topic_segments(["rooms", "lobby"]).open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn topic_segments<S: AsRef<str>>(self, segments: impl IntoIterator<Item = S>) -> Self {
        let (name, topic) = joined(segments);
        self.select(&name, topic.map(TopicSelector::from))
    }

    /// Reads several topics.
    pub fn topics<S: AsRef<str>>(self, topics: impl IntoIterator<Item = S>) -> Self {
        topics.into_iter().fold(self, Self::topic)
    }

    /// Reads all present and future topics that a pattern matches, such as `orders/*` or
    /// `orders/{id}/status`. An exact topic is a pattern too.
    pub fn pattern(self, pattern: impl AsRef<str>) -> Self {
        let pattern = pattern.as_ref();
        self.select(pattern, TopicSelector::parse(pattern))
    }

    /// Reads the topics, the patterns and the client of a selection. They replace all topics,
    /// patterns and clients that were named before. A server uses this after it has checked a
    /// request.
    pub fn selection(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// The topics, the patterns and the client that the caller has set so far.
    #[cfg(feature = "access")]
    pub(crate) fn selected(&self) -> &Selection {
        &self.selection
    }

    #[cfg(feature = "access")]
    pub(crate) fn hub(&self) -> &Hub<T> {
        &self.hub
    }

    fn select(mut self, text: &str, selector: Result<TopicSelector, InvalidName>) -> Self {
        let error =
            |reason| SubscribeErrorKind::InvalidSelector { selector: text.to_owned(), reason };
        let selector = self.checked(selector.map_err(error));
        self.selection.selectors.extend(selector);
        self
    }

    /// Reads the events for this client. A client may have several subscriptions.
    pub fn client(mut self, client: impl AsRef<str>) -> Self {
        let client = client.as_ref();
        let error =
            |reason| SubscribeErrorKind::InvalidClient { client: client.to_owned(), reason };
        self.selection.client = self.checked(ClientId::new(client).map_err(error));
        self
    }

    /// Resumes after the last event id of a client, if the client gave one. `last` comes from a
    /// request ([`LastEventId`](crate::LastEventId)), or is an id that a program has kept. Without
    /// an id, the subscription begins as [`start`](Self::start) says.
    ///
    /// If the hub does not know the id, the subscription opens without an error and begins with a
    /// gap (a notice that events may be missing). Clients may send the id `earliest`, which means
    /// [`Start::Earliest`].
    pub fn resume(mut self, last: impl Into<Resume>) -> Self {
        self.resume = last.into();
        self
    }

    /// Where the subscription begins if there is no last event id. Default: [`Start::Live`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Calls the filter with the value of each event, and yields only the events for which the
    /// filter returns true. This applies to retained and to new events.
    ///
    /// The hub must [keep values](super::HubBuilder::keep_values). The filter runs once for each
    /// event of this subscription, in the task that reads the subscription. If the filter panics,
    /// only this subscription ends. The subscription's cursor (the position of its next event) also
    /// moves past events that the filter refuses.
    pub fn filter(mut self, filter: impl FnMut(&T) -> bool + Send + 'static) -> Self {
        self.filter = Some(Box::new(filter));
        self
    }

    /// Sends each keep-alive as an event of the type `downlink.alive` instead of a comment. Pages
    /// can listen to this type. A busy stream gets these keep-alives too. Otherwise, a page that
    /// listens only to some event types might see no event for a long time.
    pub fn announce_alive(mut self, on: bool) -> Self {
        self.announce_alive = on;
        self
    }

    /// Whether the response begins with the event `downlink.open`. Default: the setting of the hub.
    pub fn open_event(mut self, on: bool) -> Self {
        self.open_event = on;
        self
    }

    /// Two numbers of your app, such as the address of the peer and the number of a record of your
    /// own. Overviews of subscriptions ([`ClientOverview::tag`](super::ClientOverview)) and
    /// observers ([`Connection::tag`](super::Connection)) get them. Default: 0.
    pub fn tag(mut self, tag: [u64; 2]) -> Self {
        self.tag = tag;
        self
    }

    /// Opens the subscription. After this returns, every published event that the subscription
    /// selects reaches it exactly once and in order.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]. After an error, the hub is unchanged.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the hub unchanged. The future waits only while the hub searches
    /// the store, or the events of many topics, for the first event to read.
    pub async fn open(self) -> Result<Subscription<T>, SubscribeError> {
        let (hub, by_browser) = (self.hub.clone(), self.resume.by_browser);
        let opened = self.open_checked().await;
        opened.map_err(|kind| {
            if kind.is_refusal() {
                hub.0.counters.note_refused();
                tracing::debug!(error = %kind, by_browser, "subscription refused");
            }
            SubscribeError { kind, by_browser }
        })
    }

    async fn open_checked(mut self) -> Result<Subscription<T>, SubscribeErrorKind> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let hub = self.hub;
        if self.filter.is_some() && hub.0.settings.value_bytes.is_none() {
            return Err(SubscribeErrorKind::FilterNeedsValues);
        }
        let start = match (self.resume.id, self.start) {
            (Some(id), _) if &*id != EARLIEST => LogStart::After(id),
            (Some(_), _) | (None, Start::Earliest) => LogStart::Earliest,
            (None, Start::Live) => LogStart::Live,
            (None, Start::Last(count)) => LogStart::Last(count),
            (None, Start::Since(shown)) => LogStart::Since(hub.0.clock.log.log_time(shown)),
        };
        let opened = hub.0.log.open(hub.now(), &self.selection, &start);
        let mut reader = opened.map_err(|error| match error {
            OpenError::Closed => SubscribeErrorKind::Closed,
            error => SubscribeErrorKind::AtLimit(error),
        })?;
        reader.set_tag(self.tag);
        let begun = poll_fn(|cx| reader.poll_begun(cx.waker())).await;
        begun.map_err(SubscribeErrorKind::Store)?;
        // A drain may begin while the subscription opens. The drain ends all readers that are in
        // the log at that moment. (A reader is the position of a subscription in the log.) If this
        // reader came into the log later, the drain has not ended it, but this check sees the
        // drain.
        if hub.is_draining() {
            return Err(SubscribeErrorKind::Draining);
        }
        // A reader that has not begun has no position for the client. With its cursor as an id, the
        // client could miss events, or get events again.
        if !reader.has_begun() {
            return Err(SubscribeErrorKind::UpstreamAway);
        }
        if reader.is_at_end() {
            return Err(SubscribeErrorKind::Finished);
        }
        let settings = (self.open_event, self.announce_alive);
        let common = Arc::clone(&hub.0.common);
        Ok(Subscription::new(common, reader, &start, self.filter, settings))
    }

    fn checked<V>(&mut self, checked: Result<V, SubscribeErrorKind>) -> Option<V> {
        checked.map_err(|error| _ = self.error.get_or_insert(error)).ok()
    }
}

impl<T: Send + Sync + 'static> std::fmt::Debug for Subscribe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe")
            .field("selection", &self.selection)
            .field("start", &self.start)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}
