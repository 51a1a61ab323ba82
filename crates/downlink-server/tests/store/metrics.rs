//! Tests that each metric of the server changes when its cause happens.

use std::{collections::BTreeSet, fs, path::Path};

use rusqlite::Connection;

use crate::{
    Folder, Server, patiently,
    ready::{becomes_ready, metric},
};

/// Requests a metric until its value satisfies the condition.
async fn metric_becomes(server: &Server, name: &str, is_due: impl Fn(f64) -> bool) {
    let value = async || metric(server, name).await.parse::<f64>().expect("a number");
    patiently(async { while !is_due(value().await) {} }).await;
}

async fn publishes(server: &Server, result: &str) -> String {
    metric(server, &format!("downlink_publishes_total{{result=\"{result}\"}}")).await
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    words.filter(|word| word.starts_with("downlink_") || word.starts_with("process_")).collect()
}

/// An alert on a metric that the server does not have never fires.
#[tokio::test]
async fn the_alerts_and_the_dashboard_use_metrics_of_the_server() {
    let folder = Folder::new("alerts");
    let server = Server::start(&folder.file("x.db"), &[]);
    let metrics = server.ask("GET", "/metrics", "", "").await.body;
    // A relay has additional metrics, even if it cannot reach its upstream.
    let relay = Server::start(&folder.file("y.db"), &["--follow", "http://127.0.0.1:1"]);
    let metrics = metrics + &relay.ask("GET", "/metrics", "", "").await.body;
    // So has a node of a cluster. One of them is known only when it has reached its engine.
    let cluster = ["--cluster", "nats://127.0.0.1:1", "--hub", "main"];
    let node = Server::start(&folder.file("z.db"), &cluster);
    let metrics = metrics + &node.ask("GET", "/metrics", "", "").await.body;
    let metrics = metrics + "\ndownlink_cluster_oldest_entry_age_seconds 1\n";
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for file in ["prometheus/alerts.yml", "grafana/downlink.json"] {
        let text = fs::read_to_string(deploy.join(file)).expect("a file");
        let used = names(&text);
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&names(&metrics)).copied().collect();
        assert_eq!(unknown, [""; 0], "{file}");
    }
}

#[tokio::test]
async fn publishes_are_counted_by_their_result() {
    let folder = Folder::new("results");
    let store = folder.file("x.db");
    let server = Server::start(&store, &["--event-bytes-max", "100", "--topics-max", "1"]);
    for _ in 0..2 {
        server.publish("topic=a&id=one", "first").await;
    }
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    assert_eq!(server.post("topic=a", ndjson, "1\n2\n3\n").await.status, 200);
    let batch = "{\"topic\":\"a\",\"data\":1}\n".repeat(2);
    assert_eq!(server.ask("POST", "/events/batch", "", &batch).await.status, 200);
    server.post("topic=a&id=one", "", "other").await.problem(409);
    server.post("topic=*", "", "x").await.problem(400);
    server.post("topic=a", "", &"x".repeat(200)).await.problem(413);
    server.post("topic=b", "", "x").await.problem(503);
    let due = [
        ("published", "6"),
        ("repeated", "1"),
        ("conflict", "1"),
        ("invalid", "1"),
        ("too_large", "1"),
        ("too_many_topics", "1"),
        ("denied", "0"),
        ("store_failed", "0"),
    ];
    for (result, count) in due {
        assert_eq!(publishes(&server, result).await, count, "{result}");
    }

    // While another program holds a lock, the store fails, and the failed publish is not counted as
    // published.
    let shell = Connection::open(&store).expect("a database");
    shell.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    server.post("topic=a", "", "refused").await.problem(503);
    server.ask("GET", "/readyz", "", "").await.problem(503);
    assert_eq!(publishes(&server, "store_failed").await, "1");
    assert_eq!(publishes(&server, "published").await, "6");
    shell.execute_batch("ROLLBACK").expect("a transaction");
    becomes_ready(&server).await;
}

