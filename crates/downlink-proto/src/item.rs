//! The items that a decoder returns.
//!
//! Items come in the order of the stream. An event has everything that the standard passes to a
//! listener, except the origin. If the standard says to ignore a field, the decoder returns no item
//! for it.

use std::{borrow::Cow, sync::Arc};

use crate::field::Retry;

/// One item of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// An event for the listeners of its type.
    Event(DecodedEvent),
    /// A comment line: its text after the colon, unchanged. Servers send comments to show that the
    /// connection is alive.
    Comment(String),
    /// A reconnection time. It applies at once, even if no event follows.
    Retry(Retry),
}

/// An event as a reader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DecodedEvent {
    /// The event type. `message` if the stream gave none.
    pub event_type: Cow<'static, str>,
    /// The data. LF separates its lines.
    pub data: String,
    /// The id of this event. If this event has none, the last id that an earlier block has set.
    pub last_event_id: Arc<str>,
    /// Whether the block of this event has an id.
    pub has_own_id: bool,
}
