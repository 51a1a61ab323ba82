//! A body that is a stream of events: each is published as it arrives.
//!
//! What was published before something went wrong stays published; the answer says how much that
//! is. An event's own type, id and reconnection time are kept.

use axum::{body::Body, response::Response};
use downlink::hub::{Publish, Receipt};
use downlink_proto::{DecodedEvent, Decoder, DecoderLimits, Item};
use serde_json::{json, value::RawValue};

use super::{
    App, body, publish,
    query::Query,
    reply::{self, Refused, bad_request},
};

/// How the body is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// `text/event-stream`.
    EventStream,
    /// `application/x-ndjson`: each line is the data of one event.
    Lines,
}

pub(super) async fn publish(
    app: &App,
    query: &Query,
    format: Format,
    finish: bool,
    mut body: Body,
) -> Result<Response, Refused> {
    let mut stream = Publishing { app, query, published: 0, last: None };
    let mut reader = Reader::new(format, app.settings.event_bytes_max);
    loop {
        // A model may think for long, so a pause is not an error here; the connection's own limits
        // hold, and a peer that has vanished is found by the socket.
        let chunk = match body::next_chunk(&mut body, std::time::Duration::MAX).await {
            Ok(chunk) => chunk,
            Err(refused) => return Err(refused),
        };
        let items = reader.read(chunk.as_deref()).map_err(|detail| stream.stopped(&detail))?;
        for item in items {
            stream.publish(item)?;
        }
        if chunk.is_none() {
            break;
        }
    }
    if finish {
        stream.finish()?;
    }
    Ok(stream.answer())
}

/// One event of the stream.
#[derive(Debug, PartialEq)]
struct Arrived {
    event_type: Option<String>,
    id: Option<String>,
    data: String,
}

struct Publishing<'a> {
    app: &'a App,
    query: &'a Query,
    published: u64,
    last: Option<Receipt>,
}

impl Publishing<'_> {
    fn publish(&mut self, arrived: Arrived) -> Result<(), Refused> {
        let mut publish: Publish<String> = publish::address(self.app, self.query)?;
        if let Some(event_type) = arrived.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = arrived.id {
            publish = publish.id(id);
        }
        match publish.publish(arrived.data) {
            Ok(receipt) => {
                self.published += 1;
                self.last = Some(receipt);
                Ok(())
            }
            Err(error) => {
                let problem = error.to_problem();
                let status = problem.status();
                Err(Refused::new(status, self.detail(&error.to_string())))
            }
        }
    }

    fn finish(&mut self) -> Result<(), Refused> {
        for topic in self.query.all("topic") {
            let _receipt = self.app.hub.finish(topic).map_err(|error| error.to_problem())?;
        }
        Ok(())
    }

    fn stopped(&self, why: &str) -> Refused {
        bad_request(self.detail(why))
    }

    fn detail(&self, why: &str) -> String {
        let after = match &self.last {
            Some(receipt) => format!(", the last as {}", receipt.id().as_str()),
            None => String::new(),
        };
        let at = self.published + 1;
        format!("Event {at}: {why}. {} were published before it{after}.", self.published)
    }

    fn answer(&self) -> Response {
        let id = self.last.as_ref().map(|receipt| receipt.id().as_str());
        let subscribers = self.last.as_ref().map_or(0, Receipt::matched);
        reply::json(&json!({ "id": id, "events": self.published, "subscribers": subscribers }))
    }
}

/// Takes a body apart, whatever pieces it comes in.
enum Reader {
    EventStream(Box<Decoder>),
    Lines { line: Vec<u8>, line_bytes_max: usize },
}

impl Reader {
    fn new(format: Format, event_bytes_max: usize) -> Self {
        match format {
            Format::EventStream => {
                let limits = DecoderLimits::default()
                    .with_line_bytes_max(event_bytes_max)
                    .with_event_bytes_max(event_bytes_max);
                Self::EventStream(Box::new(Decoder::new(limits)))
            }
            Format::Lines => Self::Lines { line: Vec::new(), line_bytes_max: event_bytes_max },
        }
    }

