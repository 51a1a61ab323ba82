//! Torture tests over real sockets. Readers disconnect at any byte, and a ledger records which
//! events are due.
//!
//! Publishers record their events and recipients. Each reader records the events it received. At
//! the end, every event for a reader was delivered once and in order, or lies in a gap that the
//! reader received. The publishers run for a fixed time. All other waits are for events, and no
//! test measures time.
//!
//! Each test takes a few seconds. `DOWNLINK_TORTURE_SECONDS` makes the tests longer. Each test
//! prints its seed, and `DOWNLINK_TORTURE_SEED` sets the seed. The same seed repeats the choices,
//! but not the timing.
//!
//! Read the files in this order: `ledger` (the events that are due), `wire` (turns bytes into
//! events), `reader` (the record of one reader), `world` (the server and the publishers), and then
//! the tests.

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

/// How long the publishers run, unless the environment sets another time.
const SECONDS: u64 = 2;

/// The longest wait. Every wait takes far less time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// How long the publishers run.
fn length() -> Duration {
    let seconds = std::env::var("DOWNLINK_TORTURE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(SECONDS, |seconds| seconds.parse().expect("a number")))
}

/// The random number generator for the choices of a test. Prints its seed.
fn dice(test: &str) -> Rng {
    let given = std::env::var("DOWNLINK_TORTURE_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    eprintln!("{test}: DOWNLINK_TORTURE_SEED={seed}");
    Rng::with_seed(seed)
}
