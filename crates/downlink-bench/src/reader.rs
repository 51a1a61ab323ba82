//! Reads an event stream from a connection. All kinds of load use this reader.
//!
//! The reader checks the head of the response, and finds the records in the body (a record is the
//! part of a payload that identifies the event). By default, it only scans the bytes for records,
//! which takes almost no time. A reader that must be able to resume decodes the events with a
//! decoder of event streams, which stores the last event id. When the connection ends, the reader
//! keeps the decoder. The next request then contains this id.

use std::io;

use downlink_proto::{DecodeError, DecodedEvent, Decoder, Item};
use thiserror::Error;

use super::{
    connection::{ConnectionError, HttpConnection, ReadOutcome, Ready},
    record::{Carry, EventRecord, Scanner},
};

/// The prefix of the types of the server's own events.
const OWN: &str = "downlink.";
/// The type of the events that announce a gap.
const GAP: &str = "downlink.gap";

/// An event stream. After a reconnection, it continues over the new connection.
#[derive(Debug)]
pub(super) struct StreamReader {
    connection: Option<HttpConnection>,
    is_up: bool,
    decoding: Decoding,
}

#[derive(Debug)]
enum Decoding {
    Scan(Carry),
    Decode(Box<Decoder>),
}

/// The kinds of events that the load tool distinguishes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StreamEvent {
    Record(EventRecord),
    /// The server reports that events are missing. A reader without the decoder does not see this.
    Gap,
    /// An event without a record. A reader without the decoder does not see this.
    Unknown,
}

/// Why a stream has ended.
#[derive(Debug, Error)]
pub(super) enum SubscriptionError {
    #[error("a subscription failed: {0}")]
    Failed(ConnectionError),
    #[error("a subscription broke: {0}")]
    Broken(ConnectionError),
    #[error("a subscription cannot be decoded: {0}")]
    Undecodable(#[from] DecodeError),
    #[error("a subscription got no answer")]
    NoAnswer,
    #[error("the server refused a subscription: the answer has status {status} and is {kind}")]
    Refused { status: u16, kind: &'static str },
    #[error("the server ended a subscription")]
    Ended,
}

impl StreamReader {
    /// Makes a reader. If `is_resuming`, it decodes each event, so that it can resume. Otherwise it
    /// only scans for records.
    pub(super) fn new(connection: HttpConnection, is_resuming: bool) -> Self {
        let decoding = match is_resuming {
            true => Decoding::Decode(Box::default()),
            false => Decoding::Scan(Carry::default()),
        };
        Self { connection: Some(connection), is_up: false, decoding }
    }

    /// Continues the stream over a new connection.
    pub(super) fn resume(&mut self, connection: HttpConnection) {
        (self.connection, self.is_up) = (Some(connection), false);
    }

    /// The last event id. `None` if the reader only scans, or has got no id.
    pub(super) fn last_event_id(&self) -> Option<&str> {
        match &self.decoding {
            Decoding::Scan(_) => None,
            Decoding::Decode(decoder) => Some(decoder.last_event_id()).filter(|id| !id.is_empty()),
        }
    }

    /// True if the response is an event stream that has not ended.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// True if the connection has ended.
    pub(super) fn is_over(&self) -> bool {
        self.connection.is_none()
    }

    /// Writes the rest of the request and reads once. After an error the connection is closed.
    pub(super) fn read(
        &mut self,
        ready: &mut Ready<'_>,
        scanner: &Scanner,
        found: impl FnMut(StreamEvent, u64),
    ) -> Result<ReadOutcome, SubscriptionError> {
        let read = self.advance(ready, scanner, found);
        if read.is_err() {
            (self.connection, self.is_up) = (None, false);
            if let Decoding::Decode(decoder) = &mut self.decoding {
                decoder.handle_end();
            }
        }
        read
    }

    fn advance(
        &mut self,
        ready: &mut Ready<'_>,
        scanner: &Scanner,
        mut found: impl FnMut(StreamEvent, u64),
    ) -> Result<ReadOutcome, SubscriptionError> {
        let Some(connection) = &mut self.connection else { return Ok(ReadOutcome::Empty) };
        connection
            .write(ready)
            .map_err(|error: io::Error| SubscriptionError::Failed(error.into()))?;
        if !ready.readable {
            return Ok(ReadOutcome::Empty);
        }
        let (decoding, mut decoded) = (&mut self.decoding, Ok(()));
        let read = connection.read(ready, |bytes, now_ns| match decoding {
            Decoding::Scan(carry) => {
                scanner.scan(carry, bytes, |record| found(StreamEvent::Record(record), now_ns));
            }
            Decoding::Decode(decoder) if decoded.is_ok() => {
                decoded = decoder.handle_bytes(bytes);
                while let Some(item) = decoder.poll_item() {
                    if let Some(event) = classify(&item, scanner) {
                        found(event, now_ns);
                    }
                }
            }
            Decoding::Decode(_) => {}
        });
        let is_up = self.is_up;
        let broken = |error| match is_up {
            true => SubscriptionError::Broken(error),
            false => SubscriptionError::Failed(error),
        };
        let read = read.map_err(broken)?;
        decoded?;
        self.is_up = is_up || check_head(connection, read)?;
        match read == ReadOutcome::Closed || connection.response.is_ended() {
            true => Err(SubscriptionError::Ended),
            false => Ok(read),
        }
    }
}

/// Returns true if the head has arrived. Fails if the head does not announce an event stream.
fn check_head(connection: &HttpConnection, read: ReadOutcome) -> Result<bool, SubscriptionError> {
    match connection.response.head() {
        Some(head) if head.status == 200 && head.is_event_stream => Ok(true),
        Some(head) => {
            let kind = if head.is_event_stream { "an event stream" } else { "no event stream" };
            Err(SubscriptionError::Refused { status: head.status, kind })
        }
        None if read == ReadOutcome::Closed => Err(SubscriptionError::NoAnswer),
        None => Ok(false),
    }
}

fn classify(item: &Item, scanner: &Scanner) -> Option<StreamEvent> {
    let Item::Event(DecodedEvent { event_type, data, .. }) = item else { return None };
    if event_type.starts_with(OWN) {
        return (event_type == GAP).then_some(StreamEvent::Gap);
    }
    let mut found = StreamEvent::Unknown;
    scanner
        .scan(&mut Carry::default(), data.as_bytes(), |record| found = StreamEvent::Record(record));
    Some(found)
}
