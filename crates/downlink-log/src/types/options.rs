//! How a log is set up, and its limits.

use crate::types::{offset::Epoch, retention::RetentionRules};

/// The named maxima of a log. Later versions may have more of them, so end a literal with
/// `..Limits::default()`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Readers at a time.
    pub subscribers_max: usize,
    /// Readers of one client at a time.
    pub subscribers_per_client_max: usize,
    /// Topics and patterns of one reader.
    pub selectors_max: usize,
    /// Distinct patterns of all readers together.
    pub patterns_max: usize,
    /// Topics and inboxes that have events or a finish mark.
    pub topics_max: usize,
    /// Distinct topics and inboxes that readers have named, whether or not they have events. These
    /// never count against a publisher.
    pub subscribed_names_max: usize,
    /// Bytes of history in all topics together.
    pub bytes_max: usize,
    /// Events replayed after an id that the log does not know.
    pub gap_replay_max: usize,
}

impl Default for Limits {
    /// As many subscribers as descriptors allow, each with a pattern or an inbox of its own; a
    /// thousand selectors; a hundred thousand topics; 256 MiB; and a replay of a thousand events.
    fn default() -> Self {
        Self {
            subscribers_max: 1_000_000,
            subscribers_per_client_max: 1_000,
            selectors_max: 1_000,
            patterns_max: 1_000_000,
            topics_max: 100_000,
            subscribed_names_max: 1_000_000,
            bytes_max: 256 << 20,
            gap_replay_max: 1_000,
        }
    }
}

/// The settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Names this life of the log; random in production.
    pub epoch: Epoch,
    /// How much history topics keep.
    pub retention: RetentionRules,
    /// Maxima.
    pub limits: Limits,
    /// Collected topics that are remembered by name; `None` is 65,536.
    pub collected_max: Option<usize>,
}

impl LogOptions {
    /// Defaults under this epoch.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            retention: RetentionRules::default(),
            limits: Limits::default(),
            collected_max: None,
        }
    }
}
