//! The measured servers: how to build and start each of them, and its flags.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::Context as _;

use crate::command;
use crate::workspace::Workspace;

/// The processors for the server and for the load tool, if the machine has two or more processors.
const SERVER_CPU: &str = "0";
const TOOL_CPU: &str = "1";

/// The address for a server's first start. The system chooses the port.
const ANY_PORT: &str = "127.0.0.1:0";

/// A server to measure.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    manifest: &'static str,
    binary: &'static str,
    /// The arguments before the address.
    words: &'static [&'static str],
    /// A flag and its default value. A run may set the flag to another value.
    usual: &'static [&'static str],
    place: Place,
}

/// The processor of a server, and its priority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// The server's processor.
    Own,
    /// The server's processor. Programs without real-time priority have to wait for the server.
    OwnInRealTime,
    /// The load tool's processor.
    BesideTool,
}

/// Our server.
pub(super) const DOWNLINK: Server = Server {
    name: "downlink",
    manifest: "crates/downlink-server/Cargo.toml",
    binary: "downlink",
    words: &["dev", "--listen"],
    usual: &["--store", "none"],
    place: Place::Own,
};
/// Our server with access control and real-time priority.
pub(super) const SERVE: Server =
    Server { words: &["serve", "--listen"], place: Place::OwnInRealTime, ..DOWNLINK };
/// The same server, on the load tool's processor.
pub(super) const SERVE_BESIDE: Server = Server { place: Place::BesideTool, ..SERVE };
/// Our server without access control, on the load tool's processor.
pub(super) const DOWNLINK_BESIDE: Server = Server { place: Place::BesideTool, ..DOWNLINK };
/// The floor: a server that only writes each event to all sockets in a loop. It shows the cost of
/// the writes alone.
pub(super) const FLOOR: Server = Server {
    name: "floor",
    manifest: "bench/floor/Cargo.toml",
    binary: "bench-floor",
    words: &["serve"],
    usual: &[],
    place: Place::Own,
};
/// A server that streams with axum in the usual way.
pub(super) const AXUM: Server = Server {
    name: "axum",
    manifest: "bench/peers/axum/Cargo.toml",
    binary: "bench-axum",
    words: &[],
    usual: &[],
    place: Place::Own,
};
/// The program that attacks a server.
const ATTACKER: &str = "bench-attacker";
const ATTACKER_MANIFEST: &str = "bench/attacker/Cargo.toml";
/// All servers, in the order in which they are measured.
pub(super) const SERVERS: [&Server; 3] = [&DOWNLINK, &FLOOR, &AXUM];

/// The built programs, and the processors on which they run.
#[derive(Debug)]
pub(super) struct Programs<'a> {
    pub(super) workspace: &'a Workspace,
    /// True if the server and the load tool run on different processors.
    pub(super) is_pinned: bool,
    /// The help text of our server, which lists the flags of this build.
    help: String,
}

