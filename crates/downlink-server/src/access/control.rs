//! The access control of a running server. [`Control`] verifies the credentials of requests, and
//! asks the app of `--authorize-url` about subscriptions. It counts requests, so that the limits
//! against abuse can apply. It ends streams when their rights have ended.

use std::{
    borrow::Cow,
    io,
    path::Path,
    pin::pin,
    sync::{Arc, Once, OnceLock},
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, anyhow};
use axum::http::{HeaderMap, Method};
use downlink::access::{Caller, Origin, Origins, presented};
use downlink::hub::{Address, Hub, Selection, Timestamp, Topic, TopicSelector};
use downlink::serve::{PeerAddr, TrustedProxy};
use downlink_access::{
    Access, AccessError, AccessOptions, Credential, Grant, KeySetCache, Presented, Proof,
    Revocation, Secret, TicketKeys, TokenKeys, TokenRules, Tokens, Verified,
};
use tokio::{sync::Notify, time::sleep};

use super::{
    AccessSettings, Role,
    ask::{Answer, AskApp, Granted, Question},
    forwarded::ClientAddress,
    key_files::{self, KeyFiles},
    key_sets::KeySets,
    names::NamesPermit,
    rates::{Exceeded, Rates},
    revoked::RevokedFile,
};
use crate::config::Settings;

/// The hub is the server's log of events with its subscriptions. Every ticket contains the name of
/// the hub that it is for. The server refuses tickets with another name.
const HUB_NAME: &str = "downlink";

/// The state of access control.
#[derive(Debug)]
pub struct Control {
    access: Access,
    /// The same as `access`, but accepts no keys. If the server has a public and an admin listener,
    /// this value verifies the requests to the public one.
    without_keys: Access,
    origins: Origins,
    host_names: Vec<String>,
    cookie: String,
    public: Vec<TopicSelector>,
    public_url: String,
    key_files: Option<KeyFiles>,
    /// The file of the revocations. A server without a store has no file, so its revocations are
    /// lost at a restart.
    revoked: OnceLock<RevokedFile>,
    /// The app that decides about subscriptions without a token or a ticket.
    ask: Option<AskApp>,
    key_sets: Option<KeySets>,
    /// The limits of requests. A development server has none.
    rates: Option<Rates>,
    trusted_proxies: Vec<TrustedProxy>,
    /// Warns once of a proxy that is not in `trusted_proxies`.
    unknown_proxy: Once,
    /// A streamed publish is a request whose body is a stream of events. When rights may have
    /// ended, this value wakes the tasks of all streamed publishes, so that they check their rights
    /// again.
    changed: Notify,
}

/// The parts of a request that can contain a credential.
pub(crate) struct Credentials<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) tickets: &'a [Cow<'a, str>],
    pub(crate) origin: &'a Origin,
    pub(crate) method: &'a Method,
    /// Whether an `EventSource` of a browser has sent the request.
    pub(crate) by_event_source: bool,
}

impl Control {
    /// Makes the access control of a development server. The listener of this server gives every
    /// right. The tickets of this server become invalid when the server ends, because the ticket
    /// key is only in memory.
    pub fn development() -> Self {
        let secret = Secret::generate().ok();
        let tickets = secret.and_then(|secret| TicketKeys::new(HUB_NAME, &[secret]).ok());
        let access = Access::new(AccessOptions { tickets, ..AccessOptions::default() });
        Self {
            without_keys: access.without_keys(),
            access,
            origins: Origins::default(),
            host_names: Vec::new(),
            cookie: downlink_access::COOKIE_NAME_DEFAULT.to_owned(),
            public: Vec::new(),
            public_url: String::new(),
            key_files: None,
            revoked: OnceLock::new(),
            ask: None,
            key_sets: None,
            rates: None,
            trusted_proxies: Vec::new(),
            unknown_proxy: Once::new(),
            changed: Notify::new(),
        }
    }

    /// Makes the access control that the settings describe. Reads the key files. If the settings
    /// give no file with a publish key or no file with a ticket key, the server uses its own file
    /// for it, and makes this file if it does not exist.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or settings that contradict each other.
    pub fn open(settings: &Settings, access: &AccessSettings) -> anyhow::Result<Self> {
        let folder = key_files::folder(settings.store());
        let (keys, ticket_keys, key_files) = key_files::read(
            &folder,
            &access.publish_key_file,
            &access.admin_key_file,
            &access.ticket_key_file,
        )?;
        let tickets = TicketKeys::new(HUB_NAME, &ticket_keys).context("cannot use a ticket key")?;
        let (tokens, key_sets) = tokens(access)?;
        let ask = access.ask.options(tokens.is_some()).map(AskApp::new).transpose()?;
        let options =
            AccessOptions { public: access.public.clone(), keys, tokens, tickets: Some(tickets) };
        let shared = Access::new(options);
        Ok(Self {
            without_keys: shared.without_keys(),
            access: shared,
            origins: Origins::new(&access.cors_origin),
            host_names: access.host_names(),
            cookie: access.jwt_cookie.clone(),
            public: access.public.clone(),
            public_url: access.public_url.clone().unwrap_or_default(),
            key_files: Some(key_files),
            revoked: OnceLock::new(),
            ask,
            key_sets,
            rates: Some(Rates::new(&access.abuse, &settings.listen)),
            trusted_proxies: access.abuse.trusted_proxy.clone(),
            unknown_proxy: Once::new(),
            changed: Notify::new(),
        })
    }

