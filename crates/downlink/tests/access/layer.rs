//! Tests of the access layer and of the caller (the sender of a request, with its rights). They
//! show which credentials are accepted, and the answers to requests with other credentials.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use downlink::access::AccessLayer;
use downlink_access::{Access, AccessOptions, Grant, KeySetCache, TokenKeys, TokenRules, Tokens};

use super::*;

/// The headers of an `EventSource`.
const EVENT_SOURCE: &str = "Accept: text/event-stream\r\nSec-Fetch-Mode: cors\r\n";

/// A token that was signed with a key the server does not know. The server refuses the token before
/// it checks the signature.
const UNKNOWN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJleHAiOjQwMDAwMDAwMDAsImlhdCI6MX0.\
                       eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA";

/// Asserts the status and the code of an answer, and returns the answer.
fn is(answer: String, status: u16, code: &str) -> String {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    assert!(answer.contains(&format!(r#""code":"{code}""#)), "{answer}");
    answer
}

#[tokio::test]
async fn a_request_without_a_credential_reads_only_public_topics() {
    let server = Chat::new().serve().await;
    server.get("/rooms/lobby", "").await.sees("downlink.open").await;
    let refused = is(server.answer("GET /rooms/7", "").await, 401, "token_missing");
    assert!(refused.contains("www-authenticate: Bearer\r\n"), "{refused}");
    is(server.answer("POST /rooms/lobby", "").await, 401, "token_missing");
    assert!(server.answer("POST /whoami", "").await.ends_with("nobody"));
}

#[tokio::test]
async fn a_key_allows_publishing_and_a_token_allows_reading() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let ada = bearer(&chat.token("ada", &["7"]));
    let mut reader = server.get("/rooms/7", &ada).await;
    reader.sees("downlink.open").await;
    let key = bearer(&chat.publish.text());
    let published = server.answer("POST /rooms/7", &key).await;
    assert!(published.starts_with("HTTP/1.1 200 "), "{published}");
    reader.sees("data: hello\n").await;
    is(server.answer("GET /rooms/8", &ada).await, 403, "topic_denied");
    is(server.answer("POST /rooms/7", &ada).await, 403, "topic_denied");
}

#[tokio::test]
async fn the_layer_refuses_an_invalid_credential_before_the_app_gets_the_request() {
    let chat = Chat::new();
    let server = chat.serve().await;
    for (headers, code) in [
        (bearer("unknown-key"), "key_unknown"),
        (bearer("two words"), "token_malformed"),
        (bearer(UNKNOWN), "algorithm"),
        (bearer(&chat.ended_token()), "token_expired"),
    ] {
        for line in ["POST /whoami", "GET /rooms/lobby"] {
            let refused = is(server.answer(line, &headers).await, 401, code);
            let challenge = "www-authenticate: Bearer error=\"invalid_token\"\r\n";
            assert!(refused.contains(challenge), "{refused}");
        }
    }
    is(server.answer("POST /whoami?ticket=%ff", "").await, 401, "token_malformed");
}

#[tokio::test]
async fn a_request_with_two_credentials_is_refused() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let (token, ticket) = (bearer(&chat.token("ada", &["7"])), chat.ticket("ada", &["7"]));
    let line = format!("GET /rooms/7?ticket={ticket}");
    is(server.answer(&line, &token).await, 400, "two_credentials");
    is(server.answer("GET /rooms/7", &token.repeat(2)).await, 400, "two_credentials");
    let line = format!("{line}&ticket={ticket}");
    is(server.answer(&line, "").await, 400, "two_credentials");
    server.get(&format!("/rooms/7?ticket={ticket}"), "").await.sees("downlink.open").await;
}

#[tokio::test]
async fn tokens_are_refused_with_a_retry_time_while_the_keys_of_their_issuer_cannot_be_fetched() {
    let keys = TokenKeys::new().key_set(Arc::new(KeySetCache::new()));
    let issuer = Some("https://issuer.example".to_owned());
    let rules = TokenRules { issuer, audiences: vec!["chat".to_owned()], ..TokenRules::default() };
    let tokens = Some(Tokens::new(keys, rules).unwrap());
    let access = Access::new(AccessOptions { tokens, ..AccessOptions::default() });
    let server = Chat::new().serve_with(AccessLayer::new(access)).await;
    let unknown = bearer(UNKNOWN);
    let refused = is(server.answer("GET /rooms/7", &unknown).await, 503, "keys_unavailable");
    assert!(refused.contains("retry-after: "), "{refused}");
    let event_source = format!("{unknown}{EVENT_SOURCE}");
    let stream = server.answer("GET /rooms/7", &event_source).await;
    assert!(stream.starts_with("HTTP/1.1 200 ") && stream.contains("retry: "), "{stream}");
    is(server.answer("POST /rooms/7", &event_source).await, 503, "keys_unavailable");
}

#[tokio::test]
async fn a_cookie_is_accepted_only_from_pages_of_the_app_and_of_allowed_origins() {
    let chat = Chat::new();
    let layer = AccessLayer::new(chat.access.clone()).cookie("session");
    let layer = layer.origin("https://app.example").host("front.example");
    let server = chat.serve_with(layer).await;
    let cookie = format!("Cookie: a=b; session={}\r\n", chat.token("ada", &["7"]));
    let who = async |more: &str| {
        let answer = server.answer("POST /whoami", &format!("{cookie}{more}")).await;
        answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
    };
    assert_eq!(who("Origin: https://chat.example\r\n").await, "ada");
    assert_eq!(who("Origin: https://front.example\r\n").await, "ada");
    assert_eq!(who("Origin: https://app.example\r\n").await, "ada");
    assert_eq!(who("Sec-Fetch-Site: same-origin\r\n").await, "ada");
    assert_eq!(who("Origin: https://evil.example\r\n").await, "nobody");
    assert_eq!(who("Origin: null\r\n").await, "nobody");
    assert_eq!(who("Sec-Fetch-Site: cross-site\r\n").await, "nobody");
    let twice = "Origin: https://app.example\r\nOrigin: https://chat.example\r\n";
    assert_eq!(who(twice).await, "nobody");
    // An old browser sends no `Origin` and no `Sec-Fetch-Site`. With the cookie, its page may read,
    // but not write.
    assert_eq!(who("").await, "nobody");
    server.get("/rooms/7", &cookie).await.sees("downlink.open").await;
}

#[tokio::test]
async fn an_expired_cookie_does_not_prevent_reading_a_public_topic() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let cookie = format!("Cookie: __Host-downlink={}\r\n", chat.ended_token());
    server.get("/rooms/lobby", &cookie).await.sees("downlink.open").await;
    is(server.answer("GET /rooms/7", &cookie).await, 401, "token_expired");
}

