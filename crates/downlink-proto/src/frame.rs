//! The bytes of one complete block of an event stream.
//!
//! Writers may interleave frames. A comment with its blank line would end an event early if it came
//! between the lines of that event. So a frame always ends with the blank line, is never cut, and
//! is made only from checked parts. The one exception is a comment without the blank line
//! ([`Frame::comment_line`]): it begins the next block, whichever frame that is.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{field::Retry, text};

/// The bytes of one event or comment, with the blank line that ends it, or of a comment alone.
///
/// Cheap to clone: the bytes are shared. Equal frames have equal bytes.
///
/// Invariant: one block, valid UTF-8, ending with a blank line; a reader finds at most one event. Or
/// comments alone, ending with the end of a line.
///
/// ```
/// use std::time::Duration;
/// use downlink_proto::{Event, Frame};
///
/// assert_eq!(Frame::comment("connected").as_bytes(), b": connected\n\n");
/// assert_eq!(Frame::retry(Duration::from_secs(1)).as_bytes(), b"retry: 1000\n\n");
/// assert_eq!(Frame::from(Event::new("x")).into_bytes(), "data: x\n\n");
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[must_use]
pub struct Frame(Bytes);

impl Frame {
    /// Makes a comment, which readers ignore. Each line of the text gets its own colon.
    pub fn comment(text: &str) -> Self {
        let mut out = Vec::with_capacity(text::lines_len("", text) + "\n".len());
        text::write_lines("", text, &mut out);
        out.push(b'\n');
        Self::from_block(out)
    }

    /// Makes a comment without the blank line after it, as a keep-alive.
    ///
    /// Some readers make an event of every blank line once they have an id, a type or a
    /// reconnection time: httpx-sse and openai-python do, among others. This gives them nothing.
    ///
    /// ```
    /// assert_eq!(downlink_proto::Frame::comment_line("alive").as_bytes(), b": alive\n");
    /// ```
    pub fn comment_line(text: &str) -> Self {
        let mut out = Vec::with_capacity(text::lines_len("", text));
        text::write_lines("", text, &mut out);
        Self(out.into())
    }

    /// Makes a frame with only a reconnection time. It reaches no listener.
    pub fn retry(retry: impl Into<Retry>) -> Self {
        let retry = retry.into();
        let mut out = Vec::with_capacity(retry.line_len() + "\n".len());
        retry.write_line(&mut out);
        out.push(b'\n');
        Self::from_block(out)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The data as a reader gets it, with LF between its lines. Empty if there is none. Only data
    /// of several lines is copied.
    ///
    /// ```
    /// use downlink_proto::{Event, Frame};
    ///
    /// assert_eq!(Event::new("a\r\nb").encode().data(), "a\nb");
    /// assert_eq!(Frame::comment("connected").data(), "");
    /// ```
    #[must_use]
    pub fn data(&self) -> Cow<'_, str> {
        let text = str::from_utf8(&self.0).unwrap_or_default();
        let mut lines = text.split('\n').filter_map(|line| line.strip_prefix("data: "));
        let first = Cow::Borrowed(lines.next().unwrap_or_default());
        lines.fold(first, |mut data, line| {
            data.to_mut().extend(["\n", line]);
            data
        })
    }

    /// The bytes, shared without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The number of bytes. At least one, the end of a line.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn from_block(block: impl Into<Bytes>) -> Self {
        let block = block.into();
        debug_assert!(block.ends_with(b"\n\n") || *block == *b"\n", "a block without its end");
        Self(block)
    }
}

impl From<Frame> for Bytes {
    fn from(frame: Frame) -> Self {
        frame.into_bytes()
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}
