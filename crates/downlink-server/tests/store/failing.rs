//! Tests of a store that fails because the disk is full, the file is unusable, or another program
//! has locked the file.

use std::{fs, path::Path};

use rusqlite::Connection;

use crate::{
    Folder, Server,
    disk::Disk,
    server::{id_of, next, refused},
};

/// Creates a store with this many events of one topic. Returns the data of the events.
pub(crate) async fn store_with(store: &Path, events: usize) -> Vec<String> {
    let server = Server::start(store, &[]);
    let mut data = Vec::new();
    for number in 0..events {
        data.push(format!("{number} {}", "x".repeat(1_000)));
        server.publish("topic=a", &data[number]).await;
    }
    server.stop();
    data
}

/// Publishes until the disk is full, and returns the error message. Adds the data of the
/// acknowledged events to `kept`. `works` is the status of a successful publish.
pub(crate) async fn fill(server: &Server, works: u16, kept: &mut Vec<String>) -> String {
    for number in 0..10_000 {
        let data = format!("{number} {}", "x".repeat(8_000));
        let answer = server.post("topic=a", "", &data).await;
        if answer.status != works {
            return answer.problem(507);
        }
        kept.push(data);
    }
    panic!("the disk does not become full");
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_and_keeps_acknowledged_events_until_there_is_space() {
    let folder = Folder::new("full");
    let test = "a_full_disk_refuses_publishes_and_keeps_acknowledged_events_until_there_is_space";
    let Some(disk) = Disk::mount(folder.file("disk"), 4 << 20, test) else { return };
    let (store, ballast) = (disk.file("x.db"), disk.file("ballast"));
    fs::write(&ballast, vec![1; 1 << 20]).expect("there is room");
    let flags = ["--event-bytes-max", "10000", "--history-bytes-max", "100000"];
    let server = Server::start(&store, &flags);
    let mut live = server.stream("topic=a", "").await;
    let mut kept = Vec::new();
    let said = fill(&server, 200, &mut kept).await;
    assert!(said.contains("disk of the store is full") && said.contains("free some"), "{said}");
    assert!(kept.len() > 50, "{}", kept.len());
    // Reading still works, both for the first reader and for a new reader that needs events from
    // the file.
    assert_eq!(next(&mut live, kept.len()).await, kept);
    let mut late = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut late, kept.len()).await, kept);

    fs::remove_file(&ballast).expect("the file is removed");
    for number in 0..10 {
        kept.push(format!("after {number}"));
        server.publish("topic=a", &kept[kept.len() - 1]).await;
    }
    assert_eq!(next(&mut live, 10).await, kept[kept.len() - 10..]);
    assert_eq!(next(&mut late, 10).await, kept[kept.len() - 10..]);

    // The disk becomes full again, and the server is killed. A server that is started on the full
    // disk still serves readers.
    fill(&server, 200, &mut kept).await;
    server.kill();
    let server = Server::start(&store, &flags);
    let mut again = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut again, kept.len()).await, kept);
    server.kill();
    disk.remount("size=16777216");
    let server = Server::start(&store, &flags);
    let mut again = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut again, kept.len()).await, kept);
    server.publish("topic=a", "more").await;
    assert_eq!(next(&mut again, 1).await, ["more"]);
}

/// With relaxed durability, the server acknowledges an event before it is on the disk.
#[tokio::test]
async fn a_full_disk_refuses_relaxed_publishes_and_keeps_acknowledged_events() {
    let folder = Folder::new("relaxed-full");
    let test = "a_full_disk_refuses_relaxed_publishes_and_keeps_acknowledged_events";
    let Some(disk) = Disk::mount(folder.file("disk"), 2 << 20, test) else { return };
    let store = disk.file("x.db");
    let relaxed = ["--durability", "relaxed", "--event-bytes-max", "10000"];
    let server = Server::start(&store, &relaxed);
    let mut live = server.stream("topic=a", "").await;
    let mut kept = Vec::new();
    let said = fill(&server, 202, &mut kept).await;
    assert!(said.contains("disk of the store is full") && said.contains("free some"), "{said}");
    assert!(kept.len() > 50, "{}", kept.len());
    assert_eq!(next(&mut live, kept.len()).await, kept);
    // The server is killed while the disk is full. Acknowledged and visible events survive.
    server.kill();
    disk.remount("size=16777216");
    let server = Server::start(&store, &relaxed);
    let mut again = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut again, kept.len()).await, kept);
    let id = server.publish("topic=a", "more").await;
    assert_eq!(next(&mut again, 1).await, ["more"]);
    assert_eq!(again.last_event_id(), id);
}

