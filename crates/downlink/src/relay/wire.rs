//! The messages of a feed on the wire.
//!
//! A feed is a sequence of messages. Each message has its length before it, as four bytes in
//! little-endian order. The first message says where the feed begins. Each later message is a chunk
//! of events, or has floors of the next chunk. A floor is the offset below which an address may
//! have lost events. The fields of a message are in the format of the crate `postcard`.

use bytes::{Buf, Bytes, BytesMut};
use downlink_log::{
    Address, ClientId, ClockState, Epoch, Fingerprint, Floor, Offset, Timestamp, Topic,
    store::{FeedChunk, FeedStart, Mark, Marks, StoredEvent},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::hub::Hop;

/// The version of the messages. A relay refuses a feed with another version.
const VERSION: u16 = 1;

/// The media type of a feed.
pub const FEED_MEDIA_TYPE: &str = "application/vnd.downlink.feed";

/// The maximum length of a message in bytes. The events of a message have about 1 MiB, or one event
/// has up to [`EVENT_BYTES_CEILING`](crate::hub::EVENT_BYTES_CEILING). The floors before a chunk
/// are in messages of up to 20 MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The maximum number of servers between a relay and the server that gives the events their
/// offsets, including both. A longer chain would only add delay.
pub const HOPS_MAX: usize = 8;

/// The first message of a feed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Opening {
    pub(super) start: FeedStart,
    /// The servers through which the feed came, beginning with the server that gives the events
    /// their offsets.
    pub(super) hops: Vec<Hop>,
}

/// A message of a feed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Message {
    Opening(Opening),
    /// Floors of the chunk that follows, if they are too many for one message.
    Floors(Vec<(Address, Floor)>),
    /// A chunk, and the tail of the upstream (its next offset) when it made the chunk.
    Chunk(FeedChunk, Offset),
    /// The upstream is a relay without events. It has tried to follow these servers, and is the
    /// last of them.
    NotReady(Vec<Hop>),
}

/// Why a feed cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum WireError {
    /// The upstream has another version of the messages.
    #[error(
        "the upstream sends version {0} of the feed, and this program reads version {VERSION}: run \
         the same version of downlink on both"
    )]
    Version(u16),
    /// A message is longer than the limit.
    #[error("a message of the feed has {0} bytes, which is above the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// A message does not have the format of a feed.
    #[error(
        "the upstream sends something that is not a feed: check that its address is that of a downlink server"
    )]
    Malformed,
}

