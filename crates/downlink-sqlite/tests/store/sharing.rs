//! Tests with several users of one file: a second writer, many readers, backups, and other
//! programs.

use std::{process::Command, sync::Arc, thread, time::Duration};

use downlink_log::{
    Batch, Cursor, Offset,
    store::{Durability, Store, StoreError},
};
use downlink_sqlite::{Backup, SqliteOptions, SqliteStore};

use crate::support::{
    ALL, Folder, LARGE, NOW, commit, event, first_page, fresh_epoch, keeping, offsets, open,
    open_with, payload, topic, wanted,
};

fn waiting(wait_for: Duration) -> SqliteOptions {
    let mut options = SqliteOptions::default();
    options.wait_for = wait_for;
    options
}

#[test]
fn a_store_that_is_already_open_cannot_be_opened_again() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let first = open(&path);
    for wait_for in [Duration::ZERO, Duration::from_millis(50)] {
        let second = SqliteStore::open(&path, fresh_epoch(), NOW, waiting(wait_for));
        let refused = StoreError::OpenTwice { file: path.as_path().into() };
        assert_eq!(second.map(|_| ()), Err(refused));
    }
    drop(first);
    open(&path);
}

/// If a file has two names, it is still one store, and only one server may open it.
#[cfg(target_os = "linux")]
#[test]
fn a_hard_link_is_recognised_as_the_same_file() {
    let folder = Folder::new();
    let (path, link) = (folder.file("a.db"), folder.file("b.db"));
    let first = open(&path);
    std::fs::hard_link(&path, &link).unwrap();
    let second = SqliteStore::open(&link, fresh_epoch(), NOW, SqliteOptions::default());
    assert_eq!(second.map(|_| ()), Err(StoreError::OpenTwice { file: link.as_path().into() }));
    drop(first);
}

/// The store is open, and a second opening is refused. The refused opening must not close any
/// descriptor of the file. If it closed a descriptor, the system would drop the locks that SQLite
/// holds on the file for the first opening. Without these locks, another program that opens and
/// closes the file would remove the write-ahead log.
#[cfg(target_os = "linux")]
#[test]
fn refused_openings_and_dropped_readers_do_not_drop_the_locks_of_sqlite() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let earlier = open(&path);
    let reader = earlier.reader();
    drop(earlier);
    let mut store = open(&path);
    commit(&mut store, &[event(1, &[topic("a")])]);
    for _ in 0..2 {
        SqliteStore::open(&path, fresh_epoch(), NOW, SqliteOptions::default()).unwrap_err();
    }
    drop(reader);
    assert!(has_posix_locks(&path), "SQLite's locks are gone");
    drop(store);
    assert!(!has_posix_locks(&path));
    open(&path);
}

/// Whether this process has locks of the kind that SQLite uses (POSIX locks) on a file.
#[cfg(target_os = "linux")]
fn has_posix_locks(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let process = format!(" {} ", std::process::id());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks
        .lines()
        .any(|line| line.contains(" POSIX ") && line.contains(&process) && line.contains(&inode))
}

/// A server of an earlier version locks another file, beside the database. Such a server may still
/// be running, so its lock must count.
#[cfg(target_os = "linux")]
#[test]
fn the_lock_file_of_an_earlier_version_counts_while_it_is_locked_and_is_removed_later() {
    let folder = Folder::new();
    let (path, old) = (folder.file("a.db"), folder.file("a.db-lock"));
    let file = std::fs::File::create(&old).unwrap();
    file.try_lock().unwrap();
    let refused = SqliteStore::open(&path, fresh_epoch(), NOW, SqliteOptions::default());
    assert_eq!(refused.map(|_| ()), Err(StoreError::InUse { file: path.as_path().into() }));
    drop(file);
    drop(open(&path));
    assert!(!old.exists());
    std::fs::write(&old, "mine").unwrap();
    drop(open(&path));
    assert!(old.exists(), "a file that is not empty must stay");
}

#[test]
fn a_second_writer_waits_until_the_first_is_closed() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut first = open(&path);
    let second = thread::spawn({
        let path = path.clone();
        move || SqliteStore::open(&path, fresh_epoch(), NOW, waiting(Duration::MAX))
    });
    commit(&mut first, &[event(1, &[topic("a")])]);
    drop(first);
    let second = second.join().unwrap().unwrap();
    assert_eq!(second.opened().next_offset, Offset::new(2));
}

/// At any moment, the batches that a reader sees must be complete, and no batch before them may be
/// missing.
#[test]
fn readers_see_whole_batches_while_the_writer_writes() {
    const BATCH: u64 = 7;
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(ALL));
    let reader = store.reader();
    thread::scope(|scope| {
        for _ in 0..6 {
            let reader = Arc::clone(&reader);
            scope.spawn(move || {
                let all = wanted(&[topic("a")], &[]);
                let batch = Batch { events_max: 10_000, bytes_max: usize::MAX };
                let mut seen = 0;
                while seen < 100 * BATCH {
                    let page = first_page(&*reader, &all, 1..100 * BATCH + 1, batch);
                    let count = page.events.len() as u64;
                    assert_eq!(count % BATCH, 0);
                    assert!(count >= seen, "events must not disappear");
                    seen = count;
                }
            });
        }
        for round in 0..100 {
            let batch: Vec<_> =
                (1..=BATCH).map(|n| event(round * BATCH + n, &[topic("a")])).collect();
            commit(&mut store, &batch);
            let _ = store.trim(crate::support::at(0)).unwrap();
        }
    });
}

