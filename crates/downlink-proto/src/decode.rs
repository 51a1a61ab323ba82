//! The decoder of event streams: it takes a stream in chunks and returns items, such as events.
//!
//! Guarantees: the items depend only on the bytes, not on how the bytes are cut into chunks. The
//! work is linear in the number of bytes. The memory is bounded by the limits and by the size of
//! the current chunk. The only error is an exceeded limit. The decoder reads all other input as the
//! standard says.
//!
//! Reconnecting and resuming are tasks of the caller.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    block::{Block, EventTooLarge, LineEffect},
    field::Retry,
    item::Item,
    lines::{LineSplitter, LineTooLong},
};

/// The default maximum size of a line, in bytes: 16 MiB.
///
/// One line may hold all the data of an event, so lines and events have the same limit.
pub const LINE_BYTES_MAX_DEFAULT: usize = EVENT_BYTES_MAX_DEFAULT;

/// The default maximum size of an event, in bytes: 16 MiB.
///
/// With half the limit, a client could not read some streams. For example, a long answer of a
/// language model or an encoded image can be one event of more than 8 MiB. With double the limit,
/// each connection could take twice as much memory, and ordinary streams do not need larger events.
pub const EVENT_BYTES_MAX_DEFAULT: usize = 16 * 1_024 * 1_024;

/// An empty queue of items keeps room for this many items. An ordinary chunk has fewer items. A
/// chunk with many tiny items makes the queue grow. Afterwards the queue shrinks to this size, so
/// that it does not hold the memory for the rest of the connection.
const ITEMS_KEPT: usize = 64;

/// The limits of a [`Decoder`].
///
/// ```
/// use downlink_proto::{Decoder, DecoderLimits};
///
/// let limits = DecoderLimits::default().line_bytes_max(5);
/// let mut decoder = Decoder::new(limits);
/// assert!(decoder.handle_bytes(b"data:").is_ok());
/// assert!(decoder.handle_bytes(b"x").is_err());
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DecoderLimits {
    /// The maximum number of bytes in a line, without its line end. The default is
    /// [`LINE_BYTES_MAX_DEFAULT`].
    pub line_bytes_max: usize,
    /// The maximum number of bytes in an event: its data, its type and its own id together, in
    /// UTF-8. The default is [`EVENT_BYTES_MAX_DEFAULT`].
    pub event_bytes_max: usize,
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self { line_bytes_max: LINE_BYTES_MAX_DEFAULT, event_bytes_max: EVENT_BYTES_MAX_DEFAULT }
    }
}

impl DecoderLimits {
    /// Sets the maximum size of a line.
    #[must_use]
    pub const fn line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes;
        self
    }

    /// Sets the maximum size of an event.
    #[must_use]
    pub const fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.event_bytes_max = bytes;
        self
    }
}

/// Decodes an event stream that arrives in chunks.
///
/// Call [`handle_bytes`](Self::handle_bytes) with each chunk, then [`poll_item`](Self::poll_item)
/// until it returns `None`. When the stream ends, call [`handle_end`](Self::handle_end). After
/// that, the same decoder can read the stream of the next connection. The decoder keeps the last
/// event id.
///
/// # Limits
///
/// The decoder holds at most one unfinished line, one unfinished event, and the items that
/// [`poll_item`](Self::poll_item) has not returned yet. [`DecoderLimits`] limits the line and the
/// event. A line with invalid UTF-8 can become a text of three times as many bytes. Each item takes
/// at least two bytes of the stream, and the first of these bytes may be in an earlier chunk. So a
/// chunk of n bytes adds at most n / 2 + 1 items.
///
/// ```
/// use downlink_proto::{Decoder, Item, Retry};
///
/// # fn main() -> Result<(), downlink_proto::DecodeError> {
/// let mut decoder = Decoder::default();
/// decoder.handle_bytes(b": hi\nretry: 500\nid: 1\ndata: a\n\ndata: unfinished")?;
/// decoder.handle_end();
///
/// assert_eq!(decoder.poll_item(), Some(Item::Comment(" hi".into())));
/// assert_eq!(decoder.poll_item(), Some(Item::Retry(Retry::from_millis(500))));
/// let Some(Item::Event(event)) = decoder.poll_item() else { unreachable!() };
/// assert_eq!((&*event.event_type, &*event.data), ("message", "a"));
/// assert_eq!(decoder.last_event_id(), "1");
/// assert_eq!(decoder.poll_item(), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    lines: LineSplitter,
    block: Block,
    effects: VecDeque<LineEffect>,
    /// The last event id that applies after the items that `poll_item` has returned so far.
    last_event_id: Arc<str>,
    /// The reconnection time that applies after the items that `poll_item` has returned so far.
    reconnection_time: Option<Retry>,
    failed: Option<DecodeError>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DecoderLimits::default())
    }
}

