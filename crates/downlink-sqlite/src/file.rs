//! Opens the file and its connections.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use downlink_log::{
    ClockState, Cursor, Epoch, Offset, Timestamp,
    store::{Opened, StoreError},
};
use parking_lot::Mutex;
use rusqlite::{
    Connection, OpenFlags, TransactionBehavior, backup::Backup as Copying, config::DbConfig,
};

use crate::{
    fault::{Fault, Result, file_error},
    lock::{FileUse, WriterLock},
    schema::is_new,
    sql::{Sql as _, meta},
};

/// How long to wait if another program has locked the database, for example a shell in a
/// transaction. A quick query from a shell is over within this time. If the program holds the lock
/// for longer, publishers get an error. With a longer time, publishers would wait longer for this
/// error.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The number of compiled statements that SQLite keeps for a connection. This crate has fewer
/// statements, so SQLite keeps all of them.
const STATEMENTS_MAX: usize = 64;

/// Opens a connection with the settings that all connections share.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // The value of a parameter may decide whether SQLite can use a partial index. Without this
    // setting, SQLite may then compile the statement again for each new value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Connections that can only read. A thread that finds no idle connection opens a new connection.
/// So the number of connections is at most the highest number of reads that have run at the same
/// time.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) path: PathBuf,
    /// The connections that no thread uses now. `None` after the pool was closed. A thread releases
    /// this lock before it reads from the file.
    pub(crate) idle: Mutex<Option<Vec<Connection>>>,
    /// The one connection that all reads share while the disk is full. A thread holds this lock
    /// while it reads. A thread that needs this lock and the lock of `idle` takes this lock first.
    alone: Mutex<Option<Connection>>,
    /// Set when the pool is closed. A new store for the same file then waits, because the store of
    /// this pool will release the file soon.
    is_closing: Arc<AtomicBool>,
    /// In a cache, the number of the contents that this pool reads (`meta.life`). If the cache was
    /// emptied and now has contents with another number, every read fails.
    pub(crate) life: Option<i64>,
    /// Must be dropped after the connections (see [`FileUse`]), so it is the last field.
    pub(crate) file: FileUse,
}

impl Pool {
    pub(crate) fn new(path: PathBuf, lock: &WriterLock) -> Self {
        let (is_closing, file) = (Arc::clone(&lock.is_closing), lock.file.clone());
        let (idle, alone) = (Mutex::new(Some(Vec::new())), Mutex::new(None));
        Self { path, idle, alone, is_closing, life: None, file }
    }

    /// A pool for the contents of a cache that have this number.
    pub(crate) fn of_cache(path: PathBuf, lock: &WriterLock, life: i64) -> Self {
        Self { life: Some(life), ..Self::new(path, lock) }
    }

    /// Reads within one transaction.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T, StoreError> {
        let read = |db: &Connection| match self.life {
            Some(life) if meta::<i64>(db, "life")? != life => Err(StoreError::Stopped.into()),
            _ => read(db),
        };
        let alone = self.alone.lock();
        if let Some(connection) = &*alone {
            let (answer, _) = read_once(connection, read);
            return Ok(answer?);
        }
        drop(alone);
        let idle = self.idle.lock().as_mut().ok_or(StoreError::Stopped)?.pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let (answer, is_usable) = read_once(&connection, read);
        if let Some(idle) = self.idle.lock().as_mut().filter(|_| is_usable) {
            idle.push(connection);
        }
        Ok(answer?)
    }

    /// Closes the shared connection, if it is open, and calls `open`. If `open` fails because the
    /// disk is full, this function opens a shared connection again. A shared connection needs no
    /// space on the disk.
    pub(crate) fn or_alone<T>(&self, open: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut alone = self.alone.lock();
        drop(alone.take());
        let opened = open();
        if let Err(Fault(StoreError::DiskFull)) = &opened {
            *alone = Some(connect_alone(&self.path)?);
        }
        opened
    }

    /// Closes the connections. Later reads fail.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        drop(self.alone.lock().take());
        drop(self.idle.lock().take());
    }
}

