//! The hub's own events `downlink.open` and `downlink.alive`.
//!
//! If such an event has an id, the id is the subscription's cursor (the position of the next event
//! to read). So a client that resumes after this id misses no event. The data is JSON. This crate
//! formats the JSON without a serializer, because the values are numbers, ids or fixed words.

use std::time::Duration;

use downlink_proto::{Event, EventId, EventType};

/// The prefix of the hub's own event types. Publishers may not use it.
pub(super) const PREFIX: &str = "downlink.";

/// One of the hub's own event types.
pub(super) fn event_type(name: &str) -> EventType {
    EventType::new(&format!("{PREFIX}{name}")).expect("the hub's own event types are short ASCII")
}

/// The first event of a subscription. Its data contains the subscription's number, a flag that
/// tells whether the subscription resumed, and the interval of its keep-alives. Its id is the
/// subscription's cursor.
pub(super) fn open(
    id: Option<EventId>,
    number: u64,
    resumed: bool,
    keep_alive: Option<Duration>,
) -> Event {
    let millis = keep_alive.map_or(0, |interval| interval.as_millis());
    let data =
        format!(r#"{{"resumed":{resumed},"connection":"{number}","keep_alive_ms":{millis}}}"#);
    id.into_iter().fold(Event::new(data).event(event_type("open")), Event::id)
}

/// A keep-alive as an event. `id` is the subscription's cursor, if the client does not know this
/// cursor yet.
pub(super) fn alive(id: Option<EventId>) -> Event {
    id.into_iter().fold(Event::new("{}").event(event_type("alive")), Event::id)
}
