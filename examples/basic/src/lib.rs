//! An event stream that sends the time once a second. This is the smallest possible endpoint.
//!
//! `GET /events` numbers its events `evt-1`, `evt-2` and so on. A client that reconnects with
//! `Last-Event-ID: evt-7` continues with `evt-8`. The app does not send the missed times, because
//! past times are useless. To send missed events, use a hub, as in the example `chat`.

use std::time::Duration;

use axum::{Router, routing::get};
use downlink::{Event, EventId, EventType, InvalidField, LastEventId, Sse};
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

/// The time between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// The text before the number in an event id.
const ID_PREFIX: &str = "evt-";

/// The highest number that the app accepts in a `Last-Event-ID`. JavaScript represents all integers
/// up to this number exactly. At one event a second, no stream reaches it.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Makes the app. `now` returns the current time.
pub fn app(now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static) -> Router {
    let events = move |last: LastEventId| {
        let last = last.as_str().and_then(number_of).unwrap_or(0);
        async move { Sse::new(times(last, now)) }
    };
    Router::new().route("/events", get(events))
}

/// The stream of events. The first event comes at once, and its number is `last + 1`.
fn times(
    last: u64,
    now: impl Fn() -> Timestamp,
) -> impl Stream<Item = Result<Event, InvalidField>> {
    let mut seconds = interval(PERIOD);
    // A client that did not read for a while gets only the current time. The missed times are
    // skipped.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    stream::unfold((seconds, last, now), async |(mut seconds, last, now)| {
        seconds.tick().await;
        let number = last + 1;
        Some((event(number, now()), (seconds, number, now)))
    })
}

fn event(number: u64, now: Timestamp) -> Result<Event, InvalidField> {
    let id = EventId::new(&format!("{ID_PREFIX}{number}"))?;
    Ok(Event::new(format!("{now:.0}")).event(EventType::from_static("time")).id(id))
}

/// Returns the number in an event id, or `None` if this app did not make the id.
fn number_of(id: &str) -> Option<u64> {
    let digits = id.strip_prefix(ID_PREFIX)?;
    let number = digits.parse::<u64>().ok()?;
    (number <= NUMBER_MAX && number.to_string() == digits).then_some(number)
}
