//! Runs `downlink serve` and `downlink dev` as processes.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::request::Place;

/// The folder of one test. Dropping this value removes the folder.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("downlink-access-{}-{number}", std::process::id());
        Self::at(std::env::temp_dir().join(name))
    }

    /// A folder at this path, which does not exist yet.
    pub(crate) fn at(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in the folder, for a flag.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command of the program. It does not use settings from environment variables of the tests.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOWNLINK_") {
            command.env_remove(name);
        }
    }
    command.env("DOWNLINK_LOG", "error").args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A running server. Dropping this value kills the server.
pub(crate) struct Program {
    child: Child,
    /// The address of `--listen`.
    pub(crate) public: Place,
    /// The address of `--admin-listen`.
    pub(crate) admin: Option<Place>,
    /// The output of the server. It stays open while the server runs, because a server that cannot
    /// write to its stdout ends.
    _stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts the program with these words, and waits until it listens.
    pub(crate) fn start(words: &[&str]) -> Self {
        let child = command(words).spawn().expect("the program starts");
        Self::greeted(child)
    }

    /// Waits until a started program listens.
    pub(crate) fn greeted(mut child: Child) -> Self {
        let mut stdout = BufReader::new(child.stdout.take().expect("the stream is piped"));
        let (mut public, mut admin) = (None, None);
        loop {
            let mut line = String::new();
            let read = stdout.read_line(&mut line).expect("a pipe");
            assert!(read > 0, "the server does not start");
            let word = line.trim_end().rsplit(' ').next().unwrap_or_default();
            if line.contains(" is listening on ") {
                public = Some(place(word));
            } else if line.contains("for apps and operators: ") {
                admin = Some(place(word));
            } else if line.contains("history is ") {
                break;
            }
        }
        let public = public.expect("the first line has the address");
        Self { child, public, admin, _stdout: stdout }
    }

    /// The address of the admin listener.
    pub(crate) fn admin(&self) -> &Place {
        self.admin.as_ref().expect("the server has an admin listener")
    }

    /// Sends SIGHUP to the server.
    pub(crate) fn hang_up(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "HUP", &id]).status();
        assert!(sent.expect("the program kill").success());
    }

    /// Kills the server at once, with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the program runs");
        self.child.wait().expect("the program ends");
    }

    /// Ends the server with SIGTERM, which starts a graceful shutdown.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.expect("the program kill runs").success());
        assert!(self.child.wait().expect("the program ends").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place(word: &str) -> Place {
    match (word.strip_prefix("http://"), word.strip_prefix("unix:")) {
        (Some(address), _) => Place::Tcp(address.parse().expect("an IP address and a port")),
        (_, Some(path)) => Place::Unix(path.into()),
        _ => panic!("{word:?} is not an address"),
    }
}
