//! Tests of `downlink::access`: the access layer, the caller (the sender of a request, with its
//! rights), and streams with grants. A grant is a set of rights.
//!
//! Most tests run an axum app on `downlink::serve` and real sockets, and check the bytes of the
//! answers. Tests that wait for the end of a grant run without sockets and with a paused clock.

#![cfg(all(feature = "access", feature = "axum", feature = "serve", feature = "testing"))]
#![allow(clippy::unwrap_used)]

mod layer;
mod streams;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use downlink::access::{AccessLayer, Caller, Refusal, StreamRefusal};
use downlink::hub::{Address, ClientId, Hub, Timestamp, Topic, TopicSelector};
use downlink::{LastEventId, PublishError};
use downlink_access::{
    Access, AccessOptions, Grant, KeyRole, Keys, Mint, Secret, TicketKeys, TokenKeys, TokenRules,
    Tokens, Verified,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(20);

/// An app with chat rooms, and the secrets of its credentials.
struct Chat {
    hub: Hub<String>,
    access: Access,
    publish: Secret,
    token: Secret,
    ticket: Secret,
}

fn secret(byte: u8) -> Secret {
    Secret::from_file_bytes(&[byte; 32]).unwrap()
}

fn selector(text: &str) -> TopicSelector {
    TopicSelector::parse(text).unwrap()
}

fn client(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

impl Chat {
    fn new() -> Self {
        let (publish, token, ticket) = (secret(b'p'), secret(b'j'), secret(b't'));
        let access = Access::new(options(&publish, &token, &ticket));
        Self { hub: Hub::text(), access, publish, token, ticket }
    }

    /// The app with this layer. A room is a topic, and `/mine` has the events for the client.
    fn app(&self, layer: AccessLayer) -> Router {
        Router::new()
            .route("/rooms/{room}", get(join).post(say))
            .route("/mine", get(mine))
            .route("/whoami", post(name))
            .layer(layer)
            .with_state(self.hub.clone())
    }

    async fn serve(&self) -> Server {
        self.serve_with(AccessLayer::new(self.access.clone())).await
    }

    async fn serve_with(&self, layer: AccessLayer) -> Server {
        Server::new(self.app(layer)).await
    }

    /// A token with which a client may read some rooms. The token expires after an hour.
    fn token(&self, of: &str, rooms: &[&str]) -> String {
        let rooms = rooms.iter().map(|room| selector(&format!("rooms/{room}")));
        let grant = rooms.fold(Grant::none(), Grant::with_subscribe);
        let until = now().after(Duration::from_secs(3_600));
        self.token_with(grant.with_client(client(of)).with_until(until))
    }

    /// A token of the client `ada`. The token expired a minute ago.
    fn ended_token(&self) -> String {
        let ago = |seconds: u64| Timestamp::from_millis(now().as_millis() - seconds * 1_000);
        let grant = Grant::none().with_client(client("ada")).with_subscribe(selector("rooms/7"));
        Mint::new(&self.token).sign(&grant.with_until(ago(60)), ago(120)).unwrap()
    }

    fn token_with(&self, grant: Grant) -> String {
        Mint::new(&self.token).sign(&grant, before(now())).unwrap()
    }

    /// A ticket with which a client may read some rooms. A ticket is a credential in the query of a
    /// request.
    fn ticket(&self, of: &str, rooms: &[&str]) -> String {
        let app = Verified::trusted(Grant::app(), before(now()));
        let rooms = rooms.iter().map(|room| selector(&format!("rooms/{room}"))).collect();
        let lifetime = Duration::from_secs(600);
        self.access.issue(&app, rooms, Some(client(of)), lifetime).unwrap().0
    }

    fn say(&self, room: &str, text: &str) {
        self.hub.to(format!("rooms/{room}")).publish(text.to_owned()).unwrap();
    }
}

/// Returns the time one second before this moment. A revocation applies only to credentials that
/// were issued before it or at the same time. The tests issue their credentials one second in the
/// past, so a revocation that follows at once applies to them.
fn before(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.as_millis() - 1_000)
}

fn options(publish: &Secret, token: &Secret, ticket: &Secret) -> AccessOptions {
    let mut keys = Keys::new();
    keys.add(KeyRole::Publish, publish).unwrap();
    let tokens = Tokens::new(TokenKeys::new().hmac(token), TokenRules::default()).unwrap();
    let tickets = TicketKeys::new("chat", std::slice::from_ref(ticket)).unwrap();
    AccessOptions {
        public: vec![selector("rooms/lobby")],
        keys,
        tokens: Some(tokens),
        tickets: Some(tickets),
    }
}

async fn join(
    caller: Caller,
    State(hub): State<Hub<String>>,
    Path(room): Path<String>,
    last: LastEventId,
) -> Result<impl IntoResponse, StreamRefusal> {
    hub.subscribe().topic_segments(["rooms", &room]).resume(last).open_as(&caller).await
}

/// Opens a stream with the events for the client. If the caller has a ticket, the stream also has
/// the topics of the ticket.
async fn mine(
    caller: Caller,
    State(hub): State<Hub<String>>,
    last: LastEventId,
) -> Result<impl IntoResponse, StreamRefusal> {
    caller.check_credential()?;
    hub.subscribe().resume(last).open_as(&caller).await
}

async fn say(
    caller: Caller,
    State(hub): State<Hub<String>>,
    Path(room): Path<String>,
    RawQuery(_): RawQuery,
    text: String,
) -> Result<Result<(), PublishError>, Refusal> {
    let topic = Topic::new(&format!("rooms/{room}")).unwrap();
    caller.check_publish(&[Address::Topic(topic.clone())])?;
    Ok(hub.to(topic).publish(text).map(drop))
}

async fn name(caller: Caller) -> Response {
    match caller.client() {
        Some(client) => client.as_str().to_owned().into_response(),
        None => "nobody".into_response(),
    }
}

/// A running app.
struct Server {
    address: SocketAddr,
}

impl Server {
    async fn new(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(downlink::serve(listener, app).into_future());
        Self { address }
    }

    /// Sends a request, and keeps the connection open.
    async fn send(&self, line: &str, headers: &str, body: &str) -> Client {
        let mut io = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: chat.example\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        io.write_all(request.as_bytes()).await.unwrap();
        Client { io, seen: String::new() }
    }

    async fn get(&self, path: &str, headers: &str) -> Client {
        self.send(&format!("GET {path}"), headers, "").await
    }

    /// Sends a request with the body `hello`, and returns the whole answer.
    async fn answer(&self, line: &str, headers: &str) -> String {
        let headers = format!("{headers}Connection: close\r\n");
        let mut client = self.send(line, &headers, "hello").await;
        client.sees("\r\n\r\n").await;
        client.rest().await
    }
}

/// A peer that reads the bytes of its answer.
struct Client {
    io: TcpStream,
    seen: String,
}

impl Client {
    /// Reads until this text has arrived. Panics if the connection ends first.
    async fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.read().await, "ended without {text:?}: {:?}", self.seen);
        }
    }

    /// Reads to the end of the stream, and returns everything.
    async fn rest(mut self) -> String {
        while !self.seen.ends_with("\r\n0\r\n\r\n") && self.read().await {}
        self.seen
    }

    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        let read = timeout(PATIENCE, self.io.read(&mut bytes)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more after {:?}", self.seen)).unwrap();
        self.seen.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        read > 0
    }
}

/// The header with a key or a token.
fn bearer(text: &str) -> String {
    format!("Authorization: Bearer {text}\r\n")
}
