//! All nodes of a cluster have the same events with the same ids, the same receipts, and the same
//! finished topics. A relay, which is a server that follows one of the nodes, has them too.

use crate::{
    cluster::Cluster,
    listener::Listener,
    node::{Kept, Node},
    patiently,
};

/// All events that a new reader gets from a node with this query, up to the event with this data.
async fn all(node: &Node, query: &str, until: &str) -> Vec<String> {
    let mut listener = Listener::open(node, &format!("{query}&start=earliest"), "").await;
    patiently(listener.until(until)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_have_the_same_events_under_the_same_ids() {
    let kept = [Kept::InMemory, Kept::InStore];
    let Some(cluster) = Cluster::start("same-ids", &kept, &[]).await else { return };
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let mut reader = Listener::open(second, "topic=a", "").await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let node = &cluster.nodes[number % 2];
        ids.push(node.publish("a", number.to_string()).await);
        assert_eq!(reader.data().await, number.to_string());
        assert_eq!(reader.last_event_id(), ids[number]);
    }
    let there = all(first, "topic=a", "19").await;
    let published: Vec<String> =
        ids.iter().enumerate().map(|(number, id)| format!("{id} {number}")).collect();
    assert_eq!(there, published);
    assert_eq!(all(second, "topic=a", "19").await, there);
    // A reader goes from one node to the other with the id of each event.
    for (number, id) in ids.iter().enumerate().take(19) {
        let mut resumed = Listener::open(&cluster.nodes[number % 2], "topic=a", id).await;
        assert!(resumed.opened.data.contains("\"resumed\":true"), "{:?}", resumed.opened);
        let next = number + 1;
        assert_eq!(resumed.data().await, next.to_string());
        assert_eq!(resumed.last_event_id(), ids[next]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_at_another_node_gets_the_first_receipt() {
    let kept = [Kept::InMemory, Kept::InStore, Kept::InMemory];
    let Some(cluster) = Cluster::start("repeats", &kept, &[]).await else { return };
    for number in 0..6 {
        let key = format!("key-{number}");
        let key = [("Idempotency-Key", key.as_str())];
        let own_id = format!("/events?topic=a&id=order-{number}");
        for (path, headers) in [("/events?topic=a", &key[..]), (&own_id, &[])] {
            let mut ids = Vec::new();
            for turn in 0..3 {
                let node = &cluster.nodes[(number + turn) % 3];
                let answer = node.post(path, headers, number.to_string()).await;
                assert_eq!(answer.member("repeated") == true, turn > 0, "{answer:?}");
                ids.push(answer.id());
            }
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            let node = &cluster.nodes[(number + 2) % 3];
            let changed = node.post(path, headers, "changed").await;
            assert_eq!(changed.status, 409, "{changed:?}");
        }
    }
    cluster.nodes[0].publish("a", "end").await;
    for node in &cluster.nodes {
        assert_eq!(all(node, "topic=a", "end").await.len(), 13);
    }
}

/// Two publishers use the same key at two nodes at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_used_at_two_nodes_at_once_gives_one_event() {
    let kept = [Kept::InMemory, Kept::InMemory];
    let Some(cluster) = Cluster::start("races", &kept, &[]).await else { return };
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    for number in 0..20 {
        let key = format!("key-{number}");
        let headers = [("Idempotency-Key", key.as_str())];
        let (there, here) = tokio::join!(
            first.post("/events?topic=a", &headers, number.to_string()),
            second.post("/events?topic=a", &headers, number.to_string()),
        );
        assert_eq!(there.id(), here.id());
        let repeated = [&there, &here].map(|answer| answer.member("repeated") == true);
        assert_ne!(repeated[0], repeated[1], "{there:?} {here:?}");
    }
    first.publish("a", "end").await;
    assert_eq!(all(second, "topic=a", "end").await.len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_finished_at_one_node_is_finished_at_all() {
    let kept = [Kept::InMemory, Kept::InStore];
    let Some(cluster) = Cluster::start("finishing", &kept, &[]).await else { return };
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let mut reader = Listener::open(second, "topic=a", "").await;
    first.publish("a", "1").await;
    let finished = first.post("/finish?topic=a", &[], "").await;
    assert_eq!(finished.status, 200, "{finished:?}");
    assert_eq!(reader.rest().await, ["1"]);
    for node in [first, second] {
        let refused = node.post("/events?topic=a", &[], "2").await;
        assert_eq!(refused.status, 409, "{refused:?}");
    }
    let refused = Listener::try_open(second, "topic=a", reader.last_event_id()).await.err();
    let refused = refused.expect("a reader that has everything of a finished topic");
    assert!(refused.starts_with("http/1.1 204 "), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_and_a_stream_at_one_node_are_complete_at_the_other() {
    let kept = [Kept::InMemory, Kept::InStore];
    let Some(cluster) = Cluster::start("batches", &kept, &[]).await else { return };
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let mut reader = Listener::open(second, "topic=a", "").await;
    let lines: String =
        (0..500).map(|number| format!("{{\"topic\":\"a\",\"data\":\"{number}\"}}\n")).collect();
    let batch = first.post("/events/batch", &[], lines).await;
    assert_eq!(batch.status, 200, "{batch:?}");
    let ids = batch.member("ids");
    for number in 0..500 {
        assert_eq!(reader.data().await, number.to_string());
        assert_eq!(ids[number], reader.last_event_id());
    }
    let lines: String = (500..700).map(|number| format!("{number}\n")).collect();
    let format = [("Content-Type", "application/x-ndjson")];
    let streamed = first.post("/events?topic=a", &format, lines).await;
    assert_eq!((streamed.status, streamed.member("events")), (200, 200.into()), "{streamed:?}");
    for number in 500..700 {
        assert_eq!(reader.data().await, number.to_string());
    }
    // One event of the batch is for a finished topic, so nothing of it is published.
    assert_eq!(first.post("/finish?topic=b", &[], "").await.status, 200);
    let lines = "{\"topic\":\"a\",\"data\":\"x\"}\n{\"topic\":\"b\",\"data\":\"x\"}\n";
    assert_eq!(second.post("/events/batch", &[], lines).await.status, 409);
    first.publish("a", "end").await;
    assert_eq!(reader.data().await, "end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_follows_a_node_has_the_ids_of_the_cluster() {
    let kept = [Kept::InMemory, Kept::InMemory];
    let Some(cluster) = Cluster::start("relays", &kept, &[]).await else { return };
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let early = first.publish("a", "early").await;
    for kept in [Kept::InMemory, Kept::InStore] {
        let name = format!("relay-{kept:?}");
        let mut relay = cluster.site.relay(&name, second.address, kept, &[]);
        relay.start_ready().await;
        let mut reader = Listener::open(&relay, "topic=a", &early).await;
        for node in [first, second, &relay] {
            let data = format!("{} {kept:?}", node.name);
            let id = node.publish("a", data.clone()).await;
            assert_eq!(reader.until(&data).await.last(), Some(&format!("{id} {data}")));
        }
        first.publish("a", format!("{kept:?}")).await;
        let there = all(first, "topic=a", &format!("{kept:?}")).await;
        assert_eq!(all(&relay, "topic=a", &format!("{kept:?}")).await, there);
        // A reader may go back to the cluster.
        let mut resumed = Listener::open(first, "topic=a", &early).await;
        assert_eq!(resumed.until(&format!("{kept:?}")).await, there[1..]);
    }
}
