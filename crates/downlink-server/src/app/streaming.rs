//! A body that is a stream of events: each is published as it arrives.
//!
//! What was published before something went wrong stays published; the answer says how much that
//! is. An event's own type and id are kept; comments and reconnection times were for whoever read
//! the stream first, and go no further.

use std::collections::VecDeque;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use downlink::hub::{Hub, Receipt};
use downlink_proto::{DecodedEvent, Decoder, DecoderLimits, Item};
use serde_json::{json, value::RawValue};

use super::{
    body,
    envelope::Envelope,
    reply::{self, Refused, bad_request, not_published, sentence},
    state::App,
};

/// How the body is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// `text/event-stream`.
    EventStream,
    /// `application/x-ndjson`: each line is the data of one event.
    Lines,
}

/// Publishes a stream, and answers when it has ended, broken off, or paused for too long.
pub(super) async fn publish(
    app: &App,
    envelope: Envelope,
    format: Format,
    finish: bool,
    mut body: Body,
) -> Result<Response, Refused> {
    if finish && envelope.topics.is_empty() {
        return Err(bad_request("Only topics can be finished: finish_on_end needs a topic."));
    }
    let waiting = VecDeque::new();
    let mut stream = Publishing { app, hub: &app.hub, envelope, published: 0, last: None, waiting };
    let mut reader = Reader::new(format, app.settings.event_bytes_max);
    loop {
        let chunk = next_chunk(app, &mut body).await.map_err(|refused| stream.stopped(refused))?;
        let Read { events, wrong } = reader.read(chunk.as_deref());
        for event in events {
            let published = stream.publish(event).await;
            published.map_err(|refused| stream.stopped(refused))?;
        }
        if let Some(wrong) = wrong {
            return Err(stream.stopped(wrong));
        }
        if chunk.is_none() {
            break;
        }
    }
    if finish {
        stream.finish().await.map_err(|refused| stream.stopped(refused))?;
    }
    let status = stream.settle(0).await.map_err(|refused| stream.stopped(refused))?;
    Ok((status, stream.answer()).into_response())
}

/// The next piece of the body, unless the server shuts down first.
///
/// A model may think for long and a sensor be quiet, so the longest pause is one of hours, not of
/// seconds. There is one, because a peer that was cut off from the network says nothing either.
async fn next_chunk(app: &App, body: &mut Body) -> Result<Option<Bytes>, Refused> {
    tokio::select! {
        biased;
        () = app.hub.draining() => Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The server is shutting down. Send the rest later.",
        )),
        chunk = body::next_chunk(body, app.settings.stream_pause_max) => chunk,
    }
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
    hub: &'a Hub<String>,
    envelope: Envelope,
    published: u64,
    last: Option<Receipt>,
    /// Events whose commit is under way, oldest first.
    waiting: VecDeque<Receipt>,
}

/// Events of one stream whose commit is not waited for yet: as many as a disk takes in a few commits.
/// A stream that comes faster than the disk is read as fast as the disk.
const WAITING_MAX: usize = 256;

