//! Hubs that are nodes of a cluster, over a real NATS server. This server is the engine of the
//! cluster: it puts the events of all nodes in one order.
//!
//! The variable `DOWNLINK_NATS_SERVER` is the path of the program `nats-server`; `cargo xtask ci`
//! installs it and sets the variable. Without the variable, each test prints that it is skipped.
#![cfg(all(unix, feature = "cluster"))]
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use downlink::{
    Delivery, Hub, PublishError,
    cluster::{NodeMessage, NodeMessages},
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::server::Server;

/// The maximum duration of a wait. Every wait takes far less time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// Joins a node to the hub on this server, and waits until the node takes publishes.
async fn node(server: &Server, name: &str) -> (Hub<String>, NodeMessages) {
    let journal = server.journal();
    let connect = move || async move {
        let hub = patiently(journal.hub()).await.unwrap();
        (hub, journal.for_hub(hub))
    };
    let joined = Hub::<String>::join(Hub::builder().text(), name, connect).unwrap();
    patiently(async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !joined.0.cluster().unwrap().takes_publishes {
            pause.tick().await;
        }
    })
    .await;
    joined
}

#[tokio::test]
async fn an_event_of_one_hub_reaches_the_subscribers_of_the_other() {
    let Some(server) = Server::start().await else { return };
    let (first, _) = node(&server, "first").await;
    let (second, _) = node(&server, "second").await;
    let mut subscription = second.subscribe().topic("news").open().await.unwrap();
    let receipt = first.to("news").publish("hello".to_owned()).unwrap();
    assert_eq!(receipt.id(), None, "the engine gives the id");
    let confirmed = patiently(receipt.durable()).await.unwrap();
    let Some(Delivery::Event(event)) = patiently(subscription.next()).await else { panic!() };
    assert_eq!(event.data(), "hello");
    assert_eq!(&event.id(), confirmed.id());
    assert_eq!(first.cluster_secret(), second.cluster_secret());
    assert!(first.cluster_secret().is_some());
}

#[tokio::test]
async fn messages_reach_all_nodes_and_are_old_for_a_node_that_joins_later() {
    let Some(server) = Server::start().await else { return };
    let (first, mut of_first) = node(&server, "first").await;
    let (_second, mut of_second) = node(&server, "second").await;
    patiently(first.send_to_nodes(b"a").unwrap().durable()).await.unwrap();
    let message = NodeMessage { bytes: b"a".to_vec(), is_live: true };
    for messages in [&mut of_first, &mut of_second] {
        assert_eq!(patiently(messages.next()).await, Some(message.clone()));
    }
    let (_third, mut of_third) = node(&server, "third").await;
    let old = NodeMessage { is_live: false, ..message };
    assert_eq!(patiently(of_third.next()).await, Some(old));
    let alone = Hub::<String>::text().send_to_nodes(b"a").unwrap_err();
    assert!(matches!(alone, PublishError::NotInCluster), "{alone:?}");
    let large = vec![0; downlink::cluster::NODE_MESSAGE_BYTES_MAX + 1];
    let refused = first.send_to_nodes(&large).unwrap_err();
    assert!(matches!(refused, PublishError::EntryTooLarge), "{refused:?}");
}

/// The program does not read the messages between nodes, so the node waits for the program and
/// answers no publisher. The node must still end when its hub is closed.
#[tokio::test]
async fn a_hub_whose_messages_are_not_read_can_be_closed() {
    let Some(server) = Server::start().await else { return };
    let (hub, _messages) = node(&server, "first").await;
    let receipts: Vec<_> = (0..400).map(|_| hub.send_to_nodes(b"a").unwrap()).collect();
    patiently(receipts[0].durable()).await.unwrap();
    hub.close();
    patiently(hub.closed()).await;
    for receipt in receipts {
        // Each publisher has an outcome.
        let _ = patiently(receipt.durable()).await;
    }
    let refused = hub.to("a").publish("late".to_owned());
    assert!(matches!(refused, Err(PublishError::Closed)), "{refused:?}");
}

/// A publish that is queued while the engine is not reached yet is refused, and the hub can be
/// closed.
#[tokio::test]
async fn a_hub_whose_engine_is_never_reached_refuses_publishes_and_can_be_closed() {
    let connect = || async {
        std::future::pending::<()>().await;
        unreachable!("the engine is never reached")
    };
    let builder = Hub::<String>::builder().text();
    let (hub, _) = Hub::join::<_, _, downlink_nats::JetStream>(builder, "first", connect).unwrap();
    let receipt = hub.to("a").publish("early".to_owned()).unwrap();
    let refused = patiently(receipt.durable()).await.unwrap_err();
    assert!(matches!(refused, PublishError::EngineAway), "{refused:?}");
    hub.close();
    patiently(hub.closed()).await;
}
