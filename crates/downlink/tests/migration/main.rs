//! Tests that an app with `axum::response::sse` can move to this crate with a few changed lines.
//!
//! The file `axum_app.rs` has an app before the move, and `downlink_app.rs` has the app after the
//! move. The tests count the lines that differ, compare these lines with the migration guide, and
//! run both versions.

#![cfg(all(feature = "axum", feature = "serve"))]

mod axum_app;
mod downlink_app;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::StreamExt;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower_service::Service;

const BEFORE: &str = include_str!("axum_app.rs");
const AFTER: &str = include_str!("downlink_app.rs");
const CHAPTER: &str = include_str!("../../guide/23-from-axum-sse.md");

/// The maximum duration of a wait for a socket. A test that hangs fails after this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the lines of code that are in the first text and not in the second.
fn only_in_first<'a>(first: &'a str, second: &str) -> BTreeSet<&'a str> {
    let second: BTreeSet<&str> = second.lines().map(str::trim).collect();
    let code = first.lines().map(str::trim).filter(|line| !line.starts_with("//!"));
    code.filter(|line| !second.contains(line)).collect()
}

#[test]
fn the_migration_of_an_app_changes_at_most_five_lines() {
    let (removed, added) = (only_in_first(BEFORE, AFTER), only_in_first(AFTER, BEFORE));
    assert!((1..=5).contains(&removed.len().max(added.len())), "{removed:?} {added:?}");
}

#[test]
fn the_guide_shows_the_lines_that_the_migration_changes() {
    let shown = |sign: char| -> BTreeSet<&str> {
        let (_, from_diff) = CHAPTER.split_once("```diff\n").expect("the chapter has a diff");
        let (diff, _) = from_diff.split_once("```").expect("the diff has an end");
        diff.lines().filter_map(|line| line.strip_prefix(sign)).map(str::trim).collect()
    };
    assert_eq!(shown('-'), only_in_first(BEFORE, AFTER));
    assert_eq!(shown('+'), only_in_first(AFTER, BEFORE));
}

/// Reads the app's stream up to the end of the second event.
async fn two_events(mut app: Router) -> String {
    let request = Request::get("/sse").body(Body::empty()).expect("the request is valid");
    let response = app.call(request).await.expect("a router never fails");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut chunks = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("data: hi!\n\n").count() < 2 {
        let chunk = chunks
            .next()
            .await
            .expect("the stream has not ended")
            .expect("the stream has not failed");
        text.push_str(std::str::from_utf8(&chunk).expect("the text is UTF-8"));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn both_apps_send_events_and_keep_alives() {
    for app in [axum_app::app(), downlink_app::app()] {
        let text = two_events(app).await;
        assert!(text.contains(": keep-alive-text\n"), "{text}");
    }
}

/// Reads from a server until it has sent the first event.
async fn read_first_event(address: SocketAddr) {
    let mut socket = TcpStream::connect(address).await.expect("the server accepts connections");
    socket
        .write_all(b"GET /sse HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .expect("the request is written");
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("data: hi!\n\n") {
        assert_ne!(
            socket.read_buf(&mut read).await.expect("the socket can be read"),
            0,
            "the stream ended early"
        );
    }
}

#[tokio::test]
async fn both_apps_send_their_first_event_over_a_socket() {
    for is_migrated in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let server = async {
            if is_migrated {
                downlink_app::run(listener).await
            } else {
                axum_app::run(listener).await
            }
        };
        tokio::select! {
            ended = server => panic!("the server has ended: {ended:?}"),
            read = timeout(PATIENCE, read_first_event(address)) => read.expect("the first event arrives in time"),
        }
    }
}