#[tokio::test]
async fn the_store_and_the_system_have_metrics() {
    let folder = Folder::new("sizes");
    let store = folder.file("x.db");
    let server = Server::start(&store, &[]);
    metric_becomes(&server, "downlink_store_commit_seconds_count", |count| count == 0.0).await;
    for _ in 0..3 {
        server.publish("topic=a", "x").await;
    }
    metric_becomes(&server, "downlink_store_commit_seconds_count", |count| count == 3.0).await;
    metric_becomes(&server, "downlink_store_commit_seconds_sum", |sum| sum > 0.0).await;
    metric_becomes(&server, "downlink_store_queue_events", |events| events == 0.0).await;
    let file = fs::metadata(&store).expect("the store").len() as f64;
    metric_becomes(&server, "downlink_store_bytes", |bytes| bytes == file).await;
    let wal = folder.file("x.db-wal");
    let wal = fs::metadata(wal).expect("the write-ahead log").len() as f64;
    assert!(wal > 0.0);
    metric_becomes(&server, "downlink_store_wal_bytes", |bytes| bytes == wal).await;
    for (name, least) in [
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 5.0),
        ("process_max_fds", 100.0),
        ("process_start_time_seconds", 1.7e9),
        ("process_cpu_seconds_total", 0.0),
    ] {
        metric_becomes(&server, name, |value| value >= least).await;
    }
}

#[tokio::test]
async fn a_stalled_reader_is_cut_and_counted() {
    let flags = ["--write-stall-max", "1s", "--retain-events", "1000000"];
    let server = Server::start("none".as_ref(), &flags);
    let reader = server.unread("topic=a").await;
    metric_becomes(&server, "downlink_subscribers", |count| count == 1.0).await;
    let line = format!("{{\"topic\":\"a\",\"data\":\"{}\"}}\n", "x".repeat(10_000));
    let batch = line.repeat(500);
    assert_eq!(server.ask("POST", "/events/batch", "", &batch).await.status, 200);
    metric_becomes(&server, "downlink_disconnects_total{reason=\"stalled\"}", |n| n == 1.0).await;
    metric_becomes(&server, "downlink_lag_events_count", |count| count == 0.0).await;
    drop(reader);
}

#[tokio::test]
async fn the_lag_of_a_stalled_reader_is_in_the_metrics_and_the_list_of_clients() {
    let flags = ["--write-stall-max", "1h", "--retain-events", "1000000"];
    let server = Server::start("none".as_ref(), &flags);
    let reader = server.unread("topic=a&client=ada").await;
    metric_becomes(&server, "downlink_lag_events_bucket{le=\"0.0\"}", |count| count == 1.0).await;
    let sent = "downlink_sent_bytes_total{listener=\"public\"}";
    let before: f64 = metric(&server, sent).await.parse().expect("a number");
    let line = format!("{{\"topic\":\"a\",\"data\":\"{}\"}}\n", "x".repeat(10_000));
    for _ in 0..2 {
        assert_eq!(server.ask("POST", "/events/batch", "", &line.repeat(700)).await.status, 200);
    }
    metric_becomes(&server, "downlink_lag_events_max", |lag| lag > 1_000.0).await;
    metric_becomes(&server, "downlink_lag_events_bucket{le=\"1000.0\"}", |n| n == 0.0).await;
    metric_becomes(&server, "downlink_lag_events_bucket{le=\"10000.0\"}", |n| n == 1.0).await;
    metric_becomes(&server, sent, |bytes| bytes > before + 10_000.0).await;
    let clients = server.get("/clients?sort=bytes").await;
    let row = &clients["clients"][0];
    assert_eq!((row["client"].as_str(), row["address"].as_str()), (Some("ada"), Some("127.0.0.1")));
    assert!(row["lag"].as_u64() > Some(1_000) && row["bytes"].as_u64() > Some(10_000), "{row}");
    drop(reader);
    metric_becomes(&server, "downlink_lag_events_max", |lag| lag == 0.0).await;
}

#[tokio::test]
async fn a_gap_after_an_eviction_is_counted() {
    let server = Server::start("none".as_ref(), &["--retain-events", "1"]);
    let first = server.publish("topic=a", "1").await;
    for data in ["2", "3"] {
        server.publish("topic=a", data).await;
    }
    let mut stream = server.stream("topic=a", &first).await;
    assert_eq!(patiently(stream.next()).await.expect("an event").event_type, "downlink.gap");
    metric_becomes(&server, "downlink_gaps_total{reason=\"evicted\"}", |gaps| gaps == 1.0).await;
}
