//! Relays as processes: an upstream and the servers that follow it, with real sockets. Processes
//! are killed, paused and restarted, and readers hop between the servers.
//!
//! Tests wait for conditions. They wait for a fixed time only to choose when to hit a process. Each
//! test kills its processes at its end.
//!
//! Read the files of the torture test in this order: `node` (one server), `socket` (one connection
//! of a reader), `reader` (one reader and its record), `publisher`, `ledger` (the check), `chaos`
//! (the blows to the servers), `hopping` (a whole run), `torture` (the tests).
#![cfg(unix)]

#[path = "../common/chaos.rs"]
mod chaos;
mod clients;
mod following;
mod gaps;
#[path = "../common/hopping.rs"]
mod hopping;
mod hostile;
#[path = "../common/ledger.rs"]
mod ledger;
#[path = "../common/listener.rs"]
mod listener;
#[path = "../common/node.rs"]
#[allow(dead_code, reason = "the tests of clusters need more of a node")]
mod node;
#[path = "../common/publisher.rs"]
mod publisher;
mod publishing;
#[path = "../common/reader.rs"]
mod reader;
mod restarts;
#[path = "../common/socket.rs"]
mod socket;
mod torture;

use std::time::Duration;

use tokio::{sync::Mutex, time::timeout};

/// The maximum duration of a wait. Every wait takes far less time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Taken by each test that runs many clients, so that these tests run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}
