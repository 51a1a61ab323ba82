//! Nodes of a cluster as processes, over three real NATS servers. Nodes and servers are killed,
//! paused and cut off, and older data is put back, while readers hop between the nodes.
//!
//! The variable `DOWNLINK_NATS_SERVER` is the path of the program `nats-server`; `cargo xtask ci`
//! installs it and sets the variable. Without the variable, each test prints that it is skipped.
//!
//! Tests wait for conditions. They wait for a fixed time only to choose how long a process or a
//! link is away. Each test kills its processes at its end. A failed test prints the folders with
//! the logs of the nodes and of the servers.
//!
//! Read the files in this order: `link` (a connection that can be cut), `engine` (the NATS
//! servers), `cluster` (the nodes), then the tests: `shared`, `control`, `outages`, `full` and
//! `rollback` (one case each), `blows` and `faults` (random faults, and the check of everything),
//! `torture` (many readers).
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod blows;
#[path = "../common/chaos.rs"]
mod chaos;
mod cluster;
mod control;
mod engine;
mod faults;
mod full;
#[path = "../common/hopping.rs"]
mod hopping;
#[path = "../common/ledger.rs"]
mod ledger;
mod link;
#[path = "../common/listener.rs"]
mod listener;
#[path = "../common/node.rs"]
#[allow(dead_code, reason = "the tests of relays need more of a node")]
mod node;
mod outages;
#[path = "../common/publisher.rs"]
mod publisher;
#[path = "../common/reader.rs"]
mod reader;
mod rollback;
mod shared;
#[path = "../common/socket.rs"]
mod socket;
mod torture;

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, interval, timeout},
};

/// The maximum duration of a wait. Every wait takes far less time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Taken by each test that runs many clients or measures a time, so that these tests run one after
/// the other.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// Asks again until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = interval(Duration::from_millis(25));
    loop {
        pause.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
    }
}
