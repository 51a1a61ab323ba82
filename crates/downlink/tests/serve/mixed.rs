//! Tests of connections with streams and other requests, and of peers that behave in unusual ways.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::routing::get;
use downlink::{Event, Frame, Sse, SseSender};
use futures_util::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Client, DropSignal, Here, Running, Wire, patiently};

async fn echo(mut request: Request) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.expect("the connection is upgraded"));
        let (mut from, mut to) = tokio::io::split(&mut io);
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let switching = switching.header("connection", "upgrade").header("upgrade", "echo");
    switching.body(Body::empty()).expect("the response is valid")
}

async fn finite() -> Sse<impl downlink::http::FrameSource> {
    Sse::new(stream::iter(["a", "b"]).map(Event::new))
}

async fn read_then_stream(body: Bytes) -> Sse<impl downlink::http::FrameSource> {
    Sse::new(stream::iter([Event::new(format!("{} bytes", body.len()))]))
}

async fn stream_unread(body: Body) -> Sse<impl downlink::http::FrameSource> {
    drop(body);
    finite().await
}

fn app() -> Router {
    Router::new()
        .route("/plain", get(|| async { "plain" }))
        .route("/finite", get(finite).post(read_then_stream))
        .route("/unread", get(finite).post(stream_unread))
        .route("/echo", get(echo))
}

const FINITE: &str = ": connected\n\ndata: a\n\ndata: b\n\n";

/// An app whose route `/` answers with a stream. For each request, the test receives the sender of
/// the stream's events.
fn conversation() -> (Router, mpsc::Receiver<SseSender>) {
    let (begun, begins) = mpsc::channel(8);
    let talk = move || {
        let begun = begun.clone();
        async move {
            let (sender, sse) = Sse::channel(4);
            begun.send(sender).await.expect("the test waits for a sender");
            sse
        }
    };
    (app().route("/", get(talk)), begins)
}

#[tokio::test]
async fn pipelined_requests_before_and_after_streams_are_answered_in_order() {
    let running = Running::new(app()).await;
    let mut client = running.connect().await;
    let paths = ["/finite", "/plain", "/plain", "/finite", "/finite", "/plain"];
    let requests = paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
    client.send(&requests.concat()).await;
    for path in paths {
        let body = if path == "/plain" { "plain" } else { FINITE };
        assert_eq!(client.answer().await.body, body);
    }
    assert_eq!(client.seen, "");
}

/// The client sends all requests before it reads an answer. The requests have more bytes than hyper
/// (the HTTP library) reads at once.
#[tokio::test]
async fn a_long_pipeline_is_answered_in_order() {
    let running = Running::new(app()).await;
    let client = running.connect().await;
    let (mut from, mut to) = tokio::io::split(client.io);
    let padding = "x".repeat(1_000);
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: t\r\nCookie: {padding}\r\n\r\n");
    let requests = (request("/finite") + &request("/plain")).repeat(100);
    let writing = tokio::spawn(async move {
        to.write_all(requests.as_bytes()).await.expect("the connection is open");
        to
    });
    let mut text = String::new();
    for _ in 0..100 {
        for body in [FINITE, "plain"] {
            let (answer, len) = loop {
                if let Some(parsed) = super::Answer::parse(&text) {
                    break parsed;
                }
                let mut bytes = [0; 4_096];
                let read = patiently(from.read(&mut bytes)).await.expect("the connection is open");
                assert!(read > 0, "the connection ended: {text:?}");
                text.push_str(std::str::from_utf8(&bytes[..read]).expect("the bytes are UTF-8"));
            };
            assert_eq!(answer.body, body);
            text.drain(..len);
        }
    }
    writing.await.expect("no task panicked");
}

