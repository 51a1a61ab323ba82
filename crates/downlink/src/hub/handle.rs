//! The type [`Hub`], which is a handle, and the state that all handles of a hub share.

use std::{fmt, future::poll_fn, ops::Deref, sync::Arc};

use downlink_log::Log;
use downlink_proto::EventId;
use tokio::sync::watch;

use super::{
    ClientId, HubClock, HubError, HubRetention, Stats, StoreError, Timestamp,
    encoding::Encode,
    record::{Record, cursor_id},
    settings::HubSettings,
    stats::Counters,
};

/// Publishes values of one type and lets subscriptions read them. Clones are handles to the same
/// hub.
///
/// [`builder`](Self::builder) sets the retention, the limits and the store of a hub.
/// [`set_retention`](Self::set_retention) changes the retention later. With a store,
/// history survives restarts and crashes. Without a store, history ends with the process, and
/// clients that reconnect to the next process get a gap.
///
/// A hub does not need to be stopped. When the last handle of a hub with a store is dropped, the
/// hub writes the waiting events and closes the file. Its subscriptions end when they have read the
/// events in memory. If the last handle of a hub without a store is dropped, the subscriptions stay
/// open.
///
/// # Limits
///
/// The history of the whole hub takes at most [`Limits::bytes_max`]. The [`Retention`] of each
/// topic limits the history of the topic. In addition to history, the hub holds:
///
/// - about 300 bytes for each subscription, for at most [`Limits::subscribers_max`] subscriptions;
/// - about 300 bytes for each topic, for at most [`Limits::topics_max`] topics;
/// - at most 65,536 names of topics that nothing uses any more;
/// - at most 65,536 idempotency keys.
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

