//! The time, once a second, as an event stream: the smallest endpoint there is.
//!
//! `GET /events` numbers its events `evt-1`, `evt-2` and so on; a client that comes back with
//! `Last-Event-ID: evt-7` goes on at `evt-8`. The numbers are all that is resumed: nobody wants to
//! read what time it was. Endpoints whose past matters use a hub, as the example `chat` does.

use std::time::Duration;

use axum::{Router, routing::get};
use downlink::{Event, EventId, EventType, InvalidField, LastEventId, Sse};
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

/// The time between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// What stands before the number in an event id.
const ID_PREFIX: &str = "evt-";

/// The highest number that is taken from a client: the last one that a page's JavaScript can count
/// with exactly. Nobody gets there at one event a second, and no later number can overflow.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The app; `now` tells the time.
pub fn app(now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static) -> Router {
    let events = move |last: LastEventId| {
        let last = last.as_str().and_then(number_of).unwrap_or(0);
        async move { Sse::new(times(last, now)) }
    };
    Router::new().route("/events", get(events))
}

/// Events with the time, the first at once, numbered from the one after `last`.
fn times(
    last: u64,
    now: impl Fn() -> Timestamp,
) -> impl Stream<Item = Result<Event, InvalidField>> {
    let mut seconds = interval(PERIOD);
    // After a while without room for more, a reader gets the time it is, not all that it was.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    stream::unfold((seconds, last, now), async |(mut seconds, last, now)| {
        seconds.tick().await;
        let number = last + 1;
        Some((event(number, now()), (seconds, number, now)))
    })
}

fn event(number: u64, now: Timestamp) -> Result<Event, InvalidField> {
    let id = EventId::new(&format!("{ID_PREFIX}{number}"))?;
    Ok(Event::new(format!("{now:.0}")).with_type(EventType::new("time")?).with_id(id))
}

/// The number in an id of ours; what we would have written differently is not ours.
fn number_of(id: &str) -> Option<u64> {
    let digits = id.strip_prefix(ID_PREFIX)?;
    let number = digits.parse::<u64>().ok()?;
    (number <= NUMBER_MAX && number.to_string() == digits).then_some(number)
}
