//! The two ways to poll a subscription: standalone by its own task, or driven by a server that
//! polls many subscriptions.
//!
//! The module `adapters` implements the second way, because it is the module that connects the hub
//! with the module `http`.

use std::task::Context;

use downlink_log::{Payload, Reader, Timestamp};

use super::HubClock;

/// How a subscription gets the time during a poll, and how it wakes the caller of the poll later.
pub(crate) trait ReadMode {
    /// The current log time (see [`HubClock`]).
    fn now(clock: &HubClock) -> Timestamp {
        clock.now()
    }

    /// Registers the caller with the reader (the position of the subscription in the log). The
    /// reader wakes the caller when there are new events.
    fn register<P: Payload>(reader: &Reader<P>, cx: &Context<'_>) {
        reader.register(cx.waker());
    }
}

/// The mode of a caller that reads the hub's clock at each call, and is woken by a waker.
pub(super) struct Standalone;

impl ReadMode for Standalone {}

/// The expected result of the next poll. The poll uses the expectation only to decide which step to
/// try first. A wrong expectation costs time, but loses no event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Expectation {
    #[default]
    Anything,
    /// One event, because the subscription has waited for an event.
    Event,
    /// No event, because the subscription has just read the newest event.
    Nothing,
}

impl Expectation {
    /// The expectation after an event. If the reader is behind, any number of events of any topics
    /// may follow.
    pub(super) fn after_event(is_behind: bool) -> Self {
        if is_behind { Self::Anything } else { Self::Nothing }
    }
}
