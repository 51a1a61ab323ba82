//! The tests of replicas share this code: parts of a feed, and readers. A floor is the offset below
//! which a topic's events may be missing. A replica asks its upstream one question: where does the
//! upstream's log end?

use std::task::{Poll, Waker};

use downlink_log::{
    Address, Applied, Applier, ClockState, Cursor, Epoch, Fingerprint, Floor, Follower,
    FollowerTask, Log, LogOptions, Offset, Payload, Reader, Start, StoreOptions, Stored, Timestamp,
    store::{FeedChunk, FeedStart, Marks, StoredEvent},
};

use crate::support::{ms, options, selection, topic};

/// A payload with its bytes and the id that its publisher chose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    id: Option<Box<str>>,
}

impl Payload for Text {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn publisher_id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// The content of an event that cannot be decoded.
pub(crate) const UNREADABLE: &[u8] = b"unreadable";

pub(crate) fn side() -> StoreOptions<Text> {
    let decode = |stored: Stored| {
        let Stored { publisher_id: id, payload: bytes, .. } = stored;
        (bytes != UNREADABLE).then_some(Text { bytes, id })
    };
    StoreOptions::new(decode, ClockState::default)
}

pub(crate) fn epoch(number: u64) -> Epoch {
    Epoch::from_random(number)
}

/// A replica in memory whose feed has not begun.
pub(crate) fn unfed(change: impl FnOnce(&mut LogOptions)) -> (Log<Text>, Applier<Text>) {
    let mut options = options();
    change(&mut options);
    Log::replica(options, side(), None).expect("a replica in memory needs no thread")
}

/// A replica in memory that has reached the end of its upstream, which has no events.
pub(crate) fn replica(change: impl FnOnce(&mut LogOptions)) -> (Log<Text>, Applier<Text>) {
    let (log, mut applier) = unfed(change);
    applier.begin(start(&[(1, 1)], 1, false));
    confirm(&applier, 1, 1);
    (log, applier)
}

/// The start of a feed. `epochs` has the number and the first offset of each epoch.
pub(crate) fn start(epochs: &[(u64, u64)], from: u64, resumed: bool) -> FeedStart {
    let epochs = epochs.iter().map(|&(number, first)| (epoch(number), Offset::new(first)));
    FeedStart { epochs: epochs.collect(), from: Offset::new(from), resumed }
}

pub(crate) fn floor(offset: u64) -> Floor {
    Floor { offset: Offset::new(offset), at: ms(offset) }
}

/// An event of some topics. Its time is its offset in milliseconds.
pub(crate) fn event(offset: u64, topics: &[&str]) -> StoredEvent {
    StoredEvent {
        offset: Offset::new(offset),
        at: ms(offset),
        to: topics.iter().map(|name| topic(name)).collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(offset.to_string().into_bytes()),
    }
}

/// The finish mark of a topic: it says that the topic gets no more events.
pub(crate) fn mark(offset: u64, name: &str) -> StoredEvent {
    StoredEvent { finish: true, payload: None, ..event(offset, &[name]) }
}

/// A chunk without floors.
pub(crate) fn chunk(events: impl IntoIterator<Item = StoredEvent>, next: u64) -> FeedChunk {
    FeedChunk {
        floors: Vec::new(),
        others: Floor::NONE,
        events: events.into_iter().collect(),
        next: Offset::new(next),
        clock: ClockState { at: ms(next), delta_ms: 0 },
        marks: Marks::default(),
        node: None,
    }
}

/// A chunk with the floors of some topics.
pub(crate) fn chunk_with_floors(
    floors: &[(&str, u64)],
    events: impl IntoIterator<Item = StoredEvent>,
    next: u64,
) -> FeedChunk {
    let floors = floors.iter().map(|(name, offset)| (topic(name), floor(*offset)));
    FeedChunk { floors: floors.collect(), ..chunk(events, next) }
}

pub(crate) fn apply(applier: &mut Applier<Text>, chunk: FeedChunk) {
    assert_eq!(applier.apply(chunk), Applied::Next);
}

/// The question that the follower must ask now; `None` if there is none.
pub(crate) fn asked(follower: &Follower<Text>) -> Option<u64> {
    match follower.poll_task(Waker::noop()) {
        Poll::Ready(FollowerTask::AskForEnd(question)) => Some(question),
        Poll::Ready(task) => panic!("{task:?} is not a question"),
        Poll::Pending => None,
    }
}

/// Answers the question that the follower must ask now: the upstream's end is `next`, in the epoch
/// with this number.
pub(crate) fn confirm(applier: &Applier<Text>, number: u64, next: u64) {
    let follower = applier.follower();
    let question = asked(&follower).expect("readers wait");
    follower.confirm(question, Cursor { epoch: epoch(number), next: Offset::new(next) });
}

pub(crate) fn open(log: &Log<Text>, selectors: &[&str], start: Start) -> Reader<Text> {
    log.open(ms(0), &selection(selectors), &start).expect("room for a reader")
}

/// The start after the event at an offset of the epoch with this number.
pub(crate) fn after(number: u64, offset: u64) -> Start {
    Start::After(format!("{}-{offset}", epoch(number)).into())
}

pub(crate) fn everyone() -> Address {
    Address::Everyone
}

/// Whether a reader knows where it begins.
pub(crate) fn has_begun(reader: &mut Reader<Text>) -> bool {
    for _ in 0..100 {
        if reader.poll_begun(Waker::noop()).is_ready() {
            return reader.has_begun();
        }
    }
    false
}
