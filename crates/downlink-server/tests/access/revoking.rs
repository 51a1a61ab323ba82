//! A revocation ends exactly the streams that it names. Later, the server refuses the revoked
//! credentials.

use serde_json::Value;

use crate::{
    credentials::{Signer, claims, of_a_user, operator_but},
    request::Request,
    site::{Site, assert_revoked},
    stream::Stream,
};

/// Asserts that a stream is still open: it gets the event that was published last.
async fn assert_open(stream: &mut Stream, data: &str) {
    assert_eq!(stream.data().await, data);
}

#[tokio::test]
async fn the_revocation_of_a_client_ends_its_streams_and_no_other() {
    let site = Site::start(&["--public", "public/*"]);
    let ticket = site.ticket("topic=rooms/*&client=ada").await;
    let with_ticket = Request::get(format!("/events?ticket={ticket}"));
    let ada = site.subscribe_as("ada", "topic=rooms/1").await;
    let ada_ticket = site.subscribe(with_ticket.clone()).await;
    let bob = site.subscribe_as("bob", "topic=rooms/1").await;
    let public = site.subscribe(Request::get("/events?topic=public/news")).await;
    site.revoke("client=ada").await;
    assert_revoked(ada).await;
    assert_revoked(ada_ticket).await;
    site.publish("topic=rooms/1&topic=public/news", "still here").await;
    for mut stream in [bob, public] {
        assert_open(&mut stream, "still here").await;
    }
    // A program learns the reason, and an EventSource stops reconnecting.
    let with_token = Request::get("/events?topic=rooms/1").bearer(&site.keys.user("ada"));
    for request in [with_token, with_ticket] {
        let answer = request.ask(site.public()).await;
        assert_eq!(answer.outcome(), "401 revoked");
        let answer = request.of_browser().ask(site.public()).await;
        assert_eq!((answer.status, &*answer.body), (204, ""));
    }
    let publish = Request::post("/events?topic=rooms/1", "x");
    assert_eq!(site.outcome_as("ada", publish).await, "401 revoked");
    // The app can give the client a new ticket.
    let ticket = site.ticket("topic=rooms/*&client=ada").await;
    site.subscribe(Request::get(format!("/events?ticket={ticket}"))).await;
}

