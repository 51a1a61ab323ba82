//! The log behind a hub of the crate `downlink`, which publishes events to subscribers. A log
//! numbers its events with one sequence of offsets. It keeps the newest events of each topic in a
//! bounded ring.
//!
//! A reader has a cursor, which is the next offset to read. It has no queue. When an event is
//! appended, the log wakes the readers, and each reader then reads the log from its cursor. So a
//! reader reads old events and new events in the same way, and a slow reader takes no more memory
//! than a fast one.
//!
//! When the log evicts an event, it stores the offset after that event. This offset is the floor of
//! the event's topic. A reader that requests evicted events gets a [`Gap`], so the reader learns
//! that events are missing.
//!
//! Most programs use `downlink::Hub`, which adds typed values and HTTP responses.
//!
//! ```
//! use downlink_log::{
//!     Address, Batch, Cursor, Draft, Epoch, Fingerprint, Log, LogOptions, Payload, Read,
//!     Selection, Start, Timestamp, Topic, TopicSelector,
//! };
//!
//! #[derive(Clone)]
//! struct Text(&'static str);
//!
//! impl Payload for Text {
//!     type Draft = Self;
//!
//!     fn stamp(draft: Self, _id: Cursor, _at: Timestamp) -> Self {
//!         draft
//!     }
//!
//!     fn bytes(&self) -> usize {
//!         self.0.len()
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let log = Log::<Text>::new(LogOptions::new(Epoch::from_random(7)));
//! let selection = Selection { selectors: vec![TopicSelector::parse("orders/*")?], client: None };
//! let mut reader = log.open(now, &selection, &Start::Live)?;
//!
//! let draft = Draft {
//!     to: [Address::Topic(Topic::new("orders/7")?)].into_iter().collect(),
//!     id: None,
//!     key: None,
//!     fingerprint: Fingerprint::default(),
//!     finish: false,
//!     body: None,
//!     payload: Some(Text("paid")),
//! };
//! let _submitted = log.append(now, [draft].into_iter().collect())?;
//!
//! let mut events = Vec::new();
//! let batch = Batch { events_max: 64, bytes_max: 65_536 };
//! assert_eq!(reader.read(now, batch, &mut events), Read::Events);
//! assert_eq!((events[0].offset.get(), events[0].payload.0), (1, "paid"));
//! # Ok(())
//! # }
//! ```
//!
//! # Time and threads
//!
//! A log in memory has no thread, no timer and no clock. The caller passes the time to every call
//! that needs it. Each append, open and read also evicts events that are too old. While a program
//! makes none of these calls, it must call [`Log::expire`] from time to time.
//!
//! A log with a [`store`] has threads: one that writes, and several that read. The threads end when
//! the last handle of the log is dropped. The writing thread sleeps until there are events to
//! write, or until one of these times comes:
//!
//! - with [`Durability::Relaxed`](store::Durability::Relaxed), the time when committed events must
//!   be flushed to the disk ([`RELAXED_WITHIN`]);
//! - the time when a store that failed is checked again ([`RETRY_EVERY`]);
//! - the time when the next event becomes too old.
//!
//! With [`Durability::Commit`](store::Durability::Commit), the writing thread may also wait a
//! moment before a commit, for publishers that are about to publish again. It reads the log's time
//! from [`StoreOptions::clock`], and measures its waits with the system's monotonic clock.
//!
//! # Replicas
//!
//! A replica is a log that gets its events from another log ([`Log::replica`]). A program follows
//! the other log. On a thread of its own, it gives the feed of the other log to the [`Applier`]. It
//! also passes the questions of the replica to the other log ([`Follower`]). A replica in memory
//! starts no thread. A replica with a [cache](store::Cache) has threads that read the cache.
//!
//! This crate has no event streams, no HTTP and no async tasks.
//!
//! # Limits
//!
//! [`Limits`] limits the readers, topics, patterns and bytes of a log. [`Retention`] limits the
//! history of each topic. A topic has at most [`TOPIC_BYTES_MAX`] bytes, a client id at most
//! [`CLIENT_BYTES_MAX`] bytes, and a pattern at most [`PATTERN_SEGMENTS_MAX`] segments. A log with
//! a store queues at most [`QUEUE_EVENTS_MAX`] events and [`QUEUE_BYTES_MAX`] bytes.
//!
//! # Features and platforms
//!
//! The crate has no Cargo features. It works on all platforms that have the standard library. Its
//! tests run on Linux.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! The [guide](https://docs.rs/downlink/latest/downlink/guide/) is part of the crate `downlink`.
//! Its chapters 9, 11 and 22 explain replay, limits and the store.
//!
//! The modules are declared below in the order of their dependencies: a module uses only modules
//! that are declared before it.

mod sync;

mod types;

pub mod store;

mod readers;

mod topics;

mod patterns;

mod history;

mod sequence;

mod core;

mod commit;

mod read;

mod feed;

mod replica;

mod log;

pub use commit::{
    outage::{OnReport, RETRY_EVERY, StoreReport},
    outcome::Commit,
    queue::{QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, Refusals, StoreTotals},
    times::{COMMIT_SECONDS, CommitTimes},
    writer::{RELAXED_WITHIN, StoreClock},
};
pub use feed::{Behind, Feed};
pub use log::{Log, StoreOptions, Submitted};
pub use read::{
    next::Next,
    overview::{LAG_EVENTS, Lags, TopicOverview, Totals},
    reader::{Read, Reader},
    start::Start,
};
pub use readers::{
    confirmations::{CONFIRM_WITHIN, FollowerTask},
    state::ReaderOverview,
    wake::WakeMany,
};
pub use replica::applier::{Applied, Applier, Follower};
pub use sequence::{
    decode::{Decode, OnUnreadable, Stored},
    draft::{Answers, AppendError, Appended, Draft, Drafts},
    ids::{CUT_IDS_MAX, LINKS_MAX, LostEnd, MARKS_MAX, POSITION_OFFSETS},
};
pub use types::{
    address::{Address, CLIENT_BYTES_MAX, ClientId, InvalidName, TOPIC_BYTES_MAX, Topic},
    clock::{ClockState, LogClock, OnJump, SLACK_MS},
    event::{Batch, EndReason, Entry, Gap, GapReason},
    floor::{EvictionNumber, Floor},
    identity::{Fingerprint, IdempotencyKey, KEY_WINDOW, KEYS_MAX},
    offset::{Cursor, Epoch, Offset, Timestamp, resembles_cursor},
    open_error::OpenError,
    options::{Limits, LogOptions},
    payload::{ENTRY_COST_BYTES, Payload},
    retention::{Retention, RetentionRules},
    selector::{PATTERN_SEGMENTS_MAX, PLACEHOLDERS_MAX, Selection, TopicSelector},
    trie::PatternSet,
};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
