//! A relay follows another server, its upstream: it reads the feed of all events, and has them
//! under the same ids. These tests are about chains of relays, fans (several relays of one
//! upstream), loops, keys, listeners, and the metrics of a relay.

use std::process::Command;

use crate::{
    listener::Listener,
    node::{Kept, Node, Site},
};

/// The value of a metric.
async fn metric(node: &Node, name: &str) -> f64 {
    let text = node.get("/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_relays_and_a_fan_have_the_same_events_under_the_same_ids() {
    let site = Site::new("chain");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    let mut nodes = vec![upstream];
    for (name, of) in [("first", 0), ("second", 1), ("third", 2), ("fan", 0)] {
        let kept = if name == "second" { Kept::InStore } else { Kept::InMemory };
        let mut relay = site.relay(name, nodes[of].address, kept, &[]);
        relay.start_ready().await;
        nodes.push(relay);
    }
    let mut readers = Vec::new();
    for node in &nodes {
        readers.push(Listener::open(node, "topic=*", "").await);
    }
    let mut last = String::new();
    for number in 0..50 {
        last = nodes[number % 5].publish(&format!("t/{}", number % 3), number.to_string()).await;
    }
    let expected = readers[0].until("49").await;
    assert_eq!(expected.len(), 50);
    for reader in &mut readers[1..] {
        assert_eq!(reader.until("49").await, expected);
        assert_eq!(reader.last_event_id(), last);
    }
    // The relay in the middle of the chain is killed and started again. The readers at the other
    // nodes stay connected.
    nodes[2].kill();
    nodes[0].publish("t/0", "between").await;
    nodes[2].start_ready().await;
    let mut resumed = Listener::open(&nodes[2], "topic=*", &last).await;
    assert_eq!(resumed.data().await, "between");
    for at in [0, 1, 3, 4] {
        assert_eq!(readers[at].data().await, "between", "{}", nodes[at].name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_follows_itself_says_so() {
    let site = Site::new("itself");
    let mut relay =
        site.relay("relay", "127.0.0.1:1".parse().expect("an address"), Kept::InMemory, &[]);
    relay.follow(relay.address);
    relay.start().await;
    let why = relay.readyz_becomes(|answer| answer.body.contains("follow")).await;
    assert_eq!(why.status, 503);
    relay.readyz_becomes(|answer| answer.body.contains("follows this relay")).await;
    relay.logs("follows this relay").await;
}

/// Two relays that follow each other from the start have no events. Each of them says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_follow_each_other_say_so() {
    let site = Site::new("loop");
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let mut first = site.relay("first", nowhere, Kept::InMemory, &[]);
    let mut second = site.relay("second", first.address, Kept::InMemory, &[]);
    first.follow(second.address);
    first.start().await;
    second.start().await;
    for node in [&first, &second] {
        node.readyz_becomes(|answer| answer.body.contains("follows this relay")).await;
        node.logs("follows this relay").await;
    }
}

/// The loop closes later: the upstream of a relay is started again as a relay of this relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_closes_later_is_refused() {
    let site = Site::new("late-loop");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    let mut first = site.relay("first", upstream.address, Kept::InMemory, &[]);
    first.start_ready().await;
    let mut second = site.relay("second", first.address, Kept::InMemory, &[]);
    second.start_ready().await;
    let mut reader = Listener::open(&second, "topic=a", "").await;
    upstream.publish("a", "0").await;
    assert_eq!(reader.data().await, "0");
    first.kill();
    first.follow(second.address);
    first.start().await;
    second.readyz_becomes(|answer| answer.body.contains("follows this relay")).await;
    second.logs("follows this relay").await;
    // The relay that is refused still serves the events that it has.
    let mut reader = Listener::open(&second, "topic=a&start=earliest", "").await;
    assert_eq!(reader.data().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_a_wrong_key_says_why_it_is_not_ready() {
    let site = Site::new("wrong-key");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, &[]);
    for (file, status) in [("admin.key", 200), ("publish.key", 403)] {
        relay.set_flag("--follow-key-file", &site.file(file));
        relay.start().await;
        let answer = relay.readyz_becomes(|answer| {
            answer.body == "ready\n" || answer.body.contains(" refuses the feed with ")
        });
        let answer = answer.await;
        if status == 200 {
            assert_eq!(answer.status, 200, "{answer:?}");
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.body.contains(&status.to_string()), "{answer:?}");
            relay.logs(&format!("refuses the feed with {status}")).await;
        }
        relay.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_needs_the_right_to_follow_and_the_admin_listener() {
    let site = Site::new("right");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    for path in ["/follow", "/follow/end"] {
        for (key, status) in [("publish.key", 403), ("", 401)] {
            let key = if key.is_empty() { String::new() } else { site.key(key) };
            assert_eq!(upstream.get_as(&key, path).await.status, status, "{path} {key}");
        }
    }
    assert_eq!(upstream.get_as(&site.key("relay.key"), "/follow/end").await.status, 200);
    for after in ["x", "not-an-id", "a b"] {
        let path = format!("/follow?after={after}");
        assert_eq!(upstream.get_as(&site.key("relay.key"), &path).await.status, 400, "{path}");
    }
    // The key of a relay gives only two rights: to read the feed, and to forward publishes.
    assert_eq!(upstream.get_as(&site.key("relay.key"), "/metrics").await.status, 403);
    let mut two = site.upstream("two", Kept::InMemory, &["--admin-listen", "127.0.0.1:0"]);
    two.start().await;
    for path in ["/follow", "/follow/end"] {
        assert_eq!(two.get_as(&site.key("relay.key"), path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_a_relay_tell_whether_and_how_far_it_is_behind() {
    let site = Site::new("metrics");
    let mut upstream = site.upstream("upstream", Kept::InStore, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, &[]);
    relay.start_ready().await;
    upstream.publish("a", "0").await;
    assert_eq!(metric(&relay, "downlink_upstream_connected").await, 1.0);
    assert_eq!(metric(&relay, "downlink_upstream_lag").await, 0.0);
    // The upstream sends something at least once a second.
    assert!(metric(&relay, "downlink_upstream_silent_seconds").await < 5.0);
    upstream.kill();
    relay.readyz_becomes(|answer| answer.body.starts_with("degraded")).await;
    assert_eq!(metric(&relay, "downlink_upstream_connected").await, 0.0);
    crate::patiently(async {
        while metric(&relay, "downlink_upstream_silent_seconds").await < 1.5 {}
    })
    .await;
    upstream.start().await;
    relay.becomes_ready().await;
    assert_eq!(metric(&relay, "downlink_upstream_connected").await, 1.0);
    assert!(!upstream.get("/metrics").await.body.contains("downlink_upstream"));
}

/// A feed may be open for weeks, but it must end when its key is revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_ends_when_its_key_is_revoked() {
    let site = Site::new("revoked");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, &[]);
    relay.start_ready().await;
    let mut reader = Listener::open(&relay, "topic=a", "").await;
    upstream.publish("a", "before").await;
    assert_eq!(reader.data().await, "before");
    let file = site.file("relay.key");
    let id = Command::new(env!("CARGO_BIN_EXE_downlink"))
        .args(["key", "id", "--relay", &file])
        .output()
        .expect("the program runs");
    let id = String::from_utf8(id.stdout).expect("UTF-8");
    let revoked = upstream.post(&format!("/revoke?key={}", id.trim()), &[], "").await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    let away = relay.readyz_becomes(|answer| answer.body.contains("refuses the feed")).await;
    assert!(away.body.starts_with("degraded") && !away.body.contains('{'), "{}", away.body);
}
