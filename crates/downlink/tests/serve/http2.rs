//! Tests with peers that use HTTP/2 without negotiation: their first bytes are already HTTP/2
//! ("prior knowledge").

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use downlink::http::KeepAlive;
use downlink::serve::Serve;
use downlink::{Event, Frame, Sse};
use futures_util::stream::{self, StreamExt};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{DropSignal, patiently};

type Running = super::Running<super::wire::Tcp>;

const SHORT: Duration = Duration::from_millis(300);

/// A short stall limit. A peer can still answer an HTTP/2 ping within this time, even on a busy
/// machine.
const STALL: Duration = Duration::from_secs(1);

/// The maximum number of open streams that the server allows on one connection.
const STREAMS_MAX: usize = 100;

/// An HTTP/2 client. Its connection runs in a separate task.
struct Http2 {
    requests: http2::SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    async fn to(running: &Running) -> Self {
        Self::at(running.place).await
    }

    async fn at(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.expect("the server listens"));
        let (requests, connection) = patiently(
            // A few events fill a flow-control window of this size.
            http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(8_192)
                .handshake(io),
        )
        .await
        .expect("the server speaks HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        patiently(self.requests.ready()).await?;
        patiently(self.requests.send_request(request)).await
    }

    async fn try_get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        let uri = format!("http://test{path}");
        self.ask(Request::get(uri).body(Full::default()).expect("the request is valid")).await
    }

    async fn get(&mut self, path: &str) -> Answer {
        Answer::new(self.try_get(path).await.expect("the server answers"))
    }

    /// Waits until the connection has ended. Panics if it has ended with an error.
    async fn ended(self) {
        patiently(self.connection)
            .await
            .expect("no task panicked")
            .expect("the server ends without an error");
    }
}

/// A response whose body is read piece by piece.
struct Answer {
    response: Response<Incoming>,
    seen: String,
}

impl Answer {
    fn new(response: Response<Incoming>) -> Self {
        Self { response, seen: String::new() }
    }

    /// Reads until this text has arrived. Panics if the stream ends first.
    async fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let seen = self.read().await.expect("the stream is not reset");
            assert!(seen, "ended without {text:?}: {:?}", self.seen);
        }
    }

    /// Reads once. Returns `false` at the end of the body.
    async fn read(&mut self) -> hyper::Result<bool> {
        let Some(frame) = patiently(self.response.frame()).await else { return Ok(false) };
        let bytes = frame?.into_data().expect("the frame has data");
        self.seen.push_str(std::str::from_utf8(&bytes).expect("the bytes are UTF-8"));
        Ok(true)
    }

    /// Reads to the end of the body. Returns the whole text, including the text that was read
    /// before.
    async fn rest(mut self) -> hyper::Result<String> {
        while self.read().await? {}
        Ok(self.seen)
    }
}

/// A stream without events and without keep-alives.
async fn endless() -> impl IntoResponse {
    Sse::new(stream::pending::<Frame>()).keep_alive(KeepAlive::off())
}

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(async |body: Bytes| body))
        .route("/stream", get(endless))
}

#[tokio::test]
async fn plain_requests_are_answered() {
    let running = Running::new(app()).await;
    let mut client = Http2::to(&running).await;
    let hello = client.get("/").await;
    assert_eq!(hello.response.version(), Version::HTTP_2);
    assert!(!hello.response.headers().contains_key("connection"));
    assert_eq!(hello.rest().await.expect("the body is complete"), "hello");

    // The body is longer than the flow-control windows of the server and of the client.
    let long = "x".repeat(1_000_000);
    let request = Request::post("http://test/echo").body(Full::from(long.clone()));
    let echo = Answer::new(
        client.ask(request.expect("the request is valid")).await.expect("the server answers"),
    );
    assert!(echo.rest().await.expect("the body is complete") == long);
    assert_eq!(client.get("/nowhere").await.response.status(), 404);
}

