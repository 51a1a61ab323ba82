//! Describes a measurement for its record, which is a Markdown file with the results: the machine,
//! the time, and the load on the machine before the run.

use std::fmt::Write as _;
use std::fs;
use std::thread;

use super::round;
use super::servers::Programs;
use super::settings::Settings;
use crate::command;
use crate::workspace::Workspace;

/// The maximum load average of an idle machine. At this load, half a processor is in use.
const BUSY_BEFORE: f64 = 0.5;

/// The load average over the last minute. `None` if the system does not report it.
pub(super) fn load_before() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The name of a record, which consists of the date and the commit.
pub(super) fn record_name(workspace: &Workspace) -> anyhow::Result<String> {
    let date = said(workspace, "date", &["-u", "+%F"])?;
    let commit = said(workspace, "git", &["rev-parse", "--short", "HEAD"])?;
    Ok(format!("{date}-{commit}"))
}

/// The head of a record: the commit, the machine, and the commands that repeat the measurement.
pub(super) fn header(
    programs: &Programs<'_>,
    settings: Settings,
    load: Option<f64>,
) -> anyhow::Result<String> {
    let root = programs.workspace;
    let subject = said(root, "git", &["log", "-1", "--format=%h %s"])?;
    let changed = !said(root, "git", &["status", "--porcelain"])?.is_empty();
    let changed = if changed { ", with changes that are not committed" } else { "" };
    let time = said(root, "date", &["-u", "+%F %H:%M UTC"])?;
    let kernel = said(root, "uname", &["-srm"])?;
    let compiler = said(root, "rustc", &["--version"])?;
    let (cpu, processors) = (processor(), thread::available_parallelism()?);
    let pinned = if programs.is_pinned { "a processor each" } else { "not pinned" };
    let Settings { rounds, seconds, .. } = settings;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let target = root.target.to_string_lossy();
    let [server, tool] = round::example(programs, seconds)
        .map(|command| command::line(&command).replace(&*target, "target"));
    let mut text = format!(
        "# Measured on {time}\n\n\
         - commit: {subject}{changed}\n\
         - machine: {cpu}, {processors} processors, {kernel}; {compiler}\n\
         - {rounds} rounds of {seconds} s; server and load tool: {pinned}\n\
         - `cargo xtask {}`, which runs commands such as\n  `{server}`\n  `{tool}`\n",
        words.join(" "),
    );
    text.push_str(&load_line(load));
    text.push_str(
        "\nThe servers take turns in each round. The machine's speed varies between rounds, so only \
         ratios within a round compare; the last column is the median over the rounds.\n\n",
    );
    Ok(text)
}

/// A line with the load of the machine before the run, and a warning if the load is high.
fn load_line(load: Option<f64>) -> String {
    let mut line = String::from("- load average of the last minute before the run: ");
    match load {
        None => line.push_str("unknown"),
        Some(load) => {
            let _ = write!(line, "{load:.2}");
            if load > BUSY_BEFORE {
                let _ = write!(
                    line,
                    ". **Above {BUSY_BEFORE}: other programs were running; do not quote these figures**"
                );
            }
        }
    }
    line.push('\n');
    line
}

/// The output of a program, without the last line end.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_line_warns_of_a_busy_machine() {
        assert!(!load_line(Some(BUSY_BEFORE)).contains("Above"));
        assert!(load_line(Some(BUSY_BEFORE + 0.01)).contains("Above 0.5"));
        assert!(load_line(None).contains("unknown"));
    }
}
