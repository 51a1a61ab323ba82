//! Tests of key sets. A key set is a document with public keys that the server fetches from an
//! issuer of tokens. The tests check which keys of a document the server uses, and when it fetches
//! the document again.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use downlink_access::{
    AccessError, FETCH_EVERY, FETCH_INTERVAL_MIN, FETCH_TIMEOUT, KEY_SET_BYTES_MAX,
    KEY_SET_KEYS_MAX, KEY_SET_STALE_MAX, KeySet, KeySetCache, KeySetError, PublicKeyError,
    TokenKeys, Tokens,
};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::support::*;

const KEYS: &[u8] = include_bytes!("../fixtures/keys.json");
const REFUSED: &[u8] = include_bytes!("../fixtures/refused.json");

/// A verifier of tokens whose key set has not been fetched yet, and the cache of the key set.
fn tokens() -> (Tokens, Arc<KeySetCache>) {
    let cache = Arc::new(KeySetCache::new());
    let keys = TokenKeys::new().key_set(Arc::clone(&cache));
    (Tokens::new(keys, issuer_rules()).unwrap(), cache)
}

/// A verifier of tokens whose key set has just been fetched, and the cache of the key set.
fn fetched() -> (Tokens, Arc<KeySetCache>) {
    let (tokens, cache) = tokens();
    assert!(cache.poll_fetch(now()));
    cache.fetched(now(), KEYS).unwrap();
    (tokens, cache)
}

