//! The answers that clients get if the server has reached a limit of connections, subscriptions or
//! topics, or if it shuts down. A server that shuts down drains: it accepts no new subscriptions.

use tokio::io::AsyncReadExt as _;

use crate::{Server, answer::Answer, patiently};

const BROWSER: &str = "Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n";

/// Asserts that the answer is a 503 with a problem document and with `Retry-After`.
#[track_caller]
fn assert_unavailable(answer: &Answer, says: &str) {
    let later: u64 =
        answer.header("retry-after").expect("a time").parse().expect("a number of seconds");
    assert!((1..=10).contains(&later), "{later}");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(answer.status, 503);
    assert!(problem["detail"].as_str().expect("a detail").contains(says), "{problem}");
}

/// Asserts that the server refuses a browser's subscription with a stream that has only a
/// reconnection time. After a 503, the browser would never reconnect.
async fn assert_browser_must_reconnect_later(server: &Server, query: &str) {
    let mut stream = server.stream(query, BROWSER).await;
    assert_eq!(stream.status(), 200, "{}", stream.head);
    assert!(stream.head.contains("content-type: text/event-stream\r\n"));
    assert_eq!(stream.next().await, None);
    let later = stream.retry.expect("a reconnection time");
    assert!((1_000..=10_000).contains(&later), "{later}");
}

#[tokio::test]
async fn subscriptions_above_their_limit_are_refused() {
    let server = Server::with(&["--subscribers-max", "2"]).await;
    let _first = server.subscribe("topic=a").await;
    let second = server.subscribe("topic=a").await;
    let refused = server.get("/events?topic=a").await;
    refused.problem(503);
    assert_unavailable(&refused, "Too many subscriptions are open: the limit is 2.");
    assert_browser_must_reconnect_later(&server, "topic=a").await;
    assert_eq!(server.publish("topic=a", "x").await["subscribers"], 2);
    drop(second);
    patiently(async { while server.stream("topic=a", "").await.status() != 200 {} }).await;
}

/// The server usually recognizes a browser by `Sec-Fetch-Mode`. But over plain HTTP to another
/// machine, a browser does not send this header.
#[tokio::test]
async fn a_browser_is_recognized_by_its_user_agent_and_may_request_an_error_status() {
    let server = Server::with(&["--subscribers-max", "0"]).await;
    let firefox =
        "Accept: text/event-stream\r\nUser-Agent: Mozilla/5.0 (X11; Linux) Firefox/128\r\n";
    let mut stream = server.stream("topic=a", firefox).await;
    assert_eq!(stream.status(), 200, "{}", stream.head);
    assert_eq!(stream.next().await, None);
    assert!(stream.retry.is_some());
    for headers in [firefox, BROWSER] {
        let path = "/events?topic=a&refuse_with_status=1";
        assert_unavailable(&server.ask("GET", path, headers, "").await, "the limit is");
    }
}

#[tokio::test]
async fn subscriptions_of_one_client_above_their_limit_are_refused() {
    let server = Server::with(&["--subscribers-per-client-max", "1"]).await;
    let _first = server.subscribe("client=alice").await;
    let refused = server.get("/events?client=alice").await;
    assert_unavailable(&refused, "The client has too many open subscriptions: the limit is 1.");
    assert_browser_must_reconnect_later(&server, "client=alice").await;
    let _other = server.subscribe("client=bob").await;
}

#[tokio::test]
async fn connections_above_their_limit_are_refused() {
    let server = Server::with(&["--connections-max", "1"]).await;
    let mut stream = server.subscribe("topic=a").await;
    assert_unavailable(&server.get("/topics").await, "limit of connections");
    // Through these paths, an operator can see that the limit is reached. So the paths must still
    // work at the limit.
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let metrics = server.get("/metrics").await.body;
    let refused = "connections_refused_total{listener=\"public\",reason=\"connections_max\"} ";
    for line in [
        "connections{listener=\"public\"} 1",
        "connections_max{listener=\"public\"} 1",
        // The first request was refused. The four requests since then were answered, but their
        // connections were above the limit.
        &format!("{refused}5"),
    ] {
        assert!(metrics.contains(&format!("\ndownlink_{line}\n")), "{line}: {metrics}");
    }
    assert_browser_must_reconnect_later(&server, "topic=a").await;
    server.hub.to("a").publish("x".to_owned()).expect("there is room");
    assert_eq!(stream.data().await, "x");
}

#[tokio::test]
async fn topics_above_their_limit_are_refused() {
    let server = Server::with(&["--topics-max", "2"]).await;
    server.publish("topic=a", "x").await;
    let mut full = None;
    for number in 0..3 {
        let answer = server.post(&format!("/events?topic=more/{number}"), "x").await;
        if answer.status != 200 {
            full = Some(answer);
            break;
        }
    }
    let full = full.expect("one of the four topics exceeds the limit of 2");
    full.problem(503);
    assert_unavailable(&full, "Too many topics have events or are finished: the limit is 2.");
    server.publish("topic=a", "still").await;
}

