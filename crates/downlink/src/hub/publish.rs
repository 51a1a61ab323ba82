//! Publishing: makes an event from a value and its recipients, and appends the event to the log.
//!
//! The event is checked and encoded before any lock is taken. A publish never waits for a reader.

use std::time::Duration;

use downlink_log::{
    ClientId, Draft, Drafts, Fingerprint, IdempotencyKey, InvalidName, Submitted, Topic,
    resembles_cursor,
};
use downlink_proto::{Event, EventId, EventType};
use smallvec::smallvec;

use super::{
    Address, Hub, PublishError, RETRY_MAX, RETRY_MIN, Receipt, control,
    record::{Addresses, Record, RecordFields, UnstampedRecordFrame},
    stored,
};

/// The maximum number of addresses of one event. An address is a topic, a client, or all
/// subscribers. Each address costs a look-up and an entry in its topic, so this limit bounds the
/// time and the memory of one publish.
pub const ADDRESSES_MAX: usize = 1_000;

/// The longest id that a publisher may give, in bytes. It must be short, because clients send it
/// back in a request header.
const ID_BYTES_MAX: usize = 128;

/// The longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The maximum length of a credential in bytes. The credential of an idempotency key identifies the
/// publisher that uses the key. The limit is the maximum length of a client id. Longer credentials
/// would cost memory, because the hub remembers up to 65,536 credentials.
const CREDENTIAL_BYTES_MAX: usize = 256;

/// The event types with which `EventSource` reports the state of the connection to the page.
const RESERVED_TYPES: [&str; 2] = ["open", "error"];

/// Builder for an event: its recipients, and its fields except the data.
///
/// [`publish`](Self::publish) reports the first error.
///
/// # Limits
///
/// - An event has at most [`ADDRESSES_MAX`] addresses.
/// - An id has at most 128 bytes.
/// - An idempotency key has at most 255 bytes, and its credential has at most 256 bytes.
/// - The event type must follow the rules of [`EventType`].
///
/// The frame (the encoded event) has at most
/// [`event_bytes_max`](super::HubBuilder::event_bytes_max) bytes. If the publisher gave no id, the
/// hub checks this limit with the longest id that it may give the event.
///
/// # Examples
///
/// ```
/// let hub = downlink::Hub::<String>::text();
/// let publish = || hub.to("orders/7").and_to_client("alice").event("paid").id("payment/1");
/// let receipt = publish().publish("19.99".to_owned())?;
/// let again = publish().publish("19.99".to_owned())?;
/// assert_eq!(again.is_repeated(), Some(true));
/// assert_eq!(again.offset(), receipt.offset());
/// # Ok::<(), downlink::PublishError>(())
/// ```
#[must_use = "nothing is published until `publish` is called"]
#[derive(Debug)]
pub struct Publish<T: Send + Sync + 'static> {
    hub: Hub<T>,
    /// Invariant: sorted, without duplicates.
    to: Addresses,
    event_type: Option<EventType>,
    id: Option<EventId>,
    retry: Option<Duration>,
    key: Option<IdempotencyKey>,
    last: bool,
    stream: Option<u64>,
    error: Option<PublishError>,
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Publishes to every subscription.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. After an error, nothing was published.
    pub fn publish(&self, value: T) -> Result<Receipt, PublishError> {
        self.to_everyone().publish(value)
    }

    /// An event for the subscriptions of a topic.
    pub fn to(&self, topic: impl AsRef<str>) -> Publish<T> {
        self.to_nobody().and_to(topic)
    }

    /// An event for the subscriptions of the topic with these segments. Use this if a segment comes
    /// from a request: a segment that contains `/` is an error, so it cannot name another topic.
    ///
    /// ```
    /// let hub = downlink::Hub::<String>::text();
    /// let room = "lobby/typing"; // from `POST /rooms/lobby%2Ftyping`
    /// assert!(hub.to_segments(["rooms", room]).publish("hello".to_owned()).is_err());
    /// ```
    pub fn to_segments<S: AsRef<str>>(&self, segments: impl IntoIterator<Item = S>) -> Publish<T> {
        let (name, topic) = joined(segments);
        self.to_nobody().topic(&name, topic)
    }

    /// An event for every subscription of a client.
    pub fn to_client(&self, client: impl AsRef<str>) -> Publish<T> {
        self.to_nobody().and_to_client(client)
    }

    /// An event for these addresses, which are already parsed. There must be at least one address.
    pub fn to_addresses(&self, to: impl IntoIterator<Item = Address>) -> Publish<T> {
        to.into_iter().map(Ok).fold(self.to_nobody(), Publish::address)
    }

    /// An event for every subscription.
    pub fn to_everyone(&self) -> Publish<T> {
        self.to_nobody().and_to_everyone()
    }

    /// Finishes a topic. Its subscriptions end when they have read all of its events. Later
    /// subscriptions get its history and then end. Publishing to it is an error. The topic stays
    /// finished for the time set by [`finished_keep`](super::HubRetention::finished_keep).
    ///
    /// A subscription to several topics ends when all of them are finished. A subscription with
    /// patterns does not end, since the patterns may match new topics.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. After an error, the topic is unchanged.
    pub fn finish(&self, topic: impl AsRef<str>) -> Result<Receipt, PublishError> {
        self.to(topic).finish()
    }

    fn to_nobody(&self) -> Publish<T> {
        Publish {
            hub: self.clone(),
            to: Addresses::new(),
            event_type: None,
            id: None,
            retry: None,
            key: None,
            last: false,
            stream: None,
            error: None,
        }
    }

    /// Appends events. In a cluster, events with the same `stream` keep their order.
    pub(super) fn append(
        &self,
        drafts: Drafts<Record<T>>,
        stream: Option<u64>,
    ) -> Result<Submitted, (usize, PublishError)> {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.0.cluster {
            let submitted = cluster.queue.publish(self.now(), drafts, stream);
            return submitted.map_err(PublishError::from_append);
        }
        let _ = stream;
        self.0.log.append(self.now(), drafts).map_err(PublishError::from_append)
    }
}

