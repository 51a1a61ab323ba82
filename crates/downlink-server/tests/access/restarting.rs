//! Revocations and tickets survive a restart of a server with a store.

use std::io::Write as _;

use crate::{request::Request, site::Site};

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