fn signed(header: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let claims = claims(r#","iss":"https://issuer.example","aud":"downlink","sub":"ada""#);
    token(header, &claims, key, algorithm)
}

fn es256_token() -> String {
    signed(r#"{"alg":"ES256","kid":"es256"}"#, &es256(), Algorithm::ES256)
}

fn unknown_token() -> String {
    signed(r#"{"alg":"ES256","kid":"new"}"#, &es256(), Algorithm::ES256)
}

fn after(span: Duration) -> downlink_log::Timestamp {
    now().after(span)
}

#[test]
fn keys_of_every_type_in_a_key_set_verify_tokens() {
    let (tokens, _) = fetched();
    let check = |header: &str, key: &EncodingKey, algorithm| {
        let outcome = tokens.verify(&signed(header, key, algorithm), now());
        outcome.err().map(|error| error.code())
    };
    assert_eq!(check(r#"{"alg":"ES256","kid":"es256"}"#, &es256(), Algorithm::ES256), None);
    assert_eq!(check(r#"{"alg":"ES384","kid":"es384"}"#, &es384(), Algorithm::ES384), None);
    assert_eq!(check(r#"{"alg":"EdDSA","kid":"ed25519"}"#, &ed25519(), Algorithm::EdDSA), None);
    assert_eq!(check(r#"{"alg":"RS256","kid":"rs256"}"#, &rsa(), Algorithm::RS256), None);
    // This token does not name a key (`kid`), so every key for the token's algorithm is tried.
    assert_eq!(check(r#"{"alg":"ES384"}"#, &es384(), Algorithm::ES384), None);
    // The key set allows this key only for RS256.
    let bound = check(r#"{"alg":"PS256","kid":"rs256"}"#, &rsa(), Algorithm::PS256);
    assert_eq!(bound, Some("algorithm"));
    // The token names one key, but another key has signed it.
    let other = check(r#"{"alg":"ES256","kid":"es384"}"#, &es256(), Algorithm::ES256);
    assert_eq!(other, Some("algorithm"));
}

#[test]
fn a_shared_secret_in_a_key_set_verifies_no_token() {
    let (tokens, cache) = fetched();
    let shared = EncodingKey::from_secret(&[b'k'; 64]).unwrap();
    let token = signed(r#"{"alg":"HS256","kid":"shared"}"#, &shared, Algorithm::HS256);
    let later = after(FETCH_INTERVAL_MIN);
    assert_eq!(tokens.verify(&token, later), Err(AccessError::Algorithm));
    assert!(!cache.poll_fetch(later), "a shared secret must cause no fetch");
}

#[test]
fn keys_that_cannot_verify_tokens_are_left_out() {
    assert_eq!(KeySet::parse(REFUSED).unwrap_err(), KeySetError::NoUsableKey { refused: 8 });
    let key = |kid: &str| {
        let set: serde_json::Value = serde_json::from_slice(REFUSED).unwrap();
        let refused = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
        let good: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
        let both = serde_json::json!({"keys": [refused, good["keys"][0]]});
        let set = KeySet::parse(both.to_string().as_bytes()).unwrap();
        assert_eq!(set.usable(), 1);
        set.refused()[0].clone()
    };
    assert_eq!(key("shared"), PublicKeyError::NotForVerification);
    assert_eq!(key("private"), PublicKeyError::NotForVerification);
    assert_eq!(key("enc"), PublicKeyError::NotForVerification);
    assert_eq!(key("ops"), PublicKeyError::NotForVerification);
    assert_eq!(key("short"), PublicKeyError::RsaBits { bits: 1_024 });
    assert_eq!(key("curve"), PublicKeyError::Unsupported);
    assert_eq!(key("off-curve"), PublicKeyError::Unsupported);
    assert_eq!(key("mismatch"), PublicKeyError::Unsupported);
}

#[test]
fn documents_that_are_not_key_sets_are_refused() {
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[7]}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), KeySetError::NoKeySet, "{text}");
    }
    let empty = KeySet::parse(br#"{"keys":[]}"#).unwrap_err();
    assert_eq!(empty, KeySetError::NoUsableKey { refused: 0 });
}

#[test]
fn key_sets_above_the_limits_are_refused() {
    let set: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
    let keys = |n: usize| serde_json::json!({"keys": vec![&set["keys"][2]; n]}).to_string();
    assert_eq!(
        KeySet::parse(keys(KEY_SET_KEYS_MAX).as_bytes()).unwrap().usable(),
        KEY_SET_KEYS_MAX
    );
    let keys_max = KEY_SET_KEYS_MAX;
    let error = KeySetError::TooManyKeys { keys: keys_max + 1, keys_max };
    assert_eq!(KeySet::parse(keys(keys_max + 1).as_bytes()).unwrap_err(), error);
    let padded = |bytes: usize| {
        let mut text = keys(1).into_bytes();
        text.resize(bytes, b' ');
        KeySet::parse(&text)
    };
    assert!(padded(KEY_SET_BYTES_MAX).is_ok());
    let (bytes, bytes_max) = (KEY_SET_BYTES_MAX + 1, KEY_SET_BYTES_MAX);
    assert_eq!(padded(bytes).unwrap_err(), KeySetError::TooLong { bytes, bytes_max });
}

#[test]
fn tokens_are_refused_until_the_key_set_is_fetched() {
    let (tokens, cache) = tokens();
    assert_eq!(tokens.verify(&es256_token(), now()), Err(AccessError::KeysUnavailable));
    assert!(cache.poll_fetch(now()));
    assert_eq!(tokens.verify(&es256_token(), now()), Err(AccessError::KeysUnavailable));
    cache.fetched(now(), KEYS).unwrap();
    assert!(tokens.verify(&es256_token(), now()).is_ok());
}

#[test]
fn a_key_set_is_fetched_every_five_minutes() {
    let (_, cache) = fetched();
    assert_eq!(cache.next_fetch_at(now()), after(FETCH_EVERY));
    assert!(!cache.poll_fetch(after(FETCH_EVERY - Duration::from_millis(1))));
    assert!(cache.poll_fetch(after(FETCH_EVERY)));
}

/// After each removal, every open stream checks its rights. If other fetches counted as removals,
/// they would cause needless checks.
#[test]
fn only_fetches_that_remove_a_key_count_as_removals() {
    let cache = KeySetCache::new();
    let all: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
    let [mut reversed, mut shorter] = [all.clone(), all.clone()];
    reversed["keys"].as_array_mut().unwrap().reverse();
    shorter["keys"].as_array_mut().unwrap().remove(0);
    let empty = serde_json::json!({ "keys": [] });
    let no_set = serde_json::json!({});
    for (set, removals) in [
        (&shorter, 0),
        (&all, 0),
        (&reversed, 0),
        (&no_set, 0),
        (&shorter, 1),
        (&no_set, 1),
        (&empty, 2),
        (&empty, 2),
        (&all, 2),
    ] {
        let _ = cache.fetched(now(), set.to_string().as_bytes());
        assert_eq!(cache.removals(), removals, "{set}");
    }
}

#[test]
fn a_removed_key_is_refused_after_the_next_fetch() {
    let (tokens, cache) = fetched();
    let key = tokens.verify(&es256_token(), now()).unwrap().key;
    let later = after(FETCH_EVERY);
    assert_eq!(tokens.contains_key(key, later), Ok(true));
    let mut set: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
    set["keys"].as_array_mut().unwrap().remove(0);
    assert!(cache.poll_fetch(later));
    cache.fetched(later, set.to_string().as_bytes()).unwrap();
    assert_eq!(tokens.contains_key(key, later), Ok(false));
    let removed = tokens.verify(&es256_token(), later);
    assert_eq!(
        removed,
        Err(AccessError::KeyUnknown),
        "the key set has just been fetched, so it is not fetched again for this token"
    );
}

#[test]
fn unknown_key_names_cause_at_most_one_fetch_every_ten_seconds() {
    let (tokens, cache) = fetched();
    let soon = after(FETCH_INTERVAL_MIN - Duration::from_millis(1));
    assert_eq!(tokens.verify(&unknown_token(), soon), Err(AccessError::KeyUnknown));
    assert!(!cache.poll_fetch(soon));
    let later = after(FETCH_INTERVAL_MIN);
    assert_eq!(tokens.verify(&unknown_token(), later), Err(AccessError::KeysUnavailable));
    assert!(tokens.verify(&es256_token(), later).is_ok(), "a known key must not wait for a fetch");
    assert!(cache.poll_fetch(later));
    assert!(!cache.poll_fetch(later), "a second fetch must not begin before the first ends");
    assert_eq!(tokens.verify(&unknown_token(), later), Err(AccessError::KeysUnavailable));
    cache.fetched(later, KEYS).unwrap();
    assert_eq!(tokens.verify(&unknown_token(), later), Err(AccessError::KeyUnknown));
}

#[test]
fn a_wrong_signature_of_a_token_without_a_key_name_causes_a_fetch() {
    let (tokens, cache) = fetched();
    let stranger = signed(r#"{"alg":"ES256"}"#, &es256(), Algorithm::ES256);
    let (message, signature) = stranger.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let wrong = format!("{message}.{first}{}", &signature[1..]);
    let later = after(FETCH_INTERVAL_MIN);
    assert_eq!(tokens.verify(&wrong, now()), Err(AccessError::Signature));
    assert_eq!(tokens.verify(&wrong, later), Err(AccessError::KeysUnavailable));
    assert!(cache.poll_fetch(later));
}

#[test]
fn a_key_set_is_used_for_a_day_if_its_issuer_cannot_be_reached() {
    let (tokens, cache) = fetched();
    let mut time = after(FETCH_EVERY);
    assert!(cache.poll_fetch(time));
    cache.fetch_failed();
    assert!(!cache.poll_fetch(time));
    time = time.after(FETCH_INTERVAL_MIN);
    assert_eq!(cache.next_fetch_at(time), time, "a failed fetch must be due again");
    assert!(cache.poll_fetch(time));
    let refused = cache.fetched(time, b"an error page");
    assert_eq!(refused, Err(KeySetError::NoKeySet));
    assert!(tokens.verify(&es256_token(), time).is_ok());
    assert!(cache.current(after(KEY_SET_STALE_MAX - Duration::from_millis(1))).is_some());
    assert!(cache.current(after(KEY_SET_STALE_MAX)).is_none());
    let stale = tokens.verify(&es256_token(), after(KEY_SET_STALE_MAX));
    assert_eq!(stale, Err(AccessError::KeysUnavailable));
}

#[test]
fn a_failed_fetch_for_an_unknown_key_is_repeated_after_ten_seconds() {
    let (tokens, cache) = fetched();
    let later = after(FETCH_INTERVAL_MIN);
    assert_eq!(tokens.verify(&unknown_token(), later), Err(AccessError::KeysUnavailable));
    assert!(cache.poll_fetch(later));
    cache.fetch_failed();
    assert_eq!(cache.next_fetch_at(later), later.after(FETCH_INTERVAL_MIN));
}

#[test]
fn a_fetch_without_a_result_counts_as_failed_after_a_timeout() {
    let cache = KeySetCache::new();
    assert!(cache.poll_fetch(now()));
    assert_eq!(cache.next_fetch_at(now()), after(FETCH_TIMEOUT));
    assert!(!cache.poll_fetch(after(FETCH_TIMEOUT - Duration::from_millis(1))));
    assert!(cache.poll_fetch(after(FETCH_TIMEOUT)));
}

#[test]
fn a_fetch_is_due_after_the_clock_was_set_back() {
    let (_, cache) = fetched();
    assert!(cache.poll_fetch(at(NOW - 1_000_000)));
}

#[test]
fn a_token_must_name_its_key_if_too_many_keys_could_verify_it() {
    let (tokens, cache) = tokens();
    let set: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
    let document = serde_json::json!({"keys": vec![&set["keys"][2]; 5]}).to_string();
    assert!(cache.poll_fetch(now()));
    cache.fetched(now(), document.as_bytes()).unwrap();
    let wrong = signed(r#"{"alg":"EdDSA"}"#, &ed25519(), Algorithm::EdDSA);
    let (message, _) = wrong.rsplit_once('.').unwrap();
    let error = tokens.verify(&format!("{message}.AAAA"), now()).unwrap_err();
    assert_eq!(error.code(), "token_malformed");
}

/// If an issuer removes its last key, its tokens must no longer be accepted.
#[test]
fn a_key_set_without_usable_keys_replaces_the_older_keys() {
    for document in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        let (tokens, cache) = fetched();
        let later = after(FETCH_EVERY);
        assert!(cache.poll_fetch(later));
        let outcome = cache.fetched(later, document.as_bytes());
        assert!(matches!(outcome, Err(KeySetError::NoUsableKey { .. })), "{outcome:?}");
        assert_eq!(tokens.verify(&es256_token(), later), Err(AccessError::KeyUnknown));
    }
}

/// A request uses the time at which it began. So if requests overlap, the cache may get an older
/// time after a newer time.
#[test]
fn a_request_with_an_older_time_begins_no_second_fetch() {
    let earlier = |millis| downlink_log::Timestamp::from_millis(NOW * 1_000 - millis);
    let (tokens, cache) = tokens();
    assert!(cache.poll_fetch(now()));
    assert!(!cache.poll_fetch(earlier(1)), "a second fetch began before the first ended");
    assert!(!cache.poll_fetch(earlier(500)));
    cache.fetched(now(), KEYS).unwrap();
    assert_eq!(tokens.verify(&unknown_token(), earlier(1)), Err(AccessError::KeyUnknown));
    assert!(!cache.poll_fetch(earlier(1)), "a second fetch began too soon after the first");
}

#[test]
fn a_key_set_is_used_for_at_most_a_day_after_the_clock_was_set_back() {
    let (_, cache) = fetched();
    let back = at(NOW - 1_000_000);
    assert!(cache.poll_fetch(back));
    cache.fetch_failed();
    assert!(cache.current(back).is_some());
    assert!(cache.current(back.after(KEY_SET_STALE_MAX)).is_none());
}

/// With the exponent 1, every number is its own signature, so everyone could sign tokens.
#[test]
fn rsa_keys_with_an_unsafe_exponent_or_modulus_are_refused() {
    let refused = |n: &str, e: &str| {
        let document = serde_json::json!({"keys": [{"kty": "RSA", "n": n, "e": e}]});
        KeySet::parse(document.to_string().as_bytes()).is_err()
    };
    let set: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
    let n = set["keys"][3]["n"].as_str().unwrap();
    assert!(!refused(n, "AQAB"));
    for e in ["", "AA", "AQ", "Ag", "AQAC", "AQAAAAAAAAAB"] {
        assert!(refused(n, e), "the exponent {e} was accepted");
    }
    let mut even = BASE64_URL_SAFE_NO_PAD.decode(n).unwrap();
    *even.last_mut().unwrap() &= 0xfe;
    assert!(refused(&BASE64_URL_SAFE_NO_PAD.encode(even), "AQAB"), "an even modulus was accepted");
    assert!(refused(&format!("{n}="), "AQAB"), "padding was accepted");
}

#[test]
fn keys_whose_json_members_do_not_allow_verification_are_refused() {
    let usable = |member: &str| {
        let mut set: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
        let key = set["keys"][1].as_object_mut().unwrap();
        let (name, value) = member.split_once(':').unwrap();
        key.insert(name.to_owned(), serde_json::from_str(value).unwrap());
        let document = serde_json::json!({"keys": [key]}).to_string();
        KeySet::parse(document.as_bytes()).is_ok()
    };
    assert!(usable(r#"use:"sig""#));
    assert!(usable(r#"key_ops:["sign","verify"]"#));
    for member in [
        r#"use:"SIG""#,
        "use:null",
        r#"use:["sig"]"#,
        r#"key_ops:"verify""#,
        "key_ops:[]",
        "key_ops:null",
        r#"kty:"oct""#,
        r#"kty:"RSA""#,
        r#"crv:"P-256""#,
        r#"alg:"none""#,
        r#"alg:"HS256""#,
        "alg:null",
        r#"d:"AA""#,
        r#"x:"AA""#,
    ] {
        assert!(!usable(member), "{member}");
    }
}

#[test]
fn all_keys_with_the_same_name_are_tried() {
    let (tokens, cache) = tokens();
    let mut set: serde_json::Value = serde_json::from_slice(KEYS).unwrap();
    for key in set["keys"].as_array_mut().unwrap() {
        key["kid"] = "one".into();
    }
    assert!(cache.poll_fetch(now()));
    cache.fetched(now(), set.to_string().as_bytes()).unwrap();
    let es384 = signed(r#"{"alg":"ES384","kid":"one"}"#, &es384(), Algorithm::ES384);
    assert!(tokens.verify(&es384, now()).is_ok());
    let rs256 = signed(r#"{"alg":"RS256","kid":"one"}"#, &rsa(), Algorithm::RS256);
    assert!(tokens.verify(&rs256, now()).is_ok());
}

/// Like a server, this test asks each second whether a fetch is due, and fetches if so.
#[test]
fn a_server_that_asks_each_second_fetches_at_the_expected_times() {
    let (tokens, cache) = tokens();
    let mut began = Vec::new();
    let mut accepted_at = None;
    for second in 0..700 {
        let time = at(NOW + second);
        // The server cannot reach the issuer for the first 25 seconds.
        if cache.poll_fetch(time) {
            began.push(second);
            match second {
                0..25 => cache.fetch_failed(),
                _ => cache.fetched(time, KEYS).unwrap(),
            }
        }
        if tokens.verify(&es256_token(), time).is_ok() {
            accepted_at = accepted_at.or(Some(second));
        }
        if second == 500 {
            assert_eq!(tokens.verify(&unknown_token(), time), Err(AccessError::KeysUnavailable));
        }
    }
    assert_eq!(began, [0, 10, 20, 30, 330, 501]);
    assert_eq!(accepted_at, Some(30));
}
