//! Tests of whole requests: which requests are allowed with which credentials, the error for a
//! refused request, and reloads of the settings. A stranger is a caller without credentials.

use downlink_access::{
    Access, AccessError, AccessOptions, Grant, KeyRole, Keys, Presented, Proof, Revocation,
    Revoked, Right, Secret, TicketKeys, TokenKeys, Tokens, Verified,
};
use downlink_log::{Address, Topic};

use crate::support::*;

const COOKIE: &str = "__Host-downlink";

fn access() -> Access {
    let mut keys = Keys::new();
    keys.add(KeyRole::Publish, &other_secret()).unwrap();
    Access::new(AccessOptions {
        public: vec![selector("news/*")],
        keys,
        tokens: Some(hmac_tokens()),
        tickets: Some(TicketKeys::new("shop", &[secret()]).unwrap()),
    })
}

fn key_header() -> String {
    format!("Bearer {}", "x".repeat(32))
}

/// A key that differs from [`other_secret`].
fn secret_text() -> Secret {
    Secret::from_file_bytes(&[b'y'; 32]).unwrap()
}

fn user_token() -> String {
    hs256(&claims(r#","sub":"ada","downlink":{"subscribe":["orders/*"]}"#))
}

/// Checks a request for a subscription. Returns the code of the error, or `ok`.
fn subscribe(presented: Presented<'_>, topics: &[&str], of: Option<&str>) -> &'static str {
    let outcome = access().subscribe(&presented, &asked(topics, of), now());
    outcome.err().map_or("ok", |error| error.code())
}

#[test]
fn strangers_read_only_public_topics() {
    let stranger = Presented::new();
    assert_eq!(subscribe(stranger, &["news/{city}"], None), "ok");
    assert_eq!(subscribe(stranger, &[], None), "ok", "a request without topics is allowed");
    assert_eq!(subscribe(stranger, &["news/a", "orders/1"], None), "token_missing");
    assert_eq!(subscribe(stranger, &["news"], None), "token_missing");
    assert_eq!(subscribe(stranger, &["news/a"], Some("ada")), "token_missing");
}

#[test]
fn strangers_read_nothing_if_no_topic_is_public() {
    let closed = Access::new(AccessOptions::default());
    let outcome = closed.subscribe(&Presented::new(), &asked(&[], None), now());
    assert_eq!(outcome, Err(AccessError::TokenMissing));
}

#[test]
fn strangers_publish_nothing() {
    let stranger = access().verify(&Presented::new(), now()).unwrap();
    assert_eq!(stranger.proof(), Proof::Nothing);
    let news = Address::Topic(Topic::new("news/a").unwrap());
    for address in [news, Address::Everyone, Address::Client(client("ada"))] {
        let outcome = access().check_publish(&stranger, &[address], now());
        assert_eq!(outcome, Err(AccessError::TokenMissing));
    }
    assert_eq!(stranger.check(Right::Admin), Err(AccessError::TokenMissing));
}

#[test]
fn a_user_reads_granted_and_public_topics() {
    let header = format!("Bearer {}", user_token());
    let user = Presented::new().authorization(header.as_bytes());
    assert_eq!(subscribe(user, &["orders/{id}", "news/a"], Some("ada")), "ok");
    assert_eq!(subscribe(user, &["orders/{id}", "chat"], None), "topic_denied");
    assert_eq!(subscribe(user, &["orders/1"], Some("bob")), "client_denied");
    let user = access().verify(&user, now()).unwrap();
    let outcome = access().check_publish(&user, &[Address::Everyone], now());
    assert_eq!(outcome.unwrap_err().status(), 403);
}

#[test]
fn a_publish_key_can_publish_and_read_everywhere() {
    let header = key_header();
    let app = Presented::new().authorization(header.as_bytes());
    assert_eq!(subscribe(app, &["*"], Some("ada")), "ok");
    let app = access().verify(&app, now()).unwrap();
    assert_eq!(app.proof(), Proof::Key);
    let topic = Address::Topic(Topic::new("a/b").unwrap());
    let addresses = [topic, Address::Everyone, Address::Client(client("ada"))];
    assert_eq!(access().check_publish(&app, &addresses, now()), Ok(()));
    assert_eq!(app.check(Right::Admin).unwrap_err().code(), "right_missing");
}

#[test]
fn bad_credentials_are_refused_even_for_public_topics() {
    let check = |header: &str, expected: &str| {
        let presented = Presented::new().authorization(header.as_bytes());
        assert_eq!(subscribe(presented, &["news/a"], None), expected, "{header}");
        let cookie = format!("{COOKIE}={}", user_token());
        let with_cookie = presented.cookie(cookie.as_bytes(), COOKIE);
        assert_eq!(subscribe(with_cookie, &["news/a"], None), expected, "{header}");
    };
    check("Bearer unknown", "key_unknown");
    check("Bearer", "token_malformed");
    check("Bearer a.b.c", "token_malformed");
    check(&format!("Bearer {}x", user_token()), "signature");
    check(&format!("Bearer {}", hs256(r#"{"iat":1,"exp":1}"#)), "token_expired");
    let ticket = Presented::new().ticket("AAAA");
    assert_eq!(subscribe(ticket, &["news/a"], None), "token_malformed");
    let both = ticket.authorization(b"Bearer unknown");
    assert_eq!(subscribe(both, &["news/a"], None), "two_credentials");
}

#[test]
fn a_bad_cookie_is_ignored_for_public_topics() {
    let expired = format!("{COOKIE}={}", hs256(r#"{"iat":1,"exp":1}"#));
    let twice = format!("{expired}; {expired}");
    for header in [&expired, &twice] {
        let presented = Presented::new().cookie(header.as_bytes(), COOKIE);
        assert_eq!(subscribe(presented, &["news/a"], None), "ok");
        assert_ne!(subscribe(presented, &["orders/1"], None), "ok");
        assert_ne!(subscribe(presented, &["news/a"], Some("ada")), "ok");
    }
    let presented = Presented::new().cookie(expired.as_bytes(), COOKIE);
    assert_eq!(subscribe(presented, &["news/a", "orders/1"], None), "token_expired");
    assert_eq!(subscribe(presented, &["news/a"], Some("ada")), "token_expired");
    let outcome = access().subscribe(&presented, &asked(&["news/a"], None), now()).unwrap();
    assert_eq!(outcome.proof(), Proof::Nothing);
}

#[test]
fn a_cookie_may_have_a_token_but_not_a_key() {
    let good = format!("{COOKIE}={}", user_token());
    let presented = Presented::new().cookie(good.as_bytes(), COOKIE);
    assert_eq!(subscribe(presented, &["orders/1"], Some("ada")), "ok");
    let key = format!("{COOKIE}={}", "x".repeat(32));
    let presented = Presented::new().cookie(key.as_bytes(), COOKIE);
    assert_eq!(subscribe(presented, &["orders/1"], None), "token_malformed");
}

#[test]
fn a_listener_without_keys_accepts_tokens_and_tickets() {
    let public = access().without_keys();
    let header = key_header();
    let key = Presented::new().authorization(header.as_bytes());
    assert_eq!(public.verify(&key, now()), Err(AccessError::KeyUnknown));
    let header = format!("Bearer {}", user_token());
    assert!(public.verify(&Presented::new().authorization(header.as_bytes()), now()).is_ok());
    // A server may have a second listener, on which no key is valid. The second listener still
    // accepts a ticket that the app has issued over the first listener.
    let app = access().verify(&key, now()).unwrap();
    let topics = vec![selector("a")];
    let (ticket, _) = public.issue(&app, topics, None, std::time::Duration::from_secs(60)).unwrap();
    assert!(public.verify(&Presented::new().ticket(&ticket), now()).is_ok());
}

#[test]
fn a_server_that_accepts_no_tokens_reports_a_token_as_an_unknown_key() {
    let closed = Access::new(AccessOptions::default());
    let header = format!("Bearer {}", user_token());
    let presented = Presented::new().authorization(header.as_bytes());
    assert_eq!(closed.verify(&presented, now()), Err(AccessError::KeyUnknown));
}

#[test]
fn a_revocation_applies_to_new_requests_and_open_streams() {
    let access = access();
    let header = format!("Bearer {}", user_token());
    let presented = Presented::new().authorization(header.as_bytes());
    let asked = asked(&["orders/1"], None);
    let stream = access.subscribe(&presented, &asked, now()).unwrap();
    let revocation = Revocation { revoked: Revoked::Client(client("ada")), at: at(NOW + 1) };
    access.revoke(revocation.clone(), at(NOW + 1)).unwrap();
    let later = at(NOW + 2);
    assert_eq!(access.verify(&presented, later), Err(AccessError::Revoked));
    assert_eq!(access.admit(&stream, &asked, later).unwrap_err(), AccessError::Revoked);
    assert_eq!(access.revocations(), [revocation]);
}

#[test]
fn a_client_that_loses_one_topic_keeps_its_other_topics() {
    let access = access();
    let header = format!("Bearer {}", user_token());
    let presented = Presented::new().authorization(header.as_bytes());
    let revoked = Revoked::Topic(client("ada"), selector("orders/7"));
    access.revoke(Revocation { revoked, at: at(NOW + 1) }, at(NOW + 1)).unwrap();
    let subscribe = |topic: &str| access.subscribe(&presented, &asked(&[topic], None), at(NOW + 2));
    assert_eq!(subscribe("orders/7"), Err(AccessError::Revoked));
    assert_eq!(subscribe("orders/*"), Err(AccessError::Revoked));
    assert!(subscribe("orders/8").is_ok());
}

#[test]
fn a_stream_ends_when_its_grant_ends() {
    let grant = Grant::all().with_until(at(NOW + 10));
    let stream = Verified::trusted(grant, now());
    let asked = asked(&["a"], None);
    assert!(access().admit(&stream, &asked, at(NOW + 9)).is_ok());
    let over = access().admit(&stream, &asked, at(NOW + 10));
    assert_eq!(over.unwrap_err(), AccessError::TokenExpired);
}

#[test]
fn every_error_with_status_401_asks_for_a_bearer_token() {
    let errors = [
        AccessError::TwoCredentials,
        AccessError::TokenMissing,
        AccessError::TokenMalformed { reason: "a reason" },
        AccessError::ClaimMalformed(downlink_access::InvalidGrant::NoObject),
        AccessError::Algorithm,
        AccessError::KeyUnknown,
        AccessError::Signature,
        AccessError::TokenExpired,
        AccessError::TokenEarly,
        AccessError::Audience,
        AccessError::Issuer,
        AccessError::Revoked,
        AccessError::TopicDenied { selector: selector("a/{b}") },
        AccessError::ClientDenied { client: client("ada") },
        AccessError::RightMissing { right: Right::Admin },
        AccessError::KeysUnavailable,
    ];
    let table: Vec<String> =
        errors.iter().map(|error| format!("{} {}", error.status(), error.code())).collect();
    let expected = [
        "400 two_credentials",
        "401 token_missing",
        "401 token_malformed",
        "401 token_malformed",
        "401 algorithm",
        "401 key_unknown",
        "401 signature",
        "401 token_expired",
        "401 token_early",
        "401 audience",
        "401 issuer",
        "401 revoked",
        "403 topic_denied",
        "403 client_denied",
        "403 right_missing",
        "503 keys_unavailable",
    ];
    assert_eq!(table, expected);
    let mut codes: Vec<&str> = errors.iter().map(AccessError::code).collect();
    codes.dedup();
    assert_eq!(codes, AccessError::CODES);
    for error in &errors {
        assert_eq!(error.www_authenticate().is_some(), error.status() == 401, "{error}");
    }
    assert_eq!(errors[12].to_string(), "the grant does not cover the topic `a/{b}`");
}

#[test]
fn a_clone_shares_the_revocations_of_the_original() {
    let (one, other) = {
        let access = access();
        (access.without_keys(), access)
    };
    let revocation = Revocation { revoked: Revoked::Everyone, at: now() };
    one.revoke(revocation, now()).unwrap();
    assert_eq!(other.revocations().len(), 1);
}

/// Threads can send these types to each other and share them.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Access>();
    shared::<Verified>();
    shared::<AccessError>();
};

#[test]
fn a_removed_key_ends_its_streams_even_if_a_key_set_cannot_be_fetched() {
    let access = |key: &Secret| {
        let mut keys = Keys::new();
        keys.add(KeyRole::Publish, key).unwrap();
        let tokens = TokenKeys::new().key_set(std::sync::Arc::default());
        let tokens = Some(Tokens::new(tokens, issuer_rules()).unwrap());
        Access::new(AccessOptions { keys, tokens, ..AccessOptions::default() })
    };
    let header = key_header();
    let presented = Presented::new().authorization(header.as_bytes());
    let stream = access(&other_secret()).verify(&presented, now()).unwrap();
    let reloaded = access(&secret_text());
    assert_eq!(reloaded.recheck(&stream, &[], now()), Err(AccessError::KeyUnknown));
}

#[test]
fn a_reload_that_changes_the_role_of_a_key_ends_its_streams() {
    let access = |role| {
        let mut keys = Keys::new();
        keys.add(role, &other_secret()).unwrap();
        Access::new(AccessOptions { keys, ..AccessOptions::default() })
    };
    let header = key_header();
    let presented = Presented::new().authorization(header.as_bytes());
    let stream = access(KeyRole::Admin).verify(&presented, now()).unwrap();
    let reloaded = access(KeyRole::Publish);
    assert_eq!(reloaded.recheck(&stream, &[], now()), Err(AccessError::KeyUnknown));
}
