//! The outcome of verification: a grant, and the kind of credential that proves it.
//!
//! [`Verified`] is for one request. For an open stream, the server keeps a
//! [`StreamGrant`](crate::StreamGrant), which needs less memory.

use std::time::Duration;

use downlink_log::{Address, ClientId, Timestamp, TopicSelector};

use crate::error::{AccessError, Right};
use crate::grant::Grant;
use crate::revocations::{ClientTag, Issued};
use crate::secret::KeyId;
use crate::tickets::seal::TicketId;
use crate::tickets::ticket::{AcceptedKey, TICKET_LIFETIME_MAX, Ticket};

/// A grant, and its [proof](Proof). A revocation or the removal of a key can end the grant.
///
/// The checks are those of [`Grant`], with one difference. If the request had no credential, the
/// error for a missing right is [`TokenMissing`](AccessError::TokenMissing), because a credential
/// may give the right.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Verified {
    pub(crate) grant: Grant,
    pub(crate) proof: Proof,
    /// The key that verified the credential. For a ticket, the key that verified the ticket's
    /// issuer.
    pub(crate) key: Option<AcceptedKey>,
    /// The time when the credential was issued. For a key, the time of its use.
    pub(crate) issued_at: Timestamp,
    pub(crate) verified_at: Timestamp,
}

/// The kind of credential that proves a grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Proof {
    /// The request had no credential.
    Nothing,
    /// No credential was needed. The request came over a trusted socket, such as a Unix socket that
    /// only the operator may use, or the app has decided its rights.
    Trusted,
    /// A key.
    Key,
    /// A token.
    Token,
    /// A ticket.
    Ticket {
        /// The id of the ticket.
        id: TicketId,
        /// The ticket key that sealed the ticket.
        sealed_with: KeyId,
    },
}

impl Verified {
    /// A grant without a credential, for a request over a trusted socket, or for a request whose
    /// rights the app has decided. Revocations treat the grant as issued now.
    pub const fn trusted(grant: Grant, now: Timestamp) -> Self {
        Self { grant, proof: Proof::Trusted, key: None, issued_at: now, verified_at: now }
    }

    /// The rights of a request without credentials.
    pub fn nobody(now: Timestamp) -> Self {
        let verified = Self::trusted(Grant::none(), now);
        Self { proof: Proof::Nothing, ..verified }
    }

    /// The grant.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The proof.
    pub const fn proof(&self) -> Proof {
        self.proof
    }

    /// The key that verified the credential. For a ticket, the key that verified the ticket's
    /// issuer.
    pub fn key(&self) -> Option<KeyId> {
        self.key.map(AcceptedKey::id)
    }

    /// The name space of the event ids and idempotency keys that a publisher chooses. In another
    /// name space, the same id is a different id. So a user cannot publish an event with the id of
    /// another publisher's event. For a token with a client id, each client has a name space. For a
    /// token without a client id, each key has one. `None` if the proof is not a token: all callers
    /// without a token share one name space.
    pub fn publisher(&self) -> Option<KeyId> {
        if self.proof != Proof::Token {
            return None;
        }
        let of_client = |client: &ClientId| KeyId::of("publisher", client.as_str().as_bytes());
        self.grant.client().map(of_client).or(self.key())
    }

    /// Checks the right to publish to every address of an event.
    pub(crate) fn check_publish(&self, addresses: &[Address]) -> Result<(), AccessError> {
        let check = |address| self.grant.check_publish(address);
        self.refusal(addresses.iter().try_for_each(check))
    }

    /// Checks a right that does not depend on a topic.
    ///
    /// # Errors
    ///
    /// [`AccessError::RightMissing`] or [`AccessError::TokenMissing`].
    pub fn check(&self, right: Right) -> Result<(), AccessError> {
        self.refusal(self.grant.check(right))
    }

    /// Checks the right to end the streams of a client and to revoke its credentials. Every grant
    /// that may issue tickets for the client has this right.
    ///
    /// # Errors
    ///
    /// [`AccessError::RightMissing`], [`AccessError::ClientDenied`] or
    /// [`AccessError::TokenMissing`].
    pub fn check_issue_for(&self, client: &ClientId) -> Result<(), AccessError> {
        self.check(Right::Issue)?;
        self.refusal(self.grant.check_client(client))
    }

    /// Replaces every error by [`TokenMissing`](AccessError::TokenMissing) if the request had no
    /// credential.
    pub(crate) fn refusal(&self, outcome: Result<(), AccessError>) -> Result<(), AccessError> {
        match (self.proof, outcome) {
            (Proof::Nothing, Err(_)) => Err(AccessError::TokenMissing),
            (_, outcome) => outcome,
        }
    }

    /// The ticket for these topics, and its end. The caller has checked the rights.
    pub(crate) fn ticket(
        &self,
        topics: Vec<TopicSelector>,
        client: Option<ClientId>,
        lifetime: Duration,
    ) -> (Ticket, Timestamp) {
        let Self { grant: own, key, issued_at, verified_at, .. } = self;
        let end = verified_at.after(lifetime.min(TICKET_LIFETIME_MAX));
        let grant = topics.into_iter().fold(Grant::none(), Grant::with_subscribe);
        let grant = grant.with_hear_everyone(own.hear_everyone());
        let end = own.until().map_or(end, |until| until.min(end));
        let grant = grant.with_until(end);
        let grant = grant.with_client(client.or_else(|| own.client().cloned()));
        (Ticket { grant, issued_at: *issued_at, issuer: *key }, end)
    }

    /// The facts that a later check needs.
    pub(crate) fn standing(&self) -> Standing {
        let sealed_with = match self.proof {
            Proof::Ticket { sealed_with, .. } => Some(sealed_with),
            _ => None,
        };
        Standing {
            until: self.grant.until(),
            client: self.grant.client().map(ClientTag::of),
            issued_at: self.issued_at,
            key: self.key,
            sealed_with,
        }
    }
}

/// The facts that decide whether a verified grant still holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The end. `None` for an open stream, because the response has its own timer for the end.
    pub(crate) until: Option<Timestamp>,
    pub(crate) client: Option<ClientTag>,
    pub(crate) issued_at: Timestamp,
    pub(crate) key: Option<AcceptedKey>,
    /// The ticket key that sealed the ticket.
    pub(crate) sealed_with: Option<KeyId>,
}

impl Standing {
    pub(crate) fn issued(&self) -> Issued {
        let keys = [self.key.map(AcceptedKey::id), self.sealed_with];
        Issued { client: self.client, keys, at: self.issued_at }
    }
}
