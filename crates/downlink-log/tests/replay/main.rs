//! Readers read old events from the SQLite store while publishers publish and retention evicts
//! events.
//!
//! In each run, several publishers and readers use one log. Each of them has its own thread. The
//! seed of the run, a number, determines what they publish and read, and when a reader pauses. The
//! seed does not determine the timing of the threads, so two runs with the same seed differ.
//! `DOWNLINK_REPLAY_RUNS` sets the number of runs, and `DOWNLINK_REPLAY_SEED` sets the first seed.
#![cfg(not(downlink_loom))]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod allocation;
mod files;
mod memory;
mod program;
mod reading;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, PoisonError};

/// Each test holds this lock while it runs, because the allocator counts the memory of the whole
/// process, including the memory of other tests.
static ALONE: Mutex<()> = Mutex::new(());

/// The seed of a run. If the run fails, the seed is printed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "run the program again with DOWNLINK_REPLAY_SEED={} DOWNLINK_REPLAY_RUNS=1",
                self.0
            );
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn every_reader_gets_each_event_once_or_a_gap() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let first = number("DOWNLINK_REPLAY_SEED", 1);
    let runs = number("DOWNLINK_REPLAY_RUNS", 12);
    let mut gaps = 0;
    for seed in first..first + runs {
        let _seed = Seed(seed);
        gaps += program::run(seed);
    }
    // If no reader got a gap, the runs have tested nothing about gaps.
    assert!(runs < 12 || gaps > 0, "no reader got a gap");
}

#[test]
fn a_reader_of_stored_events_holds_at_most_one_page() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    memory::one_page_each();
}
