//! `meta=1`: events with what their frames do not say, for a page that shows any of them.
//!
//! An `EventSource` hears only the types it was told of, and no frame names its topics. Here every
//! event has one type and says the rest in its data; its id stays, so resuming works as ever. It is
//! encoded for this subscription alone: the frames that all others share are not touched.

use downlink::{
    Event, EventType, Frame,
    hub::{Address, Published},
};
use serde::Serialize;

/// Nobody can publish it: what begins with `downlink.` is ours.
const EVENT_TYPE: &str = "downlink.event";

/// The data of such an event. JSON writes a character as six bytes at most, so it is bounded by six
/// times the event, and what one event is addressed to is bounded where it is published.
#[derive(Serialize)]
struct Described<'a> {
    topics: Vec<&'a str>,
    clients: Vec<&'a str>,
    everyone: bool,
    event: Option<&'a str>,
    /// When it was published, in milliseconds since 1970.
    at: u64,
    data: &'a str,
}

/// An event with all that is known of it.
pub(super) fn described(event: Published<String>) -> Frame {
    let data = event.data();
    let mut described = Described {
        topics: Vec::new(),
        clients: Vec::new(),
        everyone: false,
        event: event.event_type().map(EventType::as_str),
        at: event.at().as_millis(),
        data: &data,
    };
    for address in event.to() {
        match address {
            Address::Topic(topic) => described.topics.push(topic.as_str()),
            Address::Client(client) => described.clients.push(client.as_str()),
            Address::Everyone => described.everyone = true,
            _ => {}
        }
    }
    let event_type = EventType::new(EVENT_TYPE).expect("short ASCII");
    let described = Event::json(&described).expect("text, numbers and lists are JSON");
    described.with_type(event_type).with_id(event.event_id()).into()
}
