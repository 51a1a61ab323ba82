//! Converts the ids and types of a stream that another server wrote.
//!
//! Such a stream may use types that this server reserves for events about the connection, and its
//! ids come from the other server. By default, reserved types get a prefix, each event gets a new
//! id, and types that this server cannot send, such as very long ones, are dropped. So by default,
//! no type or id stops the stream.

use downlink::hub::is_reserved_type;
use downlink_proto::EventType;

use super::{
    query::Query,
    reply::{Refused, bad_request},
    stream_reader::{Arrived, Format},
};

/// The prefix that a reserved type gets.
const PREFIX: &str = "upstream.";

/// What happens to the ids and types of a stream that another server wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    ids: Ids,
    types: Types,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ids {
    /// Each event gets a new id.
    Drop,
    /// Each event keeps its id. An invalid id stops the stream. If an event with the same id was
    /// published before, the event counts as a repeat and is not published again.
    Keep,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Types {
    /// A reserved type gets a prefix. A type that cannot be sent is dropped.
    Prefix,
    /// A reserved type stops the stream.
    Keep,
    /// All types are dropped.
    Drop,
}

impl Foreign {
    pub(super) fn of_query(query: &Query, format: Format) -> Result<Self, Refused> {
        let (ids, types) = (query.one("ids")?, query.one("types")?);
        if format == Format::Lines && (ids.is_some() || types.is_some()) {
            return Err(bad_request(
                "The parameters ids and types are for text/event-stream: lines of JSON have none.",
            ));
        }
        let ids = match ids {
            None | Some("drop") => Ids::Drop,
            Some("keep") => Ids::Keep,
            Some(_) => return Err(bad_request("The value of ids must be drop or keep.")),
        };
        let types = match types {
            None | Some("prefix") => Types::Prefix,
            Some("keep") => Types::Keep,
            Some("drop") => Types::Drop,
            Some(_) => return Err(bad_request("The value of types must be prefix, keep or drop.")),
        };
        Ok(Self { ids, types })
    }

    /// Returns the event with the id and type under which it is published.
    pub(super) fn apply(self, arrived: Arrived) -> Arrived {
        let id = arrived.id.filter(|_| self.ids == Ids::Keep);
        let event_type = match self.types {
            Types::Keep => arrived.event_type,
            Types::Drop => None,
            Types::Prefix => arrived.event_type.map(prefixed).filter(|text| can_be_sent(text)),
        };
        Arrived { event_type, id, data: arrived.data }
    }
}

fn prefixed(event_type: String) -> String {
    if is_reserved_type(&event_type) { format!("{PREFIX}{event_type}") } else { event_type }
}

fn can_be_sent(event_type: &str) -> bool {
    EventType::new(event_type).is_ok()
}
