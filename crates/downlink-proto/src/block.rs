//! Lines into events: the buffers of the standard and what each field does to them.
//!
//! A block is the lines up to a blank one. Its type and data belong to it alone; the id outlives
//! it, but becomes the resume point only when a blank line completes the block.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use memchr::memchr;

use crate::{
    field::Retry,
    item::{DecodedEvent, Item},
};

/// An event has more bytes than the limit.
#[derive(Debug)]
pub(crate) struct EventTooLarge;

/// An effect of a line. For the reader, effects follow the order of the lines.
#[derive(Debug)]
pub(crate) enum Step {
    Item(Item),
    /// A block without data moved the resume point; nothing is handed out.
    LastEventId(Arc<str>),
}

/// The block being read.
#[derive(Debug)]
pub(crate) struct Block {
    event_bytes_max: usize,
    /// The data so far, without the line feed that would follow; `None` before the first `data`
    /// field, which is different from empty data.
    data: Option<String>,
    /// The type; `None` stands for the default.
    event_type: Option<String>,
    /// The id this block gives, if any.
    id: Option<Arc<str>>,
    /// The id in force when the block began: that of the last completed block.
    last_event_id: Arc<str>,
}

impl Block {
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            data: None,
            event_type: None,
            id: None,
            last_event_id: Arc::from(""),
        }
    }

    pub(crate) fn set_last_event_id(&mut self, id: Arc<str>) {
        self.last_event_id = id;
    }

    /// Forgets the unfinished block, its id included.
    pub(crate) fn restart(&mut self) {
        self.data = None;
        self.event_type = None;
        self.id = None;
    }

    /// Takes one line, without its end.
    pub(crate) fn take_line(
        &mut self,
        line: &[u8],
        steps: &mut VecDeque<Step>,
    ) -> Result<(), EventTooLarge> {
        let (name, value) = match memchr(b':', line) {
            _ if line.is_empty() => {
                steps.extend(self.dispatch());
                return Ok(());
            }
            Some(at) => line.split_at_checked(at).unwrap_or((line, b"")),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b":").unwrap_or(value);
        if name.is_empty() {
            let text = String::from_utf8_lossy(value).into_owned();
            steps.push_back(Step::Item(Item::Comment(text)));
            return Ok(());
        }
        self.take_field(name, value.strip_prefix(b" ").unwrap_or(value), steps)
    }

    /// Takes one field. Names are compared exactly; unknown ones are ignored.
    fn take_field(
        &mut self,
        name: &[u8],
        value: &[u8],
        steps: &mut VecDeque<Step>,
    ) -> Result<(), EventTooLarge> {
        match name {
            b"data" => self.take_data(value),
            b"event" => self.take_type(value),
            b"id" => self.take_id(value),
            b"retry" => {
                steps.extend(Retry::parse(value).map(|retry| Step::Item(Item::Retry(retry))));
                Ok(())
            }
            _ => Ok(()),
        }
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

    /// An id with NUL is ignored: the former one stays.
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

    /// What counts towards the limit: data, type and id as they are kept.
    fn len(&self) -> usize {
        self.data.as_ref().map_or(0, String::len)
            + self.event_type.as_ref().map_or(0, String::len)
            + self.id.as_ref().map_or(0, |id| id.len())
    }

    fn check_len(&self, len: usize) -> Result<(), EventTooLarge> {
        if len > self.event_bytes_max { Err(EventTooLarge) } else { Ok(()) }
    }

    /// The blank line: the resume point moves even without data; an event exists only with data.
    fn dispatch(&mut self) -> Option<Step> {
        let has_own_id = self.id.is_some();
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        let event_type = self.event_type.take();
        let last_event_id = || Arc::clone(&self.last_event_id);
        let Some(data) = self.data.take() else {
            return has_own_id.then(|| Step::LastEventId(last_event_id()));
        };
        Some(Step::Item(Item::Event(DecodedEvent {
            event_type: event_type.map_or(Cow::Borrowed("message"), Cow::Owned),
            data,
            last_event_id: last_event_id(),
            has_own_id,
        })))
    }
}