/// Reads within one transaction. Also returns whether the connection can be used again. If an error
/// has left the connection in the transaction, the connection cannot be used again.
fn read_once<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T>,
) -> (Result<T>, bool) {
    let answer = connection.run("BEGIN", []).and_then(|_| read(connection));
    (answer, connection.is_autocommit() || connection.run("ROLLBACK", []).is_ok())
}

/// Opens the connection that all reads share while the disk is full. It keeps the index of the
/// write-ahead log in its own memory, because the disk has no room for the file of the shared
/// index. This connection never writes, not even when it is closed. The next opening of the store
/// moves the pages of the write-ahead log into the file.
fn connect_alone(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Makes backups of a store, from any thread.
#[derive(Clone, Debug)]
pub struct Backup {
    pub(crate) path: PathBuf,
    /// Keeps the descriptor of the file open while a backup reads.
    pub(crate) _file: FileUse,
}

impl Backup {
    /// Prepares backups of the store in this file. Another process may use the store. If this
    /// process uses it, [`SqliteStore::backup`](crate::SqliteStore::backup) does the same.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`CannotOpen`](StoreError::CannotOpen) if there is no such file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // `FileUse::open` would create a file that does not exist.
        if !path.metadata().map_err(|error| file_error(&error))?.is_file() {
            return Err(StoreError::CannotOpen { reason: "it is not a file".into() });
        }
        Ok(Self { path: path.to_owned(), _file: FileUse::open(path)? })
    }

    /// Copies the store into a new file, which only its owner can read. The copy is the state of
    /// the store at one moment, and is on the disk when this function returns. Returns the cursor
    /// after the newest event of the copy, or `None` if the store has never had an event.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`CannotOpen`](StoreError::CannotOpen) if the new file already exists. After
    /// an error, the incomplete copy is removed.
    pub fn run(&self, path: &Path) -> Result<Option<Cursor>, StoreError> {
        let from = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        if is_new(&from)? {
            return Err(StoreError::NotAStore);
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map_err(|error| file_error(&error))?;
        let copied = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|mut to| {
            // The copy is made in one step. With several steps, SQLite would start the copy again
            // after each commit.
            let copying = Copying::new(&from, &mut to)?;
            copying.run_to_completion(i32::MAX, Duration::ZERO, None)?;
            drop(copying);
            newest(&to)
        });
        if copied.is_err() {
            let _ = fs::remove_file(path);
        }
        Ok(copied?)
    }
}

/// The cursor after the newest event that the file has had.
fn newest(db: &Connection) -> Result<Option<Cursor>> {
    let events = "SELECT offset + 1 FROM events ORDER BY offset DESC LIMIT 1";
    let (next,): (u64,) = db.first(events, [])?.unwrap_or_default();
    // The newest event may have no row. In this case, `meta` has its offset.
    let next = next.max(meta(db, "next_offset")?);
    let of_event = "SELECT epoch FROM epochs WHERE first_offset < ? ORDER BY number DESC LIMIT 1";
    let Some((epoch,)) = db.first::<(String,)>(of_event, [next])? else { return Ok(None) };
    let epoch = Epoch::parse(&epoch);
    let epoch = epoch.ok_or_else(|| Fault::corrupt("an epoch has an invalid form"))?;
    Ok(Some(Cursor { epoch, next: Offset::new(next) }))
}

/// The page size, which is also SQLite's default. A commit writes each changed page as a whole.
/// With double the size, a commit of one event would write more bytes. With half the size, a
/// payload of 3 KiB would not fit into one page, and would take additional pages.
const PAGE_BYTES: i64 = 4_096;

/// The size of the writer's page cache in KiB. New rows go to the last pages of the indexes. The
/// cache has enough memory for these pages, and for the index pages of several thousand busy
/// topics.
const WRITER_CACHE_KIB: i64 = 16 * 1_024;

