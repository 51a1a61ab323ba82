//! The log behind a hub: one sequence of offsets, one bounded ring per topic.
//!
//! A reader owns no queue. It owns a cursor into the log, and a wake-up only says *look again*; so
//! replay and live are the same read, and a slow reader costs a number. What retention removed is
//! remembered as a floor, and a reader that asks for it gets a [`Gap`], never silence.
//!
//! Not here: event streams, HTTP, timers, tasks. Time is a parameter of every call that needs it.

mod address;
mod append;
mod collect;
mod crowd;
mod draft;
mod durable;
mod evict;
mod expiry;
mod forgotten;
mod gathered;
mod given;
mod index;
mod install;
mod log;
mod next;
mod offset;
mod open;
mod overview;
mod patterns;
mod places;
mod plan;
mod queue;
mod read;
mod reader;
mod reader_over_store;
mod registry;
mod replay;
mod retention;
mod ring;
mod selector;
mod start;
pub mod store;
mod stored_start;
mod sync;
mod ticket;
mod topic;
mod wake;
mod wakes;
mod watcher;
mod writer;

pub use address::{Address, CLIENT_BYTES_MAX, ClientId, InvalidName, TOPIC_BYTES_MAX, Topic};
pub use draft::{Answers, AppendError, Appended, Draft, Submitted};
pub use durable::{
    Decode, QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, REPLAY_READERS_MAX, StoreOptions, Stored,
    WakeCommitted,
};
pub use gathered::{Gathered, Timer};
pub use given::{Fingerprint, IdempotencyKey};
pub use log::{Limits, Log, LogOptions, Payload};
pub use next::Next;
pub use offset::{Cursor, Epoch, Offset, Timestamp, resembles_cursor};
pub use open::OpenError;
pub use overview::{ReaderOverview, TopicOverview, Totals};
pub use read::{Batch, Entry, Gap, GapReason, Read};
pub use reader::{EndReason, Reader};
pub use retention::{Retention, RetentionRules};
pub use selector::{Selection, TopicSelector};
pub use start::Start;
pub use ticket::Commit;
pub use wake::WakeMany;
pub use wakes::Wakes;
pub use writer::RELAXED_WITHIN;
