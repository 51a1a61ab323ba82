//! Tests of `downlink backup`: copies of a store that a server uses.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    Folder, Server, patiently,
    server::{id_of, next},
};

fn backup(store: &Path, copy: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
    command.env_remove("DOWNLINK_STORE").arg("backup").arg(copy).arg("--store").arg(store);
    command.args(flags).output().expect("the program starts")
}

/// Makes a backup, and returns the id that the command prints.
#[track_caller]
fn backed_up(store: &Path, copy: &Path, flags: &[&str]) -> String {
    let ended = backup(store, copy, flags);
    let said = String::from_utf8(ended.stderr).expect("UTF-8");
    assert_eq!((ended.status.code(), &*said), (Some(0), ""));
    let line = String::from_utf8(ended.stdout).expect("UTF-8");
    let id = line.strip_prefix(&format!("{}: the newest event is ", copy.display()));
    id.unwrap_or_else(|| panic!("no id in {line}")).trim_end().to_owned()
}

/// Makes a backup that must fail, and returns the exit code and the error.
fn refused(store: &Path, copy: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let ended = backup(store, copy, flags);
    (ended.status.code(), String::from_utf8(ended.stderr).expect("UTF-8"))
}

/// The names in a folder, without the files of a store that is in use.
fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.file("")).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let mut names: Vec<_> = names.map(|name| name.expect("UTF-8")).collect();
    names.retain(|name| !name.starts_with("x."));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_every_event_that_was_acknowledged_before() {
    let folder = Folder::new("backup-load");
    let (store, copy) = (folder.file("x.db"), folder.file("copy.db"));
    let flags = ["--retain-events", "1000000"];
    let server = Arc::new(Server::start(&store, &flags));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (theirs, ended, counted) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&count));
    let publishing = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            let number = counted.load(Ordering::Relaxed);
            theirs.publish("topic=a", &number.to_string()).await;
            counted.store(number + 1, Ordering::Release);
        }
    });
    let published = async |least: usize| {
        patiently(async {
            while count.load(Ordering::Acquire) < least {
                tokio::task::yield_now().await;
            }
        })
        .await;
        count.load(Ordering::Acquire)
    };
    let acknowledged = published(50).await;
    let from = store.clone();
    let to = copy.clone();
    let newest = tokio::task::spawn_blocking(move || backed_up(&from, &to, &[])).await;
    let newest = newest.expect("the backup ends");
    published(acknowledged + 50).await;
    stop.store(true, Ordering::Relaxed);
    publishing.await.expect("all publishes succeed");

    let restored = Server::start(&copy, &flags);
    let mut stream = restored.stream("topic=a&start=earliest", "").await;
    let events = next(&mut stream, acknowledged).await;
    assert_eq!(events, (0..acknowledged).map(|n| n.to_string()).collect::<Vec<_>>());
    // The printed id is that of the newest event: no event of the copy follows it.
    let mut rest = restored.stream("topic=a", &newest).await;
    restored.publish("topic=a", "the first new event").await;
    assert_eq!(next(&mut rest, 1).await, ["the first new event"]);
}

#[tokio::test]
async fn a_backup_replaces_a_file_only_with_the_flag_force() {
    let folder = Folder::new("backup-force");
    let (store, copy) = (folder.file("x.db"), folder.file("copy.db"));
    let server = Server::start(&store, &[]);
    let first = id_of(&server.post("topic=a", "", "one").await);
    assert_eq!(backed_up(&store, &copy, &[]), first);
    let mode = fs::metadata(&copy).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only the owner can read the events");
    let second = id_of(&server.post("topic=a", "", "two").await);
    let (code, said) = refused(&store, &copy, &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("copy.db exists: give another name, or --force"), "{said}");
    assert_eq!(backed_up(&store, &copy, &["--force"]), second);
    assert_eq!(names(&folder), ["copy.db"]);
    drop(server);
    assert_eq!(backed_up(&store, &folder.file("later.db"), &[]), second, "no server runs");
    let _next = Server::start(&store, &[]);
}

/// If a backup replaced a store in use, the server would go on writing acknowledged events to the
/// old file, which no longer has a name.
#[tokio::test]
async fn a_backup_never_replaces_a_store_in_use() {
    let folder = Folder::new("backup-in-use");
    let (store, other) = (folder.file("x.db"), folder.file("other.db"));
    let _server = Server::start(&store, &[]);
    let theirs = Server::start(&other, &[]);
    let id = id_of(&theirs.post("topic=a", "", "one").await);
    for flags in [&[][..], &["--force"]] {
        let (code, said) = refused(&store, &other, flags);
        assert_eq!(code, Some(2), "{said}");
    }
    let (_, said) = refused(&store, &other, &["--force"]);
    assert!(said.contains("may be a store in use") && said.contains("stop its server"), "{said}");
    drop(theirs);
    let again = Server::start(&other, &[]);
    let mut stream = again.stream("topic=a&start=earliest", "").await;
    assert_eq!(next(&mut stream, 1).await, ["one"], "{id}");
}

#[test]
fn errors_of_a_backup_say_what_to_do_and_leave_no_file() {
    let folder = Folder::new("backup-errors");
    let (store, copy) = (folder.file("x.db"), folder.file("copy.db"));
    let (code, said) = refused(&store, &copy, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot copy the store ") && said.contains("x.db"), "{said}");
    fs::write(&store, "a text that is no database, and that is longer than a header of one")
        .expect("a file");
    let (code, said) = refused(&store, &copy, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("the file is not a store"), "{said}");
    for flags in [&[][..], &["--force"]] {
        let (code, said) = refused(&store, &store, flags);
        assert_eq!(code, Some(2));
        assert!(said.contains("is the store itself"), "{said}");
    }
    let (code, said) = refused(Path::new("none"), &copy, &[]);
    assert_eq!(code, Some(78));
    assert!(said.contains("name the file"), "{said}");
    let (code, said) = refused(&store, &folder.file("missing/copy.db"), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(names(&folder), [""; 0]);
}
