//! A grant is a list of rights, which may end at a fixed time. A stream ends at the end of its
//! grant. Before that, it gets a notice, and its last event says that the rights have ended. Some
//! tests open a second stream with the same ticket, or end a stream as an operator.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::{
    credentials::{Signer, for_seconds, of_a_user},
    request::Request,
    site::Site,
    stream::Stream,
};

/// The lifetime of a credential in these tests, in seconds. The tests wait for its end.
const LIFE: i64 = 8;

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis()
}

/// Reads the notice and the end of a stream. `ends_at` is the end of the grant, in milliseconds
/// since 1970.
async fn assert_expires(mut stream: Stream, ends_at: u128) {
    let notice = stream.next().await.expect("the notice");
    assert_eq!(notice.event_type, "downlink.expiring");
    let notice: Value = serde_json::from_str(&notice.data).expect("JSON");
    let left = notice["in_ms"].as_u64().expect("a number");
    assert!(
        (1..=LIFE as u64 * 100).contains(&left),
        "the notice came {left} ms before the end, not in the last tenth of the lifetime"
    );
    let expired = stream.next().await.expect("the last event");
    assert_eq!((&*expired.event_type, &*expired.data), ("downlink.expired", "{}"));
    assert!(now_ms() >= ends_at, "the stream ended before the end of its grant");
    let retry = stream.retry;
    assert!(retry.is_none_or(|retry| (1_000..=2_000).contains(&retry)), "{retry:?}");
    assert_eq!(stream.rest().await, [""; 0]);
}

#[tokio::test]
async fn a_stream_announces_its_end_and_ends_when_its_token_expires() {
    let site = Site::start(&[]);
    let claims = for_seconds("ada", of_a_user(), LIFE);
    let token = site.keys.token(Signer::Rs256, &claims);
    let request = Request::get("/events?topic=rooms/1").bearer(&token);
    let stream = site.subscribe(request.clone()).await;
    let ends_at = claims["exp"].as_u64().expect("a number");
    assert_expires(stream, u128::from(ends_at) * 1_000).await;
}

#[tokio::test]
async fn a_stream_announces_its_end_and_ends_when_its_ticket_expires() {
    let site = Site::start(&[]);
    let issue = Request::post(format!("/tickets?topic=rooms/*&lifetime={LIFE}s"), "");
    let issued = issue.bearer(&site.keys.user("ada")).ask(site.public()).await.json();
    let url = issued["url"].as_str().expect("a URL");
    let stream = site.subscribe(Request::get(url)).await;
    let ends_at = issued["expires"].as_u64().expect("milliseconds");
    assert_expires(stream, ends_at.into()).await;
    // If a browser uses the same URL again, the error says that the ticket has expired.
    let answer = Request::get(url).of_browser().ask(site.public()).await;
    assert_eq!(answer.outcome(), "401 token_expired");
}

#[tokio::test]
async fn a_ticket_expires_no_later_than_the_token_with_which_it_was_requested() {
    let site = Site::start(&[]);
    let claims = for_seconds("ada", of_a_user(), 600);
    let token = site.keys.token(Signer::Hs256, &claims);
    let issue = Request::post("/tickets?topic=rooms/*&lifetime=1h", "");
    let issued = issue.bearer(&token).ask(site.public()).await.json();
    assert_eq!(issued["expires"], claims["exp"].as_u64().expect("a number") * 1_000);
}

#[tokio::test]
async fn a_new_stream_with_the_same_ticket_ends_the_older_stream() {
    let site = Site::start(&["--public-url", "https://push.example"]);
    let issue = Request::post("/tickets?topic=rooms/1", "").bearer(&site.keys.publish_key());
    let issued = issue.ask(site.admin()).await.json();
    let ticket = issued["ticket"].as_str().expect("a ticket");
    let url = format!("https://push.example/events?ticket={ticket}");
    assert_eq!(issued["url"], url);
    let request = Request::get(format!("/events?ticket={ticket}"));
    let mut older = site.subscribe(request.clone()).await;
    let other_ticket = site.ticket("topic=rooms/1").await;
    let mut other = site.subscribe(Request::get(format!("/events?ticket={other_ticket}"))).await;
    let mut newer = site.subscribe(request).await;
    assert!(older.next().await.is_none(), "the older stream ends without an event");
    assert_eq!(older.retry, Some(60_000));
    site.publish("topic=rooms/1", "hello").await;
    assert_eq!((newer.data().await, other.data().await), ("hello".into(), "hello".into()));
}

#[tokio::test]
async fn a_client_reconnects_soon_after_an_operator_has_ended_its_stream() {
    let site = Site::start(&[]);
    let ticket = site.ticket("topic=rooms/1&client=ada").await;
    let mut stream = site.subscribe(Request::get(format!("/events?ticket={ticket}"))).await;
    let ended = site.operate(Request::new("DELETE", "/clients?client=ada")).await.json();
    assert_eq!(ended["disconnected"], 1);
    assert!(stream.next().await.is_none(), "the stream ends without an event");
    // Only a newer stream of the same ticket makes a client wait for a minute.
    assert_eq!(stream.retry, None);
}
