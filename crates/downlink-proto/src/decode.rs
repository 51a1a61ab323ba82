//! The incremental decoder.
//!
//! Guarantees: the items depend only on the bytes, not on the chunks. Work is linear in the bytes.
//! Memory is bounded by the limits and by the current chunk. Exceeding a limit is the only error;
//! any other input is read as the standard's parser reads it.
//!
//! Not here: resuming and reconnecting, which belong to the client.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    block::{Block, EventTooLarge, LineEffect},
    field::Retry,
    item::Item,
    lines::{LineSplitter, LineTooLong},
};

/// The longest line by default, in bytes: 16 MiB.
///
/// A line is at most one event's data, so it shares the event's limit.
pub const LINE_BYTES_MAX_DEFAULT: usize = EVENT_BYTES_MAX_DEFAULT;

/// The largest event by default, in bytes: 16 MiB.
///
/// Readers of model output and of encoded images see single events of more than 8 MiB. Twice that
/// exceeds any event meant for a stream, and one connection can still afford it.
pub const EVENT_BYTES_MAX_DEFAULT: usize = 16 * 1_024 * 1_024;

/// The room that an empty queue keeps, in items. An ordinary chunk holds fewer items. A chunk full
/// of tiny items must not cost its room for the rest of the connection.
const ITEMS_KEPT: usize = 64;

/// The limits of a [`Decoder`] for the stream of its peer.
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
    /// Bytes of one line, its end not counted. [`LINE_BYTES_MAX_DEFAULT`] by default.
    pub line_bytes_max: usize,
    /// Bytes of one event: its data as delivered, its type and its own id, in UTF-8.
    /// [`EVENT_BYTES_MAX_DEFAULT`] by default.
    pub event_bytes_max: usize,
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self { line_bytes_max: LINE_BYTES_MAX_DEFAULT, event_bytes_max: EVENT_BYTES_MAX_DEFAULT }
    }
}

impl DecoderLimits {
    /// Sets the longest line.
    #[must_use]
    pub const fn line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes;
        self
    }

    /// Sets the largest event.
    #[must_use]
    pub const fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.event_bytes_max = bytes;
        self
    }
}

/// Reads an event stream from chunks.
///
/// Call [`handle_bytes`](Self::handle_bytes) with each chunk, then [`poll_item`](Self::poll_item)
/// until it returns `None`. When the stream ends, call [`handle_end`](Self::handle_end). The same
/// decoder then reads the stream of the next connection and keeps the last event id.
///
/// # Limits
///
/// The decoder holds at most one unfinished line and one unfinished event, each within its limit in
/// [`DecoderLimits`], and the items not yet taken. Decoding invalid UTF-8 can make one line three
/// times as long. Two bytes make at most one item.
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
    /// As of the last item taken.
    last_event_id: Arc<str>,
    /// As of the last item taken.
    reconnection_time: Option<Retry>,
    failed: Option<DecodeError>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DecoderLimits::default())
    }
}

impl Decoder {
    /// A decoder at the start of a stream, without a last event id.
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

    /// Starts with an id from elsewhere. Events before the first `id` field carry it.
    #[must_use]
    pub fn with_last_event_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.last_event_id = id.into();
        self.block.set_last_event_id(Arc::clone(&self.last_event_id));
        self
    }

    /// Reads the next chunk of the stream, of any length.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if a limit is exceeded. Earlier items can still be taken. Further bytes give
    /// the same error until [`handle_end`](Self::handle_end) begins a new stream.
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

    /// Ends the stream and discards an unfinished event with its id. The next bytes begin a new
    /// stream. It keeps the last event id and the reconnection time.
    pub fn handle_end(&mut self) {
        self.lines.restart();
        self.block.restart();
        self.failed = None;
    }

    /// Returns the next item, or `None` until more bytes arrive.
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

    /// Where to resume: the last event id after the items taken so far. Empty means from nothing.
    ///
    /// An event that still waits in the decoder does not count, so a reader that stops early will
    /// request it again. A block with only an id counts once `poll_item` has passed it.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time after the items taken so far, if the peer gave one.
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
        /// The limit.
        bytes_max: usize,
    },
    /// An event is larger than [`DecoderLimits::event_bytes_max`].
    #[error("an event of the stream is larger than {bytes_max} bytes")]
    #[non_exhaustive]
    EventTooLarge {
        /// The limit.
        bytes_max: usize,
    },
}
