//! Parses a request body that is a stream of events: the parser takes chunks of bytes and returns
//! events.
//!
//! A browser silently ignores text that it does not understand. But a publisher should learn of a
//! mistake from the server's answer. So this parser returns an error for a body that is not UTF-8.
//! It also returns an error for an event stream that is not empty, but has no event, no comment and
//! no reconnection time. At the end of the body, the last event is complete even without a blank
//! line after it.

use downlink_proto::{DecodedEvent, Decoder, DecoderLimits, Item};
use serde_json::value::RawValue;

use super::reply::{Refused, bad_request, sentence};

/// The format of the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// `text/event-stream`.
    EventStream,
    /// `application/x-ndjson`: each line is the data of one event.
    Lines,
}

/// One event of the stream.
#[derive(Debug, PartialEq)]
pub(super) struct Arrived {
    pub(super) event_type: Option<String>,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// The parser of a body. The chunks may have any size.
pub(super) struct Reader {
    utf8: Utf8,
    parser: Parser,
    /// Whether the body had any bytes.
    has_bytes: bool,
    /// Whether the body had an event, a comment or a reconnection time.
    is_understood: bool,
}

enum Parser {
    EventStream(Box<Decoder>),
    Lines(Lines),
}

/// The events that one chunk completed, and the error that ends the stream, if any.
#[derive(Default)]
pub(super) struct Read {
    pub(super) events: Vec<Arrived>,
    pub(super) error: Option<Refused>,
}

impl Reader {
    pub(super) fn new(format: Format, event_bytes_max: usize) -> Self {
        let parser = match format {
            Format::EventStream => {
                let limits = DecoderLimits::default()
                    .line_bytes_max(event_bytes_max)
                    .event_bytes_max(event_bytes_max);
                Parser::EventStream(Box::new(Decoder::new(limits)))
            }
            Format::Lines => {
                let (line, is_first) = (Vec::new(), true);
                Parser::Lines(Lines { line, is_first, bytes_max: event_bytes_max })
            }
        };
        Self { utf8: Utf8::default(), parser, has_bytes: false, is_understood: false }
    }

    /// Parses the next chunk. `None` means that the body has ended.
    pub(super) fn read(&mut self, chunk: Option<&[u8]>) -> Read {
        self.has_bytes |= chunk.is_some_and(|chunk| !chunk.is_empty());
        let (valid, not_utf8) = match chunk {
            Some(chunk) => self.utf8.check(chunk),
            None => (0, self.utf8.is_cut()),
        };
        if chunk.is_none() && not_utf8 {
            // The body ends in the middle of a character. This character is in the last event, so
            // the last event is invalid and is dropped.
            return Read { events: Vec::new(), error: Some(not_text()) };
        }
        let valid = chunk.map(|chunk| chunk.get(..valid).unwrap_or_default());
        let mut read = match &mut self.parser {
            Parser::EventStream(decoder) => {
                // At the end of the body, two line ends complete the last line and the last event.
                let error = decoder.handle_bytes(valid.unwrap_or(b"\n\n")).err();
                let items: Vec<Item> = std::iter::from_fn(|| decoder.poll_item()).collect();
                self.is_understood |= !items.is_empty();
                let events = items.into_iter().filter_map(arrived).collect();
                Read { events, error: error.map(|error| bad_request(sentence(&error))) }
            }
            Parser::Lines(lines) => {
                let mut events = Vec::new();
                let error = lines.read(valid, &mut events).err();
                Read { events, error }
            }
        };
        let is_event_stream = matches!(self.parser, Parser::EventStream(_));
        if not_utf8 {
            read.error.get_or_insert_with(not_text);
        } else if chunk.is_none() && is_event_stream && self.has_bytes && !self.is_understood {
            read.error.get_or_insert_with(no_event);
        }
        read
    }
}

fn not_text() -> Refused {
    bad_request("The body is not UTF-8 text.")
}

fn no_event() -> Refused {
    bad_request(
        "The body has no event: an event is a line that begins with `data:`, followed by a blank \
         line. If the body is the data of one event, send it as text/plain.",
    )
}

fn arrived(item: Item) -> Option<Arrived> {
    let Item::Event(DecodedEvent { event_type, data, last_event_id, has_own_id, .. }) = item else {
        return None;
    };
    let event_type = Some(event_type.into_owned()).filter(|event_type| event_type != "message");
    let id = Some(last_event_id.to_string()).filter(|id| has_own_id && !id.is_empty());
    Some(Arrived { event_type, id, data })
}

/// Checks text that arrives in chunks.
#[derive(Default)]
struct Utf8 {
    /// The first bytes of a character whose other bytes have not arrived.
    cut: [u8; 4],
    /// The number of bytes in `cut`.
    cut_len: usize,
}

impl Utf8 {
    /// Returns the number of valid bytes at the start of a chunk, and whether an invalid byte
    /// follows them.
    fn check(&mut self, chunk: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while self.cut_len > 0 {
            let Some(byte) = chunk.get(at) else { return (at, false) };
            let Some(place) = self.cut.get_mut(self.cut_len) else { return (at, true) };
            *place = *byte;
            self.cut_len += 1;
            match str::from_utf8(self.cut.get(..self.cut_len).unwrap_or_default()) {
                Ok(_) => self.cut_len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return (at, true),
            }
            at += 1;
        }
        let rest = chunk.get(at..).unwrap_or_default();
        let Err(error) = str::from_utf8(rest) else { return (chunk.len(), false) };
        let valid = error.valid_up_to();
        if error.error_len().is_some() {
            return (at + valid, true);
        }
        let cut = rest.get(valid..).unwrap_or_default();
        self.cut.iter_mut().zip(cut).for_each(|(place, byte)| *place = *byte);
        self.cut_len = cut.len();
        (chunk.len(), false)
    }

