//! Peers of the server that are not readers. They send other requests, or behave in unusual ways.
//!
//! The ledger (the record of the published events and their recipients) does not include these
//! peers. Each peer checks the answers that it gets. Because of these peers, the server must serve
//! other requests while the streams of readers begin, end and break.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::routing::get;
use downlink::{Event, Sse};
use fastrand::Rng;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::patiently;
use super::wire::{Io, exchange};
use super::world::{World, topic};

/// The number of peers that are not readers.
const OTHERS: usize = 12;

/// The routes that these peers request.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/plain", get(|| async { "plain" }))
        .route("/finite", get(finite))
        .route("/echo", get(echo))
}

async fn finite() -> Sse<impl downlink::http::FrameSource> {
    Sse::new(stream::iter([Event::new("a"), Event::new("b")]))
}

async fn echo(mut request: Request) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // The peer may have disconnected already.
        let Ok(upgraded) = upgraded.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let switching = switching.header("connection", "upgrade").header("upgrade", "echo");
    switching.body(Body::empty()).unwrap()
}

/// Starts all peers. Each task returns the number of its successful requests.
pub(crate) fn send_off(world: &Arc<World>, rng: &mut Rng) -> JoinSet<usize> {
    (0..OTHERS).map(|number| visits(number, Arc::clone(world), rng.fork())).collect()
}

async fn visits(number: usize, world: Arc<World>, mut rng: Rng) -> usize {
    let mut exchanges = 0;
    while world.last().is_none() || exchanges == 0 {
        // If this process has too few file descriptors, a connection may fail.
        let Ok(mut io) = world.place.connect(None).await else { continue };
        let visited = patiently(visit(number % 6, &mut io, &mut rng)).await;
        exchanges += usize::from(visited.is_ok());
        world.published_more(rng.u64(0..50)).await;
    }
    exchanges
}

/// Sends the requests of a peer of this kind over one connection, and checks the answers.
async fn visit(kind: usize, io: &mut Box<dyn Io>, rng: &mut Rng) -> std::io::Result<()> {
    let stream = format!("/?topics={}", topic(rng.usize(0..4)));
    match kind {
        0 => {
            for _ in 0..rng.usize(1..5) {
                exchange(io, "GET", "/finite", b"\r\n0\r\n\r\n").await?;
                exchange(io, "HEAD", &stream, b"\r\n\r\n").await?;
                exchange(io, "GET", "/plain", b"\r\n\r\nplain").await?;
            }
        }
        1 => {
            let three = ["/finite", "/plain", "/finite"];
            let requests = three.map(|path| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            io.write_all(requests.concat().as_bytes()).await?;
            let mut answers = Vec::new();
            while answers.windows(5).filter(|bytes| bytes == b"0\r\n\r\n").count() < 2 {
                answers.push(io.read_u8().await?);
            }
            let text = String::from_utf8(answers).expect("the text is UTF-8");
            assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
        }
        2 => {
            let upgrade = "GET /echo HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nagain";
            io.write_all(upgrade.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nagain") {
                answer.push(io.read_u8().await?);
            }
        }
        3 => {
            let old = format!("GET {stream} HTTP/1.0\r\n\r\n");
            io.write_all(old.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b": connected\n\n") {
                answer.push(io.read_u8().await?);
            }
            assert!(!String::from_utf8_lossy(&answer).contains("chunked"));
        }
        4 => {
            exchange(io, "GET", &stream, b": connected\n\n").await?;
            io.shutdown().await?;
            // The server treats the closed sending side of the peer as a disconnect.
            let mut rest = Vec::new();
            // The server may close or reset the connection.
            let _ = io.read_to_end(&mut rest).await;
        }
        _ => {
            exchange(io, "GET", &stream, b": connected\n\n").await?;
            io.write_all(&vec![b'j'; rng.usize(1..50_000)]).await?;
        }
    }
    Ok(())
}
