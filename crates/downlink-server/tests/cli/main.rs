//! Tests of the program: its commands, output, exit codes and signals.
//!
//! Tests wait for events, never for a fixed time. Each test kills its processes at its end.

#[cfg(unix)]
mod access;
#[cfg(unix)]
mod config;
mod decode;
mod forwarder;
mod health;
#[cfg(feature = "https")]
mod https;
#[cfg(unix)]
mod keys;
#[cfg(unix)]
mod listening;
mod publish;
mod serve;
mod settings;
mod subscribe;
#[cfg(unix)]
mod terminal;

#[cfg(unix)]
use listening::Folder;
use std::{
    io::{BufRead, BufReader, Read, Write as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command of the program. It does not use settings from environment variables of the tests.
fn downlink(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOWNLINK_") {
            command.env_remove(name);
        }
    }
    // By default, these commands use no store. Only the tests of stores set a store.
    command.env("DOWNLINK_STORE", "none").args(arguments);
    command
}

/// A command that starts a production server. The server makes its key files in this folder.
#[cfg(unix)]
fn production(folder: &Folder, flags: &[&str]) -> Command {
    let mut command = downlink(&[&["serve"], flags].concat());
    command.current_dir(folder.path(""));
    command
}

/// A command that starts a shell with this script. In the script, `"$@"` is the original command.
/// The shell has the folder and the environment variables of the original command.
#[cfg(unix)]
fn through_a_shell(command: &Command, script: &str) -> Command {
    let mut shell = Command::new("sh");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    shell
}

/// The output and exit code of a command that ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs a command with this text as its stdin, and waits until the command has ended.
fn run(mut command: Command, stdin: impl AsRef<[u8]>) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    // A command may end before it has read all of its stdin, so an error is ignored.
    let _ = running.stdin.take().expect("the stream is piped").write_all(stdin.as_ref());
    running.ended()
}

/// A running program. Dropping this value kills the program.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout: ChildStdout = child.stdout.take().expect("the stream is piped");
        let stderr: ChildStderr = child.stderr.take().expect("the stream is piped");
        let stdin = child.stdin.take();
        Self { child, stdin, stdout: Lines::of(stdout), stderr: Lines::of(stderr) }
    }

    /// Sends a signal by its name, such as `TERM`.
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("the program kill runs").success());
    }

    /// Waits until the program has ended, and collects its unread output.
    fn ended(mut self) -> Ended {
        drop(self.stdin.take());
        let stdout = self.stdout.rest();
        let stderr = self.stderr.rest();
        let status: ExitStatus = self.child.wait().expect("the program runs");
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that arrive over a pipe. A thread reads them, so that a wait for a line can have a
/// time limit.
struct Lines(mpsc::Receiver<String>);

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::sync_channel(100_000);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// Waits for the next line and returns it without its line end.
    #[track_caller]
    fn next(&self) -> String {
        let line = self.0.recv_timeout(PATIENCE).expect("another line");
        line.trim_end_matches('\n').to_owned()
    }

    fn rest(&self) -> String {
        let mut rest = String::new();
        loop {
            match self.0.recv_timeout(PATIENCE) {
                Ok(line) => rest.push_str(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return rest,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the output does not end: {rest}"),
            }
        }
    }
}

/// A development server on a free port.
struct Server {
    running: Running,
    url: String,
    /// The lines that the server printed when it was ready.
    greeting: Vec<String>,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        Self::of(downlink(&[&["--listen", "127.0.0.1:0"], flags].concat()))
    }

    fn of(command: Command) -> Self {
        let running = Running::start(command);
        let mut greeting = vec![running.stdout.next()];
        // The last line has the maximum number of connections.
        while !greeting.last().is_some_and(|line| line.ends_with(" connections")) {
            greeting.push(running.stdout.next());
        }
        let url = greeting[0].rsplit(' ').next().expect("an address").to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{greeting:?}");
        Self { running, url, greeting }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("an address")
    }

    /// Publishes an event with `downlink publish`.
    fn publish(&self, topic: &str, data: &str) -> String {
        let published = run(downlink(&["publish", "--url", &self.url, "-t", topic, data]), "");
        assert_eq!(published.code, Some(0), "{}", published.stderr);
        published.stdout
    }
}
