//! Two of three NATS servers get older data back, so acknowledged events are lost. Readers must get
//! a gap, and never miss an event silently.

use crate::{
    cluster::Cluster,
    engine::Server,
    eventually,
    listener::{Gap, Listener},
    node::Kept,
    patiently,
};

const MIXED: [Kept; 3] = [Kept::InMemory, Kept::InStore, Kept::InMemory];

/// Starts a cluster, and publishes the events `before 0` to `before 4`. Then two servers save their
/// data. After that, publishes the events `lost 0` to `lost 4`. Returns the cluster, and the ids of
/// both groups of events.
async fn with_saved_data(name: &str) -> Option<(Cluster, Vec<String>, Vec<String>)> {
    let cluster = Cluster::start(name, &MIXED, &[]).await?;
    let (mut before, mut lost) = (Vec::new(), Vec::new());
    for number in 0..5 {
        before.push(cluster.nodes[number % 3].publish("a", format!("before {number}")).await);
    }
    for server in &cluster.engine.servers[..2] {
        server.save().await;
    }
    for number in 0..5 {
        lost.push(cluster.nodes[number % 3].publish("a", format!("lost {number}")).await);
    }
    for node in &cluster.nodes {
        Listener::open(node, "topic=a&start=earliest", "").await.until("lost 4").await;
    }
    Some((cluster, before, lost))
}

/// Puts the older data back on two servers, and starts them. The third one, which has all data,
/// does not run. It comes back when the other two have other entries in the lost positions.
async fn roll_back(cluster: &mut Cluster) {
    let engine = &mut cluster.engine;
    engine.kill_all();
    for server in &engine.servers[..2] {
        server.restore().await;
    }
    engine.servers[..2].iter_mut().for_each(Server::spawn);
}

/// Publishes after the loss, at each node, and then starts the third server. Returns the last data.
async fn publish_after(cluster: &mut Cluster) -> String {
    for node in &cluster.nodes {
        for number in 0..5 {
            let data = format!("after {} {number}", node.name);
            eventually("the event is published", async || {
                let key = [("Idempotency-Key", &*data.replace(' ', "-"))];
                let answer = node.post("/events?topic=a", &key, data.clone()).await;
                [200, 503].iter().find(|status| **status == answer.status).expect("200 or 503");
                (answer.status == 200).then_some(())
            })
            .await;
        }
    }
    cluster.engine.servers[2].run().await;
    format!("after {} 4", cluster.nodes.last().unwrap().name)
}

/// Waits until new readers get the same events at all nodes, and returns these events.
async fn agreed(cluster: &Cluster, last: &str) -> Vec<String> {
    eventually("the nodes have the same events", async || {
        let mut all = Vec::new();
        for node in &cluster.nodes {
            let mut reader = Listener::open(node, "topic=a&start=earliest", "").await;
            let mut got = Vec::new();
            while let Some(event) = patiently(reader.next()).await {
                got.push(format!("{} {}", event.last_event_id, event.data));
                if event.data == last {
                    break;
                }
            }
            all.push(got);
        }
        let is_whole = |got: &Vec<String>| got.last().is_some_and(|data| data.ends_with(last));
        (all.iter().all(|got| *got == all[0] && is_whole(got))).then(|| all.swap_remove(0))
    })
    .await
}

/// Asserts that a reader that comes back after the loss gets the right events and gaps.
async fn check_readers(cluster: &Cluster, before: &[String], lost: &[String], last: &str) {
    let all = agreed(cluster, last).await;
    for (number, id) in before.iter().enumerate() {
        assert_eq!(all[number], format!("{id} before {number}"));
    }
    assert!(all[5..].iter().all(|text| text.contains(" after ")), "{all:?}");
    for node in &cluster.nodes {
        for (number, id) in before.iter().enumerate() {
            let mut reader = Listener::open(node, "topic=a", id).await;
            assert_eq!(reader.until(last).await, all[number + 1..], "after an id that is not lost");
        }
        for id in lost {
            let mut reader = Listener::open(node, "topic=a", id).await;
            let gap: Gap = reader.gap().await;
            assert!(["lost", "new_epoch"].contains(&&*gap.reason), "{gap:?}");
            let got = reader.until(last).await;
            assert!(got == all || got == all[5..], "{gap:?}: {got:?} of {all:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_with_lost_ids_get_a_gap_after_a_rollback_while_the_nodes_run() {
    let Some((mut cluster, before, lost)) = with_saved_data("rolled-back").await else { return };
    let mut reader = Listener::open(&cluster.nodes[0], "topic=a", &lost[3]).await;
    assert_eq!(reader.data().await, "lost 4");
    roll_back(&mut cluster).await;
    let last = publish_after(&mut cluster).await;
    check_readers(&cluster, &before, &lost, &last).await;
    // The stream of the reader ended, because its events are lost.
    assert_eq!(reader.rest().await, Vec::<String>::new());
    for node in &cluster.nodes {
        let metrics = node.get("/metrics").await.body;
        let losses = metrics.lines().find(|line| line.starts_with("downlink_cluster_losses_total"));
        assert!(losses.is_some_and(|line| !line.ends_with(" 0")), "{losses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_with_lost_ids_get_a_gap_if_no_node_remembers_the_loss() {
    let Some((mut cluster, before, lost)) = with_saved_data("forgotten").await else { return };
    for node in &mut cluster.nodes {
        node.kill();
        node.delete_store();
    }
    roll_back(&mut cluster).await;
    for node in &mut cluster.nodes {
        node.start_ready().await;
    }
    let last = publish_after(&mut cluster).await;
    check_readers(&cluster, &before, &lost, &last).await;
}

/// The node with a store starts from its cache. It finds the loss when it reads the journal, the
/// entries that the NATS servers keep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_with_lost_ids_get_a_gap_if_the_nodes_restart_after_a_rollback() {
    let Some((mut cluster, before, lost)) = with_saved_data("restarted").await else { return };
    for node in &mut cluster.nodes {
        node.kill();
    }
    roll_back(&mut cluster).await;
    for node in &mut cluster.nodes {
        node.start_ready().await;
    }
    let last = publish_after(&mut cluster).await;
    check_readers(&cluster, &before, &lost, &last).await;
}
