//! Request bodies: how large they may be, how long a client may pause, and answers that the server
//! sends before the body has ended.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Server, answer::Answer, patiently};

const PATH: (&str, &str, &str) = ("POST", "/events?topic=a", "");

fn chunked(server: &Server, chunks: &[&str]) -> String {
    let head = format!(
        "POST /events?topic=a HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        server.address
    );
    let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    head + &chunks.collect::<String>()
}

#[tokio::test]
async fn an_event_above_the_size_limit_is_refused() {
    // The limit applies to the event as subscribers get it, so `id: ` and `data: ` count too.
    let server = Server::with(&["--event-bytes-max", "200"]).await;
    server.publish("topic=a", &"x".repeat(100)).await;
    let frame = (1..=200).rev().find(|bytes| {
        let hub = &server.hub;
        hub.to("probe").publish("x".repeat(*bytes)).is_ok()
    });
    let most = frame.expect("some size fits");
    server.publish("topic=a", &"x".repeat(most - 1)).await;
    server.publish("topic=a", &"x".repeat(most)).await;
    server.refuses(PATH, "x".repeat(most + 1), (413, "at most 200 are allowed. Send less")).await;
    server.refuses(PATH, "x".repeat(200), (413, "at most 200")).await;
    server.refuses(PATH, "x".repeat(201), (413, "larger than 200 bytes")).await;
}

#[tokio::test]
async fn a_chunked_body_has_the_same_size_limit() {
    let server = Server::with(&["--event-bytes-max", "200"]).await;
    let before = server.hub.stats();
    let large = "x".repeat(150);
    let request = chunked(&server, &[&large, &large, ""]);
    let answer = Answer::parse(&server.exchange(request.as_bytes()).await);
    assert!(answer.problem(413).contains("larger than 200 bytes"));
    server.is_unharmed(&before).await;
}

/// Like many clients, this function sends the whole body before it reads the answer.
async fn send_then_read(server: &Server, path: &str) -> Answer {
    const BYTES: usize = 48 << 20;
    let mut io = server.connect().await;
    let host = server.address;
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BYTES}\r\n\r\n");
    io.write_all(head.as_bytes()).await.expect("the connection is open");
    patiently(io.write_all(&vec![b'x'; BYTES])).await.expect("the server reads the whole body");
    let mut answer = String::new();
    patiently(io.read_to_string(&mut answer)).await.expect("an answer instead of a reset");
    let answer = Answer::parse(&answer);
    assert_eq!(answer.header("connection"), Some("close"), "the server closes the connection");
    answer
}

#[tokio::test]
async fn a_client_gets_the_error_after_it_has_sent_a_large_body() {
    let server = Server::with(&["--event-bytes-max", "200"]).await;
    let before = server.hub.stats();
    let answer = send_then_read(&server, "/events?topic=a").await;
    assert!(answer.problem(413).contains("larger than 200 bytes"));
    let answer = send_then_read(&server, "/nowhere").await;
    assert!(answer.problem(404).contains("There is nothing"));
    let answer = send_then_read(&server, "/events?topics=a").await;
    assert!(answer.problem(400).contains("You may mean topic."));
    server.is_unharmed(&before).await;
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_the_error_before_it_sends() {
    let server = Server::with(&["--event-bytes-max", "200"]).await;
    let head = format!(
        "POST /events?topic=a HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
        server.address
    );
    let answer = Answer::parse(&server.exchange(head.as_bytes()).await);
    assert!(answer.problem(413).contains("larger than 200 bytes"));
}

/// Proxies keep connections to the server open for further requests. If the server closes a
/// connection and its last answer has no `Connection: close`, Apache and Caddy answer 502 to the
/// next request.
#[tokio::test]
async fn a_refusal_before_a_body_says_that_the_connection_closes() {
    let server = Server::with(&["--event-bytes-max", "200"]).await;
    for (path, status) in
        [("/events?topic=a", 413), ("/events?topics=a", 400), ("/nowhere", 404), ("/topics", 405)]
    {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\
             Expect: 100-continue\r\n\r\n",
            server.address
        );
        let answer = Answer::parse(&server.exchange(head.as_bytes()).await);
        answer.problem(status);
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
    }
}

/// Before curl sends a large file, it waits for `100 Continue`. Then it sends the whole file before
/// it reads the answer.
#[tokio::test]
async fn a_client_that_got_100_continue_can_send_its_whole_body() {
    const BYTES: usize = 48 << 20;
    let server = Server::with(&["--event-bytes-max", "200"]).await;
    let mut io = server.connect().await;
    let head = format!(
        "POST /events?topic=a HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\
         Expect: 100-continue\r\n\r\n",
        server.address
    );
    io.write_all(head.as_bytes()).await.expect("the connection is open");
    let mut asked = [0; 25];
    patiently(io.read_exact(&mut asked)).await.expect("an answer");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    let chunk = format!("{BYTES:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(BYTES));
    patiently(io.write_all(chunk.as_bytes())).await.expect("the server reads the whole body");
    let mut answer = String::new();
    patiently(io.read_to_string(&mut answer)).await.expect("an answer instead of a reset");
    let answer = Answer::parse(&answer);
    assert!(answer.problem(413).contains("larger than 200 bytes"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_that_pauses_too_long_gets_a_408() {
    let server = Server::with(&["--body-timeout", "50ms"]).await;
    let before = server.hub.stats();
    for request in [
        format!(
            "POST /events?topic=a HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\nhal",
            server.address
        ),
        chunked(&server, &["hal"]),
    ] {
        let answer = Answer::parse(&server.exchange(request.as_bytes()).await);
        assert!(answer.problem(408).contains("arrived for 0.05 s"));
    }
    server.is_unharmed(&before).await;
}

#[tokio::test]
async fn an_incomplete_body_publishes_nothing() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut io = server.connect().await;
    let half = format!(
        "POST /events?topic=a HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\nhal",
        server.address
    );
    io.write_all(half.as_bytes()).await.expect("the connection is open");
    io.shutdown().await.expect("the connection is open");
    let mut answer = Vec::new();
    let _ = patiently(io.read_to_end(&mut answer)).await;
    server.publish("topic=a", "whole").await;
    assert_eq!(stream.data().await, "whole");
}

#[tokio::test]
async fn bodies_must_be_utf8() {
    let server = Server::start().await;
    server.refuses(PATH, b"abc\xff", (400, "not UTF-8: look at byte 3")).await;
    server.refuses(PATH, b"\xed\xa0\x80", (400, "not UTF-8: look at byte 0")).await;
    let batch = ("POST", "/events/batch", "");
    server.refuses(batch, b"{\"topic\":\"a\",\"data\":\"\xff\"}", (400, "not UTF-8")).await;
}
