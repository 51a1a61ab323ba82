//! How a subscription is polled: by itself, or by a server that has quicker ways for many of them.
//!
//! Not here: whose ways these are. Hub and HTTP do not know each other.

use std::task::Context;

use downlink_log::{Payload, Reader, Timestamp};

use super::Clock;

/// How whoever polls a subscription tells the time, and wants to be woken.
pub(crate) trait Reading {
    /// What a clock tells.
    fn now(clock: &Clock) -> Timestamp;

    /// Has whoever polls woken when the reader is.
    fn register<P: Payload>(reader: &Reader<P>, cx: &Context<'_>);
}

/// By the clock and by the waker.
pub(super) struct ByItself;

impl Reading for ByItself {
    fn now(clock: &Clock) -> Timestamp {
        clock.now()
    }

    fn register<P: Payload>(reader: &Reader<P>, cx: &Context<'_>) {
        reader.register(cx.waker());
    }
}

/// What the next poll is likely to find: which way is tried first, and nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expects {
    Anything,
    /// One event: it has waited for it.
    Event,
    /// The event read last was the newest.
    Nothing,
}

impl Expects {
    /// After an event; behind it there may be others, of whatever topics.
    pub(super) fn after_event(is_behind: bool) -> Self {
        if is_behind { Self::Anything } else { Self::Nothing }
    }
}
