//! Reads HTTP/1.1 responses as their bytes arrive. The body may come in chunks, have a length, or
//! end with the connection.
//!
//! This module reads no socket: the caller passes the bytes. After the head, it allocates no
//! memory. It removes the framing of the body (the sizes of the chunks), and skips trailers.

use thiserror::Error;

/// The maximum size of a head. Servers send a few hundred bytes, and most clients have a limit
/// between 8 and 64 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The maximum size of the trailers. It is the same as for a head, since trailers are header lines
/// too.
const TRAILER_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// The maximum number of hexadecimal digits in the size of a chunk. 15 digits have 60 bits, so the
/// size cannot overflow 64 bits.
const SIZE_DIGITS_MAX: u8 = 15;

/// A response that is being read.
#[derive(Debug)]
pub(super) struct HttpResponse {
    state: ResponseState,
}

/// The head of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// True if the body is an event stream.
    pub(super) is_event_stream: bool,
    /// True if the server closes the connection after this response.
    pub(super) closes: bool,
}

#[derive(Debug)]
enum ResponseState {
    Head(Vec<u8>),
    Body { head: Head, framing: Framing },
    Ended(Head),
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Chunked(Chunk),
    Length(u64),
    UntilClose,
}

/// The part of the chunked coding to which the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// The line with a chunk's size. `value` is the size so far. `digits` is the number of digits
    /// so far, or `None` after the last digit.
    Size {
        value: u64,
        digits: Option<u8>,
    },
    Bytes(u64),
    /// The line end after the bytes of a chunk.
    End,
    /// A line of the trailers. `line` is the length of this line so far, and `all` is the length of
    /// all trailers so far.
    Trailer {
        line: usize,
        all: usize,
    },
}

/// The state before the first digit of a chunk's size.
const SIZE: Chunk = Chunk::Size { value: 0, digits: Some(0) };

/// The bytes are not an HTTP/1.1 response.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum BadResponse {
    #[error("the head of the response is longer than 16 KiB")]
    HeadTooLong,
    #[error("the answer is not an HTTP/1.1 response")]
    BadHead,
    #[error("the chunks in the body of the response are invalid")]
    BadChunk,
    #[error("the trailers of the response are longer than 16 KiB")]
    TrailersTooLong,
    /// More bytes follow the end of the response, although no other request was sent.
    #[error("the server sent more bytes after the end of its response")]
    Unasked,
}

impl HttpResponse {
    pub(super) fn new() -> Self {
        Self { state: ResponseState::Head(Vec::new()) }
    }

    /// The head, once it is complete.
    pub(super) fn head(&self) -> Option<Head> {
        match self.state {
            ResponseState::Head(_) => None,
            ResponseState::Body { head, .. } | ResponseState::Ended(head) => Some(head),
        }
    }

    /// True if the whole response has been read.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, ResponseState::Ended(_))
    }

    /// Takes the next bytes of the connection. Calls `body` with the bytes that belong to the body.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<(), BadResponse> {
        while !bytes.is_empty() {
            match &mut self.state {
                ResponseState::Head(text) => {
                    let (taken, head) = take_head(text, bytes)?;
                    bytes = &bytes[taken..];
                    if let Some(state) = head {
                        self.state = state;
                    }
                }
                ResponseState::Body { head, framing } => {
                    let (taken, ended) = framing.feed(bytes, body)?;
                    bytes = &bytes[taken..];
                    if ended {
                        self.state = ResponseState::Ended(*head);
                    }
                }
                ResponseState::Ended(_) => return Err(BadResponse::Unasked),
            }
        }
        Ok(())
    }
}

/// Takes the bytes of the head, up to the blank line. Returns how many bytes it took, and the next
/// state if the head is complete.
fn take_head(
    text: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<(usize, Option<ResponseState>), BadResponse> {
    let before = text.len();
    text.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX - before)]);
    let from = before.saturating_sub(3);
    let Some(at) = memchr::memmem::find(&text[from..], b"\r\n\r\n") else {
        let taken = text.len() - before;
        return if text.len() == HEAD_BYTES_MAX {
            Err(BadResponse::HeadTooLong)
        } else {
            Ok((taken, None))
        };
    };
    let length = from + at + 4;
    let state = parse_head(&text[..length])?;
    Ok((length - before, Some(state.unwrap_or(ResponseState::Head(Vec::new())))))
}

