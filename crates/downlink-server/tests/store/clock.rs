//! Tests of a server whose system clock is wrong for a while. They use the library libfaketime to
//! change the time that the server sees. Without this library, the tests are skipped and print a
//! message.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Folder, Server, patiently,
    server::{command, next},
    stream::Stream,
};

/// The paths of the library on Debian, one for each architecture.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// Ten years, in seconds.
const TEN_YEARS: &str = "+315360000";

/// The system clock that the server of one test sees.
struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Clock {
    /// Makes a clock that shows the right time. If the library is not installed, prints that the
    /// test is skipped and returns `None`.
    fn new(folder: &Folder, test: &str) -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        let Some(library) = library else {
            eprintln!("{test}: skipped: no libfaketime; as root: apt-get install faketime");
            return None;
        };
        let clock = Self { library, file: folder.file("clock") };
        clock.set("+0");
        Some(clock)
    }

    /// Sets how many seconds the clock is ahead of the right time.
    fn set(&self, ahead: &str) {
        // Renaming replaces the whole file, so the server never reads half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead}\n")).expect("a file");
        fs::rename(&new, &self.file).expect("the file is renamed");
    }

    /// Starts a server that sees this clock.
    fn server(&self, store: &Path, flags: &[&str]) -> Server {
        let mut command = command(store, flags);
        command.env("LD_PRELOAD", self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Server::try_spawn(command)
            .unwrap_or_else(|said| panic!("the server does not start: {said}"))
    }
}

/// Publishes an event and returns the time that the server gave it, in milliseconds since 1970.
async fn published(stream: &mut Stream, server: &Server, data: &str) -> u64 {
    server.publish("topic=shown", data).await;
    let event = patiently(stream.next()).await.expect("an event");
    let event: Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!(event["data"], data);
    event["at"].as_u64().expect("a number of milliseconds")
}

/// The right time in milliseconds since 1970. Only the server sees the wrong clock, not the test.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("the time is after 1970");
    u64::try_from(since.as_millis()).expect("the time is before the year 500,000,000")
}

/// Asserts that a time from the server is right.
#[track_caller]
fn assert_right(shown_ms: u64) {
    let hour = 60 * 60 * 1_000;
    assert!(shown_ms.abs_diff(now_ms()) < hour, "{shown_ms} at {}", now_ms());
}

async fn events(server: &Server, topic: &str) -> Value {
    server.get(&format!("/topics?topic={topic}")).await["events"].clone()
}

