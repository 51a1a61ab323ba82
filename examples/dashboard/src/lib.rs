//! Numbers that change several times a second, and a page that plots them.
//!
//! The app has a hub, which keeps events and sends them to its clients. Each metric has a topic,
//! and a topic keeps only one event. A new client gets the newest value of each metric at once. Old
//! values are useless, so a slow client skips to the newest values, and a client that reconnects
//! starts like a new client.
//!
//! The server keeps no older values. The page plots only the values that it has received.

mod page;
mod sample;

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use downlink::{
    Hub, LastEventId, PublishError, SubscribeError, Subscription,
    hub::{HubError, HubRetention, Retention, Start},
};
use tokio::time::{Instant, MissedTickBehavior, interval};

pub use sample::{METRICS, Sample, Walk};

/// The time between two samples. Users would hardly notice more frequent samples.
pub const PERIOD: Duration = Duration::from_millis(250);

/// A topic keeps only its newest event, however old the event is.
const NEWEST: Retention = Retention { events_max: 1, age_max: None, ..Retention::DEFAULT };

/// Makes a hub that keeps the newest value of each metric.
///
/// # Errors
///
/// [`HubError`] if the settings are invalid. The tests check that they are valid.
pub fn hub() -> Result<Hub<Sample>, HubError> {
    let retention = HubRetention::default().topics("metrics/*", NEWEST);
    Hub::builder().json().retention(retention).build()
}

/// Makes the app that sends the metrics of this hub.
pub fn app(hub: Hub<Sample>) -> Router {
    Router::new().route("/events", get(watch)).with_state(hub).merge(page::routes())
}

/// Publishes a sample of each metric at once, and then another sample every [`PERIOD`]. `seed`
/// determines the random walk.
///
/// # Errors
///
/// The [`PublishError`] that ended the loop, usually [`PublishError::Closed`].
///
/// # Cancel safety
///
/// If the future is dropped, publishing ends between two events.
pub async fn publish_samples(hub: Hub<Sample>, seed: u64) -> Result<(), PublishError> {
    let mut walk = Walk::new(seed);
    let began = Instant::now();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let elapsed = began.elapsed();
        let values = [
            ("uptime", Some(elapsed.as_secs_f64())),
            ("walk", Some(walk.step())),
            ("memory", sample::resident_mebibytes().await),
            ("streams", Some(hub.stats().subscribers as f64)),
        ];
        for (metric, value) in values {
            let Some(value) = value else { continue };
            let sample = Sample { metric, at_ms: elapsed.as_millis(), value };
            let _receipt = hub.to(format!("metrics/{metric}")).publish(sample)?;
        }
    }
}

async fn watch(
    State(hub): State<Hub<Sample>>,
    last: LastEventId,
) -> Result<Subscription<Sample>, SubscribeError> {
    // The subscription does not use the client's last event id. With the id, the client would get a
    // gap (a notice that events are missing) for the values that it missed. But the client does not
    // need old values.
    let subscribe = hub.subscribe().pattern("metrics/*").start(Start::Earliest);
    subscribe.resume(last.without_id()).open().await
}
