//! The settings of a hub, with their defaults.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use downlink_log::RetentionRules;
#[cfg(any(feature = "store", feature = "relay"))]
use downlink_proto::Event;

use super::{Clock, HubError, Observer, Retention, TopicSelector};

/// The default for the maximum size of an event's frame in bytes. The hub sends the whole event to
/// every subscriber, so send a link instead of a larger value.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// The highest possible maximum size of an event. A hub that follows this one gets an event in one
/// message of at most 64 MiB. With a higher ceiling, such an event could never reach it.
pub const EVENT_BYTES_CEILING: usize = 32 << 20;

/// How the hub treats a connected subscription if retention evicts events before the subscription
/// has read them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum LagPolicy {
    /// The subscription gets a gap (a notice that events are missing), and continues after it.
    #[default]
    Gap,
    /// The subscription ends. The client gets the gap when it reconnects with its last event id.
    Disconnect,
}

/// How much history a hub keeps. One rule is the default for topics. Some topics, the clients'
/// inboxes (the events to one client) and the events to everyone can have other rules.
///
/// A [`Retention`] converts into a `HubRetention`: it becomes the rule for topics, and everything
/// else has its default.
///
/// # Examples
///
/// ```
/// use downlink::hub::{Hub, HubRetention, Retention};
///
/// let newest = Retention { events_max: 1, ..Retention::DEFAULT };
/// let long = Retention { events_max: 100_000, age_max: None, ..Retention::DEFAULT };
/// let retention = HubRetention::from(long).topics("typing/*", newest).everyone(newest);
/// let hub = Hub::<String>::builder().text().retention(retention).build()?;
/// # drop(hub);
/// # Ok::<(), downlink::hub::HubError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "retention rules do nothing until a hub gets them"]
pub struct HubRetention {
    /// All rules except the rules in `by_selector`. [`checked`](Self::checked) adds the rules in
    /// `by_selector`.
    rules: RetentionRules,
    by_selector: Vec<(String, Retention)>,
}

impl From<Retention> for HubRetention {
    fn from(topics: Retention) -> Self {
        let rules = RetentionRules { default: topics, ..RetentionRules::default() };
        Self { rules, by_selector: Vec::new() }
    }
}

impl HubRetention {
    /// Sets the rule for the topics that match this topic or pattern. For each topic, the first
    /// matching rule applies.
    pub fn topics(mut self, selector: impl Into<String>, retention: Retention) -> Self {
        self.by_selector.push((selector.into(), retention));
        self
    }

    /// Sets the rule for each client's inbox. Default: [`Retention::INBOX`].
    pub fn inboxes(mut self, retention: Retention) -> Self {
        self.rules.inbox = retention;
        self
    }

    /// Sets the rule for the events to everyone. Default: [`Retention::DEFAULT`].
    pub fn everyone(mut self, retention: Retention) -> Self {
        self.rules.everyone = retention;
        self
    }

    /// Sets how long a finished topic stays finished and its history stays readable. A finished
    /// topic accepts no more events (see [`Hub::finish`](super::Hub::finish)). Default: an hour.
    pub fn finished_keep(mut self, keep: Duration) -> Self {
        self.rules.finished_keep = keep;
        self
    }

    /// The rules for the log, with the selectors parsed.
    pub(super) fn checked(self) -> Result<RetentionRules, HubError> {
        let Self { mut rules, by_selector } = self;
        for (selector, retention) in by_selector {
            let parsed = TopicSelector::parse(&selector)
                .map_err(|reason| HubError::InvalidSelector { selector, reason })?;
            rules.rules.push((parsed, retention));
        }
        let keeps_none = rules.all().any(|rule| rule.events_max == 0);
        if keeps_none { Err(HubError::NoEvents) } else { Ok(rules) }
    }
}

/// Returns the size of a value, which counts towards the byte limits.
pub(super) type ValueBytes<T> = dyn Fn(&T) -> usize + Send + Sync;

/// Makes a value from a stored event.
#[cfg(any(feature = "store", feature = "relay"))]
pub(super) type ReadEvent<T> = dyn Fn(&Event) -> Option<T> + Send + Sync;

pub(super) struct HubSettings<T> {
    pub(super) event_bytes_max: usize,
    pub(super) lag_policy: LagPolicy,
    pub(super) open_event: bool,
    pub(super) gap_wait_max: Duration,
    pub(super) drain_spread: RangeInclusive<Duration>,
    pub(super) value_bytes: Option<Arc<ValueBytes<T>>>,
    /// Makes values from stored events.
    #[cfg(any(feature = "store", feature = "relay"))]
    pub(super) read_value: Option<Arc<ReadEvent<T>>>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) clock: Clock,
}

impl<T> Default for HubSettings<T> {
    fn default() -> Self {
        Self {
            event_bytes_max: EVENT_BYTES_MAX,
            lag_policy: LagPolicy::default(),
            open_event: true,
            gap_wait_max: Duration::from_secs(5),
            drain_spread: Duration::from_millis(500)..=Duration::from_secs(5),
            value_bytes: None,
            #[cfg(any(feature = "store", feature = "relay"))]
            read_value: None,
            observer: None,
            clock: Clock::system(),
        }
    }
}