#[test]
fn a_reader_can_be_used_after_its_writer_is_closed() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    commit(&mut store, &[event(1, &[topic("a")])]);
    let reader = store.reader();
    drop(store);
    let next = open(&path);
    assert_eq!(next.opened().next_offset, Offset::new(2));
    let page = first_page(&*reader, &wanted(&[topic("a")], &[]), 1..2, LARGE);
    assert_eq!(page.events[0].payload, Some(payload(1)));
}

#[test]
fn a_backup_of_a_store_in_use_is_consistent() {
    let folder = Folder::new();
    let mut store = open_with(&folder.file("a.db"), keeping(ALL));
    commit(&mut store, &(1..=500).map(|n| event(n, &[topic("a")])).collect::<Vec<_>>());
    let (backup, copy) = (store.backup(), folder.file("copy.db"));
    thread::scope(|scope| {
        let copying = scope.spawn(|| backup.run(&copy));
        for round in 0..50 {
            let batch: Vec<_> =
                (1..=10).map(|n| event(500 + round * 10 + n, &[topic("a")])).collect();
            commit(&mut store, &batch);
        }
        let newest = copying.join().unwrap().unwrap().unwrap();
        assert_eq!(newest.epoch, store.opened().epochs[0].0);
        assert!(newest.next.get() > 500 && newest.next <= Offset::new(1_001));
    });
    let restored = open_with(&copy, keeping(ALL));
    let kept = offsets(&restored, &wanted(&[topic("a")], &[]));
    assert!(kept.len() >= 500 && kept.len().is_multiple_of(10));
    assert_eq!(kept, (1..=kept.len() as u64).collect::<Vec<_>>());
    let refused = store.backup().run(&copy).unwrap_err();
    assert!(matches!(refused, StoreError::CannotOpen { .. }), "{refused}");
}

/// A command that makes backups is not the process that uses the store. The same holds for a store
/// that no process uses.
#[test]
fn a_backup_needs_only_the_file_of_the_store() {
    let folder = Folder::new();
    let (path, copy) = (folder.file("a.db"), folder.file("copy.db"));
    let mut store = open(&path);
    let backup = Backup::open(&path).unwrap();
    assert_eq!(backup.run(&copy), Ok(None), "the store is empty");
    commit(&mut store, &[event(1, &[topic("a")]), event(2, &[topic("a")])]);
    let epoch = store.opened().epochs[0].0;
    let newest = Some(Cursor { epoch, next: Offset::new(3) });
    assert_eq!(Backup::open(&path).unwrap().run(&folder.file("second.db")), Ok(newest));
    drop((store, backup));
    // A new epoch without an event does not change the id of the newest event.
    drop(open(&path));
    assert_eq!(Backup::open(&path).unwrap().run(&folder.file("third.db")), Ok(newest));
    let files = std::fs::read_dir(folder.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let beside: Vec<String> = names.filter(|name| name.contains("db-")).collect();
    assert!(beside.iter().all(|name| name.starts_with("a.db-")), "{beside:?}");
    let mut store = open(&path);
    commit(&mut store, &[event(3, &[topic("a")])]);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [1, 2, 3]);
}

#[test]
fn a_file_that_is_not_a_store_gives_no_backup() {
    let folder = Folder::new();
    let (missing, copy) = (folder.file("a.db"), folder.file("copy.db"));
    let refused = Backup::open(&missing).unwrap_err();
    assert!(matches!(refused, StoreError::CannotOpen { .. }), "{refused}");
    assert!(!missing.exists());
    for text in ["", "a text that is longer than a header, and not a database at all, not at all"] {
        let file = folder.file("b.db");
        std::fs::write(&file, text).unwrap();
        assert_eq!(Backup::open(&file).unwrap().run(&copy), Err(StoreError::NotAStore));
        assert!(!copy.exists());
    }
}

#[test]
fn a_closed_store_is_a_single_file() {
    let folder = Folder::new();
    let mut store = open(&folder.file("a.db"));
    commit(&mut store, &[event(1, &[topic("a")])]);
    drop(store);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        if cfg!(target_os = "linux") { vec!["a.db"] } else { vec!["a.db", "a.db-lock"] }
    );
}

/// SQLite's own tools can read a store while a server uses it. This test needs the program
/// `sqlite3`.
#[test]
fn the_shell_of_sqlite_copies_a_store_in_use() {
    if Command::new("sqlite3").arg("-version").output().is_err() {
        eprintln!("skipped: there is no sqlite3 on this machine");
        return;
    }
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    commit(&mut store, &[event(1, &[topic("a")]), event(2, &[topic("a")])]);
    for (name, command) in [("b.db", ".backup b.db"), ("c.db", "VACUUM INTO 'c.db'")] {
        let shell = Command::new("sqlite3")
            .current_dir(folder.path())
            .args([path.as_os_str(), command.as_ref()])
            .output()
            .unwrap();
        assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
        let copy = open(&folder.file(name));
        assert_eq!(offsets(&copy, &wanted(&[topic("a")], &[])), [1, 2]);
    }
    commit(&mut store, &[event(3, &[topic("a")])]);
}

#[test]
fn a_commit_fails_while_another_program_holds_a_lock() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open(&path);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.commit(&[event(1, &[topic("a")])], Durability::Commit);
    assert_eq!(refused, Err(StoreError::Locked));
    other.execute_batch("ROLLBACK").unwrap();
    commit(&mut store, &[event(2, &[topic("a")])]);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [2]);
}
