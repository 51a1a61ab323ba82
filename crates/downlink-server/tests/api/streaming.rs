//! `POST /events` with a stream as its body.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Server, answer::Answer, patiently};

const EVENT_STREAM: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson; charset=utf-8";

/// A publish whose request body is still open.
struct Publishing(TcpStream);

impl Publishing {
    async fn begin(server: &Server, query: &str, content_type: &str) -> Self {
        let mut io = server.connect().await;
        let head = format!(
            "POST /events?{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n",
            server.address
        );
        io.write_all(head.as_bytes()).await.expect("open");
        Self(io)
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.write_all(chunk.as_bytes()).await.expect("open");
    }

    async fn end(mut self) -> Answer {
        self.0.write_all(b"0\r\n\r\n").await.expect("open");
        self.answer().await
    }

    /// Reads the answer, which arrives before the request body ends.
    async fn answer(mut self) -> Answer {
        let mut answer = String::new();
        patiently(self.0.read_to_string(&mut answer)).await.expect("an answer");
        Answer::parse(&answer)
    }
}

#[tokio::test]
async fn events_arrive_while_the_body_is_open() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a&client=c").await;
    let mut publishing = Publishing::begin(&server, "topic=a&client=c", EVENT_STREAM).await;
    publishing.send("event: note\nid: my-1\ndata: one\n\n: a comment\n\nda").await;
    let first = stream.next().await.expect("an event");
    let first = (&*first.event_type, &*first.last_event_id, first.data.as_str());
    assert_eq!(first, ("note", "my-1", "one"));
    publishing.send("ta: two\ndata: lines\n\ndata: unfinished\n").await;
    let second = stream.next().await.expect("an event");
    assert_eq!((&*second.event_type, second.data.as_str()), ("message", "two\nlines"));
    let answer = publishing.end().await.json();
    let id = &*second.last_event_id;
    assert_eq!(answer, json!({ "id": id, "events": 2, "subscribers": 1 }));
}

#[tokio::test]
async fn lines_arrive_while_the_body_is_open() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a", LINES).await;
    publishing.send("{\"a\": 1}\n\n\"text").await;
    assert_eq!(stream.data().await, "{\"a\": 1}");
    publishing.send("\"\r\n7").await;
    assert_eq!(stream.data().await, "\"text\"");
    let answer = publishing.end().await.json();
    assert_eq!(stream.data().await, "7");
    assert_eq!(answer["events"], 3);
    assert_eq!(answer["id"], stream.last_event_id());
}

#[tokio::test]
async fn a_piece_with_many_events_lets_others_have_their_turn() {
    let server = Server::start().await;
    for (topics, at_once) in [("topic=a", 64), ("topic=a&topic=b&client=c&everyone", 16)] {
        let hub = server.hub.clone();
        let watching = tokio::spawn(async move {
            let (first, mut seen, mut most) = (hub.stats().published, 0, 0);
            while seen < 4_000 {
                tokio::task::yield_now().await;
                let published = hub.stats().published - first;
                most = most.max(published - seen);
                seen = published;
            }
            most
        });
        let mut publishing = Publishing::begin(&server, topics, LINES).await;
        publishing.send(&"1\n".repeat(4_000)).await;
        assert_eq!(publishing.end().await.json()["events"], 4_000);
        // hyper polls a handler up to 16 times in a row.
        let most = patiently(watching).await.expect("no panic");
        assert!((at_once..=16 * at_once).contains(&most), "{most}");
    }
}

#[tokio::test]
async fn an_empty_stream_publishes_nothing() {
    let server = Server::start().await;
    let answer = Publishing::begin(&server, "topic=a", EVENT_STREAM).await.end().await;
    assert_eq!(answer.json(), json!({ "id": null, "events": 0, "subscribers": 0 }));
    let answer = Publishing::begin(&server, "topic=a", LINES).await.end().await;
    assert_eq!(answer.json()["events"], 0);
}

#[tokio::test]
async fn topics_are_finished_with_the_stream() {
    let server = Server::start().await;
    let stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a&finish_on_end=true", LINES).await;
    publishing.send("1\n2\n").await;
    publishing.end().await.json();
    assert_eq!(stream.rest().await, ["1", "2"]);
    let late = server.post("/events?topic=a", "x").await;
    assert!(late.problem(409).contains("The topic is finished. Publish to another"));
}

