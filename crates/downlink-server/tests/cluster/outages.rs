//! Nodes and servers of the engine (three NATS servers) die, are paused or are cut off. No stream
//! may end because of the engine, and no event may be lost.
//!
//! `DOWNLINK_CLUSTER_AWAY_SECONDS` sets for how long the engine is away, and for how long a node is
//! paused; the default is 20. `cargo xtask nightly` sets five minutes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    ALONE,
    cluster::Cluster,
    engine::Engine,
    eventually,
    hopping::number,
    link::Flow,
    listener::Listener,
    node::{Answer, Kept, Node},
    patiently,
};

const MIXED: [Kept; 3] = [Kept::InMemory, Kept::InStore, Kept::InMemory];

/// How long an ordinary publisher waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

fn away() -> Duration {
    Duration::from_secs(number("DOWNLINK_CLUSTER_AWAY_SECONDS").unwrap_or(20))
}

/// Publishers at all nodes that publish one event after the other to the topic `a`.
struct Publishers {
    is_over: Arc<AtomicBool>,
    /// Each publisher returns the data of its acknowledged events, and the longest time to an
    /// answer.
    running: JoinSet<(Vec<String>, Duration)>,
}

impl Publishers {
    /// Each answer must come within the time that an ordinary publisher waits. Its status must be
    /// 200. If `repeats` is true, the status may also be 503, and the publisher then repeats the
    /// publish.
    fn start(cluster: &Cluster, repeats: bool) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for node in &cluster.nodes {
            let (url, name) = (node.url("/events?topic=a"), node.name.clone());
            let (key, is_over) = (cluster.site.publish_key.clone(), Arc::clone(&is_over));
            running.spawn(async move {
                let client = Client::builder().no_proxy().build().unwrap();
                let (mut published, mut longest) = (Vec::new(), Duration::ZERO);
                while !is_over.load(Ordering::Relaxed) {
                    let data = format!("{name} {}", published.len());
                    let request = client.post(&url).bearer_auth(&key).body(data.clone());
                    let request = request.header("idempotency-key", data.replace(' ', "-"));
                    let began = Instant::now();
                    let answer = request.timeout(ANSWER_WITHIN).send().await.unwrap();
                    longest = longest.max(began.elapsed());
                    let status = answer.status().as_u16();
                    assert!(status == 200 || repeats && status == 503, "{:?}", answer.text().await);
                    if status == 200 {
                        published.push(data);
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                (published, longest)
            });
        }
        Self { is_over, running }
    }

    /// All events of all publishers, and the longest time to an answer.
    async fn end(self) -> (Vec<String>, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = patiently(self.running.join_all()).await;
        let longest = ended.iter().map(|(_, longest)| *longest).max().unwrap();
        (ended.into_iter().flat_map(|(published, _)| published).collect(), longest)
    }
}

/// An open reader of the topic `a` at each node.
async fn readers(cluster: &Cluster) -> Vec<Listener> {
    let mut readers = Vec::new();
    for node in &cluster.nodes {
        readers.push(Listener::open(node, "topic=a", "").await);
    }
    readers
}

/// Asserts that each reader gets each event exactly once, and then the event `last`. All readers
/// must get the events in the same order, and their streams must stay open meanwhile.
async fn all_have(readers: &mut [Listener], mut published: Vec<String>, last: &str) {
    let mut all = Vec::new();
    for reader in readers {
        let mut got = reader.until(last).await;
        got.pop();
        all.push(got);
    }
    assert!(all.iter().all(|got| *got == all[0]), "the readers have different events");
    let mut got: Vec<String> =
        all[0].iter().map(|text| text.split_once(' ').unwrap().1.to_owned()).collect();
    got.sort();
    published.sort();
    assert_eq!(got, published);
}

/// Lets one server of the engine, which leads the other servers, fail while publishers publish at
/// all nodes. `fail` gets `true` to let this server fail, and `false` to bring it back. `repeats`
/// is as in [`Publishers::start`].
async fn a_leader_fails(name: &str, repeats: bool, fail: impl AsyncFn(&mut Engine, usize, bool)) {
    let _alone = ALONE.lock().await;
    let Some(mut cluster) = Cluster::start(name, &MIXED, &[]).await else { return };
    let mut readers = readers(&cluster).await;
    let publishers = Publishers::start(&cluster, repeats);
    let leader = cluster.engine.leader(&cluster.hub).await;
    fail(&mut cluster.engine, leader, true).await;
    // Publishers of all nodes get answers again.
    for node in &cluster.nodes {
        eventually("an event is published", async || {
            let answer = node.post("/events?topic=b", &[], "after the failure").await;
            assert!(answer.status == 200 || repeats, "{answer:?}");
            (answer.status == 200).then_some(())
        })
        .await;
    }
    fail(&mut cluster.engine, leader, false).await;
    cluster.become_ready().await;
    let (published, longest) = publishers.end().await;
    eprintln!("{name}: {} events, the longest wait was {longest:?}", published.len());
    cluster.nodes[0].publish("a", "end").await;
    all_have(&mut readers, published, "end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_publish_fails_and_no_stream_ends_when_the_leading_server_is_killed() {
    a_leader_fails("leader-killed", false, async |engine, leader, is_away| match is_away {
        true => engine.servers[leader].kill(),
        false => engine.servers[leader].run().await,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_publish_fails_and_no_stream_ends_when_the_leading_server_is_paused() {
    a_leader_fails("leader-paused", false, async |engine, leader, is_away| match is_away {
        true => engine.servers[leader].pause(),
        false => engine.servers[leader].resume(),
    })
    .await;
}

/// The old leader still answers the pings of its clients, so they do not notice the cut. The other
/// servers need up to nine seconds to elect a new leader. So the outcome of a publish may be
/// unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_and_no_stream_ends_when_the_leading_server_is_cut_off() {
    a_leader_fails("leader-cut-off", true, async |engine, leader, is_away| {
        let flow = if is_away { Flow::Silent } else { Flow::Open };
        engine.routes_of(leader).iter().for_each(|link| link.set(flow));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_killed_node_resume_at_another_node_without_a_gap() {
    let _alone = ALONE.lock().await;
    let Some(mut cluster) = Cluster::start("node-killed", &MIXED, &[]).await else { return };
    let mut number = 0;
    for killed in 0..3 {
        let mut reader = Listener::open(&cluster.nodes[killed], "topic=a", "").await;
        for _ in 0..10 {
            cluster.nodes[number % 3].publish("a", number.to_string()).await;
            assert_eq!(reader.data().await, number.to_string());
            number += 1;
        }
        let other = (killed + 1) % 3;
        // The reader has not read these events when its node is killed.
        for more in 0..5 {
            cluster.nodes[other].publish("a", (number + more).to_string()).await;
        }
        let last = reader.last_event_id().to_owned();
        cluster.nodes[killed].kill();
        let began = Instant::now();
        let mut reader = Listener::open(&cluster.nodes[other], "topic=a", &last).await;
        for _ in 0..5 {
            assert_eq!(reader.data().await, number.to_string());
            number += 1;
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "resumed after {took:?}");
        cluster.nodes[other].publish("a", number.to_string()).await;
        assert_eq!(reader.data().await, number.to_string());
        number += 1;
        cluster.nodes[killed].start_ready().await;
        let mut back = Listener::open(&cluster.nodes[killed], "topic=a&start=earliest", "").await;
        for number in 0..number {
            assert_eq!(back.data().await, number.to_string());
        }
    }
}

/// The node reads the whole journal (all entries that the engine keeps) when it starts. A reader
/// that comes too early waits, and does not get a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starting_node_lets_a_reader_wait_and_gives_it_no_gap() {
    let _alone = ALONE.lock().await;
    let kept = [Kept::InMemory, Kept::InMemory];
    let Some(mut cluster) = Cluster::start("early-readers", &kept, &[]).await else { return };
    let mut last = String::new();
    for number in 0..500 {
        last = cluster.nodes[0].publish("a", number.to_string()).await;
    }
    for number in 500..520 {
        cluster.nodes[1].kill();
        cluster.nodes[1].start().await;
        let next = cluster.nodes[0].publish("a", number.to_string()).await;
        let opened = async || Listener::try_open(&cluster.nodes[1], "topic=a", &last).await.ok();
        let mut reader = eventually("the node takes readers", opened).await;
        assert_eq!(reader.data().await, number.to_string(), "after {last}");
        assert_eq!(reader.last_event_id(), next);
        last = next;
    }
}

/// Publishes to the topic `a`, and repeats the publish until it is acknowledged.
async fn publish(node: &Node, data: &str) {
    eventually("the event is published", async || {
        let key = [("Idempotency-Key", data)];
        let answer = node.post("/events?topic=a", &key, data.to_owned()).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
}

fn is_degraded(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.starts_with("degraded")
}

/// Publishes while the engine is away, and asserts that the node refuses the publish in time.
async fn is_refused(node: &Node) -> Answer {
    let began = Instant::now();
    let answer = node.post("/events?topic=b", &[], "refused").await;
    let took = began.elapsed();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(took < Duration::from_secs(13), "{answer:?} after {took:?}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_stay_open_while_the_engine_is_away() {
    let _alone = ALONE.lock().await;
    let Some(mut cluster) = Cluster::start("engine-away", &MIXED, &[]).await else { return };
    let mut readers = readers(&cluster).await;
    cluster.nodes[0].publish("a", "before").await;
    for reader in &mut readers {
        assert_eq!(reader.data().await, "before");
    }
    cluster.engine.kill_all();
    let until = Instant::now() + away();
    for node in &cluster.nodes {
        node.readyz_becomes(is_degraded).await;
        // The node serves the events that it has.
        let mut reader = Listener::open(node, "topic=a&start=earliest", "").await;
        assert_eq!(reader.data().await, "before");
    }
    loop {
        let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
        let (first, second, third) =
            tokio::join!(is_refused(first), is_refused(second), is_refused(third));
        eprintln!("while the engine is away: {first:?} {second:?} {third:?}");
        if Instant::now() >= until {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    cluster.engine.spawn_all();
    cluster.become_ready().await;
    let mut published = Vec::new();
    for node in &cluster.nodes {
        let data = format!("after at {}", node.name);
        node.publish("a", data.clone()).await;
        published.push(data);
    }
    cluster.nodes[1].publish("a", "end").await;
    all_have(&mut readers, published, "end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_paused_catches_up() {
    let _alone = ALONE.lock().await;
    let kept = [Kept::InMemory, Kept::InStore];
    let Some(cluster) = Cluster::start("node-paused", &kept, &[]).await else { return };
    for paused in 0..2 {
        let other = &cluster.nodes[1 - paused];
        let paused = &cluster.nodes[paused];
        let mut readers = readers(&cluster).await;
        paused.pause();
        let until = Instant::now() + away();
        let mut number = 0;
        while Instant::now() < until {
            publish(other, &format!("{}-{number}", other.name)).await;
            number += 1;
            sleep(Duration::from_millis(10)).await;
        }
        paused.resume();
        for reader in &mut readers {
            for number in 0..number {
                assert_eq!(reader.data().await, format!("{}-{number}", other.name));
            }
        }
        cluster.become_ready().await;
        for node in [paused, other] {
            let data = format!("after {} at {}", paused.name, node.name).replace(' ', "-");
            publish(node, &data).await;
            for reader in &mut readers {
                assert_eq!(reader.data().await, data);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_from_all_servers_catches_up() {
    let _alone = ALONE.lock().await;
    let kept = [Kept::InMemory, Kept::InStore];
    let Some(cluster) = Cluster::start("node-cut-off", &kept, &[]).await else { return };
    let mut number = 0;
    for flow in [Flow::Silent, Flow::Closed] {
        let mut readers = readers(&cluster).await;
        cluster.links[0].iter().for_each(|link| link.set(flow));
        cluster.nodes[0].readyz_becomes(is_degraded).await;
        is_refused(&cluster.nodes[0]).await;
        let first = number;
        for _ in 0..50 {
            publish(&cluster.nodes[1], &number.to_string()).await;
            number += 1;
        }
        cluster.open_links();
        for reader in &mut readers {
            for number in first..number {
                assert_eq!(reader.data().await, number.to_string());
            }
        }
        cluster.become_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_engine_and_becomes_ready_when_the_engine_comes() {
    let _alone = ALONE.lock().await;
    let Some(engine) = Engine::three().await else { return };
    let kept = [Kept::InMemory, Kept::InStore];
    let mut cluster = Cluster::new(engine, "late-engine", &kept, &[]).await;
    for node in &mut cluster.nodes {
        node.start().await;
        let why = node.readyz_becomes(|answer| answer.status == 503).await;
        assert!(why.body.contains("does not have all events"), "{why:?}");
        is_refused(node).await;
    }
    cluster.engine.spawn_all();
    cluster.init().await;
    cluster.become_ready().await;
    for node in &cluster.nodes {
        let id = node.publish("a", node.name.clone()).await;
        for reader in &cluster.nodes {
            let mut reader = Listener::open(reader, "topic=a&start=earliest", "").await;
            reader.until(&node.name).await;
            assert_eq!(reader.last_event_id(), id);
        }
    }
}
