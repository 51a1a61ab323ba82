//! Keys that verify tokens, each bound to the algorithms of its type.
//!
//! A shared secret verifies only HMAC signatures, and a public key verifies none of them. So an
//! attacker cannot sign a token with a public key as the shared secret. Every key is parsed when it
//! is added. So a short RSA key, or a point that is not on its curve, is refused before the first
//! request.

use std::fmt;

use aws_lc_rs::rsa::{self, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::secret::{KeyId, Secret};

/// The shortest accepted RSA key, as RFC 7518 demands.
pub const RSA_BITS_MIN: usize = 2_048;

/// The longest accepted RSA key. The time of a verification grows with the square of the length.
pub const RSA_BITS_MAX: usize = 8_192;

/// The maximum length of a PEM file in bytes. It has room for 16 keys and their comments.
pub const PEM_BYTES_MAX: usize = 64 * 1024;

/// The maximum number of public keys in one PEM file. A rotation needs two keys.
pub const PEM_KEYS_MAX: usize = 16;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED: &[Algorithm] = &[Algorithm::EdDSA];

/// A public key is refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// The file is longer than the limit.
    #[error("the PEM file has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Bytes of the file.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The file has no section `PUBLIC KEY`, or a broken section.
    #[error("the file is no PEM file with a section `PUBLIC KEY`")]
    NoPublicKey,
    /// The file has a private key. A verifier needs only the public key.
    #[error("the file has a private key: give the server the public key only")]
    PrivateKey,
    /// The file has more keys than the limit.
    #[error("the PEM file has too many keys: the limit is {keys_max}")]
    TooMany {
        /// The limit.
        keys_max: usize,
    },
    /// The key has an unknown type, or is not valid.
    #[error("the key is no valid RSA, P-256, P-384 or Ed25519 key")]
    Unsupported,
    /// The RSA key is too short or too long.
    #[error("the RSA key has {bits} bits, {RSA_BITS_MIN} to {RSA_BITS_MAX} are allowed")]
    RsaBits {
        /// Bits of the modulus.
        bits: usize,
    },
    /// A key of a set is a shared secret, a private key, or a key for encryption.
    #[error("the key is not a public key for signatures")]
    NotForVerification,
}

/// A key that verifies tokens.
pub(crate) struct VerifyingKey {
    pub(crate) id: KeyId,
    /// The name of the key in its key set.
    pub(crate) kid: Option<String>,
    algorithms: &'static [Algorithm],
    /// The only allowed algorithm, if the key set names one for this key.
    only: Option<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// A shared secret for HS256, HS384 and HS512. A secret has at least 32 bytes.
    pub(crate) fn hmac(secret: &Secret) -> Option<Self> {
        let key = DecodingKey::from_secret(secret.bytes()).ok()?;
        let id = KeyId::of("hmac", secret.bytes());
        Some(Self { id, kid: None, algorithms: HMAC, only: None, key })
    }

    /// The public keys of a PEM file.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Vec<Self>, PublicKeyError> {
        if pem.len() > PEM_BYTES_MAX {
            let bytes_max = PEM_BYTES_MAX;
            return Err(PublicKeyError::TooLong { bytes: pem.len(), bytes_max });
        }
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            match section.map_err(|_| PublicKeyError::NoPublicKey)? {
                (SectionKind::PublicKey, der) => keys.push(Self::from_spki(der)?),
                (
                    SectionKind::PrivateKey
                    | SectionKind::RsaPrivateKey
                    | SectionKind::EcPrivateKey,
                    _,
                ) => return Err(PublicKeyError::PrivateKey),
                _ => {}
            }
        }
        match keys.len() {
            0 => Err(PublicKeyError::NoPublicKey),
            1..=PEM_KEYS_MAX => Ok(keys),
            _ => Err(PublicKeyError::TooMany { keys_max: PEM_KEYS_MAX }),
        }
    }

    fn from_spki(der: Vec<u8>) -> Result<Self, PublicKeyError> {
        let id = KeyId::of("public", &der);
        let parses = |algorithm| ParsedPublicKey::new(algorithm, &der).is_ok();
        let (algorithms, key) =
            if parses(&ECDSA_P256_SHA256_FIXED as &'static dyn VerificationAlgorithm) {
                (P256, DecodingKey::from_ec_der(&der))
            } else if parses(&ECDSA_P384_SHA384_FIXED) {
                (P384, DecodingKey::from_ec_der(&der))
            } else if parses(&ED25519) {
                (ED, DecodingKey::from_ed_der(&der))
            } else {
                let rsa =
                    rsa::PublicKey::from_der(&der).map_err(|_| PublicKeyError::Unsupported)?;
                check_rsa_bits(rsa.modulus().big_endian_without_leading_zero())?;
                (RSA, DecodingKey::from_rsa_der(&der))
            };
        Ok(Self { id, kid: None, algorithms, only: None, key })
    }

    /// A key of a key set (RFC 7517).
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, PublicKeyError> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let verifies = |operations: &Value| {
            operations.as_array().is_some_and(|list| list.iter().any(|value| value == "verify"))
        };
        if jwk.contains_key("d")
            || text("kty") == Some("oct")
            || jwk.get("use").is_some_and(|value| value != "sig")
            || jwk.get("key_ops").is_some_and(|operations| !verifies(operations))
        {
            return Err(PublicKeyError::NotForVerification);
        }
        let (algorithms, key, material) = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => ec(jwk, &ECDSA_P256_SHA256_FIXED, P256, 32)?,
            (Some("EC"), Some("P-384")) => ec(jwk, &ECDSA_P384_SHA384_FIXED, P384, 48)?,
            (Some("OKP"), Some("Ed25519")) => ed(jwk)?,
            (Some("RSA"), _) => rsa(jwk)?,
            _ => return Err(PublicKeyError::Unsupported),
        };
        let only = match jwk.get("alg") {
            Some(value) => Some(
                { value.as_str().and_then(algorithm) }
                    .filter(|algorithm| algorithms.contains(algorithm))
                    .ok_or(PublicKeyError::Unsupported)?,
            ),
            None => None,
        };
        let id = KeyId::of("public", &material);
        Ok(Self { id, kid: text("kid").map(str::to_owned), algorithms, only, key })
    }

    /// Whether the key may verify tokens with this algorithm.
    pub(crate) fn accepts(&self, algorithm: Algorithm) -> bool {
        self.only.map_or(self.algorithms.contains(&algorithm), |only| only == algorithm)
    }

    /// Whether the key is a shared secret.
    pub(crate) fn is_secret(&self) -> bool {
        self.algorithms == HMAC
    }

    /// Whether the other key is for the same algorithms.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.algorithms == other.algorithms
    }

    /// Verifies a signature. The call names the provider of the cryptography, because the process
    /// may have another default provider.
    pub(crate) fn verifies(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> bool {
        let is_bound = self.accepts(algorithm);
        let verifier = is_bound.then(|| (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &self.key));
        verifier.is_some_and(|verifier| {
            verifier.is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
        })
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kid, .. } = self;
        f.debug_struct("VerifyingKey").field("id", id).field("kid", kid).finish_non_exhaustive()
    }
}

