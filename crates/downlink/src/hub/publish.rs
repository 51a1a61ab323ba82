//! Publishing: from a value and whom it is for to an offset in the log.
//!
//! Everything is checked and encoded before any lock is taken. A publish never waits for a reader.

use std::{future::poll_fn, time::Duration};

use downlink_log::{
    Appended, ClientId, Commit, Draft, Fingerprint, IdempotencyKey, Offset, Submitted, Timestamp,
    Topic, resembles_cursor,
};
use downlink_proto::{Event, EventId, EventType, Frame, UnstampedFrame};
use smallvec::{SmallVec, smallvec};

use super::{
    Address, Hub, PublishError, control,
    record::{Addresses, Fields, Record, cursor_id},
    stored,
};

/// Addresses that one event may have. Each costs a look-up and a place in its topic.
pub const ADDRESSES_MAX: usize = 1_000;

/// The longest id a publisher may give, in bytes: it comes back in a request header.
const ID_BYTES_MAX: usize = 128;

/// The longest idempotency key in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The longest credential in bytes: that of a client id. 65,536 of them are remembered.
const CREDENTIAL_BYTES_MAX: usize = 256;

/// Event types that would call a page's own handlers.
const RESERVED_TYPES: [&str; 2] = ["open", "error"];

/// An event to be: whom it is for, and what is to be said of it besides its data.
///
/// The first thing that is wrong with it is reported by [`publish`](Self::publish).
///
/// # Limits
///
/// At most [`ADDRESSES_MAX`] addresses; an id of at most 128 bytes, an idempotency key of at most 255
/// and its credential of at most 256; an event type as [`EventType`] allows; and a frame of at most
/// what [`event_bytes_max`](super::HubBuilder::event_bytes_max) says, with room for the longest id.
///
/// # Examples
///
/// ```
/// let hub = downlink::Hub::<String>::text();
/// let publish = || hub.to("orders/7").and_to_client("alice").event("paid").id("payment/1");
/// let receipt = publish().publish("19.99".to_owned())?;
/// let again = publish().publish("19.99".to_owned())?;
/// assert!(again.is_repeated());
/// assert_eq!(again.offset(), receipt.offset());
/// # Ok::<(), downlink::PublishError>(())
/// ```
#[must_use = "nothing is published until `publish` is called"]
#[derive(Debug)]
pub struct Publish<T> {
    hub: Hub<T>,
    /// Invariant: sorted, and each once.
    to: Addresses,
    event_type: Option<EventType>,
    id: Option<EventId>,
    retry: Option<Duration>,
    key: Option<IdempotencyKey>,
    last: bool,
    wrong: Option<PublishError>,
}

/// What became of a publish.
///
/// In a hub with a store it says what is to become of it, until [`durable`](Self::durable) has
/// answered. Two receipts are equal if they say the same.
#[derive(Clone, Debug)]
pub struct Receipt {
    id: EventId,
    offset: Offset,
    matched: usize,
    repeated: bool,
    /// What it waits for, and which draft of that it is.
    commit: Option<(Commit, usize)>,
    is_store_behind: bool,
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        let says = |receipt: &Self| (receipt.offset, receipt.matched, receipt.repeated);
        self.id == other.id && says(self) == says(other)
    }
}

impl Eq for Receipt {}

impl Receipt {
    /// The id that subscribers see.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// Where the event stands in the hub's one sequence.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// How many distinct subscriptions the event was for. In a hub with a store that shows events when
    /// they are committed, 0 until then: the receipt that [`durable`](Self::durable) gives knows it.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Whether this is the answer to an earlier publish with the same id or idempotency key.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Whether so much waits for the store that who publishes on without waiting for
    /// [`durable`](Self::durable) will be refused as [`PublishError::Busy`] before long: more than half
    /// of what may wait. Never in a hub in memory, nor once the store has refused to take more, as on a
    /// full disk.
    pub fn is_store_behind(&self) -> bool {
        self.is_store_behind
    }