    /// Whether the text ends in the middle of a character.
    fn is_cut(&self) -> bool {
        self.cut_len > 0
    }
}

/// The parser of lines of JSON. Each line is the data of one event.
struct Lines {
    /// The incomplete last line. Invariant: at most `bytes_max` bytes.
    line: Vec<u8>,
    is_first: bool,
    bytes_max: usize,
}

impl Lines {
    fn read(&mut self, chunk: Option<&[u8]>, events: &mut Vec<Arrived>) -> Result<(), Refused> {
        let Some(mut rest) = chunk else {
            events.extend(self.take()?);
            return Ok(());
        };
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (end, after) = rest.split_at(at);
            self.extend(end)?;
            events.extend(self.take()?);
            rest = after.get(1..).unwrap_or_default();
        }
        self.extend(rest)
    }

    fn extend(&mut self, more: &[u8]) -> Result<(), Refused> {
        if self.line.len() + more.len() > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(bad_request(format!("A line is longer than {bytes_max} bytes.")));
        }
        self.line.extend_from_slice(more);
        Ok(())
    }

    /// The event of a complete line. `None` for a blank line.
    fn take(&mut self) -> Result<Option<Arrived>, Refused> {
        let line = std::mem::take(&mut self.line);
        let is_first = std::mem::take(&mut self.is_first);
        let json = without_mark(&line, is_first).trim_ascii();
        if json.is_empty() {
            return Ok(None);
        }
        let value: &RawValue = serde_json::from_slice(json).map_err(|error| {
            bad_request(format!("A line is not JSON: see column {}.", error.column()))
        })?;
        Ok(Some(Arrived { event_type: None, id: None, data: value.get().to_owned() }))
    }
}

