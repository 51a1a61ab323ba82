//! The builder of a hub.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

#[cfg(feature = "store")]
use downlink_log::StoreOptions;
#[cfg(feature = "relay")]
use downlink_log::store::NodeState;
use downlink_log::{Epoch, Log, LogOptions};
use downlink_proto::{Event, EventId};
use tokio::sync::watch;

#[cfg(feature = "store")]
use super::HubStore;
use super::{
    Clock, EncodeError, Hub, HubClock, HubError, HubRetention, LagPolicy, Limits, Observer,
    encoding::Encode,
    handle::{HubState, Shared},
    record::Record,
    settings::{EVENT_BYTES_CEILING, HubSettings},
    stats::Counters,
};

/// Builder for a [`Hub`], from [`Hub::builder`]. The builder needs an encoding. All other settings
/// have defaults.
///
/// [`build`](Self::build) reports the first invalid setting.
///
/// # Examples
///
/// ```
/// use downlink::hub::{Hub, Limits, Retention};
///
/// let hub = Hub::<String>::builder()
///     .text()
///     .retention(Retention { events_max: 10, ..Retention::DEFAULT })
///     .limits(Limits { subscribers_max: 500, ..Limits::default() })
///     .build()?;
/// # drop(hub);
/// # Ok::<(), downlink::hub::HubError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct HubBuilder<T> {
    encode: Option<Box<Encode<T>>>,
    retention: HubRetention,
    limits: Limits,
    settings: HubSettings<T>,
    #[cfg(feature = "store")]
    store: Option<HubStore>,
}

