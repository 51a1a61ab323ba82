//! The engine of a cluster (the NATS servers) is full: a publish is refused with 507, and no
//! acknowledged event is lost.

use crate::{
    cluster::Cluster,
    engine::Engine,
    listener::Listener,
    node::{Answer, Kept},
    patiently,
};

/// The size of the data of an event.
const EVENT_BYTES: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_to_a_full_engine_gets_507() {
    let Some(engine) = Engine::one("4M").await else { return };
    let kept = [Kept::InMemory, Kept::InMemory];
    let cluster = Cluster::start_in(engine, "full", &kept, &[]).await;
    let mut reader = Listener::open(&cluster.nodes[1], "topic=a", "").await;
    let mut published = 0;
    let refused: Answer = patiently(async {
        loop {
            let data = format!("{published}{}", " ".repeat(EVENT_BYTES));
            let answer = cluster.nodes[0].post("/events?topic=a", &[], data).await;
            if answer.status != 200 {
                return answer;
            }
            published += 1;
        }
    })
    .await;
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!((10..45).contains(&published), "{published}");
    for number in 0..published {
        assert_eq!(reader.data().await.trim(), number.to_string());
    }
    // The other node says the same, and both serve readers.
    let refused = cluster.nodes[1].post("/events?topic=a", &[], "x".repeat(EVENT_BYTES)).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    for node in &cluster.nodes {
        let mut reader = Listener::open(node, "topic=a&start=earliest", "").await;
        for number in 0..published {
            assert_eq!(reader.data().await.trim(), number.to_string());
        }
    }
}
