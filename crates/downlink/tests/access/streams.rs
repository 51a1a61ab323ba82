//! Tests of streams with grants (the rights of their callers): which events they get, and when they
//! end.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::{Body, HttpBody};
use axum::http::Request;
use downlink::hub::Start;
use downlink::testing;
use downlink_access::Revoked;

use super::*;

const BROWSER: &str = "Accept: text/event-stream\r\nSec-Fetch-Mode: cors\r\n";

fn reader(path: &str, token: &str) -> Request<Body> {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_stream_of_a_revoked_client_ends_at_once_and_the_client_cannot_reconnect() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let token = bearer(&chat.token("ada", &["7"]));
    let mut ada = server.get("/rooms/7", &token).await;
    let mut bob = server.get("/rooms/7", &bearer(&chat.token("bob", &["7"]))).await;
    ada.sees("downlink.open").await;
    bob.sees("downlink.open").await;
    chat.hub.revoke(&chat.access, Revoked::Client(client("ada"))).unwrap();
    let stream = ada.rest().await;
    let end = "event: downlink.expired\nretry: 1000\ndata: {\"code\":\"revoked\"}\n\n";
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let last = stream.rsplit_once("\n\n\r\n").unwrap().0.rsplit_once("\r\n").unwrap().1;
    assert_eq!(lines(last), lines(end.trim_end()), "{stream}");
    chat.say("7", "still here");
    bob.sees("data: still here\n").await;

    let program = server.answer("GET /rooms/7", &token).await;
    assert!(program.starts_with("HTTP/1.1 401 ") && program.contains("revoked"), "{program}");
    let page = server.answer("GET /rooms/7", &format!("{token}{BROWSER}")).await;
    assert!(page.starts_with("HTTP/1.1 204 "), "{page}");
}

