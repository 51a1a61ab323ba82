//! A subscriber opens a stream and reads nothing. Meanwhile, retention evicts events that the
//! subscriber has not got yet. When the subscriber reads again, it must get each event, or a gap
//! that covers the event. A gap is a notice that a range of events is missing.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use crate::{Folder, Server, patiently, stream::Stream};

/// The number of events that expire. Each has a separate topic and is larger than a socket buffer.
const EVENTS: usize = 50;
const EVENT_BYTES: usize = 200_000;

/// The retention rule for these events: they expire after three seconds.
const RETAIN: &str = "c/*=age:3s";

/// The offset in an id of an event. The server has made the id, so its form is `<epoch>-<offset>`.
fn offset(id: &str) -> u64 {
    let (_, offset) = id.split_once('-').expect("an id of the server's own");
    offset.parse().expect("a number")
}

/// The events and gaps that a subscriber got.
#[derive(Debug, Default)]
struct Read {
    events: BTreeSet<u64>,
    /// For each gap, the offset before the gap, the last offset in the gap, and the reason.
    gaps: Vec<(u64, u64, String)>,
}

impl Read {
    /// Reads a stream up to the event with this data.
    async fn until(mut stream: Stream, end: &str) -> Self {
        let mut read = Self::default();
        loop {
            let event = patiently(stream.next()).await.expect("the stream goes on");
            if event.event_type == "downlink.gap" {
                let gap: Value = serde_json::from_str(&event.data).expect("JSON");
                let place = |name: &str| gap[name].as_str().map_or(0, offset);
                let reason = gap["reason"].as_str().expect("a reason").to_owned();
                read.gaps.push((place("after"), place("until"), reason));
                continue;
            }
            let at = offset(&event.last_event_id);
            assert!(read.events.last().is_none_or(|last| *last < at), "wrong order: {at} {read:?}");
            read.events.insert(at);
            if event.data == end {
                return read;
            }
        }
    }

    fn has_gap_over(&self, at: u64) -> bool {
        self.gaps
            .iter()
            .any(|(after, until, reason)| reason == "lagged" && *after < at && at <= *until)
    }
}

/// The topics below `c/` that still have events.
async fn retained(server: &Server) -> BTreeSet<String> {
    let topics = server.get("/topics?prefix=c/&limit=1000").await;
    let topics = topics["topics"].as_array().expect("a list").iter();
    let topics = topics.filter(|topic| topic["events"] != 0);
    topics.map(|topic| topic["topic"].as_str().expect("a name").to_owned()).collect()
}

/// Publishes the events, opens a stream with this start, and reads the stream only after all of
/// these events have expired. Asserts that each event was delivered or is in a gap. Returns `false`
/// if the events had already expired when the stream was opened, because then nothing was tested.
async fn each_event_is_delivered_or_in_a_gap(store: &Path, start: &str) -> bool {
    let server = Server::start(store, &["--retain-events", "1", "--retain", RETAIN]);
    let data = "x".repeat(EVENT_BYTES);
    let line = |number| format!("{{\"topic\":\"c/{number}\",\"data\":\"{data}\"}}\n");
    let batch: String = (0..EVENTS).map(line).collect();
    let published = server.ask("POST", "/events/batch", "", &batch).await.json();
    let ids = published["ids"].as_array().expect("a list").clone();
    server.publish("topic=busy", "one").await;
    server.publish("topic=busy", "two").await;
    let unread = server.unread(&format!("topic=*&{start}")).await;
    patiently(async {
        while server.get("/clients").await["connections"] == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // A topic that has its event now also had this event when the stream was opened. So the
    // subscriber must get the events of these topics, or a gap for them.
    let due = retained(&server).await;
    if due.is_empty() {
        return false;
    }
    patiently(async { while !retained(&server).await.is_empty() {} }).await;
    server.publish("topic=busy", "end").await;
    let read = Read::until(patiently(Stream::begin(unread)).await, "end").await;
    for (number, id) in ids.iter().enumerate() {
        let at = offset(id.as_str().expect("an id"));
        let is_due = due.contains(&format!("c/{number}"));
        let is_accounted_for = read.events.contains(&at) || read.has_gap_over(at);
        assert!(!is_due || is_accounted_for, "{start}: {at} is missing: {read:?}");
    }
    assert!(read.events.len() < EVENTS, "{start}: the subscriber got every event: {read:?}");
    true
}

/// Runs the test with a server without a store, and with a store. On a slow machine, the events may
/// expire too early, so the test is repeated until the stream is opened in time.
async fn each_event_is_delivered_or_in_a_gap_in_memory_and_store(name: &str, start: &str) {
    let folder = Folder::new(&format!("unread-{name}"));
    while !each_event_is_delivered_or_in_a_gap(Path::new("none"), start).await {}
    let mut attempt = 0;
    while !each_event_is_delivered_or_in_a_gap(&folder.file(&format!("{attempt}.db")), start).await
    {
        attempt += 1;
    }
}

#[tokio::test]
async fn expired_unread_events_give_gaps_with_start_earliest() {
    each_event_is_delivered_or_in_a_gap_in_memory_and_store("earliest", "start=earliest").await;
}

#[tokio::test]
async fn expired_unread_events_give_gaps_with_start_last() {
    each_event_is_delivered_or_in_a_gap_in_memory_and_store("last", "start=last:1000").await;
}

#[tokio::test]
async fn expired_unread_events_give_gaps_with_start_since() {
    each_event_is_delivered_or_in_a_gap_in_memory_and_store(
        "since",
        "start=since:2020-01-01T00:00:00Z",
    )
    .await;
}

#[tokio::test]
async fn expired_unread_events_give_gaps_with_the_id_earliest() {
    each_event_is_delivered_or_in_a_gap_in_memory_and_store("id", "last_event_id=earliest").await;
}
