//! `meta=1`: events that have their type and their addresses in their data. The addresses of an
//! event are the topics and clients that it is for, or "everyone". The server's own page uses such
//! events, because it shows all types and topics.
//!
//! A page gets an event from its browser only if the page has a listener for the type of the event.
//! So a page cannot get events of types that it does not know. An ordinary event also does not name
//! its topics. With `meta=1`, every event has the type `downlink.event`, and its data is a JSON
//! object with the original type, the addresses and the original data. The id does not change, so a
//! client resumes as usual. The server encodes such an event once for each subscription with
//! `meta=1`. All other subscriptions share one encoding of the event.

use std::sync::Arc;

use downlink::{
    Event, EventType, Frame,
    access::Caller,
    hub::{Address, Published},
};
use serde::Serialize;

use crate::access::Control;

/// The type of every event with `meta=1`. Publishers cannot use it, because types that begin with
/// `downlink.` are reserved.
const EVENT_TYPE: &str = "downlink.event";

/// The data of an event with `meta=1`. Its size is limited: JSON needs at most six bytes for one
/// byte of the original data, and the hub limits the number of addresses of an event.
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

/// The caller of a subscription with `meta=1`. Its events show only addresses that the caller may
/// read.
#[derive(Debug)]
pub(super) struct View {
    pub(super) control: Arc<Control>,
    pub(super) caller: Caller,
}

impl View {
    /// Encodes an event with its type and its addresses in its data. Leaves out the topics and
    /// clients that the caller may not read.
    pub(super) fn described(&self, event: &Published<String>) -> Frame {
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
                Address::Topic(topic) if self.control.covers_topic(&self.caller, topic) => {
                    described.topics.push(topic.as_str());
                }
                Address::Client(client) if self.caller.grant().check_client(client).is_ok() => {
                    described.clients.push(client.as_str());
                }
                Address::Everyone => described.everyone = true,
                _ => {}
            }
        }
        let described =
            Event::json(&described).expect("text, numbers and lists are always valid JSON");
        described.event(EventType::from_static(EVENT_TYPE)).id(event.id()).into()
    }
}
