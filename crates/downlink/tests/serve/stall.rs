//! Tests of peers that send or read too slowly.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use downlink::serve::Serve;
use downlink::{Event, Sse};
use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;

use super::{Client, DropSignal, Running, patiently};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn the_header_timeout_closes_a_silent_connection() {
    let running = Running::with(Router::new(), |serve| serve.header_timeout(SHORT)).await;
    let before = Instant::now();
    assert_eq!(running.connect().await.rest().await, "");
    assert!(before.elapsed() >= SHORT);
}

#[tokio::test]
async fn the_header_timeout_closes_a_connection_with_half_a_head() {
    let running = Running::with(Router::new(), |serve| serve.header_timeout(SHORT)).await;
    let mut client = running.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: te").await;
    let answer = client.rest().await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

/// Starts a server with a short header timeout and a long idle timeout. Returns the server and a
/// client whose connection is idle after one answer.
async fn answered() -> (Running, Client) {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let limits =
        |serve: Serve<_, _, _>| serve.header_timeout(SHORT).idle_timeout(Duration::from_secs(60));
    let running = Running::with(app, limits).await;
    let mut client = running.connect().await;
    client.get("/", "").await;
    client.sees("hello").await;
    (running, client)
}

/// A load balancer may keep an idle connection open for a minute and then send a request on it. So
/// the header timeout must not close an idle connection.
#[tokio::test]
async fn an_idle_connection_may_outlast_the_header_timeout() {
    let (running, mut client) = answered().await;
    // The header timeout closes this second connection. So when this connection is closed, the
    // timeout has passed.
    let mut other = running.connect().await;
    other.send("GET / HTTP/1.1\r\nHost: te").await;
    other.rest().await;
    client.get("/", "Connection: close\r\n").await;
    assert!(client.rest().await.ends_with("hello"));
}

#[tokio::test]
async fn the_header_timeout_applies_to_the_head_of_a_second_request() {
    let (_running, mut client) = answered().await;
    client.send("GET / HTTP/1.1\r\nHost: te").await;
    assert!(client.rest().await.ends_with("hello"), "the incomplete head got an answer");
}

#[tokio::test]
async fn the_idle_timeout_closes_an_idle_connection() {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let running = Running::with(app, |serve| serve.idle_timeout(SHORT)).await;
    let mut client = running.connect().await;
    let before = Instant::now();
    client.get("/", "").await;
    assert!(client.rest().await.ends_with("hello"));
    assert!(before.elapsed() >= SHORT);
}

/// Sends a request whose head has this many bytes, and returns the answer.
async fn answer_to_head_of(bytes: usize) -> String {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let running = Running::new(app).await;
    let mut client = running.connect().await;
    let bare = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nCookie: \r\n\r\n".len();
    let cookie = "x".repeat(bytes - bare);
    client.get("/", &format!("Connection: close\r\nCookie: {cookie}\r\n")).await;
    client.rest().await
}

#[tokio::test]
async fn a_head_may_have_32_kib() {
    for bytes in [32 * 1024 - 1, 32 * 1024] {
        assert!(answer_to_head_of(bytes).await.ends_with("hello"), "{bytes}");
    }
    let answer = answer_to_head_of(32 * 1024 + 1).await;
    assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    assert!(answer.contains("more than 32768 bytes or 100 fields"), "{answer}");
}

/// The answer to an invalid request must give the reason, even if the request is the second one on
/// its connection.
#[tokio::test]
async fn too_many_fields_and_invalid_http_are_refused_with_a_reason() {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let running = Running::new(app).await;
    let fields = |count: usize| (0..count).map(|at| format!("X{at}: y\r\n")).collect::<String>();
    for (request, status, says) in [
        (format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", fields(101)), 431, "or 100 fields"),
        ("GET /a b HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 400, "not a request in HTTP/1.1"),
    ] {
        let mut client = running.connect().await;
        client.get("/", &fields(90)).await;
        client.sees("hello").await;
        client.seen.clear();
        client.send(&request).await;
        let answer = client.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(says), "{answer}");
    }
}

/// An app with an endless stream at `/`, and a signal for the end of that stream.
fn firehose() -> (Router, oneshot::Receiver<()>) {
    let (signal, dropped) = DropSignal::new();
    let signal = Arc::new(Mutex::new(Some(signal)));
    let once = move || async move {
        let signal =
            signal.lock().expect("no task panicked").take().expect("only one request arrives");
        let event = Event::new("x".repeat(1_000));
        Sse::new(stream::repeat(event).inspect(move |_| {
            let _owned = &signal;
        }))
    };
    (Router::new().route("/", get(once)), dropped)
}

/// The socket type and the HTTP version decide whether the server or hyper (the HTTP library)
/// writes the stream. The socket type also decides whether the kernel or the server measures how
/// long a write is blocked. In every case, the subscriber must count as stalled.
#[tokio::test]
async fn a_subscriber_that_reads_nothing_counts_as_stalled() {
    for version in ["1.1", "1.0"] {
        let hub = downlink::Hub::<String>::text();
        let subscribing = hub.clone();
        let subscribe = move || async move {
            subscribing.subscribe().topic("a").open().await.expect("the hub has room")
        };
        let app = Router::new().route("/", get(subscribe));
        let running = Running::with(app, |serve| serve.write_stall_max(SHORT)).await;
        let mut client = running.connect().await;
        client.send(&format!("GET / HTTP/{version}\r\nHost: t\r\n\r\n")).await;
        client.sees(": connected").await;
        let count = |reason: &str| {
            let counts = hub.stats().disconnects;
            counts.iter().find(|(named, _)| named.as_str() == reason).map(|(_, count)| *count)
        };
        let publishing = async {
            while hub.stats().subscribers > 0 {
                hub.to("a").publish("x".repeat(100_000)).expect("the hub has room");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        patiently(publishing).await;
        assert_eq!((count("stalled"), count("left")), (Some(1), Some(0)), "HTTP/{version}");
        // A reader that disconnects does not count as stalled.
        let mut other = running.connect().await;
        other.get("/", "").await;
        other.sees(": connected").await;
        drop(other);
        let publishing = async {
            while hub.stats().subscribers > 0 {
                hub.to("a").publish("x".to_owned()).expect("the hub has room");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        patiently(publishing).await;
        assert_eq!((count("stalled"), count("left")), (Some(1), Some(1)), "HTTP/{version}");
    }
}

#[tokio::test]
async fn a_connection_whose_peer_reads_nothing_is_closed() {
    let (app, dropped) = firehose();
    let running = Running::with(app, |serve| serve.write_stall_max(SHORT)).await;
    let before = Instant::now();
    let client = running.get("/").await;
    patiently(dropped).await.expect("the body is dropped");
    assert!(before.elapsed() >= SHORT);
    assert!(!client.rest().await.ends_with("0\r\n\r\n"), "the stream has a regular end");
}
