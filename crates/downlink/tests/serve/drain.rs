//! Tests of the shutdown of a server (the drain): what happens to open streams, to requests in
//! progress and to idle connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use downlink::http::{Finite, Spread};
use downlink::serve::DRAIN_WITHIN;
use downlink::{Event, Frame, Sse};
use futures_util::stream;
use tokio::sync::{Notify, mpsc};

use super::{Client, DropSignal, Here, Running, Wire, body_of, goodbye_in};

const SHORT: Duration = Duration::from_millis(300);

async fn ours() -> impl IntoResponse {
    Sse::new(stream::iter([Frame::comment("a")]).chain_pending())
}

async fn axums() -> impl IntoResponse {
    let event = axum::response::sse::Event::default().comment("a");
    axum::response::Sse::new(stream::iter([Ok::<_, std::io::Error>(event)]).chain_pending())
}

/// A method that extends a stream so that the stream never ends.
trait ChainPending: futures_util::Stream + Sized {
    fn chain_pending(self) -> stream::Chain<Self, stream::Pending<Self::Item>> {
        futures_util::StreamExt::chain(self, stream::pending())
    }
}

impl<S: futures_util::Stream> ChainPending for S {}

fn streams() -> Router {
    Router::new().route("/ours", get(ours)).route("/axums", get(axums))
}

/// Opens a stream and reads its first bytes.
async fn reading(running: &Running, path: &str) -> Client {
    let mut client = running.get(path).await;
    client.sees(": a\n\n").await;
    client
}

#[tokio::test]
async fn a_drain_ends_each_stream_with_its_own_reconnection_time_after_a_complete_frame() {
    let spread = Spread::between(Duration::from_millis(100), Duration::from_secs(100));
    let mut running = Running::with(streams(), |serve| serve.reconnection_spread(spread)).await;
    let mut clients = Vec::new();
    for path in ["/ours", "/axums", "/ours", "/axums"] {
        clients.push(reading(&running, path).await);
    }
    let before = Instant::now();
    running.stop();
    let mut retries = Vec::new();
    for client in clients {
        retries.push(goodbye_in(&client.rest().await));
    }
    running.ended().await;
    assert!(before.elapsed() < DRAIN_WITHIN / 2);
    assert!(retries.iter().all(|retry| (100..=100_000).contains(retry)), "{retries:?}");
    assert!(
        retries.iter().any(|retry| *retry != retries[0]),
        "all reconnection times are equal: {retries:?}"
    );
}

#[tokio::test]
async fn a_draining_server_accepts_no_connection() {
    let mut running = Running::new(streams()).await;
    running.stop();
    super::patiently(&mut running.ended)
        .await
        .expect("no task panicked")
        .expect("the server ends without an error");
    assert!(!running.listens().await);
}

/// A response with an event stream whose chunks were not made by this crate. A handler that works
/// as a proxy returns such responses.
fn raw(chunks: mpsc::Receiver<&'static str>) -> Response {
    let stream = stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.recv().await?;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes())), chunks))
    });
    ([("content-type", "Text/Event-Stream; charset=utf-8")], Body::from_stream(stream))
        .into_response()
}

fn raw_app(chunks: mpsc::Receiver<&'static str>) -> Router {
    let chunks = Arc::new(std::sync::Mutex::new(Some(chunks)));
    let once = move || async move {
        raw(chunks.lock().expect("no task panicked").take().expect("only one request arrives"))
    };
    Router::new().route("/", get(once))
}

#[tokio::test]
async fn a_drain_waits_for_the_end_of_a_frame() {
    let (sender, chunks) = mpsc::channel(4);
    let mut running = Running::new(raw_app(chunks)).await;
    let mut client = running.get("/").await;
    sender.send("data: a\n").await.expect("the stream is open");
    client.sees("data: a\n").await;
    running.stop();
    // When the listener is closed, the drain has begun.
    while running.listens().await {}
    sender.send("data: b\n\ndata: never").await.expect("the stream is still open");
    let answer = client.rest().await;
    assert!(answer.contains("data: b\n\nretry: "), "{answer}");
    assert!(!answer.contains("never"), "{answer}");
    goodbye_in(&answer);
    running.ended().await;
}

