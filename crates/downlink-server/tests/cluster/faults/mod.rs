//! Random faults. Publishers publish in every way at all nodes, readers hop between the nodes, and
//! servers, nodes and links fail. Afterwards everything is healed, and the account (the module that
//! compares all records with the final history) must find no error: no acknowledged event is lost
//! or doubled, and no reader has missed an event silently.
//!
//! The seed of a run determines everything except the timing of the processes. In every fourth run,
//! there is a rollback: NATS servers get older data back. Only in such a run may a reader get a
//! gap.
//!
//! `DOWNLINK_CLUSTER_RUNS` sets the number of runs, and `DOWNLINK_CLUSTER_SEED` the seed of the
//! first one; the others have the seeds after it. `cargo xtask nightly` starts 300 runs.

mod account;
mod publisher;
mod reader;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use downlink_proto::{Decoder, Item};
use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    account::{Account, Rollback, Tally, check_ids},
    publisher::{Published, Publisher},
    reader::{Reader, Step},
};
use crate::{
    ALONE,
    blows::{Count, Diary, cut_links, hit_servers, roll_back},
    chaos::{self, Blows},
    cluster::Cluster,
    engine::{Engine, program},
    eventually,
    hopping::number,
    ledger::{END, data},
    node::{Kept, Node},
    patiently,
    socket::{Connection, Progress},
};

/// The number of runs without `DOWNLINK_CLUSTER_RUNS`.
const RUNS: u64 = 4;

const READERS: usize = 10;
const PUBLISHERS: usize = 6;
const TOPICS: usize = 4;

/// The topic of the events that are published after the faults.
const SETTLED: &str = "settled";

/// The state that the readers and publishers of a run share.
struct Run {
    nodes: Vec<SocketAddr>,
    began: Instant,
    is_over: AtomicBool,
    has_end: AtomicBool,
    failures: AtomicUsize,
    acknowledged: AtomicUsize,
    diary: Diary,
}

impl Run {
    fn new(nodes: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            has_end: AtomicBool::new(false),
            failures: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            diary: Diary::new(),
        })
    }

    /// Whether publishing is over.
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether the last event of the run is published.
    fn has_end(&self) -> bool {
        self.has_end.load(Ordering::Relaxed)
    }

    /// Counts an attempt to publish that was not answered with success.
    fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a publish that was acknowledged.
    fn note_acknowledgement(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// The time in the run in seconds.
    fn since(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.began).as_secs_f64()
    }
}

/// Everything that is known at the end of a run.
struct Outcome {
    published: Vec<Vec<Published>>,
    read: Vec<Reader>,
    history: Vec<(String, String)>,
    rollback: Option<Rollback>,
    of_nodes: Vec<chaos::Count>,
    count: Count,
}

fn topics() -> Vec<String> {
    (0..TOPICS).map(|topic| format!("{}/{topic}", ["a", "b"][topic % 2])).collect()
}

/// A reader of some topics by name, or of the topics that match a pattern.
fn reader(number: usize, mut rng: Rng) -> Reader {
    let topics = topics();
    let matching = |prefix: &str| -> BTreeSet<String> {
        topics.iter().filter(|topic| topic.starts_with(prefix)).cloned().collect()
    };
    let (query, topics) = match number % 5 {
        0 => ("topic=a/*".to_owned(), matching("a/")),
        1 => {
            let mut all = matching("");
            all.insert(SETTLED.to_owned());
            ("topic=*".to_owned(), all)
        }
        _ => {
            let first = rng.usize(0..TOPICS);
            let some =
                BTreeSet::from([topics[first].clone(), topics[(first + 1) % TOPICS].clone()]);
            let query: Vec<String> = some.iter().map(|topic| format!("topic={topic}")).collect();
            (query.join("&"), some)
        }
    };
    Reader::new(format!("reader {number}"), query, topics, rng)
}

