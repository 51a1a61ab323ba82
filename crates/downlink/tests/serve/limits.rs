//! How many connections there may be.

use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use downlink::serve::REFUSALS_MAX;
use downlink::{Frame, Sse};
use futures_util::stream;
use tokio::net::TcpStream;

use super::{Client, Running, body_of};

fn streams() -> Router {
    Router::new().route("/", get(|| async { Sse::new(stream::pending::<Frame>()) }))
}

/// A client whose stream has begun.
async fn reading(running: &Running) -> Client<TcpStream> {
    let mut client = running.get("/").await;
    client.sees(": connected\n\n").await;
    client
}

async fn with_connections_max(connections_max: usize) -> Running {
    Running::with(streams(), |serve| serve.connections_max(connections_max)).await
}

#[tokio::test]
async fn newcomer_above_the_limit_is_refused_and_the_others_stay() {
    let running = with_connections_max(2).await;
    let below = reading(&running).await;
    let mut at = reading(&running).await;
    let above = running.get("/").await.rest().await;
    assert!(above.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{above}");
    assert!(above.contains("\r\nretry-after: "), "{above}");
    assert!(above.contains("application/problem+json"), "{above}");

    // A place that becomes free is given away again, as soon as the server has noticed.
    drop(below);
    loop {
        let mut next = running.get("/").await;
        next.sees("\r\n\r\n").await;
        if next.seen.starts_with("HTTP/1.1 200 OK\r\n") {
            break;
        }
    }
    at.seen.clear();
    assert!(tokio::time::timeout(Duration::ZERO, at.read()).await.is_err(), "still open");
}

#[tokio::test]
async fn browser_above_the_limit_is_told_to_return() {
    let running = with_connections_max(1).await;
    let _at = reading(&running).await;
    let above = running.browse("/").await.rest().await;
    assert!(above.starts_with("HTTP/1.1 200 OK\r\n"), "{above}");
    let body = body_of(&above);
    let retry = body
        .strip_prefix(": The server is at its limit of connections; come back later.\n\nretry: ");
    let millis: u64 = retry.expect(body).strip_suffix("\n\n").expect(body).parse().expect(body);
    assert!((1_000..=5_000).contains(&millis), "{millis}");
}

#[tokio::test]
async fn refusals_have_a_limit_too() {
    let running = with_connections_max(1).await;
    let _at = reading(&running).await;
    let mut silent = Vec::new();
    for _ in 0..REFUSALS_MAX {
        silent.push(running.connect().await);
    }
    // Closed without an answer, although the others have asked for nothing yet.
    assert_eq!(running.connect().await.rest().await, "");
    silent[0].get("/", "").await;
    silent[0].sees("503 Service Unavailable").await;
    // And those that never ask are closed in the end.
    assert_eq!(silent.pop().expect("many").rest().await, "");
}

#[tokio::test]
async fn no_limit_can_be_zero() {
    assert_eq!(
        downlink::serve(listener().await, streams()).connections_max(0).connections_allowed(),
        1
    );
    let set = downlink::serve(listener().await, streams()).connections_max(7);
    assert_eq!(set.connections_allowed(), 7);
}

async fn listener() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// Set in the child process of the test that has its own, low, limit of descriptors.
const IN_CHILD: &str = "DOWNLINK_TEST_FEW_DESCRIPTORS";

#[tokio::test]
async fn server_outlives_a_lack_of_descriptors() {
    if std::env::var_os(IN_CHILD).is_some() {
        return without_descriptors().await;
    }
    let child = Command::new("sh")
        .args(["-c", "ulimit -Sn 40; ulimit -Hn 60; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().expect("this test"))
        .arg("limits::server_outlives_a_lack_of_descriptors")
        .env(IN_CHILD, "1")
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{child:?}");
}

/// Runs alone in its process, which may have 60 descriptors open.
async fn without_descriptors() {
    let counted = downlink::serve(listener().await, streams()).connections_allowed();
    assert_eq!(counted, 30, "half of the hard limit, which the soft one was raised to");

    let running = with_connections_max(1_000).await;
    let _first = reading(&running).await;
    let mut taken = Vec::new();
    let exhausted = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(exhausted.raw_os_error(), Some(24), "EMFILE: {exhausted}");
    // One descriptor for the client, none for the server's side of the connection.
    taken.pop();
    let mut client = running.get("/").await;
    let unserved = tokio::time::timeout(Duration::from_millis(250), client.read()).await;
    assert!(unserved.is_err(), "there was a descriptor left: {}", client.seen);
    taken.clear();
    client.sees(": connected\n\n").await;
}
