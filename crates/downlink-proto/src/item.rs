//! The items that a decoder finds in a stream.
//!
//! Plain data in the order of the stream. An event holds everything that the standard gives to a
//! listener. Fields that the standard ignores produce no item.

use std::{borrow::Cow, sync::Arc};

use crate::field::Retry;

/// One item of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// An event for the listeners of its type.
    Event(DecodedEvent),
    /// The text of a comment line after its colon, unchanged. It shows only that the peer is alive.
    Comment(String),
    /// A reconnection time. It applies from here on, even if no event follows.
    Retry(Retry),
}

/// An event as a reader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DecodedEvent {
    /// The event type. `message` if the stream gave none.
    pub event_type: Cow<'static, str>,
    /// The data; lines are separated by LF.
    pub data: String,
    /// The last event id after this event: its own, or the one in force before.
    pub last_event_id: Arc<str>,
    /// Whether the event's own block gave the id.
    pub has_own_id: bool,
}
