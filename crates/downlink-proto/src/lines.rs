//! Splits bytes into lines.
//!
//! Line ends are LF, CR and CRLF. A CR ends its line at once. An LF right after a CR belongs to the
//! same line end, even if it arrives in the next chunk. One byte order mark at the start of the
//! stream is dropped. Each byte is searched for a line end at most once, and copied at most once. A
//! line that is within one chunk is not copied.
//!
//! This module splits bytes, before they are decoded as UTF-8. That is correct, because in UTF-8
//! the bytes of CR and LF are never part of another character.

use memchr::memchr2;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The buffer for unfinished lines keeps room for this many bytes. This is enough for ordinary
/// lines, so the buffer is usually allocated once. After a longer line, the buffer shrinks to this
/// size, so that it does not hold the memory for the rest of the connection.
const LINE_BYTES_KEPT: usize = 64 * 1_024;

/// A line has more bytes than the limit.
#[derive(Debug)]
pub(crate) struct LineTooLong;

/// Splits a stream that arrives in chunks into lines.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    line_bytes_max: usize,
    /// The part of a byte order mark that has not arrived yet. Empty after the start of the stream.
    mark_left: &'static [u8],
    /// Whether the last byte was a CR. An LF right after the CR belongs to the same line end.
    after_cr: bool,
    /// The beginning of a line whose end has not arrived. Invariant: at most `line_bytes_max`
    /// bytes.
    cut: Vec<u8>,
    /// Whether `cut` was returned as a complete line. The next call then clears `cut`.
    cut_is_read: bool,
    /// The number of bytes that were searched for a line end. Tests check this number.
    #[cfg(test)]
    pub(crate) searched: usize,
}

impl LineSplitter {
    pub(crate) fn new(line_bytes_max: usize) -> Self {
        Self {
            line_bytes_max,
            mark_left: BYTE_ORDER_MARK,
            after_cr: false,
            cut: Vec::new(),
            cut_is_read: false,
            #[cfg(test)]
            searched: 0,
        }
    }

    /// Discards the unfinished line. The next byte is the first of a new stream.
    pub(crate) fn restart(&mut self) {
        self.mark_left = BYTE_ORDER_MARK;
        self.after_cr = false;
        self.clear_cut();
    }

    /// Returns the next complete line, without its line end. `None` if the input has no further
    /// complete line.
    pub(crate) fn next_line<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<&'a [u8]>, LineTooLong> {
        if self.cut_is_read {
            self.clear_cut();
        }
        self.skip_mark(input)?;
        self.skip_rest_of_crlf(input);
        let Some((line, end, rest)) = self.split_at_end(input) else {
            self.keep(input)?;
            *input = &[];
            return Ok(None);
        };
        self.after_cr = end == b'\r';
        *input = rest;
        if self.cut.is_empty() {
            return if line.len() > self.line_bytes_max {
                Err(LineTooLong)
            } else {
                Ok(Some(line))
            };
        }
        self.keep(line)?;
        self.cut_is_read = true;
        Ok(Some(&self.cut))
    }

    /// Drops a byte order mark at the start of the stream, even if it arrives in parts. If the
    /// bytes turn out not to be a complete mark, they are the start of the first line.
    fn skip_mark(&mut self, input: &mut &[u8]) -> Result<(), LineTooLong> {
        while let Some((expected, mark_left)) = self.mark_left.split_first() {
            let Some((byte, rest)) = input.split_first() else { return Ok(()) };
            if byte != expected {
                let seen_len = BYTE_ORDER_MARK.len() - self.mark_left.len();
                self.mark_left = &[];
                return self.keep(BYTE_ORDER_MARK.get(..seen_len).unwrap_or_default());
            }
            self.mark_left = mark_left;
            *input = rest;
        }
        Ok(())
    }

    fn skip_rest_of_crlf(&mut self, input: &mut &[u8]) {
        let Some((first, rest)) = input.split_first() else { return };
        if self.after_cr && *first == b'\n' {
            *input = rest;
        }
        self.after_cr = false;
    }

    /// Splits the input into the first line, the byte of its line end, and the rest.
    fn split_at_end<'a>(&mut self, input: &'a [u8]) -> Option<(&'a [u8], u8, &'a [u8])> {
        let found = memchr2(b'\r', b'\n', input);
        #[cfg(test)]
        {
            self.searched += found.map_or(input.len(), |at| at + 1);
        }
        let (line, from_end) = input.split_at_checked(found?)?;
        let (end, rest) = from_end.split_first()?;
        Some((line, *end, rest))
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), LineTooLong> {
        if piece.len() > self.line_bytes_max - self.cut.len() {
            return Err(LineTooLong);
        }
        self.cut.extend_from_slice(piece);
        Ok(())
    }

    fn clear_cut(&mut self) {
        self.cut.clear();
        self.cut.shrink_to(LINE_BYTES_KEPT);
        self.cut_is_read = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a stream in chunks of this length. Returns the number of bytes that were searched,
    /// and the number of lines that were found.
    fn work(stream: &[u8], chunk_len: usize) -> (usize, usize) {
        let mut lines = LineSplitter::new(usize::MAX);
        let mut found = 0;
        for mut chunk in stream.chunks(chunk_len) {
            while lines.next_line(&mut chunk).unwrap().is_some() {
                found += 1;
            }
        }
        (lines.searched, found)
    }

    #[test]
    fn each_byte_of_a_large_event_is_searched_once() {
        let long = [b"data: ", &*vec![b'x'; 10 * 1_024 * 1_024], b"\n\n"].concat();
        assert_eq!(work(&long, 10), (long.len(), 2));
        assert_eq!(work(&long, 1), (long.len(), 2));
        assert_eq!(work(&long, long.len()), (long.len(), 2));
    }

    #[test]
    fn each_byte_of_many_short_lines_is_searched_once() {
        let short = b"data: x\n".repeat(10_000);
        assert_eq!(work(&short, 10), (short.len(), 10_000));
        assert_eq!(work(&short, short.len()), (short.len(), 10_000));
        // The LF of a CRLF is skipped without a search.
        let crlf = b"data: x\r\n".repeat(10_000);
        assert_eq!(work(&crlf, 10), (crlf.len() - 10_000, 10_000));
    }
}
