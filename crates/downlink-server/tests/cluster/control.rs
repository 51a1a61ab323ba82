//! The requests of an app about its clients take effect at all nodes of a cluster: tickets,
//! disconnects and revocations. The last test grows a single server into a cluster.

use crate::{
    cluster::Cluster,
    engine::Engine,
    eventually,
    listener::Listener,
    node::{Kept, Node},
    patiently,
};

/// Gets a ticket from a node. With the ticket, a client reads the events that are published to it.
async fn ticket(node: &Node, client: &str) -> String {
    let issued = node.post(&format!("/tickets?client={client}"), &[], "").await;
    let ticket = issued.member("ticket");
    ticket.as_str().unwrap_or_else(|| panic!("{issued:?}")).to_owned()
}

/// Opens a stream of a client at `node`, with a ticket from the node `issuer`. The nodes share one
/// key for tickets, but only soon after their start, so the first attempts may fail.
async fn stream(issuer: &Node, node: &Node, client: &str) -> (String, Listener) {
    eventually("a ticket of one node is valid at the other", async || {
        let ticket = ticket(issuer, client).await;
        let opened = Listener::try_open(node, &format!("ticket={ticket}"), "").await;
        opened.ok().map(|listener| (ticket, listener))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_at_one_node_ends_the_streams_at_the_other() {
    let kept = [Kept::InMemory, Kept::InMemory];
    let Some(cluster) = Cluster::start("disconnects", &kept, &[]).await else { return };
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let (ticket, mut alice) = stream(first, second, "alice").await;
    let (_, mut bob) = stream(first, second, "bob").await;
    let disconnected = first.delete("/clients?client=alice").await;
    assert_eq!((disconnected.status, disconnected.member("disconnected")), (200, 0.into()));
    assert_eq!(alice.rest().await, [""; 0]);
    let sent = first.post("/events?client=bob", &[], "hello").await;
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(bob.data().await, "hello");
    // A disconnect is not a revocation.
    Listener::open(second, &format!("ticket={ticket}"), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_at_one_node_holds_at_all_nodes_even_after_a_restart() {
    let kept = [Kept::InMemory, Kept::InMemory];
    let Some(mut cluster) = Cluster::start("revocations", &kept, &[]).await else { return };
    let (ticket, mut alice) = stream(&cluster.nodes[0], &cluster.nodes[1], "alice").await;
    let revoked = cluster.nodes[0].post("/revoke?client=alice", &[], "").await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(alice.rest().await, [r#"{"code":"revoked"}"#]);
    let query = format!("ticket={ticket}");
    let is_refused = async |node: &Node| {
        let refused = Listener::try_open(node, &query, "").await.err();
        refused.is_some_and(|head| head.starts_with("http/1.1 401 "))
    };
    for node in &cluster.nodes {
        assert!(is_refused(node).await, "{}", node.name);
    }
    // A node without a store has no file with revocations. It reads the revocation again from the
    // journal, which the NATS servers keep.
    cluster.nodes[1].kill();
    cluster.nodes[1].start_ready().await;
    eventually("the node knows the revocation again", async || {
        is_refused(&cluster.nodes[1]).await.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_grows_from_a_server_keeps_its_events_and_ids() {
    let Some(engine) = Engine::start().await else { return };
    let kept = [Kept::InStore, Kept::InStore, Kept::InMemory];
    let mut cluster = Cluster::new(engine, "growth", &kept, &[]).await;
    let mut single = cluster.site.upstream("single", Kept::InStore, &[]);
    single.start().await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(single.publish("a", number.to_string()).await);
    }
    let named = single.post("/events?topic=a&id=order-1", &[], "named").await;
    single.stop().await;
    let store = single.store();
    let from = store.to_str().unwrap();
    cluster.init_with(&["--tag", "sync:always", "--from", from]).await;
    for node in &cluster.nodes[..2] {
        std::fs::copy(format!("{from}.cluster"), node.store()).unwrap();
    }
    for node in &mut cluster.nodes {
        node.start().await;
    }
    cluster.become_ready().await;
    let new = cluster.nodes[2].publish("a", "new").await;
    let expected = [
        format!("{} 2", ids[2]),
        format!("{} 3", ids[3]),
        "order-1 named".into(),
        format!("{new} new"),
    ];
    for node in &cluster.nodes[..2] {
        let mut reader = Listener::open(node, "topic=a", &ids[1]).await;
        assert_eq!(patiently(reader.until("new")).await, expected, "{}", node.name);
        // The single server has already answered this publish, so it counts as repeated.
        let again = node.post("/events?topic=a&id=order-1", &[], "named").await;
        assert_eq!((again.id(), again.member("repeated")), (named.id(), true.into()));
    }
    // A node without the old events tells the reader that they are missing.
    let mut reader = Listener::open(&cluster.nodes[2], "topic=a", &ids[1]).await;
    let gap = reader.gap().await;
    assert_eq!((gap.reason.as_str(), reader.data().await.as_str()), ("evicted", "new"));
    // A new reader of this node gets the next event.
    let mut reader = Listener::open(&cluster.nodes[2], "topic=a", "").await;
    cluster.nodes[0].publish("a", "newer").await;
    assert_eq!(reader.data().await, "newer");
}
