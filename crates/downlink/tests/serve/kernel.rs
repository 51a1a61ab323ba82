//! Tests that the server lets the kernel decide whether a TCP peer stalls. Only the kernel knows
//! whether the peer acknowledges data.
#![cfg(target_os = "linux")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use downlink::{Event, Sse};
use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;

use super::DropSignal;

type Running = super::Running<super::wire::Tcp>;

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
    (Router::new().route("/", get(once)), dropped)
}

/// A slow peer may leave its socket full for longer than `write_stall_max`, although it
/// acknowledges some data now and then. Only the kernel can distinguish such a peer from a peer
/// that acknowledges nothing. In this test, the server's clock advances by hours, and the kernel's
/// clock by almost nothing. If the server itself measured the time, it would close the connection.
/// So the connection stays open only if the server asks the kernel.
#[tokio::test]
async fn the_kernel_decides_whether_a_tcp_reader_stalls() {
    let (app, mut dropped) = firehose();
    let running = Running::with(app, |serve| serve).await;
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    tokio::time::pause();
    for _ in 0..24 {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        for _ in 0..16 {
            assert!(client.read().await, "the stream was cut");
        }
    }
    assert!(dropped.try_recv().is_err());
}
