//! The cells (measurements) of attacks: ordinary subscribers and a publisher use a server while an
//! attacker opens many connections. `bench/attacker` describes the attacks.
//!
//! Each round has three runs: without an attack, with an attack on another server, and with an
//! attack on the measured server. The attacker and the other server run on the load tool's
//! processor. The measured server and the load tool have real-time priority, so they do not wait
//! for the attacker or for other programs of the machine. But the attacker still costs the load
//! tool some time, because the kernel does not interrupt its own work on packets. The second run
//! shows these costs. The bars (the limits for the figures) compare the third run with the first
//! one.
//!
//! The limits of each address are low, so that 1,000 addresses can reach them. The load tool has
//! the address of a trusted proxy, so these limits do not apply to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cells::Cell;
use super::round::{Load, Round};
use super::servers::{Programs, Running, SERVE, SERVE_BESIDE, Server};
use super::table::{Figure, Row};
use super::watch::resident;
use crate::command;

/// The topic of the load tool.
const TOPIC: &str = "bench-0";
/// The topics that everyone may read: the topic of the load tool, and a topic without events
/// for the attacker.
const PUBLIC: &str = "bench-0;bench-0-aside";
/// The keys of the servers. They are not secret.
const PUBLISH_KEY: &str = "the-publish-key-of-the-measurements-0000";
const ADMIN_KEY: &str = "the-admin-key-of-the-measurements-000000";
/// The limits of each address. Each address of the attacker keeps 8 subscriptions, and connects
/// twice a second.
const LIMITS: [&str; 6] = [
    "--trusted-proxy",
    "127.0.0.1",
    "--connections-per-address-max",
    "8",
    "--connects-per-address",
    "2/s,burst:10",
];
/// The load of the ordinary users. The server sends 25,000 events a second to its subscribers. In
/// 20 seconds there are 1,000 publishes, so the p99 of the answers does not depend on a single one.
const CONNECTIONS: u64 = 500;
const EVENTS_PER_S: f64 = 50.0;
/// The time between two samples of the server's memory.
const SAMPLE: Duration = Duration::from_millis(200);
/// How long the server may take to close the connections of an attack. If a peer has vanished and
/// gets no events, the server notices this only when a write stalls: a keep-alive is due after 15
/// s, and its write may stall for 10 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// The time from the end of the last connection of an attack to the last look at the memory.
const SETTLE: Duration = Duration::from_secs(2);

/// The labels of the three runs.
const QUIET: &str = "downlink";
const BESIDE: &str = "downlink-beside";
const ATTACKED: &str = "downlink-attacked";

const CONNECTIONS_OPEN: &str = "downlink_connections";

const P50: &str = "/latency_us/p50";
const P99: &str = "/latency_us/p99";
const ANSWER_P99: &str = "/answer_us/p99";
const CPU: &str = "/server/cpu_share";

/// The rows of a cell. `growth_mib_max` is the memory that the attack may take: the formula in
/// `docs/LIMITS.md`, with the numbers of connections of this attack.
const fn rows(growth_mib_max: f64) -> [Row; 27] {
    [
        Row::value("without: p50 µs", QUIET, P50),
        Row::value("without: p99 µs", QUIET, P99),
        Row::value("attack on another server: p99 µs", BESIDE, P99),
        Row::value("attack: p99 µs", ATTACKED, P99),
        Row::ratio("p99: other server attacked ÷ without", Figure(BESIDE, P99), Figure(QUIET, P99)),
        Row::ratio("p99: attack ÷ without", Figure(ATTACKED, P99), Figure(QUIET, P99)).at_most(1.5),
        Row::value("without: publish p99 µs", QUIET, ANSWER_P99),
        Row::value("attack on another server: publish p99 µs", BESIDE, ANSWER_P99),
        Row::value("attack: publish p99 µs", ATTACKED, ANSWER_P99),
        Row::ratio(
            "publish p99: other server attacked ÷ without",
            Figure(BESIDE, ANSWER_P99),
            Figure(QUIET, ANSWER_P99),
        ),
        Row::ratio(
            "publish p99: attack ÷ without",
            Figure(ATTACKED, ANSWER_P99),
            Figure(QUIET, ANSWER_P99),
        )
        .at_most(1.5),
        Row::value("without: share of a processor", QUIET, CPU),
        Row::value("attack: share of a processor", ATTACKED, CPU),
        Row::value("connections that the attacker opened", ATTACKED, "/attack/opened"),
        Row::value("turns that the attacker skipped", ATTACKED, "/attack/skipped"),
        Row::value("connections of the attack, before the load", ATTACKED, "/descriptors"),
        Row::value("refused by the server at a limit", ATTACKED, "/refused"),
        Row::value("attacker: answered 200", ATTACKED, "/attack/answers/200"),
        Row::value("attacker: answered 429", ATTACKED, "/attack/answers/429"),
        Row::value("attacker: answered 431", ATTACKED, "/attack/answers/431"),
        Row::value("attacker: closed without an answer", ATTACKED, "/attack/closed"),
        Row::value("attacker: not answered within 30 s", ATTACKED, "/attack/unanswered"),
        Row::value("resident MiB before", ATTACKED, "/resident_mib/before"),
        Row::value("most resident MiB", ATTACKED, "/resident_mib/max"),
        Row::value("most resident MiB: more than without", ATTACKED, "/resident_mib/growth")
            .at_most(growth_mib_max),
        Row::value("resident MiB after", ATTACKED, "/resident_mib/after"),
        Row::value("connections left after the attack", ATTACKED, "/left").at_most(0.0),
    ]
}

