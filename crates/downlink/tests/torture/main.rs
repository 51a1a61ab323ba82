//! Torture over real sockets: readers that vanish at any byte, and a ledger that knows what was due.
//!
//! Publishers write down what they published to whom; each reader writes down what it was sent. In
//! the end every event that was for a reader came once and in order, or lies in a hole that the
//! reader was told of. Nothing is measured with a watch: only how long the publishers go on is a
//! matter of time, and every wait is for something that happens.
//!
//! A few seconds each; `DOWNLINK_TORTURE_SECONDS` makes it more. Each test prints its seed, and
//! `DOWNLINK_TORTURE_SEED` gives it one: timing differs all the same, the choices do not.
//!
//! Read in this order: `ledger` (what is due) → `wire` (bytes into events) → `reader` (what one
//! reader saw) → `world` (server and publishers) → the tests.

#![cfg(all(feature = "axum", feature = "json", feature = "serve"))]
#![allow(clippy::unwrap_used)]

#[path = "../shared/foreign_socket.rs"]
mod foreign_socket;
mod holes;
mod ledger;
mod many_topics;
mod others;
mod reader;
mod reconnect;
mod restart;
mod stalled;
mod wire;
mod world;

use std::time::Duration;

use fastrand::Rng;
use tokio::time::timeout;

/// How long the publishers publish, unless the environment says otherwise.
const SECONDS: u64 = 2;

/// Far more than any wait of these tests takes, on a machine that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(120);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("this never happened")
}

/// How long the publishers publish.
fn length() -> Duration {
    let seconds = std::env::var("DOWNLINK_TORTURE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(SECONDS, |seconds| seconds.parse().expect("a number")))
}

/// Where a test's choices come from; says how to make them again.
fn dice(test: &str) -> Rng {
    let given = std::env::var("DOWNLINK_TORTURE_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    eprintln!("{test}: DOWNLINK_TORTURE_SEED={seed}");
    Rng::with_seed(seed)
}
