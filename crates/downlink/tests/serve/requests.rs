//! Tests of the kinds of apps that the server serves, and of single requests.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::routing::get;
use downlink::serve::RequestBody;
use downlink::{Event, Frame, Sse};
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::{DropSignal, Running, body_of, patiently};

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }).post(|body: String| async { body }))
}

/// An app that is a tower service. It calls a closure for each request.
#[derive(Clone)]
struct ServiceFn<F>(F);

impl<F, Answer> Service<http::Request<RequestBody>> for ServiceFn<F>
where
    F: Fn(http::Request<RequestBody>) -> Answer,
    Answer: Future + Send + 'static,
{
    type Response = Answer::Output;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer::Output, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// Sends one request for `/` and returns the body of the answer.
async fn asked(running: &Running) -> String {
    let mut client = running.connect().await;
    client.get("/", "Connection: close\r\n").await;
    body_of(&client.rest().await).to_owned()
}

#[tokio::test]
async fn a_router_is_served() {
    assert_eq!(asked(&Running::new(hello()).await).await, "hello");
}

#[tokio::test]
async fn any_tower_service_is_served() {
    let service = ServiceFn(|request: http::Request<RequestBody>| async move {
        let body = request.into_body().collect().await.expect("the request is complete").to_bytes();
        Response::new(Full::<Bytes>::from(format!("{} bytes", body.len())))
    });
    let running = Running::with(service, |serve| serve).await;
    let mut client = running.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").await;
    client.sees("3 bytes").await;
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let running = Running::new(hello()).await;
    let mut client = running.get("/").await;
    client.sees("hello").await;
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nsecond").await;
    client.sees("second").await;
}

#[tokio::test]
async fn the_first_bytes_arrive_before_any_event() {
    let app = Router::new().route("/", get(|| async { Sse::new(stream::pending::<Frame>()) }));
    let running = Running::new(app).await;
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    let head = client.seen.split_once("\r\n\r\n").expect("the head is complete").0.to_lowercase();
    for header in [
        "http/1.1 200 ok",
        "content-type: text/event-stream",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "transfer-encoding: chunked",
    ] {
        assert!(head.lines().any(|line| line == header), "{header:?} not in {head:?}");
    }
    assert!(!head.contains("\nconnection:"), "{head:?}");
}

#[tokio::test]
async fn a_head_request_gets_headers_and_drops_the_body() {
    let (sender, sse) = Sse::channel(1);
    let sse = Arc::new(Mutex::new(Some(sse)));
    let service = ServiceFn(move |_: http::Request<RequestBody>| {
        let sse = sse.lock().expect("no task panicked").take().expect("only one request arrives");
        async { sse.into_http_response() }
    });
    let running = Running::with(service, |serve| serve).await;
    let mut client = running.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await;
    patiently(sender.closed()).await;
    let answer = client.rest().await;
    assert!(answer.contains("content-type: text/event-stream"), "{answer}");
    assert_eq!(body_of(&answer), "");
}

#[tokio::test]
async fn the_sender_notices_that_its_peer_has_left() {
    let (sender, sse) = Sse::channel(1);
    let sse = Arc::new(Mutex::new(Some(sse)));
    let once = move || async move {
        sse.lock().expect("no task panicked").take().expect("only one request arrives")
    };
    let running = Running::new(Router::new().route("/", get(once))).await;
    let mut client = running.get("/").await;
    sender.send(Event::new("a")).await.expect("the stream is open");
    client.sees("data: a\n\n").await;
    drop(client);
    patiently(sender.closed()).await;
}

async fn broken() -> StatusCode {
    panic!("bug")
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_only_its_connection() {
    let app = hello().route("/panic", get(broken));
    let running = Running::new(app).await;
    let mut other = running.get("/").await;
    other.sees("hello").await;
    assert_eq!(running.get("/panic").await.rest().await, "");
    other.seen.clear();
    other.get("/", "").await;
    other.sees("hello").await;
    assert_eq!(asked(&running).await, "hello");
}

#[tokio::test]
async fn a_panicking_stream_ends_only_its_connection() {
    let once = || async {
        let events = stream::iter([1, 2]);
        Sse::new(futures_util::StreamExt::map(events, |n| match n {
            1 => Event::new("a"),
            _ => panic!("bug"),
        }))
    };
    let running = Running::new(hello().route("/events", get(once))).await;
    let broken = running.get("/events").await.rest().await;
    assert!(broken.contains("data: a\n\n"), "{broken}");
    assert!(!broken.ends_with("0\r\n\r\n"), "the stream has a regular end: {broken}");
    assert_eq!(asked(&running).await, "hello");
}

async fn echo(mut request: Request) -> Response<String> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.expect("the connection is upgraded"));
        let (mut from, mut to) = tokio::io::split(&mut io);
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let switching = switching.header("connection", "upgrade").header("upgrade", "echo");
    switching.body(String::new()).expect("the response is valid")
}

#[tokio::test]
async fn an_upgraded_connection_belongs_to_the_app_and_counts_as_a_connection() {
    let app = hello().route("/echo", get(echo));
    let running = Running::with(app, |serve| serve.connections_max(1)).await;
    let mut client = running.connect().await;
    client.get("/echo", "Connection: upgrade\r\nUpgrade: echo\r\n").await;
    client.sees("\r\n\r\n").await;
    client.send("back again").await;
    client.sees("back again").await;
    running.get("/").await.sees("503 Service Unavailable").await;
}

#[tokio::test]
async fn dropping_the_server_closes_all_connections() {
    let (signal, dropped) = DropSignal::new();
    let signal = Arc::new(Mutex::new(Some(signal)));
    let app = Router::new().route(
        "/",
        get(move || async move {
            let signal =
                signal.lock().expect("no task panicked").take().expect("only one request arrives");
            Sse::new(stream::poll_fn(move |_| {
                let _owned = &signal;
                std::task::Poll::<Option<Frame>>::Pending
            }))
        }),
    );
    let running = Running::new(app).await;
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    running.ended.abort();
    patiently(dropped).await.expect("the body is dropped");
    client.rest().await;
    assert!(!running.listens().await);
}
