//! The values that all parts of the log use: names, offsets, selectors, events, gaps, options, and
//! time.
//!
//! Nothing in this folder uses readers or the lists of events that topics keep. The only lock in
//! this folder is the lock of the clock.

pub(crate) mod address;
pub(crate) mod clock;
pub(crate) mod event;
pub(crate) mod floor;
pub(crate) mod identity;
pub(crate) mod mark;
pub(crate) mod offset;
pub(crate) mod open_error;
pub(crate) mod options;
pub(crate) mod payload;
pub(crate) mod retention;
pub(crate) mod selector;
pub(crate) mod store_error;
pub(crate) mod trie;

pub(crate) use address::{Address, ClientId, InvalidName, check_segments};
pub(crate) use clock::ClockState;
pub(crate) use event::{Batch, EndReason, Entry, Gap, GapReason};
pub(crate) use floor::{EvictionNumber, Floor};
pub(crate) use identity::{Fingerprint, IdempotencyKey, KEY_WINDOW, KEYS_MAX};
pub(crate) use offset::{Cursor, Epoch, Offset, Timestamp};
pub(crate) use open_error::OpenError;
pub(crate) use options::{Limits, LogOptions};
pub(crate) use payload::Payload;
pub(crate) use retention::{Retention, RetentionRules};
pub(crate) use selector::{Selection, TopicSelector, is_placeholder};
pub(crate) use trie::{PatternSet, PatternTrie};
