//! Copies of a store that is in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, backup::Backup as Copying};

use crate::store::{StoreError, sqlite::open::connect_reader};

/// Makes backups of a store, from any thread.
#[derive(Clone, Debug)]
pub struct Backup {
    path: PathBuf,
}

impl Backup {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Copies the store into a new file: one consistent moment of it, on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`CannotOpen`](StoreError::CannotOpen) if there is such a file already. What
    /// was begun is removed again.
    pub fn run(&self, path: &Path) -> Result<(), StoreError> {
        let from = connect_reader(&self.path)?;
        fs::File::create_new(path).map_err(|error| cannot_create(&error))?;
        let copied = copy(&from, path);
        if copied.is_err() {
            let _ = fs::remove_file(path);
        }
        copied
    }
}

fn copy(from: &Connection, path: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(path, flags)?;
    // All pages in one step: a copy in several begins anew whenever something is committed between.
    Copying::new(from, &mut to)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    Ok(())
}

fn cannot_create(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly,
        io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::CannotOpen { reason: error.to_string().into() },
    }
}
