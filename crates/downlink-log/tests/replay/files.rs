//! A temporary folder with a store in it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use downlink_log::{Epoch, Retention};
use downlink_sqlite::{SqliteOptions, SqliteStore};

use crate::support::ms;

/// A retention that keeps everything.
pub(crate) const ALL: Retention =
    Retention { events_max: usize::MAX / 2, bytes_max: usize::MAX, age_max: None };

/// The folder of one test. Dropping it removes the folder with all its files.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("replay-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Opens the store in this folder for a new epoch.
    pub(crate) fn open(&self, options: SqliteOptions) -> SqliteStore {
        static EPOCH: AtomicU64 = AtomicU64::new(1);
        let epoch = Epoch::from_random(EPOCH.fetch_add(1, Ordering::Relaxed));
        SqliteStore::open(&self.0.join("log.db"), epoch, ms(1_000), options).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