/// Parses the error message for a stream that was published only in part. Returns the number of
/// published events, and the id of the last published event.
#[track_caller]
fn published(said: &str) -> (usize, &str) {
    let (_, counted) = said.rsplit_once(" Published: ").expect(said);
    let (count, last) = counted.split_once(", the last as ").expect(said);
    (count.parse().expect(said), last.strip_suffix('.').expect(said))
}

#[tokio::test]
async fn a_streamed_publish_on_a_full_disk_counts_the_stored_events() {
    for (durability, status) in [("commit", 200), ("relaxed", 202)] {
        let folder = Folder::new(&format!("stream-full-{durability}"));
        let test = "a_streamed_publish_on_a_full_disk_counts_the_stored_events";
        let Some(disk) = Disk::mount(folder.file("disk"), 3 << 20, test) else { return };
        let store = disk.file("x.db");
        let flags = ["--durability", durability, "--event-bytes-max", "10000"];
        let server = Server::start(&store, &flags);
        let mut live = server.stream("topic=a", "").await;
        let lines = "Content-Type: application/x-ndjson\r\n";
        let few = server.post("topic=a", lines, "1\n2\n").await;
        assert_eq!(few.status, status, "{few:?}");
        assert_eq!(next(&mut live, 2).await, ["1", "2"]);
        let data: Vec<String> =
            (0..1_000).map(|number| format!("\"{number} {}\"", "x".repeat(8_000))).collect();
        let said = server.post("topic=a", lines, &data.join("\n")).await.problem(507);
        let (count, last) = published(&said);
        assert!(said.contains("disk of the store is full"), "{said}");
        assert!((1..1_000).contains(&count), "{said}");
        let failed: usize = said.split(' ').nth(1).and_then(|at| at.parse().ok()).expect(&said);
        // After a large commit has failed, a later and smaller commit may still fit on the disk. So
        // the published events may include some after the first failed event.
        let kept = next(&mut live, count).await;
        assert_eq!(kept[..failed - 1], data[..failed - 1], "{said}");
        assert!(kept.iter().all(|data| !data.starts_with(&format!("\"{} ", failed - 1))), "{said}");
        assert_eq!(live.last_event_id(), last);
        // The server is killed and started again. The store must have exactly these events.
        server.kill();
        disk.remount("size=33554432");
        let server = Server::start(&store, &flags);
        let mut again = server.stream("topic=a&start=earliest", "").await;
        assert_eq!(next(&mut again, 2).await, ["1", "2"]);
        assert_eq!(next(&mut again, count).await, kept);
        assert_eq!(again.last_event_id(), last);
        server.publish("topic=a", "more").await;
        assert_eq!(next(&mut again, 1).await, ["more"]);
    }
}

#[tokio::test]
async fn a_read_only_disk_is_an_error_at_the_start() {
    let folder = Folder::new("read-only");
    let test = "a_read_only_disk_is_an_error_at_the_start";
    let Some(disk) = Disk::mount(folder.file("disk"), 4 << 20, test) else { return };
    let store = disk.file("x.db");
    let data = store_with(&store, 3).await;
    disk.remount("ro");
    let said = refused(&store);
    assert!(said.contains("make the file and its folder writable"), "{said}");
    let said = refused(&disk.file("new.db"));
    assert!(said.contains("make the file and its folder writable"), "{said}");
    disk.remount("rw");
    let server = Server::start(&store, &[]);
    let mut stream = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut stream, 3).await, data);
}