impl<T: Send + Sync + 'static> HubBuilder<T> {
    /// Makes an event of each value with this function. See [`Hub::with`].
    pub fn encode_with<E>(
        mut self,
        encode: impl Fn(&T) -> Result<Event, E> + Send + Sync + 'static,
    ) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let encode = move |value: &T| encode(value).map_err(|error| EncodeError(Box::new(error)));
        self.encode = Some(Box::new(encode));
        self
    }

    /// Uses the text of each value unchanged as the data of its event.
    pub fn text(self) -> Self
    where
        T: AsRef<str>,
    {
        self.encode_with(|value| Ok::<_, std::convert::Infallible>(Event::new(value.as_ref())))
    }

    /// Sends values as JSON.
    #[cfg(feature = "json")]
    pub fn json(self) -> Self
    where
        T: serde::Serialize,
    {
        self.encode_with(|value| Event::json(value))
    }

    /// How much history the hub keeps: a [`Retention`](super::Retention) for its topics, or a
    /// [`HubRetention`] with more rules.
    pub fn retention(mut self, retention: impl Into<HubRetention>) -> Self {
        self.retention = retention.into();
        self
    }

    /// The maximum numbers of subscribers, topics and bytes.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The maximum size of an event's frame in bytes. Default:
    /// [`EVENT_BYTES_MAX`](super::EVENT_BYTES_MAX). At most
    /// [`EVENT_BYTES_CEILING`] bytes are possible.
    pub fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.event_bytes_max = bytes;
        self
    }

    /// What happens to a connected subscription if retention evicts events before the subscription
    /// has read them. Default: the subscription gets a gap, which is a notice that events are
    /// missing.
    pub fn lag_policy(mut self, policy: LagPolicy) -> Self {
        self.settings.lag_policy = policy;
        self
    }

    /// Whether subscriptions begin with the event `downlink.open`. Default: yes. This event gives
    /// the client an id to resume from, even if the connection ends before the first published
    /// event.
    pub fn open_event(mut self, on: bool) -> Self {
        self.settings.open_event = on;
        self
    }

    /// The maximum wait in a gap notice. A client that gets a gap notice should wait before it
    /// fetches its data again. For each notice, the hub chooses a random wait up to this maximum.
    /// Default: 5 s.
    pub fn gap_wait_max(mut self, wait: Duration) -> Self {
        self.settings.gap_wait_max = wait;
        self
    }

    /// When the hub ends a stream early, for example in a drain (a graceful shutdown), it sends the
    /// client a random reconnection time from this range. Default: from 0.5 to 5 seconds.
    pub fn drain_spread(mut self, spread: RangeInclusive<Duration>) -> Self {
        self.settings.drain_spread = spread;
        self
    }

    /// Keeps each value in memory together with its frame (the encoded event). Filters need the
    /// values. `bytes` returns the size of a value, which counts towards the byte limits.
    pub fn keep_values(mut self, bytes: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.settings.value_bytes = Some(Arc::new(bytes));
        self
    }

    /// Keeps events in a file. `store` is the path of the file, or a [`HubStore`] with more
    /// settings. History in a file survives restarts. If a subscription needs events that are no
    /// longer in memory, it reads them from the file. A hub that keeps values also needs
    /// [`decode_values`](Self::decode_values).
    ///
    /// The hub runs one thread that writes to the file and four threads that read it. Retention
    /// applies to the history in the file. Memory also holds the newest part of this history, up to
    /// [`Limits::bytes_max`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("downlink-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let file = folder.join("hub.db");
    /// use downlink::hub::{Hub, Start};
    ///
    /// let hub = Hub::<String>::builder().text().store(&file).build()?;
    /// let receipt = hub.to("news").publish("hello".to_owned())?.durable().await?;
    /// hub.close();
    /// hub.closed().await;
    ///
    /// let again = Hub::<String>::builder().text().store(&file).build()?;
    /// let mut all = again.subscribe().topic("news").start(Start::Earliest).open().await?;
    /// # use futures_util::StreamExt;
    /// let Some(downlink::Delivery::Event(event)) = all.next().await else { panic!() };
    /// assert_eq!(event.id(), *receipt.id());
    /// # again.close();
    /// # again.closed().await;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "store")]
    pub fn store(mut self, store: impl Into<HubStore>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// Makes values with this function from stored events, and from the events of an upstream,
    /// which is a hub that this hub follows. Filters need the values. If the function returns
    /// `None` for an event, subscriptions get a gap in place of the event.
    #[cfg(any(feature = "store", feature = "relay"))]
    pub fn decode_values(
        mut self,
        read: impl Fn(&Event) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.settings.read_value = Some(Arc::new(read));
        self
    }

    /// Makes values from stored events, and from the events of an upstream, by reading their data
    /// as JSON.
    #[cfg(all(feature = "json", any(feature = "store", feature = "relay")))]
    pub fn decode_json(self) -> Self
    where
        T: serde::de::DeserializeOwned,
    {
        self.decode_values(|event| serde_json::from_str(event.fields().data?).ok())
    }

    /// The observer, which the hub calls at each connect, disconnect and gap.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.settings.observer = Some(Arc::new(observer));
        self
    }

    /// The clock from which the hub reads the time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Makes the hub.
    ///
    /// # Errors
    ///
    /// [`HubError`] names the first invalid setting, or says that the store or the random numbers
    /// of the system cannot be used.
    pub fn build(mut self) -> Result<Hub<T>, HubError> {
        let encode = self.encode.take().ok_or(HubError::NoEncoding)?;
        let retention = std::mem::take(&mut self.retention).checked()?;
        let epoch = Epoch::from_random(u64::from_le_bytes(random()?));
        let options = LogOptions { retention, limits: self.limits, ..LogOptions::new(epoch) };
        self.check()?;
        #[cfg(feature = "store")]
        if let Some(store) = self.store.take() {
            return self.build_stored(encode, options, store);
        }
        let clock = HubClock::start(self.settings.clock.clone(), None);
        self.build_over(encode, Log::new(options), clock, None)
    }

    #[cfg(feature = "store")]
    fn build_stored(
        self,
        encode: Box<Encode<T>>,
        options: LogOptions,
        store: HubStore,
    ) -> Result<Hub<T>, HubError> {
        use downlink_log::store::Store;
        use downlink_sqlite::SqliteStore;

        if self.settings.value_bytes.is_some() && self.settings.read_value.is_none() {
            return Err(HubError::ValuesNeedDecoding);
        }
        let HubStore { file, durability, options: mut store_options } = store;
        store_options.retention = options.retention.clone();
        let now = self.settings.clock.now();
        let failed = |error| HubError::Store { file: file.clone(), error };
        let store = SqliteStore::open(&file, options.epoch, now, store_options).map_err(failed)?;
        let fingerprint_key = store.opened().fingerprint_key;
        let clock = HubClock::start(self.settings.clock.clone(), store.opened().clock);
        let values = self.settings.read_value.clone().zip(self.settings.value_bytes.clone());
        let decode = move |stored| super::stored::decode(&stored, values.as_ref());
        let state = clock.clone();
        let mut side = StoreOptions::new(decode, move || state.state());
        side.durability = durability;
        side.begin_reading = super::stored::yield_to_others;
        side.on_report = Some(Box::new(super::stored::log_report));
        side.on_unreadable = Some(Box::new(|id| {
            tracing::error!(%id, "a stored event cannot be read; its subscribers get a gap");
        }));
        let log = Log::with_store(options, store, side).map_err(failed)?;
        self.build_over(encode, log, clock, Some(fingerprint_key))
    }

    /// Makes a hub that follows another one, and the writer of its log.
    #[cfg(feature = "relay")]
    pub(crate) fn build_relay(
        self,
        upstream: super::UpstreamHandle,
    ) -> Result<(Hub<T>, super::HubApplier<T>), HubError> {
        let (hub, applier, _) = self.build_replica(|state| state.upstream = Some(upstream))?;
        Ok((hub, applier))
    }

    /// Makes a hub that is a node of a cluster, the writer of its log, and the state of the node
    /// that the cache has kept.
    #[cfg(feature = "cluster")]
    pub(crate) fn build_node(
        self,
        cluster: super::ClusterHandle,
    ) -> Result<(Hub<T>, super::HubApplier<T>, NodeState), HubError> {
        self.build_replica(|state| {
            state.needs_bodies = true;
            state.cluster = Some(cluster);
        })
    }

    /// Makes a hub whose log uses a cache, and the writer of this log.
    #[cfg(all(feature = "cluster", feature = "store"))]
    pub(crate) fn build_cache(self) -> Result<(Hub<T>, super::HubApplier<T>), HubError> {
        let (hub, applier, _) = self.build_replica(|_| {})?;
        Ok((hub, applier))
    }

    #[cfg(feature = "relay")]
    fn build_replica(
        mut self,
        set_source: impl FnOnce(&mut HubState<T>),
    ) -> Result<(Hub<T>, super::HubApplier<T>, NodeState), HubError> {
        use downlink_log::StoreOptions;

        let encode = self.encode.take().ok_or(HubError::NoEncoding)?;
        if self.settings.value_bytes.is_some() && self.settings.read_value.is_none() {
            return Err(HubError::ValuesNeedDecoding);
        }
        let retention = std::mem::take(&mut self.retention).checked()?;
        let epoch = Epoch::from_random(u64::from_le_bytes(random()?));
        let options = LogOptions { retention, limits: self.limits, ..LogOptions::new(epoch) };
        self.check()?;
        #[cfg(feature = "store")]
        let cache = self.store.take().map(|store| store.open_cache(&options)).transpose()?;
        #[cfg(not(feature = "store"))]
        let cache: Option<Box<dyn downlink_log::store::Cache>> = None;
        let opened = cache.as_ref().map(|cache| cache.opened());
        let kept = opened.and_then(|opened| opened.clock);
        let node = opened.map(|opened| opened.node.clone()).unwrap_or_default();
        let clock = HubClock::start(self.settings.clock.clone(), kept);
        let values = self.settings.read_value.clone().zip(self.settings.value_bytes.clone());
        let decode = move |stored| super::stored::decode(&stored, values.as_ref());
        let state = clock.clone();
        let mut side = StoreOptions::new(decode, move || state.state());
        #[cfg(feature = "store")]
        {
            side.begin_reading = super::stored::yield_to_others;
            side.on_report = Some(Box::new(super::stored::log_report));
        }
        side.on_unreadable = Some(Box::new(|id| {
            tracing::error!(%id, "an event of the upstream cannot be read; its subscribers get a gap");
        }));
        let replica = Log::replica(options, side, cache);
        let (log, applier) = replica.map_err(|error| HubError::Upstream(error.to_string()))?;
        let applier = super::HubApplier::new(applier, clock.clone());
        let mut hub = self.build_over(encode, log, clock, None)?;
        set_source(Arc::get_mut(&mut hub.0).expect("the hub has no other handle yet"));
        Ok((hub, applier, node))
    }

    fn check(&self) -> Result<(), HubError> {
        let event_bytes_max = self.settings.event_bytes_max;
        let bytes_max = self.limits.bytes_max;
        if event_bytes_max > bytes_max {
            return Err(HubError::EventAboveHub { event_bytes_max, bytes_max });
        }
        let ceiling = EVENT_BYTES_CEILING;
        if event_bytes_max > ceiling {
            return Err(HubError::EventAboveCeiling { event_bytes_max, ceiling });
        }
        if self.settings.drain_spread.is_empty() {
            return Err(HubError::EmptySpread);
        }
        Ok(())
    }

    /// Makes a hub that uses this log. If the hub has a store, `stored_key` is the key from the
    /// store. The hub uses the key for its fingerprints, which are hashes of the contents of
    /// events.
    fn build_over(
        self,
        encode: Box<Encode<T>>,
        log: Log<Record<T>>,
        clock: HubClock,
        stored_key: Option<[u8; 16]>,
    ) -> Result<Hub<T>, HubError> {
        // A random key prevents an attacker from finding two contents with the same fingerprint.
        let fingerprint_key = stored_key.map_or_else(random, Ok)?;
        let id_prefix = EventId::new(&format!("{}-", log.options().epoch))
            .expect("an epoch is short ASCII without line breaks");
        let settings = self.settings;
        Ok(Hub(Arc::new(HubState {
            log,
            encode,
            id_prefix,
            fingerprint_key,
            needs_bodies: stored_key.is_some(),
            #[cfg(feature = "relay")]
            hop: super::Hop(u64::from_le_bytes(random()?)),
            #[cfg(feature = "relay")]
            feeds: Arc::default(),
            #[cfg(feature = "relay")]
            upstream: None,
            #[cfg(feature = "cluster")]
            cluster: None,
            drain: watch::Sender::new(false),
            common: Arc::new(Shared { settings, clock, counters: Counters::default() }),
        })))
    }

    /// Makes a hub in memory, with the encoding of the builder and defaults for all other settings.
    fn build_default(self) -> Hub<T> {
        self.build().expect("the defaults are valid, and the system has random bytes")
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Returns a builder for a hub with other settings than the defaults. The builder needs an
    /// encoding: [`json`](HubBuilder::json), [`text`](HubBuilder::text) or
    /// [`encode_with`](HubBuilder::encode_with).
    pub fn builder() -> HubBuilder<T> {
        HubBuilder {
            encode: None,
            retention: HubRetention::default(),
            limits: Limits::default(),
            settings: HubSettings::default(),
            #[cfg(feature = "store")]
            store: None,
        }
    }

    /// Makes a hub that turns values into events with the function `encode`. All other settings
    /// have defaults.
    ///
    /// The function runs once for each publish, inside the call that publishes. A publish may also
    /// set an event type, an id or a reconnection time. These values replace the values that the
    /// function has set.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink::{Event, EventType, Hub};
    ///
    /// struct Price(u32);
    ///
    /// let price = EventType::from_static("price");
    /// let hub = Hub::with(move |value: &Price| {
    ///     let event = Event::new(value.0.to_string()).event(price.clone());
    ///     Ok::<_, std::convert::Infallible>(event)
    /// });
    /// hub.to("gold").publish(Price(4_000))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<E>(encode: impl Fn(&T) -> Result<Event, E> + Send + Sync + 'static) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        Self::builder().encode_with(encode).build_default()
    }

    /// Makes a hub that uses the text of each value unchanged as the data of its event.
    pub fn text() -> Self
    where
        T: AsRef<str>,
    {
        Self::builder().text().build_default()
    }

    /// Makes a hub that sends its values as JSON.
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
        Self::builder().json().build_default()
    }
}

impl<T> fmt::Debug for HubBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("retention", &self.retention)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Random bytes of the operating system, for an epoch or a key. An epoch is a period in which the
/// offsets of a hub are unique. Two epochs must never have the same number, and a publisher must
/// not be able to guess the key. So if the operating system has no random bytes, this function
/// fails. It does not use a weaker source.
fn random<const N: usize>() -> Result<[u8; N], HubError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| HubError::NoRandomBytes { reason: error.to_string().into() })?;
    Ok(bytes)
}
