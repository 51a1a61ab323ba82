//! Tests of files that are not stores, of full disks, and of damaged files.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Command,
};

use downlink_log::{
    EvictionNumber,
    store::{Durability, Store, StoreError, StoredEvent},
};
use downlink_sqlite::{SqliteOptions, SqliteStore};

use crate::support::{
    ALL, Folder, LARGE, NOW, commit, event, first_page, fresh_epoch, keeping, offsets, open,
    open_with, range, topic, wanted,
};

fn refusal(path: &Path) -> StoreError {
    SqliteStore::open(path, fresh_epoch(), NOW, SqliteOptions::default()).map(|_| ()).unwrap_err()
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_left_unchanged() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    fs::write(&path, "a text that is long enough to be a database file ".repeat(100)).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(refusal(&path), StoreError::NotAStore);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn the_database_of_another_program_is_refused() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let theirs = rusqlite::Connection::open(&path).unwrap();
    theirs.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(theirs);
    assert_eq!(refusal(&path), StoreError::NotAStore);
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    drop(open(&path));
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert_eq!(refusal(&path), StoreError::NewerVersion { found: 99, known: 2 });
}

#[test]
fn a_missing_folder_gives_the_error_cannot_open() {
    let folder = Folder::new();
    let refused = refusal(&folder.file("missing/a.db"));
    assert!(matches!(refused, StoreError::CannotOpen { .. }), "{refused}");
}

#[test]
fn a_damaged_page_is_detected_when_it_is_read() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut store = open_with(&path, keeping(ALL));
    commit(&mut store, &(1..=5_000).map(|n| event(n, &[topic("a")])).collect::<Vec<_>>());
    drop(store);
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let pages = file.metadata().unwrap().len() / 4_096;
    for page in pages / 2..pages * 2 / 3 {
        file.seek(SeekFrom::Start(page * 4_096)).unwrap();
        file.write_all(&[0xff; 64]).unwrap();
    }
    drop(file);
    let store = open_with(&path, keeping(ALL));
    let mut replay = store.reader().replay(wanted(&[topic("a")], &[]));
    let found = (0..5).try_for_each(|hundred| {
        let offsets = range(hundred * 1_000 + 1..hundred * 1_000 + 1_001);
        replay.page(offsets, EvictionNumber::NONE, LARGE).map(|_| ())
    });
    assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{found:?}");
}

/// A small file system for one test. If the test may not mount it, `mount` prints that the test is
/// skipped and returns `None`.
struct Disk(Folder);

impl Disk {
    fn mount(options: &str) -> Option<Self> {
        let folder = Folder::new();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(folder.path())
            .output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: only root may mount a file system");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn commits_to_a_full_disk_fail_until_there_is_space_again() {
    let Some(disk) = Disk::mount("size=1m") else { return };
    let path = disk.0.file("a.db");
    let ballast = disk.0.file("ballast");
    let mut store = open_with(&path, keeping(ALL));
    fs::write(&ballast, vec![0; 600 << 10]).unwrap();
    let large =
        |offset| StoredEvent { payload: Some(vec![1; 20_000]), ..event(offset, &[topic("a")]) };
    let full = (1..100)
        .find_map(|n| store.commit(&[large(n)], Durability::Commit).err().map(|error| (n, error)));
    let (failed, error) = full.unwrap();
    assert_eq!(error, StoreError::DiskFull);
    assert_eq!(
        store.commit(&[large(failed + 1)], Durability::Commit),
        Err(StoreError::DiskFull),
        "the disk is still full"
    );
    fs::remove_file(&ballast).unwrap();
    store.commit(&[large(failed + 2)], Durability::Commit).unwrap();
    drop(store);
    let store = open_with(&path, keeping(ALL));
    let all = wanted(&[topic("a")], &[]);
    let page = first_page(&*store.reader(), &all, 1..1_000, LARGE);
    let kept: Vec<_> = page.events.iter().map(|entry| entry.offset.get()).collect();
    let expected: Vec<_> = (1..failed).chain([failed + 2]).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_disk_without_space_for_a_new_store_gives_the_error_disk_full() {
    let Some(disk) = Disk::mount("size=16k") else { return };
    assert_eq!(refusal(&disk.0.file("a.db")), StoreError::DiskFull);
}

#[test]
fn a_read_only_disk_gives_the_error_read_only() {
    let Some(disk) = Disk::mount("size=4m") else { return };
    let path = disk.0.file("a.db");
    drop(open(&path));
    let remount =
        Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).status().unwrap();
    assert!(remount.success());
    assert_eq!(refusal(&path), StoreError::ReadOnly);
    assert_eq!(refusal(&disk.0.file("new.db")), StoreError::ReadOnly);
}

#[test]
fn a_read_only_file_gives_the_error_read_only() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    drop(open(&path));
    let mut mode = fs::metadata(&path).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(&path, mode).unwrap();
    if fs::OpenOptions::new().write(true).open(&path).is_ok() {
        eprintln!("skipped: this user may write to read-only files");
        return;
    }
    assert_eq!(refusal(&path), StoreError::ReadOnly);
}

#[test]
fn every_error_has_a_different_text_with_advice() {
    let reason: Box<str> = "x".into();
    let errors = [
        StoreError::InUse { file: Path::new("x").into() },
        StoreError::OpenTwice { file: Path::new("x").into() },
        StoreError::Locked,
        StoreError::DiskFull,
        StoreError::ReadOnly,
        StoreError::CannotOpen { reason: reason.clone() },
        StoreError::NotAStore,
        StoreError::NewerVersion { found: 2, known: 1 },
        StoreError::Corrupt { reason: reason.clone() },
        StoreError::OutcomeUnknown,
        StoreError::Io { reason },
        StoreError::Stopped,
        StoreError::EpochTaken,
    ];
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(texts.iter().all(|text| text.contains(": ")), "{texts:?}");
    let distinct: std::collections::BTreeSet<_> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len());
}

#[test]
fn an_empty_file_becomes_a_store() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    fs::write(&path, "").unwrap();
    let mut store = open(&path);
    commit(&mut store, &[event(1, &[topic("a")])]);
    assert_eq!(offsets(&store, &wanted(&[topic("a")], &[])), [1]);
}
