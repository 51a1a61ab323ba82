//! Runs the real program of an example. A test can give the program arguments, post requests, open
//! a stream, and stop the program with a signal.

#![cfg(unix)]

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use super::support::patiently;

/// A running program. When this value is dropped, the process is killed.
pub(crate) struct Started {
    child: Child,
    address: String,
    /// The output of the program. It stays open, because the program cannot print to a closed pipe.
    _printed: BufReader<ChildStdout>,
}

impl Started {
    /// Starts a program and waits until the program has printed its address. The arguments must set
    /// port 0.
    pub(crate) async fn with(path: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let mut printed = BufReader::new(child.stdout.take().expect("the output is piped"));
        let mut line = String::new();
        patiently(printed.read_line(&mut line)).await.expect("the text is UTF-8");
        let address = line.split("http://").nth(1).expect(&line);
        let address = address.split(['/', ' ']).next().expect("the line has an address").to_owned();
        Self { child, address, _printed: printed }
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).await.expect("the program listens");
        socket.write_all(request.as_bytes()).await.expect("the connection is open");
        socket
    }

    /// Posts a body. Returns the head and the body of the answer.
    pub(crate) async fn post(&self, path: &str, media_type: &str, body: &str) -> String {
        let length = body.len();
        let mut socket = self
            .send(&format!(
                "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
                 Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let mut answer = String::new();
        patiently(socket.read_to_string(&mut answer)).await.expect("the text is UTF-8");
        answer
    }

    /// Opens a stream and sends the signal. Asserts that the program ends the stream and exits
    /// successfully.
    pub(crate) async fn ends_with_open(mut self, path: &str, headers: &str, signal: Signal) {
        let mut socket =
            self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
        let mut seen = String::new();
        while !seen.contains("\n\n") {
            let mut bytes = [0; 1_024];
            let read = patiently(socket.read(&mut bytes)).await.expect("the connection is open");
            assert!(read > 0, "the stream ended after {seen:?}");
            seen.push_str(
                std::str::from_utf8(&bytes[..read]).expect("no read ends within a character"),
            );
        }
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");

        let id = self.child.id().expect("the program runs").cast_signed();
        kill_process(Pid::from_raw(id).expect("a process id is not 0"), signal)
            .expect("the program runs");
        patiently(socket.read_to_string(&mut seen)).await.expect("the connection is not reset");
        assert!(
            seen.ends_with("\n\n\r\n0\r\n\r\n"),
            "the last chunk must come after a whole event: {seen}"
        );
        let status = patiently(self.child.wait()).await.expect("the process can be awaited");
        assert!(status.success(), "{status}");
    }
}
