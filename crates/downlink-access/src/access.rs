//! Access control of one hub, which keeps events and sends them to its clients. An [`Access`] has
//! the whole configuration and verifies requests. A grant has the rights that verified credentials
//! give. A ticket is a credential with a short life, which an app issues for a browser.
//!
//! A handler first verifies the credentials of a request, and then checks the rights that the
//! request needs. The server checks the rights of a stream again right after it has opened the
//! subscription, after each revocation, and after each reload of the settings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use downlink_log::{Address, ClientId, Selection, Timestamp, TopicSelector};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use crate::containment::contains;
use crate::credentials::{Credential, Presented};
use crate::error::{AccessError, Right};
use crate::jwt::tokens::{Tokens, VerifiedToken};
use crate::keys::Keys;
use crate::revocations::{ClientTag, Revocation, Revocations, RevokedKeysFull};
use crate::secret::KeyId;
use crate::tickets::seal::{OpenedTicket, TicketError, TicketKeys};
use crate::tickets::streams::{IssueStamp, TicketStreams, TicketStreamsFull, TicketTag};
use crate::tickets::ticket::{AcceptedKey, Ticket};
use crate::verified::{Proof, Standing, Verified};

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
    /// The lock is held only to clone or to replace the pointer. No other lock is taken meanwhile.
    settings: RwLock<Arc<Settings>>,
    /// The lock is held only for one look or one change. No other lock is taken meanwhile.
    revocations: RwLock<Revocations>,
    /// Each source has facts that several open streams share, such as the key of their credentials.
    /// A new stream with the same facts uses the existing source. No other lock is taken while this
    /// lock is held.
    sources: Mutex<BTreeMap<SourceFacts, Arc<Source>>>,
    /// The newest stream of each ticket. The lock is held only for one look or one change. No other
    /// lock is taken meanwhile.
    ticket_streams: Mutex<TicketStreams>,
    /// The number of changes that may have ended rights. A stream that has seen a smaller number
    /// checks its rights again. The number is increased (Release) after the change. A stream loads
    /// the number (Acquire) before it checks its rights.
    changes: Arc<AtomicU32>,
}

/// Settings of an [`Access`]. The default accepts no request.
#[derive(Debug, Default)]
pub struct AccessOptions {
    /// The selectors of the public topics. A client needs no credential to subscribe to them.
    pub public: Vec<TopicSelector>,
    /// The accepted keys of apps, operators and relays.
    pub keys: Keys,
    /// The verifier of tokens.
    pub tokens: Option<Tokens>,
    /// The keys that seal and open tickets.
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
    /// Makes an access with these settings. Nothing is revoked yet. So a server that keeps its
    /// revocations in a store has to [add](Self::revoke) them again at its start.
    pub fn new(options: AccessOptions) -> Self {
        let mut revocations = Revocations::default();
        revocations.remember_for(options.tokens.as_ref());
        let shared = Shared {
            settings: RwLock::new(Arc::new(options.into())),
            revocations: RwLock::new(revocations),
            sources: Mutex::default(),
            ticket_streams: Mutex::default(),
            changes: Arc::default(),
        };
        Self { shared: Arc::new(shared), takes_keys: true }
    }

    /// Replaces the settings, in every clone. The revocations stay.
    ///
    /// Requests from now on are verified with the new settings. The caller then wakes the open
    /// streams. Each stream [checks](StreamGrant::check) its rights, and ends if its key was
    /// removed. If the new settings keep a key set, pass the same
    /// [`KeySetCache`](crate::KeySetCache) again, because a new cache has no keys until they are
    /// fetched.
    pub fn reload(&self, options: AccessOptions) {
        // This call comes first. If the new settings accept tokens with a longer life, revocations
        // have to be remembered for longer before the first of these tokens is accepted.
        self.shared.revocations.write().remember_for(options.tokens.as_ref());
        *self.shared.settings.write() = Arc::new(options.into());
        self.note_change();
    }

    /// The same access, but without keys: it accepts only tokens and tickets. A server may accept
    /// keys only on a separate listener. It then uses this access on its other listeners.
    #[must_use]
    pub fn without_keys(&self) -> Self {
        Self { takes_keys: false, ..self.clone() }
    }