#[tokio::test]
async fn events_of_a_stream_arrive_one_by_one() {
    let (sender, sse) = Sse::channel(4);
    let sse = Arc::new(Mutex::new(Some(sse)));
    let once = move || async move {
        sse.lock().expect("no task panicked").take().expect("only one request arrives")
    };
    let running = Running::new(Router::new().route("/", get(once))).await;
    let mut client = Http2::to(&running).await;
    let mut events = client.get("/").await;
    assert_eq!(events.response.headers()["content-type"], "text/event-stream");
    for number in 0..100 {
        sender.text(format!("event {number}")).await.expect("the stream is open");
        events.sees(&format!("data: event {number}\n\n")).await;
    }
    drop(events);
    // Dropping the response resets the stream, but the connection stays open.
    patiently(sender.closed()).await;
    assert_eq!(client.get("/nowhere").await.response.status(), 404);
}

#[tokio::test]
async fn a_connection_has_many_streams_up_to_a_limit() {
    let mut running = Running::new(app()).await;
    let mut client = Http2::to(&running).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut stream = client.get("/stream").await;
        stream.sees(": connected\n\n").await;
        open.push(stream);
    }
    // The client knows the limit. It sends another request only after a stream has ended.
    let mut above = Box::pin(client.get("/"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut above).await.is_err());
    drop(open.pop());
    assert_eq!(patiently(above).await.rest().await.expect("the body is complete"), "hello");
    running.stop();
    for stream in open {
        goodbye_in(&stream.rest().await.expect("the stream ends without an error"));
    }
    client.ended().await;
    running.ended().await;
}

/// The reconnection time in the last frame of a stream. Panics if the last frame has no such time.
fn goodbye_in(stream: &str) -> u64 {
    let (_, last) = stream.rsplit_once("retry: ").expect("the last frame is a retry field");
    last.strip_suffix("\n\n")
        .expect("the frame is complete")
        .parse()
        .expect("the value is a number")
}

#[tokio::test]
async fn a_drain_completes_requests_in_progress_and_accepts_no_new_requests() {
    let (sender, sse) = Sse::channel(4);
    let sse = Arc::new(Mutex::new(Some(sse.finite())));
    let once = move || async move {
        sse.lock().expect("no task panicked").take().expect("only one request arrives")
    };
    let mut running = Running::new(app().route("/finite", get(once))).await;
    let mut client = Http2::to(&running).await;
    let mut finite = client.get("/finite").await;
    finite.sees(": connected\n\n").await;
    let endless = client.get("/stream").await;
    running.stop();
    goodbye_in(&endless.rest().await.expect("the stream ends without an error"));
    sender.text("the answer").await.expect("the stream is still open");
    sender.finish();
    let answer = finite.rest().await.expect("the stream ends without an error");
    assert!(answer.ends_with("data: the answer\n\n") && !answer.contains("retry:"), "{answer}");
    assert!(client.try_get("/").await.is_err());
    client.ended().await;
    running.ended().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_drain() {
    // No test runs that long, so these limits cannot end the connection.
    let long = Duration::from_secs(3_600);
    let limits = |serve: Serve<_, _, _>| serve.write_stall_max(long).drain_within(long);
    let mut running = Running::with(app(), limits).await;
    let mut client = Http2::to(&running).await;
    client.get("/").await.rest().await.expect("the body is complete");
    running.stop();
    client.ended().await;
    running.ended().await;
}

/// A panic in a handler resets the stream of its request, and no other stream of the connection.
#[tokio::test]
async fn a_panic_resets_only_its_own_stream() {
    async fn panics() -> &'static str {
        panic!("on purpose")
    }
    let running = Running::new(app().route("/panic", get(panics))).await;
    let mut client = Http2::to(&running).await;
    let mut other = client.get("/stream").await;
    other.sees(": connected\n\n").await;
    client.try_get("/panic").await.expect_err("the request gets no answer");
    assert_eq!(client.get("/").await.rest().await.expect("the body is complete"), "hello");
}

