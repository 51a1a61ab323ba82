//! Readers hop between an upstream and two relays. In a chain, the second relay follows the first
//! one. Otherwise both follow the upstream. Meanwhile, publishers publish through all three
//! servers, and the servers are killed, paused and restarted. Every reader must get every event
//! exactly once, or an exact gap.
//!
//! An ordinary run has 40 readers and 8 topics, and takes some seconds. `DOWNLINK_RELAY_CLIENTS`
//! sets another number of readers; a run with this variable has 20 topics.
//! `DOWNLINK_TORTURE_SECONDS` sets the duration, and `DOWNLINK_TORTURE_SEED` the seed, which each
//! test prints. `cargo xtask nightly` sets the number of readers and the duration.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    ALONE,
    chaos::{Blows, Count, hit},
    hopping::{Size, check, dice, report, start, topics},
    ledger::{END, Restarts, SMALL_MIN, data},
    node::{Kept, Node, Site},
    patiently,
    reader::Run,
};

/// The servers of a run: the upstream and two relays.
struct Servers {
    upstream: Node,
    relays: [Node; 2],
}

impl Servers {
    /// Starts the servers. In a chain, the second relay follows the first one.
    async fn start(site: &Site, kept: Kept, is_chain: bool) -> Self {
        let common = ["--drain-within", "2s", "--retain-events", "1000000"];
        let flags = [&common[..], &["--retain", "small/*=events:40"]].concat();
        let few = format!("small/*=events:{SMALL_MIN}");
        let fewer = [&common[..], &["--retain", &few]].concat();
        let mut upstream = site.upstream("upstream", kept, &flags);
        let mut first = site.relay("first", upstream.address, kept, &flags);
        let of = if is_chain { first.address } else { upstream.address };
        let mut second = site.relay("second", of, kept, &fewer);
        upstream.start().await;
        first.start_ready().await;
        second.start_ready().await;
        Self { upstream, relays: [first, second] }
    }

    /// Kills, pauses and restarts all servers at random for a time.
    async fn hit(self, length: Duration, restarts: Restarts, rng: &mut Rng) -> (Self, [Count; 3]) {
        let until = Instant::now() + length;
        // If a restart loses the history, the readers must have time to read some of it.
        let rare = if restarts == Restarts::LoseHistory { 3 } else { 1 };
        let away_max = (length / 8).clamp(Duration::from_secs(1), Duration::from_secs(4));
        let wait_max = Duration::from_millis(1_800);
        let blows = Blows { wait_max, away_max, deletes_store: false };
        let of_upstream = Blows { wait_max: wait_max * rare, ..blows };
        let of_relay = Blows { deletes_store: true, ..blows };
        let [first, second] = self.relays;
        let (upstream, first, second) = tokio::join!(
            hit(self.upstream, of_upstream, until, rng.fork()),
            hit(first, of_relay, until, rng.fork()),
            hit(second, of_relay, until, rng.fork()),
        );
        let counts = [upstream.1, first.1, second.1];
        (Self { upstream: upstream.0, relays: [first.0, second.0] }, counts)
    }

    fn logs(&self) -> String {
        let all = [&self.upstream, &self.relays[0], &self.relays[1]];
        let tail = |node: &Node| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(60);
            format!("--- {}\n{}\n", node.name, lines[from..].join("\n"))
        };
        all.map(tail).concat()
    }
}

/// Runs a torture test.
async fn torture(name: &str, kept: Kept, restarts: Restarts) {
    let _alone = ALONE.lock().await;
    let mut rng = dice(name);
    let size = Size::of_environment("DOWNLINK_RELAY_CLIENTS");
    let site = Site::new(name);
    let topics = topics(size.topics);
    let is_chain = rng.bool();
    let servers = Servers::start(&site, kept, is_chain).await;
    let addresses =
        vec![servers.upstream.address, servers.relays[0].address, servers.relays[1].address];
    let run = Run::new(addresses, restarts);
    let (readers, publishers) = start(&run, &size, &site.publish_key, &mut rng).await;
    let (servers, counts) = servers.hit(size.length, restarts, &mut rng).await;
    for relay in &servers.relays {
        relay.becomes_ready().await;
    }
    run.end();
    let published = patiently(publishers.join_all()).await;
    let end = data(END, topics.iter().map(String::as_str));
    let everywhere: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
    let path = format!("/events?{}", everywhere.join("&"));
    let last = servers.upstream.post(&path, &[], end).await.id();
    let read = tokio::time::timeout(crate::PATIENCE, readers.join_all()).await;
    let read = read.unwrap_or_else(|_| panic!("readers miss the end\n{}", servers.logs()));
    check(&published, &read, restarts, &last)
        .unwrap_or_else(|error| panic!("{error}\n{}", servers.logs()));
    let shape = if is_chain { "a chain" } else { "a fan" };
    report(&format!("{name}, {shape}"), &published, &read, &counts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_torture() {
    torture("relay_torture", Kept::InStore, Restarts::KeepHistory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_torture_in_memory() {
    torture("relay_torture_in_memory", Kept::InMemory, Restarts::LoseHistory).await;
}
