//! The builder of a hub.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use downlink_log::{Epoch, Log, LogOptions, RetentionRules};
#[cfg(feature = "store")]
use downlink_log::{StoreOptions, store::Durability};
use downlink_proto::{Event, EventId};
use tokio::sync::watch;

use super::{
    Clock, EncodeError, Hub, HubClock, HubError, LagPolicy, Limits, Observer, Retention,
    TopicSelector,
    encoding::Encode,
    handle::{Common, Inner},
    record::Record,
    settings::Settings,
    stats::Counters,
};

/// Builder for a [`Hub`]. [`build`](Self::build) reports the first invalid setting.
///
/// # Examples
///
/// ```
/// use downlink::hub::{HubBuilder, Retention};
///
/// let short = Retention { events_max: 10, ..Retention::DEFAULT };
/// let hub = HubBuilder::<String>::text().retention_of("typing/*", short).build()?;
/// # drop(hub);
/// # Ok::<(), downlink::hub::HubError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct HubBuilder<T> {
    encode: Box<Encode<T>>,
    options: LogOptions,
    settings: Settings<T>,
    retention: Vec<(String, Retention)>,
    #[cfg(feature = "store")]
    durability: Durability,
    #[cfg(feature = "store")]
    store: Option<std::path::PathBuf>,
    #[cfg(feature = "store")]
    store_options: downlink_sqlite::SqliteOptions,
}

