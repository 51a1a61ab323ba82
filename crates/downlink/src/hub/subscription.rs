//! A subscription reads the log (the hub's sequence of events) through a reader, which is its
//! position in the log. The subscription yields deliveries: events, and gaps (notices that events
//! are missing).
//!
//! A subscription has no queue of events. It only reads one small batch of events ahead. While it
//! waits for new events, it holds no events.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use downlink_log::{
    Batch, Cursor, EndReason, Entry, Next, Offset, Read, Reader, Selection, Start as LogStart,
};
use downlink_proto::Frame;
use futures_core::Stream;

use super::{
    ClientId, Connection, Delivery, DisconnectReason, Gap, GapReason, LagPolicy, Observer,
    Published, control,
    handle::Shared,
    read_mode::{Expectation, ReadMode, Standalone},
    record::{Record, cursor_id},
};

/// The maximum batch of one read of the log. A socket accepts about this much at once, so the rest
/// of a larger batch would only wait in memory.
const READ: Batch = Batch { events_max: 64, bytes_max: 64 << 10 };

/// The maximum number of events that a filter refuses in one poll. The poll then ends, so that
/// other tasks can run.
const REFUSED_MAX: usize = 256;

/// A filter of the app. It returns true if the subscription wants the value.
pub(super) type Filter<T> = Box<dyn FnMut(&T) -> bool + Send>;

/// Reads the events of a hub. The cursor of a subscription is the position of the next event to
/// read. A subscription is a stream of [`Delivery`], and a handler can return it as a response.
/// Dropping a subscription ends it.
///
/// A subscription that is not dropped waits for events until its topics are finished, its client is
/// disconnected, or the hub drains or closes. A hub with a store closes when its last handle is
/// dropped.
///
/// # Limits
///
/// A subscription reads at most 64 events ahead. Together, these events have at most 64 KiB plus
/// the size of one event. While the subscription waits for new events, it holds no events. One poll
/// skips at most 256 events that the filter refuses.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use downlink::hub::{Delivery, Hub, Start};
/// use futures_util::StreamExt;
///
/// let hub = Hub::<String>::text();
/// hub.to("news").publish("hello".to_owned())?;
/// let mut news = hub.subscribe().topic("news").start(Start::Earliest).open().await?;
/// hub.drain();
/// while let Some(delivery) = news.next().await {
///     match delivery {
///         Delivery::Event(event) => assert_eq!(event.data(), "hello"),
///         Delivery::Gap(gap) => panic!("something is missing: {:?}", gap.reason),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscription<T: Send + Sync + 'static> {
    /// This is not the hub itself, because an open subscription must not keep the hub open.
    hub: Arc<Shared<T>>,
    reader: Reader<Record<T>>,
    /// The position of the client: if the client reconnects with its last event id, it resumes at
    /// this offset.
    client_next: Offset,
    /// Events that were read from the log and not yet yielded. `None` if there are none.
    ahead: Option<Box<vec::IntoIter<Entry<Record<T>>>>>,
    /// `None` in most subscriptions.
    uncommon: Option<Box<UncommonParts<T>>>,
    /// Whether the client resumed with the id of the subscription's first cursor, and has got no
    /// event and no gap since then. Its last event id is then the id of the cursor at
    /// `client_next`.
    client_next_is_given: bool,
    /// Whether the client gave a last event id that the log knew.
    resumed: bool,
    /// Whether `downlink.open` is still to be sent.
    opening: bool,
    announce_alive: bool,
    expects: Expectation,
    /// Whether [`end_frame`](Self::end_frame) was called.
    has_sent_end: bool,
    ended: Option<DisconnectReason>,
}

/// The parts that few subscriptions have. They are in a separate allocation, so that a subscription
/// without these parts is small.
struct UncommonParts<T> {
    filter: Option<Filter<T>>,
    /// The last event id that the client gave, if it is not the id of the subscription's first
    /// cursor. It is kept until the client gets a gap or an event.
    given: Option<Box<str>>,
    /// A gap that was found when the subscription opened. `None` once the subscription has yielded
    /// the gap.
    missing: Option<downlink_log::Gap>,
}

/// Calls the observer. If it panics, this logs the panic and returns.
fn notify(
    observed: Option<(Arc<dyn Observer>, Connection)>,
    call: impl FnOnce(&dyn Observer, &Connection),
) {
    let Some((observer, connection)) = observed else { return };
    if catch_unwind(AssertUnwindSafe(|| call(&*observer, &connection))).is_err() {
        tracing::error!(connection = connection.number, "the hub's observer panicked");
    }
}