/// Hits one cluster in an engine (three NATS servers), and checks the run. Returns the engine for
/// the next run, unless older data was put back on its servers.
async fn run_once(engine: Option<Engine>, seed: u64) -> Option<Engine> {
    let mut rng = Rng::with_seed(seed);
    let rolls_back = seed % 4 == 3;
    let began = Instant::now();
    eprintln!("faults: DOWNLINK_CLUSTER_SEED={seed} DOWNLINK_CLUSTER_RUNS=1 begins");
    let engine = match engine {
        Some(engine) => engine,
        None => Engine::start().await.expect("nats-server is installed"),
    };
    let kept = [Kept::InMemory, Kept::InStore, [Kept::InMemory, Kept::InStore][rng.usize(0..2)]];
    let kept = &kept[..rng.usize(2..=3)];
    let flags = ["--retain-events", "1000000", "--drain-within", "1s"];
    let cluster = Cluster::start_in(engine, &format!("faults-{seed}"), kept, &flags).await;
    let healthy = began.elapsed();
    let run = Run::new(cluster.addresses());
    let (cluster, outcome) = strike(cluster, &run, &mut rng, rolls_back).await;
    let summary = match check(&run, &outcome) {
        Ok(summary) => summary,
        Err(error) => {
            let (diary, metrics) = (run.diary.text(), cluster.metrics().await);
            let logs = cluster.logs();
            panic!("DOWNLINK_CLUSTER_SEED={seed}: {error}\n{diary}{metrics}{logs}");
        }
    };
    let took = began.elapsed().as_secs_f64();
    eprintln!(
        "faults: seed {seed}: {summary}; {} nodes, {took:.1} s, {:.1} s of it until all were ready",
        kept.len(),
        healthy.as_secs_f64()
    );
    let engine = cluster.into_engine();
    (!rolls_back).then_some(engine)
}

/// Starts the readers and publishers, hits everything, and heals everything. Then waits until all
/// nodes and readers have the last event.
async fn strike(
    mut cluster: Cluster,
    run: &Arc<Run>,
    rng: &mut Rng,
    rolls_back: bool,
) -> (Cluster, Outcome) {
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        readers.spawn(reader(number, rng.fork()).read(Arc::clone(run)));
    }
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        let publisher = Publisher {
            number,
            topics: topics(),
            key: cluster.site.publish_key.clone(),
            rng: rng.fork(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            pause_max: Duration::from_millis(60),
        };
        publishers.spawn(publisher.publish(Arc::clone(run)));
    }
    let length = Duration::from_millis(rng.u64(3_500..7_000));
    let (saved, count, of_nodes) = hit_all(&mut cluster, run, length, rng, rolls_back).await;
    cluster.open_links();
    cluster.become_ready().await;
    run.is_over.store(true, Ordering::Relaxed);
    let published = timeout(2 * crate::PATIENCE, publishers.join_all()).await;
    let published = published.unwrap_or_else(|_| panic!("no answers\n{}", cluster.logs()));
    let settled = publish_at_each(&cluster, "settled").await;
    agreed(&cluster, &settled).await;
    let agreed_at = Instant::now();
    let ends = publish_end(&cluster).await;
    run.has_end.store(true, Ordering::Relaxed);
    let Ok(read) = timeout(crate::PATIENCE, readers.join_all()).await else {
        let (diary, metrics) = (run.diary.text(), cluster.metrics().await);
        panic!("readers miss the end\n{diary}{metrics}{}", cluster.logs());
    };
    let history = agreed(&cluster, &[ends]).await;
    let rollback = saved.map(|saved| Rollback { saved, agreed: agreed_at });
    (cluster, Outcome { published, read, history, rollback, of_nodes, count })
}

