//! Revocations and tickets survive a restart of a server with a store.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use crate::{program::Program, request::Request, site::Site};

#[tokio::test]
async fn revocations_survive_a_restart_and_a_kill() {
    let mut site = Site::start(&[]);
    site.revoke("client=ada").await;
    site.revoke("client=bob&topic=rooms/1").await;
    let before = site.ticket("topic=rooms/*&client=carol").await;
    site.stop();
    site.start_again();
    let rooms = |number: u32| Request::get(format!("/events?topic=rooms/{number}"));
    assert_eq!(site.outcome_as("ada", rooms(1)).await, "401 revoked");
    assert_eq!(site.outcome_as("bob", rooms(1)).await, "401 revoked");
    assert_eq!(site.outcome_as("bob", rooms(2)).await, "200");
    let with_ticket = Request::get(format!("/events?ticket={before}"));
    assert_eq!(with_ticket.ask(site.public()).await.outcome(), "200");
    site.revoke("client=carol").await;
    let key = site.keys.publish_key_id();
    site.revoke(&format!("key={key}")).await;
    site.kill();
    site.start_again();
    for client in ["ada", "carol"] {
        assert_eq!(site.outcome_as(client, rooms(2)).await, "401 revoked", "{client}");
    }
    assert_eq!(with_ticket.ask(site.public()).await.outcome(), "401 revoked");
    let publish = Request::post("/events?topic=rooms/1", "x").bearer(&site.keys.publish_key());
    assert_eq!(publish.ask(site.admin()).await.outcome(), "401 revoked");
    assert_eq!(site.outcome_as("dave", rooms(2)).await, "200");
}

/// A server that is started by mistake must not change the revocations file of the running server.
#[tokio::test]
async fn a_second_server_that_cannot_start_loses_no_revocation() {
    let mut site = Site::start(&[]);
    let second = site.another(&["--store-wait", "1ms"]).stderr(Stdio::piped()).output();
    let second = second.expect("the program starts");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot keep history in"), "{said}");
    site.revoke("client=ada").await;
    site.kill();
    site.start_again();
    let rooms = Request::get("/events?topic=rooms/1");
    assert_eq!(site.outcome_as("ada", rooms).await, "401 revoked");
}

/// The next server may start before the old server has ended. The next server waits for the store,
/// and then it must know everything that the old server has revoked.
#[tokio::test]
async fn the_next_server_knows_revocations_that_came_while_it_waited_for_the_store() {
    let mut site = Site::start(&[]);
    let mut next = site.another(&["--store-wait", "1h"]);
    next.env("DOWNLINK_LOG", "info").stderr(Stdio::piped());
    let mut next = next.spawn().expect("the program starts");
    let mut stderr = BufReader::new(next.stderr.take().expect("the stream is piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a pipe");
    assert!(line.contains("waiting up to"), "{line}");
    site.revoke("client=ada").await;
    site.stop();
    site.replace_by(Program::greeted(next));
    let rooms = Request::get("/events?topic=rooms/1");
    assert_eq!(site.outcome_as("ada", rooms).await, "401 revoked");
}

#[tokio::test]
async fn a_half_written_revocation_at_the_end_of_the_file_is_dropped() {
    let mut site = Site::start(&[]);
    site.revoke("client=ada").await;
    site.kill();
    let file = site.folder.file("downlink-revocations");
    let mut file = std::fs::OpenOptions::new().append(true).open(file).expect("the file exists");
    file.write_all(b"AQAAA").expect("the disk has room");
    drop(file);
    site.start_again();
    site.revoke("client=bob").await;
    site.kill();
    site.start_again();
    let rooms = Request::get("/events?topic=rooms/1");
    assert_eq!(site.outcome_as("ada", rooms.clone()).await, "401 revoked");
    assert_eq!(site.outcome_as("bob", rooms).await, "401 revoked");
}

#[tokio::test]
async fn only_the_owner_can_read_the_files_of_access_control() {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::program::{Folder, Program};

    let folder = Folder::new();
    let store = folder.file("downlink.db");
    drop(Program::start(&["serve", "--listen", "127.0.0.1:0", "--store", &store]));
    for name in ["downlink-publish.key", "downlink-ticket.key", "downlink-revocations"] {
        let mode = std::fs::metadata(folder.file(name)).expect("the file exists").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}
