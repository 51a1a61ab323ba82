//! Makes tokens, for tests and for small sites whose app has no library for JSON Web Tokens.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use downlink_log::Timestamp;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::grant::Grant;
use crate::jwt::parts::TOKEN_BYTES_MAX;
use crate::secret::Secret;

/// A token cannot be made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MintError {
    /// The grant has no end, and a token must have one.
    #[error("the token has no end: give its grant an expiry")]
    NoEnd,
    /// The token would be longer than a verifier accepts.
    #[error("the token has {bytes} bytes, at most {bytes_max} are allowed: use patterns")]
    TooLong {
        /// Bytes of the token.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The key cannot sign.
    #[error("the key cannot sign tokens")]
    Key,
}

/// Makes tokens and signs them with a shared secret (HS256).
#[derive(Clone, Debug)]
#[must_use]
pub struct Mint {
    secret: Secret,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Mint {
    /// Signs with this secret.
    pub fn new(secret: &Secret) -> Self {
        Self { secret: secret.clone(), issuer: None, audience: None }
    }

    /// Names the issuer (`iss`).
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        Self { issuer: Some(issuer.into()), ..self }
    }

    /// Names the audience (`aud`).
    pub fn audience(self, audience: impl Into<String>) -> Self {
        Self { audience: Some(audience.into()), ..self }
    }

    /// Makes a token for the grant, issued at this time. The client of the grant becomes the claim
    /// `sub`, and the end of the grant becomes `exp`. Fractions of a second are cut off.
    ///
    /// # Errors
    ///
    /// [`MintError`] if the grant has no end, or too many selectors.
    pub fn sign(&self, grant: &Grant, issued_at: Timestamp) -> Result<String, MintError> {
        let until = grant.until().ok_or(MintError::NoEnd)?;
        let mut claims = Map::new();
        let text = |text: &String| Value::from(text.as_str());
        let client = grant.client().map(|client| Value::from(client.as_str()));
        let texts = [
            ("iss", self.issuer.as_ref().map(text)),
            ("aud", self.audience.as_ref().map(text)),
            ("sub", client),
        ];
        for (name, value) in texts {
            claims.extend(value.map(|value| (name.to_owned(), value)));
        }
        claims.insert("iat".to_owned(), (issued_at.as_millis() / 1_000).into());
        claims.insert("exp".to_owned(), (until.as_millis() / 1_000).into());
        claims.insert("downlink".to_owned(), Value::Object(grant.to_members()));
        self.sign_claims(&Value::Object(claims))
    }

    fn sign_claims(&self, claims: &Value) -> Result<String, MintError> {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message =
            format!("{}.{}", encode(&json!({"alg": "HS256", "typ": "JWT"})), encode(claims));
        let key = EncodingKey::from_secret(self.secret.bytes()).map_err(|_| MintError::Key)?;
        let signer = (DEFAULT_PROVIDER.signer_factory)(&Algorithm::HS256, &key);
        let signature = signer.map_err(|_| MintError::Key)?.try_sign(message.as_bytes());
        let signature = signature.map_err(|_| MintError::Key)?;
        let token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
        match token.len() {
            ..=TOKEN_BYTES_MAX => Ok(token),
            bytes => Err(MintError::TooLong { bytes, bytes_max: TOKEN_BYTES_MAX }),
        }
    }
}
