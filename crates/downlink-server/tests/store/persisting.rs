//! Tests of restarts: events, ids, idempotency keys and finished topics must survive them. With
//! relaxed durability, the server acknowledges an event before it is on the disk, so a power cut
//! may lose the newest events.

use std::{collections::BTreeSet, path::Path};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    Folder, Server, patiently,
    restoring::{back_up, restore},
    server::{id_of, next},
    stream::Stream,
};

/// Stops or kills the server, and starts a new server with the same store.
fn again(server: Server, store: &Path, killed: bool) -> Server {
    if killed {
        server.kill();
    } else {
        server.stop();
    }
    Server::start(store, &[])
}

async fn rest(stream: Stream) -> Vec<String> {
    patiently(stream.rest()).await
}

#[tokio::test]
async fn idempotency_keys_and_ids_from_publishers_survive_restarts() {
    for killed in [false, true] {
        let folder = Folder::new(&format!("given-{killed}"));
        let store = folder.file("x.db");
        let key = "Idempotency-Key: k1\r\n";
        let mut server = Server::start(&store, &[]);
        let first = server.post("topic=a", key, "one").await;
        let given = server.post("topic=a&id=mine", "", "two").await;
        for _ in 0..2 {
            server = again(server, &store, killed);
            let repeated = server.post("topic=a", key, "one").await;
            assert_eq!(id_of(&repeated), id_of(&first));
            let reused = server.post("topic=a", key, "another").await.problem(409);
            assert!(reused.contains("Use a new key for each event"), "{reused}");
            let reused = server.post("topic=b", key, "one").await.problem(409);
            assert!(reused.contains("Use a new key for each event"), "{reused}");
            let repeated = server.post("topic=a&id=mine", "", "two").await;
            assert_eq!(id_of(&repeated), id_of(&given));
            let taken = server.post("topic=a&id=mine", "", "three").await.problem(409);
            assert!(taken.contains("Give each event its own id"), "{taken}");
        }
        server.publish("topic=a", "three").await;
        let mut stream = server.stream("topic=*&start=earliest", "").await;
        assert_eq!(next(&mut stream, 3).await, ["one", "two", "three"]);
        let mut resumed = server.stream("topic=a", "mine").await;
        assert_eq!(next(&mut resumed, 1).await, ["three"]);
    }
}

#[tokio::test]
async fn finished_topics_and_their_events_survive_restarts() {
    for killed in [false, true] {
        let folder = Folder::new(&format!("finished-{killed}"));
        let store = folder.file("x.db");
        let mut server = Server::start(&store, &[]);
        let first = server.publish("topic=answer", "one").await;
        let last = server.publish("topic=answer&last=true", "two").await;
        server.publish("topic=ended", "only").await;
        let ended = server.ask("POST", "/finish?topic=ended", "", "").await;
        assert_eq!(ended.status, 200);
        for _ in 0..2 {
            server = again(server, &store, killed);
            for topic in ["answer", "ended"] {
                let refused = server.post(&format!("topic={topic}"), "", "x").await.problem(409);
                assert!(refused.contains("Publish to another topic"), "{refused}");
                let topic = server.get(&format!("/topics?topic={topic}")).await;
                assert_eq!(topic["finished"], true);
            }
            let whole = server.stream("topic=answer", "").await;
            assert_eq!(rest(whole).await, ["one", "two"]);
            assert_eq!(rest(server.stream("topic=ended", "").await).await, ["only"]);
            assert_eq!(rest(server.stream("topic=answer", &first).await).await, ["two"]);
            let done = server.stream("topic=answer", &last).await;
            assert_eq!((done.status(), done.body.as_str()), (204, ""));
        }
    }
}

/// Lists all topics, `limit` at a time. Returns the name and the number of events of each topic.
async fn listed(server: &Server, limit: usize) -> Vec<(String, Value)> {
    let mut rows = Vec::new();
    let mut after = String::new();
    loop {
        let page = server.get(&format!("/topics?prefix=t/&limit={limit}{after}")).await;
        for row in page["topics"].as_array().expect("a list") {
            rows.push((row["topic"].as_str().expect("a name").to_owned(), row["events"].clone()));
        }
        let Some(next) = page["next"].as_str() else { return rows };
        after = format!("&after={next}");
    }
}

#[tokio::test]
async fn topics_are_listed_after_a_restart() {
    let folder = Folder::new("listed");
    let store = folder.file("x.db");
    let mut server = Server::start(&store, &[]);
    let names: BTreeSet<String> = (0..25).map(|number| format!("t/{number:02}")).collect();
    let mut ids = Vec::new();
    for name in &names {
        ids.push(server.publish(&format!("topic={name}&topic=other"), "x").await);
    }
    for killed in [true, false] {
        server = again(server, &store, killed);
        for limit in [1, 7, 25, 100] {
            let due: Vec<_> = names.iter().map(|name| (name.clone(), json!(1))).collect();
            assert_eq!(listed(&server, limit).await, due);
        }
        // The event was published before the restart and still has the same id.
        assert_eq!(server.get("/topics?topic=t/00").await["oldest"], json!(ids[0]));
    }
}

