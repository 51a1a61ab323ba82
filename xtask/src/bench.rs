//! `cargo xtask bench`: downlink beside a bare loop of writes and beside axum, on the same load.
//!
//! The servers take turns in each round, and what counts is the median of the rounds' ratios: what else
//! the machine does at the time touches all of them. Every run starts a fresh server, so that memory is
//! that of its connections. The figures are those of `downlink bench`; nothing is measured here.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::command;
use crate::steps::{Choice, Verdict};
use crate::workspace::Workspace;

/// Rounds of a run: an odd number has a median of its own, and four loads stay below ten minutes.
const ROUNDS: usize = 5;
/// Measured seconds of each load: a thousand ticks of the clock that processor time is counted by.
const SECONDS: u64 = 4;
/// What goes into the record.
const FULL: Settings = Settings { rounds: ROUNDS, seconds: SECONDS, is_quick: false };
/// For a first look: too short to record.
const QUICK: Settings = Settings { rounds: 2, seconds: 1, is_quick: true };
/// How `--only` asks for the short run.
const QUICK_NAME: &str = "quick";
/// The processors of server and generator, if there are two.
const SERVER_CPU: &str = "0";
const GENERATOR_CPU: &str = "1";

/// One of the loads.
#[derive(Debug)]
struct Load {
    name: &'static str,
    connections: &'static str,
    pace: [&'static str; 2],
    /// Whether latency says something: in a window it only mirrors the deliveries per second.
    is_rate: bool,
    what: &'static str,
}

const LOADS: [Load; 4] = [
    Load {
        name: "window-1000",
        connections: "1000",
        pace: ["--window", "16"],
        is_rate: false,
        what: "1,000 connections, 16 events on their way: as fast as it goes",
    },
    Load {
        name: "rate-1000",
        connections: "1000",
        pace: ["--rate", "30"],
        is_rate: true,
        what: "1,000 connections, 30 events a second: latency well below the limit",
    },
    Load {
        name: "window-10000",
        connections: "10000",
        pace: ["--window", "16"],
        is_rate: false,
        what: "10,000 connections, 16 events on their way: as fast as it goes",
    },
    Load {
        name: "rate-10000",
        connections: "10000",
        pace: ["--rate", "3"],
        is_rate: true,
        what: "10,000 connections, 3 events a second: latency of a large fan-out",
    },
];

/// A server to measure. The first is ours; the others are what it is compared with.
#[derive(Debug)]
struct Server {
    name: &'static str,
    manifest: &'static str,
    binary: &'static str,
    /// What goes before the address on its command line.
    words: &'static [&'static str],
}

const SERVERS: [Server; 3] = [
    Server {
        name: "downlink",
        manifest: "crates/downlink-server/Cargo.toml",
        binary: "downlink",
        words: &["serve", "--listen"],
    },
    Server { name: "floor", manifest: "bench/floor/Cargo.toml", binary: "bench-floor", words: &[] },
    Server {
        name: "axum",
        manifest: "bench/peers/axum/Cargo.toml",
        binary: "bench-axum",
        words: &[],
    },
];

/// A figure that is compared: its title, and where it is in the generator's answer.
const FIGURES: [(&str, &str); 5] = [
    ("deliveries/s", "/deliveries_per_s"),
    ("p50 µs", "/latency_us/p50"),
    ("p99 µs", "/latency_us/p99"),
    ("CPU µs/delivery", "/server/cpu_us_per_delivery"),
    ("bytes/connection", "/server/resident_bytes_per_connection"),
];

/// How long and how often.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Settings {
    rounds: usize,
    seconds: u64,
    /// Whether it is for a first look, not for the record.
    is_quick: bool,
}

impl Settings {
    /// From the words behind the command; what belongs to other options is passed over.
    fn parse(words: &[String], choice: &Choice) -> anyhow::Result<Self> {
        let asked = *choice == Choice::Only(QUICK_NAME.to_owned());
        let quick = asked || words.iter().any(|word| word == "--quick");
        let base = if quick { QUICK } else { FULL };
        let settings = Self {
            rounds: number(words, "--rounds")?.map_or(base.rounds, |rounds| rounds as usize),
            seconds: number(words, "--seconds")?.unwrap_or(base.seconds),
            ..base
        };
        if settings.rounds == 0 || settings.seconds == 0 {
            bail!("--rounds and --seconds are at least 1");
        }
        Ok(settings)
    }
}

