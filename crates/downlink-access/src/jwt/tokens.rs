//! The verifier of tokens. It checks the signature first, then the times, the audience and the
//! issuer, and then reads the grant.

use std::sync::Arc;
use std::time::Duration;

use downlink_log::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::error::{AccessError, InvalidGrant};
use crate::grant::Grant;
use crate::grant_json::{client, seconds};
use crate::jwt::key::{PublicKeyError, VerifyingKey, is_hmac};
use crate::jwt::key_set::KeySetCache;
use crate::jwt::parts::Parts;
use crate::jwt::signatures::VerifiedSignatures;
use crate::jwt::template::TokenGrant;
use crate::secret::{KeyId, Secret};

/// The accepted difference between the clocks of an issuer and of this server.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The default of [`TokenRules::lifetime_max`], the age at which a token ends. The server remembers
/// revocations for at least this time.
pub const TOKEN_LIFETIME_MAX_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum number of keys that are tried for one token. Each try costs a verification.
pub const KEYS_TRIED_MAX: usize = 4;

/// A verifier cannot be built.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TokensError {
    /// There is no key.
    #[error("no key for tokens is configured: add a key file, a public key or a key set")]
    NoKey,
    /// There are public keys or a key set, but no issuer or no audience.
    #[error("public keys and key sets need an issuer and an audience")]
    IssuerNeeded,
    /// There are more keys of one kind than the verifier tries for one token.
    #[error("at most {keys_max} key files and {keys_max} public keys of one type are allowed")]
    TooManyKeys {
        /// The limit.
        keys_max: usize,
    },
}

/// Verifies the tokens of one issuer.
///
/// All keys must belong to this issuer. A party that can sign with one of the keys can make a token
/// for any client.
///
/// ```
/// use std::time::Duration;
/// use downlink_access::{Grant, Mint, Secret, TokenKeys, TokenRules, Tokens};
/// use downlink_log::{ClientId, Timestamp, TopicSelector};
///
/// let secret = Secret::generate()?;
/// let tokens = Tokens::new(TokenKeys::new().hmac(&secret), TokenRules::default())?;
/// let now = Timestamp::from_millis(1_800_000_000_000);
/// let grant = Grant::none()
///     .with_client(ClientId::new("ada")?)
///     .with_subscribe(TopicSelector::parse("orders/*")?)
///     .with_until(now.after(Duration::from_secs(3600)));
/// let token = Mint::new(&secret).sign(&grant, now)?;
/// assert_eq!(tokens.verify(&token, now)?.grant, grant);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tokens {
    keys: Vec<VerifyingKey>,
    key_set: Option<Arc<KeySetCache>>,
    rules: TokenRules,
    signatures: VerifiedSignatures,
}

/// The content of a verified token.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VerifiedToken {
    /// The rights of the token. They end with the token.
    pub grant: Grant,
    /// The key that verified the token.
    pub key: KeyId,
    /// The time when the token was issued (`iat`).
    pub issued_at: Timestamp,
}

/// The rules for the tokens of one issuer.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The issuer (`iss`) that a token must have. Public keys and key sets need an issuer.
    pub issuer: Option<String>,
    /// The accepted audiences (`aud`). A token must name one of them. Public keys and key sets need
    /// an audience.
    pub audiences: Vec<String>,
    /// The templates for the topics of each token that has no claim `downlink`.
    pub grants: Vec<TokenGrant>,
    /// The age at which a token ends, even if its `exp` is later.
    pub lifetime_max: Duration,
}

impl Default for TokenRules {
    fn default() -> Self {
        let lifetime_max = TOKEN_LIFETIME_MAX_DEFAULT;
        Self { issuer: None, audiences: Vec::new(), grants: Vec::new(), lifetime_max }
    }
}

/// The keys that verify the tokens of one issuer.
#[derive(Debug, Default)]
pub struct TokenKeys {
    keys: Vec<VerifyingKey>,
    key_set: Option<Arc<KeySetCache>>,
}

