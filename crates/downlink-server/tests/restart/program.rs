//! Runs programs that inherit a listening socket from the test. The test keeps the socket open
//! between two programs, as a supervisor does.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process};

/// A listening socket, and its address in the syntax of nginx.
#[derive(Clone)]
pub(crate) struct Socket {
    fd: Arc<OwnedFd>,
    pub(crate) place: String,
}

impl Socket {
    pub(crate) fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let place = listener.local_addr().expect("the listener is bound").to_string();
        Self { fd: Arc::new(listener.into()), place }
    }

    pub(crate) fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a new path");
        let place = format!("unix:{}", path.display());
        Self { fd: Arc::new(listener.into()), place }
    }
}

/// A running program. The program's descriptor 3 is a listening socket. Dropping this value kills
/// the program.
pub(crate) struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a program through a shell. The shell makes the socket its descriptor 3, sets the
    /// environment variables, and then becomes the program.
    pub(crate) fn start(socket: &Socket, variables: &str, words: &[&str]) -> Self {
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOWNLINK_") {
                command.env_remove(name);
            }
        }
        let script = format!("exec 3<&0 0</dev/null; export {variables}; exec \"$@\"");
        command.args(["-c", &script, "sh"]).args(words);
        let socket = socket.fd.try_clone().expect("a descriptor");
        command.stdin(socket).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.env("DOWNLINK_LOG", "warn");
        let mut child = command.spawn().expect("a shell");
        let stdout = child.stdout.take().expect("the stream is piped");
        Self { child, stdout: BufReader::new(stdout) }
    }

    /// Starts a production server. It makes its key files beside the store.
    pub(crate) fn server(socket: &Socket, store: &Path) -> Self {
        let store = store.to_str().expect("UTF-8");
        let downlink = env!("CARGO_BIN_EXE_downlink");
        // No topic of the test reaches this limit, so the server keeps all events.
        let words = [downlink, "serve", "--store", store, "--retain-events", "1000000"];
        Self::start(socket, "LISTEN_PID=$$ LISTEN_FDS=1", &words)
    }

    /// Waits until the server reports that it is listening.
    pub(crate) fn greeted(mut self) -> Self {
        let mut greeting = String::new();
        self.stdout.read_line(&mut greeting).expect("a pipe");
        assert!(greeting.contains("listening on"), "{greeting:?}");
        self
    }

    /// Sends SIGHUP to the server.
    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("the program runs");
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the program runs");
    }

    /// Waits until the program has ended. Panics if the exit code is not 0.
    pub(crate) fn ended(mut self) {
        assert!(self.child.wait().expect("a child").success());
    }

    /// Waits until the program has ended, with any exit code.
    pub(crate) fn gone(&mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
