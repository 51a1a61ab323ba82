//! The log behind a hub: one sequence of offsets, one bounded ring per topic.
//!
//! A reader owns no queue. It owns a cursor into the log, and a wake-up only says *look again*; so
//! replay and live are the same read, and a slow reader costs a number. What retention removed is
//! remembered as a floor, and a reader that asks for it gets a [`Gap`], never silence.
//!
//! Not here: event streams, HTTP, timers, tasks. Time is a parameter of every call that needs it.
//!
//! The modules are listed from the bottom to the top. A module uses only those above it in the
//! list.

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