impl<T: Send + Sync + 'static> Publish<T> {
    /// Also sends the event to the subscriptions of this topic. A subscription to several of the
    /// event's topics gets the event once.
    pub fn and_to(self, topic: impl AsRef<str>) -> Self {
        let name = topic.as_ref();
        self.topic(name, Topic::new(name))
    }

    fn topic(self, name: &str, topic: Result<Topic, InvalidName>) -> Self {
        let error = |reason| PublishError::InvalidTopic { topic: name.to_owned(), reason };
        self.address(topic.map(Address::Topic).map_err(error))
    }

    /// Also sends the event to every subscription of this client.
    pub fn and_to_client(self, client: impl AsRef<str>) -> Self {
        let client = client.as_ref();
        let error = |reason| PublishError::InvalidClient { client: client.to_owned(), reason };
        self.address(ClientId::new(client).map(Address::Client).map_err(error))
    }

    /// Also sends the event to every subscription.
    pub fn and_to_everyone(self) -> Self {
        self.address(Ok(Address::Everyone))
    }

    /// Sets the event type. If the type is empty, the event keeps the type that it got from the
    /// encoding, if any.
    pub fn event(mut self, event_type: impl AsRef<str>) -> Self {
        self.event_type = self.checked(check_type(event_type.as_ref())).flatten();
        self
    }

    /// Gives the event an id, which must be unique among the retained events.
    ///
    /// Clients see this id instead of an id from the hub. Publishing the same content again with
    /// the same id returns the first receipt. Publishing other content with the same id is an
    /// error.
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        self.id = self.checked(check_id(id.as_ref()));
        self
    }

    /// Sets the client's reconnection time with this event, from [`RETRY_MIN`] to [`RETRY_MAX`].
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = self.checked(check_retry(retry));
        self
    }

    /// Publishes the event only once, even if the publish is repeated with this key. The hub
    /// remembers a key for ten minutes, or until 65,536 newer keys were used.
    ///
    /// `credential` identifies the publisher, so that several publishers may use the same key: the
    /// same key with another credential is a different key. Pass `""` if there is no credential. If
    /// the credential is long or secret, pass a short name for it, such as a subject or a hash.
    pub fn idempotency_key(mut self, credential: &str, key: &str) -> Self {
        if credential.len() > CREDENTIAL_BYTES_MAX {
            self.set_error(PublishError::InvalidCredential { bytes: credential.len() });
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            self.set_error(PublishError::InvalidKey { bytes: key.len() });
        }
        self.key = Some(IdempotencyKey { credential: credential.into(), key: key.into() });
        self
    }

    /// Makes this event the last one of its topics, and finishes the topics. All addresses of such
    /// an event must be topics.
    pub fn last(mut self) -> Self {
        self.last = true;
        self
    }

    /// Events that are published one after the other with the same number keep their order in a
    /// cluster. Use this for example for the events of one request body. A node of a cluster has
    /// several groups of events on their way to the engine, which orders all events. If a group
    /// must be sent again, its events may come later than the events of the next group. Without a
    /// number, wait for each event with [`durable`](Receipt::durable) if the order matters. In a
    /// hub that is no node of a cluster, events always keep their order.
    ///
    /// Take a random number for each stream.
    pub fn in_stream(mut self, stream: u64) -> Self {
        self.stream = Some(stream);
        self
    }

    /// Publishes the event. The call does not wait for a reader or a disk. In a hub with a store,
    /// or in a node of a cluster, call [`durable`](Receipt::durable) of the receipt to wait for the
    /// outcome.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. After an error, nothing was published. In a hub with a store, or in a node
    /// of a cluster, [`durable`](Receipt::durable) reports conflicts with earlier events: an id or
    /// an idempotency key that is already used for other content, or a finished topic.
    ///
    /// # Panics
    ///
    /// If the hub's encoding panics. In this case nothing was published.
    pub fn publish(self, value: T) -> Result<Receipt, PublishError> {
        let (hub, stream) = (self.hub.clone(), self.stream);
        let draft = self.into_draft(value)?;
        let given = given_id(&draft);
        let submitted = hub.append(smallvec![draft], stream).map_err(|(_, error)| error)?;
        Ok(Receipt::of(&submitted, 0, given))
    }

    /// Finishes the topics without an event, like [`Hub::finish`]. All addresses must be topics. An
    /// [idempotency key](Self::idempotency_key) makes it safe to repeat the call: without one, the
    /// second call reports that the topic is finished. The other parts of the event are not used.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. After an error, the topics are unchanged.
    ///
    /// ```
    /// use downlink::Hub;
    ///
    /// # fn main() -> Result<(), downlink::PublishError> {
    /// let hub = Hub::<String>::text();
    /// let finish = || hub.to("jobs/7").idempotency_key("", "end-of-7").finish();
    /// assert_eq!(finish()?.id(), finish()?.id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(mut self) -> Result<Receipt, PublishError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.last = true;
        self.check_last()?;
        let fingerprint = match self.key {
            Some(_) => {
                let mut content = stored::encode(&self.to, &Event::new(""));
                content.push(stored::FINISHES_ALONE);
                Fingerprint::keyed(&self.hub.0.fingerprint_key, &content)
            }
            None => Fingerprint::default(),
        };
        let Self { hub, to, key, stream, .. } = self;
        let draft =
            Draft { to, id: None, key, fingerprint, finish: true, body: None, payload: None };
        let submitted = hub.append(smallvec![draft], stream).map_err(|(_, error)| error)?;
        Ok(Receipt::of(&submitted, 0, None))
    }

    /// Checks and encodes the event.
    pub(super) fn into_draft(mut self, value: T) -> Result<Draft<Record<T>>, PublishError> {
        let event = self.encode(&value)?;
        let settings = &self.hub.0.settings;
        let given = event.fields().id.cloned();
        let body = self.hub.0.needs_bodies.then(|| stored::encode(&self.to, &event));
        let needs_fingerprint = given.is_some() || self.key.is_some();
        let fingerprint =
            if needs_fingerprint { self.fingerprint(&event) } else { Fingerprint::default() };
        let event_type = event.fields().event_type.cloned();
        let frame = match given {
            Some(_) => UnstampedRecordFrame::Given(event.encode()),
            None => UnstampedRecordFrame::Numbered(event.encode_unstamped(&self.hub.0.id_prefix)),
        };
        let (bytes, bytes_max) = (frame.len_max(), settings.event_bytes_max);
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        let value_bytes = settings.value_bytes.as_ref().map(|bytes| bytes(&value));
        let value = value_bytes.map(|bytes| (value, bytes));
        let id = given.as_ref().map(|id| id.as_str().into());
        let payload =
            Some(RecordFields { frame, to: self.to.clone(), event_type, id: given, value });
        let (key, finish) = (self.key.take(), self.last);
        Ok(Draft { to: self.to, id, key, fingerprint, finish, body, payload })
    }

    /// Encodes the value, and adds the fields that the publisher gave. If the publisher gave no id,
    /// the event has no id yet.
    fn encode(&mut self, value: &T) -> Result<Event, PublishError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.check_last()?;
        let event = (self.hub.0.encode)(value).map_err(PublishError::Encode)?;
        let fields = event.fields();
        fields.event_type.map(|own| check_type(own.as_str())).transpose()?;
        fields.id.map(|own| check_id(own.as_str())).transpose()?;
        let millis = fields.retry.map(|own| Duration::from_millis(own.as_millis()));
        millis.map(check_retry).transpose()?;
        let event = self.event_type.take().into_iter().fold(event, Event::event);
        let event = self.id.take().into_iter().fold(event, Event::id);
        Ok(self.retry.into_iter().fold(event, Event::retry))
    }

    fn check_last(&self) -> Result<(), PublishError> {
        let needs_topics = self.last && self.to.iter().any(|address| address.topic().is_none());
        if needs_topics { Err(PublishError::LastNeedsTopics) } else { Ok(()) }
    }

    fn fingerprint(&self, event: &Event) -> Fingerprint {
        // A fingerprint is a hash of the content of an event. The hub compares it with the
        // fingerprints of stored events. Another process may have published those events. So the
        // same event must give the same content in every process that opens the store.
        let mut content = stored::encode(&self.to, event);
        content.push(u8::from(self.last));
        let id = event.fields().id.map(EventId::as_str);
        content.extend_from_slice(id.unwrap_or_default().as_bytes());
        Fingerprint::keyed(&self.hub.0.fingerprint_key, &content)
    }

    fn address(mut self, address: Result<Address, PublishError>) -> Self {
        let Some(address) = self.checked(address) else { return self };
        match self.to.binary_search(&address) {
            Ok(_) => {}
            Err(_) if self.to.len() >= ADDRESSES_MAX => {
                self.set_error(PublishError::TooManyAddresses { addresses_max: ADDRESSES_MAX });
            }
            Err(place) => self.to.insert(place, address),
        }
        self
    }

    fn checked<V>(&mut self, checked: Result<V, PublishError>) -> Option<V> {
        checked.map_err(|error| self.set_error(error)).ok()
    }

    fn set_error(&mut self, error: PublishError) {
        self.error.get_or_insert(error);
    }
}

