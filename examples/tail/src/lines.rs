//! Reads the lines of a file that may still grow.
//!
//! Invariant: at most [`LINE_BYTES_MAX`] bytes of a line are in memory, even if the line is longer.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// The maximum length of a line in bytes. This fills a few screens. If a line is longer, the rest
/// of the line is skipped, and the app sends the line as an event of the type `cut`.
pub const LINE_BYTES_MAX: usize = 16 * 1_024;

/// A line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Line {
    /// The text without its line end. U+FFFD replaces invalid UTF-8.
    pub(crate) text: String,
    /// True if the line was longer than the limit. `text` is then only the beginning of the line.
    pub(crate) is_cut: bool,
}

/// Reads lines and counts the bytes read.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    file: R,
    /// The offset in the file at which the next read begins.
    read: u64,
    /// The part of the next line that was read so far.
    begun: Vec<u8>,
    is_cut: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Makes a reader of a file. The file's position must already be at this offset.
    pub(crate) fn new(file: R, offset: u64) -> Self {
        Self { file, read: offset, begun: Vec::new(), is_cut: false }
    }

    pub(crate) fn file(&self) -> &R {
        &self.file
    }

    pub(crate) fn into_file(self) -> R {
        self.file
    }

    /// The offset in the file after the last byte read, including the bytes of an unfinished line.
    pub(crate) fn offset(&self) -> u64 {
        self.read
    }

    /// Returns the next complete line, or `None` at the end of the file. After the file has grown,
    /// another call may return a line.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let bytes = self.file.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LINE_BYTES_MAX - self.begun.len();
            self.is_cut |= part.len() > room;
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.file.consume(used);
            self.read += used as u64;
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    /// Returns the last line of a file that will not grow any more, if this line has no line feed.
    pub(crate) fn rest(&mut self) -> Option<Line> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.begun);
        let is_cut = std::mem::take(&mut self.is_cut);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(&bytes);
        Line { text: String::from_utf8_lossy(bytes).into_owned(), is_cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (Vec<Line>, u64) {
        let mut lines = Lines::new(bytes, 0);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.expect("reading from memory does not fail") {
            found.push(line);
        }
        (found, lines.offset())
    }

    fn line(text: &str) -> Line {
        Line { text: text.into(), is_cut: false }
    }

    #[tokio::test]
    async fn lines_end_with_lf_or_crlf() {
        let (lines, offset) = read(b"a\n\nb\r\nc\rd\n").await;
        assert_eq!(lines, [line("a"), line(""), line("b"), line("c\rd")]);
        assert_eq!(offset, 10);
    }

    #[tokio::test]
    async fn line_without_an_end_is_not_returned_yet() {
        let mut lines = Lines::new(&b"a\nbc"[..], 7);
        assert_eq!(lines.next().await.expect("reading from memory does not fail"), Some(line("a")));
        assert_eq!(lines.next().await.expect("reading from memory does not fail"), None);
        assert_eq!(lines.offset(), 11);
        assert_eq!(lines.rest(), Some(line("bc")));
        assert_eq!(lines.rest(), None);
    }

    #[tokio::test]
    async fn invalid_utf8_is_replaced() {
        assert_eq!(read(b"a\xffb\xc3\n").await.0, [line("a\u{fffd}b\u{fffd}")]);
    }

    #[tokio::test]
    async fn line_above_the_limit_is_cut() {
        for (bytes, kept, is_cut) in [
            (LINE_BYTES_MAX - 1, LINE_BYTES_MAX - 1, false),
            (LINE_BYTES_MAX, LINE_BYTES_MAX, false),
            (LINE_BYTES_MAX + 1, LINE_BYTES_MAX, true),
            (9 * LINE_BYTES_MAX, LINE_BYTES_MAX, true),
        ] {
            let file = [vec![b'x'; bytes], b"\nnext\n".to_vec()].concat();
            let (lines, offset) = read(&file).await;
            assert_eq!(lines, [Line { text: "x".repeat(kept), is_cut }, line("next")]);
            assert_eq!(offset, file.len() as u64);
        }
    }
}
