//! The log behind a hub. A log has one sequence of offsets, and one bounded ring of events for each
//! topic.
//!
//! A reader has a cursor into the log, and no queue of its own. A wake-up carries no event: it only
//! tells the reader to read again. So old events and live events are read in the same way, and for
//! a slow reader the log keeps only its cursor, which is one number.
//!
//! When retention evicts an event, the log remembers the offset after it as the floor of the topic.
//! A reader that asks for evicted events gets a [`Gap`], so it learns that they are missing.
//!
//! Most programs use `downlink::Hub`, which adds typed values, ids and HTTP.
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
//! A log in memory has no thread, no timer and no clock of its own. The caller passes the time to
//! every call that needs it. Each append, open and read also evicts old events. For an idle log,
//! the program must call [`Log::expire`].
//!
//! A log with a [`store`] has threads: one that writes, and several that read. They end when the
//! last handle of the log is dropped. The writing thread may wait for publishers that are about to
//! publish again, for the flush of relaxed commits ([`RELAXED_WITHIN`]), for the next check of a
//! store that failed ([`RETRY_EVERY`]), and for the next eviction by age. It reads the log's time
//! from [`StoreOptions::clock`], and measures its waits with the system's monotonic clock.
//!
//! This crate has no event streams, no HTTP and no async tasks.
//!
//! # Limits
//!
//! [`Limits`] limits the readers, topics, patterns and bytes of a log. [`Retention`] limits each
//! topic. Names have at most [`TOPIC_BYTES_MAX`] and [`CLIENT_BYTES_MAX`] bytes, and patterns at
//! most [`PATTERN_SEGMENTS_MAX`] segments. A log with a store queues at most [`QUEUE_EVENTS_MAX`]
//! events and [`QUEUE_BYTES_MAX`] bytes.
//!
//! # Features and platforms
//!
//! The crate has no features. It works on all platforms that have the standard library. Its tests
//! run on Linux.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! The [guide](https://docs.rs/downlink/latest/downlink/guide/) is part of the crate `downlink`.
//! Its chapters 9, 11 and 22 explain replay, limits and the store.
//!
//! Below, the modules are declared in the order of their use: a module uses only modules that are
//! declared before it.

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

mod log;

pub use commit::{
    outage::{OnReport, RETRY_EVERY, StoreReport},
    outcome::Commit,
    queue::{QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, Refusals},
    writer::{RELAXED_WITHIN, StoreClock},
};
pub use log::{Log, StoreOptions, Submitted};
pub use read::{
    next::Next,
    overview::{ReaderOverview, TopicOverview, Totals},
    reader::{Read, Reader},
    start::Start,
};
pub use readers::wake::WakeMany;
pub use sequence::{
    decode::{Decode, OnUnreadable, Stored},
    draft::{Answers, AppendError, Appended, Draft, Drafts},
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
