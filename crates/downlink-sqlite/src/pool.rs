//! Connections to the file, a pool of those that read, and backups.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use downlink_log::store::StoreError;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, backup::Backup as Copying};

use crate::fault::{Fault, Result};

/// How long to wait for a lock that another program holds on the database, such as a shell in a
/// transaction: long enough for a query that a person types, short enough to tell the publishers.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Statements kept compiled: all there are.
const STATEMENTS_MAX: usize = 64;

/// Opens a connection with the settings that all have.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Connections that read, and can do nothing else: as many as threads have read at the same time.
#[derive(Debug)]
pub(crate) struct Pool {
    path: PathBuf,
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
        let begun = connection.unchecked_transaction().map_err(Fault::from);
        let answer = begun.and_then(|transaction| read(&transaction));
        self.idle.lock().push(connection);
        Ok(answer?)
    }

    /// A handle that makes backups from any thread.
    pub(crate) fn backup(&self) -> Backup {
        Backup { path: self.path.clone() }
    }
}

/// Makes backups of a store, from any thread.
#[derive(Clone, Debug)]
pub struct Backup {
    path: PathBuf,
}

impl Backup {
    /// Copies the store into a new file: one consistent moment of it, on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`CannotOpen`](StoreError::CannotOpen) if there is such a file already. An
    /// incomplete copy is removed.
    pub fn run(&self, path: &Path) -> Result<(), StoreError> {
        let from = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        fs::File::create_new(path).map_err(|error| file_error(&error))?;
        let copied = copy(&from, path);
        if copied.is_err() {
            let _ = fs::remove_file(path);
        }
        Ok(copied?)
    }
}

fn copy(from: &Connection, path: &Path) -> Result<()> {
    let mut to = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // All pages in one step: a copy in several begins anew whenever something is committed between.
    Copying::new(from, &mut to)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    Ok(())
}

/// The system could not open or make a file.
pub(crate) fn file_error(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly,
        io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::CannotOpen { reason: error.to_string().into() },
    }
}
