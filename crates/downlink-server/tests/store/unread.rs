//! A reader that reads nothing while what it asked for expires: whatever it does not get is told to it.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use crate::{Folder, Server, patiently, stream::Stream};

/// Events that expire, each in a topic of its own, and larger than a socket takes.
const EVENTS: usize = 50;
const EVENT_BYTES: usize = 200_000;

/// How long these are kept.
const RETAIN: &str = "c/*=age:3s";

/// The offset in an id of the server's own.
fn offset(id: &str) -> u64 {
    let (_, offset) = id.split_once('-').expect("an id of the server's own");
    offset.parse().expect("a number")
}

/// What a reader was given, and what it was told that it is not given.
#[derive(Debug, Default)]
struct Read {
    events: BTreeSet<u64>,
    /// After the first and up to the second, with the reason.
    gaps: Vec<(u64, u64, String)>,
}

impl Read {
    /// Reads up to the event with this data.
    async fn until(mut stream: Stream, end: &str) -> Self {
        let mut read = Self::default();
        loop {
            let event = patiently(stream.next()).await.expect("it goes on");
            if event.event_type == "downlink.gap" {
                let gap: Value = serde_json::from_str(&event.data).expect("JSON");
                let place = |name: &str| gap[name].as_str().map_or(0, offset);
                let reason = gap["reason"].as_str().expect("a reason").to_owned();
                read.gaps.push((place("after"), place("until"), reason));
                continue;
            }
            let at = offset(&event.last_event_id);
            assert!(read.events.last().is_none_or(|last| *last < at), "in order: {at} {read:?}");
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

/// Waits until none of the topics that expire is left.
async fn expired(server: &Server) {
    patiently(async {
        loop {
            let topics = server.get("/topics?prefix=c/&limit=1000").await;
            let topics = topics["topics"].as_array().expect("a list").clone();
            if topics.iter().all(|topic| topic["events"] == 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Everything that is due to a reader which starts like this, and reads nothing until it has expired,
/// is given to it or lies in a gap that it is told.
async fn nothing_is_left_out(store: &Path, start: &str) {
    let server = Server::start(store, &["--retain-events", "1", "--retain", RETAIN]);
    let data = "x".repeat(EVENT_BYTES);
    let mut due = Vec::new();
    for number in 0..EVENTS {
        due.push(offset(&server.publish(&format!("topic=c/{number}"), &data).await));
    }
    server.publish("topic=busy", "one").await;
    server.publish("topic=busy", "two").await;
    let unread = server.unread(&format!("topic=*&{start}")).await;
    patiently(async {
        while server.get("/clients").await["connections"] == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    expired(&server).await;
    server.publish("topic=busy", "end").await;
    let read = Read::until(patiently(Stream::begin(unread)).await, "end").await;
    for at in due {
        let is_given = read.events.contains(&at);
        assert!(is_given || read.has_gap_over(at), "{start}: {at} is left out: {read:?}");
        assert!(
            !is_given || !read.has_gap_over(at),
            "{start}: {at} is given and missing: {read:?}"
        );
    }
    assert!(read.events.len() < EVENTS, "{start}: it was not slow: {read:?}");
}

/// In memory, and with a store.
async fn nothing_is_left_out_anywhere(name: &str, start: &str) {
    let folder = Folder::new(&format!("unread-{name}"));
    nothing_is_left_out(Path::new("none"), start).await;
    nothing_is_left_out(&folder.file("x.db"), start).await;
}

#[tokio::test]
async fn what_expires_unread_from_the_earliest_is_told() {
    nothing_is_left_out_anywhere("earliest", "start=earliest").await;
}

#[tokio::test]
async fn what_expires_unread_of_the_last_is_told() {
    nothing_is_left_out_anywhere("last", "start=last:1000").await;
}

#[tokio::test]
async fn what_expires_unread_since_a_time_is_told() {
    nothing_is_left_out_anywhere("since", "start=since:2020-01-01T00:00:00Z").await;
}

#[tokio::test]
async fn what_expires_unread_after_the_id_earliest_is_told() {
    nothing_is_left_out_anywhere("id", "last_event_id=earliest").await;
}
