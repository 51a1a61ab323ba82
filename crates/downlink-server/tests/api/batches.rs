//! `POST /events/batch`: the server publishes all events of a batch or none. An error names the
//! line that is wrong.

use crate::{Server, patiently};

const PATH: (&str, &str, &str) = ("POST", "/events/batch", "");

#[tokio::test]
async fn a_line_may_have_every_field() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a&client=c").await;
    let mut tail = server.subscribe("topic=b/*").await;
    let batch = r#"{"topic":"a","data":"one\ntwo"}

{"topics":["b/1","a"],"client":"c","data":{ "n" : 1.50 , "s":" x " },"event":"note","id":"my-1","retry":70}
{"everyone":true,"data":null}
  {"clients":["c","d"],"data":[ 1, 2 ]}
{"topic":"b/1","data":"","last":true}"#;
    let answer = server.post("/events/batch", batch).await.json();
    let ids: Vec<&str> =
        answer["ids"].as_array().expect("a list").iter().flat_map(|id| id.as_str()).collect();
    assert_eq!((ids.len(), ids[1]), (5, "my-1"));
    let first = stream.next().await.expect("an event");
    assert_eq!((first.data.as_str(), &*first.last_event_id), ("one\ntwo", ids[0]));
    let second = stream.next().await.expect("an event");
    assert_eq!((&*second.event_type, second.data.as_str()), ("note", r#"{"n":1.50,"s":" x "}"#));
    assert_eq!(stream.retry, Some(70));
    assert_eq!([stream.data().await, stream.data().await], ["null", "[1,2]"]);
    assert_eq!(
        [tail.data().await, tail.data().await, tail.data().await][0],
        r#"{"n":1.50,"s":" x "}"#
    );
    assert!(server.get("/topics?topic=b/1").await.json()["finished"] == true);
}

#[tokio::test]
async fn the_error_names_the_wrong_line_and_the_whole_batch_is_refused() {
    let server = Server::start().await;
    server.publish("topic=finished&last=1", "x").await;
    server.publish("topic=a&id=taken", "x").await;
    let million = format!(r#"{{"topic":"{}","data":1}}"#, "t".repeat(1_000_000));
    let strange = format!(r#"{{"topic":"a","data":1,"{}":2}}"#, "k".repeat(1_000_000));
    for (line, says) in [
        ("{", "Line 3: EOF"),
        ("[]", "Line 3: "),
        ("7", "Line 3: "),
        (r#"{"topic":"a"}"#, "Missing field \"data\""),
        (r#"{"data":"x"}"#, "No recipient"),
        (r#"{"topic":"a","data":1,"dat":2}"#, "Unknown field \"dat\", expected one of `topic`"),
        (&strange, "Unknown field \"kkk"),
        (r#"{"topic":"a","topic":"b","data":1}"#, "Duplicate field"),
        (r#"{"topic":"a//b","data":1}"#, "empty segment at byte 2"),
        (r#"{"topic":"a/*","data":1}"#, "reserved character at byte 2"),
        (r#"{"topic":"","data":1}"#, "the name is empty"),
        (&million, "has 1000000 bytes"),
        (r#"{"client":"\u0000","data":1}"#, "control character"),
        (r#"{"topic":"a","event":"a\nb","data":1}"#, "event type cannot be sent"),
        (r#"{"topic":"a","event":"open","data":1}"#, "is reserved"),
        (r#"{"topic":"a","id":"a b","data":1}"#, "is not an event id"),
        (r#"{"topic":"a","id":"taken","data":1}"#, "belongs to an event with other content"),
        (r#"{"topic":"finished","data":1}"#, "A topic of the event is finished"),
        (r#"{"topic":"a","retry":-1,"data":1}"#, "Invalid value"),
        (r#"{"everyone":true,"last":true,"data":1}"#, "Only topics can be finished"),
        (r#"{"topic":"a","data":"\ud800"}"#, "Line 3: "),
        (r#"{"topic":"a","data":1} x"#, "Trailing characters"),
    ] {
        let batch =
            format!("{{\"topic\":\"new\",\"data\":1}}\n\n{line}\n{{\"topic\":\"a\",\"data\":1}}\n");
        let before = server.hub.stats();
        let answer = server.post("/events/batch", batch).await;
        let status = if says.contains("other content")
            || says.contains("finished") && !says.contains("Only")
        {
            409
        } else {
            400
        };
        let detail = answer.problem(status);
        assert!(detail.starts_with("Line 3: ") && detail.contains(says), "{line:.80}: {detail}");
        assert!(detail.ends_with("Nothing of the batch was published."), "{detail}");
        server.is_unharmed(&before).await;
    }
}

/// The server cannot repeat the answer to a batch. If it ignored the key, a publisher that repeats
/// the request would publish the batch twice without noticing.
#[tokio::test]
async fn a_batch_with_an_idempotency_key_is_refused() {
    let server = Server::start().await;
    let with_key = ("POST", "/events/batch", "Idempotency-Key: k\r\n");
    let line = r#"{"topic":"a","data":1}"#;
    server.refuses(with_key, line, (400, "Idempotency-Key is for one event")).await;
}

#[tokio::test]
async fn empty_batches_and_batches_with_parameters_are_refused() {
    let server = Server::start().await;
    server.refuses(PATH, "", (400, "The batch is empty")).await;
    server.refuses(PATH, "\n \r\n", (400, "The batch is empty")).await;
    let path = ("POST", "/events/batch?topic=a", "");
    server.refuses(path, "{}", (400, "takes no parameters")).await;
}

#[tokio::test]
async fn a_batch_above_its_limit_of_events_or_bytes_is_refused() {
    let server = Server::start().await;
    let lines = |count: usize| "{\"topic\":\"a\",\"data\":1}\n".repeat(count);
    let answer = patiently(server.post("/events/batch", lines(10_000))).await.json();
    assert_eq!(answer["ids"].as_array().map(Vec::len), Some(10_000));
    server.refuses(PATH, lines(10_001), (413, "more than 10000 events")).await;

    let server = Server::with(&["--batch-bytes-max", "46"]).await;
    server.post("/events/batch", lines(2)).await.json();
    server.refuses(PATH, lines(2) + "\n", (413, "larger than 46 bytes")).await;
}

#[tokio::test]
async fn a_batch_above_its_limit_of_addresses_is_refused() {
    let server = Server::start().await;
    let topics: Vec<String> = (0..1_000).map(|number| format!("{number:x}")).collect();
    let line = serde_json::json!({ "topics": topics, "data": 1 }).to_string() + "\n";
    let most = line.repeat(100);
    let answer = server.post("/events/batch", &most).await.json();
    assert_eq!(answer["ids"].as_array().map(Vec::len), Some(100));
    let one_more = most + "{\"topic\":\"a\",\"data\":1}";
    let says = (413, "more than 100000 topics and clients. Send several");
    server.refuses(PATH, one_more, says).await;
}

/// A line may have far more names than an event may have. The server must refuse such a line
/// without keeping all its names in memory.
#[tokio::test]
async fn a_line_with_a_million_addresses_is_refused() {
    let server = Server::start().await;
    let says = (400, "Line 1: The event has too many topics and clients: the limit is 1000");
    for name in ["topics", "clients"] {
        let many = format!("{{\"{name}\":[{}\"\"],\"data\":1}}", "\"\",".repeat(1_000_000));
        server.refuses(PATH, many, says).await;
    }
    let wrong = "{\"topics\":\"a\",\"data\":1}";
    server.refuses(PATH, wrong, (400, "expected a list of names")).await;
}
