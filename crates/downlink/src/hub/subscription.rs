//! A subscription: a reader of the log that yields deliveries.
//!
//! It holds no queue. What it has read and not yet yielded is one small batch, which is gone while
//! it waits.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use downlink_log::{Batch, Cursor, EndReason, Entry, Offset, Read, Reader};
use downlink_proto::Frame;
use futures_core::Stream;

use super::{
    ClientId, Delivery, DisconnectReason, Gap, Hub, LagPolicy, Published, control,
    observe::{Connection, Happened, tell},
    record::{Record, cursor_id},
    subscribe::Filter,
};

/// What one look at the log takes: about what a socket takes at once. More would only be held.
const READ: Batch = Batch { events_max: 64, bytes_max: 64 << 10 };

/// Events that a filter refuses in one poll before others get their turn.
const REFUSED_MAX: usize = 256;

/// Reads a hub from a cursor on: a stream of [`Delivery`], and a response. Dropping it is leaving.
pub struct Subscription<T: Send + Sync + 'static> {
    hub: Hub<T>,
    reader: Reader<Record<T>>,
    /// Read and not yet yielded.
    read: vec::IntoIter<Entry<Record<T>>>,
    filter: Option<Filter<T>>,
    /// The id the client gave, until it is told of a gap.
    given: Option<Box<str>>,
    /// What the client was last told: its cursor, should it come back.
    told: Cursor,
    /// `downlink.open` is still to be sent.
    opening: bool,
    announce_alive: bool,
    resumed: bool,
    ended: Option<DisconnectReason>,
}

