//! What the log keeps for each event: its frame, encoded once, and what a filter or a page asks for.

use std::sync::Arc;

use downlink_log::{Address, Cursor, Payload};
use downlink_proto::{EventId, EventType, Frame};
use smallvec::SmallVec;

/// Whom an event is for; nearly always one.
pub(super) type Addresses = SmallVec<[Address; 1]>;

/// One event of a hub. Clones share it.
#[derive(Debug)]
pub(super) struct Record<T>(Arc<Fields<T>>);

#[derive(Debug)]
pub(super) struct Fields<T> {
    pub(super) frame: Frame,
    pub(super) to: Addresses,
    pub(super) event_type: Option<EventType>,
    /// The id its publisher gave.
    pub(super) id: Option<EventId>,
    /// The value and its size, if the hub keeps values.
    pub(super) value: Option<(T, usize)>,
}

impl<T> Record<T> {
    pub(super) fn new(fields: Fields<T>) -> Self {
        Self(Arc::new(fields))
    }
}

impl<T> Clone for Record<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::ops::Deref for Record<T> {
    type Target = Fields<T>;

    fn deref(&self) -> &Fields<T> {
        &self.0
    }
}

impl<T: Send + Sync + 'static> Payload for Record<T> {
    fn bytes(&self) -> usize {
        let header = size_of::<Fields<T>>();
        self.frame.len() + header + self.value.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    fn given_id(&self) -> Option<&str> {
        self.id.as_ref().map(EventId::as_str)
    }
}

/// A cursor as the id that it is on the wire.
pub(super) fn cursor_id(cursor: Cursor) -> EventId {
    EventId::new(&cursor.to_string()).expect("a cursor's id is short ASCII without line breaks")
}
