//! The store of a log in one SQLite file.
//!
//! The file is an ordinary database in WAL mode: `sqlite3` reads it while it is in use, and its
//! `.backup` and `VACUUM INTO` make consistent copies. `downlink_log::store` says what a store
//! guarantees. A durable commit is one append to the write-ahead log and one flush. Trimming does
//! the rest (eviction, moving pages from the log into the file) in steps of some milliseconds.
//!
//! Two files stand beside `x.db` while it is in use: `x.db-wal` and `x.db-shm` belong to the
//! database. On systems other than Linux `x.db-lock` keeps a second writer out; it is always empty.

mod fault;
mod file;
mod lock;
mod reader;
mod replay;
mod schema;
mod sql;
mod store;
mod topics;
mod trim;

pub use self::{file::Backup, store::SqliteStore, trim::SqliteOptions};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