#[tokio::test]
async fn the_revocation_of_a_topic_ends_only_the_streams_that_read_the_topic() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let token = bearer(&chat.token("ada", &["7", "8"]));
    let mut seven = server.get("/rooms/7", &token).await;
    let mut eight = server.get("/rooms/8", &token).await;
    seven.sees("downlink.open").await;
    eight.sees("downlink.open").await;
    let revoked = Revoked::Topic(client("ada"), selector("rooms/7"));
    chat.hub.revoke(&chat.access, revoked).unwrap();
    assert!(seven.rest().await.contains(r#"{"code":"revoked"}"#));
    chat.say("8", "hello");
    eight.sees("data: hello\n").await;
}

#[tokio::test]
async fn the_streams_of_a_key_end_when_a_reload_of_the_options_removes_the_key() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let mut app = server.get("/rooms/7", &bearer(&chat.publish.text())).await;
    let mut ada = server.get("/rooms/7", &bearer(&chat.token("ada", &["7"]))).await;
    let mut stranger = server.get("/rooms/lobby", "").await;
    app.sees("downlink.open").await;
    ada.sees("downlink.open").await;
    stranger.sees("downlink.open").await;
    let options = options(&secret(b'q'), &chat.token, &chat.ticket);
    chat.access.reload(AccessOptions { public: Vec::new(), ..options });
    chat.hub.wake_subscribers();
    assert!(app.rest().await.contains(r#"{"code":"key_unknown"}"#));
    assert!(stranger.rest().await.contains(r#"{"code":"token_missing"}"#));
    chat.say("7", "hello");
    ada.sees("data: hello\n").await;
}

#[tokio::test]
async fn a_stream_with_a_ticket_gets_the_topics_of_the_ticket_and_the_inbox_of_the_client() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let path = format!("/mine?ticket={}", chat.ticket("ada", &["7", "8"]));
    let mut page = server.get(&path, BROWSER).await;
    page.sees("downlink.open").await;
    chat.say("8", "to the room");
    page.sees("data: to the room\n").await;
    chat.hub.to_client("ada").publish("to the client".to_owned()).unwrap();
    page.sees("data: to the client\n").await;
}

#[tokio::test]
async fn a_new_stream_with_a_ticket_ends_the_older_stream_with_the_same_ticket() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let path = format!("/mine?ticket={}", chat.ticket("ada", &["7"]));
    let mut first = server.get(&path, BROWSER).await;
    first.sees("downlink.open").await;
    let mut second = server.get(&path, BROWSER).await;
    second.sees("downlink.open").await;
    assert!(first.rest().await.contains("retry: 60000\n\n"));
    assert_eq!(chat.access.ticket_disputes(), 1);
    chat.say("7", "hello");
    second.sees("data: hello\n").await;
}

/// If a stream ends because a newer stream uses the same ticket, the client must wait for a minute
/// before it reconnects. If the app ends the stream, the client need not wait so long.
#[tokio::test]
async fn after_the_app_ends_a_stream_its_client_need_not_wait_a_minute() {
    let chat = Chat::new();
    let server = chat.serve().await;
    let path = format!("/mine?ticket={}", chat.ticket("ada", &["7"]));
    let mut page = server.get(&path, BROWSER).await;
    page.sees("downlink.open").await;
    assert_eq!(chat.hub.disconnect("ada"), 1);
    assert!(!page.rest().await.contains("retry: "));
    chat.hub.drain();
    let refused = server.answer(&format!("GET {path}"), "").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
}

/// A dispute begins when a second stream uses a ticket while the first stream is still open. Here,
/// the first stream has ended before the second stream begins.
#[tokio::test]
async fn two_streams_one_after_the_other_with_the_same_ticket_are_no_dispute() {
    let chat = Chat::new();
    let path = format!("/mine?ticket={}", chat.ticket("ada", &["7"]));
    let app = chat.app(AccessLayer::new(chat.access.clone()));
    for _ in 0..2 {
        let request = Request::get(&path).body(Body::empty()).unwrap();
        let mut page = testing::connect(&app, request).await;
        assert_eq!(page.next_event().await.unwrap().event_type, "downlink.open");
    }
    assert_eq!(chat.access.ticket_disputes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_announces_the_end_of_its_grant_and_ends() {
    let chat = Chat::new();
    let app = chat.app(AccessLayer::new(chat.access.clone()));
    let token = chat.token("ada", &["7"]);
    let before = tokio::time::Instant::now();
    let mut ada = testing::connect(&app, reader("/rooms/7", &token)).await;
    assert_eq!(ada.next_event().await.unwrap().event_type, "downlink.open");
    let next = async |ada: &mut testing::Connection<Router, Body>| {
        // The stream has no event for almost an hour. A call of `next_event` panics after a minute
        // without an event. So the test stops each call after 30 seconds and calls `next_event`
        // again.
        loop {
            match tokio::time::timeout(Duration::from_secs(30), ada.next_event()).await {
                Ok(event) => break event,
                Err(_) => assert!(before.elapsed() < Duration::from_secs(3_700)),
            }
        }
    };
    let notice = next(&mut ada).await.unwrap();
    assert_eq!(notice.event_type, "downlink.expiring");
    assert!(before.elapsed() >= Duration::from_secs(3_590 * 9 / 10), "{:?}", before.elapsed());
    assert_eq!(next(&mut ada).await.unwrap().event_type, "downlink.expired");
    assert!(before.elapsed() <= Duration::from_secs(3_601), "{:?}", before.elapsed());
    assert!(next(&mut ada).await.is_none());
    assert!(ada.reconnection_time().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_grant_can_exclude_events_that_are_addressed_only_to_everyone() {
    let chat = Chat::new();
    let app = chat.app(AccessLayer::new(chat.access.clone()));
    let grant = Grant::none().with_subscribe(selector("rooms/7")).with_client(client("ada"));
    let grant = grant.with_hear_everyone(false).with_until(now().after(Duration::from_secs(60)));
    let mut ada = testing::connect(&app, reader("/rooms/7", &chat.token_with(grant))).await;
    assert_eq!(ada.next_event().await.unwrap().event_type, "downlink.open");
    let hub = &chat.hub;
    hub.to_everyone().publish("to everyone".to_owned()).unwrap();
    ada.expect_silence().await;
    hub.to("rooms/7").and_to_everyone().publish("to the room too".to_owned()).unwrap();
    assert_eq!(ada.next_event().await.unwrap().data, "to the room too");
    hub.to_client("ada").publish("to the client".to_owned()).unwrap();
    assert_eq!(ada.next_event().await.unwrap().data, "to the client");
}

/// The app opens a subscription and then makes the stream with the grant. The client is revoked
/// between these two steps.
#[tokio::test]
async fn a_stream_is_refused_if_its_client_was_revoked_after_the_subscription_opened() {
    let chat = Chat::new();
    let grant = Grant::none().with_client(client("ada")).with_subscribe(selector("rooms/7"));
    let caller = Caller::trusted(chat.access.clone(), grant);
    let subscription = chat.hub.subscribe().topic("rooms/7").client("ada").open().await.unwrap();
    chat.hub.revoke(&chat.access, Revoked::Client(client("ada"))).unwrap();
    let refused = caller.stream(&chat.hub, subscription.into_frames()).unwrap_err();
    assert_eq!(refused.code(), Some("revoked"));
    assert_eq!(chat.hub.stats().subscribers, 0);
}

#[tokio::test]
async fn a_subscription_that_the_grant_does_not_allow_is_not_opened() {
    let chat = Chat::new();
    let grant = Grant::none().with_client(client("ada")).with_subscribe(selector("rooms/7"));
    let caller = Caller::trusted(chat.access.clone(), grant);
    let denied = chat.hub.subscribe().topic("rooms/8").open_as(&caller).await.unwrap_err();
    let StreamRefusal::Denied(denied) = denied else { panic!("{denied:?}") };
    assert_eq!(denied.code(), Some("topic_denied"));
    let other = chat.hub.subscribe().client("bob").open_as(&caller).await.unwrap_err();
    assert_eq!(other.into_http_response().status(), 403);
    let invalid = chat.hub.subscribe().topic("rooms/*").open_as(&caller).await.unwrap_err();
    assert!(matches!(invalid, StreamRefusal::Subscribe(_)), "{invalid:?}");
    assert_eq!(invalid.into_http_response().status(), 400);
    assert_eq!(chat.hub.stats().connects, 0);
}

/// A poll of a stream checks the rights, and then registers the waker. A revocation between these
/// two steps finds no waker, so it does not wake the stream. So the poll must check the rights
/// again after the second step.
#[tokio::test]
async fn a_revocation_during_a_poll_is_noticed() {
    let hub = Hub::<String>::builder().text().keep_values(String::len).build().unwrap();
    let access = Access::new(AccessOptions::default());
    let grant = Grant::none().with_client(client("ada")).with_subscribe(selector("news"));
    let caller = Caller::trusted(access.clone(), grant);
    hub.to("news").publish("old".to_owned()).unwrap();
    let (revoking, held) = (hub.clone(), access.clone());
    let revoke = move |_: &String| {
        revoking.revoke(&held, Revoked::Client(client("ada"))).unwrap();
        false
    };
    let subscribe = hub.subscribe().topic("news").start(Start::Earliest).filter(revoke);
    let mut body = pin!(subscribe.open_as(&caller).await.unwrap().into_http_response().into_body());
    let polled = body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Some(Ok(frame))) = polled else { panic!("{polled:?}") };
    let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    assert!(text.contains(r#"{"code":"revoked"}"#), "{text}");
}
