//! One server: the contract, restarts, streams that are replaced, and limits.

use downlink_cluster::{Bounds, Journal as _, JournalDurability, JournalError, Position, TailItem};
use downlink_nats::{ENTRY_BYTES_MAX, StreamSettings};
use serde_json::json;

use crate::{
    contract::name,
    servers::{
        HUB, STREAM, Server, append, check_contract, create, delete_stream, eventually, journal,
        next, replicas, request,
    },
};

const FIRST: Position = Position::FIRST;

#[tokio::test]
async fn a_stream_keeps_the_contract() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let created = create(&servers, &replicas(1)).await;
    // A clone shares the connection, and the other journal has its own.
    check_contract([created.clone(), journal(&servers)]).await;
    let opened = created.clone().open().await.unwrap();
    assert_eq!(opened.entry_bytes_max, ENTRY_BYTES_MAX);
    assert_eq!(opened.durability, JournalDurability::Relaxed);
}

#[tokio::test]
async fn a_killed_server_fails_every_request_until_it_is_back() {
    let Some(server) = Server::start("").await else { return };
    let mut servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=3 {
        append(&mut journal, name(0, counter)).await;
    }
    let mut tail = journal.tail(FIRST);
    assert!(matches!(next(&mut tail).await, Ok(TailItem::Entry(_))));
    let before = journal.read(FIRST..Position::new(9)).await.unwrap();
    servers[0].kill();
    let unavailable = JournalError::Unavailable;
    assert_eq!(journal.append(name(0, 4), vec![4], None).await, Err(unavailable));
    assert_eq!(journal.bounds().await, Err(unavailable));
    assert_eq!(journal.read(FIRST..Position::new(9)).await, Err(unavailable));
    let failed = loop {
        if let Err(error) = next(&mut tail).await {
            break error;
        }
    };
    assert_eq!(failed, unavailable);
    assert!(journal.connect_error().unwrap().contains("cannot connect to 127."));
    servers[0].run().await;
    eventually("the stream is back", async || journal.bounds().await.ok()).await;
    assert_eq!(journal.connect_error(), None);
    assert_eq!(journal.read(FIRST..Position::new(9)).await.unwrap(), before);
    // The server remembers the names of entries, also after a restart.
    assert_eq!(append(&mut journal, name(0, 2)).await, Position::new(2));
    assert_eq!(append(&mut journal, name(0, 4)).await, Position::new(4));
}

#[tokio::test]
async fn a_stream_that_was_replaced_is_noticed_by_every_request() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    append(&mut journal, name(0, 1)).await;
    let id = journal.open().await.unwrap().id;
    let mut tail = journal.tail(FIRST);
    assert!(matches!(next(&mut tail).await, Ok(TailItem::Entry(_))));
    let replaced = JournalError::Replaced;
    delete_stream(&servers[0]).await;
    for is_back in [false, true] {
        if is_back {
            journal.create_stream(&replicas(1), HUB).await.unwrap();
        }
        assert_eq!(journal.append(name(0, 2), vec![2], None).await, Err(replaced));
        assert_eq!(journal.bounds().await, Err(replaced));
        assert_eq!(journal.read(FIRST..Position::new(9)).await, Err(replaced));
        assert_eq!(next(&mut journal.tail(FIRST)).await, Err(replaced));
    }
    // The consumer was removed with its stream.
    let failed = loop {
        if let Err(error) = next(&mut tail).await {
            break error;
        }
    };
    assert_eq!(failed, JournalError::Unavailable);
    let opened = journal.open().await.unwrap();
    assert_ne!(opened.id, id);
    assert_eq!(opened.bounds, Bounds { first: FIRST, last: Position::ORIGIN });
    assert_eq!(append(&mut journal, name(0, 2)).await, FIRST);
}

#[tokio::test]
async fn a_full_server_says_so_and_appends_nothing() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    // The server has 64 MiB.
    let mut refused = None;
    for counter in 1..=100 {
        let answer = journal.append(name(0, counter), vec![7; ENTRY_BYTES_MAX], None).await;
        if let Err(error) = answer {
            refused = Some((counter, error));
            break;
        }
    }
    let (counter, error) = refused.unwrap();
    assert_eq!(error, JournalError::Full);
    assert_eq!(journal.bounds().await.unwrap().last, Position::new(counter - 1));
}

