//! Tests of retention, for each topic and for the whole file. A reader gets a gap (a notice of
//! missing events) only for evicted events, even after a restart.

use std::path::Path;

use serde_json::json;

use crate::{Folder, Server, patiently, server::next};

/// Publishes `count` numbered events and returns their ids.
async fn publish(server: &Server, topic: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(server.publish(&format!("topic={topic}"), &format!("{topic} {number}")).await);
    }
    ids
}

/// Asserts that the topic keeps exactly the newest `kept` events. A reader resumes after each id in
/// turn, and must get the kept events after this id. If some events after the id were evicted, the
/// reader must get one gap first.
async fn keeps(server: &Server, topic: &str, ids: &[String], kept: usize) {
    let oldest = ids.len() - kept;
    patiently(trimmed(server, topic, ids, oldest)).await;
    for (number, id) in ids.iter().enumerate() {
        let mut resumed = server.stream(&format!("topic={topic}"), id).await;
        if number + 1 < oldest {
            let gap = patiently(resumed.gap()).await;
            assert_eq!((&gap["reason"], &gap["after"]), (&json!("evicted"), &json!(id)), "{topic}");
            assert_eq!(gap["until"], json!(ids[oldest - 1]), "{topic} after {number}: {gap}");
            assert_eq!(gap["oldest"], json!(ids[oldest]), "{topic} after {number}: {gap}");
        }
        let from = oldest.max(number + 1);
        let due: Vec<_> = (from..ids.len()).map(|at| format!("{topic} {at}")).collect();
        assert_eq!(next(&mut resumed, due.len()).await, due, "{topic} after {number}");
    }
}

/// Waits until the server has applied its retention rules to the file. The server does this only
/// after it has answered the publisher.
async fn trimmed(server: &Server, topic: &str, ids: &[String], oldest: usize) {
    let (query, due) = (format!("topic={topic}"), format!("\"oldest\":\"{}\"", ids[oldest]));
    let mut is_trimmed = oldest <= 1;
    while !is_trimmed {
        let mut resumed = server.stream(&query, &ids[0]).await;
        let event = patiently(resumed.next()).await.expect("an event");
        is_trimmed = event.event_type == "downlink.gap" && event.data.contains(&due);
    }
}

fn restarted(server: Server, store: &Path, flags: &[&str], killed: bool) -> Server {
    if killed {
        server.kill();
    } else {
        server.stop();
    }
    Server::start(store, flags)
}

#[tokio::test]
async fn the_first_matching_rule_applies_to_a_topic() {
    for store in ["x.db", "none"] {
        let folder = Folder::new(&format!("rules-{store}"));
        let file = if store == "none" { store.into() } else { folder.file(store) };
        // The first flag has two rules, and the second has one rule.
        let flags = [
            "--retain",
            "chat/long=events:6;chat/*=events:3,age:1h",
            "--retain",
            "small=bytes:1",
            "--retain-events",
            "7",
        ];
        let mut server = Server::start(&file, &flags);
        let mut topics = Vec::new();
        for (topic, kept) in [("chat/long", 6), ("chat/short", 3), ("small", 1), ("other", 7)] {
            topics.push((topic, publish(&server, topic, 10).await, kept));
        }
        for killed in [false, true] {
            for (topic, ids, kept) in &topics {
                keeps(&server, topic, ids, *kept).await;
            }
            if store == "none" {
                break;
            }
            server = restarted(server, &file, &flags, killed);
        }
    }
}

#[tokio::test]
async fn a_file_of_settings_may_have_retention_rules() {
    let folder = Folder::new("rules-file");
    let settings = folder.file("x.toml");
    std::fs::write(&settings, "retain = [\"a=events:2\", \"b/*=events:4,bytes:100000\"]\n")
        .expect("a file");
    let config = ["--config", settings.to_str().expect("UTF-8")];
    let server = Server::start(&folder.file("x.db"), &config);
    for (topic, kept) in [("a", 2), ("b/c", 4)] {
        let ids = publish(&server, topic, 6).await;
        keeps(&server, topic, &ids, kept).await;
    }
}

/// If the server is started with a stricter rule, the rule also applies to events that are already
/// in the file.
#[tokio::test]
async fn a_stricter_rule_applies_after_a_restart() {
    let folder = Folder::new("stricter");
    let store = folder.file("x.db");
    let server = Server::start(&store, &[]);
    let mut ids = publish(&server, "a", 10).await;
    let strict = ["--retain", "a=events:4"];
    let server = restarted(server, &store, &strict, false);
    ids.push(server.publish("topic=a", "a 10").await);
    keeps(&server, "a", &ids, 4).await;
}

#[tokio::test]
async fn an_age_rule_evicts_only_events_of_matching_topics() {
    let folder = Folder::new("age");
    let store = folder.file("x.db");
    let flags = ["--retain", "typing/*=age:10ms"];
    let server = Server::start(&store, &flags);
    let first = publish(&server, "keep", 3).await;
    let gone = publish(&server, "typing/a", 3).await;
    let passed = async |server: &Server| {
        // Readers may still get expired events until the server has applied the rule, so the test
        // waits until the topic has no events.
        while server.get("/topics?topic=typing/a").await["events"] != 0 {}
    };
    patiently(passed(&server)).await;
    let last = server.publish("topic=keep", "keep 3").await;
    let ids = [first.as_slice(), &[last]].concat();
    let server = restarted(server, &store, &flags, true);
    patiently(passed(&server)).await;
    keeps(&server, "keep", &ids, 4).await;
    let mut resumed = server.stream("topic=typing/a&topic=keep", &gone[0]).await;
    let gap = patiently(resumed.gap()).await;
    assert_eq!((&gap["reason"], &gap["until"]), (&json!("evicted"), &json!(gone[2])));
    assert_eq!(next(&mut resumed, 1).await, ["keep 3"]);
}

