//! The options of a log, and its limits.

use crate::types::{offset::Epoch, retention::RetentionRules};

/// The limits of a log. Later versions may add fields, so end a literal with `..Limits::default()`.
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
    /// The maximum number of topics and inboxes that have events or are finished. An inbox is the
    /// topic of one client.
    pub topics_max: usize,
    /// The maximum number of distinct topics and inboxes that open readers name. Names without
    /// events count too. But a topic or inbox counts towards `topics_max` only if it has events or
    /// is finished, so readers cannot use up the limit that publishers need.
    pub subscribed_names_max: usize,
    /// The maximum number of bytes of history in all topics together.
    pub bytes_max: usize,
    /// The maximum number of events that a reader gets from history if it continues after an event
    /// id that the log does not know.
    pub gap_replay_max: usize,
}

impl Default for Limits {
    /// The default limits:
    ///
    /// - a million readers, a million patterns, and a million names of topics and inboxes
    /// - a thousand readers for one client
    /// - a thousand topics and patterns for one reader
    /// - a hundred thousand topics
    /// - 256 MiB of history
    /// - a thousand events after an unknown id
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
    /// The epoch of the log. In production, use a random epoch.
    pub epoch: Epoch,
    /// How much history topics keep.
    pub retention: RetentionRules,
    /// The limits.
    pub limits: Limits,
    /// The maximum number of names of removed topics. When the log removes a topic from memory, it
    /// keeps the topic's name, and the offset up to which the topic's events were evicted. `None`
    /// means 65,536 names.
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
