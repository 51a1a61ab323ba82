//! Readers hop between an upstream and two relays. In a chain, the second relay follows the first
//! one. Otherwise both follow the upstream. Meanwhile, publishers publish through all three
//! servers, and the servers are killed, paused and restarted. Every reader must get every event
//! exactly once, or an exact gap.
//!
//! An ordinary run has 40 readers and 8 topics, and takes some seconds. `DOWNLINK_RELAY_CLIENTS`
//! sets another number of readers; a run with this variable has 20 topics.
//! `DOWNLINK_TORTURE_SECONDS` sets the duration, and `DOWNLINK_TORTURE_SEED` the seed, which each
//! test prints. `cargo xtask nightly` sets the number of readers and the duration.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    ALONE,
    chaos::{Blows, Count, hit},
    ledger::{END, Ledger, Outcome, Restarts, SMALL_MIN, data},
    node::{Kept, Node, Site},
    patiently,
    publisher::{Published, Publisher},
    reader::{Reader, Run},
};

/// The duration of an ordinary run.
const SECONDS: u64 = 8;

/// The size of a run.
struct Size {
    readers: usize,
    topics: usize,
    publishers: usize,
    length: Duration,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the value is a number"))
}

impl Size {
    fn of_environment() -> Self {
        let length = Duration::from_secs(number("DOWNLINK_TORTURE_SECONDS").unwrap_or(SECONDS));
        match number("DOWNLINK_RELAY_CLIENTS") {
            Some(readers) => Self { readers: readers as usize, topics: 20, publishers: 60, length },
            None => Self { readers: 40, topics: 8, publishers: 6, length },
        }
    }
}

/// Makes the random number generator of a test, and prints the seed.
fn dice(test: &str) -> Rng {
    let seed = number("DOWNLINK_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: DOWNLINK_TORTURE_SEED={seed}");
    Rng::with_seed(seed)
}

/// The names of the topics. The topics in the first half keep few events.
fn topics(count: usize) -> Vec<String> {
    let sort = |number| if number < count / 2 { "small" } else { "large" };
    (0..count).map(|number| format!("{}/{number}", sort(number))).collect()
}

/// A reader of some topics by name, or of the topics that match a pattern.
fn reader(number: usize, topics: &[String], mut rng: Rng) -> Reader {
    let matching = |prefix: &str| -> BTreeSet<String> {
        topics.iter().filter(|topic| topic.starts_with(prefix)).cloned().collect()
    };
    let (query, topics) = match number % 8 {
        0 => ("topic=small/*".to_owned(), matching("small")),
        1 => ("topic=large/*".to_owned(), matching("large")),
        2 => ("topic=*".to_owned(), matching("")),
        _ => {
            let count = rng.usize(1..=3);
            let some: BTreeSet<String> =
                (0..count).map(|_| topics[rng.usize(0..topics.len())].clone()).collect();
            let query: Vec<String> = some.iter().map(|topic| format!("topic={topic}")).collect();
            (query.join("&"), some)
        }
    };
    Reader::new(format!("reader {number}"), query, topics, rng)
}

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
    let size = Size::of_environment();
    let site = Site::new(name);
    let topics = topics(size.topics);
    let is_chain = rng.bool();
    let servers = Servers::start(&site, kept, is_chain).await;
    let addresses =
        vec![servers.upstream.address, servers.relays[0].address, servers.relays[1].address];
    let run = Run::new(addresses, restarts);
    let mut readers = JoinSet::new();
    for number in 0..size.readers {
        readers.spawn(reader(number, &topics, rng.fork()).read(Arc::clone(&run)));
    }
    patiently(async {
        while run.arrived() < size.readers {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut publishers = JoinSet::new();
    for number in 0..size.publishers {
        let publisher = Publisher {
            number,
            topics: topics.clone(),
            key: site.publish_key.clone(),
            rng: rng.fork(),
            client: reqwest::Client::builder().no_proxy().build().expect("an HTTP client"),
            pause_max: Duration::from_millis(4),
        };
        publishers.spawn(publisher.publish(Arc::clone(&run)));
    }
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

/// Compares the records of the readers with those of the publishers.
fn check(
    published: &[Published],
    read: &[Reader],
    restarts: Restarts,
    last: &str,
) -> Result<(), String> {
    let mut ledger = Ledger::default();
    for (data, outcome) in published.iter().flatten() {
        if let Outcome::Published(id) = outcome {
            let (history, offset) = restarts.split(id);
            ledger.note(&history, offset, data)?;
        }
    }
    for life in read.iter().flat_map(|reader| &reader.lives) {
        for event in &life.events {
            ledger.note(&life.history, event.offset, &event.data)?;
        }
    }
    for (data, outcome) in published.iter().flatten() {
        if *outcome == Outcome::Refused {
            ledger.check_refused(data)?;
        }
    }
    let (last_history, last) = restarts.split(last);
    for reader in read {
        for life in &reader.lives {
            // If a history has ended, the reader must have the events of this history only up to
            // the last id that it got. The gap at the beginning of the next history covers the
            // later events.
            let until = if life.history == last_history { last } else { life.position };
            let checked = ledger.check(&reader.topics, life, until);
            checked.map_err(|error| format!("{error}: {}", reader.story()))?;
        }
    }
    Ok(())
}

/// Prints the numbers of a run, and asserts that the run was not trivial.
fn report(name: &str, published: &[Published], read: &[Reader], counts: &[Count; 3]) {
    let outcomes = || published.iter().flatten().map(|(_, outcome)| outcome);
    let acknowledged = outcomes().filter(|it| matches!(it, Outcome::Published(_))).count();
    let unknown = outcomes().filter(|it| **it == Outcome::Unknown).count();
    let refused = outcomes().filter(|it| **it == Outcome::Refused).count();
    let sum = |of: fn(&Reader) -> usize| read.iter().map(of).sum::<usize>();
    let events = sum(|it| it.lives.iter().map(|life| life.events.len()).sum());
    let gaps = sum(|it| it.lives.iter().map(|life| life.holes.len()).sum());
    let histories = sum(|it| it.lives.len() - 1);
    let (connections, refusals) = (sum(|it| it.connections), sum(|it| it.refusals));
    let blows = |of: fn(&Count) -> usize| counts.iter().map(of).sum::<usize>();
    let (kills, restarts) = (blows(|it| it.kills), blows(|it| it.restarts));
    let (pauses, deleted) = (blows(|it| it.pauses), blows(|it| it.deleted));
    eprintln!(
        "{name}: {acknowledged} events acknowledged, {unknown} unknown, {refused} refused; {} \
         readers got {events} events, {gaps} gaps and {histories} new histories over {connections} \
         connections, {refusals} of them refused; {kills} kills, {restarts} restarts, {pauses} \
         pauses, {deleted} deleted caches",
        read.len()
    );
    assert!(acknowledged > 100 && events > read.len() && connections > 2 * read.len());
    assert!(kills + restarts > 0 && pauses > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_torture() {
    torture("relay_torture", Kept::InStore, Restarts::KeepHistory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_torture_in_memory() {
    torture("relay_torture_in_memory", Kept::InMemory, Restarts::LoseHistory).await;
}