/// Parses a head. Returns `None` for an interim response (100 Continue).
fn parse_head(head: &[u8]) -> Result<Option<ResponseState>, BadResponse> {
    let text = str::from_utf8(head).map_err(|_| BadResponse::BadHead)?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let mut words = status_line.ok_or(BadResponse::BadHead)?.split(' ');
    let minor = words.next();
    let status = words.next().and_then(|word| word.parse().ok()).ok_or(BadResponse::BadHead)?;
    let mut head = Head { status, is_event_stream: false, closes: minor == Some("0") };
    let (mut length, mut chunked) = (None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(BadResponse::BadHead)?;
        let value = value.trim().to_ascii_lowercase();
        match &*name.to_ascii_lowercase() {
            "content-length" => length = Some(value.parse().map_err(|_| BadResponse::BadHead)?),
            "transfer-encoding" => chunked = value.ends_with("chunked"),
            "content-type" => head.is_event_stream = value.starts_with("text/event-stream"),
            "connection" => head.closes |= value == "close",
            _ => {}
        }
    }
    let framing = match (status, chunked, length) {
        (100..200, ..) => return Ok(None),
        (204 | 304, ..) | (_, false, Some(0)) => return Ok(Some(ResponseState::Ended(head))),
        (_, true, _) => Framing::Chunked(SIZE),
        (.., Some(length)) => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    Ok(Some(ResponseState::Body { head, framing }))
}

impl Framing {
    /// Takes at least one byte. Returns how many bytes it took, and true if the body has ended.
    fn feed(
        &mut self,
        bytes: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<(usize, bool), BadResponse> {
        match self {
            Self::UntilClose => {
                body(bytes);
                Ok((bytes.len(), false))
            }
            Self::Length(left) => {
                let taken = take(bytes, left, body);
                Ok((taken, *left == 0))
            }
            Self::Chunked(Chunk::Bytes(left)) => {
                let taken = take(bytes, left, body);
                if *left == 0 {
                    *self = Self::Chunked(Chunk::End);
                }
                Ok((taken, false))
            }
            Self::Chunked(chunk) => match bytes.first() {
                Some(byte) => chunk.feed(*byte).map(|ended| (1, ended)),
                None => Ok((0, false)),
            },
        }
    }
}

/// Calls `body` with at most `left` bytes, and returns their number.
fn take(bytes: &[u8], left: &mut u64, body: &mut impl FnMut(&[u8])) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    body(&bytes[..taken]);
    *left -= taken as u64;
    taken
}

impl Chunk {
    /// Takes a byte of the framing. Returns true if it was the last byte of the response.
    fn feed(&mut self, byte: u8) -> Result<bool, BadResponse> {
        *self = match (*self, byte) {
            (Self::Size { digits: Some(0), .. }, byte) if !byte.is_ascii_hexdigit() => {
                return Err(BadResponse::BadChunk);
            }
            (Self::Size { value: 0, .. }, b'\n') => Self::Trailer { line: 0, all: 0 },
            (Self::Size { value, .. }, b'\n') => Self::Bytes(value),
            (Self::Size { value, digits: Some(digits) }, byte) => size(value, digits, byte)?,
            (Self::Size { .. }, _) | (Self::End, b'\r') => *self,
            (Self::End, b'\n') => SIZE,
            (Self::End | Self::Bytes(_), _) => return Err(BadResponse::BadChunk),
            (Self::Trailer { line: 0, .. }, b'\n') => return Ok(true),
            (Self::Trailer { all: TRAILER_BYTES_MAX, .. }, _) => {
                return Err(BadResponse::TrailersTooLong);
            }
            (Self::Trailer { all, .. }, b'\n') => Self::Trailer { line: 0, all: all + 1 },
            (Self::Trailer { line, all }, byte) => {
                Self::Trailer { line: line + usize::from(byte != b'\r'), all: all + 1 }
            }
        };
        Ok(false)
    }
}

/// Takes a digit of a chunk's size, or the first byte after the digits.
fn size(value: u64, digits: u8, byte: u8) -> Result<Chunk, BadResponse> {
    match (char::from(byte).to_digit(16), byte) {
        (Some(digit), _) if digits < SIZE_DIGITS_MAX => {
            Ok(Chunk::Size { value: value << 4 | u64::from(digit), digits: Some(digits + 1) })
        }
        (None, b'\r' | b';' | b' ' | b'\t') => Ok(Chunk::Size { value, digits: None }),
        _ => Err(BadResponse::BadChunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a response. Returns its status, its body, and whether it has ended. Checks that the
    /// result is the same if the bytes arrive in pieces.
    fn read(text: &str) -> Result<(Option<u16>, String, bool), BadResponse> {
        let whole = read_in_pieces(text, text.len());
        assert_eq!(whole, read_in_pieces(text, 1));
        assert_eq!(whole, read_in_pieces(text, 7));
        whole
    }

    fn read_in_pieces(text: &str, size: usize) -> Result<(Option<u16>, String, bool), BadResponse> {
        let (mut response, mut body) = (HttpResponse::new(), Vec::new());
        for piece in text.as_bytes().chunks(size.max(1)) {
            response.feed(piece, &mut |bytes| body.extend_from_slice(bytes))?;
        }
        let body = String::from_utf8(body).unwrap();
        Ok((response.head().map(|head| head.status), body, response.is_ended()))
    }

    fn chunked(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    }

    #[test]
    fn the_chunks_of_a_body_are_joined() {
        let text = chunked("5\r\nhello\r\n1;x=y\r\n \r\n5\r\nthere\r\n0\r\n\r\n");
        assert_eq!(read(&text), Ok((Some(200), "hello there".into(), true)));
    }

    #[test]
    fn a_body_without_its_last_chunk_has_not_ended() {
        assert_eq!(read(&chunked("A\r\n012345")), Ok((Some(200), "012345".into(), false)));
    }

    #[test]
    fn trailers_are_skipped() {
        let text = chunked("1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n");
        assert_eq!(read(&text), Ok((Some(200), "a".into(), true)));
    }

    #[test]
    fn a_body_with_a_length_ends_after_this_many_bytes() {
        let text = "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(read(text), Ok((Some(404), "abc".into(), true)));
        let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(read(empty), Ok((Some(200), String::new(), true)));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n"), Ok((Some(204), String::new(), true)));
    }

    #[test]
    fn a_body_without_a_length_or_chunks_lasts_until_the_connection_closes() {
        let text = "HTTP/1.0 200 OK\r\n\r\ndata: 1\n\n";
        assert_eq!(read(text), Ok((Some(200), "data: 1\n\n".into(), false)));
    }

    #[test]
    fn an_interim_response_is_skipped() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(read(text), Ok((Some(204), String::new(), true)));
    }

    #[test]
    fn the_head_says_if_the_body_is_an_event_stream_and_if_the_connection_closes() {
        let head = |text: &str| {
            let mut response = HttpResponse::new();
            response.feed(text.as_bytes(), &mut |_| ()).unwrap();
            response.head().unwrap()
        };
        let stream = head("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; x\r\n\r\n");
        assert!(stream.is_event_stream && !stream.closes);
        assert!(head("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").closes);
        assert!(head("HTTP/1.0 200 OK\r\n\r\n").closes);
    }

    #[test]
    fn bytes_that_are_not_a_response_are_refused() {
        assert_eq!(read("SSH-2.0\r\n\r\n"), Err(BadResponse::BadHead));
        assert_eq!(read("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), Err(BadResponse::BadHead));
        assert_eq!(read(&chunked("x\r\n")), Err(BadResponse::BadChunk));
        assert_eq!(read(&chunked("1\r\nabc")), Err(BadResponse::BadChunk));
        let more = "HTTP/1.1 204 No Content\r\n\r\nmore";
        assert_eq!(read(more), Err(BadResponse::Unasked));
    }

    #[test]
    fn a_head_above_its_limit_is_refused() {
        let head = |bytes: usize| {
            let frame = "HTTP/1.1 204 A\r\nX: \r\n\r\n".len();
            format!("HTTP/1.1 204 A\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame))
        };
        assert!(read(&head(HEAD_BYTES_MAX - 1)).is_ok());
        assert!(read(&head(HEAD_BYTES_MAX)).is_ok());
        assert_eq!(read(&head(HEAD_BYTES_MAX + 1)), Err(BadResponse::HeadTooLong));
    }

    #[test]
    fn trailers_above_their_limit_are_refused() {
        let trailers = |bytes: usize| chunked(&format!("0\r\n{}\r\n\r\n", "x".repeat(bytes - 2)));
        assert!(read(&trailers(TRAILER_BYTES_MAX - 2)).is_ok());
        assert!(read(&trailers(TRAILER_BYTES_MAX - 1)).is_ok());
        assert_eq!(read(&trailers(TRAILER_BYTES_MAX + 1)), Err(BadResponse::TrailersTooLong));
    }

    #[test]
    fn a_chunk_size_above_its_limit_is_refused() {
        let zeros = |digits: usize| chunked(&format!("{}1\r\na\r\n", "0".repeat(digits - 1)));
        assert!(read(&zeros(usize::from(SIZE_DIGITS_MAX) - 1)).is_ok());
        assert!(read(&zeros(usize::from(SIZE_DIGITS_MAX))).is_ok());
        assert_eq!(read(&zeros(usize::from(SIZE_DIGITS_MAX) + 1)), Err(BadResponse::BadChunk));
    }
}
