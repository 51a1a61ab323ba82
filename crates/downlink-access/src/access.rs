//! Access to one hub: one value has the whole configuration and verifies requests.
//!
//! A handler first verifies the credentials of a request, and then checks the rights that the
//! request needs. The server checks an open stream again when it registers the stream, after each
//! revocation, and after each reload.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use downlink_log::{Address, ClientId, Selection, Timestamp, TopicSelector};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use crate::containment::contains;
use crate::credentials::{Credential, Presented};
use crate::error::{AccessError, Right};
use crate::jwt::tokens::{Tokens, VerifiedToken};
use crate::keys::Keys;
use crate::revocations::{Revocation, Revocations, RevokedKeysFull};
use crate::secret::KeyId;
use crate::tickets::seal::{OpenedTicket, TicketError, TicketKeys};
use crate::tickets::ticket::{AcceptedKey, Ticket};
use crate::verified::{Proof, Source, Standing, StreamGrant, Verified};

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
    /// Held alone, and only to clone or to replace the pointer.
    settings: RwLock<Arc<Settings>>,
    /// Held alone, and only to look or to change.
    revocations: RwLock<Revocations>,
    /// The sources of the open streams, to share them. Held alone.
    sources: Mutex<BTreeSet<Arc<Source>>>,
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
}

/// The options, with a list of public selectors that streams can share.
#[derive(Debug)]
struct Settings {
    public: Arc<[TopicSelector]>,
    keys: Keys,
    tokens: Option<Tokens>,
    tickets: Option<TicketKeys>,
}

impl From<AccessOptions> for Settings {
    fn from(AccessOptions { public, keys, tokens, tickets }: AccessOptions) -> Self {
        Self { public: public.into(), keys, tokens, tickets }
    }
}

impl Access {
    /// Access with these settings. Nothing is revoked yet: at its start, a server
    /// [revokes](Self::revoke) what its store has kept.
    pub fn new(options: AccessOptions) -> Self {
        let mut revocations = Revocations::default();
        revocations.remember_for(options.tokens.as_ref());
        let shared = Shared {
            settings: RwLock::new(Arc::new(options.into())),
            revocations: RwLock::new(revocations),
            sources: Mutex::default(),
        };
        Self { shared: Arc::new(shared), takes_keys: true }
    }

    /// Replaces the settings, in every clone. The revocations stay.
    ///
    /// Requests from now on are verified with the new settings. The caller then
    /// [checks](Self::check_stream) the open streams again, to end those whose key was removed. A
    /// key set that stays configured should keep its [`KeySetCache`](crate::KeySetCache), because a
    /// new cache has no keys until they are fetched.
    pub fn reload(&self, options: AccessOptions) {
        // The revocations are remembered for longer before the first token with a longer life.
        self.shared.revocations.write().remember_for(options.tokens.as_ref());
        *self.shared.settings.write() = Arc::new(options.into());
    }

    /// The same access for a listener that accepts no keys, because the server has another listener
    /// for them.
    #[must_use]
    pub fn without_keys(&self) -> Self {
        Self { takes_keys: false, ..self.clone() }
    }

    /// Verifies the credential of a request. A request without a credential gets a grant without
    /// rights.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if the request has two credentials, or if its credential is not accepted.
    pub fn verify(
        &self,
        presented: &Presented<'_>,
        now: Timestamp,
    ) -> Result<Verified, AccessError> {
        let verified = match presented.chosen()? {
            None => return Ok(Verified::nobody(now)),
            Some(Credential::Bearer(text)) => self.bearer(text, now)?,
            Some(Credential::Cookie(text)) => self.settings().token(text, now)?,
            Some(Credential::Ticket(text)) => self.settings().ticket(text, now)?,
        };
        self.recheck(&verified, &[], now)?;
        Ok(verified)
    }

    /// Verifies a request to subscribe, and checks its rights.
    ///
    /// If the request asks only for public topics, a cookie that is not accepted is ignored. So an
    /// old cookie does not close a public page. Any other credential that is not accepted is an
    /// error.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify) and [`admit`](Self::admit).
    pub fn subscribe(
        &self,
        presented: &Presented<'_>,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<Verified, AccessError> {
        let settings = self.settings();
        let is_public = asked.selectors.iter().all(|asked| settings.is_public(asked));
        let asks_public = is_public && asked.client.is_none();
        let verified = match self.verify(presented, now) {
            Err(_) if presented.is_cookie() && asks_public => Verified::nobody(now),
            verified => verified?,
        };
        self.check_selection(&settings, &verified, asked, now)?;
        Ok(verified)
    }

