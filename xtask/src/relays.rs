//! Runs the files of `deploy/relays`: one upstream and two relays behind a real HAProxy, on addresses
//! of this machine. Each server is killed while readers are connected and events are published.
//!
//! Each reader has to print each event once and in order.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::browser;
use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The servers of the files, and the last number of the address of each. The first is the upstream.
const NODES: [(&str, u8); 3] = [("a", 1), ("b", 2), ("c", 3)];

/// How long the servers may take to become ready, and the readers to get an event. Readers wait a few
/// seconds before they reconnect.
const WITHIN: Duration = Duration::from_secs(60);

/// The step of `ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped("only Linux has 127.0.0.2 without a setup".into()));
    }
    if let Readiness::Missing(why) = setup::program("haproxy", "haproxy") {
        return Ok(Outcome::Skipped(why));
    }
    browser::build(workspace)?;
    let mut trial = Trial::prepare(workspace)?;
    let valid = ["-c", "-f", "haproxy.cfg"];
    command::run(&mut command(&trial.folder, "haproxy", &valid))?;
    for (name, _) in NODES {
        trial.start(name)?;
    }
    trial.processes.push(("haproxy", trial.spawn("haproxy", &["-db", "-f", "haproxy.cfg"], "h")?));
    trial.await_ready()?;
    let url = format!("http://127.0.0.9:{}", trial.public);
    for reader in ["r1", "r2", "r3", "r4", "r5", "r6"] {
        let words = ["subscribe", "--url", &url, "--start", "earliest", "news"];
        trial.processes.push((reader, trial.spawn(&trial.program, &words, reader)?));
    }
    trial.publish("1")?;
    trial.await_events(1)?;
    for (number, (name, _)) in NODES.iter().rev().enumerate() {
        let number = 2 + 2 * number;
        trial.kill(name)?;
        let publishing = trial.publishing(&number.to_string())?;
        thread::sleep(Duration::from_secs(2));
        trial.start(name)?;
        finish(publishing)?;
        trial.await_ready()?;
        trial.publish(&(number + 1).to_string())?;
        trial.await_events(number + 1)?;
    }
    Ok(Outcome::Passed)
}

/// A folder with the settings, and the running programs. All of them are killed at the end.
struct Trial {
    folder: PathBuf,
    program: PathBuf,
    /// The ports of the servers, and of HAProxy for readers.
    port: u16,
    public: u16,
    processes: Vec<(&'static str, Child)>,
}

impl Trial {
    /// Writes the keys and the settings, with addresses and paths of this machine.
    fn prepare(workspace: &Workspace) -> anyhow::Result<Self> {
        let folder = workspace.target.join("deploy/relays");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let program = workspace.target.join("debug/downlink");
        let (port, public) = (free_port()?, free_port()?);
        for key in ["publish.key", "ticket.key", "relay.key", "admin.key"] {
            command::run(&mut command(&folder, &program, &["key", "new", key]))?;
        }
        let trial = Self { folder, program, port, public, processes: Vec::new() };
        let deployed = workspace.root.join("deploy/relays");
        for (name, number) in NODES {
            let file = if name == "a" { "upstream.toml" } else { "relay.toml" };
            let text = trial.localized(&deployed.join(file))?;
            let text = text.replace("downlink.db", &format!("{name}.db"));
            let text =
                text.replace("host = [\"127.0.0.2\"]", &format!("host = [\"127.0.0.{number}\"]"));
            trial.write(&format!("{name}.toml"), &text)?;
            let words = ["config", "check", "--config", &format!("{name}.toml")];
            command::run(&mut command(&trial.folder, &trial.program, &words))?;
        }
        let haproxy = trial.localized(&deployed.join("haproxy.cfg"))?;
        let bind = format!("bind 127.0.0.9:{public}\n");
        ensure!(haproxy.contains("bind :80\n"), "haproxy.cfg has no public frontend");
        trial.write("haproxy.cfg", &haproxy.replace("bind :80\n", &bind))?;
        Ok(trial)
    }

    fn localized(&self, file: &Path) -> anyhow::Result<String> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let text = text.replace("10.0.0.", "127.0.0.").replace(":8080", &format!(":{}", self.port));
        let text = text.replace("/run/credentials/downlink.service/", "");
        Ok(text.replace("/var/lib/downlink/", "").replace("\n#public", "\npublic"))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.folder.join(name), text).with_context(|| name.to_owned())
    }

    /// Starts a program whose output goes to files of this name.
    fn spawn(
        &self,
        program: impl AsRef<Path>,
        words: &[&str],
        name: &str,
    ) -> anyhow::Result<Child> {
        let mut command = command(&self.folder, program.as_ref(), words);
        println!("$ {}", command::line(&command));
        let file = |end| File::options().create(true).append(true).open(self.path(name, end));
        command.stdin(Stdio::null()).stdout(file("out")?).stderr(file("err")?);
        command.spawn().with_context(|| command::line(&command))
    }

    fn path(&self, name: &str, end: &str) -> PathBuf {
        self.folder.join(format!("{name}.{end}"))
    }

    fn start(&mut self, name: &'static str) -> anyhow::Result<()> {
        let number = NODES.iter().find(|node| node.0 == name).context("no such server")?.1;
        let listen = format!("127.0.0.{number}:{}", self.port);
        let words = ["serve", "--config", &format!("{name}.toml"), "--listen", &listen];
        let child = self.spawn(&self.program, &words, name)?;
        self.processes.push((name, child));
        Ok(())
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        println!("kills {name}");
        let at = self.processes.iter().position(|(running, _)| *running == name);
        let (_, mut child) = self.processes.remove(at.context("the server does not run")?);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until all servers are ready, and none of them is degraded.
    fn await_ready(&self) -> anyhow::Result<()> {
        let is_ready = |number: u8| {
            let url = format!("http://127.0.0.{number}:{}/readyz", self.port);
            let said = command::output(&mut command(&self.folder, "curl", &["-sS", &url]));
            said.is_ok_and(|said| said.trim() == "ready")
        };
        await_that("all servers are ready", || NODES.iter().all(|node| is_ready(node.1)))
    }

    /// Starts to publish an event through HAProxy.
    fn publishing(&self, data: &str) -> anyhow::Result<Child> {
        let url = format!("http://127.0.0.9:{}", self.port);
        let words = ["publish", "--url", &url, "--key-file", "publish.key", "-t", "news", data];
        self.spawn(&self.program, &words, "published")
    }

    fn publish(&self, data: &str) -> anyhow::Result<()> {
        finish(self.publishing(data)?)
    }

    /// Waits until each reader has printed the events from 1 to `last`, once and in order.
    fn await_events(&self, last: usize) -> anyhow::Result<()> {
        let wanted: String = (1..=last).map(|number| format!("{number}\n")).collect();
        for (name, _) in self.processes.iter().filter(|(name, _)| name.starts_with('r')) {
            let file = self.path(name, "out");
            let printed = || fs::read_to_string(&file).unwrap_or_default();
            let what = format!("{} has all events", file.display());
            await_that(&what, || printed().lines().count() >= last)?;
            ensure!(printed() == wanted, "{} has other events:\n{}", file.display(), printed());
        }
        Ok(())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn finish(mut publishing: Child) -> anyhow::Result<()> {
    let status = publishing.wait()?;
    ensure!(status.success(), "the publish failed: {status}");
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + WITHIN;
    while !holds() {
        if Instant::now() > until {
            bail!("not within {WITHIN:?}: {what}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
