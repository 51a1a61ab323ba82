//! Runs the program as a process, and sends it HTTP requests.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{answer::Answer, patiently, stream::Stream};

/// The command that starts a server with this store.
pub(crate) fn command(store: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOWNLINK_") {
            command.env_remove(name);
        }
    }
    command.args(["--listen", "127.0.0.1:0", "--store"]).arg(store).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Asserts that the server does not start with this store. Returns the error message.
pub(crate) fn refused(store: &Path) -> String {
    let mut child = command(store, &[]).spawn().expect("the program starts");
    let mut first = String::new();
    let stdout = child.stdout.take().expect("the stream is piped");
    let read = BufReader::new(stdout).read_line(&mut first);
    if read.is_ok_and(|read| read > 0) {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the server starts, although it must not: {first}");
    }
    let ended = child.wait_with_output().expect("the program ends");
    let all = String::from_utf8(ended.stderr).expect("UTF-8");
    // A server that waits for a store also writes log lines, which are not part of the error.
    let is_log = |line: &&str| line.contains(" INFO ");
    let said: String = all.lines().filter(|line| !is_log(line)).collect::<Vec<_>>().join("\n");
    assert_eq!(ended.status.code(), Some(1), "{all}");
    assert!(said.starts_with("downlink: cannot keep history in "), "{said}");
    assert!(said.contains(store.to_str().expect("UTF-8")), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// A running server with a store. Dropping this value kills the server.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// The output of the server. It stays open while the server runs, because a server that cannot
    /// write to its stdout ends.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn start(store: &Path, flags: &[&str]) -> Self {
        Self::try_start(store, flags)
            .unwrap_or_else(|said| panic!("the server does not start: {said}"))
    }

    /// Starts a server. If it does not start, returns its output on stderr as the error.
    pub(crate) fn try_start(store: &Path, flags: &[&str]) -> Result<Self, String> {
        Self::try_spawn(command(store, flags))
    }

    /// Starts a server with this command. If it does not start, returns its output on stderr as the
    /// error.
    pub(crate) fn try_spawn(mut command: Command) -> Result<Self, String> {
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("the stream is piped"));
        let mut greeting = String::new();
        stdout.read_line(&mut greeting).expect("a pipe");
        let Some((_, address)) = greeting.trim_end().rsplit_once("http://") else {
            let ended = child.wait_with_output().expect("the program ends");
            assert_eq!(ended.status.code(), Some(1));
            return Err(String::from_utf8(ended.stderr).expect("UTF-8"));
        };
        Ok(Self { child, address: address.to_owned(), _stdout: stdout })
    }

    /// The number of bytes of physical memory that the server uses now.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_bytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the program runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1_024.0
    }

    /// Kills the server at once, with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the program runs");
        self.child.wait().expect("the program ends");
    }

    /// Ends the server with SIGTERM, which starts a graceful shutdown. Returns the server's output
    /// on stderr.
    pub(crate) fn stop(mut self) -> String {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.expect("the program kill runs").success());
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("the stream is piped");
        stderr.read_to_string(&mut said).expect("UTF-8");
        let status = self.child.wait().expect("the program ends");
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// Runs `downlink health` with these flags. Returns its exit code and its output.
    pub(crate) fn health(&self, flags: &[&str]) -> (Option<i32>, String) {
        let mut health = Command::new(env!("CARGO_BIN_EXE_downlink"));
        health.arg("health").args(flags).arg(format!("http://{}", self.address));
        let ended = health.output().expect("the program starts");
        let said = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8(said).expect("UTF-8"))
    }

    /// Sends one request and returns the answer. In `headers`, each line ends with CRLF.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             {headers}\r\n",
            self.address,
            body.len()
        );
        let mut io = TcpStream::connect(&self.address).await.expect("the server listens");
        let mut answer = String::new();
        patiently(async {
            io.write_all(format!("{head}{body}").as_bytes()).await.expect("the connection is open");
            io.read_to_string(&mut answer).await.expect("an answer");
        })
        .await;
        Answer::parse(&answer)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "", "").await.json()
    }

    pub(crate) async fn post(&self, query: &str, headers: &str, data: &str) -> Answer {
        self.ask("POST", &format!("/events?{query}"), headers, data).await
    }

    /// Publishes an event and returns its id. Panics if the server refuses the event.
    pub(crate) async fn publish(&self, query: &str, data: &str) -> String {
        id_of(&self.post(query, "", data).await)
    }

    /// Publishes a stream of events and does not end the request body. Returns the answer, which
    /// the server must send before the end of the body.
    pub(crate) async fn publish_open(&self, query: &str, event_stream: &str) -> Answer {
        let (host, bytes) = (&self.address, event_stream.len());
        let request = format!(
            "POST /events?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             {bytes:x}\r\n{event_stream}\r\n"
        );
        let mut io = TcpStream::connect(&self.address).await.expect("the server listens");
        let mut answer = String::new();
        patiently(async {
            io.write_all(request.as_bytes()).await.expect("the connection is open");
            io.read_to_string(&mut answer).await.expect("an answer");
        })
        .await;
        Answer::parse(&answer)
    }

    /// Requests a stream over a socket with a small receive buffer, and reads nothing. Returns the
    /// socket.
    pub(crate) async fn unread(&self, query: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("an option of every socket");
        let address = self.address.parse().expect("an address");
        let mut io = socket.connect(address).await.expect("the server listens");
        let host = &self.address;
        let request = format!("GET /events?{query}&open=0 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        io.write_all(request.as_bytes()).await.expect("the connection is open");
        io
    }

    /// Requests a stream without the event `downlink.open`. The server may refuse the request.
    pub(crate) async fn stream(&self, query: &str, last_event_id: &str) -> Stream {
        let mut io = TcpStream::connect(&self.address).await.expect("the server listens");
        let last = match last_event_id {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let host = &self.address;
        let request = format!("GET /events?{query}&open=0 HTTP/1.1\r\nHost: {host}\r\n{last}\r\n");
        io.write_all(request.as_bytes()).await.expect("the connection is open");
        patiently(Stream::begin(io)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that a publish was successful, and returns the id in the answer. The status is 200, or
/// 202 with relaxed durability.
#[track_caller]
pub(crate) fn id_of(answer: &Answer) -> String {
    assert!([200, 202].contains(&answer.status), "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

/// Reads the next `count` events and returns their data. Panics if it gets a gap.
pub(crate) async fn next(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let event = patiently(stream.next()).await;
        let event = event.unwrap_or_else(|| panic!("the stream ends after {events:?}"));
        assert!(!event.event_type.starts_with("downlink."), "after {events:?}: {event:?}");
        events.push(event.data);
    }
    events
}
