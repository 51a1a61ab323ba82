//! The access control of a running server. [`Control`] verifies the credentials of requests, and
//! asks the app of `--authorize-url` about subscriptions. It counts requests, so that the limits
//! against abuse can apply. It ends streams when their rights have ended. A reload replaces its
//! [`Rules`] and its keys.
//!
//! A grant has the rights that verified credentials give. A ticket is a credential with a short
//! life, which an app issues for a browser.

use std::{
    borrow::Cow,
    io,
    pin::pin,
    sync::{Arc, Once, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use anyhow::anyhow;
use axum::http::{HeaderMap, Method};
use downlink::access::{Caller, Origin, presented};
use downlink::hub::{Address, Hub, Selection, Timestamp, Topic};
use downlink::serve::{PeerAddr, TrustedProxy};
use downlink_access::{
    Access, AccessError, AccessOptions, Credential, Grant, Presented, Proof, Revocation, Secret,
    TicketKeys, Verified,
};
use parking_lot::RwLock;
use tokio::{sync::Notify, time::sleep};

use super::{
    AccessSettings, Role,
    ask::{Answer, AskApp, Granted, Question},
    forwarded::ClientAddress,
    key_files::{KeyFiles, Missing},
    names::NamesPermit,
    rates::{Exceeded, Rates},
    revoked::RevokedFile,
    rules::{self, HUB_NAME, Opened, Rules},
};
use crate::config::Settings;

/// The state of access control.
#[derive(Debug)]
pub struct Control {
    access: Access,
    /// The same as `access`, but accepts no keys. If the server has a public and an admin listener,
    /// this value verifies the requests to the public one.
    without_keys: Access,
    /// The lock is held only to clone or to replace the pointer. No other lock is taken meanwhile.
    rules: RwLock<Arc<Rules>>,
    /// When a reload has replaced the key set, this value wakes the task that fetches it.
    key_set_replaced: Notify,
    /// The key files at the start of the server.
    key_files: Option<KeyFiles>,
    /// The file of the revocations. A server without a store has no file, so its revocations are
    /// lost at a restart.
    revoked: OnceLock<RevokedFile>,
    trusted_proxies: Vec<TrustedProxy>,
    /// Warns once of a proxy that is not in `trusted_proxies`.
    unknown_proxy: Once,
    /// A streamed publish is a request whose body is a stream of events. When rights may have
    /// ended, this value wakes the tasks of all streamed publishes, so that they check their rights
    /// again.
    changed: Notify,
    /// The ticket key that all nodes of a cluster share.
    shared_ticket_key: OnceLock<Secret>,
}

/// A revocation applies to every grant for which the app was asked in the same millisecond or
/// earlier. If the server waits this long before it asks the app again, the new question falls into
/// a later millisecond. So the revocation does not apply to the new grant.
const REVOCATION_OVER: Duration = Duration::from_millis(2);

/// The parts of a request that can contain a credential.
pub(crate) struct Credentials<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) tickets: &'a [Cow<'a, str>],
    pub(crate) origin: &'a Origin,
    /// The rules for the whole request.
    pub(crate) rules: &'a Rules,
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
        let cookie = downlink_access::COOKIE_NAME_DEFAULT.to_owned();
        let rules = Rules { cookie, ..Rules::default() };
        Self {
            without_keys: access.without_keys(),
            access,
            rules: RwLock::new(Arc::new(rules)),
            key_set_replaced: Notify::new(),
            key_files: None,
            revoked: OnceLock::new(),
            trusted_proxies: Vec::new(),
            unknown_proxy: Once::new(),
            changed: Notify::new(),
            shared_ticket_key: OnceLock::new(),
        }
    }

    /// Makes the access control that the settings describe. Reads the key files. If the settings
    /// give no file with a publish key, the server uses its own file for this key, and makes the
    /// file if it does not exist. The same applies to the ticket key.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or settings that contradict each other.
    pub fn open(settings: &Settings, access: &AccessSettings) -> anyhow::Result<Self> {
        let Opened { rules, options, key_files } =
            rules::open(settings, access, (None, None), Missing::Make)?;
        let shared = Access::new(options);
        Ok(Self {
            without_keys: shared.without_keys(),
            access: shared,
            rules: RwLock::new(Arc::new(rules)),
            key_set_replaced: Notify::new(),
            key_files: Some(key_files),
            revoked: OnceLock::new(),
            trusted_proxies: access.abuse.trusted_proxy.clone(),
            unknown_proxy: Once::new(),
            changed: Notify::new(),
            shared_ticket_key: OnceLock::new(),
        })
    }

    /// Reads the key files again, and replaces the rules. Then every open stream and every streamed
    /// publish checks its rights. The revocations stay. Blocks the thread while it reads the files.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). After an error, nothing has changed.
    pub(crate) fn reload(
        &self,
        settings: &Settings,
        access: &AccessSettings,
        hub: &Hub<String>,
    ) -> anyhow::Result<()> {
        let old = self.rules();
        let Opened { rules, options, .. } = rules::open(
            settings,
            access,
            (Some(&old), self.shared_ticket_key.get()),
            Missing::Refuse,
        )?;
        let key_set = |rules: &Rules| rules.key_sets.as_ref().map(Arc::as_ptr);
        let is_replaced = key_set(&old) != key_set(&rules);
        self.access.reload(options);
        *self.rules.write() = Arc::new(rules);
        if is_replaced {
            self.key_set_replaced.notify_one();
        }
        self.check_open(hub);
        Ok(())
    }

    /// Whether this revocation is known, or a later revocation of the same rights.
    pub(crate) fn holds(&self, revocation: &Revocation) -> bool {
        self.access.holds(revocation)
    }

    /// All revocations.
    pub(crate) fn revocations(&self) -> Vec<Revocation> {
        self.access.revocations()
    }

    /// Gives the server the ticket key that all nodes (the servers of a cluster) share. A
    /// development server takes it at once, and a production server with its next
    /// [`reload`](Self::reload).
    pub(crate) fn share_ticket_key(&self, key: Secret) {
        if self.key_files.is_none() {
            let tickets = TicketKeys::new(HUB_NAME, std::slice::from_ref(&key)).ok();
            self.access.reload(AccessOptions { tickets, ..AccessOptions::default() });
        }
        // The shared key does not change while a server runs, so an error means that the same key
        // is already set.
        let _ = self.shared_ticket_key.set(key);
    }

    /// Restores the revocations of earlier runs from their file. The caller must have opened the
    /// store. Then no other server appends to this file or replaces it.
    pub(crate) fn restore_revocations(&self, settings: &Settings) -> anyhow::Result<()> {
        let (Some(_), Some(store)) = (&self.key_files, settings.store()) else { return Ok(()) };
        let file = RevokedFile::open(store, &self.access, now())?;
        self.revoked.set(file).map_err(|_| anyhow!("the revocations are restored already"))
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// The key files at the start of the server. A development server has none.
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
        let presented = presented_in(credentials);
        let mut verified = access.verify(&presented, now());
        if let (Err(AccessError::KeysUnavailable), Some(key_sets)) =
            (&verified, &credentials.rules.key_sets)
        {
            key_sets.fetch_now().await;
            verified = access.verify(&presented, now());
        }
        Ok(Caller::new(access.clone(), verified?, credentials.by_event_source))
    }

    /// Whether a request has a credential, valid or not.
    pub(crate) fn has_credential(&self, credentials: &Credentials<'_>) -> bool {
        !matches!(presented_in(credentials).chosen(), Ok(None))
    }

    /// Whether an app decides about subscriptions without a token or a ticket.
    pub(crate) fn asks_an_app(&self) -> bool {
        self.rules().ask.is_some()
    }

    /// Whether the credential of a request is a key that a listener with this role accepts.
    pub(crate) fn has_key(&self, role: Role, credentials: &Credentials<'_>) -> bool {
        match presented_in(credentials).chosen() {
            Ok(Some(Credential::Bearer(text))) => self.of(role).accepts_key(text),
            _ => false,
        }
    }

    /// The limits of requests.
    pub(crate) fn rates(&self) -> Option<Arc<Rates>> {
        self.rules.read().rates.clone()
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
        let Some(rates) = self.rates() else { return Ok(()) };
        // A relay (a server that follows this one) forwards the events of many publishers. It has
        // already applied the limits to each of these publishers.
        if caller.grant().follow() && !caller.grant().admin() {
            return Ok(());
        }
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
        let rates = self.rates().filter(|_| caller.verified().proof() != Proof::Key);
        let names = asked.selectors.len();
        rates.map_or(Ok(None), |rates| rates.subscribe(address, shares_connection, names))
    }

    /// Counts a ticket that a caller gets. If the caller has a token, the ticket counts for the
    /// user of the token. It does not count for the key of the token, because the same key verifies
    /// the tokens of all users.
    pub(crate) fn count_ticket(&self, caller: &Caller) -> Result<(), Exceeded> {
        let verified = caller.verified();
        match (self.rates(), verified.publisher().or_else(|| verified.key())) {
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
        let limits_addresses = self.rates().is_some_and(|rates| rates.limits_addresses());
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
        let ask = self.rules().ask.clone()?;
        let verified = |Granted { grant, asked_at }| Verified::trusted(grant, asked_at);
        let mut granted = ask.grant(question).await.map(verified);
        // If a revocation came while the app answered, the grant counts as revoked. With this
        // grant, an `EventSource` would get a 204 and never reconnect. But the user may still have
        // rights to read, so the server asks the app again.
        let is_revoked = |granted: &Result<Verified, Answer>| {
            granted.as_ref().is_ok_and(|granted| self.is_revoked(granted, question))
        };
        if is_revoked(&granted) {
            sleep(REVOCATION_OVER).await;
            granted = ask.grant(question).await.map(verified);
            // A further revocation may have come meanwhile, or the clock was set back. The client
            // tries again later.
            if is_revoked(&granted) {
                return Some(Err(Answer::Unavailable));
            }
        }
        // A reload may have replaced the app meanwhile. The answer of the old app gives no rights.
        if !self.rules().ask.as_ref().is_some_and(|now| now.is_same(&ask)) {
            return Some(Err(Answer::Unavailable));
        }
        let access = || caller.access().clone();
        Some(granted.map(|verified| Caller::new(access(), verified, by_event_source)))
    }

    fn is_revoked(&self, granted: &Verified, question: &Question<'_>) -> bool {
        let holds = self.access.recheck(granted, &question.asked.selectors, now());
        holds == Err(AccessError::Revoked)
    }

    /// Fetches the key set of `--jwks-url` whenever a fetch is due. When a fetch has removed a key,
    /// ends the streams that depend on this key. This future never completes.
    pub(crate) async fn fetch_key_sets(&self, hub: &Hub<String>) {
        let removed = || {
            self.access.note_change();
            self.check_open(hub);
        };
        loop {
            let replaced = self.key_set_replaced.notified();
            match self.rules().key_sets.clone() {
                None => replaced.await,
                Some(key_sets) => tokio::select! {
                    () = key_sets.run(removed) => {}
                    () = replaced => {}
                },
            }
        }
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
        presented_in(credentials).is_cookie()
    }

    /// Whether the app gets the credential of a request and decides about it. The app may have
    /// issued a credential that this server does not know. But a key of this server must never
    /// reach the app, even if the request comes through a public listener, which accepts no keys.
    pub(crate) fn is_for_app(&self, credentials: &Credentials<'_>, error: &AccessError) -> bool {
        let passes = credentials.rules.ask.as_ref().is_some_and(AskApp::passes_authorization);
        let is_unknown = *error == AccessError::KeyUnknown && credentials.tickets.is_empty();
        passes && is_unknown && !self.is_cookie(credentials) && !self.is_own_key(credentials)
    }

    /// Whether the credential is a key of this server, even a revoked one.
    fn is_own_key(&self, credentials: &Credentials<'_>) -> bool {
        let verified = self.access.verify(&presented_in(credentials), now());
        verified != Err(AccessError::KeyUnknown)
    }

    fn of(&self, role: Role) -> &Access {
        if role.takes_keys() { &self.access } else { &self.without_keys }
    }

    /// Whether a caller may see the name of a topic, in a list of topics or in an event with
    /// `meta=1`. Such an event names the topics that it was published to.
    pub(crate) fn covers_topic(&self, caller: &Caller, topic: &Topic) -> bool {
        caller.grant().covers_topic(topic)
            || self.rules().public.iter().any(|public| public.matches(topic))
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
        self.rules().ask.iter().for_each(AskApp::forget);
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

/// The parts of a request that have a credential, as the verifier takes them.
fn presented_in<'a>(credentials: &Credentials<'a>) -> Presented<'a> {
    let Credentials { headers, tickets, origin, rules, method, .. } = credentials;
    let cookie = origin.may_use_cookies(headers, method).then_some(&*rules.cookie);
    presented(headers, tickets, cookie)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
