//! Servers, a proxy and readers that run together on addresses of this machine, for the steps that try
//! the files of `deploy` for several machines.
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

use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::workspace::Workspace;

/// The servers of the files, and the last number of the address of each.
pub(crate) const NODES: [(&str, u8); 3] = [("a", 1), ("b", 2), ("c", 3)];

/// How long a reader may wait for an event. A reader waits a few seconds before it reconnects.
const EVENT_WITHIN: Duration = Duration::from_secs(60);

/// The flags with which curl asks again, until a server answers without an error: at most a minute.
const UNTIL_READY: [&str; 8] =
    ["-sSf", "--max-time", "5", "--retry", "60", "--retry-delay", "1", "--retry-all-errors"];

/// The readers. With six of them, each server has two.
const READERS: [&str; 6] = ["reader1", "reader2", "reader3", "reader4", "reader5", "reader6"];

/// A folder with the settings, and the running programs. All of them are killed at the end.
pub(crate) struct Trial {
    pub(crate) folder: PathBuf,
    pub(crate) program: PathBuf,
    /// The folder of the files that are tried.
    deployed: PathBuf,
    /// The ports of the servers, and of HAProxy for readers.
    pub(crate) port: u16,
    public: u16,
    processes: Vec<(String, Child)>,
    /// The lines of each reader.
    printed: Vec<(&'static str, Receiver<String>)>,
}

/// Whether the trials can run on this machine.
pub(crate) fn tools() -> Readiness {
    if !cfg!(target_os = "linux") {
        let why = "only Linux has the address 127.0.0.2 without a setup";
        return Readiness::Missing(why.into());
    }
    setup::program("haproxy", "haproxy").and_then(|| setup::program("curl", "curl"))
}

impl Trial {
    /// A trial of the files in `deploy/NAME`, with a new folder.
    pub(crate) fn new(workspace: &Workspace, name: &str) -> anyhow::Result<Self> {
        let folder = workspace.target.join("deploy").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self {
            folder,
            program: workspace.target.join("debug/downlink"),
            deployed: workspace.root.join("deploy").join(name),
            port: free_port()?,
            public: free_port()?,
            processes: Vec::new(),
            printed: Vec::new(),
        })
    }

    /// A file of the trial, with addresses, paths and the port of this machine.
    pub(crate) fn localized(&self, name: &str) -> anyhow::Result<String> {
        let file = self.deployed.join(name);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let text = text.replace("10.0.0.", "127.0.0.").replace(":8080", &format!(":{}", self.port));
        let text = text.replace("/run/credentials/downlink.service/", "");
        Ok(text.replace("/var/lib/downlink/", "").replace("\n#public", "\npublic"))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.folder.join(name), text).with_context(|| name.to_owned())
    }

    /// Runs `downlink` with these words.
    pub(crate) fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        command::run(&mut command(&self.folder, &self.program, words))
    }

    /// Writes the settings `NAME.toml` of a server. In the text, `host` has the address of the first
    /// or of the second server.
    pub(crate) fn write_node(&self, (name, number): (&str, u8), text: &str) -> anyhow::Result<()> {
        let text = text.replace("downlink.db", &format!("{name}.db"));
        let hosts = ["1", "2"].map(|number| format!("host = [\"127.0.0.{number}\"]"));
        let host = format!("host = [\"127.0.0.{number}\"]");
        let text = hosts.iter().fold(text, |text, old| text.replace(old, &host));
        self.write(&format!("{name}.toml"), &text)?;
        self.run(&["config", "check", "--config", &format!("{name}.toml")])
    }

    /// Writes the settings of HAProxy, which checks them.
    pub(crate) fn write_proxy(&self) -> anyhow::Result<()> {
        let text = self.localized("haproxy.cfg")?;
        ensure!(text.contains("bind :80\n"), "haproxy.cfg has no public frontend");
        let bind = format!("bind 127.0.0.9:{}\n", self.public);
        self.write("haproxy.cfg", &text.replace("bind :80\n", &bind))?;
        let valid = ["-c", "-f", "haproxy.cfg"];
        command::run(&mut command(&self.folder, "haproxy", &valid))
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

    /// Starts a program, which [`kill`](Self::kill) ends by this name.
    pub(crate) fn start_program(
        &mut self,
        name: &str,
        program: impl AsRef<Path>,
        words: &[&str],
    ) -> anyhow::Result<()> {
        let child = self.spawn(program, words, (name, false))?;
        self.processes.push((name.to_owned(), child));
        Ok(())
    }

    pub(crate) fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let number = NODES.iter().find(|node| node.0 == name).context("no such server")?.1;
        let listen = format!("127.0.0.{number}:{}", self.port);
        let words = ["serve", "--config", &format!("{name}.toml"), "--listen", &listen];
        self.start_program(name, self.program.clone(), &words)
    }

    /// Starts HAProxy, and the readers behind it.
    pub(crate) fn start_proxy_and_readers(&mut self) -> anyhow::Result<()> {
        self.start_program("haproxy", "haproxy", &["-db", "-f", "haproxy.cfg"])?;
        self.await_ready_at(&format!("127.0.0.9:{}", self.public))?;
        READERS.into_iter().try_for_each(|reader| self.start_reader(reader))
    }

    fn start_reader(&mut self, name: &'static str) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.9:{}", self.public);
        let words = ["subscribe", "--url", &url, "--start", "earliest", "news"];
        let mut child = self.spawn(&self.program, &words, (name, true))?;
        let output = child.stdout.take().context("the output of the reader is not piped")?;
        self.processes.push((name.to_owned(), child));
        let (sender, lines) = mpsc::channel();
        // The thread ends when the reader is killed.
        thread::spawn(move || {
            let read = BufReader::new(output).lines().map_while(Result::ok);
            read.for_each(|line| drop(sender.send(line)));
        });
        self.printed.push((name, lines));
        Ok(())
    }

    pub(crate) fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        println!("kills {name}");
        let at = self.processes.iter().position(|(running, _)| *running == name);
        let (_, mut child) = self.processes.remove(at.context("the server does not run")?);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until all servers have all events.
    pub(crate) fn await_ready(&self) -> anyhow::Result<()> {
        let mut addresses = NODES.iter().map(|node| format!("127.0.0.{}:{}", node.1, self.port));
        addresses.try_for_each(|address| self.await_ready_at(&address))
    }

    fn await_ready_at(&self, address: &str) -> anyhow::Result<()> {
        let url = format!("http://{address}/readyz");
        command::run(command(&self.folder, "curl", &UNTIL_READY).arg(url))
    }

    /// Starts to publish an event through HAProxy.
    pub(crate) fn publishing(&self, event: u32) -> anyhow::Result<Child> {
        let (url, data) = (format!("http://127.0.0.9:{}", self.port), event.to_string());
        let key = ["--key-file", "publish.key", "--idempotency-key", &data];
        let words = [&["publish", "--url", &url, "-t", "news"], &key[..], &[&data]].concat();
        self.spawn(&self.program, &words, ("publish", false))
    }

    pub(crate) fn publish(&self, event: u32) -> anyhow::Result<()> {
        finish(self.publishing(event)?)
    }

    /// Waits until each reader has printed the next event, which must be this one.
    pub(crate) fn await_event(&self, event: u32) -> anyhow::Result<()> {
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

/// Waits until a publish has succeeded.
pub(crate) fn finish(mut publishing: Child) -> anyhow::Result<()> {
    let status = publishing.wait()?;
    ensure!(status.success(), "the publish failed: {status}");
    Ok(())
}

/// A port that is free on 127.0.0.1.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
