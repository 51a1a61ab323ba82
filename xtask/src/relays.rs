//! Runs the files of `deploy/relays`: one upstream and two relays behind a real HAProxy, on addresses
//! of this machine. Each server is killed while readers are connected and events are published.
//!
//! Each reader has to print each event once and in order.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::browser;
use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The servers of the files, and the last number of the address of each. The first is the upstream.
const NODES: [(&str, u8); 3] = [("a", 1), ("b", 2), ("c", 3)];

/// How long a reader may wait for an event. A reader waits a few seconds before it reconnects.
const EVENT_WITHIN: Duration = Duration::from_secs(60);

/// The flags with which curl asks again, until a server answers without an error: at most a minute.
const UNTIL_READY: [&str; 8] =
    ["-sSf", "--max-time", "5", "--retry", "60", "--retry-delay", "1", "--retry-all-errors"];

/// The readers. With six of them, each server has two.
const READERS: [&str; 6] = ["reader1", "reader2", "reader3", "reader4", "reader5", "reader6"];

/// The step of `ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped("only Linux has the address 127.0.0.2 without a setup".into()));
    }
    let tools = setup::program("haproxy", "haproxy").and_then(|| setup::program("curl", "curl"));
    if let Readiness::Missing(why) = tools {
        return Ok(Outcome::Skipped(why));
    }
    browser::build(workspace)?;
    let mut trial = Trial::prepare(workspace)?;
    let valid = ["-c", "-f", "haproxy.cfg"];
    command::run(&mut command(&trial.folder, "haproxy", &valid))?;
    for (name, _) in NODES {
        trial.start(name)?;
    }
    trial.await_ready()?;
    trial.start_proxy()?;
    for reader in READERS {
        trial.start_reader(reader)?;
    }
    trial.publish(1)?;
    trial.await_event(1)?;
    // Kills the relays first, and then the upstream.
    for (event, (name, _)) in (2..).step_by(2).zip(NODES.iter().rev()) {
        trial.kill(name)?;
        // If the upstream is away, the relay holds this publish until the upstream is back.
        let publishing = trial.publishing(event)?;
        trial.start(name)?;
        finish(publishing)?;
        trial.await_event(event)?;
        trial.await_ready()?;
        trial.publish(event + 1)?;
        trial.await_event(event + 1)?;
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
    /// The lines of each reader.
    printed: Vec<(&'static str, Receiver<String>)>,
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
        let (processes, printed) = (Vec::new(), Vec::new());
        let trial = Self { folder, program, port, public, processes, printed };
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

    /// Starts a program. The errors of the program go to `NAME.log`. Its output goes there too, or
    /// to a pipe if `is_piped`.
    fn spawn(
        &self,
        program: impl AsRef<Path>,
        words: &[&str],
        (name, is_piped): (&str, bool),
    ) -> anyhow::Result<Child> {
        let mut command = command(&self.folder, program.as_ref(), words);
        println!("$ {}", command::line(&command));
        let path = self.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(path)?;
        let output = if is_piped { Stdio::piped() } else { log.try_clone()?.into() };
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        command.spawn().with_context(|| command::line(&command))
    }

    fn start(&mut self, name: &'static str) -> anyhow::Result<()> {
        let number = NODES.iter().find(|node| node.0 == name).context("no such server")?.1;
        let listen = format!("127.0.0.{number}:{}", self.port);
        let words = ["serve", "--config", &format!("{name}.toml"), "--listen", &listen];
        let child = self.spawn(&self.program, &words, (name, false))?;
        self.processes.push((name, child));
        Ok(())
    }

    fn start_proxy(&mut self) -> anyhow::Result<()> {
        let child = self.spawn("haproxy", &["-db", "-f", "haproxy.cfg"], ("haproxy", false))?;
        self.processes.push(("haproxy", child));
        self.await_ready_at(&format!("127.0.0.9:{}", self.public))
    }

    /// Starts a reader behind HAProxy.
    fn start_reader(&mut self, name: &'static str) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.9:{}", self.public);
        let words = ["subscribe", "--url", &url, "--start", "earliest", "news"];
        let mut child = self.spawn(&self.program, &words, (name, true))?;
        let output = child.stdout.take().context("the output of the reader is not piped")?;
        self.processes.push((name, child));
        let (sender, lines) = mpsc::channel();
        // The thread ends when the reader is killed.
        thread::spawn(move || {
            let read = BufReader::new(output).lines().map_while(Result::ok);
            read.for_each(|line| drop(sender.send(line)));
        });
        self.printed.push((name, lines));
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

    /// Waits until all servers have all events.
    fn await_ready(&self) -> anyhow::Result<()> {
        let mut addresses = NODES.iter().map(|node| format!("127.0.0.{}:{}", node.1, self.port));
        addresses.try_for_each(|address| self.await_ready_at(&address))
    }

    fn await_ready_at(&self, address: &str) -> anyhow::Result<()> {
        let url = format!("http://{address}/readyz");
        command::run(command(&self.folder, "curl", &UNTIL_READY).arg(url))
    }

    /// Starts to publish an event through HAProxy.
    fn publishing(&self, event: u32) -> anyhow::Result<Child> {
        let (url, data) = (format!("http://127.0.0.9:{}", self.port), event.to_string());
        let words = ["publish", "--url", &url, "--key-file", "publish.key", "-t", "news", &data];
        self.spawn(&self.program, &words, ("publish", false))
    }

    fn publish(&self, event: u32) -> anyhow::Result<()> {
        finish(self.publishing(event)?)
    }

    /// Waits until each reader has printed the next event, which must be this one.
    fn await_event(&self, event: u32) -> anyhow::Result<()> {
        for (name, lines) in &self.printed {
            let line = lines.recv_timeout(EVENT_WITHIN);
            let line = line.with_context(|| format!("{name} has not got the event {event}"))?;
            ensure!(line == event.to_string(), "{name} got {line} in place of {event}");
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