#[derive(Deserialize, Serialize)]
enum WireMessage<'a> {
    Opening {
        version: u16,
        hops: Vec<Hop>,
        #[serde(borrow)]
        epochs: Vec<(&'a str, u64)>,
        from: u64,
        resumed: bool,
    },
    #[serde(borrow)]
    Chunk(WireChunk<'a>),
    NotReady {
        version: u16,
        hops: Vec<Hop>,
    },
    #[serde(borrow)]
    Floors(Vec<(WireAddress<'a>, WireFloor)>),
}

#[derive(Deserialize, Serialize)]
struct WireChunk<'a> {
    #[serde(borrow)]
    floors: Vec<(WireAddress<'a>, WireFloor)>,
    others: WireFloor,
    #[serde(borrow)]
    events: Vec<WireEvent<'a>>,
    next: u64,
    tail: u64,
    at: u64,
    delta_ms: i64,
    marks: WireMarks,
}

#[derive(Deserialize, Serialize)]
struct WireMarks {
    base: u64,
    first: u64,
    marks: Vec<u64>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct WireFloor {
    offset: u64,
    at: u64,
}

#[derive(Deserialize, Serialize)]
enum WireAddress<'a> {
    Everyone,
    Client(&'a str),
    Topic(&'a str),
}

#[derive(Deserialize, Serialize)]
struct WireEvent<'a> {
    offset: u64,
    at: u64,
    #[serde(borrow)]
    to: Vec<WireAddress<'a>>,
    id: Option<&'a str>,
    finish: bool,
    payload: Option<&'a [u8]>,
}

/// The highest offset that a message may have. A log uses the highest bits of an offset for flags.
const OFFSET_MAX: u64 = 1 << 62;

/// Encodes the first message.
pub(super) fn opening(start: &FeedStart, hops: Vec<Hop>) -> Bytes {
    encode(&WireMessage::Opening {
        version: VERSION,
        hops,
        epochs: start.epochs.iter().map(|(epoch, first)| (epoch.as_str(), first.get())).collect(),
        from: start.from.get(),
        resumed: start.resumed,
    })
}

/// Encodes the only message of a relay that has no events yet.
pub(super) fn not_ready(hops: Vec<Hop>) -> Bytes {
    encode(&WireMessage::NotReady { version: VERSION, hops })
}

/// The maximum number of floors in a message that a feed sends. With the longest names, the message
/// has some 20 MiB.
const FLOORS_SENT_MAX: usize = 1 << 16;

/// The maximum number of events in a message that a feed sends. A chunk has more only if it has
/// many finish marks, which finish topics without an event.
const EVENTS_SENT_MAX: usize = 1 << 14;

/// The messages of a chunk, which are encoded one after the other.
pub(super) struct Messages {
    chunk: FeedChunk,
    /// The tail of the log when the chunk was made.
    tail: Offset,
    is_done: bool,
}

impl Messages {
    pub(super) fn new(chunk: FeedChunk, tail: Offset) -> Self {
        Self { chunk, tail, is_done: false }
    }

    /// Whether the chunk fits into one message, which is encoded quickly.
    pub(super) fn is_short(&self) -> bool {
        self.chunk.floors.is_empty() && self.chunk.events.len() <= EVENTS_SENT_MAX
    }
}

impl Iterator for Messages {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_done {
            return None;
        }
        let FeedChunk { floors, events, .. } = &mut self.chunk;
        if floors.len() > FLOORS_SENT_MAX {
            let part = floors.split_off(floors.len() - FLOORS_SENT_MAX);
            return Some(encode(&WireMessage::Floors(wire_floors(&part))));
        }
        let rest = events.split_off(events.len().min(EVENTS_SENT_MAX));
        self.is_done = rest.is_empty();
        let next = self.chunk.next;
        if let Some(last) = self.chunk.events.last().filter(|_| !self.is_done) {
            self.chunk.next = Offset::new(last.offset.get() + 1);
        }
        let message = encode_chunk(&self.chunk, self.tail);
        // Only the first of several chunks has the floors and the marks, which are parts of the ids
        // of a cluster.
        let clock = self.chunk.clock;
        let (floors, others, marks) = (Vec::new(), Floor::NONE, Marks::default());
        self.chunk = FeedChunk { floors, others, events: rest, next, clock, marks, node: None };
        Some(message)
    }
}

fn encode_chunk(chunk: &FeedChunk, tail: Offset) -> Bytes {
    encode(&WireMessage::Chunk(WireChunk {
        floors: wire_floors(&chunk.floors),
        others: chunk.others.into(),
        events: chunk.events.iter().map(WireEvent::from).collect(),
        next: chunk.next.get(),
        tail: tail.get(),
        at: chunk.clock.at.as_millis(),
        delta_ms: chunk.clock.delta_ms,
        marks: (&chunk.marks).into(),
    }))
}

fn wire_floors(floors: &[(Address, Floor)]) -> Vec<(WireAddress<'_>, WireFloor)> {
    floors.iter().map(|(address, floor)| (address.into(), (*floor).into())).collect()
}

fn encode(message: &WireMessage<'_>) -> Bytes {
    let buffer = vec![0; LENGTH_BYTES];
    let mut bytes = postcard::to_extend(message, buffer).expect("a vector takes every message");
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes.into()
}

/// The number of bytes of the length before a message.
const LENGTH_BYTES: usize = 4;

/// Takes the next whole message out of the received bytes, still encoded. `None` if it has not
/// arrived completely.
pub(super) fn split(received: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
    let Some(length) = received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong(length));
    }
    if received.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    received.advance(LENGTH_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

/// Decodes a message.
pub(super) fn decode(message: &[u8]) -> Result<Message, WireError> {
    let (message, rest) =
        postcard::take_from_bytes::<WireMessage<'_>>(message).map_err(|_| WireError::Malformed)?;
    let read = match message {
        WireMessage::Opening { version, .. } | WireMessage::NotReady { version, .. }
            if version != VERSION =>
        {
            return Err(WireError::Version(version));
        }
        WireMessage::NotReady { hops, .. } => Some(Message::NotReady(hops)),
        WireMessage::Opening { hops, epochs, from, resumed, .. } => {
            read_opening(hops, epochs, from, resumed).map(Message::Opening)
        }
        WireMessage::Chunk(chunk) => {
            let tail = offset(chunk.tail);
            read_chunk(chunk).zip(tail).map(|(chunk, tail)| Message::Chunk(chunk, tail))
        }
        WireMessage::Floors(floors) => read_floors(floors).map(Message::Floors),
    };
    read.filter(|_| rest.is_empty()).ok_or(WireError::Malformed)
}

fn read_opening(
    hops: Vec<Hop>,
    epochs: Vec<(&str, u64)>,
    from: u64,
    resumed: bool,
) -> Option<Opening> {
    let epochs =
        epochs.into_iter().map(|(epoch, first)| Some((Epoch::parse(epoch)?, offset(first)?)));
    let epochs = epochs.collect::<Option<Vec<_>>>()?;
    let rises = epochs.is_sorted_by_key(|(_, first)| *first);
    // A cluster that has not grown from a server has no epochs: its ids have marks.
    rises.then_some(())?;
    Some(Opening { start: FeedStart { epochs, from: offset(from)?, resumed }, hops })
}

/// `None` if an address or an offset is invalid.
fn read_floors(floors: Vec<(WireAddress<'_>, WireFloor)>) -> Option<Vec<(Address, Floor)>> {
    (floors.len() <= FLOORS_MAX).then_some(())?;
    floors.into_iter().map(|(address, floor)| Some((address.read()?, floor.read()?))).collect()
}

/// `None` if the offsets do not rise, or if an address or an offset is invalid.
fn read_chunk(chunk: WireChunk<'_>) -> Option<FeedChunk> {
    (chunk.events.len() <= EVENTS_MAX).then_some(())?;
    let events = chunk.events.into_iter().map(WireEvent::read).collect::<Option<Vec<_>>>()?;
    let next = offset(chunk.next)?;
    let offsets = events.iter().map(|event| event.offset).chain([next]);
    offsets.is_sorted_by(|earlier, later| earlier < later).then_some(())?;
    Some(FeedChunk {
        floors: read_floors(chunk.floors)?,
        others: chunk.others.read()?,
        events,
        next,
        clock: ClockState { at: time(chunk.at)?, delta_ms: chunk.delta_ms },
        marks: chunk.marks.read()?,
        node: None,
    })
}

/// The maximum number of events in a message. A feed sends at most [`EVENTS_SENT_MAX`] events in
/// one message.
const EVENTS_MAX: usize = 65_536;

/// The maximum number of floors of a chunk, in all of its messages. A store keeps a million floors
/// by default. With floors of the shortest names, a message of the maximum length would take
/// gigabytes when it is decoded.
pub(super) const FLOORS_MAX: usize = 2_000_000;

/// The maximum number of marks in a message, which is as many as a replica keeps.
const MARKS_MAX: usize = 1 << 20;

/// The latest time in a message: the end of the year 9999.
const TIME_MAX_MS: u64 = 253_402_300_799_999;

fn time(millis: u64) -> Option<Timestamp> {
    (millis <= TIME_MAX_MS).then_some(Timestamp::from_millis(millis))
}

fn offset(number: u64) -> Option<Offset> {
    (1..OFFSET_MAX).contains(&number).then_some(Offset::new(number))
}

impl From<Floor> for WireFloor {
    fn from(floor: Floor) -> Self {
        Self { offset: floor.offset.get(), at: floor.at.as_millis() }
    }
}

impl WireFloor {
    fn read(self) -> Option<Floor> {
        Some(Floor { offset: offset(self.offset)?, at: time(self.at)? })
    }
}

impl From<&Marks> for WireMarks {
    fn from(marks: &Marks) -> Self {
        let numbers = marks.marks.iter().map(|mark| mark.get()).collect();
        Self { base: marks.base, first: marks.first, marks: numbers }
    }
}

impl WireMarks {
    fn read(self) -> Option<Marks> {
        let is_within = self.base.max(self.first) < OFFSET_MAX && self.marks.len() <= MARKS_MAX;
        is_within.then_some(())?;
        let marks = self.marks.into_iter().map(Mark::new).collect();
        Some(Marks { base: self.base, first: self.first, marks })
    }
}

impl<'a> From<&'a Address> for WireAddress<'a> {
    fn from(address: &'a Address) -> Self {
        match address {
            Address::Client(client) => Self::Client(client.as_str()),
            Address::Topic(topic) => Self::Topic(topic.as_str()),
            _ => Self::Everyone,
        }
    }
}

impl WireAddress<'_> {
    fn read(self) -> Option<Address> {
        match self {
            Self::Everyone => Some(Address::Everyone),
            Self::Client(client) => ClientId::new(client).ok().map(Address::Client),
            Self::Topic(topic) => Topic::new(topic).ok().map(Address::Topic),
        }
    }
}

impl<'a> From<&'a StoredEvent> for WireEvent<'a> {
    fn from(event: &'a StoredEvent) -> Self {
        Self {
            offset: event.offset.get(),
            at: event.at.as_millis(),
            to: event.to.iter().map(WireAddress::from).collect(),
            id: event.id.as_deref(),
            finish: event.finish,
            payload: event.payload.as_deref(),
        }
    }
}

impl WireEvent<'_> {
    fn read(self) -> Option<StoredEvent> {
        Some(StoredEvent {
            offset: offset(self.offset)?,
            at: time(self.at)?,
            to: self.to.into_iter().map(WireAddress::read).collect::<Option<_>>()?,
            id: self.id.map(Box::from),
            key: None,
            fingerprint: Fingerprint::default(),
            finish: self.finish,
            payload: self.payload.map(<[u8]>::to_vec),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Address {
        Address::Topic(Topic::new(name).expect("the topic is valid"))
    }

    fn event(offset: u64, payload: Option<&[u8]>) -> StoredEvent {
        let client = Address::Client(ClientId::new("alice").expect("the client id is valid"));
        StoredEvent {
            offset: Offset::new(offset),
            at: Timestamp::from_millis(7_000),
            to: [topic("a/b"), client, Address::Everyone].into_iter().collect(),
            id: payload.map(|_| "mine".into()),
            key: None,
            fingerprint: Fingerprint::default(),
            finish: payload.is_none(),
            payload: payload.map(<[u8]>::to_vec),
        }
    }

    fn full_chunk() -> FeedChunk {
        let floor = Floor { offset: Offset::new(3), at: Timestamp::from_millis(5) };
        FeedChunk {
            floors: vec![(topic("old"), floor)],
            others: Floor::NONE,
            events: vec![event(4, Some(b"data")), event(9, None)],
            next: Offset::new(12),
            clock: ClockState { at: Timestamp::from_millis(9_000), delta_ms: -4 },
            marks: Marks { base: 1, first: 7, marks: vec![Mark::new(3), Mark::new(1 << 40)] },
            node: None,
        }
    }

    fn full_start() -> FeedStart {
        let epoch = |number, first| (Epoch::from_random(number), Offset::new(first));
        FeedStart { epochs: vec![epoch(1, 1), epoch(2, 8)], from: Offset::new(12), resumed: true }
    }

    /// The only message of a chunk. The tail is 20.
    fn only(chunk: &FeedChunk) -> Bytes {
        let messages: Vec<_> = Messages::new(chunk.clone(), Offset::new(20)).collect();
        let [message] = &messages[..] else { panic!("one message") };
        message.clone()
    }

    fn decoded(bytes: &Bytes) -> Result<Message, WireError> {
        let message = split(&mut BytesMut::from(&bytes[..]))?.expect("the message is complete");
        decode(&message)
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let (start, hops) = (full_start(), vec![Hop(7), Hop(u64::MAX)]);
        let opening = Opening { start: start.clone(), hops: hops.clone() };
        assert_eq!(decoded(&super::opening(&start, hops)), Ok(Message::Opening(opening)));
        let tail = Offset::new(20);
        assert_eq!(decoded(&only(&full_chunk())), Ok(Message::Chunk(full_chunk(), tail)));
        let hops = vec![Hop(1), Hop(2)];
        assert_eq!(decoded(&not_ready(hops.clone())), Ok(Message::NotReady(hops)));
    }

    #[test]
    fn many_floors_and_events_are_sent_in_several_messages_below_the_limit() {
        let longest = |number| topic(&format!("{number:0>256}"));
        let floor = Floor { offset: Offset::new(OFFSET_MAX - 1), at: Timestamp::from_millis(5) };
        let floors: Vec<_> = (0..150_000).map(|number| (longest(number), floor)).collect();
        let events: Vec<_> = (1..=70_000).map(|offset| event(offset, None)).collect();
        let next = Offset::new(80_000);
        let large =
            FeedChunk { floors: floors.clone(), events: events.clone(), next, ..full_chunk() };
        let (mut all_floors, mut all_events, mut until) = (Vec::new(), Vec::new(), 0);
        let mut chunks = 0;
        for message in Messages::new(large, next) {
            assert!(message.len() < MESSAGE_BYTES_MAX / 3, "{}", message.len());
            match decoded(&message).expect("a message") {
                Message::Floors(part) => all_floors.extend(part),
                Message::Chunk(chunk, tail) => {
                    let is_first = chunks == 0;
                    assert_eq!(is_first, !chunk.floors.is_empty() && !chunk.marks.marks.is_empty());
                    all_floors.extend(chunk.floors);
                    all_events.extend(chunk.events);
                    assert!(chunk.next.get() > until && tail == next);
                    until = chunk.next.get();
                    chunks += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        all_floors.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert!(all_floors == floors && all_events == events);
        assert_eq!((chunks, until), (5, next.get()));
    }

    #[test]
    fn messages_are_found_in_bytes_that_arrive_one_by_one() {
        let sent = [only(&full_chunk()), opening(&full_start(), Vec::new())].concat();
        let (mut received, mut found) = (BytesMut::new(), 0);
        for byte in sent {
            received.extend_from_slice(&[byte]);
            while let Some(message) =
                split(&mut received).expect("the lengths are within the limit")
            {
                assert!(decode(&message).is_ok());
                found += 1;
            }
        }
        assert_eq!((found, received.len()), (2, 0));
    }

    #[test]
    fn a_message_with_an_error_is_refused() {
        let too_long = (MESSAGE_BYTES_MAX as u32 + 1).to_le_bytes();
        let refused = split(&mut BytesMut::from(&too_long[..]));
        assert_eq!(refused, Err(WireError::TooLong(MESSAGE_BYTES_MAX + 1)));
        let whole = only(&full_chunk()).slice(LENGTH_BYTES..);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), Err(WireError::Malformed), "{length} bytes");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(decode(&longer), Err(WireError::Malformed));
        assert_eq!(decode(b"<html>not found</html>"), Err(WireError::Malformed));
        let newer = WireMessage::Opening {
            version: VERSION + 1,
            hops: Vec::new(),
            epochs: Vec::new(),
            from: 1,
            resumed: false,
        };
        assert_eq!(decoded(&encode(&newer)), Err(WireError::Version(VERSION + 1)));
    }

    /// The offsets of a chunk rise, and the next chunk begins after its last event. A log relies on
    /// this.
    #[test]
    fn offsets_that_do_not_rise_are_refused() {
        let mut swapped = full_chunk();
        swapped.events.swap(0, 1);
        let twice = FeedChunk { events: vec![event(4, None), event(4, None)], ..full_chunk() };
        let beyond = FeedChunk { next: Offset::new(9), ..full_chunk() };
        let huge = FeedChunk { next: Offset::new(u64::MAX), ..full_chunk() };
        for chunk in [swapped, twice, beyond, huge] {
            assert_eq!(decoded(&only(&chunk)), Err(WireError::Malformed));
        }
        let start = FeedStart { epochs: Vec::new(), ..full_start() };
        assert!(decoded(&opening(&start, Vec::new())).is_ok(), "a cluster has no epochs");
    }

    /// A message may claim that it has many events. The decoder must not reserve memory for them
    /// before it has seen them.
    #[test]
    fn a_short_message_that_claims_many_events_is_refused() {
        let mut message = postcard::to_allocvec(&WireMessage::Chunk(WireChunk {
            floors: Vec::new(),
            others: Floor::NONE.into(),
            events: Vec::new(),
            next: 1,
            tail: 1,
            at: 0,
            delta_ms: 0,
            marks: (&Marks::default()).into(),
        }))
        .expect("the message is encoded");
        // The byte after the number of floors and the shared floor is the number of events.
        let events = 1 + 1 + 2;
        assert_eq!(message[events], 0);
        message.splice(events..=events, [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(decode(&message), Err(WireError::Malformed));
    }
}