/// Hits nodes, servers and links for this time. After a rollback, the first result is the time at
/// which saving of the older data began.
async fn hit_all(
    cluster: &mut Cluster,
    run: &Run,
    length: Duration,
    rng: &mut Rng,
    rolls_back: bool,
) -> (Option<Instant>, Count, Vec<chaos::Count>) {
    let until = tokio::time::Instant::now() + length;
    let blows = Blows {
        wait_max: Duration::from_millis(4_000),
        away_max: Duration::from_millis(2_500),
        deletes_store: true,
    };
    let mut nodes = JoinSet::new();
    for (number, node) in cluster.nodes.drain(..).enumerate() {
        let rng = rng.fork();
        nodes.spawn(async move { (number, chaos::hit(node, blows, until, rng).await) });
    }
    let routes = cluster.engine.routes.clone();
    let cuts = cut_links(&cluster.links, &routes, until, rng.fork(), &run.diary);
    let of_servers = rng.fork();
    let (engine, hub) = (&mut cluster.engine, &cluster.hub);
    let servers = async {
        if rolls_back {
            let acknowledged = || run.acknowledged.load(Ordering::Relaxed);
            let (saved, count) =
                roll_back(engine, hub, until, of_servers, (acknowledged, &run.diary)).await;
            return (Some(saved), count);
        }
        (None, hit_servers(engine, hub, until, of_servers, &run.diary).await)
    };
    let (cuts, (saved, mut count)) = tokio::join!(cuts, servers);
    let mut hit = patiently(nodes.join_all()).await;
    hit.sort_by_key(|(number, _)| *number);
    let mut of_nodes = Vec::new();
    for (_, (node, count)) in hit {
        cluster.nodes.push(node);
        of_nodes.push(count);
    }
    count.cuts = cuts.cuts;
    (saved, count, of_nodes)
}

/// Publishes an event at each node, and returns their data.
async fn publish_at_each(cluster: &Cluster, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for node in &cluster.nodes {
        let data = data(&format!("{name}-{}", node.name), [SETTLED]);
        publish(node, &format!("topic={SETTLED}"), &data).await;
        all.push(data);
    }
    all
}

/// Publishes the last event of the run to all topics.
async fn publish_end(cluster: &Cluster) -> String {
    let topics = topics();
    let end = data(END, topics.iter().map(String::as_str));
    let query: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
    publish(&cluster.nodes[0], &query.join("&"), &end).await;
    end
}