#[tokio::test]
async fn a_stream_with_two_subjects_is_refused() {
    let Some(server) = Server::start("").await else { return };
    let config = json!({"name": STREAM, "subjects": ["a", "b"], "retention": "limits",
        "discard": "old", "storage": "file", "num_replicas": 1});
    let answer = request(&server, &format!("STREAM.CREATE.{STREAM}"), config).await;
    assert_eq!(answer["error"], json!(null));
    let servers = [server];
    let mut journal = journal(&servers);
    assert_eq!(journal.open().await, Err(JournalError::Refused));
}

/// A client that reconnects would send the waiting entries to the new process.
#[tokio::test]
async fn entries_that_wait_for_a_dead_connection_are_dropped() {
    let Some(server) = Server::start("").await else { return };
    let mut servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    append(&mut journal, name(0, 1)).await;
    servers[0].pause();
    // More bytes than the sockets hold, so most entries wait in the client.
    let appends: Vec<_> = (2..=40)
        .map(|counter| {
            tokio::spawn(journal.append(name(0, counter), vec![2; ENTRY_BYTES_MAX], None))
        })
        .collect();
    for append in appends {
        assert_eq!(append.await.unwrap(), Err(JournalError::Unavailable));
    }
    servers[0].kill();
    servers[0].run().await;
    let next = eventually("the server answers", async || journal.bounds().await.ok()).await;
    assert_eq!(next.last, FIRST);
    // If the client still sent the waiting entries, it would use the same connection or an older
    // one. So the waiting entries would arrive before these entries.
    for counter in 41..=60 {
        let at = append(&mut journal, name(0, counter)).await;
        assert_eq!(at, Position::new(counter - 39));
    }
}

/// The server keeps only the newest three entries.
#[tokio::test]
async fn entries_that_limits_have_removed_are_a_hole() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let settings = StreamSettings { entries_max: Some(3), ..replicas(1) };
    let mut journal = create(&servers, &settings).await;
    let mut slow = journal.tail(FIRST);
    assert_eq!(next(&mut slow).await, Ok(TailItem::CaughtUp(Position::ORIGIN)));
    for counter in 1..=10 {
        append(&mut journal, name(0, counter)).await;
    }
    let bounds = Bounds { first: Position::new(8), last: Position::new(10) };
    assert_eq!(journal.bounds().await.unwrap(), bounds);
    let (kept, _) = journal.read(FIRST..Position::new(99)).await.unwrap();
    let mut tail = journal.tail(FIRST);
    assert_eq!(next(&mut tail).await, Ok(TailItem::Hole(FIRST..Position::new(8))));
    for entry in kept {
        assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(entry)));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(10))));
}

/// A clone that opens a stream again does not change the stream that another clone expects, nor the
/// stream that an earlier tail expects.
#[tokio::test]
async fn a_clone_that_opens_again_changes_no_other_clone() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut one = create(&servers, &replicas(1)).await;
    let mut other = one.clone();
    let (id, replaced) = (one.open().await.unwrap().id, JournalError::Replaced);
    assert_eq!(other.open().await.unwrap().id, id);
    append(&mut one, name(0, 1)).await;
    let (append_before, read_before) =
        (one.append(name(0, 2), vec![2], None), one.read(FIRST..Position::new(9)));
    let mut tail_before = one.tail(FIRST);
    delete_stream(&servers[0]).await;
    one.create_stream(&replicas(1), HUB).await.unwrap();
    assert_ne!(one.open().await.unwrap().id, id);
    append(&mut one, name(0, 3)).await;
    assert_eq!(other.append(name(0, 2), vec![2], None).await, Err(replaced));
    assert_eq!(other.bounds().await, Err(replaced));
    assert_eq!(other.read(FIRST..Position::new(9)).await, Err(replaced));
    assert_eq!(next(&mut other.tail(FIRST)).await, Err(replaced));
    assert_eq!(append_before.await, Err(replaced));
    assert_eq!(read_before.await, Err(replaced));
    assert_eq!(next(&mut tail_before).await, Err(replaced));
    assert_eq!(one.bounds().await.unwrap().last, FIRST);
}
