//! The items of a subscription: events, and gaps that must not be overlooked.

use std::{borrow::Cow, time::Duration};

use downlink_log::{Cursor, Offset, Timestamp};
use downlink_proto::{Event, EventId, EventType, Frame};

use super::{
    Address, GapReason, control,
    record::{Record, cursor_id},
};
use crate::json_text::json_text;

/// One item of a subscription.
#[must_use]
#[non_exhaustive]
pub enum Delivery<T> {
    /// An event.
    Event(Published<T>),
    /// A range that was asked for is no longer retained. Events go on after it.
    Gap(Gap),
}

impl<T> std::fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            Self::Gap(gap) => f.debug_tuple("Gap").field(gap).finish(),
        }
    }
}

/// An event as it was published. Cheap to keep: all subscriptions share one copy of the
/// event's data.
pub struct Published<T> {
    pub(super) offset: Offset,
    pub(super) at: Timestamp,
    pub(super) id: Cursor,
    pub(super) record: Record<T>,
}

impl<T> Published<T> {
    /// The id that clients see.
    pub fn id(&self) -> EventId {
        self.record.id.clone().unwrap_or_else(|| cursor_id(self.id))
    }

    /// Its position in the hub's one sequence.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was published.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The addresses that it was published to: each once, sorted.
    pub fn to(&self) -> &[Address] {
        &self.record.to
    }

    /// Its event type, if it has one.
    pub fn event_type(&self) -> Option<&EventType> {
        self.record.event_type.as_ref()
    }

    /// Its data as a client reads it, line breaks normalised to LF. Only data of several lines is
    /// copied.
    pub fn data(&self) -> Cow<'_, str> {
        self.record.frame.data()
    }

    /// The value, if the hub was built with `keep_values`.
    pub fn value(&self) -> Option<&T> {
        self.record.value.as_ref().map(|(value, _)| value)
    }

    /// The frame that every client gets, byte for byte.
    pub fn frame(&self) -> &Frame {
        &self.record.frame
    }
}

impl<T> std::fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("id", &self.id())
            .field("to", &self.record.to)
            .finish_non_exhaustive()
    }
}

/// Missing events in a subscription.
///
/// The missing events are after `after` and up to `until`. If another topic of the subscription
/// still retains events in that range, they follow the gap as usual.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// Why the events are missing.
    pub reason: GapReason,
    /// The last id before the missing events. In a gap at the start, it is the id that the client
    /// gave. In a later gap, it is the subscription's cursor, which may be beyond the last event that
    /// the client got.
    pub after: Option<String>,
    /// The id of the last event known to be missing.
    pub until: Option<EventId>,
    /// The first retained id that follows, if there is one yet.
    pub oldest: Option<EventId>,
    /// The id of this notice. A client that resumes after it gets the events that follow the gap.
    pub id: EventId,
    /// How long the client should wait before it fetches its data anew. It differs from client to
    /// client, so that they do not all fetch at once.
    pub wait: Duration,
}

impl Gap {
    /// The notice as clients get it.
    pub fn to_event(&self) -> Event {
        let text = |id: Option<&str>| id.map_or_else(|| "null".to_owned(), json_text);
        let data = format!(
            r#"{{"reason":"{}","after":{},"until":{},"oldest":{},"wait_ms":{}}}"#,
            control::reason_word(self.reason),
            text(self.after.as_deref()),
            text(self.until.as_ref().map(EventId::as_str)),
            text(self.oldest.as_ref().map(EventId::as_str)),
            self.wait.as_millis(),
        );
        Event::new(data).event(control::event_type("gap")).id(self.id.clone())
    }
}

impl<T> From<Delivery<T>> for Frame {
    fn from(delivery: Delivery<T>) -> Self {
        match delivery {
            Delivery::Event(event) => event.record.frame.clone(),
            Delivery::Gap(gap) => gap.to_event().into(),
        }
    }
}
