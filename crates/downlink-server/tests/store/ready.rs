//! While the store cannot take events, the readiness check `/readyz`, the server's log and the
//! metrics must say so.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use rusqlite::Connection;

use crate::{
    Folder, Server,
    disk::Disk,
    failing::{fill, store_with},
    patiently,
    server::{command, next},
};

const FLAGS: [&str; 4] = ["--event-bytes-max", "10000", "--history-bytes-max", "100000"];

/// Fills a disk to the last byte.
fn fill_up(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for bytes in [4_096, 1] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

/// Requests `/readyz` until the server is ready.
pub(crate) async fn becomes_ready(server: &Server) {
    patiently(async { while server.ask("GET", "/readyz", "", "").await.status != 200 {} }).await;
}

/// Requests `/readyz` until the server is not ready, and returns the reason.
async fn becomes_unready(server: &Server) -> String {
    patiently(async {
        loop {
            let answer = server.ask("GET", "/readyz", "", "").await;
            if answer.status != 200 {
                return answer.problem(503);
            }
        }
    })
    .await
}

/// Returns the value of a metric.
pub(crate) async fn metric(server: &Server, name: &str) -> String {
    let answer = server.ask("GET", "/metrics", "", "").await;
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {}", answer.body)).to_owned()
}

#[tokio::test]
async fn readiness_metrics_and_log_show_a_full_disk_until_there_is_space() {
    let folder = Folder::new("ready");
    let test = "readiness_metrics_and_log_show_a_full_disk_until_there_is_space";
    let Some(disk) = Disk::mount(folder.file("disk"), 4 << 20, test) else { return };
    let ballast = disk.file("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).expect("there is room");
    let server = Server::start(&disk.file("x.db"), &FLAGS);
    becomes_ready(&server).await;
    let mut kept = Vec::new();
    fill(&server, 200, &mut kept).await;
    for _ in 0..3 {
        server.post("topic=a", "", &"x".repeat(8_000)).await.problem(507);
    }
    let said = server.ask("GET", "/readyz", "", "").await.problem(503);
    assert!(said.contains("accepts no events") && said.contains("free some space"), "{said}");
    assert_eq!(server.ask("GET", "/healthz", "", "").await.status, 200);
    let (code, said) = server.health(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answers /readyz with 503: The store accepts no events"), "{said}");
    assert_eq!(server.health(&["--live"]), (Some(0), "ok\n".to_owned()));
    let published = metric(&server, "downlink_events_published_total").await;
    assert_eq!(published, kept.len().to_string());
    let refused = metric(&server, "downlink_publishes_refused_total{reason=\"disk_full\"}").await;
    assert_eq!(refused, "4");
    let results = "downlink_publishes_total{result=";
    assert_eq!(metric(&server, &format!("{results}\"disk_full\"}}")).await, "4");
    assert_eq!(metric(&server, &format!("{results}\"published\"}}")).await, published);

    // The server must become ready again without a publish, because a load balancer sends no
    // requests to a server that is not ready.
    fs::remove_file(&ballast).expect("the file is removed");
    becomes_ready(&server).await;
    server.publish("topic=a", "more").await;
    let log = server.stop();
    assert_eq!(log.matches("the store accepts no events").count(), 1, "{log}");
    assert_eq!(log.matches("the store accepts events again").count(), 1, "{log}");
}

#[tokio::test]
async fn a_server_starts_on_a_full_disk_and_takes_events_once_there_is_space() {
    let folder = Folder::new("full-start");
    let test = "a_server_starts_on_a_full_disk_and_takes_events_once_there_is_space";
    for is_killed in [false, true] {
        let name = format!("disk-{is_killed}");
        let Some(disk) = Disk::mount(folder.file(&name), 4 << 20, test) else { return };
        let (store, ballast) = (disk.file("x.db"), disk.file("ballast"));
        let mut kept = store_with(&store, 50).await;
        if is_killed {
            let server = Server::start(&store, &FLAGS);
            kept.push("only in the write-ahead log".to_owned());
            server.publish("topic=a", &kept[50]).await;
            server.kill();
        }
        fill_up(&ballast);
        let server = Server::start(&store, &FLAGS);
        // When the server starts, it moves the write-ahead log into the database, which may free
        // some space. So the disk is filled again.
        fill_up(&disk.file("more-ballast"));
        let said = server.ask("GET", "/readyz", "", "").await.problem(503);
        assert!(said.contains("disk of the store is full"), "{said}");
        let said = server.post("topic=a", "", "refused").await.problem(507);
        assert!(said.contains("free some space"), "{said}");
        let mut early = server.stream("topic=a&start=earliest", "").await;
        assert_eq!(next(&mut early, kept.len()).await, kept);
        let mut at_once = server.stream("topic=a&start=last:2", "").await;
        assert_eq!(next(&mut at_once, 2).await, kept[kept.len() - 2..]);
        let last = early.last_event_id();

        fs::remove_file(&ballast).expect("the file is removed");
        fs::remove_file(disk.file("more-ballast")).expect("the file is removed");
        becomes_ready(&server).await;
        server.publish("topic=a", "more").await;
        kept.push("more".to_owned());
        assert_eq!(next(&mut early, 1).await, ["more"]);
        let mut back = server.stream("topic=a", &last).await;
        assert_eq!(next(&mut back, 1).await, ["more"]);
        let log = server.stop();
        assert!(log.contains("the store accepts no events"), "{log}");
        let server = Server::start(&store, &FLAGS);
        let mut again = server.stream("topic=a&start=earliest", "").await;
        assert_eq!(next(&mut again, kept.len()).await, kept);
    }
}

/// Damages the root page of the table `memberships`, which lists the events of each topic. The
/// server first reads this page when it removes old events, which is after its start.
fn damage_memberships(store: &Path) {
    let database = Connection::open(store).expect("a database");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'memberships'";
    let page: u64 = database.query_row(sql, [], |row| row.get(0)).expect("a table");
    drop(database);
    let mut file = File::options().write(true).open(store).expect("a file");
    file.seek(SeekFrom::Start((page - 1) * 4_096)).expect("a page");
    file.write_all(&[0x5a; 4_096]).expect("the file is writable");
}

#[tokio::test]
async fn a_damaged_store_is_not_ready() {
    let folder = Folder::new("damaged-later");
    let store = folder.file("x.db");
    store_with(&store, 1).await;
    damage_memberships(&store);
    let server = Server::start(&store, &[]);
    let said = becomes_unready(&server).await;
    assert!(said.contains("accepts no events") && said.contains("damaged"), "{said}");
    let said = server.post("topic=a", "", "refused").await.problem(503);
    assert!(said.contains("was not confirmed") && said.contains("damaged"), "{said}");
    let name = "downlink_publishes_refused_total{reason=\"store_failed\"}";
    assert_ne!(metric(&server, name).await, "0");
    let log = server.stop();
    assert_eq!(log.matches("the store accepts no events").count(), 1, "{log}");
}

/// The test uses the program `strace` to make flushes fail. If there is no `strace`, or if `strace`
/// may not trace, the test is skipped.
#[tokio::test]
async fn a_failed_flush_is_in_the_answers_to_publishes_and_readiness_checks() {
    let folder = Folder::new("flush");
    let store = folder.file("x.db");
    store_with(&store, 1).await;
    let program = command(&store, &[]);
    let mut traced = Command::new("strace");
    // With `-D`, the server and not strace is the child process of this test, so that the test can
    // kill the server. `when=20+` makes the 20th flush of each thread fail, and all later flushes.
    traced.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]);
    traced.args(["-e", "inject=fdatasync,fsync:error=EIO:when=20+"]);
    traced.arg(program.get_program()).args(program.get_args());
    traced.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let can_trace = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !can_trace.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no strace, or it is not allowed to trace");
        return;
    }
    let server = Server::try_spawn(traced).expect("the server starts");
    let mut said = String::new();
    for _ in 0..100 {
        let answer = server.post("topic=a", "", "x").await;
        if answer.status != 200 {
            said = answer.problem(503);
            break;
        }
    }
    let unknown = "The event was not confirmed: the disk did not confirm a write: check the disk";
    assert!(said.starts_with(unknown), "{said}");
    let said = becomes_unready(&server).await;
    assert!(said.starts_with("The store accepts no events: the disk did not confirm"), "{said}");
    let said = server.post("topic=a", "", "later").await.problem(503);
    assert!(said.starts_with(unknown), "{said}");
    let mut early = server.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut early, 1).await.len(), 1, "reading still works");
}