#[tokio::test]
async fn a_connection_serves_streams_and_other_requests_in_turn() {
    let running = Running::with(app(), |serve| serve.connections_max(1)).await;
    let mut client = running.connect().await;
    for _ in 0..10 {
        client.get("/finite", "").await;
        assert_eq!(client.answer().await.body, FINITE);
        client.get("/plain", "").await;
        assert_eq!(client.answer().await.body, "plain");
        client.send("POST /finite HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!(client.answer().await.body, ": connected\n\ndata: 3 bytes\n\n");
    }
    // The connection is still open, so the server is at its limit of one connection.
    assert_eq!(running.get("/").await.answer().await.status, "HTTP/1.1 503 Service Unavailable");
}

#[tokio::test]
async fn a_chunked_request_body_is_read_to_its_end_before_the_stream() {
    let running = Running::new(app()).await;
    let mut client = running.connect().await;
    let head = "POST /finite HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.answer().await.status, "HTTP/1.1 100 Continue");
    client.send("3\r\nabc\r\n").await;
    client.send("2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.body, ": connected\n\ndata: 5 bytes\n\n");
    client.get("/plain", "").await;
    assert_eq!(client.answer().await.body, "plain");
}

#[tokio::test]
async fn a_stream_may_end_before_its_request_is_complete() {
    let running = Running::new(app()).await;
    let mut client = running.connect().await;
    client.send("POST /unread HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nsome").await;
    assert_eq!(client.answer().await.body, FINITE);
    // The server must close the connection without waiting for the rest of the request.
    client.rest().await;
}

#[tokio::test]
async fn a_connection_closes_after_the_stream_if_either_side_requests_it() {
    let closing = || async { ([("connection", "close")], finite().await) };
    let running = Running::new(app().route("/closing", get(closing))).await;
    for (path, header) in [("/finite", "Connection: close\r\n"), ("/closing", "")] {
        let mut client = running.connect().await;
        client.get(path, header).await;
        client.get("/plain", "").await;
        assert_eq!(client.answer().await.body, FINITE);
        assert_eq!(client.rest().await, "", "the next request must get no answer");
    }
}

#[tokio::test]
async fn upgrades_work_after_a_stream_and_while_other_streams_are_open() {
    let (app, mut begins) = conversation();
    let mut running = Running::new(app).await;
    let mut beside = running.get("/").await;
    let sender = patiently(begins.recv()).await.expect("a request arrives");
    let mut client = running.connect().await;
    client.get("/finite", "").await;
    assert_eq!(client.answer().await.body, FINITE);
    client.get("/plain", "").await;
    assert_eq!(client.answer().await.body, "plain");
    // The bytes after the head of the request are already bytes of the new protocol.
    client
        .send("GET /echo HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst")
        .await;
    assert_eq!(client.answer().await.status, "HTTP/1.1 101 Switching Protocols");
    client.sees("first").await;
    sender.text("meanwhile").await.expect("the stream is open");
    beside.sees("data: meanwhile\n\n").await;
    client.send(" second").await;
    client.sees("first second").await;
    // An upgraded connection belongs to the app, so a drain must not end it.
    running.stop();
    super::goodbye_in(&beside.rest().await);
    running.ended().await;
    client.send(" third").await;
    client.sees("first second third").await;
}

#[tokio::test]
async fn a_connect_tunnel_is_not_served_as_a_stream() {
    let app = Router::new().fallback(|mut request: Request| async move {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.expect("the connection is upgraded"));
            io.write_all(b"through").await.expect("the connection is open");
        });
        [("content-type", "text/event-stream")]
    });
    let running = Running::new(app).await;
    let mut client = running.connect().await;
    client.send("CONNECT there:1 HTTP/1.1\r\nHost: there:1\r\n\r\n").await;
    client.sees("through").await;
}

/// While a stream is open, the server treats all input of the client as the client's next request.
/// In this test, the input is not a valid request.
#[tokio::test]
async fn invalid_input_during_a_stream_does_not_change_the_stream() {
    let (app, mut begins) = conversation();
    let running = Running::new(app).await;
    let mut client = running.get("/").await;
    let sender = patiently(begins.recv()).await.expect("a request arrives");
    client.sees(": connected\n\n").await;
    client.send(&("junk".repeat(2_000) + "\r\n\r\n")).await;
    for number in 0..10 {
        sender.text(number.to_string()).await.expect("the stream is open");
        client.sees(&format!("data: {number}\n\n")).await;
    }
    sender.finish();
    assert!(client.answer().await.body.ends_with("data: 9\n\n"));
    let rest = client.rest().await;
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
}