#[tokio::test]
async fn dropping_the_server_closes_the_connection_and_its_streams() {
    let (app, dropped) = firehose();
    let running = Running::new(app).await;
    let mut client = Http2::to(&running).await;
    let mut stream = client.get("/").await;
    stream.sees("data: ").await;
    running.ended.abort();
    patiently(dropped).await.expect("the body is dropped");
    while let Ok(true) = stream.read().await {}
    // The connection may end with or without an error.
    let _ = patiently(client.connection).await.expect("no task panicked");
}

/// When the future of the server completes, the server must have dropped all streams.
#[tokio::test]
async fn all_streams_are_dropped_at_the_deadline() {
    let (signal, mut dropped) = DropSignal::new();
    let signal = Arc::new(Mutex::new(Some(signal)));
    let once = move || async move {
        let signal =
            signal.lock().expect("no task panicked").take().expect("only one request arrives");
        let frames = stream::iter([Frame::comment("a")]).chain(stream::pending());
        Sse::new(frames.inspect(move |_| {
            let _owned = &signal;
        }))
        .finite()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let app = Router::new().route("/", get(once));
    let serve = downlink::serve(listener, app).drain_within(Duration::ZERO);
    let address = serve.local_addr().expect("the listener is bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let reading = async {
        let mut client = Http2::at(address).await;
        let mut answer = client.get("/").await;
        answer.sees(": a\n\n").await;
        stop.send(()).expect("the server is running");
        (client, answer)
    };
    // Both futures run in one task, so no other task can drop the stream between the end of the
    // server and the check.
    let serving = serve.with_graceful_shutdown(stopped).into_future();
    let (ended, _open) = tokio::join!(serving, reading);
    ended.expect("the server ends without an error");
    assert!(dropped.try_recv().is_ok(), "a body still exists");
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
    (Router::new().route("/", get(once)).route("/hello", get(|| async { "hello" })), dropped)
}

/// The peer answers pings, so the connection is alive. But the peer does not read one of its
/// streams, so it does not enlarge the flow-control window of this stream.
#[tokio::test]
async fn a_stream_that_the_peer_does_not_read_is_reset_and_other_streams_stay_open() {
    let (app, dropped) = firehose();
    let running = Running::with(app, |serve| serve.write_stall_max(STALL)).await;
    let mut client = Http2::to(&running).await;
    let before = Instant::now();
    let unread = client.get("/").await;
    patiently(dropped).await.expect("the body is dropped");
    assert!(before.elapsed() >= STALL);
    assert_eq!(client.get("/hello").await.rest().await.expect("the body is complete"), "hello");
    unread.rest().await.expect_err("the stream is reset");
}

#[tokio::test]
async fn a_subscriber_whose_stream_is_reset_counts_as_stalled() {
    let hub = downlink::Hub::<String>::text();
    let subscribing = hub.clone();
    let subscribe = move || async move {
        subscribing.subscribe().topic("a").open().await.expect("the hub has room")
    };
    let app = Router::new().route("/", get(subscribe));
    let running = Running::with(app, |serve| serve.write_stall_max(SHORT)).await;
    let mut client = Http2::to(&running).await;
    let _unread = client.get("/").await;
    let publishing = async {
        while hub.stats().subscribers > 0 {
            hub.to("a").publish("x".repeat(100_000)).expect("the hub has room");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    patiently(publishing).await;
    let disconnects = hub.stats().disconnects;
    let stalled = disconnects.iter().find(|(reason, _)| reason.as_str() == "stalled");
    assert_eq!(stalled.map(|(_, count)| *count), Some(1), "{disconnects:?}");
}

/// If the peer does not read a body of known length, the server resets the stream and drops the
/// body.
#[tokio::test]
async fn a_long_body_that_the_peer_does_not_read_is_reset() {
    let (signal, dropped) = DropSignal::new();
    let signal = Arc::new(Mutex::new(Some(signal)));
    let once = move || async move {
        let owner =
            signal.lock().expect("no task panicked").take().expect("only one request arrives");
        let bytes = Bytes::from_owner(Owned(vec![0; 1_000_000], owner));
        Body::from(bytes)
    };
    let app = Router::new().route("/", get(once)).merge(Router::new().route("/hello", get("hi")));
    let running = Running::with(app, |serve| serve.write_stall_max(STALL)).await;
    let mut client = Http2::to(&running).await;
    let unread = client.get("/").await;
    patiently(dropped).await.expect("the body is dropped");
    assert_eq!(client.get("/hello").await.rest().await.expect("the body is complete"), "hi");
    drop(unread);
}

/// Bytes that send a signal when their last handle is dropped.
struct Owned(Vec<u8>, #[allow(dead_code, reason = "its drop sends a signal")] DropSignal);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The first bytes of an HTTP/2 client: the preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// `GET /` as the first request of a connection, encoded by hand.
const GET: &[u8] = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x41\x04test";

/// Connects and writes these bytes. The peer never answers a frame of the server.
async fn mute(running: &Running, frames: &[&[u8]]) -> TcpStream {
    let mut peer = TcpStream::connect(running.place).await.expect("the server listens");
    peer.write_all(&frames.concat()).await.expect("the connection is open");
    peer
}

/// Reads to the end of the connection. Returns the type and the content of each frame.
async fn frames(mut peer: TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    // The connection may also end with a reset.
    let _ = patiently(peer.read_to_end(&mut bytes)).await;
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (content, next) = after.split_at(length.min(after.len()));
        frames.push((*kind, content.to_vec()));
        rest = next;
    }
    frames
}

const GOAWAY: u8 = 7;

/// The error codes of the GOAWAY frames.
fn goaway_codes(frames: &[(u8, Vec<u8>)]) -> Vec<u32> {
    let goaway = frames.iter().filter(|(kind, _)| *kind == GOAWAY);
    goaway
        .map(|(_, content)| {
            u32::from_be_bytes(content[4..8].try_into().expect("an error code has four bytes"))
        })
        .collect()
}

#[tokio::test]
async fn a_connection_whose_peer_reads_nothing_is_closed() {
    let (app, dropped) = firehose();
    let running = Running::with(app, |serve| serve.write_stall_max(SHORT).connections_max(1)).await;
    let before = Instant::now();
    let peer = mute(&running, &[HELLO, GET]).await;
    patiently(dropped).await.expect("the body is dropped");
    assert!(before.elapsed() >= SHORT);
    // The server allows only one connection. So when it serves another connection, it has closed
    // the first connection.
    while Http2::reaches(running.place).await.is_none() {}
    drop(peer);
}

impl Http2 {
    /// Connects and sends a request. Returns `None` if the server was at its limit of connections.
    async fn reaches(address: SocketAddr) -> Option<Self> {
        let io = TokioIo::new(TcpStream::connect(address).await.expect("the server listens"));
        let handshake = http2::handshake(TokioExecutor::new(), io);
        let (requests, connection) = patiently(handshake).await.ok()?;
        let mut client = Self { requests, connection: tokio::spawn(connection) };
        client.try_get("/hello").await.ok()?;
        Some(client)
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_gets_a_goaway_and_does_not_delay_the_drain() {
    let mut running = Running::with(app(), |serve| serve.write_stall_max(SHORT)).await;
    let peer = mute(&running, &[HELLO, GET]).await;
    // The first byte belongs to the server's SETTINGS frame, so the server now uses HTTP/2 on this
    // connection.
    patiently(peer.peek(&mut [0; 1])).await.expect("the connection is open");
    running.stop();
    running.ended().await;
    let codes = goaway_codes(&frames(peer).await);
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 0), "{codes:?}");
}

#[tokio::test]
async fn a_connection_ends_with_a_goaway() {
    let mut running = Running::with(app(), |serve| serve.write_stall_max(SHORT)).await;
    let peer = mute(&running, &[HELLO, GET]).await;
    let mut first = [0; 1];
    patiently(peer.peek(&mut first)).await.expect("the connection is open");
    running.stop();
    let frames = frames(peer).await;
    assert!(frames.iter().any(|(_, content)| content == b"hello"), "{frames:?}");
    let codes = goaway_codes(&frames);
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 0), "{codes:?}");
    running.ended().await;
}

#[tokio::test]
async fn a_connection_without_an_open_stream_is_closed_after_a_while() {
    let timeouts = |serve: Serve<_, _, _>| {
        serve.header_timeout(SHORT).idle_timeout(SHORT).write_stall_max(SHORT * 10)
    };
    let running = Running::with(app(), timeouts).await;
    let before = Instant::now();
    let mut client = Http2::to(&running).await;
    client.get("/").await.rest().await.expect("the body is complete");
    client.ended().await;
    assert!(before.elapsed() >= SHORT);
    // While a stream is open, the connection stays open too.
    let mut client = Http2::to(&running).await;
    let stream = client.get("/stream").await;
    for _ in 0..2 {
        // The header timeout closes this second connection. So when this connection is closed, the
        // timeout has passed.
        assert_eq!(running.connect().await.rest().await, "");
    }
    assert_eq!(client.get("/").await.rest().await.expect("the body is complete"), "hello");
    drop(stream);
    client.ended().await;
    // A client that sends only half a preface, or a preface without SETTINGS, has sent no request.
    // So its connection is closed too.
    for sent in [10, HELLO.len() - 9] {
        frames(mute(&running, &[&HELLO[..sent]]).await).await;
    }
}

#[tokio::test]
async fn the_limit_of_connections_counts_connections_and_not_streams() {
    let running = Running::with(app(), |serve| serve.connections_max(1)).await;
    let mut client = Http2::to(&running).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.get("/stream").await);
    }
    let above = running.get("/").await.rest().await;
    assert!(above.starts_with("HTTP/1.1 503 "), "{above}");
    drop((open, client));
    loop {
        let mut next = running.get("/").await;
        next.sees("\r\n\r\n").await;
        if next.seen.starts_with("HTTP/1.1 200 OK\r\n") {
            break;
        }
    }
}

