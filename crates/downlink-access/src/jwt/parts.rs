//! The parts of a token (RFC 7515): header, claims, signature, and the message that is signed.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::error::AccessError;
use crate::json;
use crate::jwt::key::algorithm;

/// The maximum length of a token in bytes. Many servers accept headers of at most 8 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The refused members of a header. With one of the first three, a token could choose its own key.
/// With `crit`, it could demand an extension of the token format.
const REFUSED_MEMBERS: [&str; 4] = ["jku", "jwk", "x5u", "crit"];

/// The accepted values of `typ` in the header (RFC 8725, section 3.11). Without this rule, a logout
/// token of the same issuer would be accepted as a credential.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// A token whose header was read. Its signature is not verified, and its claims are not read.
pub(crate) struct Parts<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    /// The signed bytes.
    pub(crate) message: &'a [u8],
    pub(crate) signature: Vec<u8>,
    claims: &'a str,
}

impl<'a> Parts<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, AccessError> {
        let [header, claims, signature] = split(token)?;
        let header = object(header).ok_or(AccessError::malformed("the header is not valid"))?;
        if REFUSED_MEMBERS.iter().any(|member| header.contains_key(*member)) {
            return Err(AccessError::malformed("the header has `jku`, `jwk`, `x5u` or `crit`"));
        }
        check_type(header.get("typ"))?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(AccessError::malformed("`kid` is not a string")),
        };
        let name = header.get("alg").and_then(Value::as_str);
        let name = name.ok_or(AccessError::malformed("the header names no algorithm (`alg`)"))?;
        let algorithm = algorithm(name).ok_or(AccessError::Algorithm)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
        let signature =
            signature.map_err(|_| AccessError::malformed("the signature is no base64url"))?;
        let message = &token.as_bytes()[..header_and_claims_len(token)];
        Ok(Self { algorithm, kid, message, signature, claims })
    }

    /// Reads the claims. The verifier calls this after it has verified the signature.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, AccessError> {
        object(self.claims).ok_or(AccessError::malformed("the claims are not valid"))
    }
}

/// The header and the claims of a token, as JSON. Nothing is verified.
///
/// ```
/// use downlink_access::inspect;
/// let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.AAAA";
/// let (header, claims) = inspect(token)?;
/// assert_eq!((&*header, &*claims), (r#"{"alg":"HS256"}"#, r#"{"sub":"ada"}"#));
/// # Ok::<(), downlink_access::AccessError>(())
/// ```
///
/// # Errors
///
/// [`AccessError::TokenMalformed`] if the text is no token.
pub fn inspect(token: &str) -> Result<(String, String), AccessError> {
    let [header, claims, _] = split(token)?;
    let text = |part, reason| {
        let object = object(part).ok_or(AccessError::malformed(reason))?;
        Ok(Value::Object(object).to_string())
    };
    Ok((text(header, "the header is not valid")?, text(claims, "the claims are not valid")?))
}

fn split(token: &str) -> Result<[&str; 3], AccessError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AccessError::malformed("the token is longer than 8 KiB"));
    }
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(claims), Some(signature), None) => Ok([header, claims, signature]),
        _ => Err(AccessError::malformed("a token has three parts")),
    }
}

fn header_and_claims_len(token: &str) -> usize {
    token.rfind('.').unwrap_or(0)
}

fn object(part: &str) -> Option<Map<String, Value>> {
    json::object(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?)
}

fn check_type(typ: Option<&Value>) -> Result<(), AccessError> {
    let Some(typ) = typ else { return Ok(()) };
    let name = typ.as_str().unwrap_or_default();
    let prefix = "application/";
    let name = match name.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => &name[prefix.len()..],
        _ => name,
    };
    let is_known = TYPES.iter().any(|known| known.eq_ignore_ascii_case(name));
    is_known.then_some(()).ok_or(AccessError::malformed("`typ` is neither `JWT` nor `at+jwt`"))
}