const fn everything(_: &Round<'_>) -> Option<&'static str> {
    None
}

pub(super) const SLOW_HEADS: Cell = Cell {
    name: "slow-heads",
    what: "500 subscribers, 50 events a second. An attacker keeps 4,000 connections open, on each of \
           which a request head arrives at one byte a second",
    rows: &rows(82.0),
    measure: |round| measure(round, "slow-heads"),
    lacks: everything,
};

pub(super) const HALF_OPEN: Cell = Cell {
    name: "half-open",
    what: "500 subscribers, 50 events a second. 100 more clients subscribe each second, and vanish: \
           from then on they acknowledge nothing. One in five of them reads the topic of the others",
    rows: &rows(18.0),
    measure: |round| measure(round, "half-open"),
    lacks: everything,
};

pub(super) const OVERSIZED_HEADS: Cell = Cell {
    name: "oversized-heads",
    what: "500 subscribers, 50 events a second. 500 connections a second send a head of 48 KiB",
    rows: &rows(27.0),
    measure: |round| measure(round, "oversized-heads"),
    lacks: everything,
};

pub(super) const CHURN: Cell = Cell {
    name: "churn",
    what: "500 subscribers, 50 events a second. Each of 1,000 other addresses keeps 8 subscriptions, \
           and opens two connections a second, of which one is above its limit",
    rows: &rows(16.0),
    measure: |round| measure(round, "churn"),
    lacks: everything,
};

/// The server that is attacked in a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    Nothing,
    OtherServer,
    Server,
}

/// The three runs of a cell.
fn measure(round: &mut Round<'_>, attack: &str) -> anyhow::Result<()> {
    for (label, target) in
        [(QUIET, Target::Nothing), (BESIDE, Target::OtherServer), (ATTACKED, Target::Server)]
    {
        let report = run(round, attack, target).with_context(|| label.to_owned())?;
        round.keep(label, report);
    }
    Ok(())
}

fn run(round: &Round<'_>, attack: &str, target: Target) -> anyhow::Result<Value> {
    let running = start(round, &SERVE)?;
    let other = (target == Target::OtherServer).then(|| start(round, &SERVE_BESIDE)).transpose()?;
    let before = resident_of(&running)?;
    let memory = MemoryWatch::start(&running);
    let attacked = (target != Target::Nothing).then(|| other.as_ref().unwrap_or(&running));
    let attack =
        attacked.map(|server| Attack::start(round.programs, attack, server)).transpose()?;
    let descriptors = fs::read_dir(format!("/proc/{}/fd", running.pid()))?.count();
    let load = load();
    let mut report = round.report(&mut round.tool(&load, &running), &load, &running)?;
    let attack = attack.map(Attack::end).transpose()?;
    let left = connections_left(&running)?;
    // The allocator gives free memory back to the system after a short while, if the server has
    // something to do.
    let closed = Instant::now();
    while closed.elapsed() < SETTLE {
        metric(&running, CONNECTIONS_OPEN)?;
    }
    let (most, after) = (memory.end(), resident_of(&running)?);
    let without = round.figure(QUIET, "/resident_mib/max");
    report["resident_mib"] = json!({
        "before": mib(before),
        "max": mib(most),
        "growth": without.map(|without| mib(most) - without),
        "after": mib(after),
    });
    report["descriptors"] = json!(descriptors);
    report["left"] = json!(left);
    report["refused"] = json!(metric(&running, "downlink_connections_refused_total")?);
    report["attack"] = attack.unwrap_or_default();
    Ok(report)
}

fn load() -> Load {
    let key = format!("Authorization: Bearer {PUBLISH_KEY}");
    Load::on(CONNECTIONS).rate(EVENTS_PER_S).with(&["--publish-header", &key]).in_real_time()
}

