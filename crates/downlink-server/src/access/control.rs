//! Verifies the credentials of requests, and ends the streams whose rights have ended.

use std::{borrow::Cow, io, path::Path, pin::pin, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use axum::http::{HeaderMap, Method};
use downlink::access::{Caller, Origin, Origins, presented};
use downlink::hub::{Address, Hub, Timestamp, Topic, TopicSelector};
use downlink_access::{
    Access, AccessError, AccessOptions, Grant, Presented, Revocation, Secret, TicketKeys,
    TokenKeys, TokenRules, Tokens,
};
use tokio::{sync::Notify, time::sleep};

use super::{
    AccessSettings, Role,
    key_files::{self, KeyFiles},
    revoked::RevokedFile,
};
use crate::config::Settings;

/// The hub name in tickets. A ticket of another hub is refused.
const HUB_NAME: &str = "downlink";

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
    /// Wakes the publishers of streams after each revocation.
    changed: Notify,
}

/// The rights of a request without a listener of its own: see [`Control::verify`].
pub(crate) struct Credentials<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) tickets: &'a [Cow<'a, str>],
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
    ) -> Result<Caller, AccessError> {
        let access = self.of(role);
        if role.gives_all_rights() && credentials.tickets.is_empty() {
            return Ok(Caller::trusted(access.clone(), Grant::all()));
        }
        let verified = access.verify(&self.presented(credentials), now())?;
        Ok(Caller::new(access.clone(), verified, false))
    }

    /// The caller of a request with a bad cookie.
    pub(crate) fn with_bad_cookie(&self, error: AccessError) -> Caller {
        Caller::with_bad_cookie(self.access.clone(), error, false)
    }

    /// Whether the credential that counts is a cookie. A bad cookie does not close a public page.
    pub(crate) fn is_cookie(&self, credentials: &Credentials<'_>) -> bool {
        self.presented(credentials).is_cookie()
    }

    fn presented<'a>(&self, credentials: &Credentials<'a>) -> Presented<'a> {
        let Credentials { headers, tickets, origin, method } = credentials;
        let cookie = origin.may_use_cookies(headers, method).then_some(&*self.cookie);
        presented(headers, tickets, cookie)
    }

    fn of(&self, role: Role) -> &Access {
        if role.takes_keys() { &self.access } else { &self.without_keys }
    }

    /// Whether a caller may see a topic, in a list or in the addresses of an event.
    pub(crate) fn covers_topic(&self, caller: &Caller, topic: &Topic) -> bool {
        caller.grant().covers_topic(topic) || self.public.iter().any(|public| public.matches(topic))
    }

    /// Waits until the rights of a publisher end, and returns the reason.
    pub(crate) async fn rights_ended(&self, caller: &Caller, addresses: &[Address]) -> AccessError {
        loop {
            let mut changed = pin!(self.changed.notified());
            // A change after this line is not missed.
            changed.as_mut().enable();
            match caller.access().check_publish(caller.verified(), addresses, now()) {
                // The keys of the issuer cannot be fetched. This says nothing against the publisher.
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

    /// Revokes, and lets every open stream check its rights again. Then writes the revocation to the
    /// disk. If that fails, the revocation holds until the server ends.
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        hub: &Hub<String>,
        revocation: Revocation,
    ) -> Result<(), RevokeError> {
        let revoked = self.access.revoke(revocation.clone(), now());
        revoked.map_err(|_| RevokeError::TooManyKeys)?;
        self.changed.notify_waiters();
        hub.wake_subscribers();
        let control = Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || control.revoked.append(&revocation));
        writing.await.map_err(io::Error::other).flatten().map_err(RevokeError::Disk)
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
