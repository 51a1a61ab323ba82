//! Tests of peers that send something other than one plain HTTP/1.1 request.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use downlink::{Event, Frame, Sse};
use futures_util::stream;
use tokio::io::AsyncWriteExt;

use super::{DropSignal, Running, body_of, goodbye_in, patiently};

async fn stream() -> impl IntoResponse {
    Sse::new(stream::pending::<Frame>())
}

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" })).route("/stream", get(stream).post(stream))
}

#[tokio::test]
async fn an_http_1_0_stream_has_no_chunks_and_ends_with_the_connection() {
    let mut running = Running::new(app()).await;
    let mut client = running.connect().await;
    client.send("GET /stream HTTP/1.0\r\n\r\n").await;
    client.sees("\r\n\r\n: connected\n\n").await;
    running.stop();
    let answer = client.rest().await;
    let retry = body_of(&answer)
        .strip_prefix(": connected\n\nretry: ")
        .expect("the last frame is a retry field");
    retry
        .strip_suffix("\n\n")
        .expect("the frame is complete")
        .parse::<u64>()
        .expect("the value is a number");
    running.ended().await;
}

/// Over HTTP/1.0, a stream ends when the server closes the connection. If the answer had
/// `Connection: keep-alive`, a proxy could not recognize this end.
#[tokio::test]
async fn an_http_1_0_stream_never_keeps_the_connection_alive() {
    let mut running = Running::new(app()).await;
    let mut stream = running.connect().await;
    stream.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    stream.sees(": connected\n\n").await;
    let mut kept = running.connect().await;
    kept.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    kept.sees("hello").await;
    assert!(kept.seen.contains("connection: keep-alive\r\n"), "{}", kept.seen);
    running.stop();
    let answer = stream.rest().await;
    assert!(!answer.contains("keep-alive\r\n"), "{answer}");
}

#[tokio::test]
async fn a_tls_hello_is_not_a_request() {
    let running = Running::new(app()).await;
    let mut client = running.connect().await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    client.io.write_all(hello).await.expect("the connection is open");
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    running.get("/").await.sees("hello").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let running = Running::new(app()).await;
    let mut client = running.connect().await;
    let one = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    client.send(&one.repeat(20)).await;
    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.rest().await.matches("\r\n\r\nhello").count(), 21);
}

/// While a stream is open, the client's next requests wait in a buffer of the server and in the
/// kernel.
#[tokio::test]
async fn requests_after_a_stream_wait_and_do_not_delay_the_drain() {
    let mut running = Running::new(app()).await;
    let mut client = running.connect().await;
    let one = "GET /stream HTTP/1.1\r\nHost: t\r\n\r\n";
    client.send(&one.repeat(3)).await;
    client.sees(": connected\n\n").await;
    running.stop();
    let answer = client.rest().await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    goodbye_in(&answer);
    running.ended().await;
}

#[tokio::test]
async fn a_half_closed_connection_ends_its_stream() {
    let (sender, sse) = Sse::channel(1);
    let sse = Arc::new(Mutex::new(Some(sse)));
    let once = move || async move {
        sse.lock().expect("no task panicked").take().expect("only one request arrives")
    };
    let running = Running::new(Router::new().route("/", get(once))).await;
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    client.io.shutdown().await.expect("the connection is open");
    patiently(sender.closed()).await;
    client.rest().await;
}

#[tokio::test]
async fn an_upgrade_that_the_app_ignores_is_an_ordinary_request() {
    let mut running = Running::new(app()).await;
    let mut client = running.connect().await;
    client.get("/stream", "Connection: upgrade\r\nUpgrade: h2c\r\n").await;
    client.sees(": connected\n\n").await;
    running.stop();
    goodbye_in(&client.rest().await);
    running.ended().await;
}

/// An app whose stream owns the body of its request and never reads this body.
fn unread(signal: DropSignal) -> Router {
    let signal = Arc::new(Mutex::new(Some(signal)));
    let keeping = move |body: axum::body::Body| async move {
        let kept = (body, signal.lock().expect("no task panicked").take());
        Sse::new(stream::unfold((kept, true), |(kept, first)| async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Some((Event::new("a"), (kept, false)))
        }))
    };
    Router::new().route("/", post(keeping))
}

#[tokio::test]
async fn an_unread_request_body_delays_neither_the_stream_nor_the_drain() {
    let (signal, dropped) = DropSignal::new();
    let mut running = Running::new(unread(signal)).await;
    let mut client = running.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nsome").await;
    client.sees("data: a\n\n").await;
    running.stop();
    goodbye_in(&client.rest().await);
    patiently(dropped).await.expect("the body is dropped");
    running.ended().await;
}

#[tokio::test]
async fn a_dropped_request_body_does_not_delay_the_stream() {
    let mut running = Running::new(app()).await;
    let mut client = running.connect().await;
    client.send("POST /stream HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nsome").await;
    client.sees(": connected\n\n").await;
    client.send("more").await;
    running.stop();
    assert!(client.rest().await.contains("\nretry: "));
    running.ended().await;
}