    /// Waits until the event survives a crash, as far as the hub promises that, and gives the receipt
    /// that is certain then.
    ///
    /// A hub in memory promises nothing: this is ready at once.
    ///
    /// # Errors
    ///
    /// [`PublishError::Store`] if the event was not kept after all.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing: the event is kept all the same, or not.
    pub async fn durable(&self) -> Result<Self, PublishError> {
        let certain = Self { commit: None, is_store_behind: false, ..self.clone() };
        let Some((commit, draft)) = &self.commit else { return Ok(certain) };
        let answers = poll_fn(|cx| commit.poll(cx.waker())).await.map_err(PublishError::Store)?;
        let answer = answers.get(*draft).copied();
        let matched = answer.map_or(certain.matched, |answer| answer.matched);
        Ok(Self { matched, ..certain })
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Publishes to every subscription.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; then nothing was published.
    pub fn publish(&self, value: T) -> Result<Receipt, PublishError> {
        self.to_everyone().publish(value)
    }

    /// An event for the subscriptions of a topic.
    pub fn to(&self, topic: impl AsRef<str>) -> Publish<T> {
        self.to_nobody().and_to(topic)
    }

    /// An event for every subscription of a client.
    pub fn to_client(&self, client: impl AsRef<str>) -> Publish<T> {
        self.to_nobody().and_to_client(client)
    }

    /// An event for every subscription.
    pub fn to_everyone(&self) -> Publish<T> {
        self.to_nobody().and_to_everyone()
    }

    /// Finishes a topic: its subscriptions end when they have read it, later ones get what it was,
    /// and publishing to it is an error, for as long as
    /// [`finished_keep`](super::HubBuilder::finished_keep) says.
    ///
    /// A subscription of several topics ends with the last of them; one that has patterns does not
    /// end, since they may match again.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; then nothing was changed.
    pub fn finish(&self, topic: impl AsRef<str>) -> Result<Receipt, PublishError> {
        let mut publish = self.to(topic);
        if let Some(wrong) = publish.wrong.take() {
            return Err(wrong);
        }
        let draft = Draft {
            to: publish.to,
            id: None,
            key: None,
            fingerprint: Fingerprint::default(),
            finish: true,
            body: None,
            stamp: None::<fn(Offset, Timestamp) -> Record<T>>,
        };
        // A mark is no event: it is not counted as one, and does not linger.
        let appended = self.0.log.submit(self.now(), smallvec![draft]);
        let (submitted, wakes) = appended.map_err(|error| PublishError::from_append(error).1)?;
        wakes.wake();
        Ok(self.receipt(&submitted, 0, None))
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
            wrong: None,
        }
    }

    pub(super) fn append<F: FnOnce(Offset, Timestamp) -> Record<T>>(
        &self,
        drafts: SmallVec<[Draft<F>; 1]>,
    ) -> Result<Submitted, (usize, PublishError)> {
        let appended = self.0.log.submit(self.now(), drafts);
        let (submitted, wakes) = appended.map_err(PublishError::from_append)?;
        match &self.0.linger {
            Some(linger) => linger.wake(wakes),
            None => wakes.wake(),
        }
        let new = submitted.answers.iter().filter(|answer| !answer.repeated).count();
        self.0.counters.note_published(new);
        Ok(submitted)
    }

    /// The receipt of one draft.
    pub(super) fn receipt(
        &self,
        submitted: &Submitted,
        draft: usize,
        given: Option<EventId>,
    ) -> Receipt {
        let answer = submitted.answers[draft];
        let id = given.unwrap_or_else(|| cursor_id(self.0.log.cursor_after(answer.offset)));
        let commit = submitted.commit.clone().map(|commit| (commit, draft));
        let Appended { offset, matched, repeated } = answer;
        Receipt { id, offset, matched, repeated, commit, is_store_behind: submitted.is_behind }
    }
}

