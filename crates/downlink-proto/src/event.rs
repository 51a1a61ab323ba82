//! An event, and how it is encoded.
//!
//! Encoding cannot fail, because types and ids are checked when they are made, and data may be any
//! text. A reader gets every line break in the data (CR, LF or CRLF) as LF.

use crate::{
    field::{EventId, EventType, Retry},
    frame::Frame,
    stamp::UnstampedFrame,
    text::{self, U64_DIGITS_MAX},
};

/// One event of a stream, as the publisher sees it.
///
/// All fields are optional, and [`Event::default`] has none of them. By the standard, a reader uses
/// the id and the reconnection time of an event without data, but reports no event to its
/// listeners. If the data is empty, the reader does report an event, with the data `""`.
///
/// Each setter replaces the earlier value of its field. [`fields`](Event::fields) returns the
/// values.
///
/// # Limits
///
/// Data may have any length. Some readers limit the length of a line, for example to 64 KiB. For
/// these readers, the publisher must put line breaks into its data. The encoder adds no line
/// breaks, because they would change the data.
///
/// ```
/// use std::time::Duration;
/// use downlink_proto::{Event, EventId, EventType};
///
/// # fn main() -> Result<(), downlink_proto::InvalidField> {
/// let event = Event::new("hello").event(EventType::from_static("greeting"));
/// assert_eq!(event.encode().as_bytes(), b"event: greeting\ndata: hello\n\n");
///
/// let resume_point = Event::default().id(EventId::new("7")?).retry(Duration::from_secs(2));
/// assert_eq!(resume_point.encode().as_bytes(), b"id: 7\nretry: 2000\n\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[must_use]
pub struct Event {
    event_type: Option<EventType>,
    id: Option<EventId>,
    retry: Option<Retry>,
    data: Option<String>,
}

impl Event {
    /// Makes an event with this data. A reader gets every line break in the data (CR, LF or CRLF)
    /// as LF.
    pub fn new(data: impl Into<String>) -> Self {
        Self::default().data(data)
    }

