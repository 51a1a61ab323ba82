//! Readers hop between three nodes. Meanwhile, publishers publish at all nodes. The nodes and the
//! servers of the engine (NATS servers) are killed, paused and restarted. Every reader must get
//! every event exactly once, or an exact gap.
//!
//! See `hopping` for the size of a run. `DOWNLINK_CLUSTER_CLIENTS` sets the number of readers.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::{
    ALONE,
    blows::{Diary, hit_servers},
    chaos::{self, Blows, Count},
    cluster::Cluster,
    hopping::{Size, check, dice, report, start, topics},
    ledger::{END, Restarts, SMALL_MIN, data},
    node::Kept,
    patiently,
    reader::Run,
};

/// Kills, pauses and restarts all nodes and servers at random for a time.
async fn hit_all(cluster: &mut Cluster, length: Duration, rng: &mut fastrand::Rng) -> Vec<Count> {
    let until = Instant::now() + length;
    let away_max = (length / 8).clamp(Duration::from_secs(1), Duration::from_secs(4));
    let wait_max = Duration::from_millis(3_000);
    let blows = Blows { wait_max, away_max, deletes_store: true };
    let mut nodes = JoinSet::new();
    for (number, node) in cluster.nodes.drain(..).enumerate() {
        let rng = rng.fork();
        nodes.spawn(async move { (number, chaos::hit(node, blows, until, rng).await) });
    }
    let diary = Diary::new();
    let of_servers =
        hit_servers(&mut cluster.engine, &cluster.hub, until, rng.fork(), &diary).await;
    eprintln!("the servers of the engine: {of_servers:?}");
    let mut hit = patiently(nodes.join_all()).await;
    hit.sort_by_key(|(number, _)| *number);
    let mut counts = Vec::new();
    for (_, (node, count)) in hit {
        cluster.nodes.push(node);
        counts.push(count);
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_torture() {
    let few = format!("small/*=events:{SMALL_MIN}");
    let flags = ["--drain-within", "2s", "--retain-events", "1000000", "--retain", &few];
    let kept = [Kept::InMemory, Kept::InStore, Kept::InStore];
    let _alone = ALONE.lock().await;
    let Some(mut cluster) = Cluster::start("torture", &kept, &flags).await else { return };
    let mut rng = dice("cluster_torture");
    let size = Size::of_environment("DOWNLINK_CLUSTER_CLIENTS");
    let run = Run::new(cluster.addresses(), Restarts::KeepHistory);
    let (readers, publishers) = start(&run, &size, &cluster.site.publish_key, &mut rng).await;
    let counts = hit_all(&mut cluster, size.length, &mut rng).await;
    cluster.become_ready().await;
    run.end();
    let published = patiently(publishers.join_all()).await;
    let topics = topics(size.topics);
    let end = data(END, topics.iter().map(String::as_str));
    let everywhere: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
    let path = format!("/events?{}", everywhere.join("&"));
    let last = cluster.nodes[0].post(&path, &[], end).await.id();
    let read = tokio::time::timeout(crate::PATIENCE, readers.join_all()).await;
    let read = read.unwrap_or_else(|_| panic!("readers miss the end\n{}", cluster.logs()));
    check(&published, &read, Restarts::KeepHistory, &last)
        .unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
    report("cluster_torture", &published, &read, &counts);
}
