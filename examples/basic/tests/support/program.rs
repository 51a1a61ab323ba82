//! The real program of an example. The tests start it on a free port, read its output, and stop it
//! with a signal.

#![cfg(unix)]

use std::{
    net::{Ipv4Addr, TcpListener as PortTaken},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use super::patiently;

/// A running program. When this value is dropped, the process is killed.
struct Program {
    child: Child,
    address: String,
    /// The output of the program. It stays open, because the program cannot print to a closed pipe.
    _printed: BufReader<ChildStdout>,
}

/// The command of a program, with an optional argument and an optional variable `PORT`.
fn command(path: &str, argument: Option<&str>, variable: Option<&str>) -> Command {
    let mut command = Command::new(path);
    command.args(argument).env_remove("PORT").envs(variable.map(|port| ("PORT", port)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts a program, and waits until the program has printed its address.
async fn start(mut command: Command) -> Program {
    let mut child = command.spawn().expect("the program starts");
    let mut printed = BufReader::new(child.stdout.take().expect("the output is piped"));
    let mut line = String::new();
    patiently(printed.read_line(&mut line)).await.expect("the text is UTF-8");
    let address = line.split("http://").nth(1).expect(&line);
    let address = address.split(['/', ' ']).next().expect("the line has an address").to_owned();
    Program { child, address, _printed: printed }
}

impl Program {
    async fn open(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).await.expect("the program listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("the connection is open");
        socket
    }
}

/// Opens a stream of a program and sends the signal. Asserts that the program ends the stream and
/// exits successfully.
pub(crate) async fn ends_with_an_open_stream(path: &str, stream: &str, signal: Signal) {
    let mut program = start(command(path, Some("0"), None)).await;
    let mut socket = program.open(stream).await;
    let mut seen = String::new();
    while !seen.contains(": connected\n\n") {
        let mut bytes = [0; 1_024];
        let read = patiently(socket.read(&mut bytes)).await.expect("the connection is open");
        assert!(read > 0, "the stream ended after {seen:?}");
        seen.push_str(
            std::str::from_utf8(&bytes[..read]).expect("no read ends within a character"),
        );
    }
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");

    let id = program.child.id().expect("the program runs").cast_signed();
    kill_process(Pid::from_raw(id).expect("a process id is not 0"), signal)
        .expect("the program runs");
    patiently(socket.read_to_string(&mut seen)).await.expect("the connection is not reset");
    assert!(
        seen.ends_with("\n\n\r\n0\r\n\r\n"),
        "the last chunk must come after a whole event: {seen}"
    );
    let status = patiently(program.child.wait()).await.expect("the process can be awaited");
    assert!(status.success(), "{status}");
}

/// Asserts that a program fails with a clear error if its port is in use.
pub(crate) async fn names_a_port_in_use(path: &str) {
    let taken = PortTaken::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = taken.local_addr().expect("the listener is bound");
    let said = refuses(command(path, Some(&address.port().to_string()), None)).await;
    assert!(said.contains(&format!("{address} is in use")), "{said}");
}

/// Asserts that the program uses the variable `PORT`, and that an argument overrides it.
pub(crate) async fn takes_its_port_from_argument_or_variable(path: &str) {
    start(command(path, None, Some("0"))).await;
    start(command(path, Some("0"), Some("none"))).await;
    let said = refuses(command(path, None, Some("none"))).await;
    assert!(said.contains(r#""none" is not a port"#), "{said}");
}

/// Runs a program that fails to start. Returns its error output.
async fn refuses(mut command: Command) -> String {
    let output = patiently(command.output()).await.expect("the program starts");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("the text is UTF-8")
}