#[tokio::test]
async fn a_stream_that_breaks_off_keeps_what_was_published_and_finishes_nothing() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a&finish_on_end=1", LINES).await;
    publishing.send("1\n").await;
    assert_eq!(stream.data().await, "1");
    drop(publishing);
    server.publish("topic=a", "2").await;
    assert_eq!(stream.data().await, "2");
}

#[tokio::test]
async fn what_is_wrong_in_a_stream_is_answered_with_how_far_it_came() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a", LINES).await;
    publishing.send("1\n2\n{\n4\n").await;
    let detail = publishing.answer().await.problem(400);
    assert_eq!([stream.data().await, stream.data().await], ["1", "2"]);
    let id = stream.last_event_id();
    let expected = format!(
        "Event 3 of the stream: A line is not JSON: look at its column 1. Published: 2, the last as \
         {id}."
    );
    assert_eq!(detail, expected);

    let mut publishing = Publishing::begin(&server, "topic=a", EVENT_STREAM).await;
    publishing.send("event: downlink.gap\ndata: x\n\n").await;
    let detail = publishing.answer().await.problem(400);
    assert!(detail.contains("is reserved") && detail.contains("Nothing was published."));
    server.publish("topic=a", "end").await;
    assert_eq!(stream.data().await, "end");
}

#[tokio::test]
async fn lines_and_events_of_a_stream_have_the_limit_of_one_event() {
    let server = Server::with(&["--event-bytes-max", "100"]).await;
    for (content_type, before) in [(EVENT_STREAM, "data: "), (LINES, "\n")] {
        let mut publishing = Publishing::begin(&server, "topic=a", content_type).await;
        publishing.send(before).await;
        publishing.send(&"1".repeat(101)).await;
        let detail = publishing.answer().await.problem(400);
        assert!(detail.contains("longer than 100 bytes"), "{detail}");
    }
}

#[tokio::test]
async fn a_stream_takes_no_parameter_of_one_event() {
    let server = Server::start().await;
    let stream = "Content-Type: Text/Event-Stream\r\n";
    for (parameter, says) in [
        ("event=x", "event is for one event"),
        ("id=x", "id is for one event"),
        ("retry=1", "retry is for one event"),
        ("last=1", "last is for one event"),
    ] {
        let path = format!("/events?topic=a&{parameter}");
        server.refuses(("POST", &path, stream), "data: x\n\n", (400, says)).await;
    }
    let key = format!("{stream}Idempotency-Key: k\r\n");
    let says = (400, "Idempotency-Key is for one event");
    server.refuses(("POST", "/events?topic=a", &key), "data: x\n\n", says).await;
    let path = "/events?client=a&finish_on_end=1";
    server.refuses(("POST", path, stream), "data: x\n\n", (400, "Only topics")).await;
    let path = "/events?topic=a&finish_on_end=1";
    server.refuses(("POST", path, ""), "x", (400, "is for a stream")).await;
    server.refuses(("POST", "/events?topic=a//b", stream), "", (400, "empty segment")).await;
}

#[tokio::test]
async fn a_stream_may_pause_but_not_for_ever() {
    let server = Server::with(&["--stream-pause-max", "50ms", "--body-timeout", "1ms"]).await;
    let mut publishing = Publishing::begin(&server, "topic=a", LINES).await;
    publishing.send("1\n").await;
    let detail = publishing.answer().await.problem(408);
    assert!(detail.contains("Nothing of the body came for 0.05 s"), "{detail}");
    assert!(detail.contains("Published: 1"), "{detail}");
}

#[tokio::test]
async fn a_server_that_shuts_down_says_how_far_a_stream_came() {
    let mut server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a&finish_on_end=1", LINES).await;
    publishing.send("1\n").await;
    let event = stream.next().await.expect("an event");
    server.stop();
    let answer = publishing.answer().await;
    assert!(answer.header("retry-after").is_some());
    let detail = answer.problem(503);
    let says = format!("Published: 1, the last as {}.", event.last_event_id);
    assert!(detail.contains("shutting down") && detail.contains(&says), "{detail}");
    server.ended().await;
}
