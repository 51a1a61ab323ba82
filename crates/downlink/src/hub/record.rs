//! The payload of an event. The log (the hub's sequence of events) keeps the payload, but does not
//! interpret it. The payload consists of the frame, which is encoded once, and of the fields that
//! filters and [`Published`](super::Published) need.

use std::sync::Arc;

use downlink_log::{Address, Cursor, Payload, Timestamp};
use downlink_proto::{EventId, EventType, Frame, UnstampedFrame};
use smallvec::SmallVec;

/// The size of the two reference counts of a shared allocation.
const SHARED_COST_BYTES: usize = 2 * size_of::<usize>();

/// The memory that a frame takes in addition to its bytes. The allocation of a frame also has a
/// reference count, and space for an offset of the maximum length (the id of the event ends with
/// its offset). The allocator rounds the size of the allocation up. Without this constant, the hub
/// would count only half of the memory that a history of small events takes.
const FRAME_COST_BYTES: usize = 96;

/// The recipients of an event. Nearly every event has only one recipient.
pub(super) type Addresses = SmallVec<[Address; 1]>;

/// One event of a hub. Clones share the same fields.
#[derive(Debug)]
pub(super) struct Record<T>(pub(super) Arc<RecordFields<T>>);

/// The fields of an event. `F` is the type of the frame. It is [`UnstampedRecordFrame`] until the
/// log gives the event its offset.
#[derive(Debug)]
pub(super) struct RecordFields<T, F = Frame> {
    pub(super) frame: F,
    pub(super) to: Addresses,
    pub(super) event_type: Option<EventType>,
    /// The id that the publisher gave.
    pub(super) id: Option<EventId>,
    /// The value and its size, if the hub keeps values.
    pub(super) value: Option<(T, usize)>,
}

impl<T> Clone for Record<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::ops::Deref for Record<T> {
    type Target = RecordFields<T>;

    fn deref(&self) -> &RecordFields<T> {
        &self.0
    }
}

/// An event whose offset is not known yet.
pub(super) type UnstampedRecord<T> = RecordFields<T, UnstampedRecordFrame>;

/// A frame before its offset is known.
#[derive(Debug)]
pub(super) enum UnstampedRecordFrame {
    /// A complete frame, with the id that the publisher gave.
    Given(Frame),
    /// A frame with space for the offset in its id.
    Numbered(UnstampedFrame),
}

impl UnstampedRecordFrame {
    /// The maximum size of the frame in bytes.
    pub(super) fn len_max(&self) -> usize {
        match self {
            Self::Given(frame) => frame.len(),
            Self::Numbered(frame) => frame.len_max(),
        }
    }
}

impl<T: Send + Sync + 'static> Payload for Record<T> {
    type Draft = UnstampedRecord<T>;

    fn stamp(draft: UnstampedRecord<T>, id: Cursor, _: Timestamp) -> Self {
        let RecordFields { frame, to, event_type, id: given, value } = draft;
        let frame = match frame {
            UnstampedRecordFrame::Given(frame) => frame,
            UnstampedRecordFrame::Numbered(frame) => frame.stamp(id.next.get() - 1),
        };
        Self(Arc::new(RecordFields { frame, to, event_type, id: given, value }))
    }

    fn bytes(&self) -> usize {
        let RecordFields { frame, to, event_type, id, value } = &**self;
        let names = to.iter().map(|address| match address {
            Address::Topic(topic) => SHARED_COST_BYTES + topic.as_str().len(),
            Address::Client(client) => SHARED_COST_BYTES + client.as_str().len(),
            _ => 0,
        });
        let texts = event_type.as_ref().map_or(0, |text| text.as_str().len())
            + id.as_ref().map_or(0, |text| text.as_str().len());
        let fields = SHARED_COST_BYTES + size_of::<RecordFields<T>>();
        let value = value.as_ref().map_or(0, |(_, bytes)| *bytes);
        fields + FRAME_COST_BYTES + frame.len() + names.sum::<usize>() + texts + value
    }

    fn publisher_id(&self) -> Option<&str> {
        self.id.as_ref().map(EventId::as_str)
    }
}

/// The event id for a cursor, which is a position in the log. A client that resumes after this id
/// continues at the cursor.
pub(crate) fn cursor_id(cursor: Cursor) -> EventId {
    EventId::new(&cursor.to_string()).expect("a cursor's id is short ASCII without line breaks")
}