impl<'a> Programs<'a> {
    pub(super) fn build(workspace: &'a Workspace) -> anyhow::Result<Self> {
        let servers = SERVERS.map(|server| (server.manifest, server.binary));
        for (manifest, binary) in servers.into_iter().chain([(ATTACKER_MANIFEST, ATTACKER)]) {
            let words = ["build", "--release", "--manifest-path", manifest, "--bin"];
            let mut build = workspace.cargo(&words);
            build.arg(binary).arg("--target-dir").arg(&workspace.target);
            command::run(&mut build)?;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut taskset = command::command(&workspace.root, "taskset", &["--version"]);
        let is_pinned = processors > 1 && command::answers(&mut taskset);
        let mut programs = Self { workspace, is_pinned, help: String::new() };
        let words = ["dev".to_owned(), "--help".to_owned()];
        programs.help = command::output(&mut programs.on(SERVER_CPU, DOWNLINK.binary, &words))?;
        Ok(programs)
    }

    /// True if our server has this flag.
    pub(super) fn has_flag(&self, flag: &str) -> bool {
        takes(&self.help, flag).is_some()
    }

    /// True if our server can keep its history in a file.
    pub(super) fn has_store(&self) -> bool {
        takes(&self.help, "--store").is_some_and(|value| value != "<none>")
    }

    /// The command that runs the load tool on its processor.
    pub(super) fn tool(&self, words: &[String]) -> Command {
        self.on(TOOL_CPU, DOWNLINK.binary, words)
    }

    /// The command that runs a system program on the load tool's processor, so that it does not
    /// disturb the server.
    pub(super) fn beside_tool(&self, program: &str, words: &[&str]) -> Command {
        let root = &self.workspace.root;
        if self.is_pinned {
            command::command(root, "taskset", &[&["-c", TOOL_CPU, program], words].concat())
        } else {
            command::command(root, program, words)
        }
    }

    /// The command that runs a server on its processor.
    pub(super) fn server(&self, server: &Server, words: &[String]) -> Command {
        match server.place {
            Place::Own => self.on(SERVER_CPU, server.binary, words),
            Place::OwnInRealTime => self.in_real_time(self.on(SERVER_CPU, server.binary, words)),
            Place::BesideTool => self.on(TOOL_CPU, server.binary, words),
        }
    }

    /// The command that runs the attacker on the load tool's processor.
    pub(super) fn attacker(&self, words: &[String]) -> Command {
        self.on(TOOL_CPU, ATTACKER, words)
    }

    /// Gives a command real-time priority, which needs root.
    pub(super) fn in_real_time(&self, command: Command) -> Command {
        let mut first = command::command(&self.workspace.root, "chrt", &["--fifo", "10"]);
        first.arg(command.get_program()).args(command.get_args());
        first
    }

    /// The command that runs a program on this processor, with the highest possible limit of open
    /// files.
    fn on(&self, cpu: &str, binary: &str, words: &[String]) -> Command {
        let path = self.workspace.target.join("release").join(binary);
        let raised = ["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""];
        let root = &self.workspace.root;
        let mut command = if self.is_pinned {
            command::command(root, "taskset", &["-c", cpu, "sh"])
        } else {
            command::command(root, "sh", &[])
        };
        command.args(raised).arg(path).args(words);
        command
    }

    /// Starts a server and waits for the line with its address.
    pub(super) fn start(&self, server: &Server, flags: &[String]) -> anyhow::Result<Running> {
        let mut words: Vec<String> = server.words.iter().map(ToString::to_string).collect();
        words.push(ANY_PORT.to_owned());
        if !server.usual.first().is_some_and(|usual| flags.iter().any(|flag| flag == usual)) {
            words.extend(server.usual.iter().map(ToString::to_string));
        }
        words.extend_from_slice(flags);
        let mut command = self.server(server, &words);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let line = command::line(&command);
        let child = command.spawn().with_context(|| format!("cannot start: {line}"))?;
        let mut running = Running { child, url: String::new(), again: String::new() };
        let stdout =
            running.child.stdout.take().context("the output of the server is not piped")?;
        let mut lines = BufReader::new(stdout).lines();
        running.url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| address(&line))
            .with_context(|| format!("no address was printed by: {line}"))?;
        let at = words
            .iter_mut()
            .find(|word| *word == ANY_PORT)
            .context("the server's arguments have no address")?;
        *at = format!("127.0.0.1:{}", running.port());
        running.again = command::line(&self.server(server, &words));
        // Read the rest of the output, so that the server does not block on a full pipe.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(running)
    }
}

/// A running server. When this value is dropped, the server is killed.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) url: String,
    /// The shell command that starts the server again at the same address.
    pub(super) again: String,
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM to the server and waits for its end.
    pub(super) fn stop(mut self, programs: &Programs<'_>) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        command::output(&mut programs.beside_tool("kill", &["-TERM", &pid]))?;
        self.child.wait().context("cannot wait for the end of the server")?;
        Ok(())
    }

    /// The server's port.
    pub(super) fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The placeholder for a flag's value in the help text. `None` if the help text lacks the flag.
fn takes<'a>(help: &'a str, flag: &str) -> Option<&'a str> {
    help.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| word.trim_end_matches(',') == flag)?;
        Some(words.next().unwrap_or_default())
    })
}

/// The first address in a line.
fn address(line: &str) -> Option<String> {
    let at = line.find("http://")?;
    line[at..].split_whitespace().next().map(|url| url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_line_of_a_server() {
        let said = "downlink 1.0 is listening on http://127.0.0.1:8080/";
        assert_eq!(address(said).as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(address("nothing"), None);
    }

    #[test]
    fn a_flag_is_found_in_the_help_text() {
        let help = "  -h, --help\n      --store <none>\n          Where history is kept\n";
        assert_eq!(takes(help, "--store"), Some("<none>"));
        assert_eq!(takes(help, "--help"), Some(""));
        assert_eq!(takes(help, "--missing"), None);
    }
}
