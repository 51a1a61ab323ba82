//! Tests of the header of the PROXY protocol. With this header, a proxy tells the server the
//! address of the proxy's client. The test writes the headers itself.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Extension};
use axum::routing::get;
use downlink::serve::{AsService, PeerAddr, Serve};
use downlink::{Event, Sse};
use futures_util::stream;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::wire::{Foreign, Tcp, Unix, Wire};
use super::{Client, Running};

/// A header in version 1 that names 192.0.2.1:12345. `BINARY` is the same header in version 2.
/// `UNKNOWN` and `LOCAL` are headers for connections of the proxy itself.
const TEXT: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.9 12345 80\r\n";
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x01\xc0\0\x02\x09\x30\x39\0\x50\
    \x04\0\x04noop";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// An app that answers with the peer's address, as text and as a stream.
fn app() -> Router {
    let text = |Extension(peer): Extension<PeerAddr>| async move { format!("{peer:?}") };
    let stream = |Extension(peer): Extension<PeerAddr>| async move {
        Sse::new(stream::iter([Event::new(format!("{peer:?}"))]))
    };
    Router::new().route("/", get(text)).route("/stream", get(stream)).route("/health", get(text))
}

fn behind_proxies<L, A, Kind>(serve: Serve<L, A, Kind>) -> Serve<L, A, Kind>
where
    L: downlink::serve::Listener,
{
    let proxies = ["127.0.0.1", "unix"].map(|text| text.parse().expect("the text is a proxy"));
    serve.trusted_proxies(proxies).proxy_protocol(true)
}

async fn running<W: Wire>() -> Running<W> {
    Running::with::<Router, AsService>(app(), behind_proxies).await
}

/// The bodies of three answers on one connection that begins with the header. The second answer is
/// a stream.
async fn peers<W: Wire>(running: &Running<W>, header: &[u8]) -> [String; 3] {
    let mut client = running.connect().await;
    client.io.write_all(&[header, REQUEST].concat()).await.expect("the connection is open");
    let first = client.answer().await.body;
    client.get("/stream", "").await;
    let second = client.answer().await.body;
    client.get("/", "").await;
    [first, second, client.answer().await.body]
}

async fn every_answer_has<W: Wire>(header: &[u8], expected: &str) {
    for peer in peers(&running::<W>().await, header).await {
        assert!(peer.contains(expected), "{peer}");
    }
}

#[tokio::test]
async fn the_address_in_the_header_is_the_peer_address() {
    for header in [TEXT, BINARY] {
        every_answer_has::<Tcp>(header, "Tcp(192.0.2.1:12345)").await;
        every_answer_has::<Foreign>(header, "Tcp(192.0.2.1:12345)").await;
        every_answer_has::<Unix>(header, "Tcp(192.0.2.1:12345)").await;
    }
}

#[tokio::test]
async fn the_proxys_own_address_is_the_peer_address_if_the_header_names_no_client() {
    for header in [UNKNOWN, LOCAL] {
        every_answer_has::<Tcp>(header, "Tcp(127.0.0.1:").await;
        every_answer_has::<Unix>(header, "Unix").await;
    }
}

#[tokio::test]
async fn handlers_and_make_services_get_the_address_in_the_header() {
    let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let router = Router::new().route("/", get(peer));
    let running = Running::<Tcp>::with::<Router, AsService>(router, behind_proxies).await;
    let mut client = running.connect().await;
    client.io.write_all(&[TEXT, REQUEST].concat()).await.expect("the connection is open");
    assert_eq!(client.answer().await.body, "192.0.2.1:12345");

    let maker = Router::new().route("/", get(peer));
    let maker = maker.into_make_service_with_connect_info::<SocketAddr>();
    let running = Running::<Tcp>::with(maker, behind_proxies).await;
    let mut client = running.connect().await;
    client.io.write_all(&[BINARY, REQUEST].concat()).await.expect("the connection is open");
    assert_eq!(client.answer().await.body, "192.0.2.1:12345");
}

#[tokio::test]
async fn a_header_may_arrive_in_single_bytes() {
    let running = running::<Tcp>().await;
    for header in [TEXT, BINARY] {
        let mut client = running.connect().await;
        client.io.set_nodelay(true).expect("TCP has this option");
        for byte in [header, REQUEST].concat() {
            client.io.write_all(&[byte]).await.expect("the connection is open");
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer().await.body, "Tcp(192.0.2.1:12345)");
    }
}

#[tokio::test]
async fn a_header_from_a_peer_that_is_not_trusted_is_an_invalid_request() {
    let untrusted = Running::<Tcp>::with::<Router, AsService>(app(), |serve| {
        serve
            .trusted_proxies(["10.0.0.0/8".parse().expect("the text is a proxy")])
            .proxy_protocol(true)
    });
    let off = Running::<Tcp>::with::<Router, AsService>(app(), |serve| {
        behind_proxies(serve).proxy_protocol(false)
    });
    for running in [untrusted.await, off.await] {
        for header in [TEXT, BINARY, UNKNOWN, LOCAL] {
            let mut client = running.connect().await;
            client.io.write_all(&[header, REQUEST].concat()).await.expect("the connection is open");
            let answer = client.rest().await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(!answer.contains("192.0.2.1"), "{answer}");
        }
        let mut client = running.get("/").await;
        assert!(client.answer().await.body.starts_with("Tcp(127.0.0.1:"));
    }
}