#[tokio::test]
async fn the_revocation_of_one_topic_of_a_client_ends_only_its_streams_with_this_topic() {
    let site = Site::start(&[]);
    let both = site.subscribe_as("ada", "topic=rooms/1&topic=rooms/2").await;
    let pattern = site.subscribe_as("ada", "topic=rooms/*").await;
    let mut second = site.subscribe_as("ada", "topic=rooms/2").await;
    let mut bob = site.subscribe_as("bob", "topic=rooms/1").await;
    site.revoke("client=ada&topic=rooms/1").await;
    assert_revoked(both).await;
    assert_revoked(pattern).await;
    site.publish("topic=rooms/1&topic=rooms/2", "still here").await;
    assert_open(&mut second, "still here").await;
    assert_open(&mut bob, "still here").await;
    for (request, expected) in [
        (Request::get("/events?topic=rooms/1"), "401 revoked"),
        (Request::get("/events?topic=rooms/*"), "401 revoked"),
        (Request::get("/events?topic=rooms/2"), "200"),
        (Request::post("/events?topic=rooms/1", "x"), "401 revoked"),
        (Request::post("/events?topic=rooms/2&topic=rooms/1", "x"), "401 revoked"),
        (Request::post("/events?topic=rooms/2", "x"), "200"),
        (Request::post("/events/batch", r#"{"topic":"rooms/1","data":1}"#), "401 revoked"),
    ] {
        assert_eq!(site.outcome_as("ada", request.clone()).await, expected, "{request:?}");
        assert_eq!(site.outcome_as("bob", request.clone()).await, "200", "{request:?}");
    }
    let user = site.keys.user("ada");
    for (target, expected) in
        [("/topics?topic=rooms/1", "401 revoked"), ("/finish?topic=rooms/1", "401 revoked")]
    {
        let method = if target.starts_with("/finish") { "POST" } else { "GET" };
        let answer = Request::new(method, target).bearer(&user).ask(site.admin()).await;
        assert_eq!(answer.outcome(), expected, "{target}");
    }
    // A new ticket does not give back a revoked right.
    let issue = Request::post("/tickets?topic=rooms/*", "").bearer(&user);
    let answer = issue.ask(site.public()).await;
    if answer.status == 200 {
        let answer = answer.json();
        let url = answer["url"].as_str().expect("a URL");
        assert_eq!(Request::get(url).ask(site.public()).await.outcome(), "401 revoked");
    }
}

#[tokio::test]
async fn the_revocation_of_a_key_ends_its_streams_and_those_of_its_tickets() {
    let site = Site::of(&["--listen", "127.0.0.1:0"]);
    let key = site.keys.publish_key();
    let listener = site.public().clone();
    let issue = Request::post("/tickets?topic=rooms/*", "").bearer(&key);
    let url = issue.ask(&listener).await.json()["url"].as_str().expect("a URL").to_owned();
    let with_key = site.subscribe(Request::get("/events?topic=rooms/1").bearer(&key)).await;
    let with_ticket = site.subscribe(Request::get(&url)).await;
    let mut ada = site.subscribe_as("ada", "topic=rooms/1").await;
    let target = format!("/revoke?key={}", site.keys.publish_key_id());
    // The key of an app is not enough to revoke keys.
    let denied = Request::post(&target, "").bearer(&key).ask(&listener).await;
    assert_eq!(denied.outcome(), "403 right_missing");
    let revoke = Request::post(&target, "").bearer(&site.keys.admin_key());
    assert_eq!(revoke.ask(&listener).await.outcome(), "200");
    assert_revoked(with_key).await;
    assert_revoked(with_ticket).await;
    let publish = Request::post("/events?topic=rooms/1", "still here");
    assert_eq!(publish.clone().bearer(&key).ask(&listener).await.outcome(), "401 revoked");
    let published = publish.bearer(&site.keys.admin_key()).ask(&listener).await;
    assert_eq!(published.outcome(), "200");
    assert_open(&mut ada, "still here").await;
    assert_eq!(Request::get(&url).ask(&listener).await.outcome(), "401 revoked");
    assert_eq!(Request::get(&url).of_browser().ask(&listener).await.status, 204);
}

#[tokio::test]
async fn a_user_can_revoke_only_its_own_client() {
    let site = Site::start(&[]);
    let ada = site.keys.user("ada");
    let revoke = |query: &str| Request::post(format!("/revoke?{query}"), "").bearer(&ada);
    for (query, expected) in [
        ("client=bob", "403 client_denied"),
        ("client=bob&topic=rooms/1", "403 client_denied"),
        ("key=0011223344556677", "403 right_missing"),
        ("topic=rooms/1", "400"),
        ("client=ada&key=0011223344556677", "400"),
        ("client=ada&client=bob", "400"),
        ("", "400"),
        ("client=ada&topic=rooms/1", "200"),
        ("client=ada&topic=rooms/1", "401 revoked"),
        ("client=ada", "200"),
        ("client=ada", "401 revoked"),
    ] {
        assert_eq!(revoke(query).ask(site.admin()).await.outcome(), expected, "{query}");
    }
    assert_eq!(site.outcome_as("bob", Request::get("/events?topic=rooms/1")).await, "200");
}

#[tokio::test]
async fn a_revocation_applies_only_to_tokens_that_were_issued_before_it() {
    let site = Site::start(&[]);
    let earlier = claims(Some("ada"), of_a_user());
    let issued_at = earlier["iat"].as_i64().expect("a number");
    let moved = |seconds: i64| {
        let mut claims = earlier.clone();
        claims["iat"] = (issued_at + seconds).into();
        claims
    };
    let mut timeless = earlier.clone();
    timeless.as_object_mut().expect("an object").remove("iat");
    let request = Request::get("/events?topic=rooms/1");
    let outcome = async |claims: Value| {
        let token = site.keys.token(Signer::Es256, &claims);
        request.clone().bearer(&token).ask(site.public()).await.outcome()
    };
    assert_eq!(outcome(earlier.clone()).await, "200");
    site.revoke("client=ada").await;
    assert_eq!(outcome(earlier.clone()).await, "401 revoked");
    // The clock of the issuer may be some seconds ahead of that of the server.
    assert_eq!(outcome(moved(20)).await, "200");
    // A token cannot escape the revocation with a later time, or without a time.
    assert_eq!(outcome(moved(600)).await, "401 token_early");
    assert_eq!(outcome(timeless).await, "401 token_malformed");
    // The revocation of a client does not apply to a token without a client.
    assert_eq!(outcome(operator_but(&[])).await, "200");
}
