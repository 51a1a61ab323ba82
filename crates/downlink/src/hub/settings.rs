//! The settings of a hub besides those of its log, with their defaults.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

#[cfg(feature = "store")]
use downlink_proto::Event;

use super::{Clock, Observer};

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

/// The size of a value, for the byte bounds.
pub(super) type ValueBytes<T> = dyn Fn(&T) -> usize + Send + Sync;

/// Reads the value back from its event.
#[cfg(feature = "store")]
pub(super) type ReadEvent<T> = dyn Fn(&Event) -> Option<T> + Send + Sync;

pub(super) struct Settings<T> {
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

impl<T> Default for Settings<T> {
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