fn number(words: &[String], flag: &str) -> anyhow::Result<Option<u64>> {
    let Some(at) = words.iter().position(|word| word == flag) else { return Ok(None) };
    let value = words.get(at + 1).and_then(|word| word.parse().ok());
    value.map(Some).with_context(|| format!("{flag} needs a number"))
}

/// Measures all loads or one of them, or lists them.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> anyhow::Result<Verdict> {
    let loads: Vec<&Load> = match choice {
        Choice::List => {
            print!("{}", list());
            return Ok(Verdict::Good);
        }
        Choice::Only(name) if name != QUICK_NAME => {
            LOADS.iter().filter(|load| load.name == *name).collect()
        }
        Choice::All | Choice::Only(_) => LOADS.iter().collect(),
    };
    if loads.is_empty() {
        bail!("there is no load of that name; --list shows them");
    }
    let words: Vec<String> = std::env::args().collect();
    let settings = Settings::parse(&words, choice)?;
    let bench = Bench::build(workspace, settings)?;
    let mut record = bench.header()?;
    for load in loads {
        let table = bench.measure(load)?;
        println!("\n{table}");
        record.push_str(&table);
    }
    let file = bench.record.with_extension("md");
    fs::write(&file, record).with_context(|| file.display().to_string())?;
    println!("written: {}", file.display());
    Ok(Verdict::Good)
}

fn list() -> String {
    let mut text = String::new();
    for load in &LOADS {
        let _ = writeln!(text, "{:<13} {}", load.name, load.what);
    }
    let names: Vec<_> = SERVERS.iter().map(|server| server.name).collect();
    let figures: Vec<_> = FIGURES.iter().map(|(title, _)| *title).collect();
    let _ = writeln!(text, "{QUICK_NAME:<13} all of them, short, for a first look; not recorded");
    let _ = writeln!(text, "servers: {}; figures: {}", names.join(", "), figures.join(", "));
    text
}

/// Everything built, and where the record goes.
#[derive(Debug)]
struct Bench<'a> {
    workspace: &'a Workspace,
    settings: Settings,
    /// Whether server and generator have a processor each.
    is_pinned: bool,
    /// The record's path without its ending.
    record: PathBuf,
}

