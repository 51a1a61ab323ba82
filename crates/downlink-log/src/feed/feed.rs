//! One feed: its position, and the chunks that it reads.
//!
//! A feed takes new events from the backlog, which holds the newest events of all topics. If the
//! backlog no longer has the events at the feed's position, the feed reads the store. In a log
//! without a store, it reads the index and the rings instead. The index lists the kept events of
//! all topics, and the ring of a topic holds the topic's events. The store, the index and the rings
//! do not have the events that were evicted before the feed has read them. So each chunk that does
//! not come from the backlog also has the floors of all topics that have lost events. A floor is
//! the offset after the last event that a topic has evicted. The feed reads the events first and
//! the floors after them, so each event that it did not find is below one of these floors.

use std::{
    fmt,
    sync::Arc,
    task::{Poll, Waker},
};

use smallvec::SmallVec;
use thiserror::Error;

use crate::core::Core;
use crate::feed::{Scan, scan};
use crate::history::{Backlogged, Published};
use crate::store::{FeedChunk, FeedStart, Marks, Range, StoreError, StoreReader, StoredEvent};
use crate::types::{
    Address, Batch, ClockState, Cursor, Fingerprint, Floor, Offset, Payload, Timestamp,
};

/// Makes the bytes that a store keeps for a payload.
pub(crate) type ToBytes<P> = dyn Fn(&P) -> Vec<u8> + Send + Sync;

/// The maximum number of events in a chunk that does not come from the backlog. A replica, which is
/// a log that copies this log, applies a chunk under one lock, in some milliseconds. Each of these
/// chunks may list the floors of all topics, which takes about ten milliseconds for a hundred
/// thousand topics. So with much smaller chunks, a feed of a million events would take seconds
/// longer.
const CHUNK_EVENTS_MAX: usize = 4_096;

/// The number of payload bytes at which a chunk ends. The last event may go beyond it.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The maximum number of events in a chunk from the backlog, so that a chunk is made in a few
/// milliseconds.
const LIVE_EVENTS_MAX: usize = 1_024;

/// The number of rows that are copied while the index is locked, which takes some ten microseconds.
const ROWS: usize = 512;

/// A feed of a log, from [`Log::feed`](crate::Log::feed). Dropping it closes the feed.
pub struct Feed<P: Payload> {
    core: Arc<Core<P>>,
    reader: Option<Arc<dyn StoreReader>>,
    to_bytes: Arc<ToBytes<P>>,
    start: FeedStart,
    /// The backlog's generation when the feed was opened. When the backlog begins another
    /// generation, the feed ends.
    generation: u64,
    next: u64,
    /// The number of finish marks that the log had set when the feed last scanned for all marks. A
    /// finish mark says that a topic gets no more events. While the log has set no further mark,
    /// the feed need not scan again.
    finishes: u32,
}

/// A feed must read the store, or the rings of all topics, to get its next events.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the backlog no longer has the next events of the feed")]
pub struct Behind;

impl<P: Payload> fmt::Debug for Feed<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<P: Payload> Feed<P> {
    pub(crate) fn open(
        core: Arc<Core<P>>,
        reader: Option<Arc<dyn StoreReader>>,
        position: Option<Cursor>,
        to_bytes: Arc<ToBytes<P>>,
    ) -> Self {
        let sequence = core.sequencer.lock();
        let tail = core.history.tail();
        let generation = core.history.backlog.open(tail);
        drop(sequence);
        let resumed = position.and_then(|position| core.ids.locate(position, tail).ok());
        let next = resumed.unwrap_or(Offset::FIRST.get());
        let start = FeedStart {
            epochs: core.ids.all(),
            from: Offset::new(next),
            resumed: resumed.is_some(),
        };
        Self { core, reader, to_bytes, start, generation, next, finishes: 0 }
    }

    /// The first message of the feed.
    pub fn start(&self) -> &FeedStart {
        &self.start
    }

    /// The offset where the next chunk begins.
    pub fn next(&self) -> Offset {
        Offset::new(self.next)
    }

    /// The offset of the next event that the log will have.
    pub fn tail(&self) -> Offset {
        Offset::new(self.core.history.tail())
    }

    /// Ready if [`read`](Self::read) has something to return. Otherwise the waker is woken when
    /// events were appended, or when the feed has ended.
    pub fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        self.core.history.backlog.register(waker);
        let tail = self.core.history.tail();
        let is_ready = tail > self.next || matches!(self.backlogged(tail, 1), Backlogged::Ended);
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The next chunk; `None` if the feed has ended. The chunk is empty if there is nothing new.
    /// `clock` is the state of the log's clock.
    ///
    /// If the backlog no longer has the next events, the call reads many events, which takes some
    /// milliseconds, or waits for the disk. A thread that runs async tasks calls
    /// [`try_read`](Self::try_read) first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read. The feed is then at the same position as before.
    pub fn read(&mut self, clock: ClockState) -> Result<Option<FeedChunk>, StoreError> {
        let tail = self.core.history.tail();
        let chunk = match self.backlogged(tail, LIVE_EVENTS_MAX) {
            Backlogged::Ended => return Ok(None),
            Backlogged::Events(events) => self.of_backlog(events, tail),
            Backlogged::Behind => match &self.reader {
                Some(reader) => {
                    let until = Offset::new(tail);
                    let batch = Batch { events_max: CHUNK_EVENTS_MAX, bytes_max: CHUNK_BYTES_MAX };
                    reader.feed(Range { from: self.next(), until }, batch)?
                }
                None => self.of_memory(tail),
            },
        };
        Ok(Some(self.advance(chunk, clock)))
    }

