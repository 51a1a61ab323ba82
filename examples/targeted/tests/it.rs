//! Tests of the endpoints and of the program. The tests of the endpoints use a paused clock and no
//! socket.

#[path = "../../basic/tests/support/mod.rs"]
mod support;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use downlink::hub::PublishError;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use support::{open, patiently, program, send};
use targeted::TIMES_MAX;
use tokio::time::Instant;

fn app() -> Router {
    targeted::app(targeted::hub().expect("the settings are valid"))
}

async fn request(app: &Router, method: &str, path: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    let response = send(app, request.expect("the request is valid")).await;
    let status = response.status();
    if !status.is_success() {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    let body = response.into_body().collect().await.expect("the body is complete").to_bytes();
    (status, String::from_utf8(body.into()).expect("the text is UTF-8"))
}

/// Pings a client. Returns the number of connections in the answer.
async fn ping(app: &Router, id: &str) -> String {
    let (status, answer) = request(app, "POST", &format!("/ping/{id}")).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// A clock that starts at 2001-09-09T01:46:40.9Z and advances with tokio's clock.
fn clock() -> impl Fn() -> Timestamp {
    let (began, began_at) = (Instant::now(), Timestamp::from_millisecond(1_000_000_000_900));
    let began_at = began_at.expect("the time is valid");
    move || began_at + began.elapsed()
}

/// The last id in a stream.
fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

#[tokio::test]
async fn hello_reaches_every_connection_of_a_client_and_no_other_client() {
    let hub = targeted::hub().expect("the settings are valid");
    let app = targeted::app(hub.clone());
    let mut tabs = [open(&app, "/sse?id=alice", "").await, open(&app, "/sse?id=alice", "").await];
    let mut others = [
        open(&app, "/sse?id=bob", "").await,
        open(&app, "/sse", "").await,
        open(&app, "/sse?id=", "").await,
    ];
    assert_eq!(ping(&app, "alice").await, r#"{"connections":2}"#);
    for tab in &mut tabs {
        let seen = tab.sees("data: Hello, alice!\n\n").await;
        let (_, hello) = seen.split_once("}\n\nid: ").expect("the event has no type");
        assert_eq!(hello.lines().count(), 3, "{hello}");
    }
    let receipt = hub.publish("for everyone".into()).expect("the event is published");
    assert_eq!(receipt.matched(), Some(5));
    for other in &mut others {
        let seen = other.sees("for everyone").await;
        assert!(!seen.contains("Hello"), "{seen}");
    }
}

#[tokio::test]
async fn hello_to_a_disconnected_client_arrives_when_the_client_reconnects() {
    let app = app();
    let id = last_id(open(&app, "/sse?id=alice", "").await.sees("keep_alive_ms").await);
    assert_eq!(ping(&app, "alice").await, r#"{"connections":0}"#);
    open(&app, "/sse?id=alice", &id).await.sees("Hello, alice!").await;

    let mut new = open(&app, "/sse?id=alice", "").await;
    assert_eq!(ping(&app, "alice").await, r#"{"connections":1}"#);
    assert_eq!(new.sees("Hello, alice!").await.matches("Hello").count(), 1);
}

#[tokio::test]
async fn closed_connection_is_not_counted() {
    let app = app();
    let first = open(&app, "/sse?id=alice", "").await;
    let _second = open(&app, "/sse?id=alice", "").await;
    drop(first);
    assert_eq!(ping(&app, "alice").await, r#"{"connections":1}"#);
}

#[tokio::test(start_paused = true)]
async fn everyone_gets_the_time_each_second() {
    let hub = targeted::hub().expect("the settings are valid");
    let app = targeted::app(hub.clone());
    let mut streams = [open(&app, "/sse?id=alice", "").await, open(&app, "/sse", "").await];
    tokio::spawn(targeted::publish_time(hub, clock()));
    for stream in &mut streams {
        let seen = stream.sees("data: 2001-09-09T01:46:42Z\n\n").await;
        let times: Vec<_> = seen.lines().filter(|line| line.starts_with("data: 2")).collect();
        let expected = ["40", "41", "42"].map(|second| format!("data: 2001-09-09T01:46:{second}Z"));
        assert_eq!(times, expected);
        assert_eq!(seen.matches("event: time\n").count(), 3, "{seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn publishing_the_time_ends_when_the_hub_is_closed() {
    let hub = targeted::hub().expect("the settings are valid");
    let publishing = tokio::spawn(targeted::publish_time(hub.clone(), clock()));
    hub.close();
    let ended = patiently(publishing).await.expect("no task panicked");
    assert!(matches!(ended, Err(PublishError::Closed)), "{ended:?}");
}

#[tokio::test]
async fn client_gets_a_gap_only_if_it_missed_more_events_than_the_hub_keeps() {
    for (times, is_gap) in [(TIMES_MAX - 1, false), (TIMES_MAX, false), (TIMES_MAX + 1, true)] {
        let hub = targeted::hub().expect("the settings are valid");
        let app = targeted::app(hub.clone());
        let id = last_id(open(&app, "/sse", "").await.sees("keep_alive_ms").await);
        for number in 1..=times {
            let _receipt =
                hub.publish(format!("number {number}.")).expect("the event is published");
        }
        let mut stream = open(&app, "/sse", &id).await;
        let seen = stream.sees(&format!("number {times}.")).await;
        assert_eq!(seen.contains("downlink.gap"), is_gap, "{seen}");
        assert_eq!(seen.matches("data: number").count(), times.min(TIMES_MAX));
    }
}

#[tokio::test]
async fn client_id_may_have_umlauts_spaces_and_slashes() {
    let app = app();
    let mut stream = open(&app, "/sse?id=J%C3%BCrgen%20%2F%20M%C3%BCller", "").await;
    let pinged = ping(&app, "J%C3%BCrgen%20%2F%20M%C3%BCller").await;
    assert_eq!(pinged, r#"{"connections":1}"#);
    stream.sees("data: Hello, Jürgen / Müller!\n\n").await;
}

#[tokio::test]
async fn invalid_client_id_is_refused_with_400() {
    let app = app();
    let long = "x".repeat(257);
    for (method, path) in [
        ("GET", "/sse?id=a%0Ab".to_owned()),
        ("GET", "/sse?id=a&id=b".to_owned()),
        ("GET", format!("/sse?id={long}")),
        ("POST", "/ping/a%0Ab".to_owned()),
        ("POST", "/ping/%FF".to_owned()),
        ("POST", format!("/ping/{long}")),
    ] {
        let (status, answer) = request(&app, method, &path).await;
        assert_eq!(status, 400, "{path}: {answer}");
        assert!(answer.contains(r#""detail":""#), "{answer}");
    }
}

#[cfg(unix)]
mod started {
    use rustix::process::Signal;

    use super::program;

    const PROGRAM: &str = env!("CARGO_BIN_EXE_targeted");

    #[tokio::test]
    async fn program_ends_at_ctrl_c() {
        program::ends_with_an_open_stream(PROGRAM, "/sse?id=alice", Signal::INT).await;
    }

    #[tokio::test]
    async fn program_ends_at_sigterm() {
        program::ends_with_an_open_stream(PROGRAM, "/sse", Signal::TERM).await;
    }

    #[tokio::test]
    async fn the_error_names_the_port_that_is_in_use() {
        program::names_a_port_in_use(PROGRAM).await;
    }

    #[tokio::test]
    async fn the_port_is_set_by_the_argument_or_by_the_variable() {
        program::takes_its_port_from_argument_or_variable(PROGRAM).await;
    }
}