    /// Makes an event whose data is the value as compact JSON.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if the value's `Serialize` fails, or if the value has a map with keys that
    /// JSON cannot have.
    ///
    /// ```
    /// # fn main() -> Result<(), downlink_proto::JsonError> {
    /// let event = downlink_proto::Event::json(&[1, 2])?;
    /// assert_eq!(event.fields().data, Some("[1,2]"));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        Self::default().json_data(value)
    }

    /// Sets the event type. The empty type means no type.
    pub fn event(mut self, event_type: EventType) -> Self {
        self.event_type = Some(event_type).filter(|given| !given.as_str().is_empty());
        self
    }

    /// Sets the id. The empty id clears the reader's last event id.
    pub fn id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the reconnection time, from a [`Retry`] or a [`Duration`](std::time::Duration).
    pub fn retry(mut self, retry: impl Into<Retry>) -> Self {
        self.retry = Some(retry.into());
        self
    }

    /// Sets the data.
    pub fn data(mut self, data: impl Into<String>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Sets the data to the value as compact JSON. Takes the value itself or a reference.
    ///
    /// # Errors
    ///
    /// The errors of [`Event::json`].
    ///
    /// ```
    /// use downlink_proto::{Event, EventType};
    ///
    /// # fn main() -> Result<(), downlink_proto::JsonError> {
    /// let event = Event::default().event(EventType::from_static("sum")).json_data([1, 2])?;
    /// assert_eq!(event.encode().as_bytes(), b"event: sum\ndata: [1,2]\n\n");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "json")]
    pub fn json_data<T: serde::Serialize>(self, value: T) -> Result<Self, JsonError> {
        serde_json::to_string(&value).map(|json| self.data(json)).map_err(JsonError)
    }

    /// The fields of the event.
    ///
    /// ```
    /// use downlink_proto::{Event, EventType};
    ///
    /// let event = Event::new("hello").event(EventType::from_static("greeting"));
    /// let fields = event.fields();
    /// assert_eq!(fields.event_type.map(EventType::as_str), Some("greeting"));
    /// assert_eq!((fields.data, fields.id, fields.retry), (Some("hello"), None, None));
    /// ```
    #[must_use]
    pub fn fields(&self) -> EventFields<'_> {
        EventFields {
            event_type: self.event_type.as_ref(),
            id: self.id.as_ref(),
            retry: self.retry,
            data: self.data.as_deref(),
        }
    }

    /// Encodes this event: the fields `event`, `id`, `retry` and `data` in this order, and then a
    /// blank line. The bytes are allocated once, with the exact size.
    pub fn encode(&self) -> Frame {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        Frame::from_block(out)
    }

    /// Appends the bytes of this event to a buffer.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        self.write_type(out);
        if let Some(id) = &self.id {
            text::write_line("id", id.as_str(), out);
        }
        self.write_after_id(out);
    }

    /// The length of [`encode`](Self::encode)'s result.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let id_len = self.id.as_ref().map_or(0, |id| text::line_len("id", id.as_str().len()));
        self.type_len() + id_len + self.after_id_len()
    }

    /// Encodes the event without its offset. The offset is the number of the event in its log, and
    /// the id ends with the offset. Use this method if the offset is not known yet.
    /// [`UnstampedFrame::stamp`] adds the offset later.
    ///
    /// The id in the frame is the prefix, followed by the offset. The event's own id is ignored. An
    /// offset has at most 20 digits. So if the prefix has at most
    /// [`EVENT_ID_BYTES_MAX`](crate::EVENT_ID_BYTES_MAX) − 20 bytes, the id is within its limit.
    ///
    /// ```
    /// use downlink_proto::{Event, EventId};
    ///
    /// # fn main() -> Result<(), downlink_proto::InvalidField> {
    /// let unstamped = Event::new("hello").encode_unstamped(&EventId::new("k3j9x0qa-")?);
    /// assert_eq!(unstamped.stamp(17).as_bytes(), b"id: k3j9x0qa-17\ndata: hello\n\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn encode_unstamped(&self, id_prefix: &EventId) -> UnstampedFrame {
        let prefix = id_prefix.as_str();
        let id_len_max = text::line_len("id", prefix.len() + U64_DIGITS_MAX);
        let len_max = self.type_len() + id_len_max + self.after_id_len();
        let mut out = Vec::with_capacity(len_max);
        self.write_type(&mut out);
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(prefix.as_bytes());
        let room_start = out.len();
        out.extend_from_slice(&[b'0'; U64_DIGITS_MAX]);
        out.push(b'\n');
        self.write_after_id(&mut out);
        debug_assert_eq!(out.len(), len_max, "the computed length differs from the written length");
        UnstampedFrame::new(out, room_start)
    }

    fn type_len(&self) -> usize {
        self.event_type.as_ref().map_or(0, |given| text::line_len("event", given.as_str().len()))
    }

    fn write_type(&self, out: &mut Vec<u8>) {
        if let Some(event_type) = &self.event_type {
            text::write_line("event", event_type.as_str(), out);
        }
    }

    fn after_id_len(&self) -> usize {
        let retry_len = self.retry.map_or(0, Retry::line_len);
        let data_len = self.data.as_deref().map_or(0, |data| text::lines_len("data", data));
        retry_len + data_len + "\n".len()
    }

    fn write_after_id(&self, out: &mut Vec<u8>) {
        if let Some(retry) = self.retry {
            retry.write_line(out);
        }
        if let Some(data) = &self.data {
            text::write_lines("data", data, out);
        }
        out.push(b'\n');
    }
}

/// The fields of an [`Event`]. [`Event::fields`] returns them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EventFields<'a> {
    /// The event type, never empty. `None` means `message`.
    pub event_type: Option<&'a EventType>,
    /// The id.
    pub id: Option<&'a EventId>,
    /// The reconnection time.
    pub retry: Option<Retry>,
    /// The data, with its original line breaks.
    pub data: Option<&'a str>,
}

impl From<Event> for Frame {
    fn from(event: Event) -> Self {
        event.encode()
    }
}

impl From<&Event> for Frame {
    fn from(event: &Event) -> Self {
        event.encode()
    }
}

/// A value cannot be written as JSON. `source()` returns the cause.
#[cfg(feature = "json")]
#[derive(Debug, thiserror::Error)]
#[error("the value cannot be written as JSON")]
pub struct JsonError(#[source] serde_json::Error);
