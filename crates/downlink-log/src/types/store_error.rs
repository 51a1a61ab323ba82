//! The error of a store or a cache.

use std::path::Path;

use thiserror::Error;

/// The reason why a store could not be opened, written or read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "{} is in use by another process: stop that process, or choose another file",
        file.display()
    )]
    InUse {
        /// The file.
        file: Box<Path>,
    },
    /// This process has the file open already.
    #[error(
        "{} is open in this process already: use that hub, or close it and wait until it is closed",
        file.display()
    )]
    OpenTwice {
        /// The file.
        file: Box<Path>,
    },
    /// Another program holds a lock on the database and did not release it in the time that the
    /// store waits.
    #[error("another program holds a lock on the store: end its transaction and try again")]
    Locked,
    /// The disk is full.
    #[error("the disk of the store is full: free some space, and publishing works again")]
    DiskFull,
    /// The file or its folder cannot be written.
    #[error("the store cannot be written: make the file and its folder writable for this user")]
    ReadOnly,
    /// The file or its folder cannot be opened or made.
    #[error(
        "the store cannot be opened ({reason}): check that its folder exists and belongs to this user"
    )]
    CannotOpen {
        /// The error message of the operating system.
        reason: Box<str>,
    },
    /// The file is a database of another program, or it is not a database.
    #[error("the file is not a store: choose another name, or move the file out of the way")]
    NotAStore,
    /// The file is the cache of a replica, which is a log that copies another log. So it cannot be
    /// used as a store.
    #[error(
        "the file is the cache of a relay, which may be deleted at any time: choose another file for \
         the store"
    )]
    IsCache,
    /// The file is a store with a history of its own, so it cannot be used as a cache.
    #[error(
        "the file is a store with a history of its own, and a cache would overwrite it: choose another \
         file for the cache"
    )]
    IsStore,
    /// The file was written by a newer version of this software.
    #[error(
        "the store has layout {found}, and this version reads up to {known}: start the newer version \
         that wrote it, or choose another file"
    )]
    NewerVersion {
        /// The layout of the file.
        found: u32,
        /// The newest layout that this version reads.
        known: u32,
    },
    /// The contents of the file contradict each other.
    #[error("the store is damaged ({reason}): keep a copy, and start from a backup or a new file")]
    Corrupt {
        /// The contradiction.
        reason: Box<str>,
    },
    /// The disk did not confirm a write. The next opening of the store shows whether the write was
    /// kept.
    #[error(
        "the disk did not confirm a write: check the disk and start again; after the start it is known \
         whether the last events were kept, and until then all earlier events can be read"
    )]
    OutcomeUnknown,
    /// The disk failed to read or write.
    #[error("the disk of the store failed ({reason}): check the disk")]
    Io {
        /// The error message of the operating system.
        reason: Box<str>,
    },
    /// An earlier failure was final, so the store accepts no events until it is opened again.
    #[error("the store stopped after an earlier failure: check the disk and start again")]
    Stopped,
    /// An offset is not higher than all offsets that the store has been given. This is a mistake of
    /// the caller.
    #[error("offset {offset} is not above the offsets in the store: use {least} or more")]
    OffsetNotRising {
        /// The offset that the store refused.
        offset: u64,
        /// The lowest offset that would have been accepted.
        least: u64,
    },
    /// The file already has an epoch with this value. An epoch is a period in which the offsets of
    /// a log are unique. This is a mistake of the caller, or a coincidence with a chance of one in
    /// 10^12.
    #[error(
        "the store already has this epoch, and each opening needs a new one: give another epoch"
    )]
    EpochTaken,
}

impl StoreError {
    /// True if the store accepts no events until it is opened again. Committed events stay
    /// readable.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::OutcomeUnknown | Self::Corrupt { .. } | Self::NotAStore | Self::Stopped
        )
    }
}
