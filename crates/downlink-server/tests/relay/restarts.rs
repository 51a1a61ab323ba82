//! Restarts and outages of a relay and of its upstream (the server that it follows), and their
//! effect on the readers of the relay.

use std::time::{Duration, Instant};

use crate::{
    listener::Listener,
    node::{Kept, Node, Site},
};

/// Starts an upstream, and a relay that has received everything from the upstream.
async fn pair(site: &Site, kept: [Kept; 2]) -> (Node, Node) {
    let mut upstream = site.upstream("upstream", kept[0], &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, kept[1], &[]);
    relay.start_ready().await;
    (upstream, relay)
}

/// Asserts that a new reader of the whole history of the topic `a` gets exactly these events from a
/// node.
async fn has_all(node: &Node, numbers: impl IntoIterator<Item = usize>) {
    let mut reader = Listener::open(node, "topic=a&start=earliest", "").await;
    for number in numbers {
        assert_eq!(reader.data().await, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_relay_stay_open_while_its_upstream_restarts_with_its_store() {
    for kept in [Kept::InMemory, Kept::InStore] {
        let site = Site::new(&format!("upstream-restarts-{kept:?}"));
        let (mut upstream, relay) = pair(&site, [Kept::InStore, kept]).await;
        let first = upstream.publish("a", "0").await;
        let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
        assert_eq!(reader.data().await, "0");
        upstream.kill();
        let degraded = |answer: &crate::node::Answer| {
            answer.status == 200 && answer.body.starts_with("degraded: ")
        };
        relay.readyz_becomes(degraded).await;
        // Meanwhile the relay serves the events that it has.
        has_all(&relay, 0..1).await;
        upstream.start().await;
        let second = upstream.publish("a", "1").await;
        assert_ne!(first.split_once('-'), second.split_once('-'), "a new epoch");
        assert_eq!(reader.data().await, "1");
        assert_eq!(reader.last_event_id(), second);
        relay.becomes_ready().await;
        let mut resumed = Listener::open(&relay, "topic=a", &first).await;
        assert_eq!(resumed.data().await, "1");
        has_all(&relay, 0..2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_an_upstream_in_memory_is_one_gap_for_readers_of_its_relay() {
    for kept in [Kept::InMemory, Kept::InStore] {
        let site = Site::new(&format!("memory-restarts-{kept:?}"));
        let (mut upstream, relay) = pair(&site, [Kept::InMemory, kept]).await;
        for number in 0..3 {
            upstream.publish("a", number.to_string()).await;
        }
        let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
        reader.until("2").await;
        let last = reader.last_event_id().to_owned();
        upstream.kill();
        upstream.start().await;
        let next = upstream.publish("a", "3").await;
        assert_eq!(reader.rest().await, Vec::<String>::new(), "the stream ends");
        assert_eq!(reader.last_event_id(), last);
        let mut reader = Listener::open(&relay, "topic=a", &last).await;
        let gap = reader.gap().await;
        assert_eq!((gap.reason.as_str(), gap.after.as_ref()), ("new_epoch", Some(&last)));
        assert_eq!(gap.oldest, Some(next.clone()));
        assert_eq!(reader.data().await, "3");
        assert_eq!(reader.last_event_id(), next);
        upstream.publish("a", "4").await;
        assert_eq!(reader.data().await, "4");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_restored_from_a_copy_is_one_gap_for_readers_of_its_relay() {
    for kept in [Kept::InMemory, Kept::InStore] {
        let site = Site::new(&format!("restored-{kept:?}"));
        let (mut upstream, relay) = pair(&site, [Kept::InStore, kept]).await;
        upstream.publish("a", "0").await;
        upstream.publish("a", "1").await;
        upstream.stop().await;
        let copy = upstream.store().with_extension("copy");
        std::fs::copy(upstream.store(), &copy).expect("a file of this test");
        upstream.start().await;
        upstream.publish("a", "2").await;
        let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
        reader.until("2").await;
        let last = reader.last_event_id().to_owned();
        upstream.kill();
        upstream.delete_store();
        std::fs::copy(&copy, upstream.store()).expect("a file of this test");
        upstream.start().await;
        upstream.publish("a", "3").await;
        assert_eq!(reader.rest().await, Vec::<String>::new(), "the stream ends");
        relay.becomes_ready().await;
        let there = Listener::open(&upstream, "topic=a", &last).await.until("3").await;
        let here = Listener::open(&relay, "topic=a", &last).await.until("3").await;
        assert_eq!(here, there);
        let gaps: Vec<&String> = here.iter().filter(|text| text.contains("reason")).collect();
        assert!(gaps.len() == 1 && here[0].contains("new_epoch"), "{here:?}");
        has_all(&upstream, [0, 1, 3]).await;
        has_all(&relay, [0, 1, 3]).await;
    }
}

/// A relay without a cache has nothing to serve before it has reached its upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_a_cache_refuses_readers_while_its_upstream_is_away() {
    let site = Site::new("relay-alone");
    let (mut upstream, mut relay) = pair(&site, [Kept::InStore, Kept::InMemory]).await;
    let first = upstream.publish("a", "0").await;
    upstream.kill();
    relay.kill();
    relay.start().await;
    let why = relay.readyz_becomes(|answer| answer.body.contains("cannot reach")).await;
    assert_eq!(why.status, 503);
    let began = Instant::now();
    for last in ["", &first] {
        let refused = Listener::try_open(&relay, "topic=a", last).await.err();
        let refused = refused.expect("the relay refuses the reader");
        assert!(refused.starts_with("http/1.1 503 "), "{refused}");
        assert!(refused.contains("\r\nretry-after: "), "{refused}");
    }
    assert!(began.elapsed() < Duration::from_secs(26), "{:?}", began.elapsed());
    upstream.start().await;
    relay.becomes_ready().await;
    let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
    assert_eq!(reader.data().await, "0");
}

/// A relay with a cache has every event up to its position, and serves these events while its
/// upstream is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_a_cache_serves_readers_while_its_upstream_is_away() {
    let site = Site::new("relay-cached");
    let (mut upstream, mut relay) = pair(&site, [Kept::InStore, Kept::InStore]).await;
    let first = upstream.publish("a", "0").await;
    let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
    assert_eq!(reader.data().await, "0");
    let second = upstream.publish("a", "1").await;
    assert_eq!(reader.data().await, "1");
    upstream.kill();
    relay.kill();
    relay.start().await;
    let away = relay.readyz_becomes(|answer| answer.body.starts_with("degraded")).await;
    assert_eq!(away.status, 200);
    let mut reader = Listener::open(&relay, "topic=a", &first).await;
    assert_eq!(reader.data().await, "1");
    assert_eq!(reader.last_event_id(), second);
    let mut newcomer = Listener::open(&relay, "topic=a&start=earliest", "").await;
    assert_eq!([newcomer.data().await, newcomer.data().await], ["0", "1"]);
    upstream.start().await;
    upstream.publish("a", "2").await;
    assert_eq!([reader.data().await, newcomer.data().await], ["2", "2"]);
    has_all(&relay, 0..3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_continues_with_and_without_its_cache() {
    let site = Site::new("relay-killed");
    let (upstream, mut relay) = pair(&site, [Kept::InStore, Kept::InStore]).await;
    let mut number = 0;
    for round in 0..6 {
        let mut last = String::new();
        for _ in 0..5 {
            last = upstream.publish("a", number.to_string()).await;
            number += 1;
        }
        let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
        reader.until(&(number - 1).to_string()).await;
        assert_eq!(reader.last_event_id(), last);
        relay.kill();
        if round % 2 == 1 {
            relay.delete_store();
        }
        upstream.publish("a", number.to_string()).await;
        number += 1;
        relay.start_ready().await;
        let mut resumed = Listener::open(&relay, "topic=a", &last).await;
        assert_eq!(resumed.data().await, (number - 1).to_string());
        has_all(&relay, 0..number).await;
        assert!(!relay.log().contains(" ERROR "), "{}", relay.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_refuses_a_cache_as_its_store_and_a_store_as_its_cache() {
    let site = Site::new("wrong-file");
    let (mut upstream, mut relay) = pair(&site, [Kept::InStore, Kept::InStore]).await;
    upstream.publish("a", "0").await;
    has_all(&relay, 0..1).await;
    upstream.stop().await;
    relay.stop().await;
    let kept = relay.store().with_extension("kept");
    std::fs::rename(relay.store(), &kept).expect("a file of this test");
    std::fs::copy(upstream.store(), relay.store()).expect("a file of this test");
    std::fs::rename(&kept, upstream.store()).expect("a file of this test");
    let (no_store, no_cache) = ("the file is the cache of a relay", "the file is a store");
    for (node, why) in [(&upstream, no_store), (&relay, no_cache)] {
        let ended = node.command().output().expect("the program starts");
        let said = String::from_utf8(ended.stderr).expect("UTF-8");
        assert_eq!(ended.status.code(), Some(1), "{said}");
        let error = said.lines().last().unwrap_or_default();
        assert!(error.starts_with("downlink: cannot keep history in "), "{said}");
        assert!(error.contains(why) && error.contains("choose another file"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_paused_catches_up_exactly() {
    /// The number of events that the upstream publishes while the relay is paused.
    const EVENTS: usize = 100_000;
    let site = Site::new("slow");
    for kept in [Kept::InMemory, Kept::InStore] {
        let name = format!("{kept:?}");
        let flags = ["--retain-events", "1000000", "--retain-bytes", "100MiB"];
        let mut upstream = site.upstream(&format!("upstream-{name}"), Kept::InMemory, &flags);
        upstream.start().await;
        let mut relay = site.relay(&format!("relay-{name}"), upstream.address, kept, &flags);
        relay.start_ready().await;
        let mut reader = Listener::open(&relay, "topic=a/*", "").await;
        upstream.publish("a/0", "first").await;
        assert_eq!(reader.data().await, "first");
        relay.pause();
        for batch in 0..EVENTS / 1_000 {
            let line = |number: usize| {
                let number = batch * 1_000 + number;
                format!("{{\"topic\":\"a/{}\",\"data\":\"{number}\"}}\n", number % 7)
            };
            let lines: String = (0..1_000).map(line).collect();
            let answer = upstream.post("/events/batch", &[], lines).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        relay.resume();
        for number in 0..EVENTS {
            assert_eq!(reader.data().await, number.to_string());
        }
    }
}