    /// Checks that a subscription is allowed, and returns the part of the grant that the server
    /// keeps while the stream is open.
    ///
    /// # Errors
    ///
    /// As [`recheck`](Self::recheck), then [`AccessError::TopicDenied`],
    /// [`AccessError::ClientDenied`] or [`AccessError::TokenMissing`].
    pub fn admit(
        &self,
        verified: &Verified,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<StreamGrant, AccessError> {
        let settings = self.settings();
        self.check_selection(&settings, verified, asked, now)?;
        let is_granted = verified.grant().check_subscribe(&asked.selectors).is_ok();
        let public = (!is_granted).then(|| Arc::clone(&settings.public));
        Ok(StreamGrant::new(verified, self.source(Source::of(verified, public))))
    }

    /// Checks that an open stream may stay open. `asked` is the selection that was
    /// [admitted](Self::admit).
    ///
    /// A server calls this for each stream after a revocation and after a reload. It also calls
    /// this once after it has registered the stream: a revocation between the admission and the
    /// registration would otherwise miss the stream.
    ///
    /// If a topic was public and no longer is, the stream ends, even if its grant also covers the
    /// topic. The client reconnects and then reads the topic with its grant.
    ///
    /// # Errors
    ///
    /// As [`recheck`](Self::recheck), then [`AccessError::TopicDenied`] or
    /// [`AccessError::TokenMissing`].
    pub fn check_stream(
        &self,
        stream: &StreamGrant,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let settings = self.settings();
        let Source { has_credential, public, .. } = stream.source();
        if !has_credential && settings.public.is_empty() {
            return Err(AccessError::TokenMissing);
        }
        let relied_on = public.as_deref().filter(|public| **public != *settings.public);
        let is_closed = |asked: &&TopicSelector| {
            relied_on.is_some_and(|public| covers(public, asked)) && !settings.is_public(asked)
        };
        match asked.selectors.iter().find(is_closed) {
            Some(_) if !has_credential => Err(AccessError::TokenMissing),
            Some(selector) => Err(AccessError::TopicDenied { selector: selector.clone() }),
            None => self.check_standing(&settings, &stream.standing(), &asked.selectors, now),
        }
    }

    /// Checks the right to publish to every address of an event.
    ///
    /// # Errors
    ///
    /// As [`recheck`](Self::recheck), then as [`Grant::check_publish`](crate::Grant::check_publish)
    /// for the first address that is not covered, or [`AccessError::TokenMissing`].
    pub fn check_publish(
        &self,
        verified: &Verified,
        addresses: &[Address],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let topics = addresses.iter().filter_map(Address::topic).cloned();
        let topics: Vec<TopicSelector> = topics.map(TopicSelector::from).collect();
        self.recheck(verified, &topics, now)?;
        verified.check_publish(addresses)
    }

    /// Checks that a verified grant still holds: it has not ended, its key is still accepted, and
    /// neither the grant nor its right to one of these topics is revoked.
    ///
    /// # Errors
    ///
    /// [`AccessError::TokenExpired`], [`AccessError::KeyUnknown`], [`AccessError::KeysUnavailable`]
    /// or [`AccessError::Revoked`]. An open stream stays open at `KeysUnavailable`, which says that
    /// the server does not know whether the key is still accepted.
    pub fn recheck(
        &self,
        verified: &Verified,
        topics: &[TopicSelector],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        self.check_standing(&self.settings(), &verified.standing(), topics, now)
    }

    /// Issues a ticket for these topics, and returns it with its end. The ticket ends after
    /// `lifetime`, at most after [`TICKET_LIFETIME_MAX`](crate::TICKET_LIFETIME_MAX), and at the
    /// latest with the grant of its issuer.
    ///
    /// Without a client, the ticket is for the client of its issuer, if the issuer has one.
    ///
    /// # Errors
    ///
    /// [`IssueError::Denied`] if the issuer may not issue tickets, or not for these topics or this
    /// client. [`IssueError::Seal`] if the ticket is too long. [`IssueError::NoKey`] if the server
    /// has no ticket key.
    pub fn issue(
        &self,
        issuer: &Verified,
        topics: Vec<TopicSelector>,
        client: Option<ClientId>,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), IssueError> {
        let settings = self.settings();
        issuer.check(Right::Issue)?;
        settings.check_rights(issuer, &topics, client.as_ref())?;
        let keys = settings.tickets.as_ref().ok_or(IssueError::NoKey)?;
        let (ticket, end) = issuer.ticket(topics, client, lifetime);
        Ok((keys.seal(&ticket)?, end))
    }

    /// Adds a revocation. The caller then [checks](Self::check_stream) the open streams again.
    ///
    /// # Errors
    ///
    /// [`RevokedKeysFull`] if too many keys are revoked.
    pub fn revoke(&self, revocation: Revocation, now: Timestamp) -> Result<(), RevokedKeysFull> {
        self.shared.revocations.write().revoke(revocation, now)
    }

    /// Accepts a revoked key again. Call it after the key was removed from the settings.
    pub fn forget_key(&self, key: KeyId) {
        self.shared.revocations.write().forget_key(key);
    }

    /// All revocations, for a store.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.shared.revocations.read().entries().collect()
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.shared.settings.read())
    }

    fn bearer(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let settings = self.settings();
        let found = settings.keys.find(text.as_bytes()).filter(|_| self.takes_keys);
        let Some((key, role)) = found else {
            // Every token has dots. So an unknown key with a dot gets the error of a token.
            let is_token = text.contains('.');
            return if is_token { settings.token(text, now) } else { Err(AccessError::KeyUnknown) };
        };
        let (grant, proof, key) = (role.grant(), Proof::Key, Some(AcceptedKey::Key(key)));
        Ok(Verified { grant, proof, key, issued_at: now, verified_at: now })
    }

    fn check_selection(
        &self,
        settings: &Settings,
        verified: &Verified,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        self.check_standing(settings, &verified.standing(), &asked.selectors, now)?;
        if verified.proof() == Proof::Nothing && settings.public.is_empty() {
            return Err(AccessError::TokenMissing);
        }
        settings.check_rights(verified, &asked.selectors, asked.client.as_ref())
    }

    fn check_standing(
        &self,
        settings: &Settings,
        standing: &Standing,
        topics: &[TopicSelector],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        if standing.until <= now {
            return Err(AccessError::TokenExpired);
        }
        if self.shared.revocations.read().is_revoked(standing.issued(), topics, now) {
            return Err(AccessError::Revoked);
        }
        // The last check, because an open stream stays open if the keys are unavailable.
        settings.check_keys(standing, now)
    }

    /// The shared copy of this source. A new source removes those that no stream uses any more, so
    /// the number of sources is limited by the number of keys.
    fn source(&self, source: Source) -> Arc<Source> {
        let mut sources = self.shared.sources.lock();
        if let Some(shared) = sources.get(&source) {
            return Arc::clone(shared);
        }
        sources.retain(|source| Arc::strong_count(source) > 1);
        let source = Arc::new(source);
        sources.insert(Arc::clone(&source));
        source
    }
}

