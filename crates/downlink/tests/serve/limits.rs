//! Tests of the limit on the number of connections.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use downlink::serve::REFUSALS_MAX;
use downlink::{Frame, Sse};
use futures_util::stream;

use super::{Client, Running, body_of};

fn streams() -> Router {
    Router::new().route("/", get(|| async { Sse::new(stream::pending::<Frame>()) }))
}

/// Opens a stream and reads its first bytes.
async fn reading(running: &Running) -> Client {
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    client
}

async fn with_connections_max(connections_max: usize) -> Running {
    Running::with(streams(), |serve| serve.connections_max(connections_max)).await
}

#[tokio::test]
async fn a_connection_above_the_limit_is_refused_and_open_connections_stay() {
    let running = with_connections_max(2).await;
    let below = reading(&running).await;
    let mut at = reading(&running).await;
    let above = running.get("/").await.rest().await;
    assert!(above.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{above}");
    assert!(above.contains("\r\nretry-after: "), "{above}");
    assert!(above.contains("application/problem+json"), "{above}");

    // When the server has noticed that a connection has ended, it accepts another connection.
    drop(below);
    loop {
        let mut next = running.get("/").await;
        next.sees("\r\n\r\n").await;
        if next.seen.starts_with("HTTP/1.1 200 OK\r\n") {
            break;
        }
    }
    at.seen.clear();
    assert!(
        tokio::time::timeout(Duration::ZERO, at.read()).await.is_err(),
        "the connection has ended"
    );
}

#[tokio::test]
async fn a_browser_above_the_limit_gets_a_reconnection_time() {
    let running = with_connections_max(1).await;
    let _at = reading(&running).await;
    let above = running.browse("/").await.rest().await;
    assert!(above.starts_with("HTTP/1.1 200 OK\r\n"), "{above}");
    let body = body_of(&above);
    let retry = body
        .strip_prefix(": The server is at its limit of connections; come back later.\n\nretry: ");
    let millis: u64 = retry.expect(body).strip_suffix("\n\n").expect(body).parse().expect(body);
    assert!((1_000..=5_000).contains(&millis), "{millis}");
    // This is a POST from the script of a page, and not an `EventSource`. The script must see from
    // the status that the request was refused.
    let mut post = running.connect().await;
    post.send("POST / HTTP/1.1\r\nHost: t\r\nSec-Fetch-Mode: cors\r\nContent-Length: 0\r\n\r\n")
        .await;
    let refused = post.rest().await;
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
}

/// If the CORS headers do not allow a page to read an answer, an `EventSource` of the page closes
/// for good. So a refusal needs the CORS headers too.
#[tokio::test]
async fn a_page_of_another_origin_can_read_the_refusal() {
    let running = with_connections_max(1).await;
    let _at = reading(&running).await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\nSec-Fetch-Mode: cors\r\n", "HTTP/1.1 200 OK"),
        ("GET / HTTP/1.1\r\n", "HTTP/1.1 503 Service Unavailable"),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n", "HTTP/1.1 503 Service Unavailable"),
    ] {
        let mut client = running.connect().await;
        client.send(&format!("{head}Host: t\r\nOrigin: https://app.example\r\n\r\n")).await;
        let refused = client.answer().await;
        assert_eq!(refused.status, status);
        assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(refused.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(refused.header("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn a_refusal_allows_an_origin_only_if_the_request_has_exactly_one_valid_origin() {
    let running = with_connections_max(1).await;
    let _at = reading(&running).await;
    let too_long = format!("Origin: https://{}.example\r\n", "a".repeat(300));
    for origin in [
        "",
        "Origin: \r\n",
        "Origin: https://app.example evil\r\n",
        "Origin: https://app.example\r\nOrigin: https://app.example\r\n",
        "Origin: https://\u{e9}.example\r\n",
        &too_long,
    ] {
        let mut client = running.connect().await;
        client.get("/", origin).await;
        let refused = client.answer().await;
        assert_eq!(refused.status, "HTTP/1.1 503 Service Unavailable");
        let is_cors = |name: &str| name.starts_with("access-control-") || name == "vary";
        assert!(!refused.headers.iter().any(|(name, _)| is_cors(name)), "{origin:?}: {refused:?}");
    }
}

#[tokio::test]
async fn the_number_of_refused_connections_is_limited() {
    let running = with_connections_max(1).await;
    let _at = reading(&running).await;
    let mut silent = Vec::new();
    for _ in 0..REFUSALS_MAX {
        silent.push(running.connect().await);
    }
    // The number of refused connections that are open at the same time is limited. The connections
    // in `silent` have reached this limit, so the server closes the next connection without an
    // answer.
    assert_eq!(running.connect().await.rest().await, "");
    silent[0].get("/", "").await;
    silent[0].sees("503 Service Unavailable").await;
    // A refused connection that sends no request is closed after a while.
    assert_eq!(silent.pop().expect("one refused connection is still in the list").rest().await, "");
}
