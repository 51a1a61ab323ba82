//! Runs the files of `deploy/cluster`: three NATS servers, and three nodes behind a real HAProxy, on
//! addresses of this machine. A node and the NATS server that leads the stream are killed while
//! readers are connected and events are published.
//!
//! Each reader has to print each event once and in order.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::browser;
use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::Outcome;
use crate::trial::{self, NODES, Trial};
use crate::workspace::Workspace;

/// The users of the NATS servers. `nats.conf` has a place for the password of each.
const USERS: [&str; 3] = ["node", "operator", "route"];

/// The step of `ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = trial::tools() {
        return Ok(Outcome::Skipped(why));
    }
    let engine = match setup::nats_server(workspace) {
        Ok(engine) => engine,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    browser::build(workspace)?;
    let mut trial = ClusterTrial::prepare(workspace, engine)?;
    for (name, _) in NODES {
        trial.start_engine(name)?;
    }
    trial.init()?;
    for (name, _) in NODES {
        trial.trial.start(name)?;
    }
    trial.trial.await_ready()?;
    trial.trial.start_proxy_and_readers()?;
    trial.publish_and_await(1)?;
    trial.lose_a_node()?;
    trial.lose_the_leader()?;
    Ok(Outcome::Passed)
}

/// The trial, with the program and the addresses of the NATS servers.
struct ClusterTrial {
    trial: Trial,
    /// The program of NATS.
    engine: PathBuf,
    /// The flags with the addresses of the NATS servers and the name of the hub.
    cluster: [String; 4],
}

impl ClusterTrial {
    /// Writes the keys, the passwords and the settings.
    fn prepare(workspace: &Workspace, engine: PathBuf) -> anyhow::Result<Self> {
        let trial = Trial::new(workspace, "cluster")?;
        for key in ["publish.key", "admin.key"] {
            trial.run(&["key", "new", key])?;
        }
        let (client, route, monitor) =
            (trial::free_port()?, trial::free_port()?, trial::free_port()?);
        let ports = |text: String| {
            let text = text.replace(":4222", &format!(":{client}"));
            text.replace(":6222", &format!(":{route}")).replace(":8222", &format!(":{monitor}"))
        };
        let mut nats = ports(trial.localized("nats.conf")?);
        for user in USERS {
            let file = format!("nats-{user}.password");
            trial.run(&["key", "new", &file])?;
            let password = fs::read_to_string(trial.folder.join(&file)).context(file)?;
            let place = format!("{}-PASSWORD", user.to_uppercase());
            ensure!(nats.contains(&place), "nats.conf has no {place}");
            nats = nats.replace(&place, password.trim());
        }
        let node = ports(trial.localized("node.toml")?);
        let node = node.replace("\"nats.password\"", "\"nats-node.password\"");
        for (name, number) in NODES {
            let text = nats.replace("server_name: a", &format!("server_name: {name}"));
            let text = ["listen", "http"].iter().fold(text, |text, setting| {
                let address = |number| format!("{setting}: \"127.0.0.{number}:");
                text.replace(&address(1), &address(number))
            });
            trial.write(
                &format!("nats-{name}.conf"),
                &text.replace("/var/lib/nats", &format!("nats-{name}")),
            )?;
            let text = node.replace("node = \"a\"", &format!("node = \"{name}\""));
            trial.write_node((name, number), &text)?;
        }
        trial.write_proxy()?;
        let servers = NODES.map(|(_, number)| format!("nats://127.0.0.{number}:{client}"));
        let cluster =
            ["--cluster".to_owned(), servers.join(","), "--hub".to_owned(), "main".to_owned()];
        Ok(Self { trial, engine, cluster })
    }

    fn start_engine(&mut self, name: &str) -> anyhow::Result<()> {
        let words = ["--config", &format!("nats-{name}.conf")];
        self.trial.start_program(&format!("nats-{name}"), self.engine.clone(), &words)
    }

    /// The words of a command of `downlink cluster`, as this user of the NATS servers.
    fn words<'a>(&'a self, command: &'a str, user: &'a str, password: &'a str) -> Vec<&'a str> {
        let cluster = self.cluster.iter().map(String::as_str);
        let user = ["--cluster-user", user, "--cluster-password-file", password];
        ["cluster", command].into_iter().chain(cluster).chain(user).collect()
    }

    /// Makes the hub. The settings have nothing that `downlink cluster check` would change.
    fn init(&self) -> anyhow::Result<()> {
        let mut words = self.words("init", "operator", "nats-operator.password");
        words.extend(["--tag", "sync:always", "--bytes-max", "1GB"]);
        self.trial.run(&words)?;
        self.trial.run(&self.words("check", "node", "nats-node.password"))
    }

    /// The NATS server that leads the stream.
    fn leader(&self) -> anyhow::Result<String> {
        let words = self.words("status", "node", "nats-node.password");
        let trial = &self.trial;
        let said = command::output(&mut command(&trial.folder, &trial.program, &words))?;
        let leader = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("NATS server ")?.strip_suffix(" leads"));
        Ok(leader.with_context(|| format!("no leader in:\n{said}"))?.to_owned())
    }

    fn publish_and_await(&self, event: u32) -> anyhow::Result<()> {
        self.trial.publish(event)?;
        self.trial.await_event(event)
    }

    fn lose_a_node(&mut self) -> anyhow::Result<()> {
        self.trial.kill("b")?;
        self.publish_and_await(2)?;
        self.trial.start("b")?;
        self.trial.await_ready()?;
        self.publish_and_await(3)
    }

    fn lose_the_leader(&mut self) -> anyhow::Result<()> {
        let leader = self.leader()?;
        self.trial.kill(&format!("nats-{leader}"))?;
        // The publish waits until the other two servers have elected a leader.
        self.publish_and_await(4)?;
        self.start_engine(&leader)?;
        self.trial.await_ready()?;
        self.publish_and_await(5)
    }
}
