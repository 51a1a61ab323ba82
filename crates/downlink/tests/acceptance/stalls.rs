//! Tests of requirements 1, 2, 6 and 7, which are about peers that stop reading and peers that
//! leave.

use std::time::Duration;

use downlink::KeepAlive;
use downlink::hub::{DisconnectReason, Hub, HubBuilder, Retention};
use tokio::task::JoinSet;

use super::{Client, Departures, Running, app, open, patiently};

const STALL_MAX: Duration = Duration::from_millis(300);

/// The number of bytes to publish. The kernel buffers only a fraction of this for a peer that does
/// not read.
const FLOOD_BYTES: usize = 32 << 20;

fn roomy() -> HubBuilder<String> {
    let room = Retention { bytes_max: 2 * FLOOD_BYTES, ..Retention::DEFAULT };
    Hub::builder().text().retention(room)
}

/// Publishes more data than a socket can buffer.
fn flood(hub: &Hub<String>) {
    let large = "x".repeat(64 << 10);
    for _ in 0..FLOOD_BYTES / large.len() {
        hub.to("flood").publish(large.clone()).unwrap();
    }
}

async fn reads(mut client: Client, events: usize) -> Client {
    for at in 0..events {
        assert_eq!(client.event().await.data, at.to_string());
    }
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_01_one_stalled_reader_of_a_thousand_delays_no_other_reader() {
    const EVENTS: usize = 50;
    let (observer, mut departures) = Departures::new();
    let hub = roomy().observer(observer).build().unwrap();
    let mut clients = 0;
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| {
        // This process has both ends of each connection, so it needs two file descriptors for each
        // connection.
        clients = (serve.connections_allowed() / 2).min(1_000);
        serve.write_stall_max(STALL_MAX)
    })
    .await;
    let stalled = running.stall("topics=a,flood&client=stalled").await;
    let mut readers = JoinSet::new();
    for _ in 1..clients {
        readers.spawn(reads(running.subscribe("topics=a", "").await, EVENTS));
    }
    assert_eq!(hub.stats().subscribers, clients);

    flood(&hub);
    for at in 0..EVENTS {
        let receipt = hub.to("a").publish(at.to_string()).unwrap();
        assert!(receipt.matched().unwrap() >= clients - 1);
    }
    let mut read = Vec::new();
    while let Some(client) = patiently(readers.join_next()).await {
        read.push(client.unwrap());
    }
    assert_eq!(read.len(), clients - 1);
    let departed = patiently(departures.recv()).await.unwrap();
    assert_eq!(departed, (Some("stalled".to_owned()), DisconnectReason::Stalled));
    assert_eq!(hub.stats().subscribers, clients - 1);
    assert!(is_cut(stalled).await);
}

/// Reads a connection to its end. Returns true if the connection ended before all published bytes
/// had arrived.
async fn is_cut(mut client: Client) -> bool {
    let mut bytes = 0;
    while let Some(event) = client.next().await {
        bytes += event.data.len();
    }
    bytes < FLOOD_BYTES
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_02_close_and_drain_do_not_wait_for_a_stalled_reader() {
    let (observer, mut departures) = Departures::new();
    let hub = roomy().observer(observer).build().unwrap();
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| {
        // The stall limit is so long that only the deadline of the drain (the graceful shutdown)
        // can end the stalled connection.
        serve.write_stall_max(Duration::from_secs(3_600)).drain_within(STALL_MAX)
    })
    .await;
    let _stalled = running.stall("topics=flood").await;
    let mut reader = running.subscribe("topics=a", "").await;
    flood(&hub);
    hub.close();
    assert!(
        reader.next().await.is_none(),
        "the reader that does not stall must get the end of the stream"
    );
    assert!(hub.publish(String::new()).is_err());
    let reason = patiently(departures.recv()).await.unwrap().1;
    assert_eq!(reason, DisconnectReason::Closed);
    running.stopped().await;
    patiently(departures.recv()).await.unwrap();
    assert_eq!(hub.stats().subscribers, 0);
}

#[tokio::test]
async fn acceptance_07_a_peer_that_does_not_read_keep_alives_is_disconnected() {
    let (observer, mut departures) = Departures::new();
    let hub = Hub::<String>::builder().text().observer(observer).build().unwrap();
    // Keep-alives are comments. These comments are so large that a few of them fill the kernel's
    // buffers.
    let keep_alive =
        KeepAlive::new().interval(Duration::from_millis(100)).text("x".repeat(1 << 20));
    let running =
        Running::new(app(&hub, keep_alive), |serve| serve.write_stall_max(STALL_MAX)).await;
    let _silent = running.stall("topics=a").await;
    assert_eq!(patiently(departures.recv()).await.unwrap().1, DisconnectReason::Stalled);
    let stats = hub.stats();
    assert_eq!((stats.subscribers, stats.published), (0, 0));
}

#[tokio::test]
async fn acceptance_06_dropping_a_body_removes_its_subscription_at_once() {
    let hub = Hub::<String>::text();
    let response = || open(hub.subscribe().topic("a").client("c")).into_http_response();
    let responses: Vec<_> = (0..1_000).map(|_| response()).collect();
    assert_eq!(hub.stats().subscribers, 1_000);
    drop(responses);
    let stats = hub.stats();
    assert_eq!((stats.subscribers, stats.topics, stats.published), (0, 0, 0));
    assert_eq!(hub.subscribers_of("c"), 0);
}

#[tokio::test]
async fn acceptance_06_the_server_notices_that_a_peer_has_left_although_no_events_are_sent() {
    let (observer, mut departures) = Departures::new();
    let hub = Hub::<String>::builder().text().observer(observer).build().unwrap();
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| serve).await;
    drop(running.subscribe("topics=a", "").await);
    assert_eq!(patiently(departures.recv()).await.unwrap().1, DisconnectReason::Left);
    let stats = hub.stats();
    assert_eq!((stats.subscribers, stats.published), (0, 0));
}