/// During a stream, the client sends more than fits into the server's buffer. The server must not
/// read the rest until the stream has ended.
#[tokio::test]
async fn a_flood_of_input_does_not_stop_a_stream() {
    let (app, mut begins) = conversation();
    let running = Running::new(app).await;
    let mut client = running.get("/").await;
    let sender = patiently(begins.recv()).await.expect("a request arrives");
    client.sees(": connected\n\n").await;
    let junk = [b'j'; 65_536];
    while Here::write_now(&client.io, &junk).is_ok() {}
    for number in 0..10 {
        sender.text(number.to_string()).await.expect("the stream is open");
        client.sees(&format!("data: {number}\n\n")).await;
    }
}

/// If the server closed the socket while the socket had unread input, the kernel would send a
/// reset, and the client could lose the last event.
#[tokio::test]
async fn the_last_event_arrives_although_the_peer_has_sent_more_input() {
    let last =
        || async { Sse::new(stream::iter([Event::new("x".repeat(200_000)), Event::new("last")])) };
    let running = Running::new(Router::new().route("/", get(last))).await;
    let mut client = running.connect().await;
    client.get("/", "Connection: close\r\n").await;
    client.send(&"and more".repeat(1_000)).await;
    // The client reads only after it has sent everything.
    let mut text = String::new();
    patiently(client.io.read_to_string(&mut text))
        .await
        .expect("the connection ends without a reset");
    assert!(
        text.ends_with("data: last\n\n\r\n0\r\n\r\n"),
        "the answer ends after {} bytes",
        text.len()
    );
}

/// An app whose route `/` answers with a stream that sends one event and stays open. Each time the
/// body of such a stream is dropped, the receiver gets a value.
fn watched() -> (Router, mpsc::UnboundedReceiver<()>) {
    let (over, ends) = mpsc::unbounded_channel();
    let watched = move || {
        let (signal, dropped) = DropSignal::new();
        let over = over.clone();
        tokio::spawn(async move {
            let _ = dropped.await;
            let _ = over.send(());
        });
        async move {
            let events = stream::iter([Event::new("a")]).chain(stream::pending());
            Sse::new(events.inspect(move |_| {
                let _owned = &signal;
            }))
        }
    };
    (app().route("/", get(watched)), ends)
}

#[tokio::test]
async fn the_server_notices_every_way_in_which_a_peer_leaves() {
    let (app, mut ends) = watched();
    let running = Running::with(app, |serve| serve.connections_max(4)).await;
    let mut beside = running.get("/").await;
    beside.sees("data: a\n\n").await;
    for round in 0..6 {
        let mut client = running.get("/").await;
        client.sees("data: a\n\n").await;
        match round % 3 {
            0 => Here::reset(client.io),
            1 => drop(client),
            _ => {
                client.io.shutdown().await.expect("the connection is open");
                patiently(ends.recv()).await.expect("a stream ends");
                assert!(!client.rest().await.contains("0\r\n\r\n"));
                continue;
            }
        }
        patiently(ends.recv()).await.expect("a stream ends");
    }
    beside.seen.clear();
    assert!(ends.try_recv().is_err(), "the other stream has ended");
}

#[tokio::test]
async fn dropping_the_server_closes_streams_and_idle_connections() {
    let (app, mut ends) = watched();
    let running = Running::new(app).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = running.connect().await;
        client.get("/finite", "").await;
        assert_eq!(client.answer().await.body, FINITE);
        clients.push(client);
    }
    for client in &mut clients[..10] {
        client.get("/", "").await;
        client.sees("data: a\n\n").await;
    }
    running.ended.abort();
    for _ in 0..10 {
        patiently(ends.recv()).await.expect("a stream ends");
    }
    for client in clients {
        assert!(!client.rest().await.contains("0\r\n\r\n"));
    }
}

/// An app with a stream that ends with an error after this number of events.
fn failing(events: usize) -> Router {
    let fails = move || async move {
        let chunk = |number: usize| Ok(Bytes::from(format!("data: {number}\n\n")));
        let error = std::io::Error::other("out of order");
        let chunks = stream::iter((0..events).map(chunk).chain([Err(error)]));
        ([("content-type", "text/event-stream")], Body::from_stream(chunks))
    };
    app().route("/fails", get(fails))
}

