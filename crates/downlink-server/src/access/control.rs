//! Verifies the credentials of requests, and ends the streams whose rights have ended.

use std::{
    io,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use axum::http::{HeaderMap, Method, header};
use downlink::hub::{Address, ClientId, Hub, Selection, Timestamp, Topic, TopicSelector};
use downlink_access::{
    Access, AccessError, AccessOptions, Grant, IssueError, Presented, Proof, Revocation, Secret,
    StreamGrant, TicketId, TicketKeys, TicketStreams, TokenKeys, TokenRules, Tokens, Verified,
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use super::{
    AccessSettings, Origin, Origins, Role,
    key_files::{self, KeyFiles},
    revoked::RevokedFile,
};
use crate::config::Settings;

/// The hub name in tickets. A ticket of another hub is refused.
const HUB_NAME: &str = "downlink";

/// The maximum number of open streams with tickets, each with another ticket.
const TICKET_STREAMS_MAX: usize = 1_000_000;

/// Everything that a server knows about access.
#[derive(Debug)]
pub struct Control {
    access: Access,
    /// The same access for a listener that takes no keys.
    without_keys: Access,
    origins: Origins,
    host_names: Vec<String>,
    cookie: String,
    public: Vec<TopicSelector>,
    public_url: String,
    key_files: Option<KeyFiles>,
    revoked: RevokedFile,
    /// The newest stream of each ticket. Held alone, for one look or one change.
    ticket_streams: Mutex<TicketStreams>,
    /// How often rights were taken away since the start. A stream that has seen a smaller number
    /// checks its rights again.
    changes: AtomicU32,
    /// Wakes the publishers of streams after each of these changes.
    changed: Notify,
}

/// The rights of a request without a listener of its own: see [`Control::verify`].
pub(crate) struct Credentials<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) tickets: &'a [String],
    pub(crate) origin: &'a Origin,
    pub(crate) method: &'a Method,
}