    /// Verifies the credential of a request. A request without a credential gets
    /// [`Grant::none`](crate::Grant::none).
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
    /// If the request asks only for public topics, a cookie that is not accepted is ignored. So a
    /// browser with an old cookie can still read public topics. Any other credential that is not
    /// accepted is an error.
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

    /// Checks that a subscription is allowed.
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
        self.check_selection(&self.settings(), verified, asked, now)
    }

    /// Checks that a subscription is allowed, and returns the part of the grant that the server
    /// keeps while the stream is open.
    ///
    /// The server calls this after it has opened the subscription. So no revocation is missed:
    /// either this check sees the revocation, or the stream notices it later.
    ///
    /// # Errors
    ///
    /// As [`check_subscription`](Self::check_subscription).
    pub fn admit(
        &self,
        verified: &Verified,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<StreamGrant, AccessError> {
        let checked = self.shared.changes.load(Ordering::Acquire);
        let settings = self.settings();
        self.check_selection(&settings, verified, asked, now)?;
        let is_granted = verified.grant().check_subscribe(&asked.selectors).is_ok();
        let public = (!is_granted).then(|| Arc::clone(&settings.public));
        Ok(self.stream_grant(verified, asked.client.as_ref(), public, checked))
    }

    /// Checks the right to publish to every address of an event.
    ///
    /// # Errors
    ///
    /// The errors of [`recheck`](Self::recheck). If an address is not covered, the error of
    /// [`Grant::check_publish`](crate::Grant::check_publish) for the first such address, or
    /// [`AccessError::TokenMissing`] if the request had no credential.
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
    /// no revocation ends the grant or its right to one of these topics.
    ///
    /// # Errors
    ///
    /// [`AccessError::TokenExpired`], [`AccessError::KeyUnknown`], [`AccessError::KeysUnavailable`]
    /// or [`AccessError::Revoked`]. `KeysUnavailable` means that the server does not know whether
    /// the key is still accepted. This error does not end an open stream.
    pub fn recheck(
        &self,
        verified: &Verified,
        topics: &[TopicSelector],
        now: Timestamp,
    ) -> Result<(), AccessError> {
        self.check_standing(&self.settings(), &verified.standing(), topics, now)
    }

    /// Issues a ticket for these topics, and returns it with its end. The ticket ends after
    /// `lifetime`, or after [`TICKET_LIFETIME_MAX`](crate::TICKET_LIFETIME_MAX) if that is shorter.
    /// If the grant of `issuer` ends earlier, the ticket ends at the same time as the grant.
    ///
    /// If `client` is `None`, the ticket is for the client of `issuer`, if there is one.
    ///
    /// # Errors
    ///
    /// [`IssueError::Denied`] if the issuer may not issue tickets, or may not issue them for these
    /// topics or for this client. [`IssueError::Seal`] if the ticket is too long.
    /// [`IssueError::NoKey`] if the server has no ticket key.
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

    /// Adds a revocation. The caller then wakes the open streams, so that they
    /// [check](StreamGrant::check) their rights.
    ///
    /// # Errors
    ///
    /// [`RevokedKeysFull`] if too many keys are revoked.
    pub fn revoke(&self, revocation: Revocation, now: Timestamp) -> Result<(), RevokedKeysFull> {
        self.shared.revocations.write().revoke(revocation, now)?;
        self.note_change();
        Ok(())
    }

    /// Removes the revocation of a key. The key then needs no place in the list of revoked keys,
    /// which has a limit. First remove the key from the settings. If the settings still have the
    /// key, it becomes valid again.
    pub fn forget_key(&self, key: KeyId) {
        self.shared.revocations.write().forget_key(key);
    }

    /// Whether this revocation is known, or a later revocation of the same rights.
    pub fn holds(&self, revocation: &Revocation) -> bool {
        self.shared.revocations.read().holds(revocation)
    }

    /// All revocations, for a store.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.shared.revocations.read().entries().collect()
    }

    /// The number of streams that a newer stream of the same ticket has ended.
    pub fn ticket_disputes(&self) -> u64 {
        self.shared.ticket_streams.lock().disputes()
    }

    /// Makes every open stream check its rights at its next poll. A server calls this after a fetch
    /// has removed a key from a key set (see
    /// [`KeySetCache::removals`](crate::KeySetCache::removals)), and then wakes the streams.
    pub fn note_change(&self) {
        self.shared.changes.fetch_add(1, Ordering::Release);
    }

    /// Whether a text from `Authorization: Bearer` is an accepted key. This takes far less time
    /// than the verification of a token. So a server can afford this check even for a client with
    /// too many failed attempts, and let an accepted key through.
    pub fn accepts_key(&self, text: &str) -> bool {
        self.takes_keys && self.settings().keys.find(text.as_bytes()).is_some()
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.shared.settings.read())
    }

    fn bearer(&self, text: &str, now: Timestamp) -> Result<Verified, AccessError> {
        let settings = self.settings();
        let found = settings.keys.find(text.as_bytes()).filter(|_| self.takes_keys);
        let Some((key, role)) = found else {
            // Every token has dots. So a text without a dot is an unknown key, and any other text
            // is verified as a token.
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
        if standing.until.is_some_and(|until| until <= now) {
            return Err(AccessError::TokenExpired);
        }
        if self.shared.revocations.read().is_revoked(standing.issued(), topics, now) {
            return Err(AccessError::Revoked);
        }
        // This check comes last: its error `KeysUnavailable` does not end an open stream, so it
        // must not hide an error that does.
        settings.check_keys(standing, now)
    }

    fn stream_grant(
        &self,
        verified: &Verified,
        subscribed: Option<&ClientId>,
        public: Option<Arc<[TopicSelector]>>,
        checked: u32,
    ) -> StreamGrant {
        let Standing { issued_at, key, sealed_with, .. } = verified.standing();
        let ticket = match verified.proof() {
            Proof::Ticket { id, .. } => Some(TicketTag::of(id)),
            _ => None,
        };
        let source = self.source(SourceFacts {
            has_credential: verified.proof() != Proof::Nothing,
            hears_everyone: verified.grant().hear_everyone(),
            client: GrantClient::new(verified.grant().client(), subscribed),
            key,
            sealed_with,
            public,
        });
        StreamGrant { source, issued: IssueStamp::new(issued_at, ticket), checked }
    }

    /// The source with these facts. All streams with these facts share it. So the number of sources
    /// in the table does not grow with the number of streams. Before a new source is added, the
    /// sources that no stream uses any more are removed.
    fn source(&self, facts: SourceFacts) -> Arc<Source> {
        let new = |facts| {
            let (access, changes) = (Arc::downgrade(&self.shared), &self.shared.changes);
            Arc::new(Source { facts, access, changes: Arc::clone(changes) })
        };
        if matches!(facts.client, GrantClient::Other(_)) {
            // These facts belong to one client, so the source is not in the table of shared
            // sources.
            return new(facts);
        }
        let mut sources = self.shared.sources.lock();
        if let Some(source) = sources.get(&facts) {
            return Arc::clone(source);
        }
        sources.retain(|_, source| Arc::strong_count(source) > 1);
        let source = new(facts.clone());
        sources.insert(facts, Arc::clone(&source));
        source
    }
}

