//! Stores the events of a downlink log in one SQLite file.
//!
//! The file is an ordinary database in WAL mode (with a write-ahead log). `sqlite3` can read the
//! file while the store is in use, and the commands `.backup` and `VACUUM INTO` of `sqlite3` make
//! consistent copies. A durable commit appends to the write-ahead log once and flushes the
//! write-ahead log to the disk once. After a relaxed commit, the write-ahead log is flushed later.
//! Trimming removes (evicts) old events, and moves pages from the write-ahead log into the file.
//! Each step of trimming takes some milliseconds.
//!
//! Most programs use this crate through `downlink::HubBuilder`, with the feature `store` of
//! `downlink`.
//!
//! ```
//! use downlink_log::{
//!     Address, Epoch, Fingerprint, Offset, Timestamp, Topic,
//!     store::{Durability, Store, StoredEvent},
//! };
//! use downlink_sqlite::{SqliteOptions, SqliteStore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("downlink-sqlite-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("orders.db");
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let mut store = SqliteStore::open(&path, Epoch::from_random(7), now, SqliteOptions::default())?;
//! let event = StoredEvent {
//!     offset: Offset::FIRST,
//!     at: now,
//!     to: [Address::Topic(Topic::new("orders/7")?)].into_iter().collect(),
//!     id: None,
//!     key: None,
//!     fingerprint: Fingerprint::default(),
//!     finish: false,
//!     payload: Some(b"paid".to_vec()),
//! };
//! store.commit(&[event], Durability::Commit)?;
//! drop(store);
//!
//! // The next process continues after this event. Each opening of the store begins a new epoch.
//! let store = SqliteStore::open(&path, Epoch::from_random(8), now, SqliteOptions::default())?;
//! assert_eq!(store.opened().next_offset.get(), 2);
//! assert_eq!(store.opened().epochs.len(), 2);
//! # drop(store);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`SqliteCache`] is the cache of a replica, which is a log that follows another log. The cache is
//! a file of the same kind. It may be deleted whenever no process has it open.
//!
//! # Guarantees
//!
//! [`downlink_log::store`] lists the guarantees of a store. [`Durability`] says which failures a
//! committed event survives. The test `powercut` checks these guarantees: it simulates a disk, and
//! cuts the power at a random write or flush.
//!
//! # Files
//!
//! While the file `x.db` is in use, two files of the database exist beside it: `x.db-wal` and
//! `x.db-shm`. On systems other than Linux there is also `x.db-lock`, an empty file whose lock
//! keeps a second process out. The files must be on a local disk.
//!
//! # Limits
//!
//! [`SqliteOptions`] limits the bytes in the file and the history of each topic. It also limits how
//! many topics without events the store remembers. Only one process at a time can open the store.
//!
//! # Features and platforms
//!
//! The crate has no features. It builds SQLite from its C source, so it needs a C compiler. The
//! tests run on 64-bit Linux. The crate should also work on other Unix systems and on Windows, but
//! no test runs on these systems.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! Chapter 22 of the [guide](https://docs.rs/downlink/latest/downlink/guide/) is about durability.
//! `docs/STORE.md` in the repository describes the file, backups and errors.
//!
//! [`Durability`]: downlink_log::store::Durability

mod cache;
mod cut;
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

pub use self::{cache::SqliteCache, file::Backup, store::SqliteStore, trim::SqliteOptions};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