impl TokenKeys {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a shared secret, for HS256, HS384 and HS512.
    #[must_use]
    pub fn hmac(mut self, secret: &Secret) -> Self {
        self.keys.extend(VerifyingKey::hmac(secret));
        self
    }

    /// Adds the public keys of a PEM file.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] if the file has no public key, or if one of its keys is refused.
    pub fn public(mut self, pem: &[u8]) -> Result<Self, PublicKeyError> {
        self.keys.extend(VerifyingKey::from_pem(pem)?);
        Ok(self)
    }

    /// Adds the keys of a key set, which the server fetches.
    #[must_use]
    pub fn key_set(self, cache: Arc<KeySetCache>) -> Self {
        Self { key_set: Some(cache), ..self }
    }
}

impl Tokens {
    /// A verifier with these keys and rules.
    ///
    /// # Errors
    ///
    /// [`TokensError`] if a key, the issuer or the audience is missing, or if there are too many
    /// keys.
    pub fn new(keys: TokenKeys, rules: TokenRules) -> Result<Self, TokensError> {
        let TokenKeys { keys, key_set } = keys;
        if keys.is_empty() && key_set.is_none() {
            return Err(TokensError::NoKey);
        }
        let has_public = key_set.is_some() || keys.iter().any(|key| !key.is_secret());
        if has_public && (rules.issuer.is_none() || rules.audiences.is_empty()) {
            return Err(TokensError::IssuerNeeded);
        }
        let alike = |key: &VerifyingKey| keys.iter().filter(|other| other.is_like(key)).count();
        if keys.iter().any(|key| alike(key) > KEYS_TRIED_MAX) {
            return Err(TokensError::TooManyKeys { keys_max: KEYS_TRIED_MAX });
        }
        Ok(Self { keys, key_set, rules, signatures: VerifiedSignatures::new() })
    }