/// The part of a [`Verified`] that a server keeps while a stream is open.
///
/// [`Access::admit`] makes it. It takes 24 bytes. All other facts, such as the key, are in a second
/// value. Streams with the same facts share one second value. Some streams have a second value of
/// their own: their grant is for a client, and they do not subscribe to the events of this client.
/// The second value then identifies the client. The end of the grant is not kept, because the
/// response has a timer for it.
#[derive(Debug)]
#[must_use]
pub struct StreamGrant {
    source: Arc<Source>,
    issued: IssueStamp,
    /// The value of `Shared::changes` at the last check.
    checked: u32,
}

/// The facts that streams with the same key share, and the access that checks them.
#[derive(Debug)]
struct Source {
    facts: SourceFacts,
    /// The access that admitted the streams. If the app has dropped the access, the rights of the
    /// streams no longer change.
    access: Weak<Shared>,
    /// The counter of `access`.
    changes: Arc<AtomicU32>,
}

/// The facts of a source. Streams with equal facts share one source.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct SourceFacts {
    has_credential: bool,
    hears_everyone: bool,
    client: GrantClient,
    key: Option<AcceptedKey>,
    sealed_with: Option<KeyId>,
    /// The public selectors at the time when the stream was admitted. `None` if the grant covers
    /// all topics of the stream.
    public: Option<Arc<[TopicSelector]>>,
}

