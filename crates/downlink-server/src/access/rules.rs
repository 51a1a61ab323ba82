//! The parts of access control that the server reads again at a reload.
//!
//! A reload first makes new [`Rules`] from the settings and the key files. If this succeeds,
//! `Control` replaces the old rules as a whole. A request passes several checks before it reaches
//! its route. All these checks use the same rules, even if a reload replaces the rules in between.
//!
//! The new rules take over these parts of the old rules if their settings did not change: the
//! fetched key set, the cached answers of the app, and the counts of each rate.

use std::{io, path::Path, sync::Arc};

use anyhow::Context as _;
use downlink::{access::Origins, hub::TopicSelector};
use downlink_access::{
    AccessOptions, KeySetCache, Secret, TicketKeys, TokenKeys, TokenRules, Tokens,
};

use super::{
    AccessSettings,
    ask::AskApp,
    key_files::{self, KeyFiles, Missing},
    key_sets::KeySets,
    rates::Rates,
};
use crate::config::Settings;

/// The name of the hub in every ticket. The server refuses tickets with another name.
pub(super) const HUB_NAME: &str = "downlink";

/// The parts of access control that a reload replaces. A development server has empty rules.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) origins: Origins,
    /// The names that `Host` may have, besides the loopback names.
    pub(crate) host_names: Vec<String>,
    pub(super) cookie: String,
    pub(super) public: Vec<TopicSelector>,
    pub(crate) public_url: String,
    /// The app that decides about subscriptions without a token or a ticket.
    pub(super) ask: Option<AskApp>,
    pub(super) key_sets: Option<Arc<KeySets>>,
    /// The limits of requests. A development server has none.
    pub(super) rates: Option<Arc<Rates>>,
}

/// The result of reading the settings of access control and the key files.
pub(super) struct Opened {
    pub(super) rules: Rules,
    pub(super) options: AccessOptions,
    pub(super) key_files: KeyFiles,
}

/// Reads the key files, and makes the rules. `old` are the rules in force, if there are any, and
/// `shared` is the ticket key that all nodes of a cluster share.
///
/// # Errors
///
/// A file that cannot be used, or settings that contradict each other.
pub(super) fn open(
    settings: &Settings,
    access: &AccessSettings,
    (old, shared): (Option<&Rules>, Option<&Secret>),
    missing: Missing,
) -> anyhow::Result<Opened> {
    let folder = key_files::folder(settings.store());
    let (keys, mut ticket_keys, key_files) = key_files::read(&folder, access, missing)?;
    // If the settings name files with ticket keys, the operator has already chosen the keys that
    // the nodes share.
    if let Some(shared) = shared.filter(|_| access.ticket_key_file.is_empty()) {
        ticket_keys.insert(0, shared.clone());
    }
    let tickets = TicketKeys::new(HUB_NAME, &ticket_keys).context("cannot use a ticket key")?;
    let (tokens, key_sets) = tokens(access, old.and_then(|old| old.key_sets.as_ref()))?;
    let asked = access.ask.options(tokens.is_some());
    let old_app = old.and_then(|old| old.ask.clone());
    let same_app = old_app.filter(|app| Some(app.options()) == asked.as_ref());
    let ask = match same_app {
        Some(app) => Some(app),
        None => asked.map(AskApp::new).transpose().context("cannot use --authorize-url")?,
    };
    let (limits, listen) = (&access.abuse, &settings.listen);
    let old_rates = old.and_then(|old| old.rates.as_ref());
    let same_rates = old_rates.filter(|rates| rates.have_rates_of(limits, listen)).cloned();
    let new_rates = || Arc::new(Rates::replacing(old_rates.map(|old| &**old), limits, listen));
    let rules = Rules {
        origins: Origins::new(&access.cors_origin),
        host_names: access.host_names(),
        cookie: access.jwt_cookie.clone(),
        public: access.public.clone(),
        public_url: access.public_url.clone().unwrap_or_default(),
        ask,
        key_sets,
        rates: Some(same_rates.unwrap_or_else(new_rates)),
    };
    let public = access.public.clone();
    let options = AccessOptions { public, keys, tokens, tickets: Some(tickets) };
    Ok(Opened { rules, options, key_files })
}

/// Checks the settings of access control and their files, and changes nothing. Returns all errors:
/// one for each file that cannot be used, or else the first contradiction between the settings.
pub(crate) fn check(settings: &Settings, access: &AccessSettings) -> Vec<anyhow::Error> {
    let AccessSettings {
        publish_key_file, admin_key_file, relay_key_file, ticket_key_file, ..
    } = access;
    let Err(error) = open(settings, access, (None, None), Missing::Check) else {
        return Vec::new();
    };
    let secrets =
        [publish_key_file, admin_key_file, relay_key_file, ticket_key_file, &access.jwt_key_file];
    let secrets = secrets.into_iter().flatten();
    let mut errors: Vec<_> = secrets.filter_map(|file| key_files::secret(file).err()).collect();
    let public = access.jwt_public_key.iter();
    errors.extend(public.filter_map(|file| public_keys(TokenKeys::new(), file).err()));
    if errors.is_empty() {
        errors.push(error);
    }
    errors
}

/// Makes the verifier of tokens, and the key set that the server fetches for it. Both are `None` if
/// the settings give no key for tokens. `old` is the key set in force.
fn tokens(
    settings: &AccessSettings,
    old: Option<&Arc<KeySets>>,
) -> anyhow::Result<(Option<Tokens>, Option<Arc<KeySets>>)> {
    let AccessSettings { jwt_key_file, jwt_public_key, jwks_url, .. } = settings;
    if jwt_key_file.is_empty() && jwt_public_key.is_empty() && jwks_url.is_none() {
        return Ok((None, None));
    }
    let mut keys = TokenKeys::new();
    for file in jwt_key_file {
        keys = keys.hmac(&key_files::secret(file)?);
    }
    for file in jwt_public_key {
        keys = public_keys(keys, file)?;
    }
    let mut key_sets = None;
    if let Some(url) = jwks_url {
        let same = old.filter(|old| old.url() == url).cloned();
        let fetched = same
            .map(Ok)
            .unwrap_or_else(|| KeySets::new(url, Arc::new(KeySetCache::new())).map(Arc::new));
        let fetched = fetched.context("cannot use --jwks-url")?;
        keys = keys.key_set(Arc::clone(fetched.cache()));
        key_sets = Some(fetched);
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

fn public_keys(keys: TokenKeys, file: &Path) -> anyhow::Result<TokenKeys> {
    let refused = || format!("cannot use the public keys in {}", file.display());
    let pem = read_bounded(file, downlink_access::PEM_BYTES_MAX).with_context(refused)?;
    keys.public(&pem).with_context(refused)
}

fn read_bounded(file: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