/// The network may split the preface (the first bytes of an HTTP/2 client) at any byte.
#[tokio::test]
async fn the_preface_may_arrive_byte_by_byte() {
    let limits = |serve: Serve<_, _, _>| serve.header_timeout(SHORT).write_stall_max(SHORT);
    let running = Running::with(app(), limits).await;
    let mut peer = mute(&running, &[]).await;
    peer.set_nodelay(true).expect("the connection is open");
    for byte in HELLO.chunks(1) {
        peer.write_all(byte).await.expect("the connection is open");
        tokio::task::yield_now().await;
    }
    peer.write_all(GET).await.expect("the connection is open");
    let frames = frames(peer).await;
    assert!(frames.iter().any(|(_, content)| content == b"hello"), "{frames:?}");
}

#[tokio::test]
async fn curl_reads_events() {
    let Ok(version) = tokio::process::Command::new("curl").arg("--version").output().await else {
        return eprintln!("curl_reads_events: skipped, because curl is not installed");
    };
    if !String::from_utf8_lossy(&version.stdout).contains("HTTP2") {
        return eprintln!("curl_reads_events: skipped, because this curl does not support HTTP/2");
    }
    let two = || async { Sse::new(stream::iter([Event::new("a"), Event::new("b")])) };
    let running = Running::new(Router::new().route("/", get(two))).await;
    let url = format!("http://{}/", running.place);
    let mut curl = tokio::process::Command::new("curl");
    let arguments = ["-sN", "--http2-prior-knowledge", "-w", "%{http_version}", "-m", "20"];
    let output = patiently(curl.args(arguments).arg(url).output()).await.expect("curl can run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.ends_with("data: a\n\ndata: b\n\n2"), "{said}");
}
