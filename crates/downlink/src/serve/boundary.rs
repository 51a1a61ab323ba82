//! The boundaries between the frames (encoded events and comments) of an event stream.
//!
//! Any code may make a stream, and may cut it into chunks at any byte. The server may end a stream
//! only right after a blank line, or after comments (such as keep-alives) that follow a blank line.
//! If a stream ended at any other place, the reader would lose or misread an event. LF, CR and CRLF
//! all end a line (WHATWG, "Parsing an event stream"). This module distinguishes only blank lines,
//! comments and all other lines.

/// Tracks whether a stream is in the middle of a frame. For this, it keeps the last bytes of the
/// stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Boundary {
    /// The last three bytes of the stream, with the newest byte at the end. While the stream has
    /// fewer than three bytes, the missing bytes are 0.
    tail: [u8; 3],
    /// Whether the stream ends with whole comments that follow a blank line. If a comment arrived
    /// in several chunks, this is false, because the beginning of its line is no longer known.
    after_comments: bool,
}

impl Boundary {
    /// Whether the stream is at a boundary: before its first byte, right after a blank line, or
    /// after comments that follow a blank line.
    pub(super) fn is_here(&self) -> bool {
        self.after_comments || self.is_after_blank()
    }

    fn is_after_blank(&self) -> bool {
        match self.tail {
            [0, 0, 0] => true,
            [_, b'\n', b'\n'] | [_, b'\n' | b'\r', b'\r'] | [b'\n' | b'\r', b'\r', b'\n'] => true,
            // The very first line of the stream is blank.
            [0, 0, b'\n' | b'\r'] | [0, b'\r', b'\n'] => true,
            _ => false,
        }
    }

    /// Records bytes that are sent.
    pub(super) fn pass(&mut self, chunk: &[u8]) {
        if chunk.is_empty() {
            return;
        }
        let before = *self;
        for byte in &chunk[chunk.len().saturating_sub(self.tail.len())..] {
            self.push(*byte);
        }
        // Nearly every chunk ends with a blank line, so the search for comments is rare.
        self.after_comments = !self.is_after_blank() && before.is_followed_by_comments(chunk);
    }

    /// Whether only whole comments are between the last boundary and the end of the chunk.
    fn is_followed_by_comments(self, chunk: &[u8]) -> bool {
        let mut rest = chunk;
        while let Some(line) = without_line_end(rest) {
            let start = line.iter().rposition(|byte| is_line_end(*byte)).map_or(0, |at| at + 1);
            // A line at the beginning of the chunk may have begun in an earlier chunk. If the
            // earlier chunk ended with a CR, the first byte of this chunk may be the LF of a CRLF.
            let is_whole = start > 0 || matches!(self.tail[2], 0 | b'\n');
            match line.get(start..) {
                Some([]) if is_whole => return true,
                Some([b':', ..] | []) if start == 0 => return self.is_here(),
                Some([b':', ..]) => rest = &rest[..start],
                _ => return false,
            }
        }
        false
    }

    /// The length of the chunk up to its last boundary, if the chunk has one.
    pub(super) fn last_in(mut self, chunk: &[u8]) -> Option<usize> {
        let (mut last, mut is_open, mut line_start) = (None, !self.is_here(), 0);
        for (at, byte) in chunk.iter().enumerate() {
            self.push(*byte);
            if !is_line_end(*byte) {
                continue;
            }
            let line = &chunk[line_start..at];
            is_open |= line.first().is_some_and(|first| *first != b':');
            is_open &= !self.is_after_blank();
            if !is_open {
                last = Some(at + 1);
            }
            line_start = at + 1;
        }
        last
    }

    fn push(&mut self, byte: u8) {
        // In `tail`, NUL means "no byte yet". In a stream, NUL is text like any other byte.
        let byte = if byte == 0 { b' ' } else { byte };
        self.tail = [self.tail[1], self.tail[2], byte];
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn without_line_end(text: &[u8]) -> Option<&[u8]> {
    text.strip_suffix(b"\r\n")
        .or_else(|| text.split_last().filter(|(last, _)| is_line_end(**last)).map(|(_, line)| line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: &[u8]) -> bool {
        let mut at = Boundary::default();
        at.pass(bytes);
        let mut by_byte = Boundary::default();
        bytes.iter().for_each(|byte| by_byte.pass(&[*byte]));
        assert_eq!(
            at.is_after_blank(),
            by_byte.is_after_blank(),
            "the result depends on the chunks: {bytes:?}"
        );
        assert!(
            at.is_here() || !by_byte.is_here(),
            "a boundary was found byte by byte, but not in one chunk: {bytes:?}"
        );
        at.is_here()
    }

    /// In an open frame there is no boundary, wherever the stream is cut into chunks.
    #[test]
    fn an_open_frame_has_no_boundary_wherever_it_is_cut() {
        for stream in ["data: x\n", "data: x\n: c\n", "id: 7\r\ndata: x\r\n", "data: x\r: c\r\n:\r"]
        {
            for cut in 0..=stream.len() {
                let (first, second) = stream.split_at(cut);
                let mut at = Boundary::default();
                at.pass(first.as_bytes());
                at.pass(second.as_bytes());
                assert!(!at.is_here(), "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn comments_between_frames_are_boundaries() {
        for bytes in
            [": a\n", ": a\n: b\r\n", "data: x\n\n: a\n", "data: x\r\n\r\n:\r\n: b\r\n", "\n:\r"]
        {
            assert!(after(bytes.as_bytes()), "{bytes:?}");
        }
        for bytes in
            ["data: x\n: a\n", ": a\nid: 1\n", ": a", "data: x\n\n: a\ndata\n", "a\r\n: b\n"]
        {
            assert!(!after(bytes.as_bytes()), "{bytes:?}");
        }
        let mut at = Boundary::default();
        for (chunk, is_here) in [
            ("data: x\n\n", true),
            (": alive\n", true),
            (": alive\n", true),
            ("data: y\n", false),
            (": alive\n", false),
            ("\n", true),
            ("data: z\r", false),
            ("\n: alive\n", false),
            ("\n", true),
            (": cut", false),
            (" comment\n", false),
            ("\n", true),
        ] {
            at.pass(chunk.as_bytes());
            assert_eq!(at.is_here(), is_here, "{chunk:?}");
        }
    }

    #[test]
    fn blank_lines_with_any_line_ending_are_boundaries() {
        for bytes in
            ["", "a\n\n", "a\r\r", "a\r\n\r\n", "a\r\n\n", "a\n\r\n", "a\n\r", "\n", "\r\n"]
        {
            assert!(after(bytes.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn the_middle_of_a_frame_is_no_boundary() {
        for bytes in ["a", "a\n", "a\r", "a\r\n", "a\n\nb", "a\n\nb\r\n", "\0", "\0\n"] {
            assert!(!after(bytes.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn the_last_boundary_of_a_chunk_is_found() {
        let start = Boundary::default();
        assert_eq!(start.last_in(b"data: a\n\ndata: b\r\n\r\ndata: c"), Some(20));
        assert_eq!(start.last_in(b"data: a\ndata: b\n"), None);
        assert_eq!(start.last_in(b": a\ndata: b\n"), Some(4));
        assert_eq!(start.last_in(b"data: a\n\n: b\r\n: c\ndata: d\n"), Some(18));
    }

    #[test]
    fn a_boundary_may_begin_in_an_earlier_chunk() {
        let mut at = Boundary::default();
        at.pass(b"data: a\n");
        assert_eq!(at.last_in(b"\ndata: b"), Some(1));
    }
}
