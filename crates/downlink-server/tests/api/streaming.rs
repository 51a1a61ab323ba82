//! `POST /events` with a stream of events as its body.

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
        io.write_all(head.as_bytes()).await.expect("the connection is open");
        Self(io)
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.0.write_all(chunk.as_bytes()).await.expect("the connection is open");
    }

    async fn end(mut self) -> Answer {
        self.0.write_all(b"0\r\n\r\n").await.expect("the connection is open");
        self.answer().await
    }

    /// Reads the answer, without ending the request body first.
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
    let query = "topic=a&client=c&ids=keep";
    let mut publishing = Publishing::begin(&server, query, EVENT_STREAM).await;
    publishing.send("event: note\nid: my-1\ndata: one\n\n: a comment\n\nda").await;
    let first = stream.next().await.expect("an event");
    let first = (&*first.event_type, &*first.last_event_id, first.data.as_str());
    assert_eq!(first, ("note", "my-1", "one"));
    publishing.send("ta: two\ndata: lines\n\ndata: unfinished\n").await;
    let second = stream.next().await.expect("an event");
    assert_eq!((&*second.event_type, second.data.as_str()), ("message", "two\nlines"));
    let answer = publishing.end().await.json();
    let third = stream.next().await.expect("an event");
    assert_eq!(third.data, "unfinished");
    let id = &*third.last_event_id;
    assert_eq!(answer, json!({ "id": id, "events": 3, "repeated": 0, "subscribers": 1 }));
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
async fn a_chunk_with_many_events_does_not_block_other_tasks() {
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
        // The handler lets other tasks run after each `at_once` events. But hyper (the HTTP
        // library) may poll the handler up to 16 times before other tasks run.
        let most = patiently(watching).await.expect("the task did not panic");
        assert!((at_once..=16 * at_once).contains(&most), "{most}");
    }
}

#[tokio::test]
async fn an_empty_stream_publishes_nothing() {
    let server = Server::start().await;
    let answer = Publishing::begin(&server, "topic=a", EVENT_STREAM).await.end().await;
    assert_eq!(answer.json(), json!({ "id": null, "events": 0, "repeated": 0, "subscribers": 0 }));
    let answer = Publishing::begin(&server, "topic=a", LINES).await.end().await;
    assert_eq!(answer.json()["events"], 0);
}

#[tokio::test]
async fn with_finish_on_end_the_topic_is_finished_when_the_stream_ends() {
    let server = Server::start().await;
    let stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a&finish_on_end=true", LINES).await;
    publishing.send("1\n2\n").await;
    publishing.end().await.json();
    assert_eq!(stream.rest().await, ["1", "2"]);
    let late = server.post("/events?topic=a", "x").await;
    assert!(late.problem(409).contains(
        "A topic of the event is finished, so it accepts no more events. Publish to another"
    ));
}

#[tokio::test]
async fn events_of_an_incomplete_stream_stay_published() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a", LINES).await;
    publishing.send("1\n").await;
    assert_eq!(stream.data().await, "1");
    drop(publishing);
    server.publish("topic=a", "2").await;
    assert_eq!(stream.data().await, "2");
}

