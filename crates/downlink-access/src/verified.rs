//! The outcome of verification: a grant and its proof.

use std::time::Duration;

use downlink_log::{Address, ClientId, Timestamp, TopicSelector};

use crate::error::{AccessError, Right};
use crate::grant::Grant;
use crate::revocations::Issued;
use crate::secret::KeyId;
use crate::tickets::seal::TicketId;
use crate::tickets::ticket::{TICKET_LIFETIME_MAX, Ticket};

/// A grant with its proof, which revocations and removed keys can take away.
///
/// Its checks are those of [`Grant`]. Without a credential a missing right is
/// [`TokenMissing`](AccessError::TokenMissing), a 401, since a credential may have it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Verified {
    pub(crate) grant: Grant,
    pub(crate) proof: Proof,
    /// The key that verified the credential, or that of the issuer of a ticket.
    pub(crate) key: Option<KeyId>,
    /// When that credential was issued; for a key, the time of its use.
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) verified_at: Timestamp,
}

/// The proof of a grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Proof {
    /// The request had no credential.
    Nothing,
    /// The request came over a trusted socket, or the app answered for it.
    Trusted,
    /// A key.
    Key,
    /// A token.
    Token,
    /// A ticket.
    Ticket {
        /// Its id, for [`TicketStreams`](crate::TicketStreams).
        id: TicketId,
        /// The ticket key that sealed it.
        sealed_with: KeyId,
    },
}

impl Verified {
    /// A grant that needs no credential: for a trusted socket, or the answer of an app.
    pub const fn trusted(grant: Grant, now: Timestamp) -> Self {
        let (proof, issued_at) = (Proof::Trusted, Some(now));
        Self { grant, proof, key: None, issued_at, verified_at: now }
    }

    /// The rights of a request without credentials.
    pub const fn nobody(now: Timestamp) -> Self {
        let (proof, issued_at) = (Proof::Nothing, Some(now));
        Self { grant: Grant::none(), proof, key: None, issued_at, verified_at: now }
    }

    /// The grant.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The proof.
    pub const fn proof(&self) -> Proof {
        self.proof
    }

    /// The key that verified the credential, or that of the issuer of a ticket.
    pub const fn key(&self) -> Option<KeyId> {
        self.key
    }

    /// The name space of the publisher's event ids and idempotency keys. `None` for the keys of the
    /// app and for trusted requests, which share one. A user's token has its own, so that no user
    /// can take the id of another publisher's event.
    pub fn publisher(&self) -> Option<KeyId> {
        if self.proof != Proof::Token {
            return None;
        }
        let client = self.grant.client().map(|client| client.as_str().as_bytes());
        let key = self.key.as_ref().map(|key| &key.as_bytes()[..]);
        client.or(key).map(|name| KeyId::of("publisher", name))
    }

    /// Checks the right to publish to every address of an event.
    ///
    /// # Errors
    ///
    /// As [`Grant::check_publish`] for the first address that is not covered, or
    /// [`AccessError::TokenMissing`].
    pub fn check_publish<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a Address>,
    ) -> Result<(), AccessError> {
        let mut addresses = addresses.into_iter();
        self.refusal(addresses.try_for_each(|address| self.grant.check_publish(address)))
    }

    /// Checks a right that the grant has or lacks as a whole.
    ///
    /// # Errors
    ///
    /// [`AccessError::RightMissing`] or [`AccessError::TokenMissing`].
    pub fn check(&self, right: Right) -> Result<(), AccessError> {
        self.refusal(self.grant.check(right))
    }

    /// Checks the right to act for a client: to end its streams and to revoke its credentials. It
    /// belongs to those who may issue tickets for the client.
    ///
    /// # Errors
    ///
    /// [`AccessError::RightMissing`], [`AccessError::ClientDenied`] or [`AccessError::TokenMissing`].
    pub fn check_issue_for(&self, client: &ClientId) -> Result<(), AccessError> {
        self.check(Right::Issue)?;
        self.refusal(self.grant.check_client(client))
    }

    /// Without a credential every refusal is a request for one.
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

    /// The facts that decide whether it is revoked.
    pub(crate) const fn issued(&self) -> Issued<'_> {
        Issued::new(self.grant.client(), self.key, self.issued_at)
    }
}
