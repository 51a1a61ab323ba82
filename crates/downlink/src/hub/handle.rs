//! The hub itself: a handle, and the state that all handles share.

use std::{fmt, future::poll_fn, ops::Deref, sync::Arc};

use downlink_log::Log;
use downlink_proto::EventId;
use tokio::sync::watch;

use super::{
    ClientId, HubClock, Stats, StoreError, Timestamp,
    encoding::Encode,
    record::{Record, cursor_id},
    settings::HubSettings,
    stats::Counters,
};

/// Publishes values of one type and lets subscriptions read them. Clones are handles to one hub.
///
/// [`builder`](Self::builder) sets its retention, limits and store. With a store, history survives
/// restarts and crashes. In memory, history ends with the process, and clients that
/// come back to the next process get a gap. There is nothing to stop. When its last handle is gone,
/// a hub with a store writes what waits and lets go of the file, and the subscriptions that are left
/// end: they are closed once they have read the events in memory. Without a store they wait.
///
/// # Limits
///
/// History is at most [`Limits::bytes_max`] for the whole hub, and per topic what its [`Retention`]
/// says. Besides history, the hub holds about 300 bytes for each subscription, up to
/// [`Limits::subscribers_max`]; the same for each topic, up to [`Limits::topics_max`]; 65,536 names
/// of topics that were forgotten; and 65,536 idempotency keys.
///
/// [`Limits::bytes_max`]: super::Limits::bytes_max
/// [`Limits::subscribers_max`]: super::Limits::subscribers_max
/// [`Limits::topics_max`]: super::Limits::topics_max
/// [`Retention`]: super::Retention
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use downlink::hub::{Delivery, Hub};
/// use futures_util::StreamExt;
///
/// let hub = Hub::<String>::text();
/// let mut subscription = hub.subscribe().topic("news").open().await?;
/// let receipt = hub.to("news").publish("hello".to_owned())?;
/// assert_eq!(receipt.matched(), Some(1));
///
/// let Some(Delivery::Event(event)) = subscription.next().await else { panic!("no event") };
/// assert_eq!(event.data(), "hello");
/// assert_eq!(Some(&event.id()), receipt.id());
/// # Ok(())
/// # }
/// ```
pub struct Hub<T: Send + Sync + 'static>(pub(super) Arc<HubState<T>>);

/// The state that the handles of one hub share. Subscriptions have no part in it: they would keep
/// the store open.
pub(super) struct HubState<T: Send + Sync + 'static> {
    pub(super) log: Log<Record<T>>,
    pub(super) encode: Box<Encode<T>>,
    /// The prefix of this hub's ids: the epoch and a dash.
    pub(super) id_prefix: EventId,
    /// Keys the fingerprints: random, or the store's, which outlives the process.
    pub(super) fingerprint_key: [u8; 16],
    pub(super) has_store: bool,
    /// Whether it drains. Never unset.
    pub(super) drain: watch::Sender<bool>,
    pub(super) common: Arc<Shared<T>>,
}

/// The state that the handles and the subscriptions of one hub share.
pub(super) struct Shared<T> {
    pub(super) settings: HubSettings<T>,
    pub(super) clock: HubClock,
    pub(super) counters: Counters,
}

impl<T: Send + Sync + 'static> Deref for HubState<T> {
    type Target = Shared<T>;

    fn deref(&self) -> &Shared<T> {
        &self.common
    }
}

impl<T: Send + Sync + 'static> Clone for Hub<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Hub<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("log", &self.0.log).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// The newest id of the hub. A subscription that starts after it misses nothing from now on.
    ///
    /// A page that renders from a database takes this first, then reads the database, then
    /// subscribes after it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = downlink::Hub::<String>::text();
    /// let cursor = hub.cursor();
    /// hub.to("news").publish("while the page was made".to_owned())?;
    /// let subscription = hub.subscribe().topic("news").resume(&cursor).open().await?;
    /// assert_eq!(subscription.lag(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cursor(&self) -> EventId {
        cursor_id(self.0.log.tail())
    }

    /// Ends the hub: later publishes and subscribes get an error, and every subscription ends when
    /// it has read all events. Never waits for a reader. Events that wait for the store are written
    /// first: see [`closed`](Self::closed).
    pub fn close(&self) {
        self.0.log.close();
    }

    /// Waits until a hub that was closed has written everything and let go of its store. Without a
    /// store there is nothing to wait for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn closed(&self) {
        poll_fn(|cx| self.0.log.poll_closed(cx.waker())).await;
    }

    /// Why the hub takes no events at present, or `None` if it takes them. Without a store it always
    /// takes them.
    ///
    /// For health checks: a hub on a full disk refuses publishes until there is room, and after an
    /// error that [`is_final`](StoreError::is_final) until it is made anew. Reading goes on.
    ///
    /// ```
    /// let hub = downlink::Hub::<String>::text();
    /// let status = if hub.store_error().is_some() { 503 } else { 200 };
    /// assert_eq!(status, 200);
    /// ```
    pub fn store_error(&self) -> Option<StoreError> {
        self.0.log.store_error()
    }

    /// Ends every subscription of a client, and says how many there were.
    ///
    /// They read nothing more, and yield the few events that they have read already (see
    /// [`Subscription`](super::Subscription)). The client may subscribe again. To keep it out,
    /// refuse its next subscription.
    pub fn disconnect(&self, client: &str) -> usize {
        ClientId::new(client).map_or(0, |client| self.0.log.disconnect(&client))
    }

    /// The numbers now. Each was right at some moment during the call, but perhaps not all at the
    /// same moment.
    pub fn stats(&self) -> Stats {
        self.0.counters.stats(&self.0.log.totals(self.now()))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
