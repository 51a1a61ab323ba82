//! The log behind a hub: one sequence of offsets, one bounded ring per topic.
//!
//! A reader owns no queue. It owns a cursor into the log, and a wake-up only says *look again*; so
//! replay and live are the same and a slow reader costs a number. What retention removed is
//! remembered as a floor, and a reader that asks for it gets a [`Gap`], never silence.
//!
//! Not here: event streams, HTTP, timers, tasks. Time is a parameter of every call that needs it.

mod commit;
mod history;
mod log;
mod read;
mod readers;
mod sequence;
pub mod store;
mod sync;
mod topics;
mod types;

use commit::{crowd, durable, install, queue, ticket, writer};
use history::{evict, expiry, index};
use read::{merge, next, open, overview, reader, reader_over_store, replay, start, stored_start};
use readers::{gathered, patterns, wake, wakes, watcher};
use sequence::{append, given, plan};
use topics::{collect, forgotten, places, registry, ring, topic};
use types::{address, draft, offset, retention, selector};

pub use address::{Address, CLIENT_BYTES_MAX, ClientId, InvalidName, TOPIC_BYTES_MAX, Topic};
pub use draft::{Answers, AppendError, Appended, Draft, Submitted};
pub use durable::{
    Decode, QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, REPLAY_READERS_MAX, StoreOptions, Stored,
    WakeCommitted,
};
pub use gathered::{Gathered, Timer};
pub use given::{Fingerprint, IdempotencyKey};
pub use log::{Limits, Log, LogOptions, Payload};
pub use merge::{Batch, Entry, Gap, GapReason, Read};
pub use next::Next;
pub use offset::{Cursor, Epoch, Offset, Timestamp, resembles_cursor};
pub use open::OpenError;
pub use overview::{ReaderOverview, TopicOverview, Totals};
pub use reader::{EndReason, Reader};
pub use retention::{Retention, RetentionRules};
pub use selector::{Selection, TopicSelector};
pub use start::Start;
pub use ticket::Commit;
pub use wake::WakeMany;
pub use wakes::Wakes;
pub use writer::RELAXED_WITHIN;
