//! Access to one hub: everything that is configured, in one value that verifies requests.
//!
//! A handler verifies the credentials of a request first, and then checks the rights it needs. A
//! long stream is checked again when it is registered, after each revocation and after each reload.

use std::sync::Arc;
use std::time::Duration;

use downlink_log::{ClientId, Selection, Timestamp, TopicSelector};
use parking_lot::RwLock;
use thiserror::Error;

use crate::containment::contains;
use crate::credentials::{Credential, Presented};
use crate::error::{AccessError, Right};
use crate::jwt::tokens::{Tokens, VerifiedToken};
use crate::keys::Keys;
use crate::revocations::{Revocation, Revocations, RevokedKeysFull};
use crate::tickets::seal::{OpenedTicket, TicketError, TicketKeys};
use crate::tickets::ticket::Ticket;
use crate::verified::{Proof, Verified};

/// A ticket cannot be issued.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum IssueError {
    /// The issuer lacks a right.
    #[error("the ticket is not allowed")]
    Denied(#[from] AccessError),
    /// The ticket cannot be sealed.
    #[error("the ticket cannot be sealed")]
    Seal(#[from] TicketError),
    /// There is no ticket key.
    #[error("this server issues no tickets: it has no ticket key")]
    NoKey,
}

/// Verifies requests for one hub. Clones are cheap and share everything.
///
/// ```
/// use std::time::Duration;
/// use downlink_access::{Access, AccessOptions, KeyRole, Keys, Presented, Secret, TicketKeys};
/// use downlink_log::{Selection, Timestamp, TopicSelector};
///
/// let (publish_key, ticket_key) = (Secret::generate()?, Secret::generate()?);
/// let mut keys = Keys::new();
/// keys.add(KeyRole::Publish, &publish_key)?;
/// let access = Access::new(AccessOptions {
///     keys,
///     tickets: Some(TicketKeys::new("shop", &[ticket_key])?),
///     public: vec![TopicSelector::parse("news")?],
///     ..AccessOptions::default()
/// });
/// let now = Timestamp::from_millis(1_800_000_000_000);
///
/// // The app issues a ticket, and a browser reads with it.
/// let header = format!("Bearer {}", *publish_key.text());
/// let app = access.verify(&Presented::new().authorization(header.as_bytes()), now)?;
/// let topics = vec![TopicSelector::parse("orders/*")?];
/// let (ticket, _end) = access.issue(&app, topics.clone(), None, Duration::from_secs(600))?;
/// let asked = Selection { selectors: topics, client: None };
/// assert!(access.subscribe(&Presented::new().ticket(&ticket), &asked, now).is_ok());
/// assert_eq!(access.subscribe(&Presented::new(), &asked, now).unwrap_err().status(), 401);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Access {
    shared: Arc<Shared>,
    takes_keys: bool,
}

#[derive(Debug)]
struct Shared {
    options: AccessOptions,
    /// Held alone, and only to look or to change.
    revocations: RwLock<Revocations>,
}

/// Settings of an [`Access`]. The default accepts no request.
#[derive(Debug, Default)]
pub struct AccessOptions {
    /// The selectors that need no credential to subscribe.
    pub public: Vec<TopicSelector>,
    /// The accepted keys.
    pub keys: Keys,
    /// The verifier of tokens.
    pub tokens: Option<Tokens>,
    /// The keys of tickets.
    pub tickets: Option<TicketKeys>,
    /// The revocations at the start. Their longest life of a token must be that of the tokens.
    pub revocations: Revocations,
}

impl Access {
    /// Access by these rules.
    pub fn new(mut options: AccessOptions) -> Self {
        let revocations = RwLock::new(std::mem::take(&mut options.revocations));
        Self { shared: Arc::new(Shared { options, revocations }), takes_keys: true }
    }

    /// The same access for a listener that takes no keys, since another one is for them.
    #[must_use]
    pub fn without_keys(&self) -> Self {
        Self { takes_keys: false, ..self.clone() }
    }

    /// Verifies the credential of a request. Without one, the outcome has no rights.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if the request has two credentials, or a bad one.
    pub fn verify(
        &self,
        presented: &Presented<'_>,
        now: Timestamp,
    ) -> Result<Verified, AccessError> {
        let verified = match presented.chosen()? {
            None => return Ok(Verified::nobody(now)),
            Some(Credential::Bearer(text)) => self.bearer(text, now)?,
            Some(Credential::Cookie(text)) => self.token(text, now)?,
            Some(Credential::Ticket(text)) => self.ticket(text, now)?,
        };
        self.recheck(&verified, &[], now)?;
        Ok(verified)
    }

    /// Verifies a request to subscribe, and checks its rights.
    ///
    /// A bad cookie counts as none if everything that is asked for is public: an old cookie must not
    /// close a public page. Any other bad credential is an error.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify) and [`check_subscription`](Self::check_subscription).
    pub fn subscribe(
        &self,
        presented: &Presented<'_>,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<Verified, AccessError> {
        let is_public = asked.selectors.iter().all(|asked| self.is_public(asked));
        let asks_public = is_public && asked.client.is_none();
        let verified = match self.verify(presented, now) {
            Err(_) if presented.is_cookie() && asks_public => Verified::nobody(now),
            verified => verified?,
        };
        self.check_subscription(&verified, asked, now)?;
        Ok(verified)
    }