/// Waits until a topic has no events.
async fn is_expired(server: &Server, topic: &str) {
    patiently(async {
        while events(server, topic).await != json!(0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the finished topic takes events again.
async fn is_free(server: &Server, topic: &str) {
    patiently(async {
        while server.post(&format!("topic={topic}"), "", "x").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// How long a topic stays finished. The flags below set this time.
const FINISHED_KEEP: Duration = Duration::from_secs(2);

const FLAGS: [&str; 4] = ["--finished-keep", "2s", "--retain", "short/*=age:2s"];

/// Starts a server. Its clock jumps ten years ahead, and later back to the right time. Returns the
/// server, and the ids of three events: one published before the jump, one during the jump, and one
/// after it.
async fn after_a_jump(clock: &Clock, store: &Path) -> (Server, Vec<String>) {
    let server = clock.server(store, &FLAGS);
    let mut shown = server.stream("topic=shown&meta=1", "").await;
    let mut ids = vec![server.publish("topic=kept", "before").await];
    assert_right(published(&mut shown, &server, "before").await);
    let finished_at = Instant::now();
    let finished = server.post("topic=done&last=true", "", "x").await;
    assert_eq!(finished.status, 200);

    clock.set(TEN_YEARS);
    let meanwhile = published(&mut shown, &server, "meanwhile").await;
    let nine_years = 9 * 365 * 24 * 60 * 60 * 1_000;
    assert!(meanwhile > now_ms() + nine_years, "the clock is not faked: {meanwhile}");
    ids.push(server.publish("topic=kept", "meanwhile").await);
    server.publish("topic=short/meanwhile", "x").await;
    // The server keeps events for a day. While the clock is wrong, the older event seems to be ten
    // years old, but the server must not evict it.
    assert_eq!(events(&server, "kept").await, 2);
    let late = server.post("topic=done", "", "x").await.status;
    assert!(
        late == 409 || finished_at.elapsed() >= FINISHED_KEEP,
        "{late}: the topic is no longer finished"
    );

    clock.set("+0");
    assert_right(published(&mut shown, &server, "after").await);
    ids.push(server.publish("topic=kept", "after").await);
    (server, ids)
}

/// Asserts that the server behaves as if the clock had always been right.
async fn assert_clock_is_right(server: &Server, ids: &[String]) {
    server.publish("topic=short/after", "x").await;
    is_expired(server, "short/meanwhile").await;
    is_expired(server, "short/after").await;
    is_free(server, "done").await;
    assert_eq!(events(server, "kept").await, 3, "all three events are kept");

    let data = ["before", "meanwhile", "after"];
    let mut whole = server.stream("topic=kept&start=earliest&meta=1", "").await;
    let mut times = Vec::new();
    for data in data {
        let event = patiently(whole.next()).await.expect("an event");
        let event: Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(event["data"], data);
        times.push(event["at"].as_i64().expect("a number of milliseconds"));
    }
    assert!(times.is_sorted(), "{times:?}");
    for time in &times {
        assert_right(time.unsigned_abs());
        // A reader that starts at the time of an event gets that event and all later events.
        let first = times.iter().position(|other| other == time).expect("the time is in the list");
        let since = jiff::Timestamp::from_millisecond(*time).expect("a time of today");
        let mut stream = server.stream(&format!("topic=kept&start=since:{since}"), "").await;
        assert_eq!(next(&mut stream, data.len() - first).await, data[first..]);
    }
    let mut resumed = server.stream("topic=kept", &ids[0]).await;
    assert_eq!(next(&mut resumed, 2).await, data[1..]);
    server.publish("topic=kept", "new").await;
    assert_eq!(next(&mut resumed, 1).await, ["new"]);
}

/// This server keeps its events only in memory.
#[tokio::test]
async fn a_clock_jump_does_not_change_a_server_in_memory() {
    let folder = Folder::new("clock-memory");
    let test = "a_clock_jump_does_not_change_a_server_in_memory";
    let Some(clock) = Clock::new(&folder, test) else { return };
    let (server, ids) = after_a_jump(&clock, Path::new("none")).await;
    assert_clock_is_right(&server, &ids).await;
}

#[tokio::test]
async fn a_clock_jump_does_not_change_a_server_after_a_restart() {
    let folder = Folder::new("clock-store");
    let test = "a_clock_jump_does_not_change_a_server_after_a_restart";
    let Some(clock) = Clock::new(&folder, test) else { return };
    for killed in [false, true] {
        let store = folder.file(&format!("{killed}.db"));
        let (server, ids) = after_a_jump(&clock, &store).await;
        if killed {
            server.kill();
        } else {
            server.stop();
        }
        let server = clock.server(&store, &FLAGS);
        assert_clock_is_right(&server, &ids).await;
    }
}

/// The server is restarted while the clock is wrong.
#[tokio::test]
async fn a_restart_during_a_clock_jump_does_not_change_the_server() {
    let folder = Folder::new("clock-restart");
    let test = "a_restart_during_a_clock_jump_does_not_change_the_server";
    let Some(clock) = Clock::new(&folder, test) else { return };
    let store = folder.file("x.db");
    let server = clock.server(&store, &FLAGS);
    let mut ids = vec![server.publish("topic=kept", "before").await];
    server.publish("topic=done&last=true", "x").await;
    server.stop();
    clock.set(TEN_YEARS);
    let server = clock.server(&store, &FLAGS);
    assert_eq!(
        events(&server, "kept").await,
        1,
        "an event that only appears to be ten years old is kept"
    );
    ids.push(server.publish("topic=kept", "meanwhile").await);
    server.publish("topic=short/meanwhile", "x").await;
    clock.set("+0");
    ids.push(server.publish("topic=kept", "after").await);
    assert_clock_is_right(&server, &ids).await;
}
