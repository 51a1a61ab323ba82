//! The hub: typed values to topics, to one client, or to everyone, and back to whoever missed them.
//!
//! A [`Hub<T>`] is a handle to one log. Publishing encodes a value once and appends it; a
//! [`Subscription`] reads the log from its own cursor. Nobody waits for anybody: a slow reader is a
//! number that lags, and what it cannot be given any more it is told as a [`Gap`].
//!
//! There is no task to start and none to stop; dropping a subscription is leaving.
//!
//! Not here: HTTP. How a subscription becomes a response is in [`adapters`](crate::adapters).

mod batch;
mod build_error;
mod builder;
mod clock;
mod control;
mod delivery;
mod drain;
mod encoding;
#[cfg(feature = "metrics")]
mod metrics;
mod observe;
mod overview;
mod publish;
mod publish_error;
mod reading;
mod receipt;
mod record;
mod stats;
mod stored;
mod subscribe;
mod subscribe_error;
mod subscription;

use std::{fmt, sync::Arc};

use downlink_log::Log;
use downlink_proto::{Event, EventId};

pub use batch::{BATCH_EVENTS_MAX, Batch, BatchError};
pub use build_error::HubError;
pub use builder::{EVENT_BYTES_MAX, HubBuilder, LagPolicy};
pub use clock::Clock;
pub(crate) use clock::HubClock;
pub use delivery::{Delivery, Gap, Published};
pub use downlink_log::{
    Address, ClientId, GapReason, InvalidName, Limits, Offset, Retention, Start, Timestamp, Topic,
    TopicSelector,
    store::{Durability, StoreError},
};
pub use encoding::EncodeError;
pub use observe::{Connection, DisconnectReason, Observer};
pub use overview::{ClientOverview, TopicOverview};
pub use publish::{ADDRESSES_MAX, Publish};
pub use publish_error::PublishError;
pub(crate) use reading::Reading;
pub use receipt::{Confirmed, Receipt};
pub use stats::Stats;
pub use subscribe::{Resume, Subscribe};
pub use subscribe_error::SubscribeError;
pub use subscription::Subscription;

use builder::Settings;
use encoding::Encoding;
use record::Record;
use stats::Counters;

/// Publishes values of one type and lets subscriptions read them. Clones are handles to one hub.
///
/// With a store, history survives restarts and crashes (see [`HubBuilder`]'s `store`). In memory a hub
/// promises no more than memory does: a process that ends takes its history along, and
/// clients that come back to the next one are told so by a gap. When the last handle, publish and
/// subscription are gone, so is the hub; there is nothing to stop.
///
/// # Limits
///
/// History is at most [`Limits::bytes_max`] for the whole hub, and per topic what its [`Retention`]
/// says. Besides, there are: about 300 bytes for each subscription, up to
/// [`Limits::subscribers_max`]; the same for each topic, up to [`Limits::topics_max`]; 65,536 names
/// of topics that were forgotten; and 65,536 idempotency keys.
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
/// assert_eq!(Some(event.event_id()).as_ref(), receipt.id());
/// # Ok(())
/// # }
/// ```
pub struct Hub<T: Send + Sync + 'static>(Arc<Inner<T>>);

pub(crate) struct Inner<T: Send + Sync + 'static> {
    log: Log<Record<T>>,
    encoding: Encoding<T>,
    settings: Settings<T>,
    /// What the ids of this hub begin with: the epoch and a dash.
    id_prefix: EventId,
    /// Keys the fingerprints: random, or the store's, which outlives the process.
    fingerprint_key: [u8; 16],
    has_store: bool,
    clock: HubClock,
    counters: Counters,
    drain: drain::Drain,
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
    /// A hub whose values become events by a function of yours, with defaults for all else.
    ///
    /// The function runs once for each publish, in the publisher's call. What the publish sets
    /// itself (type, id, reconnection time) counts for more.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink::{Event, EventType, Hub};
    ///
    /// struct Price(u32);
    ///
    /// let price = EventType::new("price")?;
    /// let hub = Hub::with(move |value: &Price| {
    ///     let event = Event::new(value.0.to_string()).with_type(price.clone());
    ///     Ok::<_, std::convert::Infallible>(event)
    /// });
    /// hub.to("gold").publish(Price(4_000))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<E>(encode: impl Fn(&T) -> Result<Event, E> + Send + Sync + 'static) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        HubBuilder::with(encode).build_valid()
    }

    /// A hub whose values are the data, as they are.
    pub fn text() -> Self
    where
        T: AsRef<str>,
    {
        HubBuilder::text().build_valid()
    }

    /// A hub whose values are sent as JSON.
    ///
    /// # Examples
    ///
    /// ```
    /// let hub = downlink::Hub::<Vec<u32>>::json();
    /// hub.to("numbers").publish(vec![1, 2])?;
    /// # Ok::<(), downlink::PublishError>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn json() -> Self
    where
        T: serde::Serialize,
    {
        HubBuilder::json().build_valid()
    }

    /// The id of the newest event there may be: whoever starts after it misses nothing from now on.
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
        record::cursor_id(self.0.log.tail())
    }

    /// Ends the hub: whoever publishes or subscribes from now on gets an error, and every
    /// subscription ends when it has read what there is. Never waits for a reader. What waits for the
    /// store is written first: see [`closed`](Self::closed).
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
        std::future::poll_fn(|cx| self.0.log.poll_closed(cx.waker())).await;
    }

    /// Ends every subscription of a client, and says how many there were.
    ///
    /// They read nothing more; the few events that one has read already and not yet yielded (see
    /// [`Subscription`]) still come. The client may subscribe again: to keep it out, refuse it there.
    pub fn disconnect(&self, client: &str) -> usize {
        ClientId::new(client).map_or(0, |client| self.0.log.disconnect(&client))
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
