//! NATS servers on addresses of this machine. They end when the test ends.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use downlink_cluster::{EntryName, HubId, Journal as _, JournalError, Position, TailItem};
use downlink_nats::{
    ConnectSettings, HubError, JetStream, JetStreamTail, MonitorUrl, ServerUrl, StreamSettings,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant, interval, timeout},
};

use crate::contract;

/// The stream of all tests.
pub(crate) const STREAM: &str = "hub";
/// The hub of all streams that a test creates without `init`.
pub(crate) const HUB: HubId = HubId([7; 16]);
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
    address: SocketAddr,
    /// The addresses for the routes of the cluster, with the own address first.
    routes: Vec<SocketAddr>,
    /// More lines for the configuration.
    more: String,
    /// The settings of the storage.
    storage: String,
    process: Option<Child>,
}

impl Server {
    /// Starts a server without a cluster.
    pub(crate) async fn start(more: &str) -> Option<Self> {
        let mut server = Self::new(program()?, "one", Vec::new(), more);
        server.run().await;
        Some(server)
    }

    /// Starts a server with these settings of its storage, which answers at its monitoring address.
    pub(crate) async fn start_with_monitor(
        more: &str,
        storage: &str,
    ) -> Option<(Self, MonitorUrl)> {
        let monitor = free_address();
        let more = format!("{more}\nhttp: \"{monitor}\"");
        let mut server = Self::new(program()?, "one", Vec::new(), &more);
        server.storage = storage.into();
        server.run().await;
        Some((server, MonitorUrl::new(&format!("http://{monitor}")).unwrap()))
    }

    /// Starts a server that requires TLS with a certificate of the client. Both sides use the same
    /// certificate: `cert.pem` with `key.pem` in the folder of the server.
    pub(crate) async fn start_with_tls() -> Option<Self> {
        let mut server = Self::new(program()?, "one", Vec::new(), "");
        let mut openssl = Command::new("openssl");
        openssl.args("req -x509 -nodes -days 2 -subj /CN=nats -newkey ec".split(' '));
        openssl.args("-pkeyopt ec_paramgen_curve:P-256 -keyout key.pem -out cert.pem".split(' '));
        openssl.arg("-addext").arg(format!("subjectAltName=IP:{}", server.address.ip()));
        openssl.args("-addext basicConstraints=critical,CA:FALSE".split(' '));
        let made = openssl.current_dir(&server.folder).stderr(Stdio::null()).status().unwrap();
        assert!(made.success(), "{openssl:?}");
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| server.file(name));
        let (cert, key) = (cert.display(), key.display());
        server.more = format!(
            "tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{cert}\", verify: true }}"
        );
        server.run().await;
        Some(server)
    }

    fn new(program: PathBuf, name: &str, routes: Vec<SocketAddr>, more: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("downlink-nats-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let (name, more, address) = (name.to_owned(), more.to_owned(), free_address());
        let storage = "max_file: 64M".into();
        Self { program, folder, name, address, routes, more, storage, process: None }
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
        let Self { name, address, more, storage, .. } = self;
        let store = self.store().display().to_string();
        let mut text = format!(
            "server_name: {name}\nlisten: \"{address}\"\n{more}\n\
             jetstream {{ store_dir: \"{store}\", {storage} }}\n"
        );
        if let [own, others @ ..] = &self.routes[..] {
            let others: Vec<String> =
                others.iter().map(|other| format!("\"nats://{other}\"")).collect();
            let others = others.join(", ");
            writeln!(
                text,
                "cluster {{ name: test, listen: \"{own}\", no_advertise: true, \
                 routes: [{others}] }}"
            )
            .unwrap();
        }
        text
    }

    /// Waits until the server greets a client.
    pub(crate) async fn wait_until_listening(&self) {
        eventually("the server listens", async || {
            let mut socket = TcpStream::connect(self.address).await.ok()?;
            let mut greeting = [0; 4];
            let read = timeout(Duration::from_secs(1), socket.read_exact(&mut greeting)).await;
            read.ok()?.ok()?;
            (&greeting == b"INFO").then_some(())
        })
        .await;
    }

    /// The path of a file in the folder of the server.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    pub(crate) fn url(&self) -> ServerUrl {
        ServerUrl::new(&self.address.to_string()).unwrap()
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
    start_three_with(all_routes(), |_| {}).await
}

/// Starts three servers of a cluster that write each entry to the disk at once, and say so.
pub(crate) async fn start_three_synced() -> Option<([Server; 3], Vec<MonitorUrl>)> {
    let mut monitors = Vec::new();
    let servers = start_three_with(all_routes(), |server| {
        let monitor = free_address();
        monitors.push(MonitorUrl::new(&format!("http://{monitor}")).unwrap());
        server.more = format!("server_tags: [\"sync:always\"]\nhttp: \"{monitor}\"");
        server.storage = "max_file: 64M, sync_interval: always".into();
    });
    let servers = servers.await?;
    Some((servers, monitors))
}

/// The addresses for the routes of three servers, the own address first.
fn all_routes() -> [Vec<SocketAddr>; 3] {
    let addresses = [(); 3].map(|()| free_address());
    [0, 1, 2].map(|number| {
        let mut routes = addresses.to_vec();
        routes.rotate_left(number);
        routes
    })
}

/// Starts three servers of a cluster with these addresses for the routes, the own address first.
pub(crate) async fn start_three_with(
    routes: [Vec<SocketAddr>; 3],
    configure: impl FnMut(&mut Server),
) -> Option<[Server; 3]> {
    let program = program()?;
    let [a, b, c] = routes;
    let mut servers = [("a", a), ("b", b), ("c", c)]
        .map(|(name, routes)| Server::new(program.clone(), name, routes, ""));
    servers.iter_mut().for_each(configure);
    servers.iter_mut().for_each(Server::spawn);
    for server in &servers {
        server.wait_until_listening().await;
    }
    Some(servers)
}

/// An address whose port was free a moment ago. On Linux, all addresses of 127.0.0.0/8 belong to
/// this machine. So each server gets an address of its own there, and no other socket takes the
/// port.
pub(crate) fn free_address() -> SocketAddr {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) as u8;
    let ip = match cfg!(target_os = "linux") {
        true => {
            let [.., high, low] = std::process::id().to_be_bytes();
            Ipv4Addr::new(127, high, low, number.max(1))
        }
        false => Ipv4Addr::LOCALHOST,
    };
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
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

/// The next item of a tail.
pub(crate) async fn next(tail: &mut JetStreamTail) -> Result<TailItem, JournalError> {
    timeout(PATIENCE, contract::next(tail)).await.expect("the tail neither yields nor fails")
}

/// Checks the contract of a journal.
pub(crate) async fn check_contract(journals: [JetStream; 2]) {
    timeout(PATIENCE, contract::check(journals)).await.expect("the contract is checked in time");
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
    eventually("the stream is created", async || {
        match journal.create_stream(settings, HUB).await {
            // An earlier attempt without an answer may have created the stream.
            Ok(()) | Err(HubError::Exists) => Some(()),
            Err(_) => None,
        }
    })
    .await;
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

/// Sends a request to the API of JetStream, over a connection of its own.
pub(crate) async fn request(server: &Server, subject: &str, body: Value) -> Value {
    let client = async_nats::connect(server.address.to_string()).await.unwrap();
    let subject = format!("$JS.API.{subject}");
    let answer = client.request(subject, body.to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Deletes the stream.
pub(crate) async fn delete_stream(server: &Server) {
    let answer = request(server, &format!("STREAM.DELETE.{STREAM}"), json!({})).await;
    assert_eq!(answer["success"], true, "{answer}");
}
