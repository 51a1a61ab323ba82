//! `downlink cluster`: creates the hub of a cluster in the engine, checks the engine, and shows the
//! state of the cluster.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use downlink_access::fill_random;
use downlink_cluster::{Base, HubId, HubKey, Snapshot, WriterId};
use downlink_nats::{HubError, Init, JetStream, NewHub, SYNC_TAG, StreamSettings};

use super::output::printed;
use crate::{cluster::ClusterArguments, duration::parse_time, size::parse_bytes};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Create the hub of a new cluster: its stream in NATS JetStream, and the first entry. It changes
    /// nothing if the hub exists.
    Init(InitArguments),
    /// Check that the NATS servers and the hub's stream keep what they acknowledge. The exit code is
    /// 1 if there is something to change.
    Check(EngineArguments),
    /// Show the state of the hub's stream and of the nodes.
    Status(EngineArguments),
}

#[derive(Args, Debug)]
struct EngineArguments {
    #[command(flatten)]
    engine: ClusterArguments,
}

#[derive(Args, Debug)]
struct InitArguments {
    #[command(flatten)]
    engine: ClusterArguments,
    /// The number of NATS servers that keep the events: 1, 3 or 5.
    #[arg(long, value_name = "N", default_value = "3")]
    replicas: usize,
    /// How long the NATS servers keep events. A node without a cache begins with these events, so
    /// it should be at least as long as --retain-age of the nodes.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    keep: Duration,
    /// The maximum size of the events on each NATS server. The oldest events are removed first. By
    /// default, there is no limit.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes::<u64>)]
    bytes_max: Option<u64>,
    /// Put the events only on NATS servers with this tag (server_tags), such as sync:always. May be
    /// given several times.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _log = crate::logs::Log::to_stderr("off", crate::logs::LogFormat::Text)?;
    runtime.block_on(async {
        match &arguments.command {
            Sub::Init(arguments) => init(arguments).await,
            Sub::Check(arguments) => check(&arguments.engine).await,
            Sub::Status(arguments) => status(&arguments.engine).await,
        }
    })
}

/// The stream of the hub, which these commands need.
fn stream(engine: &ClusterArguments) -> anyhow::Result<(String, JetStream)> {
    let stream = engine.stream()?;
    let named = engine.hub().zip(stream).map(|(hub, stream)| (hub.to_owned(), stream));
    named.context("say which cluster: --cluster nats://10.0.0.1,nats://10.0.0.2 --hub NAME")
}

/// The error of a function for operators, with what to do.
fn failed(error: &HubError) -> anyhow::Error {
    anyhow!("{error}: {}", error.advice())
}

async fn init(arguments: &InitArguments) -> anyhow::Result<()> {
    let (name, stream) = stream(&arguments.engine)?;
    let settings = StreamSettings {
        replicas: arguments.replicas,
        age_max: arguments.keep,
        bytes_max: arguments.bytes_max,
        tags: arguments.tag.clone(),
        ..StreamSettings::default()
    };
    let snapshot = Snapshot {
        key: HubKey::from_random(random()?),
        base: Base::NONE,
        epochs: Vec::new(),
        forks: Vec::new(),
    };
    let writer = WriterId(u64::from_le_bytes(random()?));
    let new = NewHub { hub: HubId(random()?), writer, snapshot };
    let made = stream.init(&settings, new).await.map_err(|error| failed(&error))?;
    let mut out = io::stdout().lock();
    let said = match made {
        Init::Existed(_) => format!("the hub {name} exists already, and nothing was changed"),
        _ => format!("the hub {name} is created"),
    };
    printed(writeln!(out, "{said}"))?;
    if arguments.replicas > 1 && !arguments.tag.iter().any(|tag| tag == SYNC_TAG) {
        printed(writeln!(
            out,
            "  the NATS servers must sync each event to the disk (jetstream {{ sync_interval: \
             always }}), or a power cut loses acknowledged events: see downlink cluster check"
        ))?;
    }
    Ok(())
}

async fn check(engine: &ClusterArguments) -> anyhow::Result<()> {
    let (name, stream) = stream(engine)?;
    let warnings = stream.check_stream().await.context("the stream cannot be checked")?;
    let mut out = io::stdout().lock();
    for warning in &warnings {
        printed(writeln!(out, "{warning}"))?;
    }
    if warnings.is_empty() {
        return printed(writeln!(out, "nothing to change at the hub {name}"));
    }
    drop(out);
    Err(anyhow!("{} settings of the hub {name} should be changed", warnings.len()))
}

async fn status(engine: &ClusterArguments) -> anyhow::Result<()> {
    let (name, stream) = stream(engine)?;
    let status = stream.status().await.map_err(|error| failed(&error))?;
    let mut out = io::stdout().lock();
    printed(writeln!(out, "hub {name}: entries {} to {}", status.first, status.last))?;
    if let Some((first, last)) = status.times {
        let (now, first, last) = (status.at.as_millis(), first.as_millis(), last.as_millis());
        let age = |at: u64| now.saturating_sub(at) / 1_000;
        printed(writeln!(
            out,
            "  the oldest is {}s old, the newest {}s; {} bytes",
            age(first),
            age(last),
            status.bytes
        ))?;
    }
    match &status.leader {
        Some(leader) => printed(writeln!(out, "  leader {leader}"))?,
        None => printed(writeln!(out, "  one server without a cluster"))?,
    }
    for follower in &status.followers {
        let state = match (follower.is_offline, follower.is_current) {
            (true, _) => "offline",
            (false, true) => "current",
            (false, false) => "behind",
        };
        printed(writeln!(out, "  follower {} is {state}", follower.name))?;
    }
    Ok(())
}

/// Random bytes of the operating system.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}