/// The client of a grant, as an open stream keeps it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum GrantClient {
    /// The grant has no client.
    Nobody,
    /// The grant is for a client, and the subscription asks for the events of this client.
    Subscribed,
    /// The grant is for a client, but the subscription does not ask for the events of this client.
    /// The value is the client's tag, a part of a hash of its id.
    Other(ClientTag),
}

impl GrantClient {
    fn new(granted: Option<&ClientId>, subscribed: Option<&ClientId>) -> Self {
        match granted {
            None => Self::Nobody,
            Some(_) if granted == subscribed => Self::Subscribed,
            Some(granted) => Self::Other(ClientTag::of(granted)),
        }
    }

    fn tag(self, asked: &Selection) -> Option<ClientTag> {
        match self {
            Self::Nobody => None,
            Self::Subscribed => asked.client.as_ref().map(ClientTag::of),
            Self::Other(tag) => Some(tag),
        }
    }
}

impl StreamGrant {
    /// Whether the stream receives the events for everyone.
    pub fn hears_everyone(&self) -> bool {
        self.source.facts.hears_everyone
    }

    /// Whether rights may have ended since the last [`check`](Self::check). This costs one atomic
    /// load.
    pub fn is_outdated(&self) -> bool {
        self.source.changes.load(Ordering::Acquire) != self.checked
    }

    /// Checks that the stream may stay open. `asked` is the selection that was
    /// [admitted](Access::admit).
    ///
    /// A stream relies on the public topics if its grant did not cover all of its topics. Such a
    /// stream ends when one of its public topics is no longer public. It ends even if the grant
    /// covers this topic, because an open stream does not keep the selectors of its grant. The
    /// client can then reconnect, and its grant is checked again.
    ///
    /// # Errors
    ///
    /// [`AccessError::Revoked`], [`AccessError::KeyUnknown`], [`AccessError::TopicDenied`] or
    /// [`AccessError::TokenMissing`].
    pub fn check(&mut self, asked: &Selection, now: Timestamp) -> Result<(), AccessError> {
        self.checked = self.source.changes.load(Ordering::Acquire);
        let Some(shared) = self.source.access.upgrade() else { return Ok(()) };
        match (Access { shared, takes_keys: true }).check_stream(self, asked, now) {
            // This error does not mean that the rights have ended.
            Err(AccessError::KeysUnavailable) => Ok(()),
            outcome => outcome,
        }
    }

    /// Registers this stream as the newest stream of its ticket. `stream` is the number of the
    /// subscription. Returns the number of the older stream of the same ticket, which the caller
    /// ends. If the credential is not a ticket, nothing is registered, and the result is `None`.
    ///
    /// No two streams may have the same number, and the numbers of two streams that are open at the
    /// same time must differ by less than 2³¹.
    ///
    /// # Errors
    ///
    /// [`TicketStreamsFull`] if too many streams are open with tickets.
    pub fn register(&self, stream: u64) -> Result<Option<u64>, TicketStreamsFull> {
        match self.source.access.upgrade().zip(self.issued.ticket()) {
            Some((access, ticket)) => access.ticket_streams.lock().register(ticket, stream),
            None => Ok(None),
        }
    }

    /// Removes a stream that has ended. Returns `false` if a newer stream of its ticket has
    /// displaced it.
    pub fn remove(&self, stream: u64) -> bool {
        match self.source.access.upgrade().zip(self.issued.ticket()) {
            Some((access, ticket)) => access.ticket_streams.lock().remove(ticket, stream),
            None => true,
        }
    }

    /// Whether the credential is a ticket.
    pub fn has_ticket(&self) -> bool {
        self.issued.ticket().is_some()
    }

    fn standing(&self, asked: &Selection) -> Standing {
        let SourceFacts { client, key, sealed_with, .. } = self.source.facts;
        let (client, issued_at) = (client.tag(asked), self.issued.issued_at());
        Standing { until: None, client, issued_at, key, sealed_with }
    }
}

impl Access {
    fn check_stream(
        &self,
        stream: &StreamGrant,
        asked: &Selection,
        now: Timestamp,
    ) -> Result<(), AccessError> {
        let settings = self.settings();
        let SourceFacts { has_credential, ref public, .. } = stream.source.facts;
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
            None => self.check_standing(&settings, &stream.standing(asked), &asked.selectors, now),
        }
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

    /// Checks that the settings still have every key that the grant depends on.
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
            access.stream_grant(&verified, None, None, 0)
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