impl<T: Send + Sync + 'static> Publish<T> {
    /// Also for the subscriptions of this topic. Whoever reads several of them gets it once.
    pub fn and_to(self, topic: impl AsRef<str>) -> Self {
        let topic = topic.as_ref();
        let address = Topic::new(topic).map(Address::Topic);
        self.address(
            address
                .map_err(|reason| PublishError::InvalidTopic { topic: topic.to_owned(), reason }),
        )
    }

    /// Also for every subscription of this client.
    pub fn and_to_client(self, client: impl AsRef<str>) -> Self {
        let client = client.as_ref();
        let address = ClientId::new(client).map(Address::Client);
        self.address(
            address.map_err(|reason| PublishError::InvalidClient {
                client: client.to_owned(),
                reason,
            }),
        )
    }

    /// Also for every subscription.
    pub fn and_to_everyone(self) -> Self {
        self.address(Ok(Address::Everyone))
    }

    /// Sets the event type. Empty is none: the encoding's own, if it has one, stays.
    pub fn event(mut self, event_type: impl AsRef<str>) -> Self {
        match check_type(event_type.as_ref()) {
            Ok(event_type) => self.event_type = event_type,
            Err(wrong) => self.note_wrong(wrong),
        }
        self
    }

    /// Gives the event an id of the publisher's own, unique among the events that are kept.
    ///
    /// It takes the place of the hub's id on the wire. Publishing it again with the same content
    /// gives the first receipt; with other content it is an error.
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        match check_id(id.as_ref()) {
            Ok(id) => self.id = Some(id),
            Err(wrong) => self.note_wrong(wrong),
        }
        self
    }

    /// Sets the client's reconnection time with this event.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Publishes once, however often it is tried with this key within ten minutes.
    ///
    /// Keys of different credentials do not meet; use `""` where there are none, and a short name
    /// for the credential (a subject, a hash) where it is long or secret.
    pub fn idempotency_key(mut self, credential: &str, key: &str) -> Self {
        if credential.len() > CREDENTIAL_BYTES_MAX {
            self.note_wrong(PublishError::InvalidCredential { bytes: credential.len() });
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            self.note_wrong(PublishError::InvalidKey { bytes: key.len() });
        }
        self.key = Some(IdempotencyKey { credential: credential.into(), key: key.into() });
        self
    }

    /// Finishes the topics it is for: it is their last event. It cannot be for anybody else then.
    pub fn last(mut self) -> Self {
        self.last = true;
        self
    }

    /// Publishes. Never waits for a reader or a disk: in a hub with a store the receipt's
    /// [`durable`](Receipt::durable) waits for the commit.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; then nothing was published.
    ///
    /// # Panics
    ///
    /// If the hub's encoding does; nothing was published then either.
    pub fn publish(self, value: T) -> Result<Receipt, PublishError> {
        let hub = self.hub.clone();
        let Encoded { draft, given } = self.into_draft(value)?;
        let submitted = hub.append(smallvec![draft]).map_err(|(_, error)| error)?;
        Ok(hub.receipt(&submitted, 0, given))
    }

    /// Checks and encodes.
    pub(super) fn into_draft(
        mut self,
        value: T,
    ) -> Result<Encoded<impl FnOnce(Offset, Timestamp) -> Record<T> + use<T>>, PublishError> {
        let event = self.encode(&value)?;
        let settings = &self.hub.0.settings;
        let given = event.id().cloned();
        let body = self.hub.0.fingerprint_key.map(|_| stored::encode(&self.to, &event));
        let needs_fingerprint = given.is_some() || self.key.is_some();
        let fingerprint =
            if needs_fingerprint { self.fingerprint(&event) } else { Fingerprint::default() };
        let event_type = event.event_type().cloned();
        let frame = match given {
            Some(_) => Unstamped::Given(event.encode()),
            None => Unstamped::Numbered(event.encode_unstamped(&self.hub.0.id_prefix)),
        };
        let (bytes, bytes_max) = (frame.len_max(), settings.event_bytes_max);
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        let value_bytes = settings.value_bytes.as_ref().map(|bytes| bytes(&value));
        let value = value_bytes.map(|bytes| (value, bytes));
        let (to, id) = (self.to.clone(), given.clone());
        let stamp = move |offset: Offset, _: Timestamp| {
            Record::new(Fields { frame: frame.stamp(offset), to, event_type, id, value })
        };
        let id = given.as_ref().map(|id| id.as_str().into());
        let (key, finish) = (self.key.take(), self.last);
        let draft = Draft { to: self.to, id, key, fingerprint, finish, body, stamp: Some(stamp) };
        Ok(Encoded { draft, given })
    }

    /// The event as it will be, but for the hub's id.
    fn encode(&mut self, value: &T) -> Result<Event, PublishError> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        if self.last && self.to.iter().any(|address| address.topic().is_none()) {
            return Err(PublishError::LastNeedsTopics);
        }
        let mut event = self.hub.0.encoding.encode(value).map_err(PublishError::Encode)?;
        if let Some(own) = event.event_type() {
            check_type(own.as_str())?;
        }
        if let Some(own) = event.id() {
            check_id(own.as_str())?;
        }
        if let Some(event_type) = self.event_type.take() {
            event = event.with_type(event_type);
        }
        if let Some(id) = self.id.take() {
            event = event.with_id(id);
        }
        if let Some(retry) = self.retry {
            event = event.with_retry(retry);
        }
        Ok(event)
    }

    fn fingerprint(&self, event: &Event) -> Fingerprint {
        let event_type = event.event_type().map(EventType::as_str);
        let retry = event.retry().map(|retry| retry.as_millis());
        let id = event.id().map(EventId::as_str);
        if let Some(key) = &self.hub.0.fingerprint_key {
            // The same in every process: what is compared with it may be a year old.
            let mut content = stored::encode(&self.to, event);
            content.push(u8::from(self.last));
            content.extend_from_slice(id.unwrap_or_default().as_bytes());
            return Fingerprint::keyed(key, &content);
        }
        Fingerprint::of(&(&self.to, event_type, event.data(), retry, id, self.last))
    }

    fn address(mut self, address: Result<Address, PublishError>) -> Self {
        match address.map(|address| (self.to.binary_search(&address), address)) {
            Err(wrong) => self.note_wrong(wrong),
            Ok((Ok(_), _)) => {}
            Ok((Err(_), _)) if self.to.len() >= ADDRESSES_MAX => {
                self.note_wrong(PublishError::TooManyAddresses { addresses_max: ADDRESSES_MAX });
            }
            Ok((Err(place), address)) => self.to.insert(place, address),
        }
        self
    }

    fn note_wrong(&mut self, wrong: PublishError) {
        self.wrong.get_or_insert(wrong);
    }
}

