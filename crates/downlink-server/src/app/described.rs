//! `meta=1`: events that carry their type and addresses in their data, for a page that shows every
//! event.
//!
//! An `EventSource` receives only the types that it listens for, and no frame names its topics.
//! With `meta=1`, every event has the same type, and its data holds the rest. Its id does not
//! change, so a client resumes as usual. The event is encoded for this subscription alone. The
//! frames that other subscriptions share are not changed.

use downlink::{
    Event, EventType, Frame,
    hub::{Address, Published},
};
use serde::Serialize;

/// Publishers cannot use this type: the server reserves every type that begins with `downlink.`.
const EVENT_TYPE: &str = "downlink.event";

/// The data of an event with `meta=1`. JSON takes at most six bytes for a byte of text, so the data
/// is at most six times as long as the event. Its addresses are limited when it is published.
#[derive(Serialize)]
struct Described<'a> {
    topics: Vec<&'a str>,
    clients: Vec<&'a str>,
    everyone: bool,
    event: Option<&'a str>,
    /// The time of publication, in milliseconds since 1970.
    at: u64,
    data: &'a str,
}

/// Encodes an event with its type and addresses in its data.
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
    let described = Event::json(&described).expect("text, numbers and lists are JSON");
    described.event(EventType::from_static(EVENT_TYPE)).id(event.id()).into()
}