impl Settings {
    fn token(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let tokens = self.tokens.as_ref().ok_or(AccessError::KeyUnknown)?;
        let VerifiedToken { grant, key, issued_at } = tokens.verify(text, now)?;
        let (proof, key) = (Proof::Token, Some(AcceptedKey::Token(key)));
        Ok(Verified { grant, proof, key, issued_at, verified_at: now })
    }

    fn ticket(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let keys = self.tickets.as_ref().ok_or(AccessError::KeyUnknown)?;
        let OpenedTicket { ticket, id, key } = keys.open(text, now)?;
        let Ticket { grant, issued_at, issuer } = ticket;
        let proof = Proof::Ticket { id, sealed_with: key };
        Ok(Verified { grant, proof, key: issuer, issued_at, verified_at: now })
    }

    /// Checks that no key of the proof was removed.
    fn check_keys(&self, standing: &Standing, now: Timestamp) -> Result<(), AccessError> {
        let is_sealed = standing.sealed_with.is_none_or(|sealed_with| {
            self.tickets.as_ref().is_some_and(|tickets| tickets.contains(sealed_with))
        });
        let is_accepted = is_sealed
            && match (standing.key, &self.tokens) {
                (None, _) => true,
                (Some(AcceptedKey::Key(key)), _) => self.keys.contains(key),
                (Some(AcceptedKey::Token(key)), Some(tokens)) => tokens.contains_key(key, now)?,
                (Some(AcceptedKey::Token(_)), None) => false,
            };
        is_accepted.then_some(()).ok_or(AccessError::KeyUnknown)
    }

    /// Checks topics and client. Public topics need no right.
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
        covers(&self.public, asked)
    }
}

fn covers(granted: &[TopicSelector], asked: &TopicSelector) -> bool {
    granted.iter().any(|granted| contains(granted, asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Grant;

    #[test]
    fn streams_with_the_same_key_share_their_source_until_the_last_one_ends() {
        let access = Access::new(AccessOptions::default());
        let now = Timestamp::from_millis(1);
        let sources = || access.shared.sources.lock().len();
        let admit = |key: Option<u8>| {
            let key = key.map(|byte| AcceptedKey::Key(KeyId::from_bytes([byte; KeyId::BYTES])));
            let verified = Verified { key, ..Verified::trusted(Grant::all(), now) };
            StreamGrant::new(&verified, access.source(Source::of(&verified, None)))
        };
        let streams: Vec<StreamGrant> = (0..100).map(|_| admit(Some(1))).collect();
        assert_eq!(sources(), 1);
        let other = admit(Some(2));
        assert_eq!(sources(), 2);
        drop((streams, other));
        let _stream = admit(None);
        assert_eq!(sources(), 1);
    }
}