#[tokio::test]
async fn a_trusted_proxy_without_a_valid_header_gets_a_reason() {
    let running = running::<Tcp>().await;
    let too_long = [&BINARY[..14], &[0xff, 0xff]].concat();
    for (input, reason) in [
        (REQUEST, "does not begin with a header"),
        (b"PROXY TCP4 x y 1 2\r\n", "is invalid"),
        (&too_long, "is longer than 4096 bytes"),
        (&[b'P'; 5_000], "does not begin with a header"),
        (&[b"PROXY ", &[b'x'; 5_000][..]].concat(), "is longer than 107 bytes"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "does not begin with a header"),
    ] {
        let mut client = running.connect().await;
        client.io.write_all(input).await.expect("the connection is open");
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("application/problem+json") && answer.contains(reason), "{answer}");
    }
}

#[tokio::test]
async fn a_header_that_does_not_arrive_in_time_ends_the_connection() {
    let running = Running::<Tcp>::with::<Router, AsService>(app(), |serve| {
        behind_proxies(serve).header_timeout(Duration::from_millis(50))
    });
    let running = running.await;
    for begun in [&b""[..], b"PROX", &BINARY[..20]] {
        let mut client = running.connect().await;
        client.io.write_all(begun).await.expect("the connection is open");
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test]
async fn a_connection_without_a_header_does_not_delay_the_drain() {
    let mut running = Running::<Tcp>::with::<Router, AsService>(app(), |serve| {
        let hour = Duration::from_secs(3_600);
        behind_proxies(serve).header_timeout(hour).drain_within(hour)
    })
    .await;
    let mut silent = running.connect().await;
    silent.send("PROXY").await;
    // The server accepts connections in order. When it answers this later connection, it has also
    // accepted the first connection.
    peers(&running, TEXT).await;
    running.stop();
    running.ended().await;
    assert_eq!(silent.rest().await, "");
}

/// After the header, the client may send the preface of HTTP/2. The network may cut the preface at
/// any byte.
#[tokio::test]
async fn a_header_may_be_followed_by_http_2() {
    let running = running::<Tcp>().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for cut in [0, 1, 10, 24, preface.len()] {
        let mut client = running.connect().await;
        client
            .io
            .write_all(&[TEXT, &preface[..cut]].concat())
            .await
            .expect("the connection is open");
        tokio::task::yield_now().await;
        client.io.write_all(&preface[cut..]).await.expect("the connection is open");
        let mut frame = [0; 9];
        let read = tokio::io::AsyncReadExt::read_exact(&mut client.io, &mut frame);
        super::patiently(read).await.expect("the server speaks HTTP/2");
        assert_eq!(frame[3], 4, "the first frame of the server must have the type SETTINGS");
    }
}

#[tokio::test]
async fn the_limits_apply_to_the_clients_of_a_proxy() {
    let endless = || async { Sse::new(stream::pending::<downlink::Frame>()) };
    let app = app().route("/endless", get(endless));
    let running = Running::<Unix>::with::<Router, AsService>(app, |serve| {
        behind_proxies(serve)
            .connections_per_address_max(NonZeroU32::MIN)
            .answer_at_limit(["/health"])
    })
    .await;
    let from = async |host: u8, path: &str| {
        let mut client = running.connect().await;
        client.send(&format!("PROXY TCP4 192.0.2.{host} 192.0.2.9 1 80\r\n")).await;
        client.get(path, "").await;
        client
    };
    let mut open = from(1, "/endless").await;
    open.sees(": connected\n\n").await;
    let refused = from(1, "/").await.rest().await;
    assert!(refused.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{refused}");
    let health = from(1, "/health").await.rest().await;
    assert!(health.ends_with("Tcp(192.0.2.1:1)"), "{health}");
    assert_eq!(from(2, "/").await.answer().await.body, "Tcp(192.0.2.2:1)");
    drop(open);
    loop {
        let mut again = from(1, "/").await;
        if again.answer().await.status.starts_with("HTTP/1.1 200 ") {
            break;
        }
    }
}

/// A proxy gets an answer to its health check even if the server has reached its limit of
/// connections.
#[tokio::test]
async fn a_proxy_gets_answers_at_the_limit_of_connections() {
    let running = Running::<Tcp>::with::<Router, AsService>(app(), |serve| {
        behind_proxies(serve).connections_max(1).answer_at_limit(["/health"])
    })
    .await;
    let mut open = running.connect().await;
    open.io.write_all(&[TEXT, REQUEST].concat()).await.expect("the connection is open");
    open.answer().await;
    for (header, path, expected) in [
        (UNKNOWN, "/health", "Tcp(127.0.0.1:"),
        (TEXT, "/health", "Tcp(192.0.2.1:12345)"),
        (BINARY, "/", "limit of connections"),
    ] {
        let mut client = running.connect().await;
        client.io.write_all(header).await.expect("the connection is open");
        client.get(path, "").await;
        let answer = client.rest().await;
        assert!(answer.contains(expected), "{answer}");
    }
}

/// If a listener has addresses of a type that the server does not know, the server does not trust
/// the peers of this listener.
#[tokio::test]
async fn a_peer_whose_address_has_an_unknown_type_is_not_trusted() {
    /// A TCP listener that hides the addresses.
    struct Hidden(TcpListener);

    impl downlink::serve::Listener for Hidden {
        type Io = TcpStream;
        type Addr = String;

        async fn accept(&mut self) -> std::io::Result<(TcpStream, String)> {
            self.0.accept().await.map(|(io, _)| (io, "hidden".to_owned()))
        }

        fn local_addr(&self) -> std::io::Result<String> {
            Ok("hidden".to_owned())
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound");
    let serve = downlink::serve(Hidden(listener), app());
    tokio::spawn(behind_proxies::<_, _, AsService>(serve).into_future());
    let mut client = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    client.get("/", "").await;
    assert_eq!(client.answer().await.body, "Unknown");
}
