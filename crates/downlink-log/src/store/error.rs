//! What can go wrong with a store, each with what to do about it.

use std::fmt;

/// A store could not be opened, written or read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is in use by another process, or opened twice in this one.
    InUse,
    /// Another program holds a lock on the database, and did not let go in time.
    Locked,
    /// The disk is full.
    DiskFull,
    /// The file or its folder cannot be written.
    ReadOnly,
    /// The file or its folder cannot be opened or made.
    CannotOpen {
        /// The system's words.
        reason: Box<str>,
    },
    /// The file is a database of some other program, or none at all.
    NotAStore,
    /// The file was written by a newer version.
    NewerVersion {
        /// The layout of the file.
        found: u32,
        /// The newest layout that this version reads.
        known: u32,
    },
    /// Something in the file contradicts itself.
    Corrupt {
        /// What was found.
        reason: Box<str>,
    },
    /// The disk did not confirm a write: whether it is there will be known when the store is opened
    /// again.
    OutcomeUnknown,
    /// The disk failed to read or write.
    Io {
        /// The system's words.
        reason: Box<str>,
    },
    /// An earlier failure was final; the store takes nothing more until it is opened anew.
    Stopped,
    /// An offset did not rise above the one before. The caller's mistake.
    OffsetNotRising {
        /// The offset.
        offset: u64,
        /// The least that would have done.
        least: u64,
    },
    /// The epoch is one that the file already knows. The caller's mistake, or a chance of one in
    /// 10^12.
    EpochTaken,
}

impl StoreError {
    /// Whether the store takes nothing more until it is opened anew. What was committed stays
    /// readable.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::OutcomeUnknown | Self::Corrupt { .. } | Self::NotAStore | Self::Stopped
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str(
                "the store is in use by another process: stop that process, or choose another file",
            ),
            Self::Locked => f.write_str(
                "another program holds a lock on the store: end its transaction and try again",
            ),
            Self::DiskFull => f.write_str(
                "the disk of the store is full: free some space; publishing works again then",
            ),
            Self::ReadOnly => f.write_str(
                "the store cannot be written: make the file and its folder writable for this user",
            ),
            Self::CannotOpen { reason } => write!(
                f,
                "the store cannot be opened ({reason}): check that its folder exists and belongs to \
                 this user"
            ),
            Self::NotAStore => f.write_str(
                "the file is not a store: choose another name, or move the file out of the way",
            ),
            Self::NewerVersion { found, known } => write!(
                f,
                "the store has layout {found}, and this version reads up to {known}: start the newer \
                 version that wrote it, or choose another file"
            ),
            Self::Corrupt { reason } => write!(
                f,
                "the store is damaged ({reason}): keep a copy, and start from a backup or a new file"
            ),
            Self::OutcomeUnknown => f.write_str(
                "the disk did not confirm a write, so whether it was kept is unknown: check the disk \
                 and start again; what was confirmed before is readable",
            ),
            Self::Io { reason } => {
                write!(f, "the disk of the store failed ({reason}): check the disk")
            }
            Self::Stopped => f.write_str(
                "the store stopped after an earlier failure: check the disk and start again",
            ),
            Self::OffsetNotRising { offset, least } => {
                write!(f, "offset {offset} is not above what the store has: {least} or more is")
            }
            Self::EpochTaken => f.write_str("the store has had this epoch before: choose another"),
        }
    }
}

impl std::error::Error for StoreError {}
