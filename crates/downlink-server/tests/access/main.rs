//! Tests of access control, over real sockets and against the real program. They check every cell
//! of the tables in `docs/ACCESS.md`. They also check what a client may read and publish with a
//! grant, which is a list of rights.
//!
//! Tests wait for events, never for a fixed time. A test that hangs fails after [`PATIENCE`].
#![cfg(unix)]

#[path = "../api/answer.rs"]
mod answer;
#[path = "../store/disk.rs"]
#[expect(dead_code, reason = "only the tests of the store use every function")]
mod disk;
#[path = "../api/stream.rs"]
#[expect(dead_code, reason = "only the tests of the API use every function")]
mod stream;

mod asking;
mod attacks;
mod cells;
mod credentials;
#[cfg(target_os = "linux")]
mod floods;
mod hosts;
mod key_sets;
mod limits;
mod logs;
mod origins;
mod program;
mod publishing;
mod reloading;
mod request;
mod restarting;
mod revoking;
mod several;
mod site;
mod streams;
mod subscribing;
mod table;
mod upload;
mod web;

use std::time::Duration;

use tokio::time::timeout;

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(60);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}
