//! The trait of the payloads that a log keeps.

use crate::types::{Cursor, Timestamp};

/// The part of an event that the log keeps and does not look into. It must be cheap to clone,
/// because every reader takes a clone.
///
/// The log clones payloads, and calls the methods below, while it holds locks. This code must not
/// panic, wait, or call into the log. Dropping a payload may do all of that.
pub trait Payload: Clone + Send + Sync + 'static {
    /// The payload before its offset is known.
    type Draft: Send + 'static;

    /// Makes the payload once the offset is known. `id` is the event's id, as a cursor.
    fn stamp(draft: Self::Draft, id: Cursor, at: Timestamp) -> Self;

    /// The size of the payload in bytes, as the limits count it. It never changes. For each event,
    /// the log adds [`ENTRY_COST_BYTES`].
    fn bytes(&self) -> usize;

    /// The id that the publisher gave, if any. It is the same as the draft's id. The id is free
    /// again when the event is evicted.
    fn publisher_id(&self) -> Option<&str> {
        None
    }
}

/// The bytes that an event counts besides its payload: its places in the ring and the index, and
/// the shared header. Without them, a million empty events would cost nothing.
pub const ENTRY_COST_BYTES: usize = 96;