    /// Checks that a subscription is allowed, at its beginning and at any later time.
    ///
    /// A server calls it again after it has registered the stream: a revocation between the two
    /// would otherwise miss it. After a revocation or a reload it calls it for each stream.
    ///
    /// # Errors
    ///
    /// As [`recheck`](Self::recheck), then [`AccessError::TopicDenied`],
    /// [`AccessError::ClientDenied`] or [`AccessError::TokenMissing`].
    pub fn check_subscription(
        &self,
        verified: &Verified,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        self.recheck(verified, &asked.selectors, now)?;
        if verified.proof() == Proof::Nothing && self.options().public.is_empty() {
            return Err(AccessError::TokenMissing);
        }
        self.check_rights(verified, &asked.selectors, asked.client.as_ref())
    }

    /// Checks that a verified grant still holds: its end is ahead, its key is still accepted, and it is
    /// not revoked, wholly or for one of these topics.
    ///
    /// # Errors
    ///
    /// [`AccessError::TokenExpired`], [`AccessError::KeyUnknown`], [`AccessError::KeysUnavailable`] or
    /// [`AccessError::Revoked`]. An open stream stays open at `KeysUnavailable`: it says nothing
    /// against the stream.
    pub fn recheck(
        &self,
        verified: &Verified,
        topics: &[TopicSelector],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        if verified.grant().is_over(now) {
            return Err(AccessError::TokenExpired);
        }
        self.check_keys(verified, now)?;
        let is_revoked = self.shared.revocations.read().is_revoked(verified.issued(), topics, now);
        if is_revoked { Err(AccessError::Revoked) } else { Ok(()) }
    }

    /// Issues a ticket for these topics, and returns it with its end. It ends after `lifetime`, at most after
    /// [`TICKET_LIFETIME_MAX`](crate::TICKET_LIFETIME_MAX), and never after the grant of its issuer.
    ///
    /// Without a client, the ticket is for the client of its issuer, if that has one.
    ///
    /// # Errors
    ///
    /// [`IssueError::Denied`] if the issuer may not issue tickets, or not for these topics or this
    /// client; otherwise the ticket is too long or cannot be sealed.
    pub fn issue(
        &self,
        issuer: &Verified,
        topics: Vec<TopicSelector>,
        client: Option<ClientId>,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), IssueError> {
        issuer.check(Right::Issue)?;
        self.check_rights(issuer, &topics, client.as_ref())?;
        let keys = self.options().tickets.as_ref().ok_or(IssueError::NoKey)?;
        let (ticket, end) = issuer.ticket(topics, client, lifetime);
        Ok((keys.seal(&ticket)?, end))
    }

    /// Revokes. The caller then checks the open streams again.
    ///
    /// # Errors
    ///
    /// [`RevokedKeysFull`] if too many keys are revoked.
    pub fn revoke(&self, revocation: Revocation, now: Timestamp) -> Result<(), RevokedKeysFull> {
        self.shared.revocations.write().revoke(revocation, now)
    }

    /// Everything that is revoked, for a store.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.shared.revocations.read().entries().collect()
    }

    fn options(&self) -> &AccessOptions {
        &self.shared.options
    }

    fn bearer(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let found = self.options().keys.find(text.as_bytes()).filter(|_| self.takes_keys);
        let Some((key, role)) = found else {
            // Every token has dots. An unknown key with a dot is refused as a token.
            let is_token = text.contains('.');
            return if is_token { self.token(text, now) } else { Err(AccessError::KeyUnknown) };
        };
        let (grant, proof, issued_at) = (role.grant(), Proof::Key, Some(now));
        Ok(Verified { grant, proof, key: Some(key), issued_at, verified_at: now })
    }

    fn token(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let tokens = self.options().tokens.as_ref().ok_or(AccessError::KeyUnknown)?;
        let VerifiedToken { grant, key, issued_at } = tokens.verify(text, now)?;
        Ok(Verified { grant, proof: Proof::Token, key: Some(key), issued_at, verified_at: now })
    }

    fn ticket(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let keys = self.options().tickets.as_ref().ok_or(AccessError::KeyUnknown)?;
        let OpenedTicket { ticket, id, key } = keys.open(text, now)?;
        let Ticket { grant, issued_at, issuer } = ticket;
        let proof = Proof::Ticket { id, sealed_with: key };
        Ok(Verified { grant, proof, key: issuer, issued_at, verified_at: now })
    }

    /// Checks that no key of the proof was removed.
    fn check_keys(&self, verified: &Verified, now: Timestamp) -> Result<(), AccessError> {
        let AccessOptions { keys, tokens, tickets, .. } = self.options();
        let is_accepted = match (verified.key, tokens) {
            (Some(key), _) if keys.contains(key) => true,
            (Some(key), Some(tokens)) => tokens.contains_key(key, now)?,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let is_sealed = match verified.proof {
            Proof::Ticket { sealed_with, .. } => {
                tickets.as_ref().is_some_and(|tickets| tickets.contains(sealed_with))
            }
            _ => true,
        };
        (is_sealed && is_accepted).then_some(()).ok_or(AccessError::KeyUnknown)
    }

    /// Checks topics and client, of which public topics need no right.
    fn check_rights(
        &self,
        verified: &Verified,
        topics: &[TopicSelector],
        client: Option<&ClientId>,
    ) -> Result<(), AccessError> {
        let Verified { grant, .. } = verified;
        let topics = grant.check_subscribe(topics.iter().filter(|topic| !self.is_public(topic)));
        let client = || client.map_or(Ok(()), |client| grant.check_client(client));
        verified.refusal(topics.and_then(|()| client()))
    }

    fn is_public(&self, asked: &TopicSelector) -> bool {
        self.options().public.iter().any(|granted| contains(granted, asked))
    }
}
