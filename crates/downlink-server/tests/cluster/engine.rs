//! The engine of a cluster: NATS servers on addresses of this machine. The routes between them are
//! links that the test can cut.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{eventually, link::Link};

/// The path of `nats-server`. If the environment does not set it, prints that the test is skipped.
pub(crate) fn program() -> Option<PathBuf> {
    let program = std::env::var_os("DOWNLINK_NATS_SERVER").map(PathBuf::from);
    if program.is_none() {
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{test}: skipped: DOWNLINK_NATS_SERVER is not set");
    }
    program
}

/// A NATS server with its data.
pub(crate) struct Server {
    program: PathBuf,
    folder: PathBuf,
    name: String,
    /// The address for clients.
    pub(crate) address: SocketAddr,
    /// The address of the server's HTTP interface, which describes its state.
    monitor: SocketAddr,
    configuration: String,
    process: Option<Child>,
}

impl Server {
    /// Makes a server that does not run yet. `storage` is the maximum size of its data. `routes`
    /// has the addresses of the server and of the other servers. Without `routes`, the server is
    /// alone.
    fn new(program: PathBuf, name: &str, storage: &str, routes: Option<&Routes>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("downlink-engine-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let (address, monitor) = (free_address(), free_address());
        let store = folder.join("store").display().to_string();
        let mut configuration = format!(
            "server_name: {name}\nserver_tags: [\"sync:always\"]\nlisten: \"{address}\"\n\
             http: \"{monitor}\"\n\
             jetstream {{ store_dir: \"{store}\", max_file: {storage}, sync_interval: always }}\n"
        );
        if let Some(Routes { own, others }) = routes {
            let others = others.map(|other| format!("\"nats://{other}\"")).join(", ");
            configuration += &format!(
                "cluster {{ name: test, listen: \"{own}\", no_advertise: true, \
                 routes: [{others}] }}\n"
            );
        }
        let name = name.to_owned();
        Self { program, folder, name, address, monitor, configuration, process: None }
    }

    /// Starts the process, and waits until it accepts connections.
    pub(crate) async fn run(&mut self) {
        self.spawn();
        self.wait_until_listening().await;
    }

    pub(crate) fn spawn(&mut self) {
        let path = self.folder.join("nats.conf");
        fs::write(&path, &self.configuration).unwrap();
        let log = self.folder.join("nats.log");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
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

    fn store(&self) -> PathBuf {
        self.folder.join("store")
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

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Ends the process with SIGTERM, so that the server shuts down in order.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
    }

    /// Copies the data. Meanwhile the process is paused, so a power cut at this moment would leave
    /// the same data on the disk.
    pub(crate) async fn save(&self) {
        self.pause();
        let (from, to) = (self.store(), self.folder.join("saved"));
        tokio::task::spawn_blocking(move || replace(&from, &to)).await.unwrap();
        self.resume();
    }

    /// Replaces the data by the copy. The server must not run.
    pub(crate) async fn restore(&self) {
        let (from, to) = (self.folder.join("saved"), self.store());
        tokio::task::spawn_blocking(move || replace(&from, &to)).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the folder of the NATS server {}: {}", self.name, self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The address at which a server listens for the other two servers, and the addresses of the links
/// through which it reaches them.
struct Routes {
    own: SocketAddr,
    others: [SocketAddr; 2],
}

/// The engine: three NATS servers that together keep the data, or a single server.
pub(crate) struct Engine {
    pub(crate) servers: Vec<Server>,
    /// Each of these links connects two servers: `routes[n]` connects the two servers other than
    /// `n`.
    pub(crate) routes: [Link; 3],
    monitor: reqwest::Client,
}

impl Engine {
    /// Starts three servers. `None` if `nats-server` is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let mut engine = Self::three().await?;
        engine.spawn_all();
        for server in &engine.servers {
            server.wait_until_listening().await;
        }
        Some(engine)
    }

    /// Makes three servers that do not run yet.
    pub(crate) async fn three() -> Option<Self> {
        let program = program()?;
        let own = [(); 3].map(|()| free_address());
        let routes = [(); 3].map(|()| Link::new());
        let mut servers = Vec::new();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            let [next, last] = [(number + 1) % 3, (number + 2) % 3];
            let others =
                [routes[last].listen(own[next]).await, routes[next].listen(own[last]).await];
            let of_server = Routes { own: own[number], others };
            servers.push(Server::new(program.clone(), name, "1G", Some(&of_server)));
        }
        let monitor = reqwest::Client::builder().no_proxy().build().unwrap();
        Some(Self { servers, routes, monitor })
    }

    /// Starts a single server. Its data has at most this size.
    pub(crate) async fn one(storage: &str) -> Option<Self> {
        let mut server = Server::new(program()?, "one", storage, None);
        server.run().await;
        let monitor = reqwest::Client::builder().no_proxy().build().unwrap();
        Some(Self { servers: vec![server], routes: [(); 3].map(|()| Link::new()), monitor })
    }

    pub(crate) fn spawn_all(&mut self) {
        self.servers.iter_mut().for_each(Server::spawn);
    }

    pub(crate) fn kill_all(&mut self) {
        self.servers.iter_mut().for_each(Server::kill);
    }

    /// The links between this server and the others.
    pub(crate) fn routes_of(&self, server: usize) -> [Link; 2] {
        [self.routes[(server + 1) % 3].clone(), self.routes[(server + 2) % 3].clone()]
    }

    /// The server that leads the stream of the hub.
    pub(crate) async fn leader(&self, hub: &str) -> usize {
        eventually("the stream has a leader", async || self.try_leader(hub).await).await
    }

    /// The server that leads the stream of the hub, if it is known at once.
    pub(crate) async fn try_leader(&self, hub: &str) -> Option<usize> {
        let stream = format!("downlink-{hub}");
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let url = format!("http://{}/jsz?accounts=true&streams=true", server.monitor);
            let sent = self.monitor.get(url).timeout(Duration::from_secs(1)).send().await;
            let Ok(response) = sent else { continue };
            let Ok(text) = response.text().await else { continue };
            let Ok(said) = serde_json::from_str::<Value>(&text) else { continue };
            let accounts = said["account_details"].as_array().cloned().unwrap_or_default();
            let streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array());
            let found = streams.flatten().find(|found| found["name"] == stream.as_str());
            let leader = found.and_then(|found| found["cluster"]["leader"].as_str());
            if let Some(leader) = leader {
                return self.servers.iter().position(|server| server.name == leader);
            }
        }
        None
    }
}

/// An address whose port was free a moment ago. On Linux, all addresses of 127.0.0.0/8 are
/// addresses of this machine. There, almost every call returns another IP address, so no other
/// socket takes the port.
fn free_address() -> SocketAddr {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let ip = match cfg!(target_os = "linux") {
        true => {
            let [.., low] = std::process::id().to_be_bytes();
            let [.., middle, last] = number.to_be_bytes();
            Ipv4Addr::new(127, 128 | low, middle, last.max(1))
        }
        false => Ipv4Addr::LOCALHOST,
    };
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// Makes the folder `to` a copy of the folder `from`.
fn replace(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    copy(from, to);
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
