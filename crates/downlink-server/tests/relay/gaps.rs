//! Gaps that a relay reports because events were evicted by the relay itself or by its upstream,
//! the server that it follows.

use crate::{
    listener::Listener,
    node::{Kept, Node, Site},
};

/// A server whose topic `a/1` has evicted its first 20 events, and the ids of all events.
async fn forgetful(site: &Site, kept: Kept) -> (Node, Vec<String>) {
    let mut upstream = site.upstream("upstream", kept, &["--retain-events", "10"]);
    upstream.start().await;
    let mut ids = vec![upstream.publish("b/1", "b0").await];
    for number in 0..30 {
        ids.push(upstream.publish("a/1", format!("a{number}")).await);
        if number == 14 {
            ids.push(upstream.publish("b/1", "b1").await);
        }
    }
    ids.push(upstream.publish("b/1", "b2").await);
    // The store evicts a moment later than memory.
    crate::patiently(async {
        while Listener::open(&upstream, "topic=a/1", &ids[3]).await.gap().await.until.as_ref()
            != Some(&ids[21])
        {}
    })
    .await;
    (upstream, ids)
}

/// Asserts that a relay answers a request as its upstream does. Returns the answer up to the event
/// with this data.
async fn same(nodes: [&Node; 2], query: &str, last: &str, until: &str) -> Vec<String> {
    let [upstream, relay] = nodes;
    let there = Listener::open(upstream, query, last).await.until(until).await;
    let here = Listener::open(relay, query, last).await.until(until).await;
    assert_eq!(here, there, "{query} with {last:?}");
    here
}

async fn a_fresh_relay_tells_what_is_missing(name: &str, kept: Kept) {
    let site = Site::new(name);
    let (upstream, ids) = forgetful(&site, kept).await;
    let mut relay = site.relay("relay", upstream.address, kept, &[]);
    relay.start_ready().await;
    let nodes = [&upstream, &relay];
    let (early, until) = (&ids[3], &ids[21]);
    for (query, end) in [("topic=a/1", "a29"), ("topic=a/*", "a29"), ("topic=*", "b2")] {
        let after_id = same(nodes, query, early, end).await;
        assert!(after_id[0].contains("evicted") && after_id[0].contains(until), "{after_id:?}");
        let after = same(nodes, &format!("{query}&start=after:{early}"), "", end).await;
        assert_eq!(after, after_id);
        let since = format!("{query}&start=since:1970-01-01T00:00:01Z");
        let since = same(nodes, &since, "", end).await;
        assert!(since[0].contains("evicted") && since[0].contains(until), "{since:?}");
        let earliest = same(nodes, &format!("{query}&start=earliest"), "", end).await;
        assert!(!earliest[0].contains("evicted"), "{earliest:?}");
        let last = same(nodes, &format!("{query}&start=last:25"), "", end).await;
        assert_eq!(last, earliest, "fewer than 25 events are left");
        same(nodes, &format!("{query}&start=last:3"), "", end).await;
    }
    // Nothing of this topic is missing.
    let whole = same(nodes, "topic=b/1", &ids[0], "b2").await;
    assert_eq!(whole.len(), 2, "{whole:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_relay_reports_the_events_that_its_upstream_has_evicted() {
    a_fresh_relay_tells_what_is_missing("evicted-memory", Kept::InMemory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_relay_reports_the_events_that_the_store_of_its_upstream_has_evicted() {
    a_fresh_relay_tells_what_is_missing("evicted-store", Kept::InStore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_upstream_evicts_while_a_relay_is_away_are_one_gap() {
    for kept in [Kept::InMemory, Kept::InStore] {
        let site = Site::new(&format!("evicted-away-{kept:?}"));
        let mut upstream = site.upstream("upstream", kept, &["--retain-events", "10"]);
        upstream.start().await;
        let mut relay = site.relay("relay", upstream.address, kept, &[]);
        relay.start_ready().await;
        let first = upstream.publish("a", "0").await;
        let mut reader = Listener::open(&relay, "topic=a&start=earliest", "").await;
        assert_eq!(reader.data().await, "0");
        relay.kill();
        let mut ids = Vec::new();
        for number in 1..=30 {
            ids.push(upstream.publish("a", number.to_string()).await);
        }
        relay.start_ready().await;
        let mut reader = Listener::open(&relay, "topic=a", &first).await;
        let gap = reader.gap().await;
        // A relay with a cache serves readers at once. So the reader may have caught up with the
        // cache before the gap arrives.
        let is_late = kept == Kept::InStore && gap.reason == "lagged";
        assert!(gap.reason == "evicted" || is_late, "{kept:?}: {gap:?}");
        assert_eq!(gap.after.as_ref(), Some(&first));
        // The store evicts a moment later than memory, so the relay may get some more events.
        let until = ids.iter().position(|id| gap.until.as_ref() == Some(id));
        let missing = until.expect("the gap ends at an event of the topic") + 1;
        assert!(missing == 20 || kept == Kept::InStore && missing < 20, "{gap:?}");
        for number in missing + 1..=30 {
            assert_eq!(reader.data().await, number.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_upstream_evicts_while_a_relay_is_paused_are_one_gap() {
    for kept in [Kept::InMemory, Kept::InStore] {
        let site = Site::new(&format!("evicted-paused-{kept:?}"));
        let flags = ["--retain-events", "10"];
        let mut upstream = site.upstream("upstream", kept, &flags);
        upstream.start().await;
        let mut relay = site.relay("relay", upstream.address, kept, &flags);
        relay.start_ready().await;
        let mut reader = Listener::open(&relay, "topic=a", "").await;
        let first = upstream.publish("a", "0").await;
        assert_eq!(reader.data().await, "0");
        relay.pause();
        let mut ids = Vec::new();
        for number in 1..=60 {
            ids.push(upstream.publish("a", number.to_string()).await);
        }
        relay.resume();
        // Some of the events may be in the buffers of the relay's connection, so the gap may begin
        // later.
        let mut last = 0;
        while last < 60 {
            let event = reader.next().await.expect("the stream stays open");
            if event.event_type == "downlink.gap" {
                let gap: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                let until = ids.iter().position(|id| gap["until"] == **id);
                last = until.expect("the gap ends at an event of the topic") + 1;
            } else {
                assert_eq!(event.data, (last + 1).to_string(), "after {first}");
                last += 1;
            }
        }
    }
}

/// A reader may use the id of an event at a relay before the relay has the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_gives_no_gap_for_a_new_id_of_its_upstream() {
    let site = Site::new("at-once");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, &[]);
    relay.start_ready().await;
    let mut of_relay = site.relay("of-relay", relay.address, Kept::InStore, &[]);
    of_relay.start_ready().await;
    for number in 0..300 {
        let id = upstream.publish("a", number.to_string()).await;
        let node = if number % 2 == 0 { &relay } else { &of_relay };
        let reader = Listener::open(node, "topic=a", &id).await;
        assert!(reader.opened.has_own_id, "{:?}", reader.opened);
        assert_eq!(reader.last_event_id(), id, "{number}");
        assert!(reader.opened.data.contains(r#""resumed":true"#), "{:?}", reader.opened);
    }
    let id = upstream.publish("a", "last").await;
    let mut readers = [
        Listener::open(&relay, "topic=a", &id).await,
        Listener::open(&of_relay, "topic=a", &id).await,
    ];
    upstream.publish("a", "next").await;
    for reader in &mut readers {
        assert_eq!(reader.data().await, "next");
    }
}
