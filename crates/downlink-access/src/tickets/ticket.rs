//! The content of a ticket: a grant to read, and the facts that decide whether the ticket is
//! revoked.
//!
//! The content is JSON, like the grants of tokens. Only a sealed ticket leaves the process.

use std::time::Duration;

use downlink_log::Timestamp;
use serde_json::{Value, json};

use crate::grant::Grant;
use crate::json;
use crate::secret::KeyId;

/// The longest life of a ticket. It is short, because the logs of proxies contain the URLs of
/// tickets.
pub const TICKET_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);

/// The content of a ticket.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ticket {
    /// Topics, client and end.
    pub(crate) grant: Grant,
    /// The time when the issuer's own credential was issued. The issuer is the caller that issued
    /// the ticket.
    pub(crate) issued_at: Timestamp,
    /// The key that verified the issuer's own credential. `None` if the issuer needed no
    /// credential, for example on a Unix socket that only the operator may use.
    pub(crate) issuer: Option<AcceptedKey>,
}

/// The key that verified a credential, and the part of the configuration that has the key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum AcceptedKey {
    /// A key of [`Keys`](crate::Keys).
    Key(KeyId),
    /// A key of [`Tokens`](crate::Tokens).
    Token(KeyId),
}

impl AcceptedKey {
    pub(crate) const fn id(self) -> KeyId {
        match self {
            Self::Key(id) | Self::Token(id) => id,
        }
    }

    fn to_text(self) -> String {
        match self {
            Self::Key(id) => format!("k{id}"),
            Self::Token(id) => format!("t{id}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("k", id) => KeyId::parse(id).map(Self::Key),
            ("t", id) => KeyId::parse(id).map(Self::Token),
            _ => None,
        }
    }
}

impl Ticket {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let content = json!({
            "g": self.grant.to_members(),
            "c": self.grant.client().map(|client| client.as_str()),
            "u": self.grant.until().map(Timestamp::as_millis),
            "i": self.issued_at.as_millis(),
            "k": self.issuer.map(AcceptedKey::to_text),
        });
        content.to_string().into_bytes()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let members = json::object(bytes)?;
        let time = |name: &str| members.get(name)?.as_u64().map(Timestamp::from_millis);
        let mut grant = members.get("g")?.as_object()?.clone();
        let client = members.get("c").filter(|client| !client.is_null());
        grant.extend(client.map(|client| ("client".to_owned(), client.clone())));
        // Every ticket has an end, so a ticket without an end is not valid.
        let grant = Grant::from_members(&grant).ok()?.with_until(time("u")?);
        let issuer = match members.get("k")? {
            Value::Null => None,
            key => Some(AcceptedKey::parse(key.as_str()?)?),
        };
        Some(Self { grant, issued_at: time("i")?, issuer })
    }
}
