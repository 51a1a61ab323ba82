//! The tests share these times, keys and tokens.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use downlink_access::{Secret, TokenKeys, TokenRules, Tokens};
use downlink_log::{ClientId, Selection, Timestamp, TopicSelector};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};

/// The current time in most tests, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) const SECRET: &[u8] = b"a secret of 32 bytes or a bit more";

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

pub(crate) fn now() -> Timestamp {
    at(NOW)
}

pub(crate) fn selector(text: &str) -> TopicSelector {
    TopicSelector::parse(text).unwrap()
}

pub(crate) fn client(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

pub(crate) fn asked(topics: &[&str], of: Option<&str>) -> Selection {
    let selectors = topics.iter().map(|text| selector(text)).collect();
    Selection { selectors, client: of.map(client) }
}

pub(crate) fn secret() -> Secret {
    Secret::from_file_bytes(SECRET).unwrap()
}

pub(crate) fn other_secret() -> Secret {
    Secret::from_file_bytes(&[b'x'; 32]).unwrap()
}

/// A verifier of tokens that were signed with the tests' shared secret.
pub(crate) fn hmac_tokens() -> Tokens {
    Tokens::new(TokenKeys::new().hmac(&secret()), TokenRules::default()).unwrap()
}

pub(crate) fn issuer_rules() -> TokenRules {
    let issuer = Some("https://issuer.example".to_owned());
    TokenRules { issuer, audiences: vec!["downlink".to_owned()], ..TokenRules::default() }
}

pub(crate) fn hmac() -> EncodingKey {
    EncodingKey::from_secret(SECRET).unwrap()
}

pub(crate) fn es256() -> EncodingKey {
    EncodingKey::from_ec_der(include_bytes!("../fixtures/es256.private.der"))
}

pub(crate) fn es384() -> EncodingKey {
    EncodingKey::from_ec_der(include_bytes!("../fixtures/es384.private.der"))
}

pub(crate) fn ed25519() -> EncodingKey {
    EncodingKey::from_ed_der(include_bytes!("../fixtures/ed25519.private.der"))
}

pub(crate) fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_der(include_bytes!("../fixtures/rs256.private.der"))
}

pub(crate) fn encode(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Makes a token with this header and these claims, signed with this key.
pub(crate) fn token(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Makes a token with these claims, signed with the shared secret.
pub(crate) fn hs256(claims: &str) -> String {
    token(r#"{"alg":"HS256"}"#, claims, &hmac(), Algorithm::HS256)
}

/// The claims of a token that is valid for an hour, followed by `more` members of the JSON object.
pub(crate) fn claims(more: &str) -> String {
    format!(r#"{{"iat":{NOW},"exp":{}{more}}}"#, NOW + 3_600)
}
