//! Translates SQLite's errors into errors of a store.

use std::io;

use downlink_log::store::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

/// The result of most functions of this crate.
pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// An error inside this crate. The public functions return only the [`StoreError`] that it
/// contains.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) StoreError);

impl Fault {
    /// The content of the file is not consistent.
    pub(crate) fn corrupt(reason: impl Into<Box<str>>) -> Self {
        Self(StoreError::Corrupt { reason: reason.into() })
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        fault.0
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let reason = error.to_string().into_boxed_str();
        let Error::SqliteFailure(failure, _) = error else {
            // The value in a column has a wrong type, or a required row is missing.
            return Self::corrupt(reason);
        };
        Self(match (failure.code, failure.extended_code) {
            // If the disk is full, SQLite usually returns `DiskFull`. But when SQLite creates the
            // shared index of the write-ahead log on a full disk, it returns the code
            // `SQLITE_IOERR_SHMSIZE`.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => StoreError::DiskFull,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => {
                StoreError::OutcomeUnknown
            }
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)
            | (_, ffi::SQLITE_PROTOCOL) => StoreError::Locked,
            (ErrorCode::ReadOnly | ErrorCode::PermissionDenied, _) => StoreError::ReadOnly,
            (ErrorCode::CannotOpen, _) => StoreError::CannotOpen { reason },
            (ErrorCode::NotADatabase, _) => StoreError::NotAStore,
            (ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory, _) => StoreError::Io { reason },
            _ => StoreError::Corrupt { reason },
        })
    }
}

/// Translates an error that the system returns when this crate opens or creates a file.
pub(crate) fn file_error(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly,
        io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::CannotOpen { reason: error.to_string().into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_race_for_locks_gives_the_error_locked() {
        for code in [ffi::SQLITE_PROTOCOL, ffi::SQLITE_BUSY_SNAPSHOT] {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(Fault::from(error).0, StoreError::Locked);
        }
    }
}