#[tokio::test]
async fn subscribed_topics_and_clients_above_their_limit_are_refused() {
    let server = Server::with(&["--subscribed-names-max", "10"]).await;
    let mut readers = Vec::new();
    for number in 0..9 {
        readers.push(server.subscribe(&format!("topic=read/{number}")).await);
    }
    let inbox = server.subscribe("client=alice").await;
    let says = "All open subscriptions together name too many topics and clients: the limit is 10.";
    for query in ["topic=read/9", "client=bob", "topic=read/0&topic=read/9"] {
        assert_unavailable(&server.get(&format!("/events?{query}")).await, says);
        assert_browser_must_reconnect_later(&server, query).await;
    }
    // A topic or client counts once, even if it has several subscriptions.
    let _again = server.subscribe("topic=read/0&topic=read/1&client=alice").await;
    // Publishing still works, both to new topics and to topics with subscriptions.
    for number in 0..30 {
        server.publish(&format!("topic=new/{number}"), "x").await;
        server.publish(&format!("client=new-{number}"), "x").await;
    }
    for (number, reader) in readers.iter_mut().enumerate() {
        let topic = format!("topic=read/{number}");
        assert_eq!(server.publish(&topic, "x").await["subscribers"], 1 + u64::from(number < 2));
        assert_eq!(reader.data().await, "x");
    }
    drop((readers, inbox));
    patiently(async { while server.stream("topic=read/9", "").await.status() != 200 {} }).await;
}

#[tokio::test]
async fn patterns_above_their_limit_are_refused() {
    let server = Server::with(&["--patterns-max", "2"]).await;
    let _first = server.subscribe("topic=a/*").await;
    let second = server.subscribe("topic=b/*").await;
    let refused = server.get("/events?topic=c/*").await;
    assert_unavailable(
        &refused,
        "All open subscriptions together have too many patterns: the limit is 2.",
    );
    assert_browser_must_reconnect_later(&server, "topic=c/*").await;
    let _again = server.subscribe("topic=a/*").await;
    server.publish("topic=c/1", "x").await;
    drop(second);
    patiently(async { while server.stream("topic=c/*", "").await.status() != 200 {} }).await;
}

#[tokio::test]
async fn topics_without_events_do_not_count_against_topics_max() {
    let server = Server::with(&["--topics-max", "2"]).await;
    let _reader = server.subscribe("topic=a&topic=b&topic=c&client=d").await;
    server.publish("topic=e", "x").await;
    server.publish("topic=f", "x").await;
    let full = server.post("/events?topic=a", "x").await;
    assert_unavailable(&full, "Too many topics have events or are finished: the limit is 2.");
}

#[tokio::test]
async fn a_draining_server_refuses_subscriptions_and_takes_publishes() {
    let server = Server::start().await;
    let stream = server.subscribe("topic=a").await;
    server.publish("topic=a", "before").await;
    server.hub.drain();
    assert_eq!(stream.rest().await, ["before"]);
    assert_unavailable(
        &server.get("/events?topic=a").await,
        "The hub is draining and accepts no new subscriptions.",
    );
    assert_browser_must_reconnect_later(&server, "topic=a").await;
    server.publish("topic=a", "kept for later readers").await;
}

#[tokio::test]
async fn open_streams_and_idle_connections_end_without_an_error_when_the_server_stops() {
    let mut server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut idle = server.connect().await;
    server.publish("topic=a", "x").await;
    assert_eq!(stream.data().await, "x");
    server.stop();
    assert_eq!(stream.next().await, None);
    assert!(stream.retry.is_some(), "{}", stream.body);
    assert_eq!(stream.rest().await, [""; 0]);
    let mut nothing = Vec::new();
    patiently(idle.read_to_end(&mut nothing)).await.expect("the connection ends without an error");
    server.ended().await;
}

/// A subscription may have 1,000 selectors, which are topics and patterns. But all selectors are in
/// the URL, so together they must fit in the head of the request.
#[tokio::test]
async fn selectors_must_fit_in_the_head_of_the_request() {
    let server = Server::start().await;
    let query = |topics: usize, bytes: usize| {
        (0..topics).map(|at| format!("topic={at:0>bytes$}&")).collect::<String>()
    };
    for (topics, bytes) in [(650, 43), (1_000, 25)] {
        assert_eq!(server.stream(&query(topics, bytes), "").await.status(), 200, "{topics}");
    }
    let refused = server.get(&format!("/events?{}", query(1_000, 43))).await.problem(431);
    assert!(refused.contains("many topics may use a pattern"), "{refused}");
    let refused = server.get(&format!("/events?{}", query(1_001, 20))).await.problem(400);
    assert!(refused.contains("1001"), "{refused}");
}
