//! The trait of the payloads that a log keeps.

use crate::types::{Cursor, Timestamp};

/// The part of an event that the log keeps and does not look into. Cheap to clone: every reader
/// takes a clone.
///
/// Cloning and the methods below run while locks are held: they do not panic, wait, or call into
/// the log. Dropping is free to do all of that.
pub trait Payload: Clone + Send + Sync + 'static {
    /// The payload before its offset is known.
    type Draft: Send + 'static;

    /// Makes the payload once the offset is known. `id` is the event's id, as a cursor.
    fn stamp(draft: Self::Draft, id: Cursor, at: Timestamp) -> Self;

    /// The size of the payload in the byte bounds. It never changes. Each event counts
    /// [`ENTRY_COST_BYTES`] more.
    fn bytes(&self) -> usize;

    /// The id that the publisher gave, if there is one: the same as the draft's. The id is free
    /// again when the event is evicted.
    fn publisher_id(&self) -> Option<&str> {
        None
    }
}

/// The cost of an event besides its payload: its places in ring and index, and the shared header.
/// It counts, so that a million empty events are not free.
pub const ENTRY_COST_BYTES: usize = 96;