    /// Restores the revocations of earlier runs from their file. The caller must have opened the
    /// store. Then no other server appends to this file or replaces it.
    pub(crate) fn restore_revocations(&self, settings: &Settings) -> anyhow::Result<()> {
        let (Some(_), Some(store)) = (&self.key_files, settings.store()) else { return Ok(()) };
        let file = RevokedFile::open(store, &self.access, now())?;
        self.revoked.set(file).map_err(|_| anyhow!("the revocations are restored already"))
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The names that `Host` may have, besides the loopback names.
    pub(crate) fn host_names(&self) -> &[String] {
        &self.host_names
    }

    pub(crate) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// The key files. A development server has none.
    pub(crate) fn key_files(&self) -> Option<&KeyFiles> {
        self.key_files.as_ref()
    }

    /// Verifies the credentials of a request. A request without credentials has only the rights
    /// that its listener gives. A request with a ticket has only the rights of the ticket, even on
    /// a listener that gives every right. So a ticket has the same effect in development and in
    /// production.
    pub(crate) async fn verify(
        &self,
        role: Role,
        credentials: &Credentials<'_>,
    ) -> Result<Caller, AccessError> {
        let access = self.of(role);
        if role.gives_all_rights() && credentials.tickets.is_empty() {
            return Ok(Caller::trusted(access.clone(), Grant::all()));
        }
        let presented = self.presented(credentials);
        let mut verified = access.verify(&presented, now());
        if let (Err(AccessError::KeysUnavailable), Some(key_sets)) = (&verified, &self.key_sets) {
            key_sets.fetch_now().await;
            verified = access.verify(&presented, now());
        }
        Ok(Caller::new(access.clone(), verified?, credentials.by_event_source))
    }

    /// Whether a request has a credential.
    pub(crate) fn has_credential(&self, credentials: &Credentials<'_>) -> bool {
        !matches!(self.presented(credentials).chosen(), Ok(None))
    }

    /// Whether an app decides about subscriptions without a token or a ticket.
    pub(crate) fn asks_an_app(&self) -> bool {
        self.ask.is_some()
    }

    /// Whether the credential of a request is a key of this server.
    pub(crate) fn has_key(&self, role: Role, credentials: &Credentials<'_>) -> bool {
        match self.presented(credentials).chosen() {
            Ok(Some(Credential::Bearer(text))) => self.of(role).accepts_key(text),
            _ => false,
        }
    }

    /// The limits of requests.
    pub(crate) fn rates(&self) -> Option<&Rates> {
        self.rates.as_ref()
    }

    /// Checks whether the limits of publishes allow the caller to publish now. A route calls this
    /// function before it reads a body.
    pub(crate) fn check_publishes(
        &self,
        caller: &Caller,
        address: ClientAddress,
    ) -> Result<(), Exceeded> {
        self.count_publishes(caller, address, 0)
    }

    /// Counts events that a caller publishes, for the limits of publishes.
    pub(crate) fn count_publishes(
        &self,
        caller: &Caller,
        address: ClientAddress,
        events: usize,
    ) -> Result<(), Exceeded> {
        let Some(rates) = &self.rates else { return Ok(()) };
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let key = match caller.verified().proof() {
            Proof::Key => caller.verified().key(),
            // The listener gives every right to everyone who can connect, so the limits do not
            // apply.
            Proof::Trusted => return Ok(()),
            _ => None,
        };
        rates.publish(key, address, events, Instant::now())
    }

    /// Counts the topics and patterns of a subscription until the returned permit is dropped. The
    /// subscriptions of an app, which has a key, do not count.
    pub(crate) fn count_names(
        &self,
        caller: &Caller,
        address: ClientAddress,
        shares_connection: bool,
        asked: &Selection,
    ) -> Result<Option<NamesPermit>, Exceeded> {
        let rates = self.rates.as_ref().filter(|_| caller.verified().proof() != Proof::Key);
        let names = asked.selectors.len();
        rates.map_or(Ok(None), |rates| rates.subscribe(address, shares_connection, names))
    }

    /// Counts a ticket that a caller gets. If the caller has a token, the ticket counts for the
    /// user of the token. It does not count for the key of the token, because the same key verifies
    /// the tokens of all users.
    pub(crate) fn count_ticket(&self, caller: &Caller) -> Result<(), Exceeded> {
        let verified = caller.verified();
        match (&self.rates, verified.publisher().or_else(|| verified.key())) {
            (Some(rates), Some(key)) => rates.issue(key, Instant::now()),
            _ => Ok(()),
        }
    }

    /// The address of the client of a request.
    ///
    /// The limits for each address do not apply to an admin listener. Only programs on this machine
    /// can reach an admin listener. But such a program may be a proxy that forwards the requests of
    /// strangers. These requests then have the same address as the requests of the apps, and must
    /// not use up the limits of the apps.
    pub(crate) fn client_address(
        &self,
        role: Role,
        peer: PeerAddr,
        headers: &HeaderMap,
    ) -> ClientAddress {
        let address = ClientAddress::of(peer, headers, &self.trusted_proxies);
        if !role.is_public() {
            return address.exempt();
        }
        let limits_addresses = self.rates.as_ref().is_some_and(Rates::limits_addresses);
        if limits_addresses
            && ClientAddress::has_unread_header(peer, headers, &self.trusted_proxies)
        {
            self.unknown_proxy.call_once(|| warn_of_proxy(peer));
        }
        address
    }

    /// Asks the app for the grant of a subscription. `None` if there is no app to ask.
    pub(crate) async fn ask(
        &self,
        caller: &Caller,
        question: &Question<'_>,
        by_event_source: bool,
    ) -> Option<Result<Caller, Answer>> {
        let ask = self.ask.as_ref()?;
        let verified = |Granted { grant, asked_at }| Verified::trusted(grant, asked_at);
        let mut granted = ask.grant(question).await.map(verified);
        // If a revocation came while the app answered, the grant counts as revoked. With this
        // grant, an `EventSource` would get a 204 and never reconnect. But the user may still have
        // rights to read, so the server asks the app again.
        if granted.as_ref().is_ok_and(|granted| self.is_revoked(granted, question)) {
            granted = ask.grant(question).await.map(verified);
        }
        let access = || caller.access().clone();
        Some(granted.map(|verified| Caller::new(access(), verified, by_event_source)))
    }

    fn is_revoked(&self, granted: &Verified, question: &Question<'_>) -> bool {
        let holds = self.access.recheck(granted, &question.asked.selectors, now());
        holds == Err(AccessError::Revoked)
    }

    /// Fetches the key set of `--jwks-url` whenever a fetch is due. When a fetch has removed a key,
    /// ends the streams that depend on this key. This future completes only if there is no key set
    /// to fetch.
    pub(crate) async fn fetch_key_sets(&self, hub: &Hub<String>) {
        let Some(key_sets) = &self.key_sets else { return };
        let removed = || {
            self.access.note_change();
            self.check_open(hub);
        };
        key_sets.run(removed).await;
    }

    /// Makes every open stream and every streamed publish check its rights again.
    fn check_open(&self, hub: &Hub<String>) {
        self.changed.notify_waiters();
        hub.wake_subscribers();
    }

    /// The caller of a request whose credential this server does not accept. The request may still
    /// go on in two cases: the credential is a cookie, or the app may know the credential.
    pub(crate) fn with_bad_cookie(
        &self,
        credentials: &Credentials<'_>,
        error: AccessError,
    ) -> Caller {
        Caller::with_bad_cookie(self.access.clone(), error, credentials.by_event_source)
    }

    /// Whether the credential that the server uses is a cookie. A request with a bad cookie may
    /// still read public topics.
    pub(crate) fn is_cookie(&self, credentials: &Credentials<'_>) -> bool {
        self.presented(credentials).is_cookie()
    }

    /// Whether the app gets the credential of a request and decides about it. The app may have
    /// issued a credential that this server does not know. But a key of this server must never
    /// reach the app, even if the request comes through a public listener, which accepts no keys.
    pub(crate) fn is_for_app(&self, credentials: &Credentials<'_>, error: &AccessError) -> bool {
        let passes = self.ask.as_ref().is_some_and(AskApp::passes_authorization);
        let is_unknown = *error == AccessError::KeyUnknown && credentials.tickets.is_empty();
        passes && is_unknown && !self.is_cookie(credentials) && !self.is_own_key(credentials)
    }

    /// Whether the credential is a key of this server, even a revoked one.
    fn is_own_key(&self, credentials: &Credentials<'_>) -> bool {
        let verified = self.access.verify(&self.presented(credentials), now());
        verified != Err(AccessError::KeyUnknown)
    }

    fn presented<'a>(&self, credentials: &Credentials<'a>) -> Presented<'a> {
        let Credentials { headers, tickets, origin, method, .. } = credentials;
        let cookie = origin.may_use_cookies(headers, method).then_some(&*self.cookie);
        presented(headers, tickets, cookie)
    }

    fn of(&self, role: Role) -> &Access {
        if role.takes_keys() { &self.access } else { &self.without_keys }
    }

    /// Whether a caller may see the name of a topic, in a list of topics or in an event with
    /// `meta=1`. Such an event names the topics that it was published to.
    pub(crate) fn covers_topic(&self, caller: &Caller, topic: &Topic) -> bool {
        caller.grant().covers_topic(topic) || self.public.iter().any(|public| public.matches(topic))
    }

    /// Waits until the rights of a publisher end, and returns the reason.
    pub(crate) async fn rights_ended(&self, caller: &Caller, addresses: &[Address]) -> AccessError {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on, no notification of `changed` is lost, even if it comes before the
            // `await` below.
            changed.as_mut().enable();
            match caller.access().check_publish(caller.verified(), addresses, now()) {
                // The server cannot fetch the keys of the issuer now, so it does not know whether
                // the rights have ended. The publisher keeps its rights for now.
                Ok(()) | Err(AccessError::KeysUnavailable) => {}
                Err(error) => return error,
            }
            match caller.grant().until().map(SystemTime::from) {
                None => changed.await,
                Some(until) => {
                    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
                    tokio::select! {
                        () = changed => {}
                        () = sleep(left) => {}
                    }
                }
            }
        }
    }

    /// Applies a revocation, and makes every open stream check its rights again. Then writes the
    /// revocation to the disk. If the write fails, the revocation is in force only until the server
    /// ends.
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        hub: &Hub<String>,
        revocation: Revocation,
    ) -> Result<(), RevokeError> {
        let revoked = self.access.revoke(revocation.clone(), now());
        revoked.map_err(|_| RevokeError::TooManyKeys)?;
        // An answer of the app from before the revocation must not be used again.
        self.ask.iter().for_each(AskApp::forget);
        self.check_open(hub);
        let control = Arc::clone(self);
        let append = move || match control.revoked.get() {
            Some(file) => file.append(&revocation, &control.access),
            None => Ok(()),
        };
        let writing = tokio::task::spawn_blocking(append);
        writing.await.map_err(io::Error::other).flatten().map_err(RevokeError::Disk)
    }
}

