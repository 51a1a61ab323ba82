//! The store in one SQLite file.
//!
//! The file is an ordinary database in WAL mode: `sqlite3` reads it while it is in use, and its
//! `.backup` and `VACUUM INTO` make consistent copies. What is guaranteed is said at the seam; here
//! is how. A durable commit is one append to the write-ahead log and one flush. Everything that
//! nobody waits for (eviction, moving pages from the log into the file) happens in trimming, in steps
//! of some milliseconds.
//!
//! Beside the file `x.db` stand `x.db-wal` and `x.db-shm`, which belong to it, and `x.db-lock`, which
//! keeps a second writer out and is always empty.

mod backup;
mod commit;
mod evict;
mod fault;
mod forget;
mod lock;
mod newest;
mod open;
mod page;
mod reader;
mod schema;
mod target;
mod topics;
mod trim;
mod turns;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, config::DbConfig};

use crate::{
    offset::{Epoch, Timestamp},
    retention::RetentionRules,
    store::{
        Durability, Opened, Store, StoreError, StoreReader, StoredEvent, StoredFloor, Trimmed,
    },
};

use self::{lock::WriterLock, reader::SqliteReader, topics::Topics, trim::Trimming};

/// How a store is to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How much each topic keeps. Of events it may be up to an eighth more: evicting some at a time
    /// writes fewer pages than one with each commit.
    pub retention: RetentionRules,
    /// Bytes of the database that may be in use; the oldest events of whatever topic go first. The
    /// newest event always stays. The write-ahead log comes on top: some 16 MiB, more while somebody
    /// reads the file for long. Lowering it frees pages inside the file; only `VACUUM` shrinks it.
    pub bytes_max: u64,
    /// How long a finished topic stays finished.
    pub finished_keep: Duration,
    /// Topics without events whose floor is kept exactly; of the others only the highest is.
    pub floors_max: usize,
    /// How long to wait for another process that has the file: a restart in place needs the time that
    /// the old process takes to end.
    pub wait_for: Duration,
    /// Reads of events at a time; further ones wait in turn. Each costs a connection (2 MiB at most).
    pub replay_readers_max: usize,
}

impl Default for SqliteOptions {
    /// The log's own retention, 16 GiB, an hour for finished topics, a million floors (about
    /// 100 MiB), no waiting, four readers.
    fn default() -> Self {
        Self {
            retention: RetentionRules::default(),
            bytes_max: 16 << 30,
            finished_keep: Duration::from_secs(60 * 60),
            floors_max: 1_000_000,
            wait_for: Duration::ZERO,
            replay_readers_max: 4,
        }
    }
}

/// The writer of a store in one SQLite file.
///
/// ```
/// use downlink_log::{Epoch, store::{Store, SqliteOptions, SqliteStore}};
/// # let folder = std::env::temp_dir().join(format!("downlink-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|_| downlink_log::store::StoreError::ReadOnly)?;
/// # let path = folder.join("example.db");
/// let store = SqliteStore::open(&path, Epoch::from_random(7), SqliteOptions::default())?;
/// assert_eq!(store.opened().next_offset.get(), 1);
/// # drop(store);
/// # std::fs::remove_dir_all(&folder).map_err(|_| downlink_log::store::StoreError::ReadOnly)?;
/// # Ok::<(), downlink_log::store::StoreError>(())
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    reader: Arc<SqliteReader>,
    connection: Connection,
    opened: Opened,
    topics: Topics,
    trimming: Trimming,
    written: Written,
    /// Pages in the write-ahead log that are not in the file yet; at least.
    wal_pages: Arc<AtomicUsize>,
    /// How the connection flushes at present.
    flushes: Option<Durability>,
    stopped: bool,
    /// Dropped after the connection: the next process finds the file let go.
    _lock: WriterLock,
}

/// How far the file is. Changed only when a transaction has succeeded.
#[derive(Clone, Copy, Debug)]
struct Written {
    next_offset: u64,
    at: Timestamp,
    /// Whether something committed waits for a flush.
    unflushed: bool,
    /// The floor of names without a row.
    forgotten: StoredFloor,
}

impl SqliteStore {
    /// Opens the file, or makes it, and begins an epoch in it.
    ///
    /// What is read does not grow with the number of events kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`InUse`](StoreError::InUse) after waiting for `wait_for`. The file is then
    /// as it was, except that an older layout may have been brought up to date.
    pub fn open(path: &Path, epoch: Epoch, options: SqliteOptions) -> Result<Self, StoreError> {
        open::open(path, epoch, options)
    }

    /// Copies the store into a new file while it is in use: one consistent moment of it.
    ///
    /// For as long as that takes, the write-ahead log grows by what is written.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`CannotOpen`](StoreError::CannotOpen) if there is such a file already.
    pub fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        self.backup().run(path)
    }

    /// A handle that makes backups from another thread.
    pub fn backup(&self) -> Backup {
        Backup::new(self.reader.path().to_owned())
    }

    fn check_running(&self) -> Result<(), StoreError> {
        if self.stopped { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Chooses whether the next transaction is flushed to the disk.
    fn set_flushing(&mut self, durability: Durability) -> Result<(), StoreError> {
        if self.flushes != Some(durability) {
            let level = match durability {
                Durability::Commit => "FULL",
                Durability::Relaxed => "NORMAL",
            };
            self.flushes = None;
            self.connection.pragma_update(None, "synchronous", level)?;
            self.flushes = Some(durability);
        }
        Ok(())
    }

    /// Takes the consequences of a failure.
    fn settle<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.topics.clear();
            self.trimming.restart();
            if error.is_final() && !self.stopped {
                self.stopped = true;
                // What is in doubt is left as it is for the next opening to judge.
                let _ =
                    self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
        }
        result
    }
}

impl Drop for SqliteStore {
    /// Leaves one file with everything in it, also while somebody still holds the read side: whoever
    /// copies the file of a server that has ended copies all of it.
    fn drop(&mut self) {
        if !self.stopped {
            // What does not succeed the next opening does.
            let moved =
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            let _ = moved;
        }
    }
}

impl Store for SqliteStore {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        Arc::clone(&self.reader) as Arc<dyn StoreReader>
    }

    fn commit(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<(), StoreError> {
        self.check_running()?;
        let result = self.commit_batch(batch, durability);
        self.settle(result)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.check_running()?;
        if !self.written.unflushed {
            return Ok(());
        }
        let result = self.flush_log();
        self.settle(result)
    }

    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        self.check_running()?;
        let result = self.trim_step(now);
        self.settle(result)
    }
}

pub use self::backup::Backup;

/// Counts the pages that a connection's commits leave in the write-ahead log.
fn count_wal_pages(connection: &mut Connection) -> rusqlite::Result<Arc<AtomicUsize>> {
    let pages = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&pages);
    // One thread writes and reads it: nothing is ordered by it.
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: std::ffi::c_int| {
        seen.store(usize::try_from(count).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

/// The name of the file, whatever the working folder becomes.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