/// Without the event `upstream.broken`, subscribers would not know that the stream is incomplete.
#[tokio::test]
async fn subscribers_get_an_event_if_a_stream_with_finish_on_end_breaks_off() {
    let server = Server::start().await;
    for (topic, rest) in [("cut", None), ("wrong", Some("{\n"))] {
        let mut stream = server.subscribe(&format!("topic={topic}")).await;
        let query = format!("topic={topic}&client=c&finish_on_end=1");
        let mut publishing = Publishing::begin(&server, &query, LINES).await;
        publishing.send("1\n2\n").await;
        assert_eq!([stream.data().await, stream.data().await], ["1", "2"]);
        match rest {
            None => drop(publishing),
            Some(rest) => {
                publishing.send(rest).await;
                publishing.answer().await.problem(400);
            }
        }
        let broken = stream.next().await.expect("an event");
        assert_eq!((&*broken.event_type, &*broken.data), ("upstream.broken", r#"{"published":2}"#));
        assert!(stream.next().await.is_none(), "the topic is finished");
        server.post(&format!("/events?topic={topic}"), "x").await.problem(409);
    }
}

#[tokio::test]
async fn a_finished_topic_breaks_off_a_stream_and_the_other_topics_are_finished() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let query = "topic=a&topic=b&finish_on_end=1";
    let mut publishing = Publishing::begin(&server, query, LINES).await;
    publishing.send("1\n").await;
    assert_eq!(stream.data().await, "1");
    server.post("/finish?topic=b", "").await.json();
    publishing.send("2\n").await;
    publishing.answer().await.problem(409);
    assert_eq!(&*stream.next().await.expect("an event").event_type, "upstream.broken");
    assert!(stream.next().await.is_none(), "the topic is finished");
}

#[tokio::test]
async fn a_body_without_events_is_refused() {
    let server = Server::start().await;
    let stream = "Content-Type: text/event-stream\r\n";
    let path = "/events?topic=a";
    for body in ["{\"a\": 1}", "<!doctype html>\n\n<p>Gone</p>\n", "\n\n\n"] {
        server.refuses(("POST", path, stream), body, (400, "The body has no event")).await;
    }
    let comments = Publishing::begin(&server, "topic=a", EVENT_STREAM);
    let mut comments = comments.await;
    comments.send(": nothing yet\n\n").await;
    assert_eq!(comments.end().await.json()["events"], 0);
}

#[tokio::test]
async fn a_body_that_is_compressed_or_not_utf8_or_a_form_is_refused() {
    let server = Server::start().await;
    let compressed = [0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 3];
    for path in ["/events?topic=a", "/events/batch"] {
        for content_type in ["text/event-stream", "application/x-ndjson", "text/plain"] {
            let coded = format!("Content-Type: {content_type}\r\nContent-Encoding: gzip\r\n");
            let says = (415, "content coding \"gzip\"");
            server.refuses(("POST", path, &coded), compressed, says).await;
            let latin = format!("Content-Type: {content_type}; charset=ISO-8859-1\r\n");
            let says = (415, "character set \"ISO-8859-1\"");
            server.refuses(("POST", path, &latin), b"data: \xe9\n\n", says).await;
        }
        let form = "Content-Type: multipart/form-data; boundary=x\r\n";
        let body = "--x\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\nhi\r\n--x--\r\n";
        server.refuses(("POST", path, form), body, (415, "form of several parts")).await;
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let says = (415, "form with the field topic");
    server.refuses(("POST", "/events?topic=a", form), "topic=a&data=hi", says).await;
    // By default, `curl -d` sends this content type.
    let mut stream = server.subscribe("topic=a").await;
    server.ask("POST", "/events?topic=a", form, "hello").await.json();
    assert_eq!(stream.data().await, "hello");
}

#[tokio::test]
async fn events_before_invalid_utf8_are_published() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    for (content_type, body) in [
        ("text/event-stream", &b"data: good\n\ndata: \xff\n\n"[..]),
        ("application/x-ndjson", &b"\"good\"\n\"\xff\"\n"[..]),
    ] {
        let headers = format!("Content-Type: {content_type}\r\n");
        let refused = server.ask("POST", "/events?topic=a", &headers, body).await.problem(400);
        assert!(refused.contains("not UTF-8") && refused.contains("Published: 1"), "{refused}");
        assert!(stream.data().await.contains("good"));
    }
}

#[tokio::test]
async fn the_last_event_of_a_stream_needs_no_blank_line() {
    let server = Server::start().await;
    let stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a&finish_on_end=1", EVENT_STREAM).await;
    publishing.send("data: one\n\ndata: [DONE]\n").await;
    assert_eq!(publishing.end().await.json()["events"], 2);
    assert_eq!(stream.rest().await, ["one", "[DONE]"]);
}

#[tokio::test]
async fn unusable_ids_and_types_do_not_stop_a_stream() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let long = "x".repeat(2_000);
    let foreign = [
        "event: error\ndata: 0\n\n",
        "event: open\ndata: 1\n\n",
        "event: downlink.gap\ndata: 2\n\n",
        "event: note\nid: 7\ndata: 3\n\n",
        "id: 7\ndata: 4\n\n",
        "id: a b\ndata: 5\n\n",
        "id: é\ndata: 6\n\n",
        "id: earliest\ndata: 7\n\n",
        &format!("id: {long}\ndata: 8\n\n"),
        &format!("event: {long}\ndata: 9\n\n"),
    ];
    let mut publishing = Publishing::begin(&server, "topic=a", EVENT_STREAM).await;
    publishing.send(&foreign.concat()).await;
    let answer = publishing.end().await.json();
    assert_eq!((&answer["events"], &answer["repeated"]), (&json!(10), &json!(0)));
    let types = ["upstream.error", "upstream.open", "upstream.downlink.gap", "note"];
    let mut ids = std::collections::BTreeSet::new();
    for number in 0..10 {
        let event = stream.next().await.expect("an event");
        let event_type = types.get(number).copied().unwrap_or("message");
        assert_eq!((&*event.event_type, event.data), (event_type, number.to_string()));
        ids.insert(event.last_event_id.to_string());
    }
    assert_eq!(ids.len(), 10, "the hub gives each event its own id");
}

