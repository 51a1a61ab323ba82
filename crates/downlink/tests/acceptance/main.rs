//! Tests of the requirements for a library that sends live updates. Each test is about a defect
//! that some other libraries have.
//!
//! The name of a test has the number of the requirement and the expected behaviour. Tests about
//! connections use real sockets. No test measures time or waits for a fixed time. Tests wait until
//! something has happened.

#![cfg(all(feature = "axum", feature = "json", feature = "serve"))]
#![allow(clippy::unwrap_used)]

mod drains;
mod events;
mod panics;
mod races;
mod reconnects;
mod stalls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use downlink::hub::{
    Connection, DisconnectReason, Hub, Observer, Subscribe, SubscribeError, Subscription,
};
use downlink::serve::{AsService, Serve};
use downlink::{KeepAlive, LastEventId};
use downlink_proto::{DecodedEvent, Decoder, Item};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(60);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// Opens a subscription. A hub without a store opens it without waiting, so no runtime is needed.
fn try_open<T: Send + Sync + 'static>(
    subscribe: Subscribe<T>,
) -> Result<Subscription<T>, SubscribeError> {
    subscribe.open().now_or_never().expect("a hub in memory never waits")
}

fn open<T: Send + Sync + 'static>(subscribe: Subscribe<T>) -> Subscription<T> {
    try_open(subscribe).unwrap()
}

/// The query of a request in these tests: `?topics=a,b&client=c`.
#[derive(serde::Deserialize)]
struct Wanted {
    topics: String,
    #[serde(default)]
    client: Option<String>,
}

/// An app whose route `/` opens a subscription to the topics and the client in the query.
fn app(hub: &Hub<String>, keep_alive: KeepAlive) -> Router {
    let join =
        move |State(hub): State<Hub<String>>, Query(wanted): Query<Wanted>, last: LastEventId| {
            let keep_alive = keep_alive.clone();
            async move {
                let mut subscribe = hub.subscribe().topics(wanted.topics.split(',')).resume(last);
                if let Some(client) = wanted.client {
                    subscribe = subscribe.client(client);
                }
                Ok::<_, SubscribeError>(subscribe.open().await?.into_sse().keep_alive(keep_alive))
            }
        };
    Router::new().route("/", get(join)).with_state(hub.clone())
}

/// A running server.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<()>>,
}

impl Running {
    async fn new(
        app: Router,
        set: impl FnOnce(Serve<TcpListener, Router, AsService>) -> Serve<TcpListener, Router, AsService>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = set(downlink::serve(listener, app));
        let address = serve.local_addr().unwrap();
        let ended = tokio::spawn(serve.with_graceful_shutdown(stopped).into_future());
        Self { address, stop: Some(stop), ended }
    }

    /// Opens a subscription and reads `downlink.open`.
    async fn subscribe(&self, query: &str, last_event_id: &str) -> Client {
        let io = TcpStream::connect(self.address).await.unwrap();
        Client::subscribe(io, query, last_event_id).await
    }

    /// Opens a subscription over a connection with a small receive window, and stops reading.
    async fn stall(&self, query: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1_024).unwrap();
        Client::subscribe(socket.connect(self.address).await.unwrap(), query, "").await
    }

    async fn stopped(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        patiently(self.ended).await.unwrap().unwrap();
    }
}

/// A subscriber that reads a stream from a socket.
struct Client {
    io: TcpStream,
    head: String,
    decoder: Decoder,
}

impl Client {
    async fn subscribe(mut io: TcpStream, query: &str, last_event_id: &str) -> Self {
        // The answer to an HTTP/1.0 request is not chunked, so the client can pass all bytes of the
        // body to the decoder.
        let request = format!(
            "GET /?{query} HTTP/1.0\r\nHost: test\r\nLast-Event-ID: {last_event_id}\r\n\r\n"
        );
        io.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(patiently(io.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut client = Self { io, head, decoder: Decoder::default() };
        assert!(client.head.contains(" 200 OK\r\n"), "{}", client.head);
        assert_eq!(client.event().await.event_type, "downlink.open");
        client
    }

    /// Reads the next event. Returns `None` if the connection has ended, with or without a reset.
    async fn next(&mut self) -> Option<DecodedEvent> {
        let mut bytes = [0; 16 * 1_024];
        loop {
            while let Some(item) = self.decoder.poll_item() {
                if let Item::Event(event) = item {
                    return Some(event);
                }
            }
            let read = patiently(self.io.read(&mut bytes)).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.decoder.handle_bytes(&bytes[..read]).unwrap();
        }
    }

    async fn event(&mut self) -> DecodedEvent {
        self.next().await.expect("the stream has not ended")
    }
}

/// An observer of the hub that reports each client whose subscription ends, and the reason.
struct Departures(mpsc::UnboundedSender<(Option<String>, DisconnectReason)>);

impl Departures {
    fn new() -> (Self, mpsc::UnboundedReceiver<(Option<String>, DisconnectReason)>) {
        let (left, departures) = mpsc::unbounded_channel();
        (Self(left), departures)
    }
}

impl Observer for Departures {
    fn disconnected(&self, connection: &Connection, reason: DisconnectReason) {
        let client = connection.client.as_ref().map(ToString::to_string);
        let _ = self.0.send((client, reason));
    }
}
