//! The boundaries between the frames of an event stream.
//!
//! A stream may come from any code, in chunks that are cut at any byte. It may end only right after
//! a blank line, or its reader loses or misreads an event. LF, CR and CRLF all end a line (WHATWG,
//! "Parsing an event stream"). Not here: the meaning of the lines.

/// The last bytes of a stream, which show whether a frame is open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Boundary {
    /// Invariant: the newest byte is last; 0 before the stream's first bytes.
    tail: [u8; 3],
}

impl Boundary {
    /// True before the first byte and right after a blank line.
    pub(super) fn is_here(&self) -> bool {
        match self.tail {
            [0, 0, 0] => true,
            [_, b'\n', b'\n'] | [_, b'\n' | b'\r', b'\r'] | [b'\n' | b'\r', b'\r', b'\n'] => true,
            // A stream whose very first line is blank.
            [0, 0, b'\n' | b'\r'] | [0, b'\r', b'\n'] => true,
            _ => false,
        }
    }

    /// Records outgoing bytes.
    pub(super) fn pass(&mut self, chunk: &[u8]) {
        for byte in &chunk[chunk.len().saturating_sub(self.tail.len())..] {
            self.push(*byte);
        }
    }

    /// The length of the chunk up to its last boundary, if it has one.
    pub(super) fn last_in(mut self, chunk: &[u8]) -> Option<usize> {
        let mut last = None;
        for (at, byte) in chunk.iter().enumerate() {
            self.push(*byte);
            if self.is_here() {
                last = Some(at + 1);
            }
        }
        last
    }

    fn push(&mut self, byte: u8) {
        // In `tail` NUL means "nothing yet". In a stream it is text like any other byte.
        let byte = if byte == 0 { b' ' } else { byte };
        self.tail = [self.tail[1], self.tail[2], byte];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: &[u8]) -> bool {
        let mut at = Boundary::default();
        at.pass(bytes);
        let mut by_byte = Boundary::default();
        bytes.iter().for_each(|byte| by_byte.pass(&[*byte]));
        assert_eq!(at.is_here(), by_byte.is_here(), "depends on the chunking: {bytes:?}");
        at.is_here()
    }

    #[test]
    fn blank_lines_of_all_line_ends_are_boundaries() {
        for bytes in
            ["", "a\n\n", "a\r\r", "a\r\n\r\n", "a\r\n\n", "a\n\r\n", "a\n\r", "\n", "\r\n"]
        {
            assert!(after(bytes.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn open_frames_are_not() {
        for bytes in ["a", "a\n", "a\r", "a\r\n", "a\n\nb", "a\n\nb\r\n", "\0", "\0\n"] {
            assert!(!after(bytes.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn last_boundary_of_a_chunk_is_found() {
        let start = Boundary::default();
        assert_eq!(start.last_in(b"data: a\n\ndata: b\r\n\r\ndata: c"), Some(20));
        assert_eq!(start.last_in(b"data: a\ndata: b\n"), None);
    }

    #[test]
    fn boundary_can_begin_in_an_earlier_chunk() {
        let mut at = Boundary::default();
        at.pass(b"data: a\n");
        assert_eq!(at.last_in(b"\ndata: b"), Some(1));
    }
}