#[tokio::test]
async fn errors_about_unusable_files_say_what_to_do() {
    let folder = Folder::new("foreign");
    let text = folder.file("text.db");
    fs::write(&text, "history\n".repeat(1_000)).expect("a file");
    assert!(refused(&text).contains("the file is not a store: choose another name"));
    let other = folder.file("other.db");
    let foreign = Connection::open(&other).expect("a database");
    foreign.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").expect("a table");
    assert!(refused(&other).contains("the file is not a store: choose another name"));
    let rows = foreign.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows, Ok(1), "the database has not changed");
    let said = refused(&folder.file("nowhere/x.db"));
    assert!(said.contains("check that its folder exists"), "{said}");
    let said = refused(&folder.0);
    assert!(said.contains("cannot be opened"), "{said}");

    let newer = folder.file("newer.db");
    store_with(&newer, 1).await;
    let database = Connection::open(&newer).expect("a database");
    database.pragma_update(None, "user_version", 1_000).expect("the file is writable");
    drop(database);
    let said = refused(&newer);
    assert!(said.contains("layout 1000") && said.contains("start the newer version"), "{said}");
}

#[tokio::test]
async fn a_second_server_cannot_open_a_store_in_use() {
    let folder = Folder::new("in-use");
    let store = folder.file("x.db");
    let server = Server::start(&store, &[]);
    server.publish("topic=a", "one").await;
    let said = refused(&store);
    assert!(said.contains("in use by another process: stop that process"), "{said}");
    server.publish("topic=a", "two").await;
    let mut stream = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut stream, 2).await, ["one", "two"]);
}

#[tokio::test]
async fn publishes_fail_only_while_another_program_holds_a_lock() {
    let folder = Folder::new("locked");
    let store = folder.file("x.db");
    store_with(&store, 1).await;
    let shell = Connection::open(&store).expect("a database");
    shell.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let said = refused(&store);
    assert!(said.contains("another program holds a lock on the store"), "{said}");
    shell.execute_batch("ROLLBACK").expect("a transaction");
    let server = Server::start(&store, &[]);
    shell.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let said = server.post("topic=a", "", "refused").await.problem(503);
    assert!(said.contains("end its transaction and try again"), "{said}");
    let mut stream = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut stream, 1).await.len(), 1, "reading still works");
    shell.execute_batch("ROLLBACK").expect("a transaction");
    let id = id_of(&server.post("topic=a", "", "kept").await);
    assert_eq!(next(&mut stream, 1).await, ["kept"]);
    assert_eq!(stream.last_event_id(), id);
}

/// For each page of a store, the test makes a copy of the store and damages this page in the copy.
/// The server must report the damage when it starts, or serve the intact events. It must never
/// panic, and never return an event that was not published.
#[tokio::test]
async fn a_damaged_file_is_an_error_or_its_intact_events_are_served() {
    let folder = Folder::new("damaged");
    let whole = folder.file("whole.db");
    let data = store_with(&whole, 60).await;
    let bytes = fs::read(&whole).expect("a file");
    let pages = bytes.len() / 4_096;
    assert!(pages > 20, "{pages}");
    let (mut said_at_start, mut served) = (0, 0);
    for page in 0..pages {
        let store = folder.file("damaged.db");
        let mut damaged = bytes.clone();
        for byte in &mut damaged[page * 4_096..(page + 1) * 4_096] {
            *byte ^= 0x5a;
        }
        fs::write(&store, damaged).expect("a file");
        match Server::try_start(&store, &[]) {
            Err(said) => {
                said_at_start += 1;
                assert!(said.contains("damaged") || said.contains("not a store"), "{said}");
                assert!(!said.contains("panicked"), "{said}");
            }
            Ok(server) => {
                served += 1;
                assert_no_invented_events(&server, &data).await;
                server.stop();
            }
        }
    }
    assert!(said_at_start > 0 && served > 0, "{said_at_start} {served}");
}

/// Asserts that the server returns the events in order up to the first damaged event, and reports
/// no gap (a notice of missing events).
async fn assert_no_invented_events(server: &Server, data: &[String]) {
    let published = server.post("topic=a", "", "the end").await;
    if published.status != 200 {
        let said = published.problem(503);
        assert!(said.contains("damaged") || said.contains("stopped"), "{said}");
    }
    let mut stream = server.stream("topic=a&start=earliest", "").await;
    if stream.status() != 200 {
        return;
    }
    let mut due = data.iter().map(String::as_str).chain(["the end"]);
    let mut left = data.len() + usize::from(published.status == 200);
    while let Some(event) = crate::patiently(stream.next()).await {
        if event.event_type == "downlink.gap" {
            panic!("a gap, although no event was evicted: {event:?}");
        }
        assert_eq!(Some(event.data.as_str()), due.next());
        left -= 1;
        if left == 0 {
            return;
        }
    }
}
