//! Writes text that may have several lines (data and comments) as lines of the stream. It also
//! writes numbers as decimal digits.
//!
//! A reader ends lines at LF, CR and CRLF, so this module splits text at the same three line ends.
//! Each line of a text is written with the name of the text's field, so no line can become another
//! field.

use memchr::memchr2;

/// The number of digits of the largest `u64`.
pub(crate) const U64_DIGITS_MAX: usize = 20;

/// The lines of a text. The number of lines is the number of line breaks plus 1.
pub(crate) fn lines(text: &str) -> TextLines<'_> {
    TextLines { rest: Some(text) }
}

/// The iterator that [`lines`] returns.
pub(crate) struct TextLines<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for TextLines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.take()?;
        let Some(at) = memchr2(b'\r', b'\n', rest.as_bytes()) else {
            return Some(rest);
        };
        let (line, after) = rest.split_at(at);
        self.rest = after.strip_prefix("\r\n").or_else(|| after.get(1..));
        Some(line)
    }
}

/// The number of bytes that [`write_lines`] writes.
pub(crate) fn lines_len(name: &str, text: &str) -> usize {
    lines(text).map(|line| line_len(name, line.len())).sum()
}

/// Writes each line of the text as a field with this name. A field with an empty name is a comment.
pub(crate) fn write_lines(name: &str, text: &str, out: &mut Vec<u8>) {
    for line in lines(text) {
        write_line(name, line, out);
    }
}

/// The number of bytes that [`write_line`] writes for a value of this length.
pub(crate) fn line_len(name: &str, value_len: usize) -> usize {
    name.len() + ": \n".len() + value_len
}

/// Writes one field: the name, a colon, one space and the value. A reader drops only one space
/// after the colon. So if the value begins with a space, the reader keeps this space.
pub(crate) fn write_line(name: &str, value: &str, out: &mut Vec<u8>) {
    debug_assert!(!value.contains(['\r', '\n']), "the value has a line break");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// A number as decimal digits, without an allocation.
pub(crate) struct Decimal {
    digits: [u8; U64_DIGITS_MAX],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(number: u64) -> Self {
        let mut decimal = Self { digits: [b'0'; U64_DIGITS_MAX], start: U64_DIGITS_MAX };
        let mut left = number;
        for digit in decimal.digits.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            decimal.start -= 1;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        decimal
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}
