//! A frame holds the bytes of one event or comment, ready to send.
//!
//! A frame is made only from checked values, and a blank line at its end completes the event. So a
//! writer may send frames in any order, and no frame can become a part of another frame's event. A
//! frame of [`Frame::comment_line`] has no blank line, so a reader sees its comment as the first
//! line of the next event. This does no harm, because a reader ignores comments.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{field::Retry, text};

/// The bytes of one event or comment. A frame ends with a blank line, except a frame of
/// [`comment_line`](Self::comment_line).
///
/// A clone is cheap, because it shares the bytes. Two frames are equal if their bytes are equal.
///
/// Invariant: the bytes are valid UTF-8. They are either one event or comment that ends with a
/// blank line, or only complete comment lines. So a reader gets at most one event from a frame.
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
    /// Makes a comment. Readers ignore it. Each line of the text becomes a comment line.
    pub fn comment(text: &str) -> Self {
        let mut out = Vec::with_capacity(text::lines_len("", text) + "\n".len());
        text::write_lines("", text, &mut out);
        out.push(b'\n');
        Self::from_block(out)
    }

    /// Makes a comment without a blank line after it, for keep-alives.
    ///
    /// Some readers, such as httpx-sse and openai-python, report empty events. Once such a reader
    /// has got an id, a type or a reconnection time, it reports an empty event at every later blank
    /// line. A keep-alive without a blank line causes no such event.
    ///
    /// ```
    /// assert_eq!(downlink_proto::Frame::comment_line("alive").as_bytes(), b": alive\n");
    /// ```
    pub fn comment_line(text: &str) -> Self {
        let mut out = Vec::with_capacity(text::lines_len("", text));
        text::write_lines("", text, &mut out);
        Self(out.into())
    }

    /// Makes a frame that has only a reconnection time. By the standard, a reader reports no event
    /// for this frame.
    pub fn retry(retry: impl Into<Retry>) -> Self {
        let retry = retry.into();
        let mut out = Vec::with_capacity(retry.line_len() + "\n".len());
        retry.write_line(&mut out);
        out.push(b'\n');
        Self::from_block(out)
    }

    /// The bytes of the frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The data of the event as a reader gets it, with LF between its lines. Empty if the frame has
    /// no data. If the data has only one line, it is not copied.
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

    /// The bytes of the frame, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The number of bytes. It is at least 1, because a frame ends with a line end.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn from_block(block: impl Into<Bytes>) -> Self {
        let block = block.into();
        debug_assert!(
            block.ends_with(b"\n\n") || *block == *b"\n",
            "the block does not end with a blank line"
        );
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
