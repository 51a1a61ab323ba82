//! Tests of the module `downlink::testing`. With this module, users test an app without sockets and
//! with a paused clock.

#![cfg(all(feature = "axum", feature = "testing"))]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Router, http::Request};
use downlink::hub::{Clock, Hub};
use downlink::testing::{self, Connection};
use downlink::{Event, LastEventId, Sse};
use futures_util::{FutureExt, stream};

fn app(hub: &Hub<String>) -> Router {
    let hub = hub.clone();
    let join = move |last: LastEventId| async move {
        hub.subscribe().topic("a").client("c").resume(last).open().await
    };
    Router::new().route("/", get(join))
}

async fn connect(app: &Router) -> Connection<Router, Body> {
    testing::connect(app, Request::get("/").body(Body::empty()).unwrap()).await
}

/// Opens a connection and reads `downlink.open`.
async fn connected(hub: &Hub<String>) -> Connection<Router, Body> {
    let mut connection = connect(&app(hub)).await;
    assert_eq!(connection.next_event().await.unwrap().event_type, "downlink.open");
    connection
}

fn say(hub: &Hub<String>, data: &str) -> String {
    hub.to("a").publish(data.to_owned()).unwrap().id().unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_connection_shows_the_status_headers_and_events_of_the_response() {
    let hub = Hub::text();
    let mut connection = connected(&hub).await;
    assert_eq!(connection.status(), 200);
    assert_eq!(connection.headers()["content-type"], "text/event-stream");
    assert_eq!(connection.next_comment().await.as_deref(), Some("connected"));
    assert_eq!(connection.last_event_id(), hub.cursor().as_str());
    let id = say(&hub, "x");
    let event = connection.next_event().await.unwrap();
    assert_eq!((event.data.as_str(), event.event_type.as_ref()), ("x", "message"));
    assert_eq!(connection.last_event_id(), id);
}

#[tokio::test(start_paused = true)]
async fn after_a_reconnect_the_app_sends_unread_events_again() {
    let hub = Hub::text();
    let mut connection = connected(&hub).await;
    say(&hub, "1");
    say(&hub, "2");
    assert_eq!(connection.next_event().await.unwrap().data, "1");
    connection.reconnect().await;
    assert_eq!(hub.stats().subscribers, 1, "the first connection must have ended");
    let open = connection.next_event().await.unwrap();
    assert!(open.data.starts_with("{\"resumed\":true"), "{open:?}");
    assert_eq!(connection.next_event().await.unwrap().data, "2");
}

#[tokio::test(start_paused = true)]
async fn a_check_for_silence_fails_at_an_event_and_not_at_a_comment() {
    let hub = Hub::text();
    let mut connection = connected(&hub).await;
    connection.expect_silence().await;
    testing::advance(&Clock::system(), Duration::from_secs(20)).await;
    connection.expect_silence().await;
    assert_eq!(connection.next_comment().await.as_deref(), Some("connected"));
    assert_eq!(connection.next_comment().await.as_deref(), Some("keep-alive"));
    say(&hub, "x");
    let broken = std::panic::AssertUnwindSafe(connection.expect_silence()).catch_unwind().await;
    assert!(broken.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_check_for_silence_fails_if_the_stream_has_ended() {
    let hub = Hub::<String>::text();
    let mut connection = connected(&hub).await;
    hub.disconnect("c");
    let ended = std::panic::AssertUnwindSafe(connection.expect_silence()).catch_unwind().await;
    assert!(ended.is_err());
    assert!(connection.next_event().await.is_none());
    assert!(!connection.was_cut());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_event_panics_after_a_time_limit_if_none_comes() {
    let hub = Hub::text();
    let mut connection = connected(&hub).await;
    let waited = std::panic::AssertUnwindSafe(connection.next_event()).catch_unwind().await;
    assert!(waited.is_err(), "keep-alives are not events");
    say(&hub, "x");
    assert_eq!(connection.next_event().await.unwrap().data, "x", "the wait must not lose an event");
}

#[tokio::test(start_paused = true)]
async fn a_drained_stream_ends_with_a_reconnection_time() {
    let hub = Hub::<String>::text();
    let mut connection = connected(&hub).await;
    assert_eq!(connection.reconnection_time(), None);
    hub.drain();
    assert!(connection.next_event().await.is_none());
    assert!(
        connection.next_comment().await.is_some(),
        "the earlier comment must still be readable"
    );
    assert!(connection.next_comment().await.is_none());
    let wait = connection.reconnection_time().unwrap();
    assert!((Duration::from_millis(500)..=Duration::from_secs(5)).contains(&wait));
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_body_fails_counts_as_cut() {
    let failing = || async {
        let items = [Ok(Event::new("one")), Err(std::io::Error::other("broken"))];
        Sse::new(stream::iter(items))
    };
    let mut connection = connect(&Router::new().route("/", get(failing))).await;
    assert_eq!(connection.next_event().await.unwrap().data, "one");
    assert!(connection.next_event().await.is_none());
    assert!(connection.was_cut());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_a_status_and_no_events() {
    let hub = Hub::<String>::text();
    hub.close();
    let mut connection = connect(&app(&hub)).await;
    assert_eq!(connection.status(), 503);
    assert!(connection.headers().contains_key("retry-after"));
    assert!(connection.next_event().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn advancing_the_time_moves_the_clocks_of_the_hub_and_of_tokio() {
    let clock = Clock::manual();
    let hub = Hub::<String>::builder().text().clock(clock.clone()).build().unwrap();
    say(&hub, "x");
    let (before, time) = (tokio::time::Instant::now(), clock.now());
    let day = Duration::from_secs(24 * 60 * 60);
    testing::advance(&clock, day).await;
    assert_eq!(before.elapsed(), day);
    assert_eq!(clock.now(), time.after(day));
    assert_eq!(hub.stats().events, 0, "the event must have expired");
}

#[tokio::test(start_paused = true)]
async fn connecting_panics_after_a_time_limit_if_the_app_does_not_answer() {
    let app = Router::new().route("/", get(std::future::pending::<()>));
    let waited = std::panic::AssertUnwindSafe(connect(&app)).catch_unwind().await;
    assert!(waited.is_err());
}
