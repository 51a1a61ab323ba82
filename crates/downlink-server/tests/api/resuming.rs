//! Tests of the place where a subscription begins. A request names this place with an id in the
//! header or in the query, or with the parameter `start`. If events after this place are missing,
//! the subscription gets a gap, which is a notice of the missing events.

use crate::Server;

/// Starts a server with the events 1, 2 and 3 in topic `a`. Also returns their ids.
async fn with_three() -> (Server, [String; 3]) {
    let server = Server::start().await;
    let ids = [
        server.publish_id("topic=a", "1").await,
        server.publish_id("topic=a", "2").await,
        server.publish_id("topic=a", "3").await,
    ];
    (server, ids)
}

/// Opens a subscription to topic `a` and publishes an event `end`. Returns the data of all events
/// before the first `end`, and `gap` for each gap.
async fn gets(server: &Server, query: &str, headers: &str) -> Vec<String> {
    let mut stream = server.stream(&format!("topic=a&open=0&{query}"), headers).await;
    server.publish("everyone", "end").await;
    let mut got = Vec::new();
    loop {
        match stream.next().await.expect("an event") {
            // If the subscription starts early, this `end` may be from an earlier call of the
            // function.
            event if event.data == "end" => return got,
            event if event.event_type == "downlink.gap" => got.push("gap".to_owned()),
            event => got.push(event.data),
        }
    }
}