/// In a drain, the server usually ends a stream with a frame that has a reconnection time. The
/// server cannot compress this frame, so it must not add the frame to a compressed stream.
#[tokio::test]
async fn a_compressed_stream_ends_without_a_reconnection_time() {
    let zipped = || async {
        let chunks = stream::iter([Ok::<_, std::io::Error>("compressed")]).chain_pending();
        let headers = [("content-type", "text/event-stream"), ("content-encoding", "br")];
        (headers, Body::from_stream(chunks))
    };
    let mut running = Running::new(Router::new().route("/", get(zipped))).await;
    let mut client = running.get("/").await;
    client.sees("compressed").await;
    running.stop();
    let answer = client.rest().await;
    assert!(answer.ends_with("compressed\r\n0\r\n\r\n"), "{answer}");
    running.ended().await;
}

#[tokio::test]
async fn a_drain_lets_a_finite_stream_run_to_its_end() {
    let (sender, sse) = Sse::channel(4);
    let sse = Arc::new(std::sync::Mutex::new(Some(sse.finite())));
    let once = move || async move {
        sse.lock().expect("no task panicked").take().expect("only one request arrives")
    };
    let mut running = Running::new(streams().route("/", get(once))).await;
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    let other = reading(&running, "/ours").await;
    running.stop();
    goodbye_in(&other.rest().await);
    sender.text("the answer").await.expect("the stream is still open");
    sender.finish();
    let answer = client.rest().await;
    assert!(answer.ends_with("data: the answer\n\n\r\n0\r\n\r\n"), "{answer}");
    assert!(!answer.contains("retry:"));
    running.ended().await;
}

