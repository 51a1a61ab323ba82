//! The file: its lock, its connections, and its opening.
//!
//! One process writes at a time: it has a lock on a file beside the database. SQLite's own locks
//! would also keep out the user's tools, which may read a store that is in use. The lock is the
//! operating system's, so it ends with the process, also after a crash. Its file stays.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use downlink_log::{
    ClockState, Epoch, Offset, Timestamp,
    store::{Opened, StoreError},
};
use parking_lot::Mutex;
use rusqlite::{
    Connection, OpenFlags, TransactionBehavior, backup::Backup as Copying, config::DbConfig,
};

use crate::{
    fault::{Fault, Result},
    sql::{Sql as _, meta},
};

/// How long to wait for a lock that another program holds on the database, such as a shell in a
/// transaction: long enough for a query that a person types, short enough that publishers learn of
/// the error soon.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Statements kept compiled: enough for all of this crate.
const STATEMENTS_MAX: usize = 64;

/// Opens a connection with the settings that all have.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Otherwise SQLite plans a statement anew for each value that it compares with the condition of
    // a partial index.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Connections that can only read. There are as many as threads have read at the same time.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) path: PathBuf,
    /// Held for moments; no connection is used under it.
    pub(crate) idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let idle = Mutex::new(vec![connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?]);
        Ok(Self { path, idle })
    }

    /// Reads within one transaction.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let answer = connection.run("BEGIN", []).and_then(|_| read(&connection));
        // An error may have ended the transaction. A connection that still has one is closed.
        if connection.is_autocommit() || connection.run("ROLLBACK", []).is_ok() {
            self.idle.lock().push(connection);
        }
        Ok(answer?)
    }
}

/// Makes backups of a store, from any thread.
#[derive(Clone, Debug)]
pub struct Backup {
    pub(crate) path: PathBuf,
}

impl Backup {
    /// Copies the store into a new file: one consistent moment of it, on the disk when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`CannotOpen`](StoreError::CannotOpen) if there is such a file already. An
    /// incomplete copy is removed.
    pub fn run(&self, path: &Path) -> Result<(), StoreError> {
        let from = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        fs::File::create_new(path).map_err(|error| file_error(&error))?;
        let copied = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|mut to| {
            // In one step, because a commit between two steps makes the copy begin anew.
            let copying = Copying::new(&from, &mut to)?;
            Ok(copying.run_to_completion(i32::MAX, Duration::ZERO, None)?)
        });
        if copied.is_err() {
            let _ = fs::remove_file(path);
        }
        Ok(copied?)
    }
}

/// The system could not open or make a file.
pub(crate) fn file_error(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly,
        io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::CannotOpen { reason: error.to_string().into() },
    }
}

/// SQLite's own page size too. With larger pages a commit of one event writes more, since each page
/// it touches goes to the log whole; with smaller ones payloads overflow.
const PAGE_BYTES: i64 = 4_096;

/// Pages the writer keeps in memory, in KiB: the right edges of all indexes and the neighbourhood
/// of several thousand busy topics.
const WRITER_CACHE_KIB: i64 = 16 * 1_024;

/// Bytes of the write-ahead log that stay on the disk after it was emptied: several times its size
/// between two checkpoints. A long reader can make it grow larger. SQLite gives that part back.
const WAL_KEPT_BYTES: i64 = 32 << 20;

/// Lives of the log that are remembered: with ten restarts a day, a year. An id of an older one is
/// answered like an id of an unknown epoch.
const EPOCHS_MAX: usize = 4_096;

/// A connection that writes. Makes the file if there is none.
pub(crate) fn connect_writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let db = connect(path, flags)?;
    db.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let reason = "its file system cannot share memory between connections".into();
        return Err(StoreError::CannotOpen { reason }.into());
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    db.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    // Trimming moves the pages and checks the result, at a time when no publisher waits.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(db)
}

/// Begins an epoch after every offset that the file has ever seen, and reads what the log needs.
pub(crate) fn begin_epoch(connection: &mut Connection, epoch: Epoch) -> Result<Opened> {
    let db = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // The newest event, and the notes of the last transaction without an event.
    let newest = "SELECT offset + 1, at FROM events ORDER BY offset DESC LIMIT 1";
    let (next, at): (u64, u64) = db.first(newest, [])?.unwrap_or_default();
    let next_offset = Offset::new(next.max(meta(&db, "next_offset")?));
    let at = Timestamp::from_millis(at.max(meta(&db, "newest_at")?));
    let clock = ClockState { at, delta_ms: meta(&db, "clock_delta")? };
    let rows: Vec<(String, u64)> =
        db.all("SELECT epoch, first_offset FROM epochs ORDER BY number", [])?;
    let known = rows.iter().map(|(text, first)| Some((Epoch::parse(text)?, Offset::new(*first))));
    let known = known.collect::<Option<Vec<_>>>();
    let mut epochs = known.ok_or_else(|| Fault::corrupt("an epoch of another form"))?;
    if epochs.iter().any(|(known, _)| *known == epoch) {
        return Err(StoreError::EpochTaken.into());
    }
    let sql = "INSERT INTO epochs (epoch, first_offset) VALUES (?, ?)";
    db.run(sql, (epoch.as_str(), next_offset.get()))?;
    let sql = "DELETE FROM epochs WHERE number <= (SELECT max(number) FROM epochs) - ?";
    db.run(sql, [EPOCHS_MAX])?;
    epochs.push((epoch, next_offset));
    epochs.drain(..epochs.len().saturating_sub(EPOCHS_MAX));
    let clock = (clock != ClockState::default()).then_some(clock);
    let fingerprint_key = meta(&db, "fingerprint_key")?;
    db.commit()?;
    Ok(Opened { epochs, next_offset, clock, fingerprint_key })
}

/// The pause between two looks of a waiting process: short enough for a quick restart in place, and
/// long enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The right to write. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: File,
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that is just being started.
        let _ = self.file.unlock();
    }
}

impl WriterLock {
    /// Takes the lock of the database at `path`, and waits for it if another process has it.
    pub(crate) fn take(path: &Path, wait_for: Duration) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path))
            .map_err(|error| file_error(&error))?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if since.elapsed() >= wait_for => {
                    return Err(StoreError::InUse.into());
                }
                Err(TryLockError::WouldBlock) => thread::park_timeout(LOOK_EVERY),
                Err(TryLockError::Error(error)) => return Err(file_error(&error).into()),
            }
        }
    }
}

/// The lock's file. A link to the database and the database itself share one.
fn beside(path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = OsString::from(path);
    name.push("-lock");
    name.into()
}
