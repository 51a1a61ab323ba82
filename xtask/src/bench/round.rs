//! One round of a cell. A cell is one of the measurements. The servers take turns in a round, and
//! the report of each run gets a label.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::servers::{FLOOR, Programs, Running, Server};
use super::watch::Watch;
use crate::command;

/// The load of one run, as arguments for the load tool.
#[derive(Clone, Debug)]
pub(super) struct Load {
    words: Vec<String>,
    /// The query at the end of the subscriptions' address.
    query: &'static str,
    /// The measured seconds of this load. With `None`, the load uses the seconds of the settings.
    seconds: Option<u64>,
    is_watched: bool,
    is_drawn: bool,
    /// True if the load tool has real-time priority, and sleeps while nothing happens.
    is_real_time: bool,
}

impl Load {
    /// A load on this many subscriptions.
    pub(super) fn on(connections: u64) -> Self {
        let words = vec!["--connections".to_owned(), connections.to_string()];
        let (is_watched, is_drawn, is_real_time) = (false, false, false);
        Self { words, query: "", seconds: None, is_watched, is_drawn, is_real_time }
    }

    /// Publishes at the highest possible rate, with at most this many events in flight.
    pub(super) fn window(self, events: u64) -> Self {
        self.with(&["--window", &events.to_string()])
    }

    /// Publishes at a fixed rate, in events per second.
    pub(super) fn rate(self, per_second: f64) -> Self {
        self.with(&["--rate", &format!("{per_second:.3}")])
    }

    /// Adds arguments for the load tool.
    pub(super) fn with(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(ToString::to_string));
        self
    }

    /// Adds query parameters for the subscriptions. `{n}` is the number of the connection.
    pub(super) fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    pub(super) fn seconds(mut self, seconds: u64) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// Samples the memory of the server and of its sockets.
    pub(super) fn watched(mut self) -> Self {
        self.is_watched = true;
        self
    }

    /// Draws a chart of the latencies in the last round.
    pub(super) fn drawn(mut self) -> Self {
        self.is_drawn = true;
        self
    }

    /// Gives the load tool real-time priority. Other programs can use its processor only while
    /// nothing happens.
    pub(super) fn in_real_time(mut self) -> Self {
        self.is_real_time = true;
        self
    }

    fn command(&self, programs: &Programs<'_>, to: &Aim<'_>, seconds: u64) -> Command {
        let Aim { url, pid, again } = to;
        let seconds = self.seconds.unwrap_or(seconds);
        let mut words: Vec<String> = vec!["bench".into(), "--json".into()];
        words.extend_from_slice(&self.words);
        words.extend(["--duration".into(), format!("{seconds}s"), "--warmup".into(), "1s".into()]);
        words.extend(["--server-pid".into(), (*pid).to_owned()]);
        words.extend(["--url".into(), format!("{url}/events?topic={{topic}}{}", self.query)]);
        let published_to = self.words.iter().any(|word| word == "--publish-url");
        if !published_to {
            words.extend(["--publish-url".into(), format!("{url}/events?topic={{topic}}")]);
        }
        if programs.is_pinned && !self.is_real_time {
            words.push("--spin".into());
        }
        let fill = |word: &String| word.replace("{url}", url).replace("{again}", again);
        let tool = programs.tool(&words.iter().map(fill).collect::<Vec<_>>());
        if self.is_real_time { programs.in_real_time(tool) } else { tool }
    }
}

/// The target of a load.
struct Aim<'a> {
    url: &'a str,
    pid: &'a str,
    /// The shell command that starts the server again at the same address.
    again: &'a str,
}

/// A round in progress.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) programs: &'a Programs<'a>,
    /// The measured seconds of each run.
    pub(super) seconds: u64,
    /// True in a quick run.
    pub(super) is_quick: bool,
    /// The path of each chart begins with this path. The label of the run and `.svg` follow. `None`
    /// if no charts are drawn.
    pub(super) pictures: Option<PathBuf>,
    /// The lines of Markdown that show the drawn charts in the record.
    pub(super) drawn: String,
    pub(super) reports: Vec<(String, Value)>,
}