    /// The events that are complete with this piece; `None` is the end.
    fn read(&mut self, chunk: Option<&[u8]>) -> Result<Vec<Arrived>, String> {
        match self {
            Self::EventStream(decoder) => match chunk {
                Some(chunk) => {
                    decoder.handle_bytes(chunk).map_err(|error| error.to_string())?;
                    Ok(std::iter::from_fn(|| decoder.poll_item()).filter_map(arrived).collect())
                }
                None => Ok(Vec::new()),
            },
            Self::Lines { line, line_bytes_max } => read_lines(line, *line_bytes_max, chunk),
        }
    }
}

fn arrived(item: Item) -> Option<Arrived> {
    let Item::Event(DecodedEvent { event_type, data, last_event_id, has_own_id, .. }) = item else {
        return None;
    };
    let event_type = Some(event_type.into_owned()).filter(|event_type| event_type != "message");
    let id = Some(last_event_id.to_string()).filter(|id| has_own_id && !id.is_empty());
    Some(Arrived { event_type, id, data })
}

fn read_lines(
    line: &mut Vec<u8>,
    line_bytes_max: usize,
    chunk: Option<&[u8]>,
) -> Result<Vec<Arrived>, String> {
    let mut events = Vec::new();
    let mut rest = chunk.unwrap_or_default();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        let (end, after) = rest.split_at(at);
        extend(line, end, line_bytes_max)?;
        events.extend(parse_line(line)?);
        line.clear();
        rest = after.get(1..).unwrap_or_default();
    }
    extend(line, rest, line_bytes_max)?;
    if chunk.is_none() {
        events.extend(parse_line(line)?);
    }
    Ok(events)
}

fn extend(line: &mut Vec<u8>, more: &[u8], line_bytes_max: usize) -> Result<(), String> {
    if line.len() + more.len() > line_bytes_max {
        return Err(format!("a line is longer than {line_bytes_max} bytes"));
    }
    line.extend_from_slice(more);
    Ok(())
}

fn parse_line(line: &[u8]) -> Result<Option<Arrived>, String> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let value: &RawValue =
        serde_json::from_slice(line).map_err(|error| format!("a line is not JSON: {error}"))?;
    Ok(Some(Arrived { event_type: None, id: None, data: value.get().to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, chunks: &[&str]) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(format, 20);
        let ends = chunks.iter().map(|chunk| Some(chunk.as_bytes())).chain([None]);
        let mut read = Vec::new();
        for chunk in ends {
            read.extend(reader.read(chunk)?.into_iter().map(|arrived| arrived.data));
        }
        Ok(read)
    }

    #[test]
    fn lines_come_in_any_pieces_and_the_last_needs_no_end() {
        let read = |chunks: &[&str]| read(Format::Lines, chunks);
        assert_eq!(read(&["{\"a\":1}\n\n[2", "]\r\n\"x\""]).unwrap(), ["{\"a\":1}", "[2]", "\"x\""]);
    }

    #[test]
    fn lines_have_a_limit() {
        let line = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(read(Format::Lines, &[&line(19)]).is_ok());
        assert!(read(Format::Lines, &[&line(20)]).is_ok());
        assert!(read(Format::Lines, &[&line(21)]).is_err());
    }

    #[test]
    fn a_line_that_is_not_json_is_refused() {
        assert!(read(Format::Lines, &["{\n"]).unwrap_err().contains("not JSON"));
        assert!(read(Format::Lines, &["1 2\n"]).unwrap_err().contains("not JSON"));
    }

    #[test]
    fn an_unfinished_event_is_not_published() {
        let read = read(Format::EventStream, &["data: a\n", "\ndata: b\n"]);
        assert_eq!(read.unwrap(), ["a"]);
    }

    #[test]
    fn an_event_keeps_its_own_type_and_id_only() {
        let mut reader = Reader::new(Format::EventStream, 100);
        let stream = "event: t\nid: 1\ndata: a\n\ndata: b\n\n";
        let read = reader.read(Some(stream.as_bytes())).unwrap();
        let arrived = |event_type: Option<&str>, id: Option<&str>, data: &str| Arrived {
            event_type: event_type.map(str::to_owned),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        assert_eq!(read, [arrived(Some("t"), Some("1"), "a"), arrived(None, None, "b")]);
    }
}