impl Control {
    /// The access of a development server, whose listener gives every right. Its tickets end with
    /// the server, because the key of the tickets is only in memory.
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
            revoked: RevokedFile::default(),
            ticket_streams: Mutex::new(TicketStreams::new(TICKET_STREAMS_MAX)),
            changes: AtomicU32::new(0),
            changed: Notify::new(),
        }
    }

    /// The access that the settings describe. Reads the key files, and makes the server's own ones
    /// if none are given and they do not exist.
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
        let tokens = tokens(access)?;
        let options =
            AccessOptions { public: access.public.clone(), keys, tokens, tickets: Some(tickets) };
        let shared = Access::new(options);
        let revoked = match settings.store() {
            Some(_) => RevokedFile::open(&folder, &shared, now())?,
            None => RevokedFile::default(),
        };
        Ok(Self {
            without_keys: shared.without_keys(),
            access: shared,
            origins: Origins::new(&access.cors_origin),
            host_names: access.host_names(),
            cookie: access.jwt_cookie.clone(),
            public: access.public.clone(),
            public_url: access.public_url.clone().unwrap_or_default(),
            key_files: Some(key_files),
            revoked,
            ticket_streams: Mutex::new(TicketStreams::new(TICKET_STREAMS_MAX)),
            changes: AtomicU32::new(0),
            changed: Notify::new(),
        })
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

    /// Verifies the credentials of a request. A request without credentials has no rights, except
    /// those that its listener gives. A request with a ticket has the rights of the ticket on every
    /// listener, so that a ticket means the same in development and in production.
    pub(crate) fn verify(
        &self,
        role: Role,
        credentials: &Credentials<'_>,
    ) -> Result<Verified, AccessError> {
        if role.gives_all_rights() && credentials.tickets.is_empty() {
            return Ok(Verified::trusted(Grant::all(), now()));
        }
        self.of(role).verify(&self.presented(credentials), now())
    }

    /// Whether the credential that counts is a cookie. A bad cookie does not close a public page.
    pub(crate) fn is_cookie(&self, credentials: &Credentials<'_>) -> bool {
        self.presented(credentials).is_cookie()
    }

    fn presented<'a>(&self, credentials: &Credentials<'a>) -> Presented<'a> {
        let Credentials { headers, tickets, origin, method } = credentials;
        let mut presented = Presented::new();
        for value in headers.get_all(header::AUTHORIZATION) {
            presented = presented.authorization(value.as_bytes());
        }
        for ticket in *tickets {
            presented = presented.ticket(ticket);
        }
        if origin.may_use_cookies(headers, method) {
            for value in headers.get_all(header::COOKIE) {
                presented = presented.cookie(value.as_bytes(), &self.cookie);
            }
        }
        presented
    }

    fn of(&self, role: Role) -> &Access {
        if role.takes_keys() { &self.access } else { &self.without_keys }
    }

    /// Checks that a subscription is allowed. Returns what the stream keeps for later checks.
    pub(crate) fn admit(
        &self,
        verified: &Verified,
        asked: &Selection,
    ) -> Result<StreamGrant, AccessError> {
        self.access.admit(verified, asked, now())
    }

    /// Checks that an open stream may stay open.
    pub(crate) fn check_stream(
        &self,
        stream: &StreamGrant,
        asked: &Selection,
    ) -> Result<(), AccessError> {
        self.access.check_stream(stream, asked, now())
    }

    /// Checks the right to publish to every address of an event.
    pub(crate) fn check_publish(
        &self,
        verified: &Verified,
        addresses: &[Address],
    ) -> Result<(), AccessError> {
        self.access.check_publish(verified, addresses, now())
    }

    /// The rights of a request without credentials.
    pub(crate) fn nobody(&self) -> Verified {
        Verified::nobody(now())
    }

    /// Whether a caller may see a topic, in a list or in the addresses of an event.
    pub(crate) fn covers_topic(&self, verified: &Verified, topic: &Topic) -> bool {
        verified.grant().covers_topic(topic)
            || self.public.iter().any(|public| public.matches(topic))
    }

    /// Checks that a caller may see a topic.
    pub(crate) fn check_topic(
        &self,
        verified: &Verified,
        topic: &Topic,
    ) -> Result<(), AccessError> {
        let selectors = vec![TopicSelector::from(topic.clone())];
        self.admit(verified, &Selection { selectors, client: None }).map(drop)
    }

    /// Checks that a caller has a credential.
    pub(crate) fn check_credential(&self, verified: &Verified) -> Result<(), AccessError> {
        if verified.proof() == Proof::Nothing { Err(AccessError::TokenMissing) } else { Ok(()) }
    }

    /// Waits until the rights of a publisher end, and returns the reason.
    pub(crate) async fn rights_ended(
        &self,
        verified: &Verified,
        addresses: &[Address],
    ) -> AccessError {
        loop {
            let mut changed = pin!(self.changed.notified());
            // A change after this line is not missed.
            changed.as_mut().enable();
            match self.check_publish(verified, addresses) {
                // The keys of the issuer cannot be fetched. This says nothing against the publisher.
                Ok(()) | Err(AccessError::KeysUnavailable) => {}
                Err(error) => return error,
            }
            match verified.grant().until().map(SystemTime::from) {
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

    /// Issues a ticket, and returns it with its end.
    pub(crate) fn issue(
        &self,
        issuer: &Verified,
        topics: Vec<TopicSelector>,
        client: Option<ClientId>,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), IssueError> {
        self.access.issue(issuer, topics, client, lifetime)
    }

    /// Revokes, and lets every open stream check its rights again. Then writes the revocation to the
    /// disk. If that fails, the revocation holds until the server ends.
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        hub: &Hub<String>,
        revocation: Revocation,
    ) -> Result<(), RevokeError> {
        let revoked = self.access.revoke(revocation.clone(), now());
        revoked.map_err(|_| RevokeError::TooManyKeys)?;
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
        hub.wake_subscribers();
        let control = Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || control.revoked.append(&revocation));
        writing.await.map_err(io::Error::other).flatten().map_err(RevokeError::Disk)
    }

    /// The number of times that rights were taken away.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// Registers the newest stream of a ticket. Ends the older one.
    pub(crate) fn register(&self, hub: &Hub<String>, ticket: TicketId, stream: u64) {
        let registered = self.ticket_streams.lock().register(ticket, stream);
        match registered {
            Ok(Some(displaced)) => {
                hub.disconnect_subscription(displaced);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a stream with a ticket is not registered"),
        }
    }

    /// Removes a stream that has ended. Returns whether it was the newest stream of its ticket.
    pub(crate) fn remove(&self, ticket: TicketId, stream: u64) -> bool {
        self.ticket_streams.lock().remove(ticket, stream)
    }
}

/// A revocation has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error("the revocation cannot be written to the disk")]
    Disk(#[source] io::Error),
    #[error("too many keys are revoked")]
    TooManyKeys,
}

/// The verifier of tokens. `None` if no key is configured.
fn tokens(settings: &AccessSettings) -> anyhow::Result<Option<Tokens>> {
    let AccessSettings { jwt_key_file, jwt_public_key, .. } = settings;
    if jwt_key_file.is_empty() && jwt_public_key.is_empty() {
        return Ok(None);
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
    let rules = TokenRules {
        issuer: settings.jwt_issuer.clone(),
        audiences: settings.jwt_audience.clone(),
        grants: settings.token_grant.clone(),
        lifetime_max: settings.token_lifetime_max,
    };
    let tokens = Tokens::new(keys, rules);
    Ok(Some(tokens.context("cannot verify tokens: see --jwt-issuer and --jwt-audience")?))
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