/// The source of a finite stream ends the stream by itself. So a drain lets the stream run until
/// the deadline.
#[tokio::test]
async fn any_response_can_be_marked_as_finite() {
    let marked = || async { (axum::Extension(Finite), axums().await) };
    let app = streams().route("/", get(marked));
    let mut running = Running::with(app, |serve| serve.drain_within(SHORT)).await;
    let client = reading(&running, "/").await;
    let before = Instant::now();
    running.stop();
    running.ended().await;
    assert!(before.elapsed() >= SHORT);
    let answer = client.rest().await;
    assert!(!answer.contains("retry:") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_whatever_peers_do() {
    let flood = || async { Sse::new(stream::repeat(Event::new("x".repeat(1_000)))) };
    let never = || async { std::future::pending::<()>().await };
    let app = streams().route("/flood", get(flood)).route("/never", get(never));
    let mut running = Running::with(app, |serve| serve.drain_within(SHORT)).await;
    let mut stalled = running.get("/flood").await;
    stalled.sees(": connected\n\n").await;
    let waiting = running.get("/never").await;
    let _half = {
        let mut half = running.connect().await;
        half.send("GET / HT").await;
        half
    };
    let last = reading(&running, "/ours").await;
    let before = Instant::now();
    running.stop();
    goodbye_in(&last.rest().await);
    running.ended().await;
    assert!(before.elapsed() >= SHORT && before.elapsed() < 10 * SHORT, "{:?}", before.elapsed());
    assert_eq!(waiting.rest().await, "");
    stalled.rest().await;
}

#[tokio::test]
async fn all_bodies_are_dropped_at_the_deadline() {
    let (signal, mut dropped) = DropSignal::new();
    let signal = Arc::new(std::sync::Mutex::new(Some(signal)));
    let once = move || async move {
        let signal =
            signal.lock().expect("no task panicked").take().expect("only one request arrives");
        let frames = stream::iter([Frame::comment("a")]).chain_pending();
        Sse::new(futures_util::StreamExt::inspect(frames, move |_| {
            let _owned = &signal;
        }))
        .finite()
    };
    let (listener, place) = Here::bind().await;
    let app = Router::new().route("/", get(once));
    let serve = downlink::serve(listener, app).drain_within(Duration::ZERO);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = async {
        let mut client = Client::new(Here::connect(&place).await.expect("the server listens"));
        client.get("/", "").await;
        client.sees(": a\n\n").await;
        stop.send(()).expect("the server is running");
        client
    };
    let serving = serve.with_graceful_shutdown(stopped).into_future();
    let (ended, _client) = tokio::join!(serving, reading);
    ended.expect("the server ends without an error");
    assert!(dropped.try_recv().is_ok(), "a body still exists");
}

#[tokio::test]
async fn a_request_in_progress_gets_its_answer() {
    let gate = Arc::new(Notify::new());
    let (entered, handler_gate) = (Arc::new(Notify::new()), Arc::clone(&gate));
    let at_gate = Arc::clone(&entered);
    let slow = move || async move {
        at_gate.notify_one();
        handler_gate.notified().await;
        "done"
    };
    let mut running = Running::new(streams().route("/slow", get(slow))).await;
    let client = running.get("/slow").await;
    entered.notified().await;
    let other = reading(&running, "/ours").await;
    running.stop();
    other.rest().await;
    gate.notify_one();
    assert_eq!(body_of(&client.rest().await), "done");
    running.ended().await;
}

/// Requests a stream whose handler responds only after the drain has begun. Returns the answer.
async fn late_stream(browser: bool) -> String {
    let gate = Arc::new(Notify::new());
    let (entered, handler_gate) = (Arc::new(Notify::new()), Arc::clone(&gate));
    let at_gate = Arc::clone(&entered);
    let late = move || async move {
        at_gate.notify_one();
        handler_gate.notified().await;
        let headers = [
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-credentials", "true"),
            ("vary", "Origin"),
            ("x-app", "a header of the stream"),
        ];
        (headers, ours().await)
    };
    let mut running = Running::new(streams().route("/late", get(late))).await;
    let client = if browser { running.browse("/late").await } else { running.get("/late").await };
    entered.notified().await;
    let other = reading(&running, "/ours").await;
    running.stop();
    other.rest().await;
    gate.notify_one();
    let answer = client.rest().await;
    running.ended().await;
    answer
}

#[tokio::test]
async fn a_stream_that_begins_during_the_drain_is_refused() {
    let answer = late_stream(false).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
}

#[tokio::test]
async fn a_browser_stream_that_begins_during_the_drain_ends_at_once() {
    let answer = late_stream(true).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(body_of(&answer).starts_with(": the server is shutting down\n\nretry: "), "{answer}");
}

/// An `EventSource` of a page of another origin closes for good if it may not read the refusal. The
/// app has allowed the page to read the stream, so the page must also be allowed to read the
/// refusal.
#[tokio::test]
async fn a_refused_stream_keeps_the_headers_for_pages_of_other_origins() {
    for browser in [true, false] {
        let answer = late_stream(browser).await;
        assert_eq!(answer.matches("access-control-allow-origin: https://app.example").count(), 1);
        assert_eq!(answer.matches("access-control-allow-credentials: true").count(), 1);
        assert_eq!(answer.matches("vary: Origin").count(), 1);
        assert!(!answer.contains("x-app"), "{answer}");
    }
}

#[tokio::test]
async fn a_drain_closes_an_idle_connection_within_a_second() {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let mut running = Running::new(app).await;
    let mut idle = running.get("/").await;
    idle.sees("hello").await;
    let before = Instant::now();
    running.stop();
    idle.rest().await;
    running.ended().await;
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_connection_without_a_request_does_not_delay_the_drain() {
    let mut running = Running::new(streams()).await;
    let unused = running.connect().await;
    // The server accepts connections in the order in which they were made. So when this stream has
    // begun, the server has also accepted `unused`.
    let other = reading(&running, "/ours").await;
    let before = Instant::now();
    running.stop();
    other.rest().await;
    assert_eq!(unused.rest().await, "");
    running.ended().await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

/// Connects before the shutdown begins, and sends a request afterwards. Returns the answer.
async fn last_answer_to(request: &str) -> String {
    let hello = Router::new().route("/", get(|| async { "hello" }));
    let mut running = Running::new(hello.merge(streams())).await;
    let mut client = running.connect().await;
    // The server accepts connections in order. When this stream has begun, the server has also
    // accepted `client`.
    let other = reading(&running, "/ours").await;
    running.stop();
    other.rest().await;
    client.send(request).await;
    let answer = client.rest().await;
    running.ended().await;
    answer
}

/// A proxy may connect before the shutdown begins, and send its first request afterwards.
#[tokio::test]
async fn a_first_request_during_the_drain_is_answered_and_closes_the_connection() {
    for request in
        ["GET / HTTP/1.1\r\nHost: test\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]
    {
        let answer = last_answer_to(request).await;
        assert_eq!(body_of(&answer), "hello");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

/// A proxy may send a request on an idle connection at the same moment as the shutdown begins.
#[tokio::test]
async fn a_second_request_sent_just_before_the_drain_is_answered_and_closes_the_connection() {
    let app = Router::new().route("/", get(|| async { "hello" }));
    let mut running = Running::new(app).await;
    let mut client = running.get("/").await;
    client.sees("hello").await;
    // No other task runs between the next two calls.
    Here::write_now(&client.io, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("the socket has room");
    running.stop();
    let answers = client.rest().await;
    assert_eq!(answers.matches("\r\n\r\nhello").count(), 2, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
    running.ended().await;
}

#[tokio::test]
async fn a_first_request_sent_just_before_the_drain_is_answered() {
    let hello = Router::new().route("/", get(|| async { "hello" }));
    let mut running = Running::new(hello.merge(streams())).await;
    let client = running.connect().await;
    // The server accepts connections in order. When this stream has begun, the server has also
    // accepted `client`.
    let other = reading(&running, "/ours").await;
    // No other task runs between the next two calls.
    Here::write_now(&client.io, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("the socket has room");
    running.stop();
    assert_eq!(body_of(&client.rest().await), "hello");
    other.rest().await;
    running.ended().await;
}

/// A client sends half of the head of its first request. Then the server begins its shutdown.
/// Returns the server and the client.
async fn half_a_request_at_the_end() -> (Running, Client) {
    let hello = Router::new().route("/", get(|| async { "hello" }));
    let mut running = Running::new(hello.merge(streams())).await;
    let mut half = running.connect().await;
    half.send("GET / HTTP/1.1\r\nHo").await;
    let other = reading(&running, "/ours").await;
    running.stop();
    other.rest().await;
    (running, half)
}

#[tokio::test]
async fn a_half_sent_request_is_answered_when_it_is_complete() {
    let (running, mut half) = half_a_request_at_the_end().await;
    half.send("st: test\r\n\r\n").await;
    let answer = half.rest().await;
    assert_eq!(body_of(&answer), "hello");
    assert!(answer.contains("connection: close"), "{answer}");
    running.ended().await;
}

#[tokio::test]
async fn a_half_sent_request_does_not_delay_the_drain() {
    let before = Instant::now();
    let (running, half) = half_a_request_at_the_end().await;
    assert_eq!(half.rest().await, "");
    running.ended().await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

/// A stream ends at the moment when the shutdown begins, while another request is in progress. The
/// stream's connection must be closed without waiting for that request.
async fn stream_that_ends_with_the_server() {
    let gate = Arc::new(Notify::new());
    let (entered, handler_gate) = (Arc::new(Notify::new()), Arc::clone(&gate));
    let at_gate = Arc::clone(&entered);
    let slow = move || async move {
        at_gate.notify_one();
        handler_gate.notified().await;
        "done"
    };
    let stop = Arc::new(std::sync::Mutex::new(None::<tokio::sync::oneshot::Sender<()>>));
    let stopping = Arc::clone(&stop);
    let last = move || async move {
        Sse::new(stream::poll_fn(move |_| {
            let stop = stopping.lock().expect("no task panicked").take();
            stop.expect("the stream ends only once").send(()).expect("the server is running");
            std::task::Poll::Ready(None::<Frame>)
        }))
    };
    let app = Router::new().route("/slow", get(slow)).route("/last", get(last));
    let mut running = Running::new(app).await;
    *stop.lock().expect("no task panicked") = running.stop.take();
    let slow = running.get("/slow").await;
    entered.notified().await;
    let answer = running.get("/last").await.rest().await;
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    gate.notify_one();
    assert_eq!(body_of(&slow.rest().await), "done");
    running.ended().await;
}

/// By chance, the stream may end before or after the shutdown begins, so the test runs several
/// times.
#[tokio::test]
async fn a_connection_is_closed_at_once_if_its_stream_ends_as_the_drain_begins() {
    for _ in 0..16 {
        stream_that_ends_with_the_server().await;
    }
}
