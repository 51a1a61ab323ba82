//! Publishes through a relay, which forwards them to its upstream: every way to publish, rights,
//! ids, idempotency keys, and publishes while the upstream is away.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    listener::Listener,
    node::{Answer, Kept, Node, Site},
};

/// An upstream, its relay, and a relay of this relay.
async fn chain(site: &Site, flags: &[&str]) -> [Node; 3] {
    let mut upstream = site.upstream("upstream", Kept::InStore, flags);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, flags);
    relay.start_ready().await;
    let mut second = site.relay("second", relay.address, Kept::InStore, flags);
    second.start_ready().await;
    [upstream, relay, second]
}

/// All events that a new reader gets from a server with this query, up to the event with this data.
async fn all(node: &Node, query: &str, until: &str) -> Vec<String> {
    Listener::open(node, &format!("{query}&start=earliest"), "").await.until(until).await
}

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const EVENT_STREAM: (&str, &str) = ("Content-Type", "text/event-stream");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_publish_works_through_relays() {
    let site = Site::new("ways");
    let nodes = chain(&site, &[]).await;
    let second = &nodes[2];
    let single = second.post("/events?topic=a&event=paid&id=order-1", &[], "1\n2").await;
    assert_eq!(single.id(), "order-1");
    let lines =
        "{\"topic\":\"a\",\"data\":\"b1\"}\n{\"topics\":[\"a\",\"b\"],\"data\":{\"n\": 2}}\n";
    let batch = second.post("/events/batch", &[], lines).await;
    assert_eq!((batch.status, batch.member("ids").as_array().map(Vec::len)), (200, Some(2)));
    let streams = [(NDJSON, "11\n12\n"), (EVENT_STREAM, "data: s1\n\nevent: x\ndata: s2\n\n")];
    for (format, body) in streams {
        let streamed = second.post("/events?topic=a", &[format], body).await;
        assert_eq!(streamed.status, 200, "{streamed:?}");
        assert_eq!((streamed.member("events"), streamed.member("repeated")), (2.into(), 0.into()));
    }
    let everyone = second.post("/events?everyone", &[], "to everyone").await;
    assert_eq!(everyone.status, 200, "{everyone:?}");
    let last = second.publish("a", "last").await;
    let there = all(&nodes[0], "topic=a", "last").await;
    assert_eq!(there.len(), 9, "{there:?}");
    assert_eq!(there.last(), Some(&format!("{last} last")));
    for node in &nodes[1..] {
        assert_eq!(all(node, "topic=a", "last").await, there, "{}", node.name);
    }
    let of_b = all(second, "topic=b", "to everyone").await;
    assert!(of_b.len() == 2 && of_b[0].ends_with(" {\"n\":2}"), "{of_b:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_through_a_relay_finishes_its_topics_even_if_the_stream_breaks() {
    let site = Site::new("finishing");
    let nodes = chain(&site, &[]).await;
    let second = &nodes[2];
    for (topic, format, body) in
        [("lines", NDJSON, "1\n2\n"), ("events", EVENT_STREAM, "data: 1\n\ndata: 2\n\n")]
    {
        let mut reader = Listener::open(&nodes[1], &format!("topic={topic}"), "").await;
        let path = format!("/events?topic={topic}&finish_on_end=true");
        let streamed = second.post(&path, &[format], body).await;
        assert_eq!((streamed.status, streamed.member("events")), (200, 2.into()), "{streamed:?}");
        assert_eq!(reader.rest().await, ["1", "2"]);
        let refused = second.post(&format!("/events?topic={topic}"), &[], "3").await;
        assert_eq!(refused.status, 409, "{refused:?}");
    }
    // The publisher of this stream leaves in the middle.
    let mut reader = Listener::open(&nodes[1], "topic=broken", "").await;
    let (chunks, mut body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures_util::stream::poll_fn(move |cx| body.poll_recv(cx));
    let url = second.url("/events?topic=broken&finish_on_end=true");
    let request = reqwest::Client::builder().no_proxy().build().expect("an HTTP client").post(url);
    let request = request.bearer_auth(&site.publish_key).header(NDJSON.0, NDJSON.1);
    let sending = tokio::spawn(request.body(reqwest::Body::wrap_stream(body)).send());
    chunks.send(Ok(Bytes::from_static(b"1\n"))).await.expect("the request is sent");
    assert_eq!(reader.data().await, "1");
    chunks.send(Err(std::io::Error::other("gone"))).await.expect("the request is sent");
    assert!(sending.await.expect("no panic").is_err());
    let broken = reader.next().await.expect("the last event");
    assert_eq!((&*broken.event_type, &*broken.data), ("upstream.broken", "{\"published\":1}"));
    assert_eq!(reader.next().await, None);
    let finished = second.post("/finish?topic=by-hand", &[], "").await;
    assert_eq!(finished.status, 200, "{finished:?}");
    assert_eq!(second.post("/events?topic=by-hand", &[], "late").await.status, 409);
    assert_eq!(nodes[0].post("/events?topic=by-hand", &[], "late").await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_idempotency_key_at_every_server_gives_one_event() {
    let site = Site::new("keys");
    let nodes = chain(&site, &[]).await;
    for number in 0..9 {
        let key = format!("key-{number}");
        let headers = [("Idempotency-Key", key.as_str())];
        let data = number.to_string();
        let mut ids = Vec::new();
        for turn in 0..3 {
            let node = &nodes[(number + turn) % 3];
            let answer = node.post("/events?topic=a", &headers, data.clone()).await;
            assert_eq!(answer.member("repeated") == true, turn > 0, "{answer:?}");
            ids.push(answer.id());
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let changed = nodes[number % 3].post("/events?topic=a", &headers, "changed").await;
        assert_eq!(changed.status, 409, "{changed:?}");
    }
    nodes[2].publish("a", "last").await;
    for node in &nodes {
        assert_eq!(all(node, "topic=a", "last").await.len(), 10, "{}", node.name);
    }
    // Finishing a topic may be repeated in the same way.
    let headers = [("Idempotency-Key", "end of a")];
    let mut ids = Vec::new();
    for (turn, node) in nodes.iter().rev().enumerate() {
        let answer = node.post("/finish?topic=a", &headers, "").await;
        assert_eq!((answer.status, answer.member("repeated") == true), (200, turn > 0));
        ids.push(answer.id());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = nodes[2].post("/finish?topic=a", &[], "").await;
    assert_eq!(other.status, 409, "{other:?}");
}

/// Makes the secret of tokens, and returns the flags of a server that verifies them.
fn jwt_flags(site: &Site) -> [String; 2] {
    let secret = downlink_access::Secret::generate().expect("randomness");
    let file = site.file("jwt.key");
    secret.create_file(std::path::Path::new(&file)).expect("a new file");
    ["--jwt-key-file".to_owned(), file]
}

/// A token of this user, signed with the secret in the file `jwt.key`.
fn token(site: &Site, user: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("the clock is right").as_secs();
    let claims = json!({
        "sub": user,
        "iat": now - 10,
        "exp": now + 3_600,
        "downlink": { "publish": ["rooms/*"], "subscribe": ["rooms/*"] },
    });
    let key = site.key("jwt.key");
    let key = EncodingKey::from_secret(key.as_bytes()).expect("the secret is long enough");
    encode(&Header::default(), &claims, &key).expect("the key fits")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_and_keys_of_a_user_are_the_same_at_relay_and_upstream() {
    let site = Site::new("tokens");
    let flags = jwt_flags(&site);
    let nodes = chain(&site, &[&flags[0], &flags[1]]).await;
    let (ada, bob) = (token(&site, "ada"), token(&site, "bob"));
    let path = "/events?topic=rooms/1&id=mine";
    let of_ada = nodes[2].post_as(&ada, path, &[], "of ada").await.id();
    for node in &nodes {
        let again = node.post_as(&ada, path, &[], "of ada").await;
        assert_eq!((again.id(), again.member("repeated")), (of_ada.clone(), true.into()));
    }
    let of_bob = nodes[0].post_as(&bob, path, &[], "of bob").await.id();
    assert_ne!(of_ada, of_bob);
    assert_eq!(nodes[2].post_as(&bob, path, &[], "of bob").await.id(), of_bob);
    // Ids in a stream and in a batch belong to the same name space as ids of single events.
    let stream = "id: mine\ndata: of ada\n\n";
    let path = "/events?topic=rooms/1&ids=keep";
    let streamed = nodes[2].post_as(&ada, path, &[EVENT_STREAM], stream).await;
    assert_eq!((streamed.status, streamed.member("repeated")), (200, 1.into()), "{streamed:?}");
    let line = r#"{"topic":"rooms/1","id":"mine","data":"of ada"}"#;
    let batch = nodes[1].post_as(&ada, "/events/batch", &[], line).await;
    assert_eq!(batch.member("ids")[0], of_ada.as_str(), "{batch:?}");
    // The id works as a last event id everywhere.
    for node in &nodes {
        let mut reader = Listener::open(node, "topic=rooms/1", &of_ada).await;
        assert_eq!(reader.data().await, "of bob");
    }
    for node in &nodes {
        let denied = node.post_as(&ada, "/events?topic=other", &[], "x").await;
        assert_eq!(denied.status, 403, "{denied:?}");
        // Only a relay may name the publisher.
        let header = [("Downlink-Publisher", "bob")];
        let denied = node.post_as(&ada, "/events?topic=rooms/1", &header, "x").await;
        assert_eq!(denied.status, 403, "{denied:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_checked_at_the_relay_before_anything_is_sent() {
    let site = Site::new("rights");
    let flags = jwt_flags(&site);
    let flags = [&*flags[0], &*flags[1]];
    let mut upstream = site.upstream("upstream", Kept::InMemory, &flags);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, &flags);
    relay.start_ready().await;
    let ada = token(&site, "ada");
    // The upstream is paused and cannot answer, so the answers below come from the relay itself.
    upstream.pause();
    let began = Instant::now();
    let line = r#"{"topic":"a","data":"x"}"#;
    for (path, body) in [("/events?topic=a", "x"), ("/events/batch", line), ("/finish?topic=a", "")]
    {
        let denied = relay.post_as("an unknown key", path, &[], body).await;
        assert_eq!(denied.status, 401, "{path}: {denied:?}");
        let denied = relay.post_as(&ada, path, &[], body).await;
        assert_eq!(denied.status, 403, "{path}: {denied:?}");
        let invalid = relay.post_as(&site.publish_key, "/events?topic=%0A", &[], body).await;
        assert_eq!(invalid.status, 400, "{invalid:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    upstream.resume();
}

fn code(answer: &Answer) -> String {
    answer.member("code").as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_while_the_upstream_is_away_is_refused_in_time() {
    let site = Site::new("away");
    let mut upstream = site.upstream("upstream", Kept::InStore, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InMemory, &[]);
    relay.start_ready().await;
    upstream.kill();
    let line = r#"{"topic":"a","data":"refused"}"#;
    let began = Instant::now();
    let (single, batch, stream) = tokio::join!(
        relay.post("/events?topic=a", &[], "refused"),
        relay.post("/events/batch", &[], line),
        relay.post("/events?topic=a", &[NDJSON], "\"refused\"\n"),
    );
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
    for answer in [&single, &batch, &stream] {
        assert_eq!((answer.status, &*code(answer)), (503, "upstream_away"), "{answer:?}");
    }
    upstream.start().await;
    upstream.pause();
    let began = Instant::now();
    let key = [("Idempotency-Key", "once")];
    let unknown = relay.post("/events?topic=a", &key, "perhaps").await;
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
    assert_eq!((unknown.status, &*code(&unknown)), (503, "outcome_unknown"), "{unknown:?}");
    upstream.resume();
    let again = relay.post("/events?topic=a", &key, "perhaps").await;
    assert_eq!(again.status, 200, "{again:?}");
    upstream.publish("a", "last").await;
    let there = all(&upstream, "topic=a", "last").await;
    assert_eq!(there.len(), 2, "{there:?}");
    assert_eq!(all(&relay, "topic=a", "last").await, there);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_waits_for_an_upstream_that_comes_back_and_succeeds_once() {
    let site = Site::new("waits");
    let mut upstream = site.upstream("upstream", Kept::InStore, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InStore, &[]);
    relay.start_ready().await;
    for round in 0..3 {
        let data = format!("{round}");
        let publishing = relay.post("/events?topic=a", &[], data.clone());
        if round == 1 {
            // The upstream gets the request and is killed before it answers.
            upstream.pause();
        } else {
            upstream.kill();
        }
        let back = async {
            relay.readyz_becomes(|answer| answer.body.starts_with("degraded")).await;
            upstream.kill();
            upstream.start().await;
        };
        let (answer, ()) = tokio::join!(publishing, back);
        assert_eq!(answer.status, 200, "{answer:?}");
        relay.becomes_ready().await;
    }
    upstream.publish("a", "last").await;
    let there = all(&upstream, "topic=a", "last").await;
    let data: Vec<&str> = there.iter().filter_map(|event| Some(event.split_once(' ')?.1)).collect();
    assert_eq!(data, ["0", "1", "2", "last"]);
    assert_eq!(all(&relay, "topic=a", "last").await, there);
}