impl Round<'_> {
    /// Starts a new server, puts a load on it, and keeps the report under the label.
    pub(super) fn run(
        &mut self,
        label: &str,
        server: &Server,
        flags: &[&str],
        load: &Load,
    ) -> anyhow::Result<()> {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let running = self.programs.start(server, &flags)?;
        let mut tool = self.tool(load, &running);
        if load.is_drawn
            && let Some(pictures) = &self.pictures
        {
            let name = pictures.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{name}-{label}.svg");
            tool.arg("--plot").arg(pictures.with_file_name(&name));
            let _ = writeln!(self.drawn, "![latency of {label}]({name})\n");
        }
        let report = self.report(&mut tool, load, &running).with_context(|| label.to_owned())?;
        self.keep(label, report);
        Ok(())
    }

    /// The command that puts a load on a server.
    pub(super) fn tool(&self, load: &Load, running: &Running) -> Command {
        let pid = running.pid().to_string();
        let aim = Aim { url: &running.url, pid: &pid, again: &running.again };
        load.command(self.programs, &aim, self.seconds)
    }

    /// Runs the load tool, and returns its report.
    pub(super) fn report(
        &self,
        tool: &mut Command,
        load: &Load,
        running: &Running,
    ) -> anyhow::Result<Value> {
        let watch = load.is_watched.then(|| Watch::start(self.programs, running)).transpose()?;
        let text = command::output(tool)?;
        let mut report: Value = serde_json::from_str(&text).context("the report is not JSON")?;
        if let Some(watch) = watch {
            report["watch"] = watch.end();
        }
        Ok(report)
    }

    /// Measures how fast the floor appends events to a plain file, and keeps the report under the
    /// label. The floor is a program for comparison that does nothing but write. It flushes the
    /// file each time it has appended `events` events.
    pub(super) fn append(&mut self, label: &str, events: u64, seconds: u64) -> anyhow::Result<()> {
        let file = self.store("floor")?;
        let bytes = super::stores::DURABLE_EVENT_BYTES;
        let words = ["append".to_owned(), file.to_string_lossy().into_owned()];
        let numbers = [events, bytes, seconds].map(|number| number.to_string());
        let mut floor = self.programs.server(&FLOOR, &[&words[..], &numbers].concat());
        let text = command::output(&mut floor)?;
        self.keep(label, serde_json::from_str(&text).context("the floor's report is not JSON")?);
        Ok(())
    }

    /// Measures the opening of a store, keeps the report under the label, and stops the server with
    /// SIGTERM.
    pub(super) fn open(
        &mut self,
        label: &str,
        store: Option<&Path>,
        flags: &[&str],
    ) -> anyhow::Result<()> {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let (running, report) = super::open::open(self.programs, store, &flags)?;
        running.stop(self.programs)?;
        self.keep(label, report);
        Ok(())
    }

    /// The path of a new store, in cargo's target directory.
    pub(super) fn store(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.programs.workspace.target.join("bench-store");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| folder.display().to_string());
            }
            _ => {}
        }
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder.join(name))
    }

    /// Keeps the report of a run under the label.
    pub(super) fn keep(&mut self, label: &str, report: Value) {
        println!("{label:<28} {}{}", summary(&report), remarks(&report));
        self.reports.push((label.to_owned(), report));
    }

    /// A number from the report with this label.
    pub(super) fn figure(&self, label: &str, at: &str) -> Option<f64> {
        let (_, report) = self.reports.iter().find(|(name, _)| name == label)?;
        report.pointer(at).and_then(Value::as_f64)
    }
}

