//! The nodes of a cluster. Each node has its own links to the NATS servers. A link carries
//! connections, and the test can cut it.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    engine::Engine,
    eventually,
    link::{Flow, Link},
    node::{Kept, Node, Site},
};

/// A hub with its engine (the NATS servers) and its nodes. The values are dropped in this order:
/// first the nodes, then their folder, then the engine.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// The links of each node to the servers.
    pub(crate) links: Vec<Vec<Link>>,
    pub(crate) site: Site,
    pub(crate) engine: Engine,
    pub(crate) hub: String,
}

impl Cluster {
    /// Makes a new hub in a new engine, with nodes that are ready. `None` if there is no
    /// `nats-server`.
    pub(crate) async fn start(name: &str, kept: &[Kept], flags: &[&str]) -> Option<Self> {
        Some(Self::start_in(Engine::start().await?, name, kept, flags).await)
    }

    /// Makes a new hub in this engine, with nodes that are ready.
    pub(crate) async fn start_in(
        engine: Engine,
        name: &str,
        kept: &[Kept],
        flags: &[&str],
    ) -> Self {
        let mut cluster = Self::new(engine, name, kept, flags).await;
        cluster.init().await;
        for node in &mut cluster.nodes {
            node.start().await;
        }
        cluster.become_ready().await;
        cluster
    }

    /// Makes the nodes of a hub that does not exist yet. They do not run yet.
    pub(crate) async fn new(engine: Engine, name: &str, kept: &[Kept], flags: &[&str]) -> Self {
        let site = Site::new(name);
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for (number, kept) in kept.iter().enumerate() {
            let (mut of_node, mut urls) = (Vec::new(), Vec::new());
            for server in &engine.servers {
                let link = Link::new();
                urls.push(format!("nats://{}", link.listen(server.address).await));
                of_node.push(link);
            }
            // Each node tries a different server first.
            let servers = urls.len();
            urls.rotate_left(number % servers);
            let urls = urls.join(",");
            let join = ["--cluster", &urls, "--hub", name];
            let node_name = format!("node-{number}");
            nodes.push(site.node(&node_name, *kept, &[&join, flags].concat()));
            links.push(of_node);
        }
        Self { nodes, links, site, engine, hub: name.to_owned() }
    }

    /// Creates the hub in the engine, as an operator does.
    pub(crate) async fn init(&self) {
        let servers = self.engine.servers.len();
        self.init_with(&["--replicas", &servers.to_string(), "--tag", "sync:always"]).await;
    }

    pub(crate) async fn init_with(&self, flags: &[&str]) {
        eventually("the hub is created", async || {
            let (has_ended, said) = self.command("init", flags).await;
            if !has_ended {
                eprintln!("downlink cluster init: {said}");
            }
            has_ended.then_some(())
        })
        .await;
    }

    /// Runs `downlink cluster` as an operator. Returns whether it succeeded, and its output.
    pub(crate) async fn command(&self, command: &str, flags: &[&str]) -> (bool, String) {
        let urls: Vec<String> =
            self.engine.servers.iter().map(|server| format!("nats://{}", server.address)).collect();
        let mut program = Command::new(env!("CARGO_BIN_EXE_downlink"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOWNLINK_") {
                program.env_remove(name);
            }
        }
        program.args(["cluster", command, "--cluster", &urls.join(","), "--hub", &self.hub]);
        program.args(flags).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// Waits until each node has everything that the engine has, and takes publishes.
    pub(crate) async fn become_ready(&self) {
        for node in &self.nodes {
            node.becomes_ready().await;
            self.takes_publishes(node).await;
        }
    }

    async fn takes_publishes(&self, node: &Node) {
        eventually("the node takes publishes", async || {
            let metrics = timeout(Duration::from_secs(5), node.get("/metrics")).await.ok()?;
            metrics.body.contains("\ndownlink_cluster_takes_publishes 1").then_some(())
        })
        .await;
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Opens all links: those of the nodes, and those between the servers.
    pub(crate) fn open_links(&self) {
        self.links
            .iter()
            .flatten()
            .chain(&self.engine.routes)
            .for_each(|link| link.set(Flow::Open));
    }

    /// Ends the nodes. Returns the engine, in which a test can make another hub.
    pub(crate) fn into_engine(self) -> Engine {
        self.engine
    }

    /// The cluster metrics of all nodes, as text for the message of a failed test.
    pub(crate) async fn metrics(&self) -> String {
        let mut all = String::new();
        for node in &self.nodes {
            let metrics = node.get("/metrics").await.body;
            let of_cluster = metrics.lines().filter(|line| line.starts_with("downlink_cluster_"));
            all += &format!("{}: {:?}\n", node.name, of_cluster.collect::<Vec<_>>());
        }
        all
    }

    /// The newest lines of the logs of all nodes.
    pub(crate) fn logs(&self) -> String {
        let tail = |node: &Node| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(60);
            format!("--- {}\n{}\n", node.name, lines[from..].join("\n"))
        };
        self.nodes.iter().map(tail).collect()
    }
}
