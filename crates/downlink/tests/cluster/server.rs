//! A NATS server with the hub of a cluster. It ends when the test ends.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use downlink_cluster::{Base, HubId, HubKey, Snapshot, WriterId};
use downlink_nats::{ConnectSettings, JetStream, NewHub, ServerUrl, StreamSettings, stream_of};

use crate::patiently;

pub(crate) struct Server {
    folder: PathBuf,
    address: SocketAddr,
    process: Child,
}

impl Server {
    /// Starts a server, and creates a hub. `None` if the path of the program is not set.
    pub(crate) async fn start() -> Option<Self> {
        static NUMBER: AtomicU8 = AtomicU8::new(1);
        let Some(program) = std::env::var_os("DOWNLINK_NATS_SERVER") else {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            eprintln!("{test}: skipped: DOWNLINK_NATS_SERVER is not set");
            return None;
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("downlink-hub-cluster-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        // Each server has an address of its own, so no other socket takes the port.
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = match cfg!(target_os = "linux") {
            true => Ipv4Addr::new(127, high, low, number),
            false => Ipv4Addr::LOCALHOST,
        };
        let address = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let settings = format!(
            "listen: \"{address}\"\njetstream {{ store_dir: \"{}\", max_file: 64M }}\n",
            folder.display()
        );
        let file = folder.join("nats.conf");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(file).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { folder, address, process: command.spawn().unwrap() };
        server.create_hub().await;
        Some(server)
    }

    async fn create_hub(&self) {
        let key = HubKey::from_random([7; 16]);
        let (epochs, forks) = (Vec::new(), Vec::new());
        let snapshot = Snapshot { key, base: Base::NONE, epochs, forks };
        let new = NewHub { hub: HubId([3; 16]), writer: WriterId(5), snapshot };
        let settings = StreamSettings { replicas: 1, ..StreamSettings::default() };
        let journal = self.journal();
        patiently(async {
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            while journal.init(&settings, new.clone()).await.is_err() {
                pause.tick().await;
            }
        })
        .await;
    }

    /// The journal of the hub: the list of the entries of all nodes.
    pub(crate) fn journal(&self) -> JetStream {
        let servers = vec![ServerUrl::new(&self.address.to_string()).unwrap()];
        let settings = ConnectSettings { servers, ..ConnectSettings::default() };
        JetStream::new(settings, &stream_of("main").unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