impl Decoder {
    /// Makes a decoder for the start of a stream, without a last event id.
    #[must_use]
    pub fn new(limits: DecoderLimits) -> Self {
        Self {
            limits,
            lines: LineSplitter::new(limits.line_bytes_max),
            block: Block::new(limits.event_bytes_max),
            effects: VecDeque::new(),
            last_event_id: Arc::from(""),
            reconnection_time: None,
            failed: None,
        }
    }

    /// Sets the last event id, for example to the last id of an earlier connection. Events before
    /// the first `id` field have this id.
    #[must_use]
    pub fn with_last_event_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.last_event_id = id.into();
        self.block.set_last_event_id(Arc::clone(&self.last_event_id));
        self
    }

    /// Decodes the next chunk of the stream. The chunk may have any length.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if a limit is exceeded. [`poll_item`](Self::poll_item) still returns the
    /// items that came before the error. Further calls of `handle_bytes` return the same error,
    /// until [`handle_end`](Self::handle_end) ends the stream.
    pub fn handle_bytes(&mut self, chunk: &[u8]) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.take_lines(chunk);
        self.failed = result.err();
        result
    }

    fn take_lines(&mut self, mut input: &[u8]) -> Result<(), DecodeError> {
        let DecoderLimits { line_bytes_max, event_bytes_max } = self.limits;
        let line_error = |LineTooLong| DecodeError::LineTooLong { bytes_max: line_bytes_max };
        let event_error = |EventTooLarge| DecodeError::EventTooLarge { bytes_max: event_bytes_max };
        while let Some(line) = self.lines.next_line(&mut input).map_err(line_error)? {
            self.block.take_line(line, &mut self.effects).map_err(event_error)?;
        }
        Ok(())
    }

    /// Ends the stream, and discards an unfinished event and its id. The next bytes begin a new
    /// stream. The decoder keeps the last event id and the reconnection time.
    pub fn handle_end(&mut self) {
        self.lines.restart();
        self.block.restart();
        self.failed = None;
    }

    /// Returns the next item. `None` means that the decoder needs more bytes.
    pub fn poll_item(&mut self) -> Option<Item> {
        loop {
            let item = match self.effects.pop_front() {
                Some(LineEffect::Item(item)) => item,
                None => {
                    self.effects.shrink_to(ITEMS_KEPT);
                    return None;
                }
                Some(LineEffect::LastEventId(id)) => {
                    self.last_event_id = id;
                    continue;
                }
            };
            match &item {
                Item::Event(event) => self.last_event_id = Arc::clone(&event.last_event_id),
                Item::Retry(retry) => self.reconnection_time = Some(*retry),
                Item::Comment(_) => {}
            }
            return Some(item);
        }
    }

    /// The last event id that applies after the items that [`poll_item`](Self::poll_item) has
    /// returned so far. A client resumes after this id. Empty means no id.
    ///
    /// Events that `poll_item` has not returned yet do not change this id. So if a reader stops
    /// early, it gets these events again when it resumes. A block (the lines up to a blank line)
    /// may have an id but no data. Such an id becomes the last event id when `poll_item` returns a
    /// later item or `None`.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time that applies after the items that [`poll_item`](Self::poll_item) has
    /// returned so far. `None` if the stream has set no time.
    #[must_use]
    pub fn reconnection_time(&self) -> Option<Retry> {
        self.reconnection_time
    }
}

/// The stream exceeded a limit of the decoder.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A line is longer than [`DecoderLimits::line_bytes_max`].
    #[error("a line of the event stream is longer than {bytes_max} bytes")]
    #[non_exhaustive]
    LineTooLong {
        /// The maximum number of bytes in a line.
        bytes_max: usize,
    },
    /// An event is larger than [`DecoderLimits::event_bytes_max`].
    #[error("an event of the stream is larger than {bytes_max} bytes")]
    #[non_exhaustive]
    EventTooLarge {
        /// The maximum number of bytes in an event.
        bytes_max: usize,
    },
}