impl<T: Send + Sync + 'static> Subscription<T> {
    pub(super) fn new(
        hub: Hub<T>,
        reader: Reader<Record<T>>,
        given: Option<Box<str>>,
        filter: Option<Filter<T>>,
    ) -> Self {
        let told = reader.cursor();
        let resumed = reader.has_asked();
        let subscription = Self {
            hub,
            reader,
            read: Vec::new().into_iter(),
            filter,
            given,
            told,
            opening: false,
            announce_alive: false,
            resumed,
            ended: None,
        };
        subscription.hub.0.counters.note_connected();
        subscription.tell(&Happened::Connected);
        subscription
    }

    pub(super) fn with_control_events(mut self, open: bool, announce_alive: bool) -> Self {
        self.opening = open;
        self.announce_alive = announce_alive;
        self
    }

    /// Unique among the subscriptions of this hub.
    pub fn number(&self) -> u64 {
        self.reader.number()
    }

    /// Whose it is.
    pub fn client(&self) -> Option<&ClientId> {
        self.reader.client()
    }

    /// The id after which a new subscription would go on from here.
    pub fn last_event_id(&self) -> String {
        self.told.to_string()
    }

    /// How far it is behind: newest offset of its topics less the last it has read.
    pub fn lag(&self) -> u64 {
        self.reader.lag() + self.read.len() as u64
    }

    /// Why nothing follows any more, once the stream has ended.
    pub fn ended(&self) -> Option<DisconnectReason> {
        self.ended
    }

    /// The next delivery; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// A poll that is not ready has taken nothing.
    pub fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery<T>>> {
        let mut registered = false;
        let mut refused = 0;
        loop {
            if self.ended.is_some() {
                return Poll::Ready(None);
            }
            if let Some(entry) = self.read.next() {
                if let Some(event) = self.take(entry) {
                    return Poll::Ready(Some(Delivery::Event(event)));
                }
                refused += 1;
                if refused >= REFUSED_MAX {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            let mut read = Vec::new();
            match self.reader.read(self.hub.now(), READ, &mut read) {
                Read::Events => {
                    self.hub.0.counters.note_read(read.len());
                    self.read = read.into_iter();
                }
                Read::Gap(gap) => return Poll::Ready(self.take_gap(gap)),
                Read::CaughtUp if registered => {
                    // An empty batch keeps no memory while the subscription waits.
                    self.read = Vec::new().into_iter();
                    return Poll::Pending;
                }
                Read::CaughtUp => {
                    self.reader.register(cx.waker());
                    registered = true;
                }
                Read::Ended(reason) => self.end(reason.into()),
                _ => self.end(DisconnectReason::Closed),
            }
        }
    }

    /// An event for the client, unless its filter refuses it.
    fn take(&mut self, entry: Entry<Record<T>>) -> Option<Published<T>> {
        let id = Cursor { next: Offset::new(entry.offset.get() + 1), ..self.told };
        if let Some(filter) = &mut self.filter {
            let (value, _) = entry.payload.value.as_ref()?;
            match catch_unwind(AssertUnwindSafe(|| filter(value))) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => {
                    tracing::error!(number = self.number(), "a subscription's filter panicked");
                    self.end(DisconnectReason::FilterPanicked);
                    return None;
                }
            }
        }
        self.told = id;
        self.given = None;
        Some(Published { offset: entry.offset, at: entry.at, id, record: entry.payload })
    }

    fn take_gap(&mut self, gap: downlink_log::Gap) -> Option<Delivery<T>> {
        let settings = &self.hub.0.settings;
        if gap.reason == super::GapReason::Lagged && settings.lag_policy == LagPolicy::Disconnect {
            self.end(DisconnectReason::Lagged);
            return None;
        }
        let wait = settings.gap_wait_max.mul_f64(fastrand::f64());
        let given = self.given.take().map(String::from);
        let gap = Gap::new(gap, given, self.told, wait);
        if let Some(cursor) = Cursor::parse_id(gap.id.as_str()) {
            self.told = cursor;
        }
        self.hub.0.counters.note_gap(gap.reason);
        self.tell(&Happened::Gap(&gap));
        Some(Delivery::Gap(gap))
    }

    fn end(&mut self, reason: DisconnectReason) {
        self.ended = Some(reason);
        self.read = Vec::new().into_iter();
    }

    fn tell(&self, happened: &Happened<'_>) {
        let connection = Connection {
            number: self.reader.number(),
            client: self.reader.client().cloned(),
            resumed: self.resumed,
        };
        tell(self.hub.0.settings.observer.as_deref(), &connection, happened);
    }

    /// `downlink.open`, once, if it is wanted.
    pub(crate) fn open_frame(&mut self, keep_alive: Option<Duration>) -> Option<Frame> {
        if !std::mem::take(&mut self.opening) {
            return None;
        }
        let connection = self.number().to_string();
        Some(control::open(cursor_id(self.told), self.resumed, &connection, keep_alive).into())
    }

    /// What keeps the connection alive: an event with an id where the cursor has moved past what
    /// the client was told, else one without or, as `None`, a comment.
    pub(crate) fn alive_frame(&mut self) -> Option<Frame> {
        let cursor = self.reader.cursor();
        if self.read.len() == 0 && cursor.next > self.told.next {
            self.told = cursor;
            return Some(control::alive(Some(cursor_id(cursor))).into());
        }
        self.announce_alive.then(|| control::alive(None).into())
    }

    /// The last frame: when to come back, for those who are to.
    pub(crate) fn end_frame(&self) -> Option<Frame> {
        match self.ended? {
            DisconnectReason::Drained | DisconnectReason::Closed | DisconnectReason::Lagged => {
                Some(Frame::retry(self.hub.reconnection_time()))
            }
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
            _ => Self::Closed,
        }
    }
}

impl<T: Send + Sync + 'static> Stream for Subscription<T> {
    type Item = Delivery<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery<T>>> {
        self.get_mut().poll_delivery(cx)
    }
}

impl<T: Send + Sync + 'static> Drop for Subscription<T> {
    fn drop(&mut self) {
        let reason = self.ended.unwrap_or(DisconnectReason::Left);
        self.hub.0.counters.note_disconnected(reason);
        self.tell(&Happened::Disconnected(reason));
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

/// Nothing in a subscription is pinned in place: the filter is boxed and called, never polled.
impl<T: Send + Sync + 'static> Unpin for Subscription<T> {}