    /// Like [`read`](Self::read), but only from the backlog, which takes at most some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Behind`] if the backlog no longer has the next events.
    pub fn try_read(&mut self, clock: ClockState) -> Result<Option<FeedChunk>, Behind> {
        let tail = self.core.history.tail();
        match self.backlogged(tail, LIVE_EVENTS_MAX) {
            Backlogged::Ended => Ok(None),
            Backlogged::Events(events) => {
                let chunk = self.of_backlog(events, tail);
                Ok(Some(self.advance(chunk, clock)))
            }
            Backlogged::Behind => Err(Behind),
        }
    }

    fn advance(&mut self, chunk: FeedChunk, clock: ClockState) -> FeedChunk {
        let marks = self.core.ids.marks(self.next, chunk.next.get());
        self.next = chunk.next.get();
        FeedChunk { clock, marks, ..chunk }
    }

    fn backlogged(&self, tail: u64, events_max: usize) -> Backlogged<P> {
        let limits = (events_max, CHUNK_BYTES_MAX);
        self.core.history.backlog.read(self.generation, (self.next, tail), limits)
    }

    fn of_backlog(&self, events: Vec<Published<P>>, tail: u64) -> FeedChunk {
        let next = events.last().map_or(tail, |last| last.offset + 1);
        let event = |event: Published<P>| {
            let to = event.topics.iter().map(|topic| topic.address.clone()).collect();
            let payload = event.payload.as_ref();
            self.event(event.offset, event.at, to, payload, event.finish)
        };
        chunk(events.into_iter().map(event).collect(), next)
    }

    /// Reads the index and the rings.
    fn of_memory(&mut self, tail: u64) -> FeedChunk {
        let history = &self.core.history;
        let (mut events, mut bytes, mut next) = (Vec::new(), 0, self.next);
        while next < tail && events.len() < CHUNK_EVENTS_MAX && bytes < CHUNK_BYTES_MAX {
            let rows = history.rows_from(next, ROWS);
            let is_last = rows.len() < ROWS || rows.last().is_some_and(|row| row.offset >= tail);
            for row in rows.into_iter().take_while(|row| row.offset < tail) {
                let (mut to, mut payload) = (SmallVec::new(), None);
                for topic in &row.topics {
                    if let Some(entry) = topic.ring.read().get(row.offset) {
                        to.push(topic.address.clone());
                        payload = Some(entry.payload.clone());
                    }
                }
                if let Some(payload) = payload {
                    bytes += payload.bytes();
                    events.push(self.event(row.offset, row.at, to, Some(&payload), false));
                }
                next = row.offset + 1;
                if bytes >= CHUNK_BYTES_MAX {
                    break;
                }
            }
            if is_last && bytes < CHUNK_BYTES_MAX {
                next = tail;
            }
        }
        // The number of finish marks is loaded before the marks are read. A mark that is set after
        // this load raises the number, so the next scan finds the mark.
        let finishes = history.finishes();
        if history.floor_max() <= self.next && finishes == self.finishes {
            return chunk(events, next);
        }
        let Scan { floors, others, finished } = scan(history, self.next, next);
        if next == tail {
            self.finishes = finishes;
        }
        let mut chunk = FeedChunk { floors, others, ..chunk(events, next) };
        chunk.add_finish_marks(finished);
        chunk
    }

    fn event(
        &self,
        offset: u64,
        at: Timestamp,
        to: SmallVec<[Address; 1]>,
        payload: Option<&P>,
        finish: bool,
    ) -> StoredEvent {
        StoredEvent {
            offset: Offset::new(offset),
            at,
            to,
            id: payload.and_then(|payload| payload.publisher_id()).map(Box::from),
            key: None,
            fingerprint: Fingerprint::default(),
            finish,
            payload: payload.map(|payload| (self.to_bytes)(payload)),
        }
    }
}

impl<P: Payload> Drop for Feed<P> {
    fn drop(&mut self) {
        let sequence = self.core.sequencer.lock();
        let unneeded = self.core.history.backlog.leave();
        drop(sequence);
        drop(unneeded);
    }
}

/// A chunk without floors.
fn chunk(events: Vec<StoredEvent>, next: u64) -> FeedChunk {
    FeedChunk {
        floors: Vec::new(),
        others: Floor::NONE,
        events,
        next: Offset::new(next),
        clock: ClockState::default(),
        marks: Marks::default(),
        node: None,
    }
}
