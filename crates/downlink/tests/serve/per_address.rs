//! Tests of the limits for each peer address. On Linux, each address of 127.0.0.0/8 is an address
//! of this machine, so a test can have many peers with different addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use axum::Router;
use axum::routing::get;
use downlink::serve::{AsService, REFUSALS_MAX, Rate};
use downlink::{Frame, Sse};
use futures_util::future::join_all;
use futures_util::stream;
use tokio::net::{TcpSocket, TcpStream};

use super::{Client, body_of, patiently};

type Running = super::Running<super::wire::Tcp>;

/// An app with an endless stream, a short stream and a health check.
fn app() -> Router {
    Router::new()
        .route("/", get(|| async { Sse::new(stream::pending::<Frame>()) }))
        .route("/short", get(|| async { Sse::new(stream::iter([Frame::comment("short")])) }))
        .route("/health", get(|| async { "healthy" }))
}

async fn with_limits(connections_max: Option<u32>, connects: Option<&str>) -> Running {
    let connects: Option<Rate> = connects.map(|text| text.parse().expect("the text is a rate"));
    Running::with::<Router, AsService>(app(), |mut serve| {
        if let Some(connections_max) = connections_max.and_then(NonZeroU32::new) {
            serve = serve.connections_per_address_max(connections_max);
        }
        if let Some(connects) = connects {
            serve = serve.connects_per_address(connects);
        }
        serve.answer_at_limit(["/health"])
    })
    .await
}

/// Connects from 127.0.0.`host`.
pub(crate) async fn connect_from(host: u8, to: SocketAddr) -> std::io::Result<Client<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
    socket.connect(to).await.map(Client::new)
}

/// Connects from 127.0.0.`host` and sends a GET.
async fn get_from(host: u8, running: &Running, path: &str) -> Client<TcpStream> {
    let mut client = connect_from(host, running.place).await.expect("the server listens");
    client.get(path, "").await;
    client
}

/// Opens a stream from 127.0.0.`host`.
async fn reading_from(host: u8, running: &Running) -> Client<TcpStream> {
    let mut client = get_from(host, running, "/").await;
    client.sees(": connected\n\n").await;
    client
}

/// Sends requests, each on a new connection, until an answer has this status. Returns the
/// connection of this answer.
async fn until_status(host: u8, running: &Running, status: &str) -> Client<TcpStream> {
    loop {
        let mut client = get_from(host, running, "/").await;
        while !client.seen.contains("\r\n\r\n") && patiently(client.read()).await {}
        if client.seen.starts_with(status) {
            return client;
        }
    }
}

