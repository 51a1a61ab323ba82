//! Tests of the hub through its public API, without sockets and without sleeps.
//!
//! A hub without a store never waits, so most tests need no async runtime. [`open`] and [`seen`]
//! poll without waiting, and return what is ready.

#![cfg(all(feature = "axum", feature = "json"))]
#![allow(clippy::unwrap_used)]

mod addressing;
mod batches;
mod callbacks;
mod control;
mod ending;
mod errors;
mod filters;
mod finishing;
mod gaps;
mod limits;
mod metrics;
mod observing;
mod repeats;
mod responses;
mod resume;
mod retention;
#[cfg(feature = "store")]
mod stored;

use downlink::hub::{
    Confirmed, Delivery, GapReason, Hub, HubBuilder, PublishError, Receipt, Retention, Subscribe,
    SubscribeError, Subscription,
};
use futures_util::{FutureExt, StreamExt};

fn hub() -> Hub<String> {
    Hub::text()
}

fn build(set: impl FnOnce(HubBuilder<String>) -> HubBuilder<String>) -> Hub<String> {
    set(Hub::builder().text()).build().unwrap()
}

/// A hub whose topics keep this many events.
fn keeping(events_max: usize) -> Hub<String> {
    build(|builder| builder.retention(Retention { events_max, ..Retention::DEFAULT }))
}

/// Opens a subscription. A hub without a store does this without waiting.
fn try_open<T: Send + Sync + 'static>(
    subscribe: Subscribe<T>,
) -> Result<Subscription<T>, SubscribeError> {
    subscribe.open().now_or_never().expect("a hub in memory never waits")
}

fn open<T: Send + Sync + 'static>(subscribe: Subscribe<T>) -> Subscription<T> {
    try_open(subscribe).unwrap()
}

fn refused<T: Send + Sync + 'static>(subscribe: Subscribe<T>) -> SubscribeError {
    try_open(subscribe).unwrap_err()
}

fn say(hub: &Hub<String>, topic: &str, data: &str) -> Confirmed {
    certain(hub.to(topic).publish(data.to_owned())).unwrap()
}

/// The outcome of a publish. A hub without a store knows the outcome at once.
fn certain(published: Result<Receipt, PublishError>) -> Result<Confirmed, PublishError> {
    published?.durable().now_or_never().expect("a hub in memory never waits")
}

/// Reads everything that a subscription has now. Returns the data of each event, `gap <reason>` for
/// each gap, and `end <reason>` if the subscription has ended.
fn seen<T: Send + Sync + 'static>(subscription: &mut Subscription<T>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(next) = subscription.next().now_or_never() {
        match next {
            Some(Delivery::Event(event)) => seen.push(event.data().into_owned()),
            Some(Delivery::Gap(gap)) => seen.push(format!("gap {}", word(gap.reason))),
            Some(_) => unreachable!("a delivery is an event or a gap"),
            None => {
                let reason = subscription.ended().expect("an ended subscription has a reason");
                seen.push(format!("end {}", reason.as_str()));
                break;
            }
        }
    }
    seen
}

fn word(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Evicted => "evicted",
        GapReason::UnknownId => "unknown_id",
        GapReason::NewEpoch => "new_epoch",
        GapReason::Lagged => "lagged",
        GapReason::Lost => "lost",
        GapReason::Unreadable => "unreadable",
        _ => "of another kind",
    }
}

/// The id that the hub gives the event at this offset.
fn id(hub: &Hub<String>, offset: u64) -> String {
    let cursor = hub.cursor();
    let (epoch, _) = cursor.as_str().split_once('-').unwrap();
    format!("{epoch}-{offset}")
}
