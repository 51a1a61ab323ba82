//! The state that a hub keeps about its upstream, which is the hub that it follows.

use std::{sync::Arc, time::Instant};

use downlink_log::Cursor;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

/// The number of a running hub, which is chosen at random when the hub is made. A feed lists the
/// numbers of the hubs that it came through. A hub that finds its own number there follows itself.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Hop(pub(crate) u64);

/// The state of a hub's connection to its upstream, which is the hub that it follows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// Whether a feed of the upstream is open.
    pub connected: bool,
    /// Whether the hub has ever had everything that the upstream had. It is also true if the hub
    /// began with the cache of an earlier process. Until it is true, new subscriptions wait.
    pub reached: bool,
    /// How many offsets of the upstream the hub has not applied yet, as far as it knows. The
    /// upstream numbers its events, and an offset is such a number.
    pub lag: u64,
    /// When the last message of the upstream arrived. While a feed is open, a message arrives at
    /// least once a second.
    pub heard: Option<Instant>,
    /// Why no feed is open.
    pub error: Option<Arc<str>>,
    /// The hubs through which the events come, beginning with the hub that gives them their
    /// offsets. Empty before the first connection.
    pub(crate) hops: Vec<Hop>,
    /// If the upstream is a relay without events: the upstream, and the hubs that it has tried to
    /// follow. This hub may be among them.
    pub(crate) tried: Vec<Hop>,
}

/// The hubs above a hub and the hub itself, which is the last one.
#[derive(Debug)]
pub(crate) enum Hops {
    /// The events come through these hubs.
    Reached(Vec<Hop>),
    /// The hub follows another one and has no events yet. It has tried to get them through these
    /// hubs.
    Tried(Vec<Hop>),
}

/// A hub's handle to the task that follows the upstream. The task ends when this is dropped.
#[derive(Debug)]
pub(crate) struct UpstreamHandle {
    pub(crate) status: watch::Receiver<UpstreamStatus>,
    pub(crate) questions: mpsc::Sender<Question>,
}

/// A question for the end of the upstream. The answer comes when this hub has everything before
/// that end. It is `None` if the upstream cannot be asked.
pub(crate) type Question = oneshot::Sender<Option<Cursor>>;