/// Joins the segments with `/`. Returns the text, and the result of parsing the segments as a
/// topic.
pub(super) fn joined<S: AsRef<str>>(
    segments: impl IntoIterator<Item = S>,
) -> (String, Result<Topic, InvalidName>) {
    let segments: Vec<S> = segments.into_iter().collect();
    let texts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    (texts.join("/"), Topic::from_segments(texts))
}

/// The id that the publisher of an event gave.
pub(super) fn given_id<T: Send + Sync + 'static>(draft: &Draft<Record<T>>) -> Option<EventId> {
    draft.payload.as_ref()?.id.clone()
}

/// The `Last-Event-ID` that requests all retained history. No event may have this id: a client that
/// resumes after such an event would get all of the history again.
pub(super) const EARLIEST: &str = "earliest";

/// Whether an event type is reserved. Publishers may not use a reserved type. The types `open` and
/// `error` belong to the browser. Types that begin with `downlink.` belong to the server.
///
/// ```
/// use downlink::hub::is_reserved_type;
///
/// assert!(is_reserved_type("error") && is_reserved_type("downlink.gap"));
/// assert!(!is_reserved_type("upstream.error"));
/// ```
pub fn is_reserved_type(event_type: &str) -> bool {
    event_type.starts_with(control::PREFIX) || RESERVED_TYPES.contains(&event_type)
}

fn check_type(text: &str) -> Result<Option<EventType>, PublishError> {
    if is_reserved_type(text) {
        return Err(PublishError::ReservedType { event_type: text.to_owned() });
    }
    let event_type = EventType::new(text).map_err(PublishError::InvalidType)?;
    Ok(Some(event_type).filter(|_| !text.is_empty()))
}

fn check_retry(retry: Duration) -> Result<Duration, PublishError> {
    let is_sane = (RETRY_MIN..=RETRY_MAX).contains(&retry);
    if is_sane { Ok(retry) } else { Err(PublishError::InvalidRetry { retry }) }
}

fn check_id(text: &str) -> Result<EventId, PublishError> {
    let error = || PublishError::InvalidId { id: text.to_owned() };
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_reserved = resembles_cursor(text) || text == EARLIEST;
    if text.is_empty() || text.len() > ID_BYTES_MAX || !visible || is_reserved {
        return Err(error());
    }
    EventId::new(text).map_err(|_| error())
}
