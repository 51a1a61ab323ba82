//! The items that a decoder returns.
//!
//! Items come in the order of the stream. An event has everything that the standard passes to a
//! listener, except the origin. If the standard says to ignore a field, the decoder returns no item
//! for this field.

use std::{borrow::Cow, sync::Arc};

use crate::field::Retry;

/// One item of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// An event for the listeners of its type.
    Event(DecodedEvent),
    /// The text of a comment line after the colon, unchanged. Servers send comments to show that
    /// the connection is alive.
    Comment(String),
    /// A reconnection time. It applies at once, even if no event follows.
    Retry(Retry),
}

/// An event as a reader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DecodedEvent {
    /// The event type. It is `message` if the event has no type.
    pub event_type: Cow<'static, str>,
    /// The data. LF separates its lines.
    pub data: String,
    /// The id of this event. If the event has no id, this is the last id that was set earlier in
    /// the stream.
    pub last_event_id: Arc<str>,
    /// Whether the lines of this event set an id.
    pub has_own_id: bool,
}
