//! What SQLite reports, in the words of the seam.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let reason = error.to_string().into_boxed_str();
        let Error::SqliteFailure(failure, _) = error else {
            // A column of another type than the layout says, or a row that must be there and is not.
            return Self::Corrupt { reason };
        };
        match (failure.code, failure.extended_code) {
            // A disk without room for the shared index of the log says so in its own way.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Self::DiskFull,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => Self::OutcomeUnknown,
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Self::Locked,
            (ErrorCode::ReadOnly | ErrorCode::PermissionDenied, _) => Self::ReadOnly,
            (ErrorCode::CannotOpen, _) => Self::CannotOpen { reason },
            (ErrorCode::NotADatabase, _) => Self::NotAStore,
            (ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory, _) => Self::Io { reason },
            _ => Self::Corrupt { reason },
        }
    }
}

/// A number as a column holds it. Offsets and times beyond 2^63 do not occur: at a million a second
/// they would take 290,000 years.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as a column held it.
pub(super) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}