#[tokio::test]
async fn one_address_at_its_limit_does_not_affect_other_addresses() {
    let running = with_limits(Some(2), None).await;
    let first = reading_from(1, &running).await;
    let _second = reading_from(1, &running).await;
    let refused = get_from(1, &running, "/").await.rest().await;
    assert!(refused.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{refused}");
    assert!(refused.contains("\r\nretry-after: "), "{refused}");
    assert!(refused.contains("too many connections from this address"), "{refused}");
    reading_from(2, &running).await;

    // When the server has noticed the end of the first stream, the address may connect again.
    drop(first);
    until_status(1, &running, "HTTP/1.1 200 ").await;
}

#[tokio::test]
async fn a_browser_at_the_limit_of_its_address_gets_a_reconnection_time() {
    let running = with_limits(Some(1), None).await;
    let _open = reading_from(1, &running).await;
    let refused = running.browse("/").await.rest().await;
    assert!(refused.starts_with("HTTP/1.1 200 OK\r\n"), "{refused}");
    assert!(body_of(&refused).contains("\n\nretry: "), "{refused}");
}

#[tokio::test]
async fn a_page_of_another_origin_can_read_a_refusal_at_the_limits_of_an_address() {
    for (connections_max, connects) in [(Some(1), None), (None, Some("1/h"))] {
        let running = with_limits(connections_max, connects).await;
        let _open = reading_from(1, &running).await;
        for (browser, status) in [("Sec-Fetch-Mode: cors\r\n", "200 OK"), ("", "429 ")] {
            let mut client = connect_from(1, running.place).await.expect("the server listens");
            client.get("/", &format!("{browser}Origin: https://app.example\r\n")).await;
            let refused = client.answer().await;
            assert!(refused.status.contains(status), "{refused:?}");
            assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
            assert_eq!(refused.header("access-control-allow-credentials"), Some("true"));
            assert_eq!(refused.header("vary"), Some("Origin"));
        }
    }
}

#[tokio::test]
async fn health_checks_are_answered_at_the_limits_of_an_address() {
    let running = with_limits(Some(1), Some("2/h")).await;
    let _open = reading_from(1, &running).await;
    for _ in 0..3 {
        let mut client = connect_from(1, running.place).await.expect("the server listens");
        client.get("/health", "Origin: https://app.example\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.body, "healthy");
        assert_eq!(answer.header("access-control-allow-origin"), None, "the app decides");
    }
}

/// A connection counts until it is closed, no matter whether the server itself or hyper (the HTTP
/// library) writes the answers.
#[tokio::test]
async fn a_connection_counts_from_its_accept_to_its_close() {
    let running = with_limits(Some(1), None).await;
    let mut kept = connect_from(1, running.place).await.expect("the server listens");
    for path in ["/short", "/health", "/short"] {
        kept.get(path, "").await;
        kept.answer().await;
        until_status(1, &running, "HTTP/1.1 429 ").await;
    }
    drop(kept);
    let _open = until_status(1, &running, "HTTP/1.1 200 ").await;
}

/// One address opens 400 connections at the same time (the storm). Each of these connections gets a
/// stream, a refusal, or no answer. The number of streams is exactly the number that the rate
/// allows.
#[tokio::test]
async fn a_storm_of_connects_from_one_address_does_not_affect_other_addresses() {
    const STORM: usize = 400;
    const BURST: usize = 5;
    let running = with_limits(None, Some(&format!("1/h,burst:{BURST}"))).await;
    let mut quiet = reading_from(2, &running).await;
    let storm = join_all((0..STORM).map(|_| async {
        let mut client = connect_from(1, running.place).await.expect("the server listens");
        // The server may have closed the connection already.
        let request = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.io, request).await;
        while !client.seen.contains("\r\n\r\n") && patiently(client.read()).await {}
        client
    }));
    // The quiet address connects in the middle of the storm.
    let others = async {
        let mut clients = Vec::new();
        for _ in 1..BURST {
            clients.push(reading_from(2, &running).await);
        }
        clients
    };
    let (storm, others) = tokio::join!(storm, others);
    let count = |status: &str| storm.iter().filter(|it| it.seen.starts_with(status)).count();
    let (streams, refused) = (count("HTTP/1.1 200 "), count("HTTP/1.1 429 "));
    let silent = storm.iter().filter(|it| it.seen.is_empty()).count();
    assert_eq!((streams, streams + refused + silent), (BURST, STORM));
    assert!(refused >= 1, "the first connections beyond the limit must get an answer");
    assert_eq!(others.len(), BURST - 1);
    // All streams are still open.
    let mut open: Vec<_> = storm.into_iter().filter(|it| it.seen.contains(": connected")).collect();
    for client in open.iter_mut().chain([&mut quiet]) {
        let ended = tokio::time::timeout(std::time::Duration::ZERO, client.read()).await;
        assert!(ended.is_err(), "the stream has ended: {:?}", client.seen);
    }
}

/// The server answers only a limited number of connections beyond `connections_max`. Silent
/// connections beyond the limit of one address must not use up these answers.
#[tokio::test]
async fn silent_connections_of_one_address_do_not_use_up_the_answers_for_other_addresses() {
    let one = NonZeroU32::MIN;
    let running = Running::with::<Router, AsService>(app(), |serve| {
        serve.connections_per_address_max(one).connections_max(1)
    })
    .await;
    let _open = reading_from(1, &running).await;
    let mut silent = Vec::new();
    for _ in 0..REFUSALS_MAX {
        silent.push(connect_from(1, running.place).await.expect("the server listens"));
    }
    assert_eq!(get_from_closed(1, &running).await, "");
    let other = get_from(2, &running, "/").await.rest().await;
    assert!(other.starts_with("HTTP/1.1 503 "), "{other}");
}

/// Reads the whole answer to a connection that sends nothing.
async fn get_from_closed(host: u8, running: &Running) -> String {
    connect_from(host, running.place).await.expect("the server listens").rest().await
}

#[tokio::test]
async fn peers_of_a_unix_socket_are_not_limited() {
    let running = super::Running::<super::wire::Unix>::with::<Router, AsService>(app(), |serve| {
        serve
            .connections_per_address_max(NonZeroU32::MIN)
            .connects_per_address("1/h".parse().expect("the text is a rate"))
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = running.get("/").await;
        client.sees(": connected\n\n").await;
        open.push(client);
    }
}
