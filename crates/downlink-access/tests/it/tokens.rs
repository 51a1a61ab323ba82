//! Tests of tokens: signatures, algorithms, times, issuers and audiences, claims, templates for
//! grants, and making tokens.

use std::time::Duration;

use downlink_access::{
    AccessError, GRANT_SELECTORS_MAX, Grant, KEYS_TRIED_MAX, Mint, MintError, PublicKeyError,
    TOKEN_BYTES_MAX, TokenGrant, TokenKeys, TokenRules, Tokens, TokensError, VerifiedToken,
    inspect,
};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::support::*;

const HS256: &str = r#"{"alg":"HS256"}"#;

fn verify(token: &str) -> Result<VerifiedToken, AccessError> {
    hmac_tokens().verify(token, now())
}

fn code(token: &str) -> &'static str {
    verify(token).unwrap_err().code()
}

/// Verifies a token with this header. Apart from the header, the token is valid. Returns the code
/// of the error.
fn header_code(header: &str) -> &'static str {
    code(&token(header, &claims(""), &hmac(), Algorithm::HS256))
}

fn public(pem: &[u8]) -> Tokens {
    Tokens::new(TokenKeys::new().public(pem).unwrap(), issuer_rules()).unwrap()
}

fn issued() -> String {
    claims(r#","iss":"https://issuer.example","aud":"downlink","sub":"ada""#)
}

#[test]
fn a_valid_token_gives_its_grant() {
    let token = hs256(&claims(r#","sub":"ada","downlink":{"subscribe":["orders/*"]}"#));
    let VerifiedToken { grant, issued_at, .. } = verify(&token).unwrap();
    let expected = Grant::none()
        .with_subscribe(selector("orders/*"))
        .with_client(client("ada"))
        .with_until(at(NOW + 3_600));
    assert_eq!((grant, issued_at), (expected, now()));
}

#[test]
fn a_shared_secret_verifies_its_three_algorithms() {
    for (name, algorithm) in
        [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
    {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        assert!(verify(&token(&header, &claims(""), &hmac(), algorithm)).is_ok(), "{name}");
    }
}

#[test]
fn each_public_key_verifies_its_algorithms() {
    let check = |pem: &[u8], key: &EncodingKey, algorithms: &[(&str, Algorithm)]| {
        for (name, algorithm) in algorithms {
            let token = token(&format!(r#"{{"alg":"{name}"}}"#), &issued(), key, *algorithm);
            let verified = public(pem).verify(&token, now());
            assert_eq!(
                verified.map(|token| token.grant.client().cloned()),
                Ok(Some(client("ada")))
            );
        }
    };
    check(include_bytes!("../fixtures/es256.public.pem"), &es256(), &[("ES256", Algorithm::ES256)]);
    check(include_bytes!("../fixtures/es384.public.pem"), &es384(), &[("ES384", Algorithm::ES384)]);
    let ed = [("EdDSA", Algorithm::EdDSA), ("Ed25519", Algorithm::EdDSA)];
    check(include_bytes!("../fixtures/ed25519.public.pem"), &ed25519(), &ed);
    let rs =
        [("RS256", Algorithm::RS256), ("RS384", Algorithm::RS384), ("RS512", Algorithm::RS512)];
    check(include_bytes!("../fixtures/rs256.public.pem"), &rsa(), &rs);
    let ps =
        [("PS256", Algorithm::PS256), ("PS384", Algorithm::PS384), ("PS512", Algorithm::PS512)];
    check(include_bytes!("../fixtures/rs256.public.pem"), &rsa(), &ps);
}

#[test]
fn tokens_without_a_signature_are_refused() {
    assert_eq!(
        code(&format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&claims("")))),
        "algorithm"
    );
    assert_eq!(header_code(r#"{"alg":"none"}"#), "algorithm");
    assert_eq!(header_code(r#"{"alg":"None"}"#), "algorithm");
    assert_eq!(header_code(r#"{"alg":"hs256"}"#), "algorithm");
    assert_eq!(header_code(r#"{"alg":"HS256 "}"#), "algorithm");
}

#[test]
fn a_key_verifies_no_algorithm_of_another_key_type() {
    let pem: &[u8] = include_bytes!("../fixtures/rs256.public.pem");
    // A well-known attack: the attacker signs the token with the public key as a shared secret. The
    // attack works if the server uses its public key as a shared secret too.
    let confused =
        token(HS256, &issued(), &EncodingKey::from_secret(pem).unwrap(), Algorithm::HS256);
    assert_eq!(public(pem).verify(&confused, now()).unwrap_err(), AccessError::Algorithm);
    let es = token(r#"{"alg":"ES256"}"#, &issued(), &es256(), Algorithm::ES256);
    assert_eq!(public(pem).verify(&es, now()).unwrap_err(), AccessError::Algorithm);
    let rs = token(r#"{"alg":"RS256"}"#, &issued(), &rsa(), Algorithm::RS256);
    assert_eq!(code(&rs), "algorithm");
}

#[test]
fn a_token_whose_header_names_another_algorithm_has_a_wrong_signature() {
    assert_eq!(header_code(r#"{"alg":"HS512"}"#), "signature");
}

#[test]
fn a_changed_token_has_a_wrong_signature() {
    let right = hs256(&claims(""));
    let (message, signature) = right.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let stranger = format!("{header}.{}.{signature}", encode(&claims(r#","sub":"eve""#)));
    assert_eq!(code(&stranger), "signature");
    assert_eq!(code(&format!("{message}.")), "signature");
    assert_eq!(code(&format!("{message}.AAAA")), "signature");
    let key = EncodingKey::from_secret(&[b'x'; 32]).unwrap();
    assert_eq!(code(&token(HS256, &claims(""), &key, Algorithm::HS256)), "signature");
}

/// The verifier keeps each signature that a public key has verified. A token with such a signature
/// still gets all other checks, and the kept signature makes no other token valid.
#[test]
fn a_token_that_was_verified_before_is_checked_again() {
    let tokens = public(include_bytes!("../fixtures/es256.public.pem"));
    let es256 = |claims: &str| token(r#"{"alg":"ES256"}"#, claims, &es256(), Algorithm::ES256);
    let known = es256(&issued());
    let first = tokens.verify(&known, now()).unwrap();
    assert_eq!(tokens.verify(&known, now()), Ok(first));
    assert_eq!(tokens.verify(&known, at(NOW + 7_200)), Err(AccessError::TokenExpired));

    let (message, signature) = known.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = es256(&issued().replace("ada", "bob"));
    let (_, other_signature) = other.rsplit_once('.').unwrap();
    let changed = encode(&issued().replace("ada", "eve"));
    for forged in [
        format!("{header}.{changed}.{signature}"),
        format!("{message}.{other_signature}"),
        format!("{message}."),
    ] {
        assert_eq!(tokens.verify(&forged, now()), Err(AccessError::Signature), "{forged}");
    }

    let without_its_key = public(include_bytes!("../fixtures/es384.public.pem"));
    assert_eq!(without_its_key.verify(&known, now()), Err(AccessError::Algorithm));
}

#[test]
fn texts_that_are_not_tokens_are_malformed() {
    for text in ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", "e30.e30.!", "bnVsbA.e30.AAAA"] {
        assert_eq!(code(text), "token_malformed", "{text}");
    }
    let padded = hs256(&claims("")).replacen('.', "=.", 1);
    assert_eq!(code(&padded), "token_malformed");
}

#[test]
fn headers_with_a_key_or_an_extension_are_malformed() {
    for member in ["jku", "jwk", "x5u", "crit"] {
        assert_eq!(
            header_code(&format!(r#"{{"alg":"HS256","{member}":null}}"#)),
            "token_malformed"
        );
    }
    assert_eq!(header_code(r#"{"alg":"HS256","alg":"HS256"}"#), "token_malformed");
    assert_eq!(header_code(r#"{"alg":"HS256","kid":7}"#), "token_malformed");
    assert_eq!(header_code(r#"{"typ":"JWT"}"#), "token_malformed");
    assert_eq!(header_code(r#"{"alg":7}"#), "token_malformed");
}

#[test]
fn tokens_that_were_made_for_other_purposes_are_refused() {
    let check = |typ: &str| {
        let header = format!(r#"{{"alg":"HS256","typ":{typ}}}"#);
        verify(&token(&header, &claims(""), &hmac(), Algorithm::HS256)).is_ok()
    };
    for typ in [r#""JWT""#, r#""jwt""#, r#""at+jwt""#, r#""application/at+jwt""#] {
        assert!(check(typ), "{typ}");
    }
    for typ in [r#""logout+jwt""#, r#""dpop+jwt""#, r#""""#, "7", r#""applicationé""#] {
        assert!(!check(typ), "{typ}");
    }
}

#[test]
fn a_token_longer_than_the_limit_is_malformed() {
    // The length of one part in base64 cannot have every value. So `padded` varies the lengths of
    // both the header and the claims until the token has exactly this many bytes.
    let padded = |bytes: usize| {
        let pads = (0..4).flat_map(|header| (5_900..6_100).map(move |claims| (header, claims)));
        let token = |(header, body): (usize, usize)| {
            let header = format!(r#"{{"alg":"HS256","x":"{}"}}"#, "a".repeat(header));
            let claims = claims(&format!(r#","x":"{}""#, "a".repeat(body)));
            token(&header, &claims, &hmac(), Algorithm::HS256)
        };
        pads.map(token).find(|token| token.len() == bytes).unwrap()
    };
    assert!(verify(&padded(TOKEN_BYTES_MAX)).is_ok());
    assert_eq!(code(&padded(TOKEN_BYTES_MAX + 1)), "token_malformed");
}

#[test]
fn the_signature_is_checked_before_the_claims_are_read() {
    let key = EncodingKey::from_secret(&[b'x'; 32]).unwrap();
    for claims in ["no json".to_owned(), r#"{"exp":1}"#.to_owned(), claims(r#","aud":"x""#)] {
        assert_eq!(code(&token(HS256, &claims, &key, Algorithm::HS256)), "signature");
    }
    assert_eq!(code(&hs256("no json")), "token_malformed");
}

#[test]
fn repeated_claims_are_malformed() {
    assert_eq!(code(&hs256(&claims(r#","sub":"ada","sub":"eve""#))), "token_malformed");
    let nested = claims(r#","downlink":{"subscribe":[],"subscribe":["*"]}"#);
    assert_eq!(code(&hs256(&nested)), "token_malformed");
}

#[test]
fn a_token_needs_an_end_and_is_accepted_for_a_short_time_after_its_end() {
    let ends = |exp: u64| hs256(&format!(r#"{{"iat":{},"exp":{exp}}}"#, NOW - 100));
    assert_eq!(code(&hs256(&format!(r#"{{"iat":{NOW}}}"#))), "token_malformed");
    assert_eq!(code(&hs256(&format!(r#"{{"iat":{NOW},"exp":"{}"}}"#, NOW + 9))), "token_malformed");
    assert_eq!(verify(&ends(NOW + 1)).unwrap().grant.until(), Some(at(NOW + 1)));
    assert_eq!(verify(&ends(NOW - 29)).unwrap().grant.until(), Some(at(NOW + 1)));
    assert_eq!(code(&ends(NOW - 30)), "token_expired");
    assert_eq!(code(&hs256(r#"{"iat":1,"exp":-1e300}"#)), "token_expired");
    assert_eq!(code(&hs256(r#"{"iat":1,"exp":1e300}"#)), "token_expired");
}

#[test]
fn a_token_is_accepted_for_a_short_time_before_it_begins() {
    let begins = |iat: u64, nbf: u64| {
        verify(&hs256(&format!(r#"{{"iat":{iat},"nbf":{nbf},"exp":{}}}"#, NOW + 3_600)))
    };
    assert!(begins(NOW + 30, NOW).is_ok());
    assert!(begins(NOW, NOW + 30).is_ok());
    assert_eq!(begins(NOW + 31, NOW).unwrap_err().code(), "token_early");
    assert_eq!(begins(NOW, NOW + 31).unwrap_err().code(), "token_early");
}

#[test]
fn a_token_ends_when_it_reaches_the_maximum_lifetime() {
    let day = 24 * 60 * 60;
    let issued = |iat: u64| verify(&hs256(&format!(r#"{{"iat":{iat},"exp":{}}}"#, NOW + 30 * day)));
    assert_eq!(issued(NOW).unwrap().grant.until(), Some(at(NOW + day)));
    assert_eq!(issued(NOW - day - 29).unwrap().grant.until(), Some(at(NOW + 1)));
    assert_eq!(issued(NOW - day - 30).unwrap_err().code(), "token_expired");
    let rules = TokenRules { lifetime_max: Duration::from_secs(60), ..TokenRules::default() };
    let short = Tokens::new(TokenKeys::new().hmac(&secret()), rules).unwrap();
    assert_eq!(short.verify(&hs256(&claims("")), now()).unwrap().grant.until(), Some(at(NOW + 60)));
}

#[test]
fn a_token_must_have_the_configured_audience_and_issuer() {
    let tokens = Tokens::new(TokenKeys::new().hmac(&secret()), issuer_rules()).unwrap();
    let code = |more: &str| tokens.verify(&hs256(&claims(more)), now()).err().map(|e| e.code());
    let issuer = r#","iss":"https://issuer.example""#;
    assert_eq!(code(&format!(r#"{issuer},"aud":"downlink""#)), None);
    assert_eq!(code(&format!(r#"{issuer},"aud":["other","downlink"]"#)), None);
    assert_eq!(code(issuer), Some("audience"));
    assert_eq!(code(&format!(r#"{issuer},"aud":"Downlink""#)), Some("audience"));
    assert_eq!(code(&format!(r#"{issuer},"aud":[["downlink"]]"#)), Some("audience"));
    assert_eq!(code(r#","aud":"downlink""#), Some("issuer"));
    assert_eq!(code(r#","aud":"downlink","iss":"https://issuer.example/""#), Some("issuer"));
    assert_eq!(code(r#","aud":"downlink","iss":["https://issuer.example"]"#), Some("issuer"));
}

#[test]
fn a_token_for_another_audience_is_refused() {
    assert_eq!(code(&hs256(&claims(r#","aud":"another service""#))), "audience");
}

#[test]
fn the_first_check_that_fails_determines_the_error() {
    let tokens = Tokens::new(TokenKeys::new().hmac(&secret()), issuer_rules()).unwrap();
    let code = |claims: &str| tokens.verify(&hs256(claims), now()).unwrap_err().code();
    assert_eq!(code(r#"{"iat":1,"exp":1,"nbf":9e9,"aud":"x","iss":"x"}"#), "token_expired");
    assert_eq!(code(&claims(r#","nbf":9e9,"aud":"x","iss":"x""#)), "token_early");
    assert_eq!(code(&claims(r#","aud":"x","iss":"x","downlink":7"#)), "audience");
    assert_eq!(code(&claims(r#","aud":"downlink","iss":"x","downlink":7"#)), "issuer");
}

#[test]
fn the_downlink_claim_may_name_a_client_other_than_the_subject() {
    let client_of = |more: &str| verify(&hs256(&claims(more))).unwrap().grant.client().cloned();
    assert_eq!(client_of(r#","sub":"ada""#), Some(client("ada")));
    assert_eq!(client_of(r#","sub":"ada","downlink":{}"#), Some(client("ada")));
    assert_eq!(client_of(r#","sub":"ada","downlink":{"client":"bob"}"#), Some(client("bob")));
    assert_eq!(client_of(""), None);
}

#[test]
fn tokens_with_invalid_claims_are_malformed() {
    for more in [
        r#","downlink":[]"#,
        r#","downlink":{"subscibe":[]}"#,
        r#","downlink":{"subscribe":["a//b"]}"#,
        r#","sub":7"#,
        r#","sub":"""#,
    ] {
        assert_eq!(code(&hs256(&claims(more))), "token_malformed", "{more}");
    }
}

#[test]
fn an_earlier_end_in_the_downlink_claim_counts() {
    let until = |until: u64| {
        let more = format!(r#","downlink":{{"until":{until}}}"#);
        verify(&hs256(&claims(&more))).unwrap().grant.until()
    };
    assert_eq!(until(NOW + 60), Some(at(NOW + 60)));
    assert_eq!(until(NOW + 9_999), Some(at(NOW + 3_600)));
}

#[test]
fn templates_give_topics_to_tokens_without_a_downlink_claim() {
    let grants =
        vec![TokenGrant::parse("users/$client/*").unwrap(), TokenGrant::parse("news").unwrap()];
    let rules = TokenRules { grants, ..TokenRules::default() };
    let tokens = Tokens::new(TokenKeys::new().hmac(&secret()), rules).unwrap();
    let topics = |more: &str| {
        let grant = tokens.verify(&hs256(&claims(more)), now()).unwrap().grant;
        grant.subscribe().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(topics(r#","sub":"ada""#), ["users/ada/*", "news"]);
    assert_eq!(topics(r#","sub":"$client""#), ["users/$client/*", "news"]);
    assert_eq!(topics(r#","sub":"ada","downlink":{}"#), [""; 0]);
    assert_eq!(topics(""), [""; 0]);
    for id in ["a/b", "*", "{x}", "a}", "/"] {
        assert_eq!(topics(&format!(r#","sub":"{id}""#)), [""; 0], "{id}");
    }
}

#[test]
fn the_client_in_a_template_must_be_a_whole_segment() {
    assert!(TokenGrant::parse("users/$client").is_ok());
    assert!(TokenGrant::parse("users/x$client").is_err());
    assert!(TokenGrant::parse("users//$client").is_err());
    let long = TokenGrant::parse(&format!("{}/$client", "a".repeat(248))).unwrap();
    assert!(long.selector(&client("1234567")).is_some());
    assert_eq!(long.selector(&client("12345678")), None);
}

#[test]
fn incomplete_settings_and_settings_with_too_many_keys_are_refused() {
    let build = |keys, rules| Tokens::new(keys, rules).err();
    assert_eq!(build(TokenKeys::new(), TokenRules::default()), Some(TokensError::NoKey));
    let pem = include_bytes!("../fixtures/es256.public.pem");
    let public = || TokenKeys::new().public(pem).unwrap();
    assert_eq!(build(public(), TokenRules::default()), Some(TokensError::IssuerNeeded));
    let no_audience = TokenRules { audiences: Vec::new(), ..issuer_rules() };
    assert_eq!(build(public(), no_audience), Some(TokensError::IssuerNeeded));
    let no_issuer = TokenRules { issuer: None, ..issuer_rules() };
    assert_eq!(build(public(), no_issuer), Some(TokensError::IssuerNeeded));
    let set = TokenKeys::new().key_set(std::sync::Arc::default());
    assert_eq!(build(set, TokenRules::default()), Some(TokensError::IssuerNeeded));
    let keys = |n: usize| (0..n).fold(TokenKeys::new(), |keys, _| keys.hmac(&secret()));
    assert_eq!(build(keys(KEYS_TRIED_MAX), TokenRules::default()), None);
    let keys_max = KEYS_TRIED_MAX;
    let error = build(keys(KEYS_TRIED_MAX + 1), TokenRules::default());
    assert_eq!(error, Some(TokensError::TooManyKeys { keys_max }));
}

#[test]
fn both_keys_verify_tokens_during_a_rotation() {
    let keys = TokenKeys::new().hmac(&other_secret()).hmac(&secret());
    let tokens = Tokens::new(keys, TokenRules::default()).unwrap();
    let older = tokens.verify(&hs256(&claims("")), now()).unwrap();
    let key = EncodingKey::from_secret(&[b'x'; 32]).unwrap();
    let newer = tokens.verify(&token(HS256, &claims(""), &key, Algorithm::HS256), now()).unwrap();
    assert_ne!(older.key, newer.key);
    assert_eq!(tokens.contains_key(older.key, now()), Ok(true));
    assert_eq!(hmac_tokens().contains_key(newer.key, now()), Ok(false));
}

#[test]
fn public_keys_that_cannot_be_used_are_refused() {
    let error = |pem: &[u8]| TokenKeys::new().public(pem).unwrap_err();
    let bits = error(include_bytes!("../fixtures/rsa1024.public.pem"));
    assert_eq!(bits, PublicKeyError::RsaBits { bits: 1_024 });
    assert_eq!(error(include_bytes!("../fixtures/es256.private.pem")), PublicKeyError::PrivateKey);
    let curve = error(include_bytes!("../fixtures/secp256k1.public.pem"));
    assert_eq!(curve, PublicKeyError::Unsupported);
    assert_eq!(error(b""), PublicKeyError::NoPublicKey);
    assert_eq!(error(b"-----BEGIN PUBLIC KEY-----\nA"), PublicKeyError::NoPublicKey);
    let pem = include_str!("../fixtures/es256.public.pem");
    let keys_max = downlink_access::PEM_KEYS_MAX;
    assert!(TokenKeys::new().public(pem.repeat(keys_max).as_bytes()).is_ok());
    assert_eq!(error(pem.repeat(keys_max + 1).as_bytes()), PublicKeyError::TooMany { keys_max });
    let (bytes, bytes_max) = (downlink_access::PEM_BYTES_MAX + 1, downlink_access::PEM_BYTES_MAX);
    assert_eq!(error(&vec![b'\n'; bytes]), PublicKeyError::TooLong { bytes, bytes_max });
}

#[test]
fn a_minted_token_gives_the_same_grant() {
    let grant = Grant::all().with_hear_everyone(false).with_client(client("ada"));
    let grant = grant.with_until(at(NOW + 60));
    let token = Mint::new(&secret()).sign(&grant, now()).unwrap();
    let verified = verify(&token).unwrap();
    assert_eq!((verified.grant, verified.issued_at), (grant, now()));
    let mint = Mint::new(&secret()).issuer("https://issuer.example").audience("downlink");
    let token = mint.sign(&Grant::none().with_until(at(NOW + 60)), now()).unwrap();
    let tokens = Tokens::new(TokenKeys::new().hmac(&secret()), issuer_rules()).unwrap();
    assert!(tokens.verify(&token, now()).is_ok());
}

#[test]
fn tokens_that_no_server_would_accept_are_not_minted() {
    let mint = Mint::new(&secret());
    assert_eq!(mint.sign(&Grant::none(), now()), Err(MintError::NoEnd));
    let long = selector(&"a".repeat(200));
    let grant =
        (0..GRANT_SELECTORS_MAX).fold(Grant::none(), |grant, _| grant.with_subscribe(long.clone()));
    let error = mint.sign(&grant.with_until(at(NOW + 60)), now()).unwrap_err();
    assert!(matches!(error, MintError::TooLong { bytes_max: TOKEN_BYTES_MAX, .. }));
}

#[test]
fn a_token_can_be_inspected_without_a_key() {
    let (header, claims) = inspect(&hs256(r#"{"sub":"ada"}"#)).unwrap();
    assert_eq!((&*header, &*claims), (HS256, r#"{"sub":"ada"}"#));
    assert_eq!(inspect("a.b").unwrap_err().code(), "token_malformed");
}

/// A server forgets a revocation after about a day, because a token lives for at most a day after
/// its `iat`. A token without `iat` could live for longer. It would be accepted again after the
/// server has forgotten its revocation.
#[test]
fn a_token_without_the_time_of_its_issue_is_malformed() {
    assert_eq!(code(&hs256(&format!(r#"{{"exp":{}}}"#, NOW + 60))), "token_malformed");
    assert_eq!(code(&hs256(&format!(r#"{{"iat":null,"exp":{}}}"#, NOW + 60))), "token_malformed");
}

#[test]
fn repeated_members_are_found_even_if_their_names_are_escaped() {
    let repeated = r#"{"alg":"HS256","\u0061lg":"none"}"#;
    assert_eq!(header_code(repeated), "token_malformed");
    assert_eq!(header_code(r#"{"alg":"HS256","\u0063rit":["exp"]}"#), "token_malformed");
    assert_eq!(code(&hs256(&claims(r#","sub":"ada","s\u0075b":"eve""#))), "token_malformed");
}

#[test]
fn tokens_with_impossible_times_are_refused() {
    let times = |iat: &str, exp: &str| code(&hs256(&format!(r#"{{"iat":{iat},"exp":{exp}}}"#)));
    let (max, later) = (u64::MAX.to_string(), (NOW + 60).to_string());
    assert_eq!(times(&max, &max), "token_early");
    assert_eq!(times("1e308", "1e308"), "token_early");
    assert_eq!(times("18446744073709551616", &max), "token_early");
    assert_eq!(times(&NOW.to_string(), "-1"), "token_expired");
    assert_eq!(times("-9223372036854775808", &max), "token_expired");
    assert_eq!(times("1e999", &later), "token_malformed");
    assert_eq!(times("true", &later), "token_malformed");
    assert_eq!(code(&hs256(&claims(r#","nbf":18446744073709551615"#))), "token_early");
}

#[test]
fn a_token_in_a_different_base64_encoding_is_malformed() {
    let right = hs256(&claims(""));
    assert!(verify(&right).is_ok());
    for changed in [format!("{right}="), format!("{right}\n"), format!(" {right}")] {
        assert_eq!(code(&changed), "token_malformed", "{changed:?}");
    }
    // The signature has 32 bytes, so its last character has two bits that mean nothing.
    let (rest, last) = right.split_at(right.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let twins = alphabet.chars().filter(|twin| *twin != last.chars().next().unwrap());
    assert_eq!(twins.filter(|twin| verify(&format!("{rest}{twin}")).is_ok()).count(), 0);
}

#[test]
fn a_token_with_deeply_nested_json_is_malformed() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(800), "}".repeat(800));
    assert_eq!(header_code(&format!(r#"{{"alg":"HS256","x":{deep}}}"#)), "token_malformed");
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    assert_eq!(code(&hs256(&claims(&format!(r#","x":{deep}"#)))), "token_malformed");
}
