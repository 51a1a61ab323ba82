//! The settings of a hub, with their defaults. Those that belong together are one value.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use downlink_log::RetentionRules;
#[cfg(feature = "store")]
use downlink_proto::Event;

use super::{Clock, HubError, Observer, Retention, TopicSelector};

/// The largest event in bytes of its frame, by default. Every subscriber pays for a large event, so
/// larger values belong behind a link.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// The policy for a connected subscription that retention has overtaken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum LagPolicy {
    /// The subscription gets a gap and goes on.
    #[default]
    Gap,
    /// The subscription ends. The client gets the gap when it comes back with its last id.
    Disconnect,
}

/// How much history a hub keeps: a rule for its topics, and other rules for some of them, for
/// clients' inboxes and for the events to everyone.
///
/// A [`Retention`] alone is the rule for topics, and the rest has its defaults.
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
#[must_use = "it takes effect in a hub"]
pub struct HubRetention {
    /// The rules by selector are added when the hub is built.
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
    /// The rule for the topics that match this topic or pattern. The first matching rule counts.
    pub fn topics(mut self, selector: impl Into<String>, retention: Retention) -> Self {
        self.by_selector.push((selector.into(), retention));
        self
    }

    /// The rule for each client's inbox. Default: [`Retention::INBOX`].
    pub fn inboxes(mut self, retention: Retention) -> Self {
        self.rules.inbox = retention;
        self
    }

    /// The rule for the events to everyone. Default: [`Retention::DEFAULT`].
    pub fn everyone(mut self, retention: Retention) -> Self {
        self.rules.everyone = retention;
        self
    }

    /// How long a finished topic stays finished, and its history readable. Default: an hour.
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

/// The size of a value, for the byte bounds.
pub(super) type ValueBytes<T> = dyn Fn(&T) -> usize + Send + Sync;

/// Reads the value back from its event.
#[cfg(feature = "store")]
pub(super) type ReadEvent<T> = dyn Fn(&Event) -> Option<T> + Send + Sync;

pub(super) struct HubSettings<T> {
    pub(super) event_bytes_max: usize,
    pub(super) lag_policy: LagPolicy,
    pub(super) open_event: bool,
    pub(super) gap_wait_max: Duration,
    pub(super) drain_spread: RangeInclusive<Duration>,
    pub(super) value_bytes: Option<Arc<ValueBytes<T>>>,
    /// Makes values from stored events.
    #[cfg(feature = "store")]
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
            #[cfg(feature = "store")]
            read_value: None,
            observer: None,
            clock: Clock::system(),
        }
    }
}
