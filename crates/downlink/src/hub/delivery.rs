//! The items of a subscription: events and gaps. A reader must not ignore gaps, because they say
//! that events are missing.

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
    /// Events that the subscription should have yielded here are no longer retained. The
    /// subscription continues after them.
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

/// A published event. It is cheap to keep, because all subscriptions share one copy of the event's
/// data.
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

    /// The event's position in the hub's sequence of events.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The time at which the event was published.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The addresses to which the event was published, sorted and without duplicates.
    pub fn to(&self) -> &[Address] {
        &self.record.to
    }

    /// The event type, if the event has one.
    pub fn event_type(&self) -> Option<&EventType> {
        self.record.event_type.as_ref()
    }

    /// The data as a client reads it: line breaks are normalised to LF. The data is only copied if
    /// it has several lines.
    pub fn data(&self) -> Cow<'_, str> {
        self.record.frame.data()
    }

    /// The value, if the hub was built with [`keep_values`](super::HubBuilder::keep_values).
    pub fn value(&self) -> Option<&T> {
        self.record.value.as_ref().map(|(value, _)| value)
    }

    /// The frame, which is the encoded event. Every client gets exactly these bytes.
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

/// A notice that events are missing in a subscription.
///
/// The ids of the missing events come after the id in the field `after`. The last missing event has
/// the id in the field `until`. The gap may concern only some topics of the subscription. The other
/// topics may still retain events between these two ids. The subscription yields these events after
/// the gap.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// Why the events are missing.
    pub reason: GapReason,
    /// The last id before the missing events. In a gap at the start of the subscription, it is the
    /// id that the client gave. In a later gap, it is the id of the subscription's cursor (its
    /// position in the hub's sequence of events). The cursor may be beyond the last event that the
    /// client got.
    pub after: Option<String>,
    /// The id of the last event known to be missing.
    pub until: Option<EventId>,
    /// The id of the oldest retained event after the missing events. `None` if no such event exists
    /// yet.
    pub oldest: Option<EventId>,
    /// The id of this notice. A client that resumes after this id gets the events that follow the
    /// gap.
    pub id: EventId,
    /// How long the client should wait before it fetches its data again. The wait is random for
    /// each client, so that the clients do not all fetch at once.
    pub wait: Duration,
}

impl Gap {
    /// The event `downlink.gap`, with which the hub sends this notice to clients.
    pub fn to_event(&self) -> Event {
        let text = |id: Option<&str>| id.map_or_else(|| "null".to_owned(), json_text);
        let data = format!(
            r#"{{"reason":"{}","after":{},"until":{},"oldest":{},"wait_ms":{}}}"#,
            self.reason.as_str(),
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
