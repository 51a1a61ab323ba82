//! The main load, and the other loads that can run at the same time:
//!
//! - a quiet topic: a separate topic with one publisher and one reader;
//! - stalled readers, which read nothing during the main load, and resume afterwards;
//! - a replay: a reader that reads the events of an earlier run again and again.

use super::{
    books::Books,
    load::{LoadRun, Period},
    plan::Plan,
    replay::{ReplayPasses, ReplayResults},
    server::ServerProcesses,
    stalled::{Returns, StalledReaders},
};

/// The results of a run, from which the report is made.
#[derive(Debug)]
pub(super) struct LoadResults {
    pub(super) books: Books,
    pub(super) connections: u64,
    /// Connections that ended before the end of the run.
    pub(super) ended_early: u64,
    pub(super) measured: Period,
    /// The period from the first attempt to connect until all connections were up, which means that
    /// their event streams had begun.
    pub(super) connects: Period,
    pub(super) resident_bytes: Option<Resident>,
    /// The books of the quiet topic.
    pub(super) quiet: Option<Books>,
    pub(super) replay: Option<ReplayResults>,
    pub(super) returns: Option<Returns>,
    /// The first problem with a connection or a publish.
    pub(super) problem: Option<String>,
}

/// The server's memory before the connections were opened, and when all are open and idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    pub(super) before: u64,
    pub(super) connected: u64,
}

/// Runs the loads of the plan.
///
/// # Errors
///
/// If no connection comes up (no subscription gets an event stream), or the operating system cannot
/// open the connections.
pub(super) fn run<'a>(plan: &'a Plan, server: &'a ServerProcesses) -> anyhow::Result<LoadResults> {
    let mut load = LoadRun::new(plan, server)?;
    let before = server.usage()?;
    let connects = load.connect()?;
    load.wait(plan.timing.settle)?;
    let resident_bytes = before.zip(server.usage()?).map(|(before, now)| Resident {
        before: before.resident_bytes,
        connected: now.resident_bytes,
    });
    let connections = load.reading.books.connections_up();
    if let Some(plan) = &plan.quiet {
        let mut quiet = LoadRun::new(plan, server)?;
        quiet.connect()?;
        load.quiet = Some(Box::new(quiet));
    }
    let sockets_before = server.descriptors()?;
    let stalled =
        plan.stalled.as_deref().map(|plan| StalledReaders::open(plan, server)).transpose()?;
    load.replay = ReplayPasses::new(plan, server)?.map(Box::new);
    let measured = load.publish()?;
    let sockets = server.descriptors()?.saturating_sub(sockets_before);
    let replay = load.replay.take().map(|replay| replay.end()).transpose()?;
    load.drain()?;
    let quiet = load.quiet.take();
    let quiet = quiet.map(|mut quiet| quiet.drain().map(|()| quiet)).transpose()?;
    load.progress.end();
    let still_open = server.is_known().then_some(sockets);
    let returns = stalled.map(|stalled| stalled.resume(&load.reading.books, still_open));
    let (quiet, quiet_problem) =
        quiet.map(|quiet| (quiet.reading.books, quiet.troubles.problem)).unzip();
    Ok(LoadResults {
        connections,
        ended_early: load.troubles.ended_early,
        measured,
        connects,
        resident_bytes,
        quiet,
        replay,
        returns: returns.transpose()?,
        problem: load.troubles.problem.or(quiet_problem.flatten()),
        books: load.reading.books,
    })
}
