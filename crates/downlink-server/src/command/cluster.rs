//! `downlink cluster`: creates the hub of a cluster in the engine, checks the engine, and shows the
//! state of the cluster. The engine is the NATS servers, which keep the events of the hub as
//! entries of a stream. A control is a part of an entry that is for the nodes, such as a heartbeat.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use downlink::hub::{Hub, HubStore, Timestamp};
use downlink_access::fill_random;
use downlink_cluster::{
    Base, Control, Entry, Heartbeat, HubId, HubKey, Journal as _, NODE_AWAY_AFTER, Position,
    RawEntry, Snapshot, WriterId,
};
use downlink_nats::{
    Finding, HubError, Init, JetStream, MonitorUrl, NewHub, SYNC_TAG, Severity, StreamSettings,
};

use super::output::{printed, shown};
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
    Check(CheckArguments),
    /// Show the state of the hub's stream and of the nodes.
    Status(EngineArguments),
}

#[derive(Args, Debug)]
struct EngineArguments {
    #[command(flatten)]
    engine: ClusterArguments,
}

#[derive(Args, Debug)]
struct CheckArguments {
    #[command(flatten)]
    engine: ClusterArguments,
    /// The monitoring addresses of the NATS servers, such as http://10.0.0.1:8222, separated by
    /// commas. With them, the command also checks whether each server syncs every event to the disk.
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = parse_monitor)]
    monitor: Vec<MonitorUrl>,
}

fn parse_monitor(text: &str) -> Result<MonitorUrl, String> {
    MonitorUrl::new(text).map_err(|error| error.to_string())
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
    /// Grow from a single server: its store. The server must not run. The command writes its events
    /// to a new file, which ends with .cluster: start the nodes with copies of this file as --store,
    /// so that they have the events under their old ids.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _log = crate::logs::Log::to_stderr("off", crate::logs::LogFormat::Text)?;
    runtime.block_on(async {
        match &arguments.command {
            Sub::Init(arguments) => init(arguments).await,
            Sub::Check(arguments) => check(arguments).await,
            Sub::Status(arguments) => status(arguments).await,
        }
    })
}

/// The stream of the hub, which these commands need.
fn stream(engine: &ClusterArguments) -> anyhow::Result<(String, JetStream)> {
    let stream = engine.stream()?;
    let named = engine.hub().zip(stream).map(|(hub, stream)| (hub.to_owned(), stream));
    named.context("say which cluster: --cluster nats://10.0.0.1,nats://10.0.0.2 --hub NAME")
}

/// The error, with advice for the operator.
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
    let (snapshot, cache) = match &arguments.from {
        Some(store) => {
            let (snapshot, cache) = grow(&stream, store).await?;
            (snapshot, Some(cache))
        }
        None => {
            let key = HubKey::from_random(random()?);
            let (epochs, forks) = (Vec::new(), Vec::new());
            (Snapshot { key, base: Base::NONE, epochs, forks }, None)
        }
    };
    let writer = WriterId(u64::from_le_bytes(random()?));
    let new = NewHub { hub: HubId(random()?), writer, snapshot };
    let made = stream.init(&settings, new).await.map_err(|error| failed(&error))?;
    if let (Some(cache), Init::Existed(_)) = (&cache, &made) {
        bail!(
            "another command has just created the hub: remove {}, which does not belong to it",
            cache.display()
        );
    }
    let mut out = io::stdout().lock();
    let said = match made {
        Init::Existed(_) => format!("the hub {name} exists already, and nothing was changed"),
        _ => format!("the hub {name} is created"),
    };
    printed(writeln!(out, "{said}"))?;
    if let Some(cache) = cache {
        let cache = cache.display();
        printed(writeln!(out, "  start each node with a copy of {cache} as its --store"))?;
    }
    if arguments.replicas > 1 && !arguments.tag.iter().any(|tag| tag == SYNC_TAG) {
        printed(writeln!(
            out,
            "  the NATS servers must sync each event to the disk (jetstream {{ sync_interval: \
             always }}), or a power cut loses acknowledged events: see downlink cluster check"
        ))?;
    }
    Ok(())
}

/// Copies the events of a single server to a new cache. Returns the path of the cache, and the
/// snapshot from which the nodes learn about these events.
async fn grow(stream: &JetStream, store: &Path) -> anyhow::Result<(Snapshot, PathBuf)> {
    match stream.hub().await {
        Ok(_) => bail!("the hub exists already, so it cannot grow from {}", store.display()),
        Err(HubError::NoStream { .. }) => {}
        Err(error) => return Err(failed(&error)),
    }
    if !store.exists() {
        bail!("there is no store {}", store.display());
    }
    let cache = PathBuf::from(format!("{}.cluster", store.display()));
    if cache.exists() {
        bail!("{} exists already: remove it, and run the command again", cache.display());
    }
    let files = (HubStore::from(store), HubStore::from(&cache));
    let made = tokio::task::spawn_blocking(move || {
        downlink::cluster::grow(files.0, files.1, || Hub::<String>::builder().text())
    });
    let snapshot = made.await?.context("the events cannot be copied")?;
    let written = std::fs::File::open(&cache).and_then(|file| file.sync_all());
    written.with_context(|| format!("cannot write {}", cache.display()))?;
    Ok((snapshot, cache))
}

