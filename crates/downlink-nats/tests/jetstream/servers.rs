//! NATS servers on addresses of this machine. They end when the test ends.

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use downlink_cluster::{EntryName, Journal as _, JournalError, Position};
use downlink_nats::{ConnectSettings, JetStream, ServerUrl, StreamSettings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant, interval, timeout},
};

/// The stream of all tests.
pub(crate) const STREAM: &str = "hub";
/// The maximum wait for something that usually takes less than ten seconds, such as an election.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The path of `nats-server`. If it is not set, prints that the test is skipped.
pub(crate) fn program() -> Option<PathBuf> {
    let program = std::env::var_os("DOWNLINK_NATS_SERVER").map(PathBuf::from);
    if program.is_none() {
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{test}: skipped: DOWNLINK_NATS_SERVER is not set");
    }
    program
}

/// A server with its data.
pub(crate) struct Server {
    program: PathBuf,
    folder: PathBuf,
    name: String,
    port: u16,
    /// The ports for the routes of the cluster, with the own port first.
    routes: Vec<u16>,
    /// More lines for the configuration.
    more: String,
    process: Option<Child>,
}

impl Server {
    /// Starts a server without a cluster.
    pub(crate) async fn start(more: &str) -> Option<Self> {
        let mut server = Self::new(program()?, "one", Vec::new(), more);
        server.run().await;
        Some(server)
    }

    fn new(program: PathBuf, name: &str, routes: Vec<u16>, more: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("downlink-nats-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let (name, more, port) = (name.to_owned(), more.to_owned(), free_port());
        Self { program, folder, name, port, routes, more, process: None }
    }

    /// Starts the process, and waits until it accepts connections.
    pub(crate) async fn run(&mut self) {
        self.spawn();
        self.wait_until_listening().await;
    }

    pub(crate) fn spawn(&mut self) {
        let path = self.folder.join("nats.conf");
        fs::write(&path, self.configuration()).unwrap();
        let log = self.folder.join("nats.log");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    fn configuration(&self) -> String {
        let Self { name, port, more, .. } = self;
        let store = self.store().display().to_string();
        let mut text = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n{more}\n\
             jetstream {{ store_dir: \"{store}\", max_file: 64M }}\n"
        );
        if let [own, others @ ..] = &self.routes[..] {
            let others: Vec<String> =
                others.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            let others = others.join(", ");
            writeln!(
                text,
                "cluster {{ name: test, listen: \"127.0.0.1:{own}\", no_advertise: true, \
                 routes: [{others}] }}"
            )
            .unwrap();
        }
        text
    }

    /// Waits until the server greets a client.
    pub(crate) async fn wait_until_listening(&self) {
        eventually("the server listens", async || {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let mut greeting = [0; 4];
            let read = timeout(Duration::from_secs(1), socket.read_exact(&mut greeting)).await;
            read.ok()?.ok()?;
            (&greeting == b"INFO").then_some(())
        })
        .await;
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    pub(crate) fn url(&self) -> ServerUrl {
        ServerUrl::new(&format!("nats://127.0.0.1:{}", self.port)).unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.process.as_ref().unwrap()), signal).unwrap();
    }

    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Ends the process in order.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.process.take().unwrap().wait().unwrap();
    }

    /// Copies the data of the stopped server.
    pub(crate) fn save(&self) {
        copy(&self.store(), &self.folder.join("saved"));
    }

    /// Puts the copy back.
    pub(crate) fn restore(&self) {
        fs::remove_dir_all(self.store()).unwrap();
        copy(&self.folder.join("saved"), &self.store());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of the server: {}", self.folder.join("nats.log").display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Starts three servers of a cluster.
pub(crate) async fn start_three() -> Option<[Server; 3]> {
    let program = program()?;
    let ports = [(); 3].map(|()| free_port());
    let mut number = 0;
    let mut servers = ["a", "b", "c"].map(|name| {
        let mut routes = ports.to_vec();
        routes.rotate_left(number);
        number += 1;
        Server::new(program.clone(), name, routes, "")
    });
    servers.iter_mut().for_each(Server::spawn);
    for server in &servers {
        server.wait_until_listening().await;
    }
    Some(servers)
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = interval(Duration::from_millis(50));
    loop {
        pause.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
    }
}

/// A journal that connects to these servers in turn.
pub(crate) fn journal(servers: &[Server]) -> JetStream {
    let servers = servers.iter().map(Server::url).collect();
    JetStream::new(ConnectSettings { servers, ..ConnectSettings::default() }, STREAM).unwrap()
}

/// The settings of a stream without a limit that a test would reach.
pub(crate) fn replicas(replicas: usize) -> StreamSettings {
    StreamSettings { replicas, ..StreamSettings::default() }
}

/// A journal in a new stream. A new cluster refuses streams until it has a leader.
pub(crate) async fn create(servers: &[Server], settings: &StreamSettings) -> JetStream {
    let mut journal = journal(servers);
    eventually("the stream is created", async || journal.create_stream(settings).await.ok()).await;
    eventually("the stream has a leader", async || journal.open().await.ok()).await;
    journal
}

/// Appends an entry, and repeats it until the engine has answered.
pub(crate) async fn append(journal: &mut JetStream, name: EntryName) -> Position {
    eventually("the entry is appended", async || {
        match journal.append(name, name.to_string().into_bytes(), None).await {
            Ok(position) => Some(position),
            Err(JournalError::Unavailable) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await
}

/// Sends a request to the API of JetStream that a journal never sends.
pub(crate) async fn request(server: &Server, subject: &str, body: Value) -> Value {
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
    let subject = format!("$JS.API.{subject}");
    let answer = client.request(subject, body.to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Deletes the stream.
pub(crate) async fn delete_stream(server: &Server) {
    let answer = request(server, &format!("STREAM.DELETE.{STREAM}"), json!({})).await;
    assert_eq!(answer["success"], true, "{answer}");
}
