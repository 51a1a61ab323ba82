//! In a storm, the tool opens all connections as fast as it can, and then closes all of them. A run
//! may have several storms.
//!
//! The results are the number of connections that the server accepts per second, the processor time
//! that the server needs for this, and whether the server frees its memory and its sockets
//! afterwards.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    load::LoadRun,
    plan::Plan,
    report::{mib, write_problem},
    server::ServerProcesses,
};

/// How long the server may take to close its side of all connections.
const GONE_MAX: Duration = Duration::from_secs(20);
/// The interval between two counts of the server's descriptors.
const SAMPLE: Duration = Duration::from_millis(20);

/// The results of all storms.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Storms {
    /// The server's memory before the storms, after a single connection was opened and closed.
    resident_before: u64,
    storms: Vec<Storm>,
    /// The connections per second in the slowest storm.
    connects_per_s: f64,
    /// The number of connections of all storms, divided by the processor time that the server used
    /// for them.
    connects_per_cpu_s: f64,
    /// The server's memory after the last storm, when all connections are closed.
    resident_after: u64,
    /// `resident_after` divided by `resident_before`.
    resident_growth: f64,
    /// In each storm, the load tool is busy for a share of the time that it takes to connect. This
    /// is the largest of these shares.
    generator_busy_share: f64,
    /// True if every connection got its event stream and the server closed every socket.
    flawless: bool,
    problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Storm {
    connections: u64,
    seconds: f64,
    cpu_s: f64,
    /// The share of `seconds` in which the load tool was busy.
    generator_busy_share: f64,
    resident_connected: u64,
    resident_after: u64,
    /// The number of sockets that the server had not closed at the end of the storm.
    sockets_left: usize,
    #[serde(skip)]
    problem: Option<String>,
}

/// Runs `number` storms.
///
/// # Errors
///
/// If no subscription gets an event stream, or the server's process cannot be read.
pub(super) fn run(plan: &Plan, server: &ServerProcesses, number: usize) -> anyhow::Result<Storms> {
    let descriptors = warm_up(&plan.alone(), server)?;
    let before = server.resident_bytes()?;
    let storms: Vec<Storm> =
        (0..number).map(|_| storm(plan, server, descriptors)).collect::<anyhow::Result<_>>()?;
    Ok(Storms::new(plan, before, storms))
}

/// Connects a single reader and closes it. Returns the number of descriptors that the server has
/// open without connections. The server opens some of them only when it answers its first request,
/// so they are counted after this request.
fn warm_up(plan: &Plan, server: &ServerProcesses) -> anyhow::Result<usize> {
    let mut load = LoadRun::new(plan, server)?;
    load.connect()?;
    let ours = plan.connections + plan.publishers;
    let descriptors = server.descriptors()?.saturating_sub(ours);
    drop(load);
    wait_until_gone(server, descriptors)?;
    thread::sleep(plan.timing.settle);
    Ok(descriptors)
}

fn storm(plan: &Plan, server: &ServerProcesses, descriptors: usize) -> anyhow::Result<Storm> {
    let mut load = LoadRun::new(plan, server)?;
    let connects = load.connect()?;
    load.wait(plan.timing.settle)?;
    let resident_connected = server.resident_bytes()?;
    let connections = load.reading.books.connections_up();
    let problem = load.troubles.problem.take();
    drop(load);
    let sockets_left = wait_until_gone(server, descriptors)?;
    thread::sleep(plan.timing.settle);
    Ok(Storm {
        connections,
        seconds: connects.seconds,
        cpu_s: connects.used.unwrap_or_default().cpu_s,
        generator_busy_share: connects.busy_share,
        resident_connected,
        resident_after: server.resident_bytes()?,
        sockets_left,
        problem,
    })
}

/// Waits until the server has at most `descriptors` open descriptors. Returns how many more
/// descriptors are open at the end of the wait.
fn wait_until_gone(server: &ServerProcesses, descriptors: usize) -> anyhow::Result<usize> {
    let since = Instant::now();
    loop {
        let left = server.descriptors()?.saturating_sub(descriptors);
        if left == 0 || since.elapsed() > GONE_MAX {
            return Ok(left);
        }
        thread::sleep(SAMPLE);
    }
}

impl Storms {
    fn new(plan: &Plan, before: u64, storms: Vec<Storm>) -> Self {
        let per_s = |storm: &Storm| storm.connections as f64 / storm.seconds;
        let connections: u64 = storms.iter().map(|storm| storm.connections).sum();
        let cpu_s: f64 = storms.iter().map(|storm| storm.cpu_s).sum();
        let after = storms.last().map_or(0, |storm| storm.resident_after);
        let is_whole =
            |storm: &Storm| storm.connections == plan.connections as u64 && storm.sockets_left == 0;
        Self {
            resident_before: before,
            connects_per_s: storms.iter().map(per_s).fold(f64::INFINITY, f64::min),
            connects_per_cpu_s: connections as f64 / cpu_s.max(f64::EPSILON),
            resident_after: after,
            resident_growth: after as f64 / (before as f64).max(1.0),
            generator_busy_share: storms
                .iter()
                .map(|storm| storm.generator_busy_share)
                .fold(0.0, f64::max),
            flawless: storms.iter().all(is_whole),
            problem: storms.iter().find_map(|storm| storm.problem.clone()),
            storms,
        }
    }
}

impl fmt::Display for Storms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "before: {:.1} MiB resident", mib(self.resident_before))?;
        for (number, storm) in (1..).zip(&self.storms) {
            let Storm { connections, seconds, cpu_s, sockets_left, .. } = storm;
            let (up, after) = (mib(storm.resident_connected), mib(storm.resident_after));
            let busy = storm.generator_busy_share * 100.0;
            writeln!(
                f,
                "storm {number}: {connections} connections in {seconds:.2} s, {cpu_s:.2} s of the \
                 server's processor time, generator {busy:.0} % busy; {up:.1} MiB resident, then \
                 {after:.1} MiB and {sockets_left} sockets left"
            )?;
        }
        let (wall, cpu) = (self.connects_per_s, self.connects_per_cpu_s);
        writeln!(f, "connects: {wall:.0} a second, {cpu:.0} a second of the server's processor")?;
        write_problem(f, self.problem.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storm(connections: u64, seconds: f64, sockets_left: usize) -> Storm {
        Storm {
            connections,
            seconds,
            cpu_s: 0.5,
            generator_busy_share: 0.5,
            resident_connected: 9_000,
            resident_after: 1_500,
            sockets_left,
            problem: None,
        }
    }

    fn storms(plan_connections: &str, storms: Vec<Storm>) -> Storms {
        let plan = Plan::of(&["--connections", plan_connections]).unwrap();
        Storms::new(&plan, 1_000, storms)
    }

    #[test]
    fn the_report_has_the_slowest_rate_and_the_memory_after_the_last_storm() {
        let found = storms("100", vec![storm(100, 0.1, 0), storm(100, 0.2, 0)]);
        assert_eq!((found.connects_per_s, found.connects_per_cpu_s), (500.0, 200.0));
        assert_eq!(found.resident_growth, 1.5);
        assert!(found.flawless);
    }

    #[test]
    fn a_missing_connection_or_a_socket_left_open_is_a_flaw() {
        assert!(!storms("100", vec![storm(99, 0.1, 0)]).flawless);
        assert!(!storms("100", vec![storm(100, 0.1, 1)]).flawless);
    }
}
