//! `GET /events`: the events that a subscription gets, and how its stream begins.

use serde_json::{Value, json};

use crate::Server;

#[tokio::test]
async fn a_stream_begins_at_once_with_a_comment_and_an_open_event() {
    let server = Server::start().await;
    let id = server.publish_id("topic=a", "before").await;
    let mut stream = server.stream("topic=a", "").await;
    assert_eq!(stream.status(), 200);
    for header in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store, no-transform\r\n",
        "x-accel-buffering: no\r\n",
    ] {
        assert!(stream.head.contains(header), "{}", stream.head);
    }
    let opened = stream.next().await.expect("an event");
    assert_eq!(opened.event_type, "downlink.open");
    assert_eq!(&*opened.last_event_id, id);
    let opened: Value = serde_json::from_str(&opened.data).expect("JSON");
    assert_eq!(opened["resumed"], false);
    assert_eq!(opened["keep_alive_ms"], 15_000);
    assert!(opened["connection"].is_string());
    assert!(
        stream.body.starts_with(": connected\n\nevent: downlink.open\nid: "),
        "{}",
        stream.body
    );
}

#[tokio::test]
async fn with_open_0_the_stream_has_no_open_event() {
    let server = Server::start().await;
    let mut stream = server.stream("topic=a&open=0", "").await;
    server.publish("topic=a", "x").await;
    assert_eq!(stream.data().await, "x");
    assert!(stream.body.starts_with(": connected\n\nid: "), "{}", stream.body);
}

#[tokio::test]
async fn subscriptions_get_events_of_their_topics_patterns_and_everyone() {
    let server = Server::start().await;
    let mut exact = server.subscribe("topic=orders/7&topic=news").await;
    let mut tail = server.subscribe("topic=orders/*").await;
    let mut segment = server.subscribe("topic=orders/%7Bid%7D/status").await;
    let mut nobody = server.subscribe("").await;
    server.publish("topic=orders/7", "one").await;
    server.publish("topic=orders/7/status", "two").await;
    server.publish("topic=news", "three").await;
    server.publish("everyone", "all").await;
    assert_eq!(
        [exact.data().await, exact.data().await, exact.data().await],
        ["one", "three", "all"]
    );
    assert_eq!([tail.data().await, tail.data().await, tail.data().await], ["one", "two", "all"]);
    assert_eq!([segment.data().await, segment.data().await], ["two", "all"]);
    assert_eq!(nobody.data().await, "all");
}

#[tokio::test]
async fn a_client_gets_its_events_on_each_of_its_connections() {
    let server = Server::start().await;
    let mut tabs = [server.subscribe("client=alice").await, server.subscribe("client=alice").await];
    let mut other = server.subscribe("client=bob").await;
    let answer = server.publish("client=alice", "for alice").await;
    assert_eq!(answer["subscribers"], 2);
    server.publish("everyone", "for all").await;
    for tab in &mut tabs {
        assert_eq!([tab.data().await, tab.data().await], ["for alice", "for all"]);
    }
    assert_eq!(other.data().await, "for all");
}

#[tokio::test]
async fn each_connection_gets_an_event_to_several_addresses_once() {
    let server = Server::start().await;
    let mut all = server.subscribe("topic=a&topic=b&client=c").await;
    let mut one = server.subscribe("topic=b").await;
    let answer = server.publish("topic=a&topic=b&client=c&client=d&topic=a", "once").await;
    assert_eq!(answer["subscribers"], 2);
    server.publish("everyone&topic=a", "twice").await;
    for stream in [&mut all, &mut one] {
        let event = stream.next().await.expect("an event");
        assert_eq!(
            (event.data.as_str(), json!(&*event.last_event_id)),
            ("once", answer["id"].clone())
        );
        assert_eq!(stream.data().await, "twice");
    }
}

#[tokio::test]
async fn with_alive_1_a_quiet_subscription_gets_the_newest_id() {
    let server = Server::with(&["--keep-alive", "50ms"]).await;
    let mut stream = server.subscribe("topic=a&alive=1").await;
    let id = server.publish_id("topic=other", "x").await;
    loop {
        let event = stream.next().await.expect("an event");
        assert_eq!(event.event_type, "downlink.alive");
        if *event.last_event_id == id {
            return;
        }
    }
}

#[tokio::test]
async fn a_quiet_subscription_gets_comments_as_keep_alives() {
    let server = Server::with(&["--keep-alive", "20ms"]).await;
    let mut stream = server.subscribe("topic=a").await;
    stream.comment().await;
    stream.comment().await;
    server.publish("topic=a", "late").await;
    assert_eq!(stream.data().await, "late");
}

#[tokio::test]
async fn a_connection_ends_at_max_age() {
    let server = Server::with(&["--max-age", "50ms"]).await;
    let stream = server.subscribe("topic=a").await;
    assert_eq!(stream.rest().await, [""; 0]);
}

#[tokio::test]
async fn a_head_request_gets_the_headers_of_get_and_opens_no_subscription() {
    let server = Server::start().await;
    let answer = server.ask("HEAD", "/events?topic=a", "", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(server.hub.stats().subscribers, 0);
}
