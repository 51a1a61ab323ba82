//! The trait of the payloads that a log keeps.

use crate::types::{Cursor, Timestamp};

/// The content of an event, which the log keeps and does not interpret. It must be cheap to clone,
/// because every reader gets a clone.
///
/// The log clones payloads, and calls the methods below, while it holds locks. So these methods and
/// `clone` must not panic, wait, or call the log. The log drops payloads while it holds no lock, so
/// `drop` may panic, wait, and call the log.
pub trait Payload: Clone + Send + Sync + 'static {
    /// The payload before its offset is known.
    type Draft: Send + 'static;

    /// Makes the payload once the offset is known. `id` is the event's id, as a cursor.
    fn stamp(draft: Self::Draft, id: Cursor, at: Timestamp) -> Self;

    /// The size of the payload in bytes, which counts towards the log's limits. It must never
    /// change. The log adds [`ENTRY_COST_BYTES`] for each event.
    fn bytes(&self) -> usize;

    /// The event id that the publisher chose, if any. It must equal the `id` of the
    /// [`Draft`](crate::Draft) from which the payload was made. When the event is evicted, another
    /// event may get this id.
    fn publisher_id(&self) -> Option<&str> {
        None
    }
}

/// The number of bytes that each event counts towards the limits in addition to its payload. These
/// bytes stand for three things: the event's entry in the list of its topic's events, its entry in
/// the list of all events, and the header of its payload, which readers share. Without this number,
/// empty events would count nothing, and a million empty events would stay within every limit of
/// bytes.
pub const ENTRY_COST_BYTES: usize = 96;
