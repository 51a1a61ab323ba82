//! Tests of the limit of connections that the server derives from the process's limit of open file
//! descriptors.

use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use downlink::{Frame, Sse};
use futures_util::stream;

type Running = super::Running<super::wire::Tcp>;

fn streams() -> Router {
    Router::new().route("/", get(|| async { Sse::new(stream::pending::<Frame>()) }))
}

#[tokio::test]
async fn the_limit_of_connections_is_at_least_one() {
    assert_eq!(
        downlink::serve(listener().await, streams()).connections_max(0).connections_allowed(),
        1
    );
    let set = downlink::serve(listener().await, streams()).connections_max(7);
    assert_eq!(set.connections_allowed(), 7);
}

async fn listener() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free")
}

/// The test runs itself again in a child process with a low limit of descriptors. This environment
/// variable is set only in the child.
const IN_CHILD: &str = "DOWNLINK_TEST_FEW_DESCRIPTORS";

#[tokio::test]
async fn the_server_survives_a_lack_of_descriptors() {
    if std::env::var_os(IN_CHILD).is_some() {
        return without_descriptors().await;
    }
    let child = Command::new("sh")
        .args(["-c", "ulimit -Sn 40; ulimit -Hn 60; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().expect("the test has a path"))
        .arg("descriptors::the_server_survives_a_lack_of_descriptors")
        .env(IN_CHILD, "1")
        .output()
        .expect("the system has a shell");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{child:?}");
}

/// The part of the test that runs in the child process. This process may have at most 60 open
/// descriptors.
async fn without_descriptors() {
    let counted = downlink::serve(listener().await, streams()).connections_allowed();
    // The server has raised the soft limit to the hard limit. It allows half as many connections as
    // descriptors.
    assert_eq!(counted, 30, "the server must allow one connection for each two descriptors");

    let running = Running::with(streams(), |serve| serve.connections_max(1_000)).await;
    let mut first = running.get("/").await;
    first.sees(": connected\n\n").await;
    let mut taken = Vec::new();
    let exhausted = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(exhausted.raw_os_error(), Some(24), "EMFILE: {exhausted}");
    // This frees one descriptor. The client takes it, so the server has none for its end of the
    // connection.
    taken.pop();
    let mut client = running.get("/").await;
    let unserved = tokio::time::timeout(Duration::from_millis(250), client.read()).await;
    assert!(unserved.is_err(), "the server still had a descriptor: {}", client.seen);
    taken.clear();
    client.sees(": connected\n\n").await;
}
