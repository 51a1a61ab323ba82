//! `meta=1`: events that have their type and their addresses in their data. The server's own page
//! uses such events, because it shows all types and topics.
//!
//! A browser passes only events of known types to a page, and an ordinary event does not name its
//! topics. With `meta=1`, every event has the type `downlink.event`, and its data is a JSON object
//! with the original type, the addresses and the original data. The id does not change, so a client
//! resumes as usual. The server encodes such an event once for each subscription with `meta=1`. All
//! other subscriptions share one encoding of the event.

use std::sync::Arc;

use downlink::{
    Event, EventType, Frame,
    hub::{Address, Published, Selection},
};
use downlink_access::Verified;
use serde::Serialize;

use crate::access::Control;

/// The type of every event with `meta=1`. Publishers cannot use it, because types that begin with
/// `downlink.` are reserved.
const EVENT_TYPE: &str = "downlink.event";

/// The data of an event with `meta=1`. JSON needs at most six bytes for one byte of text, so the
/// original data becomes at most six times as long. The number of addresses was already checked
/// when the event was published.
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

/// The events of a subscription as its caller may see them.
#[derive(Debug)]
pub(super) struct View {
    pub(super) control: Arc<Control>,
    pub(super) verified: Arc<Verified>,
    pub(super) asked: Selection,
    /// Whether the events are described.
    pub(super) meta: bool,
}

impl View {
    /// The frame of an event. A caller who must not hear the events for everyone gets a comment
    /// instead of an event that is only for everyone.
    pub(super) fn frame(&self, event: &Published<String>) -> Frame {
        let is_asked = |address: &Address| match address {
            Address::Topic(topic) => self.asked.selectors.iter().any(|asked| asked.matches(topic)),
            Address::Client(client) => self.asked.client.as_ref() == Some(client),
            _ => false,
        };
        if !self.verified.grant().hear_everyone() && !event.to().iter().any(is_asked) {
            return Frame::comment("");
        }
        if self.meta { self.described(event) } else { event.frame().clone() }
    }

    /// Encodes an event with its type and its addresses in its data. Leaves out the topics and
    /// clients that the caller may not read.
    fn described(&self, event: &Published<String>) -> Frame {
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
                Address::Topic(topic) if self.control.covers_topic(&self.verified, topic) => {
                    described.topics.push(topic.as_str());
                }
                Address::Client(client) if self.verified.grant().check_client(client).is_ok() => {
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