/// An id has the form `<epoch>-<offset>`. Each start of a server begins a new epoch. The offset is
/// the position of the event in the log.
#[tokio::test]
async fn ids_are_an_epoch_and_an_offset() {
    let (_server, ids) = with_three().await;
    let parts = ids.each_ref().map(|id| id.split_once('-').expect("a dash"));
    for (epoch, _) in parts {
        assert_eq!(epoch.len(), 8);
        assert!(epoch.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()));
        assert_eq!(epoch, parts[0].0);
    }
    assert_eq!(parts.map(|(_, offset)| offset), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_subscription_resumes_after_an_id_in_the_header_or_the_query() {
    let (server, [first, second, _]) = with_three().await;
    let header = format!("Last-Event-ID: {first}\r\n");
    assert_eq!(gets(&server, "", &header).await, ["2", "3"]);
    let query = format!("last_event_id={second}");
    let mut stream = server.stream(&format!("topic=a&{query}"), "").await;
    let opened = stream.next().await.expect("an event");
    assert!(opened.data.contains("\"resumed\":true"), "{}", opened.data);
    assert_eq!(&*opened.last_event_id, second);
    assert_eq!(stream.data().await, "3");
}

/// Some client libraries put the newest id into the URL, which may already have an older id. They
/// use different names for the parameter.
#[tokio::test]
async fn the_last_id_in_the_query_is_used_under_each_of_its_names() {
    let (server, [first, second, _]) = with_three().await;
    for query in [
        format!("last_event_id={first}&last_event_id={second}"),
        format!("last_event_id={second}&last_event_id="),
        format!("last%5Fevent%5Fid={second}"),
        format!("lastEventId={second}"),
        format!("lastEventID={second}&padding=true"),
        format!("Last-Event-ID={second}"),
        format!("evs_last_event_id={second}&evs_preamble=2056"),
    ] {
        let mut stream = server.stream(&format!("topic=a&open=0&{query}"), "").await;
        assert_eq!(stream.data().await, "3", "{query}");
    }
}

#[tokio::test]
async fn resumed_is_true_only_after_a_known_id() {
    let (server, [first, ..]) = with_three().await;
    let resumed = async |query: &str| {
        let mut stream = server.stream(&format!("topic=a&{query}"), "").await;
        let opened = loop {
            let event = stream.next().await.expect("an event");
            if event.event_type == "downlink.open" {
                break event.data;
            }
        };
        opened.contains("\"resumed\":true")
    };
    assert!(resumed(&format!("last_event_id={first}")).await);
    assert!(resumed(&format!("start=after:{first}")).await);
    for query in [
        "",
        "start=earliest",
        "start=last:1",
        "start=after:unknown",
        "start=after:earliest",
        "last_event_id=earliest",
        "last_event_id=unknown",
        "last_event_id=00000000-1",
    ] {
        assert!(!resumed(query).await, "{query}");
    }
}

#[tokio::test]
async fn the_header_overrides_the_query_and_both_override_start() {
    let (server, [first, second, _]) = with_three().await;
    let header = format!("Last-Event-ID: {second}\r\n");
    let query = format!("last_event_id={first}&start=earliest");
    assert_eq!(gets(&server, &query, &header).await, ["3"]);
    let server = with_three().await.0;
    assert_eq!(gets(&server, "last_event_id=earliest&start=live", "").await, ["1", "2", "3"]);
}

/// The event `both` has the topics `a` and `b`. Topic `a` has evicted the event, but topic `b`
/// still keeps it. The reader reads both topics, so it misses no event and gets no gap.
#[tokio::test]
async fn a_reader_of_two_topics_gets_no_gap_if_one_topic_keeps_the_event() {
    let server = Server::with(&["--retain-events", "1"]).await;
    let before = server.publish_id("topic=other", "before").await;
    server.publish("topic=a&topic=b", "both").await;
    server.publish("topic=a", "one").await;
    for topics in ["topic=a&topic=b", "topic=b&topic=a"] {
        let mut reader =
            server.stream(&format!("{topics}&open=0&last_event_id={before}"), "").await;
        let read = [reader.data().await, reader.data().await];
        assert_eq!(read, ["both", "one"], "{}", reader.body);
    }
}

/// A client that sends `earliest` as its last event id gets all events from the oldest on.
#[tokio::test]
async fn no_event_may_have_the_id_earliest() {
    let server = Server::start().await;
    let refused = server.post("/events?topic=a&id=earliest", "x").await.problem(400);
    assert!(refused.contains("\"earliest\" is not an event id"), "{refused}");
    let batch = "{\"topic\":\"a\",\"id\":\"earliest\",\"data\":\"x\"}\n";
    let refused = server.post("/events/batch", batch).await.problem(400);
    assert!(refused.starts_with("Line 1: \"earliest\" is not an event id"), "{refused}");
    let stream = "Content-Type: text/event-stream\r\n";
    let body = "id: earliest\ndata: x\n\n";
    let refused = server.ask("POST", "/events?topic=a&ids=keep", stream, body).await.problem(400);
    assert!(refused.contains("\"earliest\" is not an event id"), "{refused}");
    assert!(refused.ends_with("Nothing was published."), "{refused}");
    assert_eq!(server.hub.stats().published, 0);
    server.publish("topic=a&id=Earliest", "x").await;
}

#[tokio::test]
async fn each_form_of_start_gives_the_events_that_it_describes() {
    assert_eq!(gets(&with_three().await.0, "", "").await, [""; 0]);
    assert_eq!(gets(&with_three().await.0, "start=live", "").await, [""; 0]);
    assert_eq!(gets(&with_three().await.0, "start=earliest", "").await, ["1", "2", "3"]);
    assert_eq!(gets(&with_three().await.0, "start=last:2", "").await, ["2", "3"]);
    let since = "start=since:1970-01-01T00:00:00Z";
    assert_eq!(gets(&with_three().await.0, since, "").await, ["1", "2", "3"]);
    assert_eq!(gets(&with_three().await.0, "start=since:2999-01-01T00:00:00Z", "").await, [""; 0]);
    let (server, [first, ..]) = with_three().await;
    assert_eq!(gets(&server, &format!("start=after:{first}"), "").await, ["2", "3"]);
    assert_eq!(gets(&server, "start=after:earliest", "").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_subscription_resumes_after_an_id_from_a_publisher() {
    let server = Server::start().await;
    assert_eq!(server.publish_id("topic=a&id=order-17", "1").await, "order-17");
    server.publish("topic=a", "2").await;
    assert_eq!(gets(&server, "", "Last-Event-ID: order-17\r\n").await, ["2"]);
}

#[tokio::test]
async fn an_unknown_id_gives_a_gap_and_is_not_refused() {
    for header in ["Last-Event-ID: nonsense\r\n", "Last-Event-ID: zzzzzzzz-7\r\n"] {
        let (server, _) = with_three().await;
        assert_eq!(gets(&server, "", header).await, ["gap", "1", "2", "3"]);
    }
    let (server, _) = with_three().await;
    assert_eq!(gets(&server, "last_event_id=%ff%00", "").await, ["gap", "1", "2", "3"]);
    let (server, _) = with_three().await;
    let twice = "last_event_id=x&last_event_id=y";
    assert_eq!(gets(&server, twice, "").await, ["gap", "1", "2", "3"]);
}

#[tokio::test]
async fn evicted_events_give_one_gap() {
    let server = Server::with(&["--retain-events", "1"]).await;
    let first = server.publish_id("topic=a", "1").await;
    server.publish("topic=a", "2").await;
    let third = server.publish_id("topic=a", "3").await;
    let mut stream = server.stream(&format!("topic=a&open=0&last_event_id={first}"), "").await;
    let gap = stream.gap().await;
    assert_eq!(gap["reason"], "evicted");
    assert_eq!(gap["after"], first);
    assert_eq!(gap["oldest"], third);
    assert!(gap["wait_ms"].is_u64());
    assert_eq!(stream.data().await, "3");
}

#[tokio::test]
async fn a_client_that_disconnects_before_its_first_event_misses_no_event() {
    let server = Server::start().await;
    let stream = server.subscribe("topic=a").await;
    let id = stream.last_event_id();
    drop(stream);
    server.publish("topic=a", "meanwhile").await;
    let mut again = server.stream("topic=a&open=0", &format!("Last-Event-ID: {id}\r\n")).await;
    assert_eq!(again.data().await, "meanwhile");
}

#[tokio::test]
async fn after_a_reconnect_a_client_gets_missed_events_for_itself_and_for_everyone() {
    let server = Server::start().await;
    let mut stream = server.subscribe("client=alice").await;
    server.publish("everyone", "seen").await;
    assert_eq!(stream.data().await, "seen");
    let id = stream.last_event_id();
    drop(stream);
    server.publish("client=alice", "missed").await;
    server.publish("everyone", "missed too").await;
    let query = format!("client=alice&open=0&last_event_id={id}");
    let mut again = server.stream(&query, "").await;
    assert_eq!([again.data().await, again.data().await], ["missed", "missed too"]);
}
