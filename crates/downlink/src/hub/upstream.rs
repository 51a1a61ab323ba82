//! What a hub that follows another one knows about it.

use std::{sync::Arc, time::Instant};

use downlink_log::Cursor;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

/// The number of a running hub. It is chosen at random when the hub is made. A hub that finds its
/// own number among the hops of a feed has begun to follow itself.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Hop(pub(crate) u64);

/// The state of a hub's connection to its upstream, which is the hub that it follows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// Whether a feed of the upstream is open.
    pub connected: bool,
    /// Whether the hub has had everything that the upstream had, at some time since it was made, or
    /// in an earlier process if it began with a cache. Until then, new subscriptions wait.
    pub reached: bool,
    /// The number of offsets of the upstream that the hub has not applied yet, as far as it knows.
    /// An offset is a number that the upstream has given to an event.
    pub lag: u64,
    /// When the last message of the upstream arrived. While a feed is open, a message arrives at
    /// least once a second.
    pub heard: Option<Instant>,
    /// Why no feed is open.
    pub error: Option<Arc<str>>,
    /// The hubs through which the events come, the one that decides first. Empty before the first
    /// connection.
    pub(crate) hops: Vec<Hop>,
    /// The hubs that the upstream has tried to follow, and the upstream, if it is a relay without
    /// events. This hub may be among them.
    pub(crate) tried: Vec<Hop>,
}

/// The hubs above a hub and the hub itself, which is the last one.
#[derive(Debug)]
pub(crate) enum Hops {
    /// The events come through these hubs.
    Reached(Vec<Hop>),
    /// The hub follows another one and has no events yet.
    Tried(Vec<Hop>),
}

/// A hub's handle to the task that follows the upstream. The task ends when this is dropped.
#[derive(Debug)]
pub(crate) struct UpstreamHandle {
    pub(crate) status: watch::Receiver<UpstreamStatus>,
    pub(crate) questions: mpsc::Sender<Question>,
}

/// Asks for the end of the upstream. The answer comes when this hub has everything up to there.
/// `None` if the upstream cannot be asked.
pub(crate) type Question = oneshot::Sender<Option<Cursor>>;
