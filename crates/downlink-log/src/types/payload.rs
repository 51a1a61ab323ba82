//! What a log keeps for each event.

use crate::types::{Cursor, Timestamp};

/// What a log keeps for each event. Cheap to clone: every reader takes a clone.
///
/// Cloning and the methods below run while locks are held: they do not panic, wait, or call into the
/// log. Dropping is free to do all of that.
pub trait Payload: Clone + Send + Sync + 'static {
    /// The payload before its offset is known.
    type Draft: Send + 'static;

    /// Makes the payload once the offset is known. `id` is the event's id, as a cursor.
    fn stamp(draft: Self::Draft, id: Cursor, at: Timestamp) -> Self;

    /// What the payload counts towards the byte bounds: always the same. Each event counts
    /// [`ENTRY_COST_BYTES`] more.
    fn bytes(&self) -> usize;

    /// The id that the publisher gave, if there is one: the same as the draft's. The id is free
    /// again when the event is evicted.
    fn publisher_id(&self) -> Option<&str> {
        None
    }
}

/// What an event costs besides its payload: its places in ring and index, and the shared header. It
/// is counted so that a million empty events are not free.
pub const ENTRY_COST_BYTES: usize = 96;
