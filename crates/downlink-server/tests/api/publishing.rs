//! `POST /events`: the parameters of an event, and the answer.

use serde_json::json;

use crate::{Server, escaped};

#[tokio::test]
async fn the_answer_has_the_id_and_the_number_of_subscribers() {
    let server = Server::start().await;
    let mut streams = [server.subscribe("topic=a").await, server.subscribe("topic=a").await];
    let answer = server.publish("topic=a", "x").await;
    assert_eq!(answer, json!({ "id": answer["id"], "subscribers": 2 }));
    for stream in &mut streams {
        let event = stream.next().await.expect("an event");
        assert_eq!(*event.last_event_id, *answer["id"].as_str().expect("an id"));
    }
    let nobody = server.publish("topic=nobody", "x").await;
    assert_eq!(nobody["subscribers"], 0);
}

#[tokio::test]
async fn every_field_is_sent_in_a_fixed_order() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    server.publish("topic=a&event=note&id=my-1&retry=2500", "one\ntwo\r\nthree").await;
    let event = stream.next().await.expect("an event");
    assert_eq!((&*event.event_type, event.data.as_str()), ("note", "one\ntwo\nthree"));
    let wire = "event: note\nid: my-1\nretry: 2500\ndata: one\ndata: two\ndata: three\n\n";
    assert!(stream.body.ends_with(wire), "{}", stream.body);
    assert_eq!(stream.retry, Some(2_500));
}

#[tokio::test]
async fn the_body_is_the_data() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    for data in ["", " x", "data: x", "a=b&c=%20+", "{\"a\": 1}", "é\u{1f600}\u{2028}", "a\n\nb"] {
        server.publish("topic=a", data).await;
        assert_eq!(stream.data().await, data);
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(server.ask("POST", "/events?topic=a", form, "x=1&y").await.status, 200);
    assert_eq!(stream.data().await, "x=1&y");
}

#[tokio::test]
async fn topics_and_client_ids_may_have_special_characters() {
    let server = Server::start().await;
    let topic = escaped("räume/grün & co/\u{1f600}");
    let client = escaped("a+b@example.org/{*}");
    let mut stream = server.subscribe(&format!("topic={topic}&client={client}")).await;
    server.publish(&format!("topic={topic}"), "topic").await;
    server.publish(&format!("client={client}"), "client").await;
    assert_eq!([stream.data().await, stream.data().await], ["topic", "client"]);
}

#[tokio::test]
async fn flags_may_be_written_in_several_ways() {
    let server = Server::start().await;
    for query in ["everyone", "everyone=", "everyone=1", "everyone=true", "_=7&everyone&_x"] {
        server.publish(query, "x").await;
    }
    let off = server.post("/events?everyone=0", "x").await;
    assert!(off.problem(400).contains("No recipient"));
    server.publish("topic=a&everyone=false&last=0", "x").await;
}

#[tokio::test]
async fn an_id_from_a_publisher_belongs_to_one_event() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let first = server.publish("topic=a&id=my-1", "x").await;
    assert_eq!(first, json!({ "id": "my-1", "subscribers": 1 }));
    let again = json!({ "id": "my-1", "subscribers": 1, "repeated": true });
    assert_eq!(server.publish("topic=a&id=my-1", "x").await, again);
    let before = server.hub.stats();
    let other = server.post("/events?topic=a&id=my-1", "y").await;
    assert!(other.problem(409).contains("The id belongs to an event with other content."));
    server.is_unharmed(&before).await;
    server.publish("topic=a", "end").await;
    assert_eq!([stream.data().await, stream.data().await], ["x", "end"]);
}

#[tokio::test]
async fn an_idempotency_key_publishes_once() {
    let server = Server::start().await;
    let key = "Idempotency-Key: k-1\r\n";
    let first = server.ask("POST", "/events?topic=a", key, "x").await.json();
    let again = server.ask("POST", "/events?topic=a", key, "x").await.json();
    assert_eq!((&again["id"], &again["repeated"]), (&first["id"], &json!(true)));
    let other = server.ask("POST", "/events?topic=a", key, "y").await;
    assert!(other.problem(409).contains("Use a new key"));
    let fresh = server.ask("POST", "/events?topic=a", "Idempotency-Key: k-2\r\n", "x").await;
    assert_ne!(fresh.json()["id"], first["id"]);
    assert_eq!(server.hub.stats().published, 2);
}

#[tokio::test]
async fn invalid_idempotency_keys_are_refused() {
    let server = Server::start().await;
    let key = |bytes: usize| format!("Idempotency-Key: {}\r\n", "k".repeat(bytes));
    for bytes in [254, 255] {
        server.ask("POST", "/events?topic=a", &key(bytes), "x").await.json();
    }
    let request = ("POST", "/events?topic=a", &*key(256));
    server.refuses(request, "x", (400, "this one has 256")).await;
    server.refuses(("POST", "/events?topic=a", &key(0)), "x", (400, "1 to 255 bytes")).await;
    let twice = key(1) + &key(2);
    server.refuses(("POST", "/events?topic=a", &twice), "x", (400, "one Idempotency-Key")).await;
    let strange = "Idempotency-Key: é\r\n";
    server.refuses(("POST", "/events?topic=a", strange), "x", (400, "visible ASCII")).await;
}

#[tokio::test]
async fn an_event_above_its_limit_of_addresses_is_refused() {
    let server = Server::start().await;
    let query = |topics: usize| {
        let topics = (0..topics).map(|number| format!("topic={number:x}"));
        format!("/events?{}", topics.collect::<Vec<_>>().join("&"))
    };
    for topics in [999, 1_000] {
        server.post(&query(topics), "x").await.json();
    }
    let path = query(1_001);
    server
        .refuses(("POST", &path, ""), "x", (400, "too many topics and clients: the limit is 1000"))
        .await;
}

#[tokio::test]
async fn two_requests_on_one_connection_get_their_answers() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let post = |data: &str, more: &str| {
        let (host, length) = (server.address, data.len());
        format!(
            "POST /events?topic=a HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {length}\r\n\r\n{data}"
        )
    };
    let both = post("one", "") + &post("two", "Connection: close\r\n");
    let answers = server.exchange(both.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!([stream.data().await, stream.data().await], ["one", "two"]);
}

/// With a reconnection time of 0, every browser would reconnect without a pause.
#[tokio::test]
async fn a_reconnection_time_has_bounds() {
    let server = Server::start().await;
    for retry in ["0", "49", "86400001", "18446744073709551615"] {
        let path = format!("/events?topic=a&retry={retry}");
        let says = (400, "A reconnection time is from 50 ms to 86400000 ms");
        server.refuses(("POST", &path, ""), "x", says).await;
        let line = format!("{{\"topic\":\"a\",\"retry\":{retry},\"data\":1}}");
        let says = (400, "Line 1: A reconnection time is from");
        server.refuses(("POST", "/events/batch", ""), line, says).await;
    }
    for retry in ["50", "86400000"] {
        server.publish(&format!("topic=a&retry={retry}"), "x").await;
    }
}