#[tokio::test]
async fn a_layer_without_keys_refuses_keys_and_accepts_tokens() {
    let chat = Chat::new();
    let server = chat.serve_with(AccessLayer::new(chat.access.without_keys())).await;
    let key = bearer(&chat.publish.text());
    is(server.answer("POST /rooms/7", &key).await, 401, "key_unknown");
    server.get("/rooms/7", &bearer(&chat.token("ada", &["7"]))).await.sees("open").await;
}

#[tokio::test]
async fn a_route_that_needs_a_caller_answers_500_without_the_layer() {
    let server = Server::new(Router::new().route("/whoami", post(name))).await;
    let answer = server.answer("POST /whoami", "").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
}

/// An app can make a caller itself, for example for one of its sessions. A revocation also applies
/// to such a caller.
#[test]
fn a_caller_that_the_app_makes_has_the_rights_of_its_grant() {
    let access = Access::new(AccessOptions::default());
    let grant = Grant::none().with_publish(selector("rooms/7")).with_client(client("ada"));
    let caller = Caller::trusted(access.clone(), grant);
    let room = |name: &str| [Address::Topic(Topic::new(name).unwrap())];
    assert!(caller.check_publish(&room("rooms/7")).is_ok());
    let refused = caller.check_publish(&room("rooms/8")).unwrap_err();
    assert_eq!(refused.code(), Some("topic_denied"));
    assert_eq!(refused.to_string(), "the grant does not cover the topic `rooms/8`");
    assert!(caller.check(downlink_access::Right::Admin).is_err());
    let revoked = downlink_access::Revoked::Client(client("ada"));
    Hub::<String>::text().revoke(&access, revoked).unwrap();
    let refused = caller.check_publish(&room("rooms/7")).unwrap_err();
    assert_eq!(refused.code(), Some("revoked"));
}
