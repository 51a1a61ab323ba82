//! Verifies tokens. A token is accepted only if the known key has signed it, and only with times
//! that are valid now.
//!
//! The first byte of the input chooses what the rest is: a whole token, or a header and claims with
//! a line break between them. The target signs the header and the claims with the known key, and
//! with another key.

#![no_main]

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use downlink_access::{
    LEEWAY, Secret, TOKEN_LIFETIME_MAX_DEFAULT, TokenKeys, TokenRules, Tokens, VerifiedToken,
    inspect,
};
use downlink_log::Timestamp;
use libfuzzer_sys::fuzz_target;

const KEY: &[u8; 32] = b"the key that signs valid tokens.";
const OTHER_KEY: &[u8; 32] = b"a key that the verifier has not.";
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(rest) else { return };
    if kind & 1 == 0 {
        check_any(text);
    } else if let Some((header, claims)) = text.split_once('\n') {
        check_signed(header, claims);
    }
});

/// Checks any text as a token.
fn check_any(token: &str) {
    let _ = inspect(token);
    if verify(token).is_err() {
        return;
    }
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64.decode(signature).unwrap();
    let algorithms = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
    let is_signed = |algorithm| {
        hmac::verify(&hmac::Key::new(algorithm, KEY), message.as_bytes(), &signature).is_ok()
    };
    assert!(algorithms.into_iter().any(is_signed), "the token was accepted without a signature");
}

/// Checks a token with this header and these claims.
fn check_signed(header: &str, claims: &str) {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let token = |key: &[u8]| {
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    };
    assert!(verify(&token(OTHER_KEY)).is_err(), "another key has signed this token");
    let Ok(VerifiedToken { grant, issued_at, .. }) = verify(&token(KEY)) else { return };
    let header: serde_json::Value = serde_json::from_str(header).unwrap();
    let claims: serde_json::Value = serde_json::from_str(claims).unwrap();
    assert_eq!(header["alg"], "HS256");
    assert!(claims["exp"].is_number() && claims["iat"].is_number());
    let until = grant.until().unwrap();
    assert!(until > NOW && issued_at <= NOW.after(LEEWAY));
    assert!(until <= issued_at.after(TOKEN_LIFETIME_MAX_DEFAULT).after(LEEWAY));
    let expires_at = claims["exp"].as_f64().unwrap().max(0.0);
    let until_max = expires_at + LEEWAY.as_secs_f64() + Duration::from_secs(1).as_secs_f64();
    assert!(until.as_millis() as f64 / 1_000.0 <= until_max);
}

fn verify(token: &str) -> Result<VerifiedToken, downlink_access::AccessError> {
    let secret = Secret::from_file_bytes(KEY).unwrap();
    let keys = TokenKeys::new().hmac(&secret);
    Tokens::new(keys, TokenRules::default()).unwrap().verify(token, NOW)
}