#[tokio::test]
async fn store_bytes_max_limits_the_whole_file_and_gaps_are_exact() {
    let folder = Folder::new("bounded");
    let store = folder.file("x.db");
    let bytes_max = 512 * 1024;
    let limit = bytes_max.to_string();
    // Readers get an event if it is in memory or in the file. This test is about the file, so
    // memory must have fewer events than the file.
    let memory = ["--history-bytes-max", "100000", "--event-bytes-max", "10000"];
    let flags = [&["--store-bytes-max", &limit][..], &memory].concat();
    let mut server = Server::start(&store, &flags);
    let (mut ids, mut data) = (Vec::new(), Vec::new());
    for number in 0..600 {
        data.push(format!("{number} {}", "x".repeat(3_000)));
        ids.push(server.publish(&format!("topic=t/{}", number % 7), &data[number]).await);
    }
    for killed in [true, false] {
        let mut resumed = server.stream("topic=t/*", &ids[0]).await;
        let gap = patiently(resumed.gap()).await;
        assert_eq!((&gap["reason"], &gap["after"]), (&json!("evicted"), &json!(ids[0])));
        let oldest =
            ids.iter().position(|id| gap["oldest"] == json!(id)).expect("an id of this test");
        assert_eq!(gap["until"], json!(ids[oldest - 1]));
        // The limit applies to whole pages of the file, so the events themselves take less than the
        // limit.
        let kept = ids.len() - oldest;
        assert!((50..=bytes_max / 3_000).contains(&kept), "{kept} are kept");
        assert!(
            next(&mut resumed, kept).await == data[oldest..],
            "the reader must get exactly the kept events"
        );
        server = restarted(server, &store, &flags, killed);
    }
    server.stop();
    let log = std::fs::metadata(format!("{}-wal", store.display()));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "a closed store has no write-ahead log");
    let size = std::fs::metadata(&store).expect("a file").len();
    assert!(size < 2 * bytes_max as u64, "{size} bytes");
}

/// Topics, and the maximum number of events that each topic keeps.
const KEPT: [(&str, usize); 5] = [("r/a", 1), ("r/b", 3), ("r/c/x", 7), ("s/a", 5), ("s/b", 1_000)];

/// Queries of subscriptions. Each has the indices of the topics in `KEPT` that it matches.
const WANTED: [(&str, &[usize]); 5] = [
    ("topic=r/*", &[0, 1, 2]),
    ("topic={x}/a", &[0, 3]),
    ("topic=s/b&topic=r/c/*", &[2, 4]),
    ("topic=*", &[0, 1, 2, 3, 4]),
    ("topic=s/a", &[3]),
];

/// A reader resumes after every id with every query of `WANTED`. It must get the kept events after
/// the id once and in order. If a matching event after the id was evicted, the reader must get one
/// gap first.
#[tokio::test]
async fn every_id_and_pattern_gives_the_kept_events_and_one_gap_for_evicted_events() {
    let folder = Folder::new("model");
    let store = folder.file("x.db");
    let flags = [
        "--retain",
        "r/a=events:1;r/b=events:3;r/c/*=events:7;s/a=events:5",
        "--history-bytes-max",
        "6000",
        "--event-bytes-max",
        "1000",
    ];
    let mut server = Server::start(&store, &flags);
    // A simple random number generator with a fixed seed picks the topic of each event.
    let (mut events, mut drawn) = (Vec::new(), 7_u32);
    for number in 0..70 {
        drawn = drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // At any time, only three topics get events. The test changes these three topics after
        // every 20 events.
        let topic = (number / 20 + (drawn >> 28) as usize % 3) % KEPT.len();
        let query = format!("topic={}", KEPT[topic].0);
        events.push((topic, server.publish(&query, &number.to_string()).await));
    }
    for killed in [false, true] {
        server = restarted(server, &store, &flags, killed);
        for (query, wanted) in WANTED {
            for after in 0..events.len() {
                gets_what_is_kept(&server, query, wanted, &events, after).await;
            }
        }
    }
}

async fn gets_what_is_kept(
    server: &Server,
    query: &str,
    wanted: &[usize],
    events: &[(usize, String)],
    after: usize,
) {
    let is_kept = |at: &usize| {
        let topic = events[*at].0;
        let younger = events[at + 1..].iter().filter(|(other, _)| *other == topic).count();
        younger < KEPT[topic].1
    };
    let due: Vec<usize> =
        (after + 1..events.len()).filter(|&at| wanted.contains(&events[at].0)).collect();
    let (kept, gone): (Vec<usize>, Vec<usize>) = due.into_iter().partition(is_kept);
    let mut stream = server.stream(query, &events[after].1).await;
    if let Some(&last) = gone.last() {
        let gap = patiently(stream.gap()).await;
        assert_eq!(gap["after"], json!(events[after].1), "{query} after {after}");
        assert_eq!(gap["until"], json!(events[last].1), "{query} after {after}");
    }
    let data: Vec<String> = kept.iter().map(usize::to_string).collect();
    assert_eq!(next(&mut stream, data.len()).await, data, "{query} after {after}");
}
