//! The addresses and attributes of an event, read from a query or a line of JSON. The addresses are
//! the topics and clients that the event is for, or "everyone".
//!
//! The hub, which is the log of events, checks each value when an event is published. If the body
//! of a request is a stream of events, the first event may arrive long after the query. The client
//! would learn of a wrong address only then. So this module checks the addresses as soon as it has
//! the query: there must be at least one address, and all addresses must be valid.

use std::time::Duration;

use axum::http::HeaderMap;
use downlink::{
    access::Caller,
    hub::{ADDRESSES_MAX, Address, ClientId, Hub, Publish, PublishError, Topic},
};
use downlink_access::Right;

use super::{
    query::Query,
    reply::{Refused, bad_request, not_published},
};

/// The header in which a relay sends the name space of the publisher whose event it forwards.
pub(super) const PUBLISHER: &str = "downlink-publisher";

/// The maximum length of the name space of a publisher.
const PUBLISHER_BYTES_MAX: usize = 256;

/// The name space of the ids and idempotency keys of a request's publisher. A publisher with a
/// token has its own. For other publishers, the text is empty. A relay sends the name space of the
/// publisher whose request it forwards, so that a publisher may repeat a request at another relay.
pub(super) fn publisher(caller: &Caller, headers: &HeaderMap) -> Result<String, Refused> {
    let Some(forwarded) = headers.get(PUBLISHER) else {
        let own = caller.verified().publisher().map(|name| name.to_string());
        return Ok(own.unwrap_or_default());
    };
    caller.check(Right::Follow)?;
    let forwarded = forwarded.to_str().ok().filter(|text| text.len() <= PUBLISHER_BYTES_MAX);
    forwarded.map(str::to_owned).ok_or_else(|| {
        bad_request(format!(
            "The header Downlink-Publisher must be at most {PUBLISHER_BYTES_MAX} visible ASCII \
             characters."
        ))
    })
}

/// All parts of an event except its data.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    pub(super) topics: Vec<String>,
    pub(super) clients: Vec<String>,
    pub(super) everyone: bool,
    pub(super) event_type: Option<String>,
    pub(super) id: Option<String>,
    pub(super) retry_ms: Option<u64>,
    pub(super) last: bool,
    /// The name space of the event id and the idempotency key. A publisher with a token has its own
    /// name space. For other publishers, this text is empty.
    pub(super) publisher: String,
}

impl Envelope {
    /// Reads the parameters of a publish.
    pub(super) fn of_query(query: &Query) -> Result<Self, Refused> {
        let owned = |value: &str| value.to_owned();
        Ok(Self {
            topics: query.all("topic").map(owned).collect(),
            clients: query.all("client").map(owned).collect(),
            everyone: query.flag("everyone")?.unwrap_or(false),
            event_type: query.one("event")?.map(owned),
            id: query.one("id")?.map(owned),
            retry_ms: query.number("retry")?,
            last: query.flag("last")?.unwrap_or(false),
            publisher: String::new(),
        })
    }

    /// The same event in the name space of its publisher, which [`publisher`] returns.
    pub(super) fn of_publisher(self, publisher: &str) -> Self {
        Self { publisher: publisher.to_owned(), ..self }
    }

    /// The id that an event of this publisher gets. If the publisher has a name space, the id
    /// begins with the name space. So a publisher with a token cannot take the id of another
    /// publisher's event.
    pub(super) fn own_id(&self, id: &str) -> String {
        if self.publisher.is_empty() { id.to_owned() } else { format!("{}.{id}", self.publisher) }
    }

    /// Checks the addresses, and returns them sorted and without duplicates. All events of a stream
    /// have the same addresses, so one check is enough for the stream.
    pub(super) fn addresses(&self) -> Result<Vec<Address>, Refused> {
        if self.topics.is_empty() && self.clients.is_empty() && !self.everyone {
            return Err(bad_request(
                "No recipient: give a topic, a client, or everyone (?topic=NAME, ?client=ID or \
                 ?everyone in an address).",
            ));
        }
        // The limit applies before duplicates are removed, so that the server never has to sort a
        // million names.
        if self.topics.len() + self.clients.len() > ADDRESSES_MAX {
            let error = PublishError::TooManyAddresses { addresses_max: ADDRESSES_MAX };
            return Err(not_published(&error));
        }
        let topics = self.topics.iter().map(|topic| {
            let error = |reason| PublishError::InvalidTopic { topic: topic.clone(), reason };
            Topic::new(topic).map(Address::Topic).map_err(error)
        });
        let clients = self.clients.iter().map(|client| {
            let error = |reason| PublishError::InvalidClient { client: client.clone(), reason };
            ClientId::new(client).map(Address::Client).map_err(error)
        });
        let everyone = self.everyone.then_some(Ok(Address::Everyone));
        let read = topics.chain(clients).chain(everyone).collect::<Result<Vec<_>, _>>();
        let mut addresses = read.map_err(|error| not_published(&error))?;
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// Prepares an event for these addresses, which [`addresses`](Self::addresses) has returned.
    pub(super) fn publish(&self, hub: &Hub<String>, addresses: &[Address]) -> Publish<String> {
        let mut publish = hub.to_addresses(addresses.iter().cloned());
        if let Some(event_type) = &self.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = &self.id {
            publish = publish.id(self.own_id(id));
        }
        if let Some(millis) = self.retry_ms {
            publish = publish.retry(Duration::from_millis(millis));
        }
        if self.last { publish.last() } else { publish }
    }
}
