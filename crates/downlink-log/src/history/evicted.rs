//! Evicted events. They are gathered while locks are held and dropped after the locks are released,
//! because dropping a payload may run the app's code.

use std::sync::Arc;

use crate::history::Published;
use crate::topics::{ring::Kept, topic::Topic};

/// Evicted events, and topics that may be collected, which means that they are removed from memory.
#[derive(Debug)]
#[must_use = "a call of `settle` must free the ids and collect the topics"]
pub(crate) struct Evicted<P> {
    pub(crate) entries: Vec<Kept<P>>,
    /// Topics that have no events and no finish mark left. A finish mark says that a topic gets no
    /// more events.
    pub(crate) emptied: Vec<Arc<Topic<P>>>,
    /// Events that the backlog (the newest events, for the feeds of the log) no longer keeps.
    pub(crate) unneeded: Vec<Published<P>>,
    /// Payloads that were never put into a ring, which holds the events of one topic.
    pub(crate) unkept: Vec<P>,
}

impl<P> Evicted<P> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), emptied: Vec::new(), unneeded: Vec::new(), unkept: Vec::new() }
    }
}
