//! The two ways to poll a subscription: standalone, or driven by a server of many.
//!
//! The server's side is not here. Hub and HTTP do not know each other.

use std::task::Context;

use downlink_log::{Payload, Reader, Timestamp};

use super::HubClock;

/// The clock and the wake-up of the caller that polls a subscription.
pub(crate) trait ReadMode {
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

impl ReadMode for Standalone {}

/// The likely result of the next poll. It only decides which way is tried first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Expectation {
    #[default]
    Anything,
    /// One event: the subscription has waited for it.
    Event,
    /// The event read last was the newest.
    Nothing,
}

impl Expectation {
    /// After an event. Others may follow, of any topics.
    pub(super) fn after_event(is_behind: bool) -> Self {
        if is_behind { Self::Anything } else { Self::Nothing }
    }
}