/// The maximum size of the write-ahead log after a checkpoint, in bytes. A checkpoint moves all
/// pages of the write-ahead log into the file. SQLite then shortens the write-ahead log to this
/// size, and later writes over it. Between two checkpoints, the write-ahead log usually reaches
/// half of this size. A long read can make it much longer.
const WAL_KEPT_BYTES: i64 = 32 << 20;

/// The maximum number of epochs that the file remembers. An epoch lasts from one opening of the
/// store to the next, and each id of the log contains its epoch. With ten restarts a day, the file
/// remembers the epochs of a year. A reader with an id of a forgotten epoch gets the same answer as
/// with an id of an unknown epoch.
pub(crate) const EPOCHS_MAX: usize = 4_096;

/// Opens a connection that writes. Creates the file if there is none.
pub(crate) fn connect_writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let db = connect(path, flags)?;
    db.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let reason = "its file system does not support the WAL mode of SQLite; a local disk does";
        let reason = reason.into();
        return Err(StoreError::CannotOpen { reason }.into());
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    db.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    // SQLite must not move the pages of the write-ahead log into the file during a commit, while a
    // publisher waits. Trimming moves these pages between commits.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(db)
}

/// Begins an epoch, and reads the state that the log needs at its start. The first offset of the
/// epoch is higher than every offset that the file has ever had.
pub(crate) fn begin_epoch(connection: &mut Connection, epoch: Epoch) -> Result<Opened> {
    let db = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let opened = read_opened(&db, epoch)?;
    let sql = "INSERT INTO epochs (epoch, first_offset) VALUES (?, ?)";
    db.run(sql, (epoch.as_str(), opened.next_offset.get()))?;
    let sql = "DELETE FROM epochs WHERE number <= (SELECT max(number) FROM epochs) - ?";
    db.run(sql, [EPOCHS_MAX])?;
    db.commit()?;
    Ok(opened)
}

/// Reads the state that the log needs at its start. The result also lists the new epoch, although
/// the file does not have this epoch yet.
pub(crate) fn read_opened(db: &Connection, epoch: Epoch) -> Result<Opened> {
    let (next, clock) = read_end(db)?;
    let next_offset = Offset::new(next);
    let mut epochs = read_epochs(db)?;
    if epochs.iter().any(|(known, _)| *known == epoch) {
        return Err(StoreError::EpochTaken.into());
    }
    epochs.push((epoch, next_offset));
    epochs.drain(..epochs.len().saturating_sub(EPOCHS_MAX));
    let clock = (clock != ClockState::default()).then_some(clock);
    let fingerprint_key = meta(db, "fingerprint_key")?;
    Ok(Opened { epochs, next_offset, clock, fingerprint_key, refuses: None })
}

/// The epochs in the file, oldest first.
pub(crate) fn read_epochs(db: &Connection) -> Result<Vec<(Epoch, Offset)>> {
    let rows: Vec<(String, u64)> =
        db.all("SELECT epoch, first_offset FROM epochs ORDER BY number", [])?;
    let known = rows.iter().map(|(text, first)| Some((Epoch::parse(text)?, Offset::new(*first))));
    let known = known.collect::<Option<Vec<_>>>();
    known.ok_or_else(|| Fault::corrupt("an epoch has an invalid form"))
}

/// The offset after the highest offset that the file has ever had, and the state of the clock.
pub(crate) fn read_end(db: &Connection) -> Result<(u64, ClockState)> {
    // The newest event may have no row in `events`, for example because it was evicted. In this
    // case, `meta` has the newest offset and time.
    let newest = "SELECT offset + 1, at FROM events ORDER BY offset DESC LIMIT 1";
    let (next, at): (u64, u64) = db.first(newest, [])?.unwrap_or_default();
    let next = next.max(meta(db, "next_offset")?);
    let at = Timestamp::from_millis(at.max(meta(db, "newest_at")?));
    let clock = ClockState { at, delta_ms: meta(db, "clock_delta")? };
    Ok((next, clock))
}