/// Warns of a proxy that the server does not know. All clients of this proxy have its address.
fn warn_of_proxy(peer: PeerAddr) {
    let peer = peer.ip().map(|ip| ip.to_string()).unwrap_or_default();
    tracing::warn!(
        peer,
        "a request has the header X-Forwarded-For, but --trusted-proxy does not list its peer. If \
         the peer is your proxy, add it: otherwise all clients of the proxy share the limits of one \
         address"
    );
}

/// The error of a revocation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error("the revocation cannot be written to the disk")]
    Disk(#[source] io::Error),
    #[error("too many keys are revoked: remove the files of revoked keys")]
    TooManyKeys,
}

/// Makes the verifier of tokens, and the key set that the server fetches for it. Both are `None` if
/// the settings give no key for tokens.
fn tokens(settings: &AccessSettings) -> anyhow::Result<(Option<Tokens>, Option<KeySets>)> {
    let AccessSettings { jwt_key_file, jwt_public_key, jwks_url, .. } = settings;
    if jwt_key_file.is_empty() && jwt_public_key.is_empty() && jwks_url.is_none() {
        return Ok((None, None));
    }
    let mut keys = TokenKeys::new();
    for file in jwt_key_file {
        keys = keys.hmac(&key_files::secret(file)?);
    }
    for file in jwt_public_key {
        let refused = || format!("cannot use the public keys in {}", file.display());
        let pem = read_bounded(file, downlink_access::PEM_BYTES_MAX).with_context(refused)?;
        keys = keys.public(&pem).with_context(refused)?;
    }
    let mut key_sets = None;
    if let Some(url) = jwks_url {
        let cache = Arc::new(KeySetCache::new());
        keys = keys.key_set(Arc::clone(&cache));
        key_sets = Some(KeySets::new(url, cache).context("cannot use --jwks-url")?);
    }
    let rules = TokenRules {
        issuer: settings.jwt_issuer.clone(),
        audiences: settings.jwt_audience.clone(),
        grants: settings.token_grant.clone(),
        lifetime_max: settings.token_lifetime_max,
    };
    let tokens = Tokens::new(keys, rules);
    let advice = "cannot verify tokens: see --jwt-issuer and --jwt-audience";
    Ok((Some(tokens.context(advice)?), key_sets))
}

fn read_bounded(file: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