/// Publishes an event, and repeats the publish until it is acknowledged.
async fn publish(node: &Node, query: &str, data: &str) {
    let key = data.replace([' ', ',', '/'], "-");
    eventually("the event is published", async || {
        let headers = [("Idempotency-Key", key.as_str())];
        let answer = node.post(&format!("/events?{query}"), &headers, data.to_owned()).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Waits until all nodes have the same history, with these events, and returns it.
async fn agreed(cluster: &Cluster, with: &[String]) -> Vec<(String, String)> {
    let began = Instant::now();
    loop {
        let mut all = Vec::new();
        for node in &cluster.nodes {
            all.push(timeout(Duration::from_secs(20), history(node, with)).await.ok().flatten());
        }
        if let Some(Some(first)) = all.first().filter(|first| all.iter().all(|all| all == *first)) {
            return first.clone();
        }
        if began.elapsed() > crate::PATIENCE {
            panic!("{}\n{}", difference(&all), cluster.logs());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Describes the first difference between the histories of the nodes.
fn difference(all: &[Option<Vec<(String, String)>>]) -> String {
    let lengths: Vec<Option<usize>> = all.iter().map(|all| all.as_ref().map(Vec::len)).collect();
    let mut text = format!("the nodes do not agree; they have {lengths:?} events");
    let whole: Vec<&Vec<(String, String)>> = all.iter().flatten().collect();
    let longest = whole.iter().map(|all| all.len()).max().unwrap_or(0);
    let differs = |at: &usize| whole.iter().any(|all| all.get(*at) != whole[0].get(*at));
    if let Some(at) = (0..longest).find(differs) {
        let there: Vec<_> = whole.iter().map(|all| all.get(at)).collect();
        text += &format!(", and differ at {at}: {there:?}");
    }
    text
}

/// Reads the events of a node from the oldest one on, until all events with these data have
/// arrived. `None` if the stream ends earlier.
async fn history(node: &Node, with: &[String]) -> Option<Vec<(String, String)>> {
    let mut connection = Connection::ask(node.address, "topic=*&start=earliest", "").await.ok()?;
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    let mut missing: BTreeSet<&str> = with.iter().map(String::as_str).collect();
    loop {
        let progress = connection.read(usize::MAX, &mut decoder).await.1;
        while let Some(item) = decoder.poll_item() {
            let Item::Event(event) = item else { continue };
            if event.event_type != "message" {
                continue;
            }
            missing.remove(&*event.data);
            events.push((event.last_event_id.to_string(), event.data));
            if missing.is_empty() {
                return Some(events);
            }
        }
        if progress != Progress::Open {
            return None;
        }
    }
}

/// Checks a run. Returns its numbers as text.
fn check(run: &Run, outcome: &Outcome) -> Result<String, String> {
    let Outcome { published, read, history, rollback, of_nodes, count } = outcome;
    let account = Account::new(history.clone())?;
    let mut tally = Tally::default();
    if rollback.is_none() {
        check_ids(read, run)?;
    }
    for published in published {
        account.check_publisher(published, *rollback, &mut tally)?;
    }
    for reader in read {
        account.check_reader(reader, run, *rollback, &mut tally)?;
    }
    let all = || published.iter().flatten();
    let acknowledged = all().filter(|published| published.id.is_some()).count();
    let longest = all().map(|published| published.answered - published.began).max();
    let sum = |of: fn(&Step) -> bool| read.iter().map(|reader| reader.count(of)).sum::<usize>();
    let events = sum(|step| matches!(step, Step::Event { .. }));
    let gaps = sum(|step| matches!(step, Step::Gap { .. }));
    let visits = sum(|step| matches!(step, Step::Visit { .. }));
    if acknowledged < 20 || events < acknowledged {
        return Err(format!("the run was trivial: {acknowledged} acknowledged, {events} read"));
    }
    let of_nodes = |of: fn(&chaos::Count) -> usize| of_nodes.iter().map(of).sum::<usize>();
    let Count { kills, stops, pauses, outages, cuts, rollbacks } = count;
    Ok(format!(
        "{acknowledged} events acknowledged, {} unknown, {} attempts failed, longest {:.1} s; the \
         history has {} events; {} readers got {events} events and {gaps} gaps over {visits} \
         connections; servers: {kills} kills, {stops} stops, {pauses} pauses, {outages} outages, \
         {rollbacks} rollbacks ({} lost, {} unprotected); nodes: {} kills, {} restarts, {} pauses, \
         {} deleted caches; {cuts} cuts",
        all().count() - acknowledged,
        run.failures.load(Ordering::Relaxed),
        longest.unwrap_or_default().as_secs_f64(),
        account.len(),
        read.len(),
        tally.lost,
        tally.unprotected,
        of_nodes(|count| count.kills),
        of_nodes(|count| count.restarts),
        of_nodes(|count| count.pauses),
        of_nodes(|count| count.deleted),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults() {
    if program().is_none() {
        return;
    }
    let _alone = ALONE.lock().await;
    let first = number("DOWNLINK_CLUSTER_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let runs = number("DOWNLINK_CLUSTER_RUNS").unwrap_or(RUNS);
    eprintln!("faults: DOWNLINK_CLUSTER_SEED={first} DOWNLINK_CLUSTER_RUNS={runs}");
    // A run mostly waits for elections of NATS servers, so two runs go on at the same time.
    let next = AtomicU64::new(0);
    tokio::join!(lane(&next, first, runs), lane(&next, first, runs));
}

/// Starts one run after the other, until no run is left.
async fn lane(next: &AtomicU64, first: u64, runs: u64) {
    let mut engine = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= runs {
            return;
        }
        engine = run_once(engine, first + number).await;
    }
}
