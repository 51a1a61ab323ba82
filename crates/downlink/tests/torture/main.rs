//! Torture tests over real sockets. Readers disconnect at random bytes. A ledger records which
//! events each reader must get.
//!
//! Publishers record each event and its recipients in the ledger. Each reader records the events
//! that it received. At the end, the test compares the two records. Every event for a reader must
//! have been delivered once and in order, or a gap that the reader received must cover it. The
//! publishers run for a fixed time. All other waits end when something has happened, and not after
//! a fixed time.
//!
//! Each test takes a few seconds, or longer if `DOWNLINK_TORTURE_SECONDS` is set. A seed determines
//! the random choices of a test, but not the timing. Each test prints its seed, and
//! `DOWNLINK_TORTURE_SEED` sets the seed.
//!
//! Read the files in this order: `ledger` (which events readers must get), `wire` (one connection),
//! `reader` (one reader and its record), `world` (the server and the publishers), and then the
//! tests.

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

/// The default time for which the publishers run. An environment variable can set another time.
const SECONDS: u64 = 2;

/// The maximum duration of a wait. Every wait takes far less time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// Returns how long the publishers run.
fn length() -> Duration {
    let seconds = std::env::var("DOWNLINK_TORTURE_SECONDS").ok();
    Duration::from_secs(
        seconds.map_or(SECONDS, |seconds| seconds.parse().expect("the value is a number")),
    )
}

/// Makes the random number generator of a test, and prints the seed.
fn dice(test: &str) -> Rng {
    let given = std::env::var("DOWNLINK_TORTURE_SEED").ok();
    let seed = given
        .map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("the value is a number"));
    eprintln!("{test}: DOWNLINK_TORTURE_SEED={seed}");
    Rng::with_seed(seed)
}
