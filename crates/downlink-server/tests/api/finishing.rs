//! Tests of finished topics. A publish with `last=true` or a `POST /finish` finishes a topic. The
//! topic then takes no more events.

use serde_json::json;

use crate::Server;

#[tokio::test]
async fn the_last_event_ends_the_streams_of_its_topic() {
    let server = Server::start().await;
    let exact = server.subscribe("topic=a").await;
    let mut pattern = server.subscribe("topic=*").await;
    server.publish("topic=a", "one").await;
    server.publish("topic=a&last=true", "two").await;
    assert_eq!(exact.rest().await, ["one", "two"]);
    server.publish("topic=b", "goes on").await;
    assert_eq!(
        [pattern.data().await, pattern.data().await, pattern.data().await],
        ["one", "two", "goes on"]
    );
}

#[tokio::test]
async fn a_topic_can_be_finished_without_a_last_event() {
    let server = Server::start().await;
    let stream = server.subscribe("topic=a").await;
    server.publish("topic=a", "one").await;
    let answer = server.post("/finish?topic=a", "").await.json();
    assert_eq!(answer, json!({ "id": answer["id"], "subscribers": 1 }));
    assert!(answer["id"].is_string());
    assert_eq!(stream.rest().await, ["one"]);
    server
        .refuses(("POST", "/finish?topic=a", ""), "", (409, "A topic of the event is finished"))
        .await;
    server.refuses(("POST", "/events?topic=a", ""), "x", (409, "Publish to another")).await;
}

#[tokio::test]
async fn a_finish_with_an_idempotency_key_may_be_repeated() {
    let server = Server::start().await;
    let key = "Idempotency-Key: end\r\n";
    let first = server.ask("POST", "/finish?topic=a", key, "").await.json();
    let again = server.ask("POST", "/finish?topic=a", key, "").await.json();
    assert_eq!(again, json!({ "id": first["id"], "subscribers": 0, "repeated": true }));
    let other = server.ask("POST", "/finish?topic=b", key, "").await;
    assert_eq!(other.status, 409, "{}", other.body);
    let twice = server.ask("POST", "/finish?topic=b", &key.repeat(2), "").await;
    assert_eq!(twice.status, 400, "{}", twice.body);
}

#[tokio::test]
async fn a_reloaded_page_reads_a_finished_topic_from_the_beginning() {
    let server = Server::start().await;
    let first = server.publish_id("topic=a", "one").await;
    let last = server.publish_id("topic=a&last=1", "two").await;
    assert_eq!(server.subscribe("topic=a").await.rest().await, ["one", "two"]);
    let header = format!("Last-Event-ID: {first}\r\n");
    assert_eq!(server.stream("topic=a&open=0", &header).await.rest().await, ["two"]);
    // This client already has every event of the topic. So the answer is 204, which tells an
    // `EventSource` to stop reconnecting.
    let header = format!("Last-Event-ID: {last}\r\n");
    let answer = server.ask("GET", "/events?topic=a", &header, "").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
}

#[tokio::test]
async fn only_topics_can_be_finished() {
    let server = Server::start().await;
    for query in ["everyone&last=1", "client=c&last=1", "topic=a&client=c&last=1"] {
        let path = format!("/events?{query}");
        server.refuses(("POST", &path, ""), "x", (400, "Only topics can be finished")).await;
    }
    server.refuses(("POST", "/finish", ""), "", (400, "add ?topic=NAME")).await;
    server.refuses(("POST", "/finish?topic=a/*", ""), "", (400, ", not a topic")).await;
}