/// Reads the next event, which must be a `downlink.gap`, and returns its data.
async fn gap(stream: &mut Stream) -> Value {
    patiently(stream.gap()).await
}

/// Killing the server loses no event, because the operating system already has all events. To
/// simulate a power cut, the test replaces the store with an earlier copy.
#[tokio::test]
async fn events_lost_in_a_power_cut_give_one_gap_and_no_new_event_is_skipped() {
    let folder = Folder::new("relaxed");
    let (store, before) = (folder.file("x.db"), folder.file("before.db"));
    let relaxed = ["--durability", "relaxed"];
    let server = Server::start(&store, &relaxed);
    let kept = server.post("topic=a", "", "kept").await;
    assert_eq!(kept.status, 202);
    server.stop();
    let server = Server::start(&store, &relaxed);
    let mut live = server.stream("topic=a", "").await;
    back_up(&store, &before);
    let mut lost = Vec::new();
    for data in ["lost 1", "lost 2", "lost 3"] {
        let answer = server.post("topic=a", "", data).await;
        assert_eq!(answer.status, 202);
        lost.push(id_of(&answer));
        assert_eq!(next(&mut live, 1).await, [data]);
    }
    assert_eq!(live.last_event_id(), lost[2]);
    server.kill();
    restore(&before, &store);

    let server = Server::start(&store, &relaxed);
    // There are more new events than lost events. If an id were only a position, a reader that
    // resumes after the id of a lost event would skip the new events up to this position.
    let new: Vec<String> = (0..6).map(|number| format!("new {number}")).collect();
    for data in &new {
        assert!(!lost.contains(&server.publish("topic=a", data).await));
    }
    for id in &lost {
        for query in ["topic=a", "topic=*", "topic=a&topic=b"] {
            let mut resumed = server.stream(query, id).await;
            let notice = gap(&mut resumed).await;
            assert_eq!((&notice["reason"], &notice["after"]), (&json!("lost"), &json!(id)));
            assert_eq!(next(&mut resumed, 6).await, new);
            server.publish("topic=other", "x").await;
        }
    }
    let mut resumed = server.stream("topic=a", &id_of(&kept)).await;
    assert_eq!(next(&mut resumed, 6).await, new);
    // A reader that resumes after the id of a gap does not get the gap again.
    let mut resumed = server.stream("topic=a", &lost[0]).await;
    let _notice = gap(&mut resumed).await;
    let after_notice = resumed.last_event_id();
    let mut resumed = server.stream("topic=a", &after_notice).await;
    assert_eq!(next(&mut resumed, 6).await, new);
}

#[tokio::test]
async fn acknowledged_relaxed_events_survive_a_kill() {
    let folder = Folder::new("relaxed-kill");
    let store = folder.file("x.db");
    let relaxed = ["--durability", "relaxed"];
    let mut kept = Vec::new();
    for _ in 0..3 {
        let server = Server::start(&store, &relaxed);
        for _ in 0..20 {
            kept.push(format!("{}", kept.len()));
            let answer = server.post("topic=a", "", &kept[kept.len() - 1]).await;
            assert_eq!(answer.status, 202);
        }
        server.kill();
    }
    let server = Server::start(&store, &relaxed);
    let mut whole = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut whole, kept.len()).await, kept);
}

/// While another program has locked the store, the server cannot store an event. So it must neither
/// acknowledge the event nor show it to readers.
#[tokio::test]
async fn relaxed_publishes_are_refused_and_invisible_while_the_store_is_locked() {
    let folder = Folder::new("relaxed-locked");
    let store = folder.file("x.db");
    let server = Server::start(&store, &["--durability", "relaxed"]);
    let mut live = server.stream("topic=a", "").await;
    let shell = Connection::open(&store).expect("a database");
    shell.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let said = server.post("topic=a", "", "refused").await.problem(503);
    assert!(said.contains("end its transaction and try again"), "{said}");
    assert_eq!(server.get("/topics?topic=a").await["published"], 0);
    shell.execute_batch("ROLLBACK").expect("the end of the lock");
    let id = server.publish("topic=a", "kept").await;
    assert_eq!(next(&mut live, 1).await, ["kept"]);
    assert_eq!(live.last_event_id(), id);
}

/// The answer must not wait for the next event of the stream, because the publisher may send no
/// event for hours.
#[tokio::test]
async fn an_open_stream_is_refused_as_soon_as_one_event_is_refused() {
    let folder = Folder::new("open-stream");
    let server = Server::start(&folder.file("log.db"), &[]);
    server.publish("topic=a&id=taken", "one").await;
    let events = "data: two\n\nid: taken\ndata: another\n\n";
    let answer = server.publish_open("topic=a&ids=keep", events).await;
    let detail = answer.problem(409);
    assert!(
        detail.contains("Event 2 of the stream") && detail.contains("Published: 1,"),
        "{detail}"
    );
}
