//! How a subscription is polled: standalone, or driven by a server of many.
//!
//! The server's side is not here. Hub and HTTP do not know each other.

use std::task::Context;

use downlink_log::{Payload, Reader, Timestamp};

use super::HubClock;

/// How the caller that polls a subscription tells the time, and is woken.
pub(crate) trait Reading {
    /// The log time.
    fn now(clock: &HubClock) -> Timestamp {
        clock.now()
    }

    /// Registers the caller to be woken with the reader.
    fn register<P: Payload>(reader: &Reader<P>, cx: &Context<'_>) {
        reader.register(cx.waker());
    }
}

/// By the clock and by a waker.
pub(super) struct Standalone;

impl Reading for Standalone {}

/// What the next poll is likely to find. It decides only which way is tried first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Expects {
    #[default]
    Anything,
    /// One event: the subscription has waited for it.
    Event,
    /// The event read last was the newest.
    Nothing,
}

impl Expects {
    /// After an event. Others may follow, of whatever topics.
    pub(super) fn after_event(is_behind: bool) -> Self {
        if is_behind { Self::Anything } else { Self::Nothing }
    }
}