#[tokio::test]
async fn the_parameters_ids_and_types_decide_if_ids_and_types_are_kept() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let publish = async |parameters: &str, body: &str| {
        let query = format!("topic=a&{parameters}");
        let mut publishing = Publishing::begin(&server, &query, EVENT_STREAM).await;
        publishing.send(body).await;
        publishing.end().await
    };
    // The publisher sends the same event five times. Subscribers get it once, so `events` is 1.
    let answer = publish("ids=keep", &"id: 0\ndata: tick\n\n".repeat(5)).await.json();
    assert_eq!((&answer["events"], &answer["repeated"]), (&json!(1), &json!(4)));
    assert_eq!(stream.data().await, "tick");
    let answer = publish("ids=drop", &"id: 0\ndata: tick\n\n".repeat(5)).await.json();
    assert_eq!((&answer["events"], &answer["repeated"]), (&json!(5), &json!(0)));
    for _ in 0..5 {
        assert_eq!(stream.data().await, "tick");
    }
    publish("types=drop", "event: note\ndata: x\n\n").await.json();
    assert_eq!(&*stream.next().await.expect("an event").event_type, "message");
    for (parameters, body, says) in [
        ("ids=keep", "id: a b\ndata: x\n\n", "is not an event id"),
        ("types=keep", "event: error\ndata: x\n\n", "is reserved"),
        ("ids=other", "", "The value of ids must be drop or keep."),
        ("types=other", "", "The value of types must be prefix, keep or drop."),
    ] {
        let detail = publish(parameters, body).await.problem(400);
        assert!(detail.contains(says), "{detail}");
    }
    let refused = Publishing::begin(&server, "topic=a&ids=keep", LINES).await.answer().await;
    assert!(refused.problem(400).contains("for text/event-stream"));
    let path = "/events?topic=a&ids=keep";
    server.refuses(("POST", path, ""), "x", (400, "ids is for a stream")).await;
}

#[tokio::test]
async fn json_lines_have_several_content_types_and_may_begin_with_a_byte_order_mark() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    for content_type in [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-lines; charset=utf-8",
    ] {
        let headers = format!("Content-Type: {content_type}\r\n");
        let body = "\u{feff}{\"n\":1}\n2\n";
        let answer = server.ask("POST", "/events?topic=a", &headers, body).await.json();
        assert_eq!(answer["events"], 2, "{content_type}");
        assert_eq!([stream.data().await, stream.data().await], ["{\"n\":1}", "2"]);
    }
    let batch = "\u{feff}{\"topic\":\"a\",\"data\":\"of a batch\"}\n";
    server.post("/events/batch", batch).await.json();
    assert_eq!(stream.data().await, "of a batch");
}

#[tokio::test]
async fn an_error_in_a_stream_says_how_many_events_were_published() {
    let server = Server::start().await;
    let mut stream = server.subscribe("topic=a").await;
    let mut publishing = Publishing::begin(&server, "topic=a", LINES).await;
    publishing.send("1\n2\n{\n4\n").await;
    let detail = publishing.answer().await.problem(400);
    assert_eq!([stream.data().await, stream.data().await], ["1", "2"]);
    let id = stream.last_event_id();
    let expected = format!(
        "Event 3 of the stream: A line is not JSON: see column 1. Published: 2, the last as \
         {id}."
    );
    assert_eq!(detail, expected);

    let query = "topic=a&types=keep";
    let mut publishing = Publishing::begin(&server, query, EVENT_STREAM).await;
    publishing.send("event: downlink.gap\ndata: x\n\n").await;
    let detail = publishing.answer().await.problem(400);
    assert!(detail.contains("is reserved") && detail.contains("Nothing was published."));
    server.publish("topic=a", "end").await;
    assert_eq!(stream.data().await, "end");
}

#[tokio::test]
async fn event_bytes_max_limits_each_event_of_a_stream() {
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
async fn parameters_of_single_events_are_refused_with_a_stream() {
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
async fn a_stream_that_pauses_too_long_gets_a_408() {
    let server = Server::with(&["--stream-pause-max", "50ms", "--body-timeout", "1ms"]).await;
    let mut publishing = Publishing::begin(&server, "topic=a", LINES).await;
    publishing.send("1\n").await;
    let detail = publishing.answer().await.problem(408);
    assert!(detail.contains("No part of the body arrived for 0.05 s"), "{detail}");
    assert!(detail.contains("Published: 1"), "{detail}");
}

#[tokio::test]
async fn a_server_that_shuts_down_says_how_many_events_of_a_stream_were_published() {
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