#[tokio::test]
async fn a_failed_body_ends_only_its_own_connection() {
    let (conversation, mut begins) = conversation();
    let running = Running::new(conversation.merge(Router::new().nest("/f", failing(1)))).await;
    let mut beside = running.get("/").await;
    let sender = patiently(begins.recv()).await.expect("a request arrives");
    let answer = running.get("/f/fails").await.rest().await;
    assert!(!answer.ends_with("0\r\n\r\n"), "the stream must not end properly: {answer}");
    sender.text("beside").await.expect("the stream is open");
    beside.sees("data: beside\n\n").await;
}

/// A value that panics when it is dropped.
struct Explosive(bool);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.0, "the app's bug");
    }
}

#[tokio::test]
async fn a_panic_of_one_stream_does_not_affect_other_streams() {
    let (conversation, mut begins) = conversation();
    let at_work = || async {
        let bomb = Explosive(true);
        Sse::new(stream::poll_fn(move |_| -> std::task::Poll<Option<Frame>> {
            let _bomb = &bomb;
            panic!("bug")
        }))
    };
    let at_the_end = || async {
        let bomb = Explosive(true);
        Sse::new(stream::iter([Event::new("a")]).inspect(move |_| {
            let _bomb = &bomb;
        }))
    };
    let app = conversation.route("/work", get(at_work)).route("/end", get(at_the_end));
    let running = Running::new(app).await;
    let mut beside = running.get("/").await;
    let sender = patiently(begins.recv()).await.expect("a request arrives");
    for path in ["/work", "/end", "/work", "/end"] {
        let mut client = running.get(path).await;
        // This connection may end in any way, but the server must still serve other connections.
        patiently(client.read()).await;
        drop(client);
        running.get("/plain").await.sees("plain").await;
        sender.text(path).await.expect("the stream is open");
        beside.sees(&format!("data: {path}\n\n")).await;
        beside.seen.clear();
    }
}

/// One stream always has a next event, and another stream is never ready but wakes itself all the
/// time. The server must still poll the other streams.
#[tokio::test]
async fn busy_streams_do_not_block_other_streams() {
    let (conversation, mut begins) = conversation();
    let flood = || async { Sse::new(stream::repeat(Event::new("x".repeat(100)))) };
    let spinning = || async {
        Sse::new(stream::poll_fn(|cx| -> std::task::Poll<Option<Frame>> {
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }))
    };
    let app = conversation.route("/flood", get(flood)).route("/spinning", get(spinning));
    let running = Running::new(app).await;
    let mut spinning = running.get("/spinning").await;
    spinning.sees(": connected\n\n").await;
    let mut flooded = running.get("/flood").await;
    let drained = tokio::spawn(async move {
        loop {
            flooded.seen.clear();
            flooded.read().await;
        }
    });
    let mut client: Client = running.get("/").await;
    let sender = patiently(begins.recv()).await.expect("a request arrives");
    for number in 0..20 {
        sender.text(number.to_string()).await.expect("the stream is open");
        client.sees(&format!("data: {number}\n\n")).await;
    }
    drained.abort();
}

/// The clock is paused. When all tasks wait, it advances to the time of the next keep-alive.
#[tokio::test]
async fn keep_alives_arrive_in_time() {
    let quiet = || async { Sse::new(stream::pending::<Frame>()) };
    let running = Running::new(Router::new().route("/", get(quiet))).await;
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    tokio::time::pause();
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        client.seen.clear();
        while !client.seen.contains(": keep-alive\n") {
            assert!(client.read().await, "the connection ended");
        }
        let waited = before.elapsed().as_secs_f64();
        assert!((11.9..=18.2).contains(&waited), "{waited}");
    }
}

/// When a stream ends, the server must drop its body at once, even if the peer has not closed the
/// connection.
#[tokio::test]
async fn a_body_is_dropped_at_the_end_of_its_stream() {
    let (signal, dropped) = DropSignal::new();
    let signal = Arc::new(Mutex::new(Some(signal)));
    let once = move || async move {
        let signal =
            signal.lock().expect("no task panicked").take().expect("only one request arrives");
        Sse::new(stream::iter([Event::new("a")]).inspect(move |_| {
            let _owned = &signal;
        }))
    };
    let running = Running::new(Router::new().route("/", get(once))).await;
    let mut client = running.connect().await;
    client.get("/", "Connection: close\r\n").await;
    client.sees("0\r\n\r\n").await;
    patiently(dropped).await.expect("the body is dropped");
}
