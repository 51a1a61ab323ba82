//! Entries that were evicted while locks were held. They are dropped after the locks, because
//! dropping a payload may run a user's code.

use std::sync::Arc;

use crate::topics::{ring::Kept, topic::Topic};

/// Evicted entries, and topics that may be collected.
#[derive(Debug)]
#[must_use = "ids are freed and topics collected when it is settled"]
pub(crate) struct Evicted<P> {
    pub(crate) entries: Vec<Kept<P>>,
    /// Topics that keep nothing any more.
    pub(crate) emptied: Vec<Arc<Topic<P>>>,
}

impl<P> Evicted<P> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), emptied: Vec::new() }
    }
}