/// The algorithm with this name. `None` if the name is unknown. The name `none`, which marks a
/// token without a signature, is unknown too.
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        // RFC 9864 gave this name to EdDSA with the curve Ed25519.
        "Ed25519" => Some(Algorithm::EdDSA),
        name => name.parse().ok(),
    }
}

/// Whether the algorithm needs a shared secret.
pub(crate) fn is_hmac(algorithm: Algorithm) -> bool {
    HMAC.contains(&algorithm)
}

type Parsed = (&'static [Algorithm], DecodingKey, Vec<u8>);

fn ec(
    jwk: &Map<String, Value>,
    curve: &'static dyn VerificationAlgorithm,
    algorithms: &'static [Algorithm],
    bytes: usize,
) -> Result<Parsed, PublicKeyError> {
    let (x, y) = (field(jwk, "x")?, field(jwk, "y")?);
    if x.len() != bytes || y.len() != bytes {
        return Err(PublicKeyError::Unsupported);
    }
    let point = [&[4], x.as_slice(), &y].concat();
    ParsedPublicKey::new(curve, &point).map_err(|_| PublicKeyError::Unsupported)?;
    Ok((algorithms, DecodingKey::from_ec_der(&point), point))
}

fn ed(jwk: &Map<String, Value>) -> Result<Parsed, PublicKeyError> {
    let x = field(jwk, "x")?;
    let is_valid = x.len() == 32 && ParsedPublicKey::new(&ED25519, &x).is_ok();
    is_valid.then_some(()).ok_or(PublicKeyError::Unsupported)?;
    Ok((ED, DecodingKey::from_ed_der(&x), x))
}

fn rsa(jwk: &Map<String, Value>) -> Result<Parsed, PublicKeyError> {
    let (n, e) = (field(jwk, "n")?, field(jwk, "e")?);
    let significant =
        |bytes: Vec<u8>| -> Vec<u8> { bytes.into_iter().skip_while(|byte| *byte == 0).collect() };
    let components = PublicKeyComponents { n: significant(n), e: significant(e) };
    check_rsa_bits(&components.n)?;
    let parsed = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
    let der = parsed.map_err(|_| PublicKeyError::Unsupported)?.as_ref().to_vec();
    // This call also checks the exponent.
    rsa::PublicKey::from_der(&der).map_err(|_| PublicKeyError::Unsupported)?;
    Ok((RSA, DecodingKey::from_rsa_der(&der), der))
}

fn field(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, PublicKeyError> {
    let text = jwk.get(name).and_then(Value::as_str);
    let bytes = text.and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    bytes.ok_or(PublicKeyError::Unsupported)
}

/// Checks the length of a modulus without leading zeros.
fn check_rsa_bits(modulus: &[u8]) -> Result<(), PublicKeyError> {
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - unused;
    let is_allowed = (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits);
    is_allowed.then_some(()).ok_or(PublicKeyError::RsaBits { bits })
}
