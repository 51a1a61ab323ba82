//! One writer at a time: a lock on a file beside the database.
//!
//! SQLite's own locks would also keep out the user's tools, which may read a store that is in use.
//! The lock is the operating system's: it ends with the process, however that ends. The file stays.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use downlink_log::store::StoreError;

use crate::{fault::Result, pool::file_error};

/// How often a waiting process looks: often enough for a quick restart in place, and seldom
/// enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The right to write. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: File,
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Closing would leave it to a child process that is just being started.
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
        let until = Instant::now() + wait_for;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
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