/// An event that only lacks its offset.
pub(super) struct Encoded<F> {
    pub(super) draft: Draft<F>,
    /// The id its publisher gave.
    pub(super) given: Option<EventId>,
}

/// A frame before its offset is known.
enum Unstamped {
    /// With an id of its publisher's.
    Given(Frame),
    /// With room for the offset.
    Numbered(UnstampedFrame),
}

impl Unstamped {
    fn len_max(&self) -> usize {
        match self {
            Self::Given(frame) => frame.len(),
            Self::Numbered(frame) => frame.len_max(),
        }
    }

    fn stamp(self, offset: Offset) -> Frame {
        match self {
            Self::Given(frame) => frame,
            Self::Numbered(frame) => frame.stamp(offset.get()),
        }
    }
}

fn check_type(text: &str) -> Result<Option<EventType>, PublishError> {
    if text.starts_with(control::PREFIX) || RESERVED_TYPES.contains(&text) {
        return Err(PublishError::ReservedType { event_type: text.to_owned() });
    }
    let event_type = EventType::new(text).map_err(PublishError::InvalidType)?;
    Ok(Some(event_type).filter(|_| !text.is_empty()))
}

fn check_id(text: &str) -> Result<EventId, PublishError> {
    let wrong = || PublishError::InvalidId { id: text.to_owned() };
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > ID_BYTES_MAX || !visible || resembles_cursor(text) {
        return Err(wrong());
    }
    EventId::new(text).map_err(|_| wrong())
}