/// Starts a server with keys.
fn start(round: &Round<'_>, server: &Server) -> anyhow::Result<Running> {
    let folder = round.programs.workspace.target.join("bench-keys");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let key_file = |name: &str, key: &str| -> anyhow::Result<String> {
        let file = folder.join(name);
        fs::write(&file, key).with_context(|| file.display().to_string())?;
        Ok(file.to_string_lossy().into_owned())
    };
    let publish = key_file("publish.key", PUBLISH_KEY)?;
    let admin = key_file("admin.key", ADMIN_KEY)?;
    let ticket = key_file("ticket.key", "the-ticket-key-of-the-measurements-00000")?;
    let keys = ["--publish-key-file", &publish, "--admin-key-file", &admin];
    let flags = [&keys[..], &["--ticket-key-file", &ticket, "--public", PUBLIC], &LIMITS].concat();
    let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    round.programs.start(server, &flags)
}

/// A running attacker. When this value is dropped, the attacker is killed.
struct Attack {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Attack {
    /// Starts the attacker, and waits until the attack has its full strength.
    fn start(programs: &Programs<'_>, name: &str, server: &Running) -> anyhow::Result<Self> {
        let target = format!("127.0.0.1:{}", server.port());
        let words = [name.to_owned(), target, TOPIC.to_owned()];
        let mut command = programs.attacker(&words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let line = command::line(&command);
        let mut child = command.spawn().with_context(|| format!("cannot start: {line}"))?;
        let stdout = child.stdout.take().context("the output of the attacker is not piped")?;
        let mut attack = Self { child, stdout: BufReader::new(stdout) };
        let mut said = String::new();
        attack.stdout.read_line(&mut said)?;
        ensure!(said.trim() == "ready", "the attacker has ended: {line}");
        Ok(attack)
    }

    /// Ends the attack, and returns the counts of the attacker.
    fn end(mut self) -> anyhow::Result<Value> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.stdout.read_line(&mut said)?;
        self.child.wait().context("cannot wait for the end of the attacker")?;
        serde_json::from_str(&said).context("the report of the attacker is not JSON")
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Samples the resident memory of a server.
struct MemoryWatch {
    end: Sender<()>,
    thread: JoinHandle<u64>,
}

impl MemoryWatch {
    fn start(running: &Running) -> Self {
        let (end, ended) = mpsc::channel();
        let path = status_of(running);
        let thread = thread::spawn(move || {
            let mut most = 0;
            while ended.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                let now = fs::read_to_string(&path).ok().and_then(|text| resident(&text));
                most = most.max(now.unwrap_or_default());
            }
            most
        });
        Self { end, thread }
    }

    /// Ends the sampling and returns the maximum.
    fn end(self) -> u64 {
        drop(self.end);
        self.thread.join().unwrap_or_default()
    }
}

fn status_of(running: &Running) -> PathBuf {
    format!("/proc/{}/status", running.pid()).into()
}

fn resident_of(running: &Running) -> anyhow::Result<u64> {
    let text = fs::read_to_string(status_of(running))?;
    resident(&text).context("the system does not report the memory of the server")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Waits until the server has closed the connections of the attack, for at most [`CLOSED_WITHIN`].
/// Returns the number of connections that are still open then.
fn connections_left(running: &Running) -> anyhow::Result<f64> {
    let began = Instant::now();
    loop {
        // The connection of this request counts too.
        let left = metric(running, CONNECTIONS_OPEN)? - 1.0;
        if left <= 0.0 || began.elapsed() > CLOSED_WITHIN {
            return Ok(left);
        }
    }
}

/// The sum of a metric over its labels.
fn metric(running: &Running, name: &str) -> anyhow::Result<f64> {
    let address = format!("127.0.0.1:{}", running.port());
    let mut stream = TcpStream::connect(&address).with_context(|| address.clone())?;
    stream.set_read_timeout(Some(CLOSED_WITHIN))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    sum(&text, name).with_context(|| format!("no metric {name} in the answer:\n{text}"))
}

/// The sum of the values of a metric. `None` if the metric does not exist.
fn sum(metrics: &str, name: &str) -> Option<f64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole_name = rest.starts_with(['{', ' ']);
        rest.rsplit(' ').next().filter(|_| is_whole_name)?.parse::<f64>().ok()
    });
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# HELP a A.\na{l=\"x\"} 1\na{l=\"y y\"} 2\na_max 5\nb 3\n";
        assert_eq!(sum(text, "a"), Some(3.0));
        assert_eq!(sum(text, "b"), Some(3.0));
        assert_eq!(sum(text, "c"), None);
    }
}
