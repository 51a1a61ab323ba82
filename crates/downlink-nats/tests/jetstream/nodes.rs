//! Two nodes of a cluster with a real NATS server. They compute the same log. If the server has lost
//! the end of its stream, they notice this, although the journal alone cannot notice it.

#[allow(dead_code)]
#[path = "../../../downlink-cluster/tests/simulation/model.rs"]
mod model;
#[path = "../../../downlink-cluster/tests/simulation/real.rs"]
mod real;

use std::{
    collections::HashMap,
    future::poll_fn,
    task::Poll,
    time::{Duration, SystemTime},
};

use downlink_cluster::{
    Answer, Base, Driver, EntryName, HubKey, Journal as _, Node, NodeSettings, Position, Publish,
    PublishId, Record, Snapshot, WriterId, first_entry,
};
use downlink_log::{Address, Fingerprint, Timestamp, Topic};
use downlink_nats::JetStream;
use tokio::time::{interval, timeout};

use self::model::{ModelLog, serial_of};
use crate::servers::{HUB, PATIENCE, Server, create, journal, replicas};

type Nodes = [Driver<JetStream, ModelLog>; 2];

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Founds a cluster.
async fn found(journal: &mut JetStream) {
    let snapshot = Snapshot {
        key: HubKey::from_random([3; 16]),
        base: Base::NONE,
        epochs: Vec::new(),
        forks: Vec::new(),
    };
    let name = EntryName { writer: WriterId(1), counter: 0 };
    let bytes = first_entry(HUB, name.writer, snapshot).unwrap();
    let appended = journal.append(name, bytes, Some(Position::ORIGIN)).await;
    assert_eq!(appended, Ok(Position::FIRST));
}

/// Starts a node with a connection of its own.
fn start(servers: &[Server], number: u64) -> Driver<JetStream, ModelLog> {
    let node = Node::new(now(), NodeSettings::new(HUB), ModelLog::default(), None);
    let mut random = number << 32;
    Driver::new(node, journal(servers), move || {
        random += 1;
        random
    })
}

/// Runs the nodes until `is_done`.
async fn run_until(nodes: &mut Nodes, what: &str, mut is_done: impl FnMut(&mut Nodes) -> bool) {
    let mut ticks = interval(Duration::from_millis(10));
    let running = poll_fn(|cx| {
        while ticks.poll_tick(cx).is_ready() {}
        for node in nodes.iter_mut() {
            node.poll(now(), cx);
        }
        if is_done(nodes) { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(PATIENCE, running).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

async fn run_until_open(nodes: &mut Nodes) {
    let is_open = |node: &Driver<JetStream, ModelLog>| node.node().takes_publishes();
    run_until(nodes, "both nodes take publishes", |nodes| nodes.iter().all(is_open)).await;
}

/// The numbers of the events of a node, in order.
fn serials(node: &Driver<JetStream, ModelLog>) -> Vec<u64> {
    node.node().log().events.values().map(serial_of).collect()
}

/// Publishes an event with each number, at the nodes in turn, and waits until both nodes have it.
async fn publish(nodes: &mut Nodes, numbers: std::ops::Range<u64>) {
    let mut asked: HashMap<(usize, PublishId), u64> = HashMap::new();
    for number in numbers.clone() {
        let at = (number % 2) as usize;
        let record = Record {
            at: now(),
            to: vec![Address::Topic(Topic::new("orders").unwrap())],
            id: None,
            key: None,
            fingerprint: Fingerprint::default(),
            finish: false,
            payload: Some(number.to_le_bytes().to_vec()),
        };
        let publish = Publish { records: vec![record], stream: None };
        asked.insert((at, nodes[at].node_mut().publish(now(), publish)), number);
    }
    run_until(nodes, "the events are applied", |nodes| {
        for (at, node) in nodes.iter_mut().enumerate() {
            while let Some((id, answer)) = node.node_mut().poll_answer() {
                assert!(matches!(answer, Answer::Applied { .. }), "{answer:?}");
                asked.remove(&(at, id));
            }
        }
        asked.is_empty() && nodes.iter().all(|node| has_newest(node, &numbers))
    })
    .await;
    assert_eq!(nodes[0].node().log().events, nodes[1].node().log().events);
}

/// Whether the newest events of a node have these numbers, in any order.
fn has_newest(node: &Driver<JetStream, ModelLog>, numbers: &std::ops::Range<u64>) -> bool {
    let newest = serials(node).into_iter().rev().take(numbers.clone().count());
    let mut newest: Vec<u64> = newest.collect();
    newest.sort_unstable();
    newest.into_iter().eq(numbers.clone())
}

#[tokio::test]
async fn two_nodes_agree_and_find_a_lost_end() {
    let Some(server) = Server::start("").await else { return };
    let mut servers = [server];
    found(&mut create(&servers, &replicas(1)).await).await;
    let mut nodes = [start(&servers, 1), start(&servers, 2)];
    run_until_open(&mut nodes).await;
    publish(&mut nodes, 0..40).await;

    servers[0].stop();
    servers[0].save();
    servers[0].run().await;
    run_until_open(&mut nodes).await;
    publish(&mut nodes, 40..46).await;
    assert_eq!(nodes[0].node().totals().cuts, 0);

    // The entries with the events 40 to 45 are lost.
    servers[0].kill();
    servers[0].restore();
    servers[0].run().await;
    let has_cut = |node: &Driver<JetStream, ModelLog>| node.node().totals().cuts > 0;
    run_until(&mut nodes, "both nodes find the loss", |nodes| nodes.iter().all(has_cut)).await;
    run_until_open(&mut nodes).await;
    publish(&mut nodes, 50..60).await;
    let expected: Vec<u64> = (0..40).chain(50..60).collect();
    for node in &nodes {
        let mut found = serials(node);
        found.sort_unstable();
        assert_eq!(found, expected);
        // The nodes feed a model of a log. A real log gives the same answers to the same calls.
        real::repeat(node.node(), true, Vec::new()).unwrap();
    }
}
