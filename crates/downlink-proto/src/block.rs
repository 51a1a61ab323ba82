//! Builds events from lines. The lines up to a blank line are a block, and the blank line completes
//! the block. [`Block`] collects the data, the type and the id of a block.
//!
//! The type and the data apply only to their block. The id also applies to later blocks that have
//! no id. An id becomes the last event id only when the blank line of its block arrives.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use memchr::memchr;

use crate::{
    field::Retry,
    item::{DecodedEvent, Item},
};

/// An event has more bytes than the limit.
#[derive(Debug)]
pub(crate) struct EventTooLarge;

/// The effect of a line: a new item, or a new last event id. The caller must apply the effects in
/// the order of the lines.
#[derive(Debug)]
pub(crate) enum LineEffect {
    Item(Item),
    /// A block without data has set the last event id. The reader gets no item for such a block.
    LastEventId(Arc<str>),
}

/// The block that is being read.
#[derive(Debug, Default)]
pub(crate) struct Block {
    event_bytes_max: usize,
    /// The data so far, without a final line feed. `None` before the first `data` field. An empty
    /// `data` field makes it `Some("")`.
    data: Option<String>,
    /// The event type. `None` means `message`.
    event_type: Option<String>,
    /// The id of this block, if it has an id.
    id: Option<Arc<str>>,
    /// The last event id when the block began.
    last_event_id: Arc<str>,
}

impl Block {
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        Self { event_bytes_max, ..Self::default() }
    }

    pub(crate) fn set_last_event_id(&mut self, id: Arc<str>) {
        self.last_event_id = id;
    }

    /// Discards the unfinished block and its id.
    pub(crate) fn restart(&mut self) {
        self.data = None;
        self.event_type = None;
        self.id = None;
    }

    /// Adds one line, without its end.
    pub(crate) fn take_line(
        &mut self,
        line: &[u8],
        effects: &mut VecDeque<LineEffect>,
    ) -> Result<(), EventTooLarge> {
        if line.is_empty() {
            effects.extend(self.dispatch());
            return Ok(());
        }
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, b""));
        let text = value.strip_prefix(b":").unwrap_or(value);
        let value = text.strip_prefix(b" ").unwrap_or(text);
        // Field names must match exactly. Unknown names are ignored.
        match name {
            b"" => {
                let text = String::from_utf8_lossy(text).into_owned();
                effects.push_back(LineEffect::Item(Item::Comment(text)));
            }
            b"data" => self.take_data(value)?,
            b"event" => self.take_type(value)?,
            b"id" => self.take_id(value)?,
            b"retry" => {
                effects
                    .extend(Retry::parse(value).map(|retry| LineEffect::Item(Item::Retry(retry))));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_data(&mut self, value: &[u8]) -> Result<(), EventTooLarge> {
        let value = String::from_utf8_lossy(value);
        let break_len = usize::from(self.data.is_some());
        self.check_len(self.len() + break_len + value.len())?;
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
            None => self.data = Some(value.into_owned()),
        }
        Ok(())
    }

    fn take_type(&mut self, value: &[u8]) -> Result<(), EventTooLarge> {
        let value = String::from_utf8_lossy(value);
        let former_len = self.event_type.as_ref().map_or(0, String::len);
        self.check_len(self.len() - former_len + value.len())?;
        self.event_type = Some(value.into_owned()).filter(|given| !given.is_empty());
        Ok(())
    }

    /// Sets the id. If the new id has a NUL, this function ignores it and keeps the earlier id.
    fn take_id(&mut self, value: &[u8]) -> Result<(), EventTooLarge> {
        if memchr(b'\0', value).is_some() {
            return Ok(());
        }
        let value = String::from_utf8_lossy(value);
        let former_len = self.id.as_ref().map_or(0, |id| id.len());
        self.check_len(self.len() - former_len + value.len())?;
        self.id = Some(Arc::from(&*value));
        Ok(())
    }

    /// The number of bytes in data, type and id together. The maximum size of an event limits this
    /// number.
    fn len(&self) -> usize {
        self.data.as_ref().map_or(0, String::len)
            + self.event_type.as_ref().map_or(0, String::len)
            + self.id.as_ref().map_or(0, |id| id.len())
    }

    fn check_len(&self, len: usize) -> Result<(), EventTooLarge> {
        if len > self.event_bytes_max { Err(EventTooLarge) } else { Ok(()) }
    }

    /// Completes the block at a blank line. A block with data becomes an event. A block without
    /// data is not an event, but its id still becomes the last event id.
    fn dispatch(&mut self) -> Option<LineEffect> {
        let has_own_id = self.id.is_some();
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        let event_type = self.event_type.take();
        let last_event_id = || Arc::clone(&self.last_event_id);
        let Some(data) = self.data.take() else {
            return has_own_id.then(|| LineEffect::LastEventId(last_event_id()));
        };
        Some(LineEffect::Item(Item::Event(DecodedEvent {
            event_type: event_type.map_or(Cow::Borrowed("message"), Cow::Owned),
            data,
            last_event_id: last_event_id(),
            has_own_id,
        })))
    }
}
