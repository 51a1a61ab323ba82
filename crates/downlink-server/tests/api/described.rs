//! With `GET /events?meta=1`, each event comes with its addresses, type and time.

use serde_json::{Value, json};

use crate::{Server, stream::Stream};

/// Reads the next event of a stream with `meta=1`. Returns the event's id and its data, which is a
/// JSON object that describes the event.
async fn next(stream: &mut Stream) -> (String, Value) {
    let event = stream.next().await.expect("an event");
    assert_eq!(event.event_type, "downlink.event");
    let described = serde_json::from_str(&event.data).expect("JSON");
    (event.last_event_id.to_string(), described)
}

#[tokio::test]
async fn every_event_has_its_type_and_addresses() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a&topic=b/*&client=c&meta=1").await;
    let hostile = "<img src=x>\n\"\\\u{1b}é";
    let ids = [
        server.publish_id("topic=a&topic=b/1&client=c&client=d&event=price", "1").await,
        server.publish_id("everyone=1", "2").await,
        server.publish_id("client=c&id=mine&retry=50", hostile).await,
        server.publish_id("topic=a", "").await,
    ];
    let now =
        u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("the time is after 1970");
    let expected = [
        json!({ "topics": ["a", "b/1"], "clients": ["c", "d"], "everyone": false,
                "event": "price", "data": "1" }),
        json!({ "topics": [], "clients": [], "everyone": true, "event": null, "data": "2" }),
        json!({ "topics": [], "clients": ["c"], "everyone": false, "event": null,
                "data": hostile }),
        json!({ "topics": ["a"], "clients": [], "everyone": false, "event": null, "data": "" }),
    ];
    for (id, expected) in ids.into_iter().zip(expected) {
        let (found, mut described) = next(&mut stream).await;
        assert_eq!(found, id);
        let at = described.as_object_mut().expect("an object").remove("at");
        let at = at.and_then(|at| at.as_u64()).expect("a time");
        assert!(at <= now && now - at < 60_000, "{at} {now}");
        assert_eq!(described, expected);
    }
}

#[tokio::test]
async fn meta_1_changes_only_the_events_of_its_own_subscription() {
    let server = Server::start().await;
    let mut plain = server.subscribe("topic=a").await;
    let mut off = server.subscribe("topic=a&meta=0").await;
    let mut meta = server.subscribe("topic=a&meta").await;
    let id = server.publish_id("topic=a&event=price", "1\n2").await;
    for stream in [&mut plain, &mut off] {
        assert_eq!(stream.data().await, "1\n2");
        let frame = format!("event: price\nid: {id}\ndata: 1\ndata: 2\n\n");
        assert!(stream.body.ends_with(&frame), "{}", stream.body);
    }
    let (_, described) = next(&mut meta).await;
    let frame = format!("event: downlink.event\nid: {id}\ndata: {{\"topics\":[\"a\"],");
    assert!(meta.body.contains(&frame), "{}", meta.body);
    assert!(meta.body.ends_with(",\"data\":\"1\\n2\"}\n\n"), "{}", meta.body);
    assert_eq!(described["data"], "1\n2");
}

#[tokio::test]
async fn a_meta_subscription_resumes_and_gets_gaps() {
    let server = Server::with(&["--retain-events", "2"]).await;
    let first = server.publish_id("topic=a", "1").await;
    for data in ["2", "3", "4"] {
        server.publish("topic=a", data).await;
    }
    let mut stream = server.subscribe(&format!("topic=a&meta=1&last_event_id={first}")).await;
    let gap = stream.gap().await;
    assert_eq!((&gap["reason"], &gap["after"]), (&json!("evicted"), &json!(first)));
    let (third, described) = next(&mut stream).await;
    assert_eq!(described["data"], "3");
    let header = format!("Last-Event-ID: {third}\r\n");
    let mut again = server.stream("topic=a&meta=1&open=0", &header).await;
    assert_eq!(next(&mut again).await.1["data"], "4");
}

#[tokio::test]
async fn with_meta_1_the_largest_event_arrives_and_invalid_values_of_meta_are_refused() {
    let server = Server::with(&["--event-bytes-max", "2000"]).await;
    let mut stream = server.subscribe("topic=a&meta=1").await;
    let data = "\u{1}".repeat(1_900);
    server.publish("topic=a", &data).await;
    assert_eq!(next(&mut stream).await.1["data"], data);
    server.refuses(("GET", "/events?meta=maybe", ""), "", (400, "meta must be 1 or 0")).await;
    server.refuses(("GET", "/events?meta=1&meta=1", ""), "", (400, "only once")).await;
    server
        .refuses(("POST", "/events?topic=a&event=downlink.event", ""), "x", (400, "reserved"))
        .await;
}
