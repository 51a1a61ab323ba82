//! The events that an event source delivers, and their data as JSON.

use downlink_proto::DecodedEvent;
use serde::Deserialize;
use std::{borrow::Cow, sync::Arc};

/// The maximum number of bytes of [`event_type`](EventDataError::event_type) and of
/// [`reason`](EventDataError::reason) in an error about an event's data: 256.
///
/// The message of the JSON parser may quote the data, and data may be megabytes long or secret.
/// Messages about nested types are usually shorter than the limit, so they are not cut. A message
/// of this length does not fill a screen.
pub const ERROR_EXCERPT_BYTES_MAX: usize = 256;

/// An event as it was received.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ReceivedEvent {
    /// The event type. `message` if the stream gave none.
    pub event_type: Cow<'static, str>,
    /// The data. LF separates its lines.
    pub data: String,
    /// The id of this event. If the event has no id, this is the last id before the event. It is
    /// empty if the client knows no id.
    pub last_event_id: Arc<str>,
}

impl ReceivedEvent {
    /// Reads the data as JSON. The result may borrow text from the event.
    ///
    /// # Errors
    ///
    /// [`EventDataError`] if the data is not JSON, or not of this type.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink_client::ReceivedEvent;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Order {
    ///     number: u64,
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut decoder = downlink_proto::Decoder::default();
    /// # decoder.handle_bytes(b"event: paid\ndata: {\"number\":7}\n\n")?;
    /// # let Some(downlink_proto::Item::Event(event)) = decoder.poll_item() else { panic!() };
    /// # let event = ReceivedEvent::from(event);
    /// assert_eq!(event.data, r#"{"number":7}"#);
    /// assert_eq!(event.json::<Order>()?.number, 7);
    ///
    /// let error = event.json::<Vec<Order>>().err().ok_or("an order is not a list")?;
    /// assert_eq!((&*error.event_type, error.line, error.column), ("paid", 1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, EventDataError> {
        serde_json::from_str(&self.data).map_err(|error| EventDataError::new(self, &error))
    }
}

impl From<DecodedEvent> for ReceivedEvent {
    fn from(event: DecodedEvent) -> Self {
        let DecodedEvent { event_type, data, last_event_id, .. } = event;
        Self { event_type, data, last_event_id }
    }
}

/// The data of an event is not the expected JSON.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unexpected data of an event {event_type:?} at line {line}, column {column}: {reason}")]
#[non_exhaustive]
pub struct EventDataError {
    /// The first bytes of the event type, at most [`ERROR_EXCERPT_BYTES_MAX`].
    pub event_type: String,
    /// The line of the data, from 1.
    pub line: usize,
    /// The column in that line, from 1. It is 0 if the error is at the start of the line.
    pub column: usize,
    /// The first bytes of the parser's message, at most [`ERROR_EXCERPT_BYTES_MAX`]. They may quote
    /// the data.
    pub reason: String,
}

impl EventDataError {
    fn new(event: &ReceivedEvent, error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        // The parser's message ends with the position. The error has the position in two fields, so
        // the position is removed from the message.
        let reason = text.strip_suffix(&format!(" at line {line} column {column}"));
        let reason = excerpt(reason.unwrap_or(&text));
        Self { event_type: excerpt(&event.event_type), line, column, reason }
    }
}

fn excerpt(text: &str) -> String {
    text[..text.floor_char_boundary(ERROR_EXCERPT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_excerpt_is_cut_at_the_limit_without_splitting_a_character() {
        let length = |text: String| excerpt(&text).len();
        assert_eq!(length("x".repeat(ERROR_EXCERPT_BYTES_MAX - 1)), ERROR_EXCERPT_BYTES_MAX - 1);
        assert_eq!(length("x".repeat(ERROR_EXCERPT_BYTES_MAX)), ERROR_EXCERPT_BYTES_MAX);
        assert_eq!(length("x".repeat(ERROR_EXCERPT_BYTES_MAX + 1)), ERROR_EXCERPT_BYTES_MAX);
        assert_eq!(length("…".repeat(ERROR_EXCERPT_BYTES_MAX)), ERROR_EXCERPT_BYTES_MAX - 1);
    }
}
