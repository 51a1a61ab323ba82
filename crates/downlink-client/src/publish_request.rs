//! The addresses of an event (topics, client ids or everyone), and its fields except the data.
//!
//! This module does not check the values. If an address or a field is invalid, the server refuses
//! the request with a reason, and publishes nothing.

use downlink_proto::Retry;
use reqwest::Url;
use std::{fmt, time::Duration};

/// The addresses and fields of an event to publish. An address is a topic, a client id or everyone.
/// A client id names one client of the server, such as a user or a device.
///
/// An event may have several addresses. Each subscription gets the event once, even if several of
/// the addresses match.
///
/// # Examples
///
/// ```
/// use downlink_client::PublishRequest;
///
/// let request = PublishRequest::to_topic("orders/7").client("alice").event_type("paid");
/// ```
#[derive(Clone)]
#[must_use]
pub struct PublishRequest {
    query: Vec<(&'static str, String)>,
    pub(crate) idempotency_key: Option<String>,
}

impl PublishRequest {
    /// Publishes to the subscribers of a topic.
    pub fn to_topic(topic: impl Into<String>) -> Self {
        Self::empty().topic(topic)
    }

    /// Publishes to every connection of a client id.
    pub fn to_client(client: impl Into<String>) -> Self {
        Self::empty().client(client)
    }

    /// Publishes to every subscriber.
    pub fn to_everyone() -> Self {
        Self::empty().with("everyone", "")
    }

    /// Adds a topic.
    pub fn topic(self, topic: impl Into<String>) -> Self {
        self.with("topic", topic)
    }

    /// Adds a client id.
    pub fn client(self, client: impl Into<String>) -> Self {
        self.with("client", client)
    }

    /// Sets the event type. The default is `message`.
    pub fn event_type(self, event_type: impl Into<String>) -> Self {
        self.with("event", event_type)
    }

    /// Sets the event id. Without this setting, the server makes the id. If an equal event with
    /// this id was published before, the server publishes nothing, and returns the receipt of the
    /// earlier event.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.with("id", id)
    }

    /// Sets the reconnection time that clients get with the event. It is rounded up to whole
    /// milliseconds.
    pub fn retry(self, time: Duration) -> Self {
        self.with("retry", Retry::from(time).as_millis().to_string())
    }

    /// Makes this event the last one of its topics, and finishes the topics. A subscription ends
    /// after this event if all of its topics are finished.
    pub fn last(self) -> Self {
        self.with("last", "true")
    }

    /// Finishes the topics when the published stream ends. The server accepts this setting only
    /// with [`publish_stream`](crate::Publisher::publish_stream).
    pub fn finish_on_end(self) -> Self {
        self.with("finish_on_end", "true")
    }

    /// Sets what happens to the ids of a published event stream. By default, the server replaces
    /// them.
    pub fn stream_ids(self, ids: StreamIds) -> Self {
        self.with("ids", ids.parameter())
    }

    /// Sets what happens to the event types of a published event stream. The types `open` and
    /// `error`, and those that begin with `downlink.`, are reserved. By default, reserved types get
    /// a prefix.
    pub fn stream_types(self, types: StreamTypes) -> Self {
        self.with("types", types.parameter())
    }

    /// Sets a key that makes it safe to repeat the request. Only the first request with a key
    /// publishes the event. A repeated request gets the same answer.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    fn empty() -> Self {
        Self { query: Vec::new(), idempotency_key: None }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds the query parameters, percent-encoded.
    pub(crate) fn add_to(&self, url: &mut Url) {
        url.query_pairs_mut().extend_pairs(&self.query);
    }
}

/// Shows the addresses and fields, but not the idempotency key.
impl fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishRequest").field("query", &self.query).finish_non_exhaustive()
    }
}

/// The format of a published stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamFormat {
    /// Lines of JSON. Each line becomes the data of one event.
    Ndjson,
    /// An event stream. By default, its events keep their types and get new ids. See
    /// [`stream_ids`](PublishRequest::stream_ids) and
    /// [`stream_types`](PublishRequest::stream_types).
    EventStream,
}

impl StreamFormat {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::EventStream => "text/event-stream",
        }
    }
}

/// What happens to the ids of a published event stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamIds {
    /// Each event gets an id from the server.
    Drop,
    /// Each event keeps its id. An event whose id was published before counts as a repeat. An
    /// invalid id ends the stream.
    Keep,
}

impl StreamIds {
    fn parameter(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Keep => "keep",
        }
    }
}

/// What happens to the event types of a published event stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamTypes {
    /// Reserved types get the prefix `upstream.`. Types that are too long for an event are dropped.
    Prefix,
    /// Types do not change. A reserved type ends the stream.
    Keep,
    /// Types are dropped.
    Drop,
}

impl StreamTypes {
    fn parameter(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Keep => "keep",
            Self::Drop => "drop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_query(request: PublishRequest, expected: &str) {
        let mut url = Url::parse("http://h/events").unwrap();
        request.add_to(&mut url);
        assert_eq!(url.query(), Some(expected));
    }

    #[test]
    fn every_field_becomes_a_parameter() {
        let request = PublishRequest::to_topic("a")
            .topic("b")
            .client("c")
            .event_type("t")
            .id("7")
            .retry(Duration::from_secs(1))
            .last()
            .finish_on_end();
        assert_query(
            request,
            "topic=a&topic=b&client=c&event=t&id=7&retry=1000&last=true&finish_on_end=true",
        );
    }

    #[test]
    fn the_settings_of_a_stream_become_parameters() {
        let request = |ids, types| PublishRequest::empty().stream_ids(ids).stream_types(types);
        assert_query(request(StreamIds::Drop, StreamTypes::Prefix), "ids=drop&types=prefix");
        assert_query(request(StreamIds::Keep, StreamTypes::Keep), "ids=keep&types=keep");
        assert_query(request(StreamIds::Keep, StreamTypes::Drop), "ids=keep&types=drop");
    }

    #[test]
    fn everyone_is_a_parameter_without_a_value() {
        assert_query(PublishRequest::to_everyone(), "everyone=");
    }

    #[test]
    fn a_request_may_have_only_a_client() {
        assert_query(PublishRequest::to_client("alice"), "client=alice");
    }

    #[test]
    fn values_are_percent_encoded() {
        let request = PublishRequest::to_topic("a&everyone=#1/ü +%");
        assert_query(request, "topic=a%26everyone%3D%231%2F%C3%BC+%2B%25");
    }

    #[test]
    fn retry_rounds_up_and_saturates() {
        let retry = |time| PublishRequest::empty().retry(time);
        assert_query(retry(Duration::from_nanos(1)), "retry=1");
        assert_query(retry(Duration::MAX), "retry=18446744073709551615");
    }

    #[test]
    fn debug_output_does_not_show_the_key() {
        let request = PublishRequest::to_topic("a").idempotency_key("k-123");
        assert!(!format!("{request:?}").contains("k-123"));
    }
}
