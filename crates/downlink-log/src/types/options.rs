//! The options of a log, and its limits.

use crate::types::{offset::Epoch, retention::RetentionRules};

/// The named maxima of a log. Later versions may have more of them, so end a literal with
/// `..Limits::default()`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The maximum number of readers at the same time.
    pub subscribers_max: usize,
    /// The maximum number of readers of one client at the same time.
    pub subscribers_per_client_max: usize,
    /// The maximum number of topics and patterns of one reader.
    pub selectors_max: usize,
    /// The maximum number of distinct patterns of all readers together.
    pub patterns_max: usize,
    /// The maximum number of topics and inboxes that have events or a finish mark.
    pub topics_max: usize,
    /// The maximum number of distinct topics and inboxes that readers have named, with or without
    /// events. These names never count against a publisher.
    pub subscribed_names_max: usize,
    /// The maximum number of bytes of history in all topics together.
    pub bytes_max: usize,
    /// The maximum number of events that are replayed after an id that the log does not know.
    pub gap_replay_max: usize,
}

impl Default for Limits {
    /// A million subscribers, and room for a pattern and an inbox for each; a thousand selectors; a
    /// hundred thousand topics; 256 MiB of history; and a replay of a thousand events.
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
    /// The epoch of the log; random in production.
    pub epoch: Epoch,
    /// How much history topics keep.
    pub retention: RetentionRules,
    /// The limits.
    pub limits: Limits,
    /// The maximum number of collected topics that are remembered by name; `None` is 65,536.
    pub collected_max: Option<usize>,
}

impl LogOptions {
    /// The default options with this epoch.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            retention: RetentionRules::default(),
            limits: Limits::default(),
            collected_max: None,
        }
    }
}