/// The state that the handles of one hub share. Subscriptions do not hold this state, because an
/// open subscription would then keep the store open.
pub(super) struct HubState<T: Send + Sync + 'static> {
    pub(super) log: Log<Record<T>>,
    pub(super) encode: Box<Encode<T>>,
    /// The prefix of this hub's ids: the epoch and a dash. An epoch is a period in which the
    /// offsets of a hub are unique.
    pub(super) id_prefix: EventId,
    /// The key of the fingerprints. A fingerprint is a hash by which the hub compares the contents
    /// of two events. Without a store, the key is random. A store keeps its key in the file, so the
    /// key outlives the process.
    pub(super) fingerprint_key: [u8; 16],
    /// Whether the log needs the bodies of events, for a store or a cluster.
    pub(super) needs_bodies: bool,
    /// The number by which relays recognise this hub.
    #[cfg(feature = "relay")]
    pub(super) hop: super::Hop,
    /// The number of open feeds.
    #[cfg(feature = "relay")]
    pub(super) feeds: Arc<std::sync::atomic::AtomicUsize>,
    /// The hub that this hub follows, if any.
    #[cfg(feature = "relay")]
    pub(super) upstream: Option<super::UpstreamHandle>,
    /// The cluster that this hub is a node of, if any.
    #[cfg(feature = "cluster")]
    pub(super) cluster: Option<super::ClusterHandle>,
    /// Whether the hub drains. Once this is true, it stays true.
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
    /// The newest id of the hub. A subscription that resumes after this id misses no event that is
    /// published from now on.
    ///
    /// Use it in a handler that renders a page from a database. The handler takes this id before it
    /// reads the database, and puts the id into the page. The page then subscribes after this id.
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

    /// Closes the hub. Later publishes and subscribes get an error, and every subscription ends
    /// when it has read all events. The call returns at once, while some events may still wait for
    /// the store. The hub writes these events, and [`closed`](Self::closed) waits until they are
    /// written.
    pub fn close(&self) {
        self.0.log.close();
    }

    /// Waits until a closed hub has written all events and closed its store. Without a store, this
    /// returns at once, except for a node of a cluster. A node first answers its publishers, which
    /// takes at most twelve seconds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn closed(&self) {
        poll_fn(|cx| self.0.log.poll_closed(cx.waker())).await;
    }

    /// Returns the reason if the hub accepts no events at the moment, or `None` if it accepts them.
    /// A hub without a store always returns `None`. If the store is a cache, the result is the
    /// error with which the cache has failed; the hub then goes on without it.
    ///
    /// Use this for health checks. If the disk is full, the hub refuses publishes until the disk
    /// has room. If the error [`is_final`](StoreError::is_final), the hub refuses publishes until
    /// the program builds the hub again. Subscriptions can still read.
    ///
    /// ```
    /// let hub = downlink::Hub::<String>::text();
    /// let status = if hub.store_error().is_some() { 503 } else { 200 };
    /// assert_eq!(status, 200);
    /// ```
    pub fn store_error(&self) -> Option<StoreError> {
        self.0.log.store_error()
    }

    /// Replaces the retention rules of the hub, for all topics and inboxes. The hub stays in use:
    /// subscriptions stay open, and publishes go on.
    ///
    /// If the new rules allow fewer events, fewer bytes or a shorter time, the hub evicts the
    /// events that they no longer allow. A subscription that has not read these events gets a gap.
    /// When the call returns, the hub has freed their memory. With a store, the file then still has
    /// some of these events. The thread that writes to the store evicts them in small steps, and
    /// until then, subscriptions can read them from the file.
    ///
    /// If the new rules allow more, the hub keeps more events from now on. Evicted events do not
    /// return. If you build a hub over the same store later, give it the new rules too, because a
    /// hub does not take its rules from the store.
    ///
    /// # Errors
    ///
    /// [`HubError::InvalidSelector`] or [`HubError::NoEvents`]. The hub then keeps its rules.
    ///
    /// # Limits
    ///
    /// The call takes about a microsecond for each topic and inbox, and less than half a
    /// microsecond for each evicted event. So a change that evicts a million events takes up to
    /// half a second. The call holds no lock for longer than it takes to evict 128 events, which is
    /// some ten microseconds. So publishers and subscriptions do not wait long. If the hub has many
    /// topics or events, call it outside of async tasks. If the rules are the same as before, the
    /// call does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink::hub::{Hub, Retention};
    ///
    /// let hub = Hub::<String>::text();
    /// for number in 0..10 {
    ///     hub.to("news").publish(number.to_string())?;
    /// }
    /// assert_eq!(hub.stats().events, 10);
    /// hub.set_retention(Retention { events_max: 3, ..Retention::DEFAULT })?;
    /// assert_eq!(hub.stats().events, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_retention(&self, retention: impl Into<HubRetention>) -> Result<(), HubError> {
        self.0.log.set_retention(self.now(), retention.into().checked()?);
        Ok(())
    }

    /// Ends every subscription of a client, and returns how many there were.
    ///
    /// The ended subscriptions read no more events. They still yield the few events that they have
    /// read ahead (see [`Subscription`](super::Subscription)). The client may subscribe again. To
    /// keep the client out, refuse its next subscription.
    pub fn disconnect(&self, client: &str) -> usize {
        ClientId::new(client).map_or(0, |client| self.0.log.disconnect(&client))
    }

    /// Ends the subscription with this [`number`](super::Subscription::number), as
    /// [`disconnect`](Self::disconnect) does. Returns `false` if no open subscription has this
    /// number.
    pub fn disconnect_subscription(&self, number: u64) -> bool {
        self.0.log.disconnect_reader(number)
    }

    /// Makes the server poll every open subscription once, even if the subscription has no new
    /// event.
    ///
    /// During the poll, a wrapper around a subscription can check whether the client may still
    /// read, for example after a revocation. The call takes a few microseconds for a hundred
    /// subscriptions.
    pub fn wake_subscribers(&self) {
        self.0.log.wake_all();
    }

    /// The current numbers of the hub. The hub reads them one after the other, so together they may
    /// not describe one moment.
    pub fn stats(&self) -> Stats {
        self.0.counters.stats(&self.0.log.totals(self.now()))
    }

    /// The current numbers of the hub, with the lags of all subscriptions ([`Stats::lags`]).
    ///
    /// The call reads the state of each subscription, which takes about 0.1 ms for a thousand
    /// subscriptions. It locks the list of subscriptions for a few microseconds at a time. If the
    /// hub has a hundred thousand subscriptions, call it outside of async tasks.
    pub fn stats_with_lags(&self) -> Stats {
        Stats { lags: Some(self.0.log.lags()), ..self.stats() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