impl<'a> Bench<'a> {
    fn build(workspace: &'a Workspace, settings: Settings) -> anyhow::Result<Self> {
        for server in &SERVERS {
            let words = ["build", "--release", "--manifest-path", server.manifest, "--bin"];
            let mut build = workspace.cargo(&words);
            build.arg(server.binary).arg("--target-dir").arg(&workspace.target);
            command::run(&mut build)?;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut taskset = command::command(&workspace.root, "taskset", &["--version"]);
        let is_pinned = processors > 1 && command::answers(&mut taskset);
        let (date, commit) = (
            said(workspace, "date", &["-u", "+%F"])?,
            said(workspace, "git", &["rev-parse", "--short", "HEAD"])?,
        );
        let folder = match settings.is_quick {
            true => workspace.target.join("bench-quick"),
            false => workspace.root.join("bench/record"),
        };
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let record = folder.join(format!("{date}-{commit}"));
        Ok(Self { workspace, settings, is_pinned, record })
    }

    /// All rounds of a load, and the tables about them.
    fn measure(&self, load: &Load) -> anyhow::Result<String> {
        let mut rounds = Vec::new();
        for round in 1..=self.settings.rounds {
            println!("\n=== {}: round {round} of {}", load.name, self.settings.rounds);
            let is_last = round == self.settings.rounds;
            let mut reports = Vec::new();
            for server in &SERVERS {
                let plot = (is_last && load.is_rate).then(|| self.plot(load, server));
                reports.push(self.run_once(load, server, plot)?);
            }
            rounds.push(reports);
        }
        let mut text = tables(load, &rounds);
        if load.is_rate {
            for server in &SERVERS {
                let file = self.plot(load, server);
                let file = file.file_name().map(|name| name.to_string_lossy().into_owned());
                let file = file.unwrap_or_default();
                let _ = writeln!(text, "![{} at {}]({file})\n", server.name, load.name);
            }
        }
        Ok(text)
    }

    fn plot(&self, load: &Load, server: &Server) -> PathBuf {
        let name = self.record.file_name().unwrap_or_default().to_string_lossy();
        self.record.with_file_name(format!("{name}-{}-{}.svg", load.name, server.name))
    }

    /// One server under one load.
    fn run_once(
        &self,
        load: &Load,
        server: &Server,
        plot: Option<PathBuf>,
    ) -> anyhow::Result<Value> {
        let running = self.start(server)?;
        let mut generator = self.generator(load, &running.url, &running.child.id().to_string());
        if let Some(file) = plot {
            generator.arg("--plot").arg(file);
        }
        let text = command::output(&mut generator)?;
        let report: Value = serde_json::from_str(&text).context("the report is not JSON")?;
        println!("{:<9} {}", server.name, one_line(&report));
        Ok(report)
    }

    fn generator(&self, load: &Load, url: &str, pid: &str) -> Command {
        let mut words: Vec<String> = vec!["bench".into(), "--json".into()];
        let seconds = self.settings.seconds;
        words.extend(["--connections".into(), load.connections.into()]);
        words.extend(load.pace.map(str::to_owned));
        words.extend(["--duration".into(), format!("{seconds}s"), "--warmup=500ms".into()]);
        words.extend(["--server-pid".into(), pid.into()]);
        words.extend(["--url".into(), format!("{url}/events?topic={{topic}}")]);
        if self.is_pinned {
            words.push("--spin".into());
        }
        self.program(GENERATOR_CPU, "downlink", &words)
    }

    /// A program of ours on a processor of its own, with all the descriptors there may be.
    fn program(&self, cpu: &str, binary: &str, words: &[String]) -> Command {
        let path = self.workspace.target.join("release").join(binary);
        let raised = ["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""];
        let mut command = if self.is_pinned {
            let pinned = ["-c", cpu, "sh"];
            command::command(&self.workspace.root, "taskset", &pinned)
        } else {
            command::command(&self.workspace.root, "sh", &[])
        };
        command.args(raised).arg(path).args(words);
        command
    }

    /// Starts a server and waits for the line that says its address.
    fn start(&self, server: &Server) -> anyhow::Result<Running> {
        let mut words: Vec<String> = server.words.iter().map(ToString::to_string).collect();
        words.push("127.0.0.1:0".to_owned());
        let mut command = self.program(SERVER_CPU, server.binary, &words);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let line = command::line(&command);
        let child = command.spawn().with_context(|| format!("cannot start: {line}"))?;
        let mut running = Running { child, url: String::new() };
        let stdout = running.child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        running.url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| address(&line))
            .with_context(|| format!("no address was said by: {line}"))?;
        // It goes on to say things; nobody reading them must not stop it.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(running)
    }

    /// What was measured, where, and how to do it again.
    fn header(&self) -> anyhow::Result<String> {
        let root = self.workspace;
        let subject = said(root, "git", &["log", "-1", "--format=%h %s"])?;
        let changed = !said(root, "git", &["status", "--porcelain"])?.is_empty();
        let changed = if changed { ", with changes that are not committed" } else { "" };
        let kernel = said(root, "uname", &["-srm"])?;
        let compiler = said(root, "rustc", &["--version"])?;
        let (cpu, processors) = (processor(), thread::available_parallelism()?);
        let pinned = if self.is_pinned { "a processor each" } else { "not pinned" };
        let Settings { rounds, seconds, .. } = self.settings;
        let load = &LOADS[0];
        let target = root.target.to_string_lossy();
        let server = self.program(SERVER_CPU, "downlink", &["serve".into(), "…".into()]);
        let generator = self.generator(load, "http://127.0.0.1:PORT", "PID");
        Ok(format!(
            "# Downlink beside a loop of writes and axum\n\n\
             - commit: {subject}{changed}\n\
             - machine: {cpu}, {processors} processors, {kernel}; {compiler}\n\
             - {rounds} rounds of {seconds} s; server and generator: {pinned}\n\
             - `cargo xtask bench --seconds {seconds}`, which runs\n  \
             `{}`\n  `{}`\n\n\
             Values are medians over the rounds; ratios are medians of the rounds' ratios.\n\n",
            command::line(&server).replace(&*target, "target"),
            command::line(&generator).replace(&*target, "target"),
        ))
    }
}

/// A server, ended when dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first address in a line.
fn address(line: &str) -> Option<String> {
    let at = line.find("http://")?;
    line[at..].split_whitespace().next().map(|url| url.trim_end_matches('/').to_owned())
}

/// What a program prints, without the line end.
fn said(workspace: &Workspace, program: &str, words: &[&str]) -> anyhow::Result<String> {
    let text = command::output(&mut command::command(&workspace.root, program, words))?;
    Ok(text.trim_end().to_owned())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn one_line(report: &Value) -> String {
    let figures = FIGURES.map(|(title, at)| format!("{title} {}", shown(figure(report, at))));
    format!("{}{}", figures.join(", "), remarks(report))
}

fn figure(report: &Value, at: &str) -> Option<f64> {
    report.pointer(at).and_then(Value::as_f64)
}

/// What makes a run doubtful.
fn remarks(report: &Value) -> String {
    let mut text = String::new();
    if report["generator_limited"] == true {
        text.push_str("; the generator was the limit");
    }
    if report["flawless"] != true {
        let (lost, twice) = (&report["lost"], &report["duplicated"]);
        let _ = write!(text, "; {lost} lost, {twice} duplicated, {}", report["out_of_order"]);
        text.push_str(" out of order");
    }
    if let Some(problem) = report["problem"].as_str() {
        let _ = write!(text, "; {problem}");
    }
    text
}

/// The values of each server and our ratios to the others.
fn tables(load: &Load, rounds: &[Vec<Value>]) -> String {
    let ours = SERVERS[0].name;
    let mut titles: Vec<String> = SERVERS.iter().map(|server| server.name.to_owned()).collect();
    titles.extend(SERVERS[1..].iter().map(|server| format!("{ours} ÷ {}", server.name)));
    let mut text =
        format!("## {}\n\n{}.\n\n| | {} |\n|---|", load.name, load.what, titles.join(" | "));
    text.push_str(&"---:|".repeat(titles.len()));
    text.push('\n');
    for (title, at) in FIGURES {
        let column = |server: usize| rounds.iter().map(move |round| figure(&round[server], at));
        let mut cells: Vec<String> =
            (0..SERVERS.len()).map(|server| shown(median(column(server).flatten()))).collect();
        for other in 1..SERVERS.len() {
            let ratios = column(0)
                .zip(column(other))
                .filter_map(|(ours, theirs)| Some(ours? / theirs.filter(|theirs| *theirs > 0.0)?));
            cells.push(median(ratios).map_or_else(|| "–".to_owned(), |r| format!("{r:.2}")));
        }
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
    text.push('\n');
    for (server, name) in SERVERS.iter().map(|server| server.name).enumerate() {
        for (round, reports) in rounds.iter().enumerate() {
            let remarks = remarks(&reports[server]);
            if !remarks.is_empty() {
                let _ = writeln!(text, "{name}, round {}{remarks}.\n", round + 1);
            }
        }
    }
    text
}

fn shown(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value < 100.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// The middle value, or the mean of the middle two; nothing of nothing.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn settings_are_read_and_the_rest_is_passed_over() {
        let parse = |line: &str| Settings::parse(&words(line), &Choice::All);
        let settings = parse("xtask bench --seconds 7 --only rate-1000").unwrap();
        assert_eq!(settings, Settings { seconds: 7, ..FULL });
        let settings = parse("xtask bench --quick --rounds 3").unwrap();
        assert_eq!(settings, Settings { rounds: 3, ..QUICK });
        let quick = Choice::Only(QUICK_NAME.to_owned());
        assert_eq!(Settings::parse(&words("xtask bench"), &quick).unwrap(), QUICK);
        assert!(parse("xtask bench --rounds 0").is_err());
        assert!(parse("xtask bench --rounds").is_err());
    }

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn an_address_is_found_in_what_a_server_says() {
        let said = "downlink 1.0 is open for business at http://127.0.0.1:8080/";
        assert_eq!(address(said).as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(address("nothing"), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let report = |speed: f64| json!({ "deliveries_per_s": speed, "flawless": true });
        let round = |speeds: [f64; 3]| speeds.map(report).to_vec();
        let rounds = [round([10.0, 20.0, 5.0]), round([90.0, 30.0, 9.0]), round([8.0, 8.0, 1.0])];
        let text = tables(&LOADS[0], &rounds);
        let row = "| deliveries/s | 10.00 | 20.00 | 5.00 | 1.00 | 8.00 |\n";
        assert!(text.contains(row), "{text}");
        assert!(!text.contains("round 1"), "{text}");
    }

    #[test]
    fn a_doubtful_run_is_named() {
        let good = json!({ "flawless": true });
        let bad = json!({ "lost": 3, "duplicated": 0, "out_of_order": 0, "problem": "x" });
        let text = tables(&LOADS[0], &[vec![good.clone(), good, bad]]);
        assert!(text.contains("axum, round 1; 3 lost, 0 duplicated, 0 out of order; x."), "{text}");
    }
}
