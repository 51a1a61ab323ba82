//! A server that sends exactly the bytes that a test gives it, and functions that all tests share.

use downlink_client::{
    Closed, Delivery, EventSource, EventSourceBuilder, Gap, Interruption, Opened, ReceivedEvent,
    ReconnectPolicy, StreamError,
};
use std::{future::Future, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// The head of an answer with a stream. The body ends when the server closes the connection.
pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// An answer with this status and these headers, without a body.
pub(crate) fn refusal(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} No\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A policy without waits, so that the tests are fast.
pub(crate) fn at_once() -> ReconnectPolicy {
    ReconnectPolicy::resilient().reconnection_time(Duration::ZERO).backoff_max(Duration::ZERO)
}

pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.local_addr().unwrap())
    }

    /// The builder of an event source for this server. The source reconnects at once.
    pub(crate) fn builder(&self) -> EventSourceBuilder {
        EventSource::builder(self.url("/events")).reconnection(at_once())
    }

    pub(crate) fn source(&self) -> EventSource {
        self.builder().build().unwrap()
    }

    /// Accepts the next connection and reads its whole request.
    pub(crate) async fn accept(&self) -> Connection {
        let (socket, _) = self.listener.accept().await.unwrap();
        let mut connection = Connection { socket, request: Vec::new(), body_at: 0 };
        connection.read_request().await;
        connection
    }

    /// Answers the next request and closes the connection. Returns the connection, which holds the
    /// request.
    pub(crate) async fn answer(&self, answer: impl AsRef<[u8]>) -> Connection {
        let mut connection = self.accept().await;
        connection.send(answer).await;
        connection.socket.shutdown().await.unwrap();
        connection
    }

    /// Answers the next request with a stream that stays open.
    pub(crate) async fn open(&self, body: impl AsRef<[u8]>) -> Connection {
        let mut connection = self.accept().await;
        connection.send([STREAM_HEAD.as_bytes(), body.as_ref()].concat()).await;
        connection
    }
}

/// Returns an address at which no server listens. The socket reserves the address until the socket
/// is dropped.
pub(crate) fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

pub(crate) struct Connection {
    socket: TcpStream,
    request: Vec<u8>,
    body_at: usize,
}

impl Connection {
    async fn read_request(&mut self) {
        while self.body_at == 0 {
            self.read_some().await;
            let end = self.request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            self.body_at = end.map_or(0, |at| at + 4);
        }
        let length = self.header("content-length").map(|value| value.parse().unwrap());
        while self.body().len() < length.unwrap_or(0) {
            self.read_some().await;
        }
        let chunked = self.header("transfer-encoding").is_some();
        while chunked && !self.body().ends_with(b"0\r\n\r\n") {
            self.read_some().await;
        }
    }

    async fn read_some(&mut self) {
        assert_ne!(
            self.socket.read_buf(&mut self.request).await.unwrap(),
            0,
            "the connection closed before the request was complete"
        );
    }

    pub(crate) fn request_line(&self) -> String {
        self.head().lines().next().unwrap().to_owned()
    }

    pub(crate) fn head(&self) -> String {
        String::from_utf8(self.request[..self.body_at].to_vec()).unwrap()
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.request[self.body_at..]
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let head = self.head();
        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Returns when the client has closed the connection.
    pub(crate) async fn closed(mut self) {
        let mut rest = [0; 64];
        // The client may also close the connection with a reset.
        while !matches!(self.socket.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}

/// Waits for the event source's next delivery while the future `server` runs.
pub(crate) async fn with<T>(
    source: &mut EventSource,
    server: impl Future<Output = T>,
) -> (Option<Delivery>, T) {
    tokio::join!(source.next(), server)
}

/// Connects the source to a stream that begins with `body` and stays open.
pub(crate) async fn connect(
    source: &mut EventSource,
    server: &Server,
    body: impl AsRef<[u8]>,
) -> Connection {
    let (delivery, connection) = with(source, server.open(body)).await;
    assert!(matches!(delivery, Some(Delivery::Open(_))), "{delivery:?}");
    connection
}

pub(crate) async fn opened(source: &mut EventSource) -> Opened {
    match source.next().await {
        Some(Delivery::Open(opened)) => opened,
        other => panic!("expected an open connection: {other:?}"),
    }
}

pub(crate) async fn event(source: &mut EventSource) -> ReceivedEvent {
    match source.next().await {
        Some(Delivery::Event(event)) => event,
        other => panic!("expected an event: {other:?}"),
    }
}

pub(crate) async fn gap(source: &mut EventSource) -> Gap {
    match source.next().await {
        Some(Delivery::Gap(gap)) => gap,
        other => panic!("expected a gap: {other:?}"),
    }
}

pub(crate) async fn comment(source: &mut EventSource) -> String {
    match source.next().await {
        Some(Delivery::Comment(text)) => text,
        other => panic!("expected a comment: {other:?}"),
    }
}

pub(crate) async fn interruption(source: &mut EventSource) -> Interruption {
    match source.next().await {
        Some(Delivery::Error(interruption)) => interruption,
        other => panic!("expected an error: {other:?}"),
    }
}

/// Asserts that the event source has ended, and that a second poll also returns no delivery.
/// Returns the reason for the end.
pub(crate) async fn end(source: &mut EventSource) -> &Closed {
    assert!(source.next().await.is_none());
    assert!(source.next().await.is_none(), "the event source ended, and then delivered again");
    source.closed_because().unwrap()
}

/// Answers the first request of an event source. Returns the interruption that the source reports.
pub(crate) async fn interrupted_by(
    builder: EventSourceBuilder,
    server: &Server,
    answer: &str,
) -> Interruption {
    let mut source = builder.build().unwrap();
    let (interruption, _) = tokio::join!(interruption(&mut source), server.answer(answer));
    interruption
}

/// Answers the first request of an event source. The answer must end the source for good. Returns
/// the error.
pub(crate) async fn failed_by(
    builder: EventSourceBuilder,
    server: &Server,
    answer: &str,
) -> StreamError {
    let mut source = builder.build().unwrap();
    tokio::join!(end(&mut source), server.answer(answer));
    match source.into_closed() {
        Some(Closed::Failed(error)) => error,
        other => panic!("expected a failure: {other:?}"),
    }
}
