//! A request body that is a stream of events. Each event is published as it arrives.
//!
//! Published events stay published when the stream stops early. The answer says how many there are.
//! Each event keeps its own type and id. Comments and reconnection times are dropped, since they
//! were meant for the first reader of the stream.

use std::collections::VecDeque;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use downlink::hub::{Address, Confirmed, Hub, Receipt};
use downlink_proto::{DecodedEvent, Decoder, DecoderLimits, Item};
use serde_json::{json, value::RawValue};

use super::{
    body,
    envelope::Envelope,
    reply::{self, Refused, bad_request, not_published, sentence},
    state::App,
};

/// The format of the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// `text/event-stream`.
    EventStream,
    /// `application/x-ndjson`: each line is the data of one event.
    Lines,
}

/// Publishes a stream. Answers when the body has ended or failed, or after too long a pause.
pub(super) async fn publish(
    app: &App,
    envelope: Envelope,
    addresses: Vec<Address>,
    format: Format,
    finish: bool,
    mut body: Body,
) -> Result<Response, Refused> {
    if finish && envelope.topics.is_empty() {
        return Err(bad_request("Only topics can be finished: finish_on_end needs a topic."));
    }
    let mut stream = Publishing {
        app,
        hub: &app.hub,
        envelope,
        addresses,
        pushed: 0,
        sent: 0,
        published: 0,
        last: None,
        status: StatusCode::OK,
        waiting: VecDeque::new(),
    };
    match stream.publish_all(format, finish, &mut body).await {
        Ok(()) => Ok((stream.status, stream.answer()).into_response()),
        Err(stopped) => Err(stream.stop(stopped).await),
    }
}

/// The next chunk of the body, unless the server shuts down first.
///
/// A model may compute for a long time and a sensor may be silent, so the longest pause is hours,
/// not seconds. The limit exists because a peer that lost its network is silent too.
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
    addresses: Vec<Address>,
    /// Places that events have taken in topics since other requests had their turn.
    pushed: usize,
    /// Events that were given to the hub.
    sent: u64,
    /// Events that are published.
    published: u64,
    last: Option<Confirmed>,
    /// The HTTP status of the last publish.
    status: StatusCode,
    /// Events that are being committed, with their numbers in the stream, oldest first.
    waiting: VecDeque<(u64, Receipt)>,
}

/// The reason why a stream stops, and the number of the event at which it stops.
struct Stopped {
    number: u64,
    why: Refused,
}

/// The most events of one chunk whose commits are under way: as many as a few commits take. A
/// stream that is faster than the disk is read at the speed of the disk.
const WAITING_MAX: usize = 256;

/// Places in topics that events take before other requests of the same thread get their turn.
const PUSHED_AT_ONCE: usize = 64;

impl Publishing<'_> {
    /// Publishes all events of the body.
    async fn publish_all(
        &mut self,
        format: Format,
        finish: bool,
        body: &mut Body,
    ) -> Result<(), Stopped> {
        let mut reader = Reader::new(format, self.app.settings.event_bytes_max);
        loop {
            let chunk = next_chunk(self.app, body).await.map_err(|why| self.at_next(why))?;
            let Read { events, wrong } = reader.read(chunk.as_deref());
            for event in events {
                self.publish(event).await?;
            }
            if let Some(wrong) = wrong {
                return Err(self.at_next(wrong));
            }
            // A refused event stops the stream before the next chunk, which may take long.
            self.settle(0).await?;
            if chunk.is_none() {
                break;
            }
        }
        if finish {
            self.finish().await.map_err(|why| self.at_next(why))?;
        }
        Ok(())
    }

    async fn publish(&mut self, arrived: Arrived) -> Result<(), Stopped> {
        let receipt = self.send(arrived).map_err(|why| self.at_next(why))?;
        self.sent += 1;
        self.waiting.push_back((self.sent, receipt));
        // In memory a commit is not waited for, and a piece of the body may hold 16,384 events.
        self.pushed += self.addresses.len();
        if self.pushed >= PUSHED_AT_ONCE {
            self.pushed = 0;
            tokio::task::yield_now().await;
        }
        self.settle(WAITING_MAX).await
    }

    fn send(&self, arrived: Arrived) -> Result<Receipt, Refused> {
        let mut publish = self.envelope.publish(self.hub, &self.addresses);
        if let Some(event_type) = arrived.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = arrived.id {
            publish = publish.id(id);
        }
        publish.publish(arrived.data).map_err(|error| not_published(&error))
    }

    async fn finish(&mut self) -> Result<(), Refused> {
        let finish = |topic| self.hub.finish(topic).map_err(|error| not_published(&error));
        let receipts = self.envelope.topics.iter().map(finish).collect::<Result<Vec<_>, _>>()?;
        for receipt in &receipts {
            reply::confirmed(&self.app.settings, receipt).await?;
        }
        Ok(())
    }

    /// Waits for the oldest commits until at most `left` are under way.
    async fn settle(&mut self, left: usize) -> Result<(), Stopped> {
        while self.waiting.len() > left {
            let Some((number, receipt)) = self.waiting.pop_front() else { break };
            let confirmed = reply::confirmed(&self.app.settings, &receipt).await;
            let (status, confirmed) = confirmed.map_err(|why| Stopped { number, why })?;
            self.status = status;
            self.published += 1;
            self.last = Some(confirmed);
        }
        Ok(())
    }

    /// A stop at the next event of the stream.
    fn at_next(&self, why: Refused) -> Stopped {
        Stopped { number: self.sent + 1, why }
    }

    /// The refusal that ends the stream. Waits for the commits under way first, so that the number
    /// of published events in the answer is exact.
    async fn stop(&mut self, stopped: Stopped) -> Refused {
        let mut first = stopped;
        while !self.waiting.is_empty() {
            if let Err(stopped) = self.settle(0).await
                && stopped.number < first.number
            {
                first = stopped;
            }
        }
        let far = match &self.last {
            Some(last) => format!("Published: {}, the last as {}.", self.published, last.id()),
            None => "Nothing was published.".to_owned(),
        };
        first.why.told(|why| format!("Event {} of the stream: {why} {far}", first.number))
    }

    fn answer(&self) -> Response {
        let id = self.last.as_ref().map(|last| last.id().as_str());
        let subscribers = self.last.as_ref().map_or(0, Confirmed::matched);
        reply::json(&json!({ "id": id, "events": self.published, "subscribers": subscribers }))
    }
}

/// Parses a body in chunks of any size.
enum Reader {
    EventStream(Box<Decoder>),
    Lines(Lines),
}

/// The events that one chunk completed, and the error that ends the stream, if any.
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

    /// Reads the next chunk. `None` is the end of the body.
    fn read(&mut self, chunk: Option<&[u8]>) -> Read {
        match (self, chunk) {
            (Self::EventStream(decoder), Some(chunk)) => {
                let wrong = decoder.handle_bytes(chunk).err();
                let wrong = wrong.map(|error| bad_request(sentence(&error)));
                let items = std::iter::from_fn(|| decoder.poll_item());
                Read { events: items.filter_map(arrived).collect(), wrong }
            }
            // The standard: an event that is incomplete at the end of the stream is discarded.
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
    /// The incomplete last line. Invariant: at most `bytes_max` bytes.
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

    /// The event of a complete line. A blank line has none.
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