impl<T: Send + Sync + 'static> Drop for Subscription<T> {
    fn drop(&mut self) {
        let observed = self.observed();
        // The reader leaves the hub first, so that the hub no longer counts the subscription when
        // the observer is called.
        self.reader.leave();
        // A server that shuts down may drop a response before the response has read the reason for
        // its end.
        let told = self.reader.told_to_end().map(DisconnectReason::from);
        let reason = self.ended.or(told).unwrap_or(DisconnectReason::Left);
        self.hub.counters.note_disconnected(reason);
        let (number, client) = (self.number(), self.shown_client());
        tracing::debug!(number, ?client, reason = reason.as_str(), "unsubscribed");
        notify(observed, |observer, connection| observer.disconnected(connection, reason));
    }
}

impl<T: Send + Sync + 'static> Subscription<T> {
    pub(super) fn new(
        hub: Arc<Shared<T>>,
        reader: Reader<Record<T>>,
        start: &LogStart,
        filter: Option<Filter<T>>,
        (opening, announce_alive): (bool, bool),
    ) -> Self {
        let cursor = reader.cursor();
        let mut subscription = Self {
            hub,
            reader,
            client_next: cursor.next,
            ahead: None,
            uncommon: None,
            client_next_is_given: false,
            resumed: matches!(start, LogStart::After(_)),
            opening,
            announce_alive,
            expects: Expectation::default(),
            has_sent_end: false,
            ended: None,
        };
        subscription.hub.counters.note_connected();
        if filter.is_some() {
            subscription.uncommon().filter = filter;
        }
        match start {
            LogStart::After(id) if Cursor::parse_id(id) == Some(cursor) => {
                subscription.client_next_is_given = true;
            }
            LogStart::After(id) => {
                subscription.uncommon().given = Some(id.clone());
                subscription.look_for_gap();
            }
            LogStart::Since(_) => subscription.look_for_gap(),
            _ => {}
        }
        subscription.resumed &= !subscription.is_unknown();
        let (number, client) = (subscription.number(), subscription.shown_client());
        tracing::debug!(number, ?client, resumed = subscription.resumed, "subscribed");
        notify(subscription.observed(), |observer, connection| observer.connected(connection));
        subscription
    }

    fn uncommon(&mut self) -> &mut UncommonParts<T> {
        let none = || Box::new(UncommonParts { filter: None, given: None, missing: None });
        self.uncommon.get_or_insert_with(none)
    }

    fn is_missing(&self) -> bool {
        self.uncommon.as_ref().is_some_and(|uncommon| uncommon.missing.is_some())
    }

    /// Whether the log does not know the id that the client gave.
    fn is_unknown(&self) -> bool {
        let missing = self.uncommon.as_ref().and_then(|uncommon| uncommon.missing);
        let is_unknown =
            |reason| matches!(reason, GapReason::UnknownId | GapReason::NewEpoch | GapReason::Lost);
        missing.is_some_and(|gap| is_unknown(gap.reason))
    }

    /// The client id for log lines. Client ids come from outside, so log lines show them with
    /// `Debug`, which escapes them.
    fn shown_client(&self) -> Option<&str> {
        self.client().map(ClientId::as_str)
    }

    /// The observer of the hub, if it has one, and the state of this subscription for its calls.
    fn observed(&self) -> Option<(Arc<dyn Observer>, Connection)> {
        let observer = self.hub.settings.observer.clone()?;
        let overview = self.reader.overview(self.hub.clock.now());
        let connection = Connection {
            number: overview.number,
            client: overview.client,
            selectors: self.reader.selection().selectors,
            resumed: self.resumed,
            age: overview.age,
            events: overview.events,
            bytes: overview.bytes,
            lag: overview.lag,
            tag: overview.tag,
        };
        Some((observer, connection))
    }

    fn client_cursor(&self) -> Cursor {
        self.reader.cursor_at(self.client_next)
    }

    /// Finds out whether events are missing right after the cursor. If events are missing, the
    /// client must not get the cursor as an id. With this id, a client that leaves before it gets
    /// the gap would later resume after the missing events. It would never learn of the gap.
    fn look_for_gap(&mut self) {
        // Only a gap matters here. The first poll handles every other result.
        if let Read::Gap(gap) = self.look() {
            self.uncommon().missing = Some(gap);
        }
    }

    /// Reads the log once, and stores the batch of events in `ahead` if there is one.
    fn look(&mut self) -> Read {
        let mut read = Vec::new();
        let found = self.reader.read(self.hub.clock.now(), READ, &mut read);
        if !read.is_empty() {
            self.hub.counters.note_read(read.len());
            let bytes = read.iter().map(|entry| entry.payload.frame.len()).sum();
            self.reader.note_read(read.len(), bytes);
            self.ahead = Some(Box::new(read.into_iter()));
        }
        found
    }

    /// The number of the subscription, unique in its hub.
    pub fn number(&self) -> u64 {
        self.reader.number()
    }

    /// A number that subscriptions to the same topics share. A server that polls many subscriptions
    /// uses it to let the topics take turns.
    pub(crate) fn lane(&self) -> u32 {
        self.reader.lane()
    }

    /// See [`FrameSource::prefetch`](crate::http::FrameSource::prefetch).
    pub(crate) fn prefetch(&self) -> bool {
        self.reader.prefetch() | self.announce_alive
    }

    /// The topics, the patterns and the client of the subscription.
    pub fn selection(&self) -> Selection {
        self.reader.selection()
    }

    /// The client of the subscription, if it has one.
    pub fn client(&self) -> Option<&ClientId> {
        self.reader.client()
    }

    /// The id with which a new subscription would resume at the present position of this
    /// subscription.
    ///
    /// If the subscription begins with a gap that it has not yielded yet, the result is the id that
    /// the client gave. A new subscription that resumes after this id gets the gap too. If the
    /// subscription begins with such a gap and the client gave no id, the result is empty.
    pub fn last_event_id(&self) -> String {
        match &self.uncommon {
            Some(uncommon) if uncommon.missing.is_some() => {
                uncommon.given.as_deref().unwrap_or_default().to_owned()
            }
            _ => self.client_cursor().to_string(),
        }
    }

    /// How far the subscription is behind: the newest offset of its topics minus the offset of the
    /// last event that it has yielded.
    pub fn lag(&self) -> u64 {
        let read_ahead = self.ahead.is_some();
        self.reader.lag(if read_ahead { self.client_next } else { self.reader.cursor().next })
    }

    /// Records why the response ended. The caller calls this before it drops the subscription.
    pub(crate) fn note_ended(&mut self, reason: DisconnectReason) {
        self.ended.get_or_insert(reason);
    }

    /// Records that the peer read nothing for too long. The server calls this before it drops the
    /// subscription.
    pub(crate) fn note_stalled(&mut self, peer: &str, age: Duration) {
        if self.ended.is_some() {
            return;
        }
        self.note_ended(DisconnectReason::Stalled);
        let (number, client, lag) = (self.number(), self.shown_client(), self.lag());
        tracing::debug!(
            number,
            client,
            peer,
            age_s = age.as_secs(),
            lag,
            "a subscriber read nothing for too long, so its connection was cut"
        );
    }

    /// Why the subscription ended. `None` until its stream has ended.
    pub fn ended(&self) -> Option<DisconnectReason> {
        self.ended
    }

    /// The next delivery, or `None` at the end. If this returns `Pending`, the next poll continues
    /// and misses no event.
    pub(crate) fn poll_delivery_by<R: ReadMode>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Delivery<T>>> {
        // The reader must be registered before the last read of a poll. Otherwise, an event that is
        // published after this read would not wake the task. If no event is expected, the first
        // read is probably also the last read. So the reader is then registered before the first
        // read.
        let mut registered = mem::take(&mut self.expects) == Expectation::Nothing;
        if registered {
            R::register(&self.reader, cx);
            let has_nothing = self.ahead.is_none() && self.ended.is_none();
            if has_nothing && self.reader.is_idle() {
                return self.wait();
            }
        }
        let mut refused = 0;
        loop {
            if self.ended.is_some() {
                return Poll::Ready(None);
            }
            let entry = match self.next_entry::<R>() {
                Ok(entry) => entry,
                Err(Read::Events) => continue,
                Err(Read::Gap(gap)) => return Poll::Ready(self.take_gap(gap)),
                Err(Read::CaughtUp | Read::Fetching) if registered => return self.wait(),
                Err(Read::CaughtUp | Read::Fetching) => {
                    R::register(&self.reader, cx);
                    registered = true;
                    continue;
                }
                Err(Read::Ended(reason)) => return Poll::Ready(self.end(reason.into())),
                Err(_) => return Poll::Ready(self.end(DisconnectReason::Closed)),
            };
            if let Some(event) = self.take(entry) {
                return Poll::Ready(Some(Delivery::Event(event)));
            }
            refused += 1;
            if refused >= REFUSED_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Returns the frame of the next event by a fast path, which serves nearly every poll. If the
    /// fast path cannot serve this poll, it reads nothing and returns `None`. The caller then uses
    /// [`poll_delivery_by`](Self::poll_delivery_by).
    pub(crate) fn poll_frame_by<R: ReadMode>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Option<Poll<Frame>> {
        if self.ahead.is_some() || self.uncommon.is_some() || self.ended.is_some() {
            return None;
        }
        if self.expects == Expectation::Nothing {
            R::register(&self.reader, cx);
            // If the reader is not idle, this returns `None`. The caller then calls
            // `poll_delivery_by`, which registers again before it reads.
            return self.reader.is_idle().then(|| self.wait());
        }
        if mem::take(&mut self.expects) == Expectation::Anything {
            return None;
        }
        let hub = &self.hub;
        let now = || R::now(&hub.clock);
        let Next::Event(event) = self.reader.read_next_as(now, |record| record.frame.clone())
        else {
            return None;
        };
        hub.counters.note_read(1);
        self.reader.note_read(1, event.payload.len());
        self.expects = Expectation::after_event(self.reader.is_behind());
        self.note_sent(event.offset);
        Some(Poll::Ready(event.payload))
    }

    /// Returns `Pending`. Before the call, the caller has registered the reader and then checked
    /// that it has nothing to read.
    fn wait<R>(&mut self) -> Poll<R> {
        self.expects = Expectation::Event;
        Poll::Pending
    }

    /// Records that the client has every event up to this offset.
    fn note_sent(&mut self, offset: Offset) {
        self.client_next = Offset::new(offset.get() + 1);
        self.client_next_is_given = false;
    }

    /// The next event, or the reason why none was returned. After `Read::Events`, the caller calls
    /// this again.
    fn next_entry<R: ReadMode>(&mut self) -> Result<Entry<Record<T>>, Read> {
        if let Some(entry) = self.next_ahead() {
            return Ok(entry);
        }
        if let Some(gap) = self.uncommon.as_mut().and_then(|uncommon| uncommon.missing.take()) {
            return Err(Read::Gap(gap));
        }
        let hub = &self.hub;
        match self.reader.read_next(|| R::now(&hub.clock)) {
            Next::Event(entry) => {
                hub.counters.note_read(1);
                self.reader.note_read(1, entry.payload.frame.len());
                self.expects = Expectation::after_event(self.reader.is_behind());
                Ok(entry)
            }
            Next::CaughtUp => Err(Read::CaughtUp),
            _ => Err(self.look()),
        }
    }

    fn next_ahead(&mut self) -> Option<Entry<Record<T>>> {
        let ahead = self.ahead.as_mut()?;
        let entry = ahead.next();
        if ahead.len() == 0 {
            self.ahead = None;
        }
        entry
    }

    /// Makes an event for the client. `None` if the filter refuses the event or panics.
    fn take(&mut self, entry: Entry<Record<T>>) -> Option<Published<T>> {
        if let Some(filter) = self.uncommon.as_mut().and_then(|uncommon| uncommon.filter.as_mut()) {
            let (value, _) = entry.payload.value.as_ref()?;
            match catch_unwind(AssertUnwindSafe(|| filter(value))) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => {
                    tracing::error!(number = self.number(), "a subscription's filter panicked");
                    return self.end(DisconnectReason::FilterPanicked);
                }
            }
        }
        self.note_sent(entry.offset);
        // Without a filter and a gap, the subscription no longer needs its uncommon parts.
        self.uncommon = self
            .uncommon
            .take()
            .filter(|uncommon| uncommon.filter.is_some() || uncommon.missing.is_some());
        if let Some(uncommon) = &mut self.uncommon {
            uncommon.given = None;
        }
        // The id contains the epoch of the event. An epoch is a period in which the offsets of a
        // hub are unique. The epoch of the event may be earlier than the current epoch, because the
        // hub begins a new epoch whenever it may have lost history.
        let id = self.reader.id_of(entry.offset);
        let at = self.hub.clock.log.shown(entry.at);
        Some(Published { offset: entry.offset, at, id, record: entry.payload })
    }

    fn take_gap(&mut self, gap: downlink_log::Gap) -> Option<Delivery<T>> {
        let settings = &self.hub.settings;
        if gap.reason == GapReason::Lagged && settings.lag_policy == LagPolicy::Disconnect {
            return self.end(DisconnectReason::Lagged);
        }
        let wait = settings.gap_wait_max.mul_f64(fastrand::f64());
        let given =
            self.uncommon.as_mut().and_then(|uncommon| uncommon.given.take()).map(String::from);
        let given =
            given.or_else(|| self.client_next_is_given.then(|| self.client_cursor().to_string()));
        self.client_next_is_given = false;
        self.client_next = gap.next;
        let id_of = |offset| cursor_id(self.reader.id_of(offset));
        let gap = Gap {
            reason: gap.reason,
            after: given.or_else(|| gap.after.map(|after| id_of(after).as_str().to_owned())),
            until: gap.until.map(id_of),
            oldest: gap.oldest.map(id_of),
            id: cursor_id(self.client_cursor()),
            wait,
        };
        self.hub.counters.note_gap(gap.reason);
        let (number, client) = (self.number(), self.shown_client());
        let reason = gap.reason.as_str();
        tracing::debug!(number, ?client, reason, after = ?gap.after, "gap");
        notify(self.observed(), |observer, connection| observer.gap(connection, &gap));
        Some(Delivery::Gap(gap))
    }

    /// Ends the subscription. It yields nothing more.
    fn end<R>(&mut self, reason: DisconnectReason) -> Option<R> {
        self.ended = Some(reason);
        self.ahead = None;
        None
    }

    /// The frame of `downlink.open`. `None` at later calls, and if the subscription does not send
    /// this event.
    pub(crate) fn open_frame(&mut self, keep_alive: Option<Duration>) -> Option<Frame> {
        if !mem::take(&mut self.opening) {
            return None;
        }
        // If a gap is not yielded yet, the frame has no id. With the cursor as its id, a client
        // that leaves before it gets the gap would later resume after the missing events.
        let id = (!self.is_missing()).then(|| cursor_id(self.client_cursor()));
        Some(control::open(id, self.number(), self.resumed, keep_alive).into())
    }

    /// The keep-alive as an event. `None` if the caller should send a comment instead. If the
    /// subscription's cursor has moved since the last id that the client got, the event has the new
    /// cursor as its id. Otherwise the event has no id, and is sent only if `announce_alive` is on.
    pub(crate) fn alive_frame(&mut self) -> Option<Frame> {
        // If nothing is published, only this call evicts events that are too old.
        self.reader.expire(self.hub.clock.now());
        let cursor = self.reader.cursor();
        if self.ahead.is_none() && !self.is_missing() && cursor.next > self.client_next {
            self.client_next = cursor.next;
            return Some(control::alive(Some(cursor_id(cursor))).into());
        }
        self.announce_alive.then(|| control::alive(None).into())
    }

    /// Whether keep-alives are events that a page listens to.
    pub(crate) fn announces_alive(&self) -> bool {
        self.announce_alive
    }

    /// The last frame of the stream, which gives the client a reconnection time. `None` at later
    /// calls, and if the reason for the end needs no reconnection time.
    pub(crate) fn end_frame(&mut self) -> Option<Frame> {
        if mem::replace(&mut self.has_sent_end, true) {
            return None;
        }
        match self.ended? {
            DisconnectReason::Drained
            | DisconnectReason::Closed
            | DisconnectReason::Lagged
            | DisconnectReason::Unreadable => Some(Frame::retry(self.hub.reconnection_time())),
            _ => None,
        }
    }
}

impl From<EndReason> for DisconnectReason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Drained => Self::Drained,
            EndReason::Disconnected => Self::Disconnected,
            EndReason::Finished => Self::Finished,
            EndReason::Unreadable => Self::Unreadable,
            _ => Self::Closed,
        }
    }
}

impl<T: Send + Sync + 'static> Stream for Subscription<T> {
    type Item = Delivery<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery<T>>> {
        self.get_mut().poll_delivery_by::<Standalone>(cx)
    }
}

impl<T: Send + Sync + 'static> std::fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("number", &self.number())
            .field("client", &self.client())
            .field("last_event_id", &self.last_event_id())
            .finish_non_exhaustive()
    }
}