    /// Verifies a token.
    ///
    /// # Errors
    ///
    /// The error of the first check that fails. Up to the check of the signature, the errors are
    /// [`TokenMalformed`](AccessError::TokenMalformed), [`Algorithm`](AccessError::Algorithm),
    /// [`KeyUnknown`](AccessError::KeyUnknown), [`KeysUnavailable`](AccessError::KeysUnavailable)
    /// and [`Signature`](AccessError::Signature). After this check, the errors are `TokenMalformed`
    /// for the claims, [`TokenExpired`](AccessError::TokenExpired),
    /// [`TokenEarly`](AccessError::TokenEarly), [`Audience`](AccessError::Audience),
    /// [`Issuer`](AccessError::Issuer) and [`ClaimMalformed`](AccessError::ClaimMalformed).
    ///
    /// # Limits
    ///
    /// [`TOKEN_BYTES_MAX`](crate::TOKEN_BYTES_MAX). For each token, at most [`KEYS_TRIED_MAX`]
    /// configured keys and as many keys of the key set are tried.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, AccessError> {
        let parts = Parts::parse(token)?;
        let key = self.verifying_key(&parts, now)?;
        let claims = parts.claims()?;
        let times = self.times(&claims, now)?;
        self.check_parties(&claims)?;
        let grant = self.grant(&claims).map_err(AccessError::ClaimMalformed)?;
        let grant = grant.with_until(times.until);
        Ok(VerifiedToken { grant, key, issued_at: times.issued_at })
    }

    pub(crate) const fn lifetime_max(&self) -> Duration {
        self.rules.lifetime_max
    }

    /// Whether a key with this id is accepted at this time.
    ///
    /// # Errors
    ///
    /// [`AccessError::KeysUnavailable`] if a key set must be fetched first, because the verifier
    /// cannot answer without it.
    pub fn contains_key(&self, id: KeyId, now: Timestamp) -> Result<bool, AccessError> {
        if self.keys.iter().any(|key| key.id == id) {
            return Ok(true);
        }
        let Some(cache) = &self.key_set else { return Ok(false) };
        let set = cache.current(now).ok_or(AccessError::KeysUnavailable)?;
        Ok(set.keys().iter().any(|key| key.id == id))
    }

    /// The key that verifies the signature.
    fn verifying_key(&self, parts: &Parts<'_>, now: Timestamp) -> Result<KeyId, AccessError> {
        let own = self.find_key(self.keys.iter(), parts);
        let Some(cache) = self.key_set.as_ref().filter(|_| own.is_err()) else { return own };
        if is_hmac(parts.algorithm) {
            // A key set never contains a shared secret, so a fetch cannot help.
            return own.map_err(|error| match error {
                AccessError::KeyUnknown => AccessError::Algorithm,
                error => error,
            });
        }
        let set = cache.current(now).ok_or(AccessError::KeysUnavailable)?;
        let is_named = |key: &&VerifyingKey| parts.kid.is_none() || key.kid == parts.kid;
        let found = self.find_key(set.keys().iter().filter(is_named), parts);
        let may_be_new = match &found {
            Err(AccessError::KeyUnknown) => true,
            Err(AccessError::Signature) => parts.kid.is_none(),
            _ => false,
        };
        if may_be_new && cache.want(now) {
            return Err(AccessError::KeysUnavailable);
        }
        found
    }

    /// The first of these keys that verifies the token.
    fn find_key<'a>(
        &self,
        keys: impl Iterator<Item = &'a VerifyingKey>,
        parts: &Parts<'_>,
    ) -> Result<KeyId, AccessError> {
        let (mut is_named, mut tried) = (false, 0);
        for key in keys {
            is_named = true;
            if !key.accepts(parts.algorithm) {
                continue;
            }
            if tried == KEYS_TRIED_MAX {
                return Err(AccessError::malformed(
                    "too many keys could verify the token: it must name its key in `kid`",
                ));
            }
            tried += 1;
            if self.verifies(key, parts) {
                return Ok(key.id);
            }
        }
        Err(match (is_named, tried) {
            (false, _) => AccessError::KeyUnknown,
            (true, 0) => AccessError::Algorithm,
            (true, _) => AccessError::Signature,
        })
    }

    /// Whether the key verifies the signature. If a public key has verified a signature, the same
    /// signature is recognised later and not verified again.
    fn verifies(&self, key: &VerifyingKey, parts: &Parts<'_>) -> bool {
        let place = (!key.is_secret()).then(|| self.signatures.place(key.id, parts)).flatten();
        if place.is_some_and(|place| self.signatures.contains(place)) {
            return true;
        }
        let is_valid = key.verifies(parts.algorithm, parts.message, &parts.signature);
        if let Some(place) = place.filter(|_| is_valid) {
            self.signatures.insert(place);
        }
        is_valid
    }

    fn times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Times, AccessError> {
        let time = |name: &str| match claims.get(name).map(seconds) {
            Some(None) => Err(AccessError::malformed("a time is not a number of seconds")),
            time => Ok(time.flatten()),
        };
        let (expires_at, issued_at) = (time("exp")?, time("iat")?);
        let expires_at = expires_at.ok_or(AccessError::malformed("the token has no `exp`"))?;
        // A revocation is forgotten after the longest life of a token. Without `iat`, the verifier
        // could not tell that a token is older than this time.
        let issued_at = issued_at.ok_or(AccessError::malformed("the token has no `iat`"))?;
        let end = expires_at.min(issued_at.after(self.rules.lifetime_max));
        let until = if now < end { end } else { end.after(LEEWAY) };
        if until <= now {
            return Err(AccessError::TokenExpired);
        }
        let begins = time("nbf")?.map_or(issued_at, |begins| begins.max(issued_at));
        match begins > now.after(LEEWAY) {
            true => Err(AccessError::TokenEarly),
            false => Ok(Times { until, issued_at }),
        }
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), AccessError> {
        let is_accepted = |value: &Value| {
            value
                .as_str()
                .is_some_and(|name| self.rules.audiences.iter().any(|audience| audience == name))
        };
        let is_meant = match claims.get("aud") {
            // RFC 7519, section 4.1.3: a token with an audience is for that audience only.
            None => self.rules.audiences.is_empty(),
            Some(Value::Array(names)) => names.iter().any(is_accepted),
            Some(name) => is_accepted(name),
        };
        if !is_meant {
            return Err(AccessError::Audience);
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        let is_ours = self.rules.issuer.is_none() || self.rules.issuer.as_deref() == issuer;
        is_ours.then_some(()).ok_or(AccessError::Issuer)
    }

    fn grant(&self, claims: &Map<String, Value>) -> Result<Grant, InvalidGrant> {
        let (grant, templates) = match claims.get("downlink") {
            Some(Value::Object(members)) => (Grant::from_members(members)?, &[][..]),
            Some(_) => return Err(InvalidGrant::NoObject),
            None => (Grant::none(), &*self.rules.grants),
        };
        if grant.client().is_some() {
            return Ok(grant);
        }
        let Some(subject) = claims.get("sub") else { return Ok(grant) };
        let subject = client("sub", subject)?;
        let topics = templates.iter().filter_map(|template| template.selector(&subject));
        Ok(topics.fold(grant, Grant::with_subscribe).with_client(subject))
    }
}

