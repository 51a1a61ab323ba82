//! The addresses and attributes of an event, from a query or from JSON.
//!
//! The hub checks each word. This module checks two things the hub cannot: that there is at least
//! one address, and that the addresses are valid before the first event arrives.

use std::time::Duration;

use downlink::hub::{ADDRESSES_MAX, ClientId, Hub, Publish, PublishError, Topic};

use super::{
    query::Query,
    reply::{Refused, bad_request, not_published},
};

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
        })
    }

    /// Checks the addresses. A stream checks them at its start, since its first event may come
    /// late.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.topics.is_empty() && self.clients.is_empty() && !self.everyone {
            return Err(bad_request(
                "Say whom it is for: name a topic, a client, or everyone (?topic=NAME, ?client=ID \
                 or ?everyone in an address).",
            ));
        }
        // Repeated names count, because the limit avoids a search for duplicates among a million
        // names.
        if self.topics.len() + self.clients.len() > ADDRESSES_MAX {
            let error = PublishError::TooManyAddresses { addresses_max: ADDRESSES_MAX };
            return Err(not_published(&error));
        }
        self.check_names().map_err(|error| not_published(&error))
    }

    fn check_names(&self) -> Result<(), PublishError> {
        for topic in &self.topics {
            Topic::new(topic)
                .map_err(|reason| PublishError::InvalidTopic { topic: topic.clone(), reason })?;
        }
        for client in &self.clients {
            ClientId::new(client)
                .map_err(|reason| PublishError::InvalidClient { client: client.clone(), reason })?;
        }
        Ok(())
    }

    /// A pending event with these attributes. Calls [`check`](Self::check) first.
    pub(super) fn publish(&self, hub: &Hub<String>) -> Result<Publish<String>, Refused> {
        self.check()?;
        let to = match (self.everyone, self.topics.first(), self.clients.first()) {
            (true, ..) => hub.to_everyone(),
            (false, Some(topic), _) => hub.to(topic),
            (false, None, client) => hub.to_client(client.map_or("", String::as_str)),
        };
        let to = self.topics.iter().fold(to, |to, topic| to.and_to(topic));
        let to = self.clients.iter().fold(to, |to, client| to.and_to_client(client));
        Ok(self.describe(to))
    }

    fn describe(&self, mut publish: Publish<String>) -> Publish<String> {
        if let Some(event_type) = &self.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = &self.id {
            publish = publish.id(id);
        }
        if let Some(millis) = self.retry_ms {
            publish = publish.retry(Duration::from_millis(millis));
        }
        if self.last { publish.last() } else { publish }
    }
}