/// The command lines of a typical run, for the record.
pub(super) fn example(programs: &Programs<'_>, seconds: u64) -> [Command; 2] {
    let server = programs.server(&super::servers::DOWNLINK, &["dev".into(), "…".into()]);
    let aim = Aim { url: "http://127.0.0.1:PORT", pid: "PID", again: "" };
    [server, Load::on(1_000).window(16).command(programs, &aim, seconds)]
}

/// The most important figures of a finished run, in one line.
fn summary(report: &Value) -> String {
    const FIGURES: [(&str, &str, f64); 9] = [
        ("deliveries/s", "/deliveries_per_s", 1.0),
        ("events/s", "/events_per_s", 1.0),
        ("acknowledged/s", "/acknowledged_per_s", 1.0),
        ("caught up after s", "/caught_up_s", 1.0),
        ("s", "/seconds", 1.0),
        ("connects/s", "/connects_per_s", 1.0),
        ("p50 µs", "/latency_us/p50", 1.0),
        ("p99 µs", "/latency_us/p99", 1.0),
        ("tool busy %", "/generator_busy_share", 100.0),
    ];
    let shown = FIGURES.iter().filter_map(|(title, at, unit)| {
        let value = report.pointer(at)?.as_f64()?;
        Some(format!("{title} {}", super::table::number(value * unit)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The reasons to doubt the figures of a run. Empty if there are none.
pub(super) fn remarks(report: &Value) -> String {
    let mut text = String::new();
    if report["generator_limited"] == true {
        text.push_str("; the load tool was too busy");
    }
    if report["overdue"].as_u64().unwrap_or_default() > 0 {
        text.push_str("; events were published late");
    }
    if is_flawed(report) {
        let said = ["lost", "duplicated", "out_of_order", "wrong_topic", "foreign", "refused"]
            .map(|name| (name.replace('_', " "), report[name].as_u64().unwrap_or_default()));
        let odd = said.iter().filter(|(_, count)| *count > 0);
        let odd: Vec<_> = odd.map(|(name, count)| format!("{count} {name}")).collect();
        text.push_str("; flawed");
        if !odd.is_empty() {
            text.push_str(": ");
            text.push_str(&odd.join(", "));
        }
    }
    for at in ["/problem", "/stalled/problem", "/replay/problem"] {
        if let Some(problem) = report.pointer(at).and_then(Value::as_str) {
            text.push_str("; ");
            text.push_str(problem);
        }
    }
    text
}

/// True if an event was lost, repeated, out of order or refused, or if a connection was not opened
/// or ended early.
pub(super) fn is_flawed(report: &Value) -> bool {
    let any = |name: &str| report[name].as_u64().unwrap_or_default() > 0;
    report["flawless"] == false
        || any("connections_ended_early")
        || any("refused")
        || report["connections"] != report["connections_asked"]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn remarks_name_the_reasons_to_doubt_a_run() {
        assert_eq!(remarks(&json!({ "flawless": true, "events_per_s": 1.0 })), "");
        let lost = json!({ "flawless": false, "lost": 3, "duplicated": 0, "problem": "x" });
        assert_eq!(remarks(&lost), "; flawed: 3 lost; x");
        let stalled = json!({ "flawless": false, "stalled": { "problem": "y" } });
        assert_eq!(remarks(&stalled), "; flawed; y");
        let busy = json!({ "flawless": true, "generator_limited": true });
        assert_eq!(remarks(&busy), "; the load tool was too busy");
    }

    #[test]
    fn a_refused_event_or_a_missing_connection_is_a_flaw() {
        let good = json!({
            "flawless": true, "connections": 2, "connections_asked": 2,
            "connections_ended_early": 0, "refused": 0,
        });
        assert!(!is_flawed(&good));
        for (name, value) in [("connections", 1), ("connections_ended_early", 1), ("refused", 1)] {
            let mut bad = good.clone();
            bad[name] = json!(value);
            assert!(is_flawed(&bad), "{bad}");
        }
    }
}
