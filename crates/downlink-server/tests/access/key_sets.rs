//! `--jwks-url`: tokens whose keys the server fetches from their issuer.
//!
//! The server fetches at most once in ten seconds. So these tests take that long.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    credentials::Signer,
    patiently,
    program::Folder,
    request::Request,
    site::{Site, assert_ended},
    upload::Upload,
    web::{Reply, Web},
};

const KEYS: &str = include_str!("../../../downlink-access/tests/fixtures/keys.json");

/// The pause between two attempts of [`until`].
const ATTEMPT_EVERY: Duration = Duration::from_millis(50);

/// A key set with the keys that have these names.
fn set(names: &[&str]) -> String {
    let all: Value = serde_json::from_str(KEYS).expect("JSON");
    let keys = all["keys"].as_array().expect("a list").iter();
    let keys = keys.filter(|key| names.contains(&key["kid"].as_str().expect("a name")));
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

fn reply(names: &[&str]) -> Reply {
    Reply::Answer(200, "no-store", set(names))
}

/// Repeats a request until it has this outcome.
async fn until(site: &Site, request: &Request, outcome: &str) {
    let mut attempts = interval(ATTEMPT_EVERY);
    attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    patiently(async {
        while request.ask(site.public()).await.outcome() != outcome {
            attempts.tick().await;
        }
    })
    .await;
}

fn with(token: &str) -> Request {
    Request::get("/events?topic=rooms/1").bearer(token)
}

#[tokio::test]
async fn tokens_are_accepted_after_the_issuer_has_started() {
    let mut issuer = Web::start(reply(&["es256"]));
    issuer.stop();
    let site = Site::with_key_set(&issuer.url(), &["--public", "news"]);
    let token = site.keys.named_token(Signer::Es256, "es256", "ada");
    let refused = with(&token).ask(site.public()).await;
    assert_eq!(refused.outcome(), "503 keys_unavailable");
    assert!(refused.header("retry-after").is_some());
    let later = site.assert_comes_back(with(&token)).await;
    assert!((1_000..=10_000).contains(&later), "{later}");
    let cookie =
        Request::get("/events?topic=rooms/1").header("Cookie", format!("__Host-downlink={token}"));
    site.assert_comes_back(cookie.clone()).await;
    let publish = Request::post("/events?topic=rooms/1", "x").bearer(&token);
    assert_eq!(publish.ask(site.public()).await.outcome(), "503 keys_unavailable");
    // The server needs no key set for requests with keys, for public topics, and for malformed
    // tokens.
    site.publish("topic=news", "x").await;
    let public = Request::get("/events?topic=news").header("Cookie", "__Host-downlink=a.b.c");
    site.subscribe(public).await;
    assert_eq!(with("a.b.c").ask(site.public()).await.outcome(), "401 token_malformed");
    issuer.start_again();
    issuer.asked_times(1).await;
    site.subscribe(with(&token)).await;
    site.subscribe(cookie).await;
    assert_eq!(publish.ask(site.public()).await.outcome(), "200");
}

#[tokio::test]
async fn after_a_fetch_without_a_key_the_streams_of_this_key_end() {
    let issuer = Web::start(reply(&["es256", "ed25519"]));
    let site = Site::with_key_set(&issuer.url(), &["--public", "news"]);
    let token = site.keys.named_token(Signer::Es256, "es256", "ada");
    let stream = site.subscribe(with(&token)).await;
    let issue = Request::post("/tickets?topic=rooms/1", "").bearer(&token);
    let ticket = issue.ask(site.public()).await.json();
    let with_ticket = Request::get(ticket["url"].as_str().expect("a URL"));
    let ticket_stream = site.subscribe(with_ticket.clone()).await;
    let mut public = site.subscribe(Request::get("/events?topic=news")).await;
    let mut upload = Upload::start(site.public(), &token, "topic=rooms/2").await;
    upload.send("1").await;
    // The issuer replaces the key. A token of the new key makes the server fetch.
    issuer.reply(reply(&["rs256", "ed25519"]));
    let new = site.keys.named_token(Signer::Rs256, "rs256", "ada");
    until(&site, &with(&new), "200").await;
    assert_eq!(issuer.asked().len(), 2);
    assert_ended(stream, "key_unknown").await;
    assert_ended(ticket_stream, "key_unknown").await;
    let stopped = upload.answer().await;
    assert_eq!(stopped.outcome(), "401 key_unknown");
    assert!(stopped.problem(401).contains("Published: 1, "), "{stopped:?}");
    for request in [with(&token), with_ticket] {
        assert_eq!(request.ask(site.public()).await.outcome(), "401 key_unknown");
    }
    // Streams that do not depend on the key stay open.
    let mut kept = site.subscribe(with(&new)).await;
    site.publish("topic=news&topic=rooms/1", "still here").await;
    assert_eq!(
        (public.data().await, kept.data().await),
        ("still here".into(), "still here".into())
    );
}

#[tokio::test]
async fn a_key_set_can_be_a_file() {
    let folder = Folder::new();
    let file = folder.file("key set.json");
    std::fs::write(&file, set(&["es256"])).expect("a new file");
    let url = format!("file://{}", file.replace(' ', "%20"));
    let site = Site::with_key_set(&url, &[]);
    let stream = site.subscribe(with(&site.keys.named_token(Signer::Es256, "es256", "ada"))).await;
    // Without a usable key in the set, no token is valid any more.
    std::fs::write(&file, r#"{"keys":[]}"#).expect("the file");
    let new = with(&site.keys.named_token(Signer::Rs256, "rs256", "ada"));
    tokio::select! {
        () = assert_ended(stream, "key_unknown") => {}
        () = until(&site, &new, "200") => panic!("accepted, but the set has no key"),
    }
}

/// The requests wait for the answer of the issuer. Meanwhile, the server must answer other
/// requests.
#[tokio::test]
async fn requests_that_wait_for_the_key_set_share_one_fetch() {
    const WAITING: usize = 100;
    let issuer = Web::start(Reply::Wait);
    let site = Site::with_key_set(&issuer.url(), &["--public", "news"]);
    let token = site.keys.named_token(Signer::Es256, "es256", "ada");
    issuer.asked_times(1).await;
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| {
            let (request, place) = (with(&token), site.public().clone());
            tokio::spawn(async move { request.ask(&place).await.outcome() })
        })
        .collect();
    let dropped = tokio::spawn({
        let (request, place) = (with(&token), site.public().clone());
        async move { request.ask(&place).await }
    });
    let mut public = site.subscribe(Request::get("/events?topic=news")).await;
    site.publish("topic=news", "not blocked").await;
    assert_eq!(public.data().await, "not blocked");
    dropped.abort();
    issuer.reply(reply(&["es256"]));
    for answer in waiting {
        assert_eq!(patiently(answer).await.expect("the task did not panic"), "200");
    }
    assert_eq!(issuer.asked().len(), 1);
}