/// Removes the byte order mark that some editors put before UTF-8 text.
fn without_mark(text: &[u8], is_first: bool) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).filter(|_| is_first).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, chunks: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(format, 20);
        let ends = chunks.iter().map(|chunk| Some(*chunk)).chain([None]);
        let mut read = Vec::new();
        for chunk in ends {
            let Read { events, error } = reader.read(chunk);
            read.extend(events.into_iter().map(|arrived| arrived.data));
            if let Some(error) = error {
                return Err(format!("{read:?} {error:?}"));
            }
        }
        Ok(read)
    }

    fn lines(chunks: &[&str]) -> Result<Vec<String>, String> {
        read(Format::Lines, &chunks.iter().map(|chunk| chunk.as_bytes()).collect::<Vec<_>>())
    }

    fn stream(chunks: &[&str]) -> Result<Vec<String>, String> {
        read(Format::EventStream, &chunks.iter().map(|chunk| chunk.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn chunks_may_split_lines_anywhere_and_the_last_line_needs_no_line_end() {
        let read = lines(&["{\"a\":1}\n\n[2", "]\r\n\"x\""]).unwrap();
        assert_eq!(read, ["{\"a\":1}", "[2]", "\"x\""]);
    }

    #[test]
    fn a_line_is_accepted_up_to_its_size_limit() {
        let line = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(lines(&[&line(19)]).is_ok());
        assert!(lines(&[&line(20)]).is_ok());
        assert!(lines(&[&line(21)]).is_err());
    }

    #[test]
    fn a_line_that_is_not_json_is_refused() {
        assert!(lines(&["{\n"]).unwrap_err().contains("not JSON"));
        assert!(lines(&["1 2\n"]).unwrap_err().contains("not JSON"));
    }

    #[test]
    fn a_byte_order_mark_is_allowed_only_before_the_first_line() {
        assert_eq!(lines(&["\u{feff}1\n2\n"]).unwrap(), ["1", "2"]);
        assert_eq!(stream(&["\u{feff}data: a\n\n"]).unwrap(), ["a"]);
        assert!(lines(&["1\n\u{feff}2\n"]).is_err());
    }

    #[test]
    fn an_invalid_event_does_not_drop_the_events_before_it() {
        let whole = lines(&["1\n2\n{\n4\n"]).unwrap_err();
        assert!(whole.starts_with(r#"["1", "2"]"#), "{whole}");
        assert_eq!(lines(&["1\n", "2", "\n{", "\n4\n"]).unwrap_err(), whole);
        let long = format!("data: a\n\ndata: {}\n\n", "x".repeat(20));
        let whole = stream(&[&long]).unwrap_err();
        assert!(whole.starts_with(r#"["a"]"#), "{whole}");
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        for rest in
            ["data: b", "data: b\n", "data: b\r", "data: b\r\n", "data: b\n\n", "data: b\r\r"]
        {
            assert_eq!(stream(&["data: a\n", "\n", rest]).unwrap(), ["a", "b"], "{rest:?}");
        }
    }

    #[test]
    fn a_body_that_is_not_an_event_stream_is_refused() {
        for body in ["{\"a\":1}", "<html>\n\n</html>\n", "\n\n", "hello"] {
            assert!(stream(&[body]).unwrap_err().contains("no event"), "{body:?}");
        }
        for body in ["", ": nothing yet\n\n", "retry: 10\n\n"] {
            assert_eq!(stream(&[body]).unwrap(), [""; 0], "{body:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_wherever_chunks_split_it() {
        let good = "data: é€😀\n\n".as_bytes();
        for cut in 0..good.len() {
            let (first, second) = good.split_at(cut);
            assert_eq!(read(Format::EventStream, &[first, second]).unwrap(), ["é€😀"], "{cut}");
        }
        let bytes: Vec<&[u8]> = good.chunks(1).collect();
        assert_eq!(read(Format::EventStream, &bytes).unwrap(), ["é€😀"]);
        let wrong: [&[u8]; 4] = [
            b"data: \xff\n\n",
            b"data: \xe2\x82\n\n",
            b"data: \xc0\x80\n\n",
            b"data: \xf0\x9f\x98",
        ];
        for tail in wrong {
            let whole = [b"data: a\n\n", tail].concat();
            for cut in 0..whole.len() {
                let (first, second) = whole.split_at(cut);
                let refused = read(Format::EventStream, &[first, second]).unwrap_err();
                assert!(refused.starts_with(r#"["a"]"#), "{cut} {refused}");
                assert!(refused.contains("not UTF-8"), "{cut} {refused}");
            }
        }
        assert!(read(Format::Lines, &[b"1\n\"\xff\"\n"]).unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn an_event_does_not_inherit_the_type_and_id_of_the_previous_event() {
        let mut reader = Reader::new(Format::EventStream, 100);
        let stream = "event: t\nid: 1\ndata: a\n\ndata: b\n\n";
        let read = reader.read(Some(stream.as_bytes())).events;
        let arrived = |event_type: Option<&str>, id: Option<&str>, data: &str| Arrived {
            event_type: event_type.map(str::to_owned),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        assert_eq!(read, [arrived(Some("t"), Some("1"), "a"), arrived(None, None, "b")]);
    }
}