impl Publishing<'_> {
    async fn publish(&mut self, arrived: Arrived) -> Result<(), Refused> {
        let mut publish = self.envelope.publish(self.hub)?;
        if let Some(event_type) = arrived.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = arrived.id {
            publish = publish.id(id);
        }
        let receipt = publish.publish(arrived.data).map_err(|error| not_published(&error))?;
        // Where the disk is behind, a stream has one event that waits for it, as a publisher has.
        let is_slowed = self.app.settings.is_relaxed() && receipt.is_store_behind();
        let left = if is_slowed { 0 } else { WAITING_MAX };
        self.published += 1;
        self.waiting.push_back(receipt.clone());
        self.last = Some(receipt);
        self.settle(left).await?;
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Refused> {
        let finish = |topic| self.hub.finish(topic).map_err(|error| not_published(&error));
        let mut receipts =
            self.envelope.topics.iter().map(finish).collect::<Result<Vec<_>, _>>()?;
        if self.app.settings.is_relaxed() {
            // What is waited for is the disk's pace, once for all: commits keep their order.
            receipts.drain(..receipts.len().saturating_sub(1));
        }
        for receipt in &receipts {
            reply::certain(&self.app.settings, receipt).await?;
        }
        Ok(())
    }

    /// Waits for the oldest commits until at most so many are left.
    async fn settle(&mut self, left: usize) -> Result<StatusCode, Refused> {
        let mut status = StatusCode::OK;
        while self.waiting.len() > left {
            let Some(receipt) = self.waiting.pop_front() else { break };
            let (said, certain) = reply::certain(&self.app.settings, &receipt).await?;
            status = said;
            if self.waiting.is_empty() {
                self.last = Some(certain);
            }
        }
        Ok(status)
    }

    /// What stopped the stream, and how far it came.
    fn stopped(&self, why: Refused) -> Refused {
        let published = self.published;
        let far = match &self.last {
            Some(last) => format!("Published before: {published}, the last as {}.", last.id()),
            None => "Nothing was published before.".to_owned(),
        };
        why.told(|why| format!("Event {} of the stream: {why} {far}", published + 1))
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
    Lines(Lines),
}

/// What a piece of a body completed: events, and then perhaps something that ends the reading.
#[derive(Default)]
struct Read {
    events: Vec<Arrived>,
    wrong: Option<Refused>,
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
            Format::Lines => Self::Lines(Lines { line: Vec::new(), bytes_max: event_bytes_max }),
        }
    }

    /// Reads the next piece; `None` is the end.
    fn read(&mut self, chunk: Option<&[u8]>) -> Read {
        match (self, chunk) {
            (Self::EventStream(decoder), Some(chunk)) => {
                let wrong = decoder.handle_bytes(chunk).err();
                let wrong = wrong.map(|error| bad_request(sentence(&error)));
                let items = std::iter::from_fn(|| decoder.poll_item());
                Read { events: items.filter_map(arrived).collect(), wrong }
            }
            // The standard: an event that is not complete at the end is none.
            (Self::EventStream(_), None) => Read::default(),
            (Self::Lines(lines), chunk) => {
                let mut events = Vec::new();
                let wrong = lines.read(chunk, &mut events).err();
                Read { events, wrong }
            }
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

/// Lines of JSON, each the data of an event.
struct Lines {
    /// The line that has begun. Invariant: at most `bytes_max` bytes.
    line: Vec<u8>,
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

    /// The event of a whole line, unless it is blank.
    fn take(&mut self) -> Result<Option<Arrived>, Refused> {
        let line = std::mem::take(&mut self.line);
        let json = line.trim_ascii();
        if json.is_empty() {
            return Ok(None);
        }
        let value: &RawValue = serde_json::from_slice(json).map_err(|error| {
            bad_request(format!("A line is not JSON: look at its column {}.", error.column()))
        })?;
        Ok(Some(Arrived { event_type: None, id: None, data: value.get().to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, chunks: &[&str]) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(format, 20);
        let ends = chunks.iter().map(|chunk| Some(chunk.as_bytes())).chain([None]);
        let mut read = Vec::new();
        for chunk in ends {
            let Read { events, wrong } = reader.read(chunk);
            read.extend(events.into_iter().map(|arrived| arrived.data));
            if let Some(wrong) = wrong {
                return Err(format!("{read:?} {wrong:?}"));
            }
        }
        Ok(read)
    }

    #[test]
    fn lines_come_in_any_pieces_and_the_last_needs_no_end() {
        let read = |chunks: &[&str]| read(Format::Lines, chunks);
        assert_eq!(
            read(&["{\"a\":1}\n\n[2", "]\r\n\"x\""]).unwrap(),
            ["{\"a\":1}", "[2]", "\"x\""]
        );
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
    fn events_before_a_wrong_one_are_read_however_the_body_is_cut() {
        let whole = read(Format::Lines, &["1\n2\n{\n4\n"]).unwrap_err();
        assert!(whole.starts_with(r#"["1", "2"]"#), "{whole}");
        assert_eq!(read(Format::Lines, &["1\n", "2", "\n{", "\n4\n"]).unwrap_err(), whole);
        let long = format!("data: a\n\ndata: {}\n\n", "x".repeat(20));
        let whole = read(Format::EventStream, &[&long]).unwrap_err();
        assert!(whole.starts_with(r#"["a"]"#), "{whole}");
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
        let read = reader.read(Some(stream.as_bytes())).events;
        let arrived = |event_type: Option<&str>, id: Option<&str>, data: &str| Arrived {
            event_type: event_type.map(str::to_owned),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        assert_eq!(read, [arrived(Some("t"), Some("1"), "a"), arrived(None, None, "b")]);
    }
}