struct Times {
    /// The end of the token. A token that has just ended is still accepted for [`LEEWAY`]. For such
    /// a token, `until` is the end of this additional time.
    until: Timestamp,
    issued_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::crypto::sign;
    use jsonwebtoken::{Algorithm, EncodingKey};

    use super::*;

    /// Both tokens of this test have a wrong signature. The verifier accepts such a token only if
    /// it finds the signature among those that it has verified before.
    #[test]
    fn only_signatures_of_public_keys_are_recognised() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let claims = r#"{"iat":1800000000,"exp":1800000600,"iss":"i","aud":"a"}"#;
        let secret = Secret::from_file_bytes(&[b's'; 32]).unwrap();
        let pem = include_bytes!("../../tests/fixtures/es256.public.pem");
        let keys = TokenKeys::new().hmac(&secret).public(pem).unwrap();
        let rules = TokenRules {
            issuer: Some("i".to_owned()),
            audiences: vec!["a".to_owned()],
            ..TokenRules::default()
        };
        let tokens = Tokens::new(keys, rules).unwrap();
        for (algorithm, is_recognised) in [("HS256", false), ("ES256", true)] {
            let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            let header = encode(&format!(r#"{{"alg":"{algorithm}"}}"#));
            let token = format!("{header}.{}.{}", encode(claims), "A".repeat(86));
            let verified = || tokens.verify(&token, now).map(|verified| verified.issued_at);
            assert_eq!(verified(), Err(AccessError::Signature), "{algorithm}");
            let parts = Parts::parse(&token).unwrap();
            for key in &tokens.keys {
                tokens.signatures.insert(tokens.signatures.place(key.id, &parts).unwrap());
            }
            assert_eq!(verified().is_ok(), is_recognised, "{algorithm}");
        }
    }

    #[test]
    fn a_signature_is_recognised_only_after_a_key_has_verified_it() {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(r#"{"alg":"ES256"}"#), encode("{}"));
        let key = include_bytes!("../../tests/fixtures/es256.private.der");
        let key = EncodingKey::from_ec_der(key);
        let signature = sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
        let pem = include_bytes!("../../tests/fixtures/es256.public.pem");
        let rules = TokenRules {
            issuer: Some("i".to_owned()),
            audiences: vec!["a".to_owned()],
            ..TokenRules::default()
        };
        let tokens = Tokens::new(TokenKeys::new().public(pem).unwrap(), rules).unwrap();
        let key = &tokens.keys[0];
        for (signature, is_valid) in [("A".repeat(86), false), (signature, true)] {
            let token = format!("{message}.{signature}");
            let parts = Parts::parse(&token).unwrap();
            let place = tokens.signatures.place(key.id, &parts).unwrap();
            assert!(!tokens.signatures.contains(place));
            assert_eq!(tokens.verifies(key, &parts), is_valid);
            assert_eq!(tokens.signatures.contains(place), is_valid);
        }
    }
}
