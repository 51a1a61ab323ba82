//! Tests of `downlink::serve` with real sockets. The client writes the bytes of requests and checks
//! the bytes of answers.
//!
//! Most tests run on each socket type of the module `wire`. The server is built on hyper, an HTTP
//! library. When a response is a stream and the socket is a TCP or Unix socket, the server takes
//! the socket over from hyper and writes the stream itself. The server does not know sockets of
//! other types (foreign sockets), so hyper writes their streams. A peer must not notice which of
//! the two writes its stream.
//!
//! Tests wait until something has happened, never for a fixed time. A test that hangs fails after
//! [`PATIENCE`].

#![cfg(all(feature = "axum", feature = "serve"))]
#![allow(clippy::duplicate_mod, reason = "the same tests run on other sockets")]

mod accept;
mod alike;
mod answer;
mod descriptors;
mod foreign;
#[path = "../shared/foreign_socket.rs"]
mod foreign_socket;
#[cfg(target_os = "linux")]
mod haproxy;
mod http2;
mod kernel;
mod listeners;
mod on_foreign;
mod on_tcp;
#[cfg(unix)]
mod on_unix;
#[cfg(target_os = "linux")]
mod per_address;
#[cfg(unix)]
mod proxy_header;
#[cfg(unix)]
mod stop;
mod wire;

use std::io;
use std::time::Duration;

use axum::Router;
use downlink::serve::{App, AsService, Serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use answer::Answer;
use wire::Wire;

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(20);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// A running server.
struct Running<W: Wire> {
    place: W::Place,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<()>>,
}

impl<W: Wire> Running<W> {
    /// Serves an app on a free port or path, with these settings.
    async fn with<A, Kind>(
        app: A,
        set: impl FnOnce(Serve<W::Listener, A, Kind>) -> Serve<W::Listener, A, Kind>,
    ) -> Self
    where
        A: App<W::Addr, Kind>,
        Kind: 'static,
    {
        let (listener, place) = W::bind().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = set(downlink::serve(listener, app));
        let ended = tokio::spawn(serve.with_graceful_shutdown(stopped).into_future());
        Self { place, stop: Some(stop), ended }
    }

    async fn new(app: Router) -> Self {
        Self::with::<Router, AsService>(app, |serve| serve).await
    }

    async fn connect(&self) -> Client<W::Io> {
        Client::new(W::connect(&self.place).await.expect("the server listens"))
    }

    /// Whether the server accepts connections.
    async fn listens(&self) -> bool {
        W::connect(&self.place).await.is_ok()
    }

    /// Connects and sends a GET.
    async fn get(&self, path: &str) -> Client<W::Io> {
        let mut client = self.connect().await;
        client.get(path, "").await;
        client
    }

    /// Connects and sends a GET with the headers of a browser.
    async fn browse(&self, path: &str) -> Client<W::Io> {
        let mut client = self.connect().await;
        client.get(path, "Sec-Fetch-Mode: cors\r\n").await;
        client
    }

    fn stop(&mut self) {
        self.stop
            .take()
            .expect("the server is stopped only once")
            .send(())
            .expect("the server is running");
    }

    /// Waits until the server has ended. Panics if it has ended with an error.
    async fn ended(self) {
        patiently(self.ended)
            .await
            .expect("no task panicked")
            .expect("the server ends without an error");
    }
}

/// A peer that writes and reads bytes.
struct Client<Io> {
    io: Io,
    /// The text that was read, without the answers that `answer` has removed.
    seen: String,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Client<Io> {
    fn new(io: Io) -> Self {
        Self { io, seen: String::new() }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.expect("the connection is open");
    }

    async fn get(&mut self, path: &str, headers: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
    }

    /// Reads until this text has arrived. Panics if the connection ends first.
    async fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let seen = patiently(self.read()).await;
            assert!(seen, "ended without {text:?}: {:?}", self.seen);
        }
    }

    /// Reads to the end of the connection. Returns the whole text, including the text that was read
    /// before.
    async fn rest(mut self) -> String {
        while patiently(self.read()).await {}
        self.seen
    }

    /// Reads the next complete answer, and removes it from `seen`.
    async fn answer(&mut self) -> Answer {
        loop {
            if let Some((answer, len)) = Answer::parse(&self.seen) {
                self.seen.drain(..len);
                return answer;
            }
            assert!(
                patiently(self.read()).await,
                "the connection ended within an answer: {:?}",
                self.seen
            );
        }
    }

    /// Reads once. Returns `false` if the connection has ended, with or without a reset.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        let read = self.io.read(&mut bytes).await.unwrap_or(0);
        self.seen.push_str(std::str::from_utf8(&bytes[..read]).expect("the bytes are UTF-8"));
        read > 0
    }
}

/// The part of an HTTP response after the head, as received.
fn body_of(response: &str) -> &str {
    response.split_once("\r\n\r\n").expect("the head is complete").1
}

/// The reconnection time in the last frame of a chunked stream. Panics if the last frame has no
/// such time.
fn goodbye_in(response: &str) -> u64 {
    let end = response.rfind("retry: ").expect("the last frame is a retry field");
    let last = response[end..].strip_prefix("retry: ").expect("`retry: ` was found here");
    let millis =
        last.strip_suffix("\n\n\r\n0\r\n\r\n").expect("the last chunk follows the retry field");
    millis.parse().expect("the value is a number")
}

/// A value that sends a signal when it is dropped. The receiver waits for the signal.
struct DropSignal(Option<oneshot::Sender<()>>);

impl DropSignal {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (dropped, waiting) = oneshot::channel();
        (Self(Some(dropped)), waiting)
    }
}

impl Drop for DropSignal {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            let _ = dropped.send(());
        }
    }
}
