//! In these tests, an older copy replaces the store, so newer events are lost. For the lost events,
//! readers get a gap, which is a notice that events are missing. A reader that resumes after the id
//! of a lost event misses none of the events in the copy.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, backup::Backup};
use serde_json::json;

use crate::{
    Folder, Server, patiently,
    server::{id_of, next},
};

/// Copies a store with SQLite's backup API, a few pages at a time. A server may use the store
/// meanwhile.
pub(crate) fn back_up(store: &Path, copy: &Path) {
    let from = Connection::open(store).expect("a database");
    let mut to = Connection::open(copy).expect("a new file");
    let backup = Backup::new(&from, &mut to).expect("a backup");
    backup.run_to_completion(5, Duration::ZERO, None).expect("a copy");
}

/// Replaces a store with a copy, in the way that the documentation describes. No server may use the
/// store during the replacement.
pub(crate) fn restore(copy: &Path, store: &Path) {
    fs::copy(copy, store).expect("the store is copied");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", store.display()));
    }
}

/// Publishes at least 50 events, one after another, until the test sets `stop`. Returns the id and
/// the data of each event.
async fn publish_until(
    server: Arc<Server>,
    stop: Arc<AtomicUsize>,
    count: Arc<AtomicUsize>,
) -> Vec<(String, String)> {
    let mut published = Vec::new();
    while stop.load(Ordering::Relaxed) == 0 || published.len() < 50 {
        let data = format!("old {}", published.len());
        let id = server.publish("topic=a", &data).await;
        published.push((id, data));
        count.fetch_add(1, Ordering::Relaxed);
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_ids_newer_than_a_restored_copy_give_a_gap() {
    let folder = Folder::new("restored");
    let (store, copy) = (folder.file("x.db"), folder.file("copy.db"));
    let server = Arc::new(Server::start(&store, &[]));
    let (stop, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let publishing =
        tokio::spawn(publish_until(Arc::clone(&server), Arc::clone(&stop), Arc::clone(&count)));
    patiently(async {
        while count.load(Ordering::Relaxed) < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (from, to) = (store.clone(), copy.clone());
    let backup = tokio::task::spawn_blocking(move || back_up(&from, &to));
    patiently(backup).await.expect("a copy");
    let at_backup = count.load(Ordering::Relaxed);
    // These events are published after the copy was made, so the copy does not have them.
    patiently(async {
        while count.load(Ordering::Relaxed) < at_backup + 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop.store(1, Ordering::Relaxed);
    let published = publishing.await.expect("the task did not panic");
    Arc::into_inner(server).expect("the last reference").stop();
    restore(&copy, &store);

    let server = Server::start(&store, &[]);
    let new: Vec<String> = (0..published.len()).map(|number| format!("new {number}")).collect();
    for data in &new {
        let id = server.publish("topic=a", data).await;
        assert!(published.iter().all(|(old, _)| *old != id), "{id} is taken");
    }
    let mut whole = server.stream("topic=a&start=earliest", "").await;
    let mut copied = 0;
    loop {
        let data = next(&mut whole, 1).await;
        if data[0] == new[0] {
            break;
        }
        assert_eq!(data[0], published[copied].1);
        copied += 1;
    }
    assert!((20..=at_backup + 1).contains(&copied), "{copied} of {at_backup}");
    for (number, (id, _)) in published.iter().enumerate() {
        let mut resumed = server.stream("topic=a", id).await;
        if number + 1 > copied {
            let gap = patiently(resumed.gap()).await;
            assert_eq!((&gap["reason"], &gap["after"]), (&json!("lost"), &json!(id)));
        } else {
            let kept = next(&mut resumed, copied - number - 1).await;
            let due = published[number + 1..copied].iter().map(|(_, data)| data);
            assert!(kept.iter().eq(due), "after {id}: {kept:?}");
        }
        assert_eq!(next(&mut resumed, new.len()).await, new, "after {id}");
    }
}

/// Each start of a server begins a new epoch, and the ids of its events contain the name of the
/// epoch. The server was restarted after the copy was made, so the copy does not know the new
/// epoch.
#[tokio::test]
async fn ids_of_an_epoch_unknown_to_a_restored_copy_give_a_gap() {
    let folder = Folder::new("unknown-life");
    let (store, copy) = (folder.file("x.db"), folder.file("copy.db"));
    let server = Server::start(&store, &[]);
    let old = server.publish("topic=a", "old").await;
    back_up(&store, &copy);
    server.stop();
    let server = Server::start(&store, &[]);
    let gone = id_of(&server.post("topic=a", "Idempotency-Key: k\r\n", "gone").await);
    server.stop();
    restore(&copy, &store);

    let server = Server::start(&store, &[]);
    let mut waiting = server.stream("topic=a", &gone).await;
    let gap = patiently(waiting.gap()).await;
    assert_eq!((&gap["reason"], &gap["after"]), (&json!("new_epoch"), &json!(gone)));
    // The reader gets all events of the copy, including those that it already had.
    assert_eq!(next(&mut waiting, 1).await, ["old"]);
    // The idempotency key of the lost event is lost too. So if the event is published again, it is
    // a new event with a new id.
    let again = id_of(&server.post("topic=a", "Idempotency-Key: k\r\n", "gone").await);
    assert_ne!(again, gone);
    assert_eq!(next(&mut waiting, 1).await, ["gone"]);
    let mut resumed = server.stream("topic=a", &old).await;
    assert_eq!(next(&mut resumed, 1).await, ["gone"]);
}