async fn check(arguments: &CheckArguments) -> anyhow::Result<()> {
    let (name, stream) = stream(&arguments.engine)?;
    let findings = stream.check(&arguments.monitor).await.map_err(|error| failed(&error))?;
    let mut out = io::stdout().lock();
    for Finding { severity, text, advice, .. } in &findings {
        let severity = if *severity == Severity::Error { "error" } else { "warning" };
        printed(writeln!(out, "{severity}: {}\n  {advice}", shown(text)))?;
    }
    if findings.is_empty() {
        return printed(writeln!(out, "nothing to change at the hub {name}"));
    }
    drop(out);
    Err(anyhow!("{} things should be changed at the hub {name}", findings.len()))
}

async fn status(arguments: &EngineArguments) -> anyhow::Result<()> {
    let (name, mut stream) = stream(&arguments.engine)?;
    let status = stream.status().await.map_err(|error| failed(&error))?;
    let mut out = io::stdout().lock();
    printed(writeln!(out, "hub {name}: entries {} to {}", status.first, status.last))?;
    if let Some((first, last)) = status.times {
        let (now, first, last) = (status.at.as_millis(), first.as_millis(), last.as_millis());
        let age = |at: u64| short(Duration::from_secs(now.saturating_sub(at) / 1_000));
        let (first, last, bytes) = (age(first), age(last), status.bytes);
        printed(writeln!(out, "  the oldest is {first} old, the newest {last}; {bytes} bytes"))?;
    }
    match &status.leader {
        Some(leader) => printed(writeln!(out, "  NATS server {} leads", shown(leader)))?,
        None => printed(writeln!(out, "  one NATS server without a cluster"))?,
    }
    for follower in &status.followers {
        let state = match (follower.is_offline, follower.is_current) {
            (true, _) => "is offline",
            (false, true) => "has everything",
            (false, false) => "is behind",
        };
        printed(writeln!(out, "  NATS server {} {state}", shown(&follower.name)))?;
    }
    // `open` remembers which stream this is, and a later read fails if it is another stream.
    stream.open().await.context("the stream cannot be opened")?;
    let heartbeats = heartbeats(&mut stream, status.last, status.at).await?;
    if heartbeats.is_empty() {
        return printed(writeln!(out, "no node is running"));
    }
    for Seen { heartbeat, position, fork } in heartbeats.values() {
        let Heartbeat { node, applied, has_cache, .. } = heartbeat;
        let cache = if *has_cache { "with a cache" } else { "in memory" };
        // Names come from other programs.
        let (node, of) = (shown(node), position.previous());
        printed(writeln!(out, "node {node} has applied entry {applied} of {of}, {cache}"))?;
        if let Some(fork) = fork {
            printed(writeln!(out, "  it has found a loss of the engine after entry {fork}"))?;
        }
    }
    Ok(())
}

/// The newest heartbeat of a node.
struct Seen {
    heartbeat: Heartbeat,
    position: Position,
    /// The last position before a loss of the engine, if the node has reported one. A node reports
    /// a loss in an entry that also has its heartbeat.
    fork: Option<Position>,
}

/// The newest heartbeats, by the names of the nodes. `now` is the time of the engine.
async fn heartbeats(
    stream: &mut JetStream,
    last: Position,
    now: Timestamp,
) -> anyhow::Result<BTreeMap<Box<str>, Seen>> {
    let oldest = now.as_millis().saturating_sub(millis(NODE_AWAY_AFTER));
    let mut seen: BTreeMap<Box<str>, Seen> = BTreeMap::new();
    for raw in newest(stream, last, oldest).await? {
        let Ok(entry) = Entry::decode(&raw.bytes) else { continue };
        let mut fork = None;
        for control in &entry.controls {
            if let Control::Fork(found) = control {
                fork = Some(found.at);
            }
        }
        for control in entry.controls {
            if let Control::Heartbeat(heartbeat) = control {
                let fork = fork.or_else(|| seen.get(&heartbeat.node).and_then(|seen| seen.fork));
                let position = raw.position;
                seen.insert(heartbeat.node.clone(), Seen { heartbeat, position, fork });
            }
        }
    }
    Ok(seen)
}

/// The maximum number of entries that are read to find heartbeats. A node appends a heartbeat every
/// two seconds, and in this time a busy cluster appends a few thousand other entries.
const ENTRIES_READ: u64 = 10_000;

/// The number of entries that are read at once. They have at most a megabyte each.
const ENTRIES_AT_ONCE: u64 = 64;

/// The entries up to `last` that have controls and are not older than `oldest`, in order. At most
/// [`ENTRIES_READ`] entries are read.
async fn newest(
    stream: &mut JetStream,
    last: Position,
    oldest: u64,
) -> anyhow::Result<Vec<RawEntry>> {
    let mut parts: Vec<Vec<RawEntry>> = Vec::new();
    let mut end = last.next().get();
    let stop = end.saturating_sub(ENTRIES_READ).max(1);
    while end > stop {
        let begin = end.saturating_sub(ENTRIES_AT_ONCE).max(stop);
        let read = stream.read(Position::new(begin)..Position::new(end)).await;
        let (mut entries, _) = read.context("the newest entries cannot be read")?;
        let is_oldest = entries.first().is_none_or(|raw| raw.time.as_millis() < oldest);
        entries.retain(|raw| raw.time.as_millis() >= oldest && has_controls(&raw.bytes));
        parts.push(entries);
        if is_oldest {
            break;
        }
        end = begin;
    }
    Ok(parts.into_iter().rev().flatten().collect())
}

fn has_controls(bytes: &[u8]) -> bool {
    Entry::decode(bytes).is_ok_and(|entry| !entry.controls.is_empty())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time for people: `5s`, `3m`, `2h`.
fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3_600),
    }
}

/// Random bytes of the operating system.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}