impl<T: Send + Sync + 'static> HubBuilder<T> {
    /// Values become events by a function of yours.
    pub fn with<E>(encode: impl Fn(&T) -> Result<Event, E> + Send + Sync + 'static) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let encode = move |value: &T| encode(value).map_err(|error| EncodeError(Box::new(error)));
        Self {
            encode: Box::new(encode),
            options: LogOptions::new(Epoch::from_random(random())),
            settings: Settings::default(),
            retention: Vec::new(),
            #[cfg(feature = "store")]
            durability: Durability::default(),
            #[cfg(feature = "store")]
            store: None,
            #[cfg(feature = "store")]
            store_options: downlink_sqlite::SqliteOptions::default(),
        }
    }

    /// Values are the data, as they are.
    pub fn text() -> Self
    where
        T: AsRef<str>,
    {
        Self::with(|value: &T| Ok::<_, std::convert::Infallible>(Event::new(value.as_ref())))
    }

    /// Values are sent as JSON.
    #[cfg(feature = "json")]
    pub fn json() -> Self
    where
        T: serde::Serialize,
    {
        Self::with(|value: &T| Event::json(value))
    }

    /// How much history a topic keeps if no rule matches it.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.options.retention.default = retention;
        self
    }

    /// How much history the topics that match this topic or pattern keep. The first matching rule
    /// counts.
    pub fn retention_of(mut self, selector: impl Into<String>, retention: Retention) -> Self {
        self.retention.push((selector.into(), retention));
        self
    }

    /// How much history a client's inbox keeps.
    pub fn inbox_retention(mut self, retention: Retention) -> Self {
        self.options.retention.inbox = retention;
        self
    }

    /// How much history is kept of the events for everyone.
    pub fn everyone_retention(mut self, retention: Retention) -> Self {
        self.options.retention.everyone = retention;
        self
    }

    /// The maxima of subscribers, topics and bytes.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// The largest event in bytes of its frame.
    pub fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.event_bytes_max = bytes;
        self
    }

    /// How long a finished topic stays finished, and its history readable. Default: an hour.
    pub fn finished_keep(mut self, keep: Duration) -> Self {
        self.options.finished_keep = keep;
        self
    }

    /// How many events are replayed at most after an unknown id. Default: 1,000.
    pub fn gap_replay_max(mut self, events: usize) -> Self {
        self.options.gap_replay_max = events;
        self
    }

    /// What happens to a connected subscription that retention has overtaken.
    pub fn lag_policy(mut self, policy: LagPolicy) -> Self {
        self.settings.lag_policy = policy;
        self
    }

    /// Whether subscriptions begin with `downlink.open`. Default: yes. Without it a client that
    /// drops before its first event cannot resume.
    pub fn open_event(mut self, on: bool) -> Self {
        self.settings.open_event = on;
        self
    }

    /// The longest of the random waits that gap notices suggest. Default: 5 s.
    pub fn gap_wait_max(mut self, wait: Duration) -> Self {
        self.settings.gap_wait_max = wait;
        self
    }

    /// The span from which drained clients get their reconnection times. Default: 0.5 to 5 s.
    pub fn drain_spread(mut self, spread: RangeInclusive<Duration>) -> Self {
        self.settings.drain_spread = spread;
        self
    }

    /// Keeps each value beside its frame, as filters need it. `bytes` gives the size of a value for
    /// the byte bounds.
    pub fn keep_values(mut self, bytes: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.settings.value_bytes = Some(Arc::new(bytes));
        self
    }

    /// Keeps events in this file, which is made if it does not exist. History survives restarts,
    /// and a subscription that is behind the history in memory reads on from the file. A hub that
    /// keeps values also needs [`decode_values`](Self::decode_values).
    ///
    /// The hub then has a thread that writes and four that read. Retention applies to the file; the
    /// newest part of it, up to [`Limits::bytes_max`], is in memory too.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("downlink-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let file = folder.join("hub.db");
    /// use downlink::hub::HubBuilder;
    ///
    /// let hub = HubBuilder::<String>::text().store(&file).build()?;
    /// let receipt = hub.to("news").publish("hello".to_owned())?.durable().await?;
    /// hub.close();
    /// hub.closed().await;
    ///
    /// let again = HubBuilder::<String>::text().store(&file).build()?;
    /// let mut missed = again.subscribe().topic("news").resume("earliest").open().await?;
    /// # use futures_util::StreamExt;
    /// let Some(downlink::Delivery::Event(event)) = missed.next().await else { panic!() };
    /// assert_eq!(event.id(), receipt.id().as_str());
    /// # again.close();
    /// # again.closed().await;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "store")]
    pub fn store(mut self, file: impl Into<std::path::PathBuf>) -> Self {
        self.store = Some(file.into());
        self
    }

    /// How long to wait for another process to let go of the file. Default: not at all. A restart
    /// in place has to wait until the old process has ended.
    #[cfg(feature = "store")]
    pub fn store_wait(mut self, wait: Duration) -> Self {
        self.store_options.wait_for = wait;
        self
    }

    /// The largest the file may become in bytes. Default: 16 GiB; the oldest events go first.
    #[cfg(feature = "store")]
    pub fn store_bytes_max(mut self, bytes: u64) -> Self {
        self.store_options.bytes_max = bytes;
        self
    }

    /// When an event counts as published: when the disk has it (the default), or when the operating
    /// system has it. In the second case it survives a crash of the process at once, and a power
    /// cut after at most a tenth of a second. If a power cut took an event, the subscribers that
    /// saw it get a gap.
    #[cfg(feature = "store")]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Makes values from stored events, for filters. Subscriptions get a gap for an event whose
    /// value cannot be made any more.
    #[cfg(feature = "store")]
    pub fn decode_values(
        mut self,
        read: impl Fn(&Event) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.settings.read_value = Some(Arc::new(read));
        self
    }

    /// Makes values from stored events by reading their data as JSON.
    #[cfg(all(feature = "json", feature = "store"))]
    pub fn decode_json(self) -> Self
    where
        T: serde::de::DeserializeOwned,
    {
        self.decode_values(|event| serde_json::from_str(event.fields().data?).ok())
    }

    /// The observer of connects, disconnects and gaps.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.settings.observer = Some(Arc::new(observer));
        self
    }

    /// The source of the time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Makes the hub.
    ///
    /// # Errors
    ///
    /// [`HubError`] names the first invalid setting.
    pub fn build(mut self) -> Result<Hub<T>, HubError> {
        for (selector, retention) in std::mem::take(&mut self.retention) {
            let parsed = TopicSelector::parse(&selector)
                .map_err(|reason| HubError::InvalidSelector { selector, reason })?;
            self.options.retention.rules.push((parsed, retention));
        }
        self.check()?;
        #[cfg(feature = "store")]
        if let Some(file) = self.store.take() {
            return self.build_stored(&file);
        }
        Ok(self.build_valid())
    }

    #[cfg(feature = "store")]
    fn build_stored(mut self, file: &std::path::Path) -> Result<Hub<T>, HubError> {
        use downlink_log::store::Store;
        use downlink_sqlite::SqliteStore;

        if self.settings.value_bytes.is_some() && self.settings.read_value.is_none() {
            return Err(HubError::ValuesNeedDecoding);
        }
        self.store_options.retention = self.options.retention.clone();
        self.store_options.finished_keep = self.options.finished_keep;
        let now = self.settings.clock.now();
        let store = SqliteStore::open(file, self.options.epoch, now, self.store_options.clone());
        let store = store.map_err(HubError::Store)?;
        let fingerprint_key = store.opened().fingerprint_key;
        let clock = HubClock::start(self.settings.clock.clone(), store.opened().clock);
        let values = self.settings.read_value.clone().zip(self.settings.value_bytes.clone());
        let decode = move |stored| super::stored::decode(&stored, values.as_ref());
        let state = clock.clone();
        let mut side = StoreOptions::new(decode, move || state.state());
        side.durability = self.durability;
        side.begin_reading = super::stored::yield_to_others;
        side.on_report = Some(Box::new(super::stored::log_report));
        side.on_unreadable = Some(Box::new(|id| {
            tracing::error!(%id, "a stored event cannot be read; its subscribers get a gap");
        }));
        let log = Log::with_store(self.options.clone(), store, side).map_err(HubError::Store)?;
        Ok(self.build_over(log, clock, Some(fingerprint_key)))
    }

    fn check(&self) -> Result<(), HubError> {
        let RetentionRules { rules, default, inbox, everyone } = &self.options.retention;
        let mut all = rules.iter().map(|(_, rule)| rule).chain([default, inbox, everyone]);
        if all.any(|rule| rule.events_max == 0) {
            return Err(HubError::NoEvents);
        }
        let event_bytes_max = self.settings.event_bytes_max;
        let bytes_max = self.options.limits.bytes_max;
        if event_bytes_max > bytes_max {
            return Err(HubError::EventAboveHub { event_bytes_max, bytes_max });
        }
        if self.settings.drain_spread.is_empty() {
            return Err(HubError::EmptySpread);
        }
        Ok(())
    }

    /// Makes a hub from settings that were checked.
    fn build_valid(self) -> Hub<T> {
        let log = Log::new(self.options.clone());
        let clock = HubClock::start(self.settings.clock.clone(), None);
        self.build_over(log, clock, None)
    }

    /// Makes a hub over a log; the key of its fingerprints is that of the store, if there is one.
    fn build_over(
        self,
        log: Log<Record<T>>,
        clock: HubClock,
        stored_key: Option<[u8; 16]>,
    ) -> Hub<T> {
        let Self { encode, settings, .. } = self;
        // Random, so that an attacker cannot search for two contents with one fingerprint.
        let key = u128::from(random()) << 64 | u128::from(random());
        let id_prefix = EventId::new(&format!("{}-", log.options().epoch))
            .expect("an epoch is short ASCII without line breaks");
        Hub(Arc::new(Inner {
            log,
            encode,
            id_prefix,
            fingerprint_key: stored_key.unwrap_or_else(|| key.to_le_bytes()),
            has_store: stored_key.is_some(),
            drain: watch::Sender::new(false),
            common: Arc::new(Common { settings, clock, counters: Counters::default() }),
        }))
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// A hub whose values become events by a function of yours, with defaults for all else.
    ///
    /// The function runs once for each publish, in the publisher's call. The type, id and
    /// reconnection time that the publish sets itself take precedence.
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
}

impl<T> fmt::Debug for HubBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Random bits for an epoch: from the system, since two lives of a hub must not meet.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| fastrand::u64(..))
}
