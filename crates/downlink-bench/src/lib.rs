//! `downlink bench` puts a load on any server of event streams and accounts for every event.
//!
//! Many subscriptions and a few publishers run in one thread. Each payload contains a record that
//! identifies the event, so the tool counts every delivery exactly. At a fixed rate, the latency of
//! an event is measured from the time at which it should have been published, not from the time at
//! which it was published. So if the server stalls, the latency includes the whole stall. Lost
//! events do not end a run with an error. The report contains their number.
//!
//! ```sh
//! downlink dev &
//! downlink bench --connections 1000 --rate 100
//! ```
//!
//! `downlink bench --help` lists the settings. In this crate they are [`Arguments`]:
//!
//! ```
//! use clap::{Args, Command};
//! use downlink_bench::Arguments;
//!
//! let help = Arguments::augment_args(Command::new("bench")).render_help().to_string();
//! assert!(help.contains("--connections <N>"));
//! ```
//!
//! # Limits
//!
//! The tool supports only HTTP/1.1 without TLS. For each connection, both the tool and the server
//! need a file descriptor. The tool raises its own limit of descriptors as far as the system
//! allows.
//!
//! # Features and platforms
//!
//! The crate has no features. It needs Unix. It can measure the memory and the processor time of
//! the server only on Linux.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! `bench/record` in the repository has the measurements of each release, with their commands. The
//! [guide](https://docs.rs/downlink/latest/downlink/guide/) is about the library `downlink`.

mod arguments;
mod books;
mod comeback;
mod connection;
mod load;
mod main_load;
mod pace;
mod plan;
mod plot;
mod progress;
mod publisher;
mod reader;
mod record;
mod replay;
mod report;
mod response;
mod server;
mod stalled;
mod storms;
mod subscriber;
mod tally;

use std::{fmt::Display, fs};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

pub use self::arguments::Arguments;
use self::{plan::Plan, report::LoadReport, server::ServerProcesses};

/// The number of descriptors that the tool needs besides those of the connections: for the standard
/// streams, the polls, the plot and `/proc`.
const DESCRIPTORS_SPARE: u64 = 32;

/// Runs the load, and returns the report to print.
///
/// # Errors
///
/// If an argument is invalid, or the server cannot be reached.
pub fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let plan = Plan::new(arguments)?;
    let server = ServerProcesses::new(&arguments.server_pid)?;
    raise_descriptor_limit(plan.descriptors() as u64 + DESCRIPTORS_SPARE)?;
    if let Some(number) = arguments.storms {
        return text_of(arguments, &storms::run(&plan, &server, number)?);
    }
    if let Some(line) = &arguments.comeback {
        return text_of(arguments, &comeback::run(&plan.comeback(), &server, line)?);
    }
    let outcome = main_load::run(&plan, &server)?;
    let report = LoadReport::new(&plan, &outcome);
    if let Some(file) = &arguments.plot {
        let picture = plot::svg(&outcome.books.latency_ns, &report.headline());
        fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    }
    text_of(arguments, &report)
}

fn text_of(arguments: &Arguments, results: &(impl Serialize + Display)) -> anyhow::Result<String> {
    Ok(if arguments.json { serde_json::to_string(results)? + "\n" } else { results.to_string() })
}

/// Raises the limit of open descriptors to this number if it is lower.
fn raise_descriptor_limit(needed: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(u64::MAX);
    anyhow::ensure!(
        most >= needed,
        "the run needs {needed} descriptors, at most {most} are allowed: use fewer \
        --connections, or raise the limit (ulimit -Hn)"
    );
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open descriptors")
}
