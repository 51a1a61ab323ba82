//! The power is cut while a process writes to a store. Afterwards, the store's file must have all
//! events that the store has confirmed.
//!
//! A child process commits batches of events, and prints a line after each commit. It uses a
//! simulated disk, which knows the writes that were flushed. At a random write or flush, the power
//! is cut. Each sector (512 bytes) of the writes that were not flushed then survives or is lost at
//! random. The last write is also cut off at a random byte. In some runs, a write or a flush fails
//! before the power cut. The parent process then opens the file that has survived, and compares it
//! with the output of the child.
//!
//! Some runs use a disk that only pretends to flush. These runs must lose events. If none of them
//! loses an event, the test cannot detect losses, so it fails. `DOWNLINK_POWERCUT_RUNS` sets the
//! number of runs for each kind of failure (`Sort`), and `DOWNLINK_POWERCUT_SEED` sets the first
//! seed.
//!
//! The simulated power cut differs from a real power cut in two ways. A real power cut may lose the
//! name of a new file, and the file `*-shm` (the memory that processes share) may survive it.

#![cfg_attr(not(target_os = "linux"), allow(unused))]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod plan;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("skipped: this test runs only on Linux");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if let Some(plan) = plan::Plan::from_environment() {
        child::run(&plan);
    }
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    };
    let runs: u64 = number("DOWNLINK_POWERCUT_RUNS", 12);
    let first: u64 = number("DOWNLINK_POWERCUT_SEED", 1);
    let good = plan::Sort::ALL.map(|sort| check(sort, first..first + runs));
    if good.into_iter().all(|good| good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all seeds for one kind of failure and prints the result. Returns whether the result is as
/// expected.
#[cfg(target_os = "linux")]
fn check(sort: plan::Sort, seeds: std::ops::Range<u64>) -> bool {
    let (runs, first) = (seeds.end - seeds.start, seeds.start);
    let results: Vec<_> = seeds.map(|seed| (seed, judge::run(sort, seed))).collect();
    let conclusive = results.iter().filter(|(_, (said, _))| said.is_conclusive(sort)).count();
    let wrong: Vec<_> =
        results.iter().filter_map(|(seed, (_, wrong))| Some((seed, wrong.as_ref()?))).collect();
    let pretending = sort == plan::Sort::Pretending;
    println!(
        "power cut, {sort:?}: {runs} runs from seed {first}, {conclusive} of them conclusive; {} \
         of them lost events or were wrong",
        wrong.len()
    );
    if conclusive == 0 || (pretending && wrong.is_empty()) {
        println!("  inconclusive: these runs prove nothing");
    }
    if !pretending {
        wrong.iter().for_each(|(seed, wrong)| println!("  seed {seed}: {wrong}"));
    }
    conclusive > 0 && wrong.is_empty() != pretending
}
