//! A reader: a cursor, the seats of its topics and patterns, and its wake-up.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    task::{Poll, Waker},
};

use crate::core::Core;
use crate::read::{
    Beginning, LookResult, Next, PageRequest, Position, Replayed, Seats, Slot, Start, StartSearch,
    StoreReplays, StoreStartSearch, begin_known, look, read_next,
};
use crate::readers::{ReaderState, WakeBatch, WakeMany};
use crate::store::StoreError;
use crate::sync::Ordering;
use crate::types::{
    Batch, ClientId, Cursor, EndReason, Entry, EvictionNumber, Gap, GapReason, Offset, Payload,
    Timestamp,
};

/// The most looks of one read. An eviction during a look causes another one, so two are rare. The
/// bound keeps a publisher that evicts all the time from holding a thread here.
const LOOKS_MAX: usize = 8;

/// The most patterns with which `open` itself begins the search for the first offset.
const FEW_PATTERNS: usize = 64;

/// The result of a read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Read {
    /// Events were put into the buffer; there may be more.
    Events,
    /// Events are missing before the next one. Reported once for each hole; the buffer is empty.
    Gap(Gap),
    /// Nothing to read now.
    CaughtUp,
    /// The next events are still being looked for, here or in the store. The reader is woken as by
    /// an append.
    Fetching,
    /// Nothing will ever follow.
    Ended(EndReason),
}

/// Reads a log from a cursor on. Dropping it is leaving. It does not keep a log with a store
/// running; only the log's handles do.
///
/// The order of calls: [`read`](Self::read) until it says [`Read::CaughtUp`] or [`Read::Fetching`],
/// then [`register`](Self::register), then `read` once more, and only then wait. A wake-up says no
/// more than *look again*.
pub struct Reader<P: Payload> {
    core: Arc<Core<P>>,
    /// The read side of the log's store.
    replays: Option<Arc<StoreReplays<P>>>,
    /// Its `next` is the position's, for others to see.
    state: Arc<ReaderState>,
    seats: Seats<P>,
    position: Position,
    /// The work before reading memory. Rare, and `None` once the reader has caught up.
    before: Option<Box<Before<P>>>,
}

/// The work before reading memory.
enum Before<P> {
    /// The search in memory for where the reader begins, if that takes long.
    Search(Box<StartSearch<P>>),
    /// The same in the store.
    Beginning(Arc<Slot<Beginning>>),
    /// The gap that the reader begins with.
    Gap(Gap),
    /// A page of the store is under way.
    PageRequested(Arc<Slot<Replayed<P>>>),
    /// A page of the store. A used-up page stays, because it knows how to read the next one.
    Page(Replayed<P>),
}

impl<P: Payload> std::fmt::Debug for Reader<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("number", &self.state.number)
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

impl<P: Payload> Reader<P> {
    /// A reader that is on its lists, and begins as asked.
    pub(crate) fn begin(
        core: Arc<Core<P>>,
        replays: Option<Arc<StoreReplays<P>>>,
        state: Arc<ReaderState>,
        seats: Seats<P>,
        start: &Start,
    ) -> Self {
        let position = Position {
            next: core.history.tail(),
            reported_below: 0,
            reason: GapReason::Evicted,
            has_store: replays.is_some(),
            finishes_seen: u32::MAX,
            at_end: None,
            past: None,
        };
        state.note_newest(seats.newest());
        let mut reader = Self { core, replays, state, seats, position, before: None };
        reader.find_beginning(start);
        reader
    }

    fn find_beginning(&mut self, start: &Start) {
        let Some(replays) = &self.replays else {
            match StartSearch::begin(&self.core, &self.seats, start) {
                Ok(beginning) => self.begin_at(beginning),
                Err(opening) => {
                    self.before = Some(Box::new(Before::Search(opening)));
                    // Opening a reader of many patterns has taken long already.
                    if self.seats.patterns().len() <= FEW_PATTERNS {
                        let _ = self.prepare();
                    }
                }
            }
            return;
        };
        if let Some(beginning) = begin_known(&self.core, &self.seats, start) {
            return self.begin_at(beginning);
        }
        let (core, start) = (Arc::clone(&self.core), start.clone());
        let mut opening = StoreStartSearch::new(core, Arc::clone(replays), &self.seats, start);
        let slot = replays.ask(&self.state, move || opening.step());
        self.before = Some(Box::new(Before::Beginning(slot)));
    }

    /// Moves to a resolved beginning.
    fn begin_at(&mut self, beginning: Beginning) {
        let Beginning { next, gap, asked, past, at_end } = beginning;
        // A reader of live events can miss an event only while it is connected.
        let reason = if asked { GapReason::Evicted } else { GapReason::Lagged };
        let reported_below = gap.and_then(|gap| gap.until).map_or(0, |until| until.get() + 1);
        let position = &mut self.position;
        *position = Position { next, reported_below, reason, past, at_end, ..*position };
        self.before = gap.map(|gap| Box::new(Before::Gap(gap)));
        self.publish_position();
    }

    /// Goes on with the work before reading memory. `false`: it is not done yet.
    fn prepare(&mut self) -> Result<bool, StoreError> {
        match self.before.as_deref_mut() {
            Some(Before::Search(opening)) => {
                let Some(beginning) = opening.step(&self.core, &self.seats) else {
                    self.wake_itself();
                    return Ok(false);
                };
                self.begin_at(beginning);
            }
            Some(Before::Beginning(slot)) => {
                let Some(beginning) = slot.lock().take() else { return Ok(false) };
                self.before = None;
                self.begin_at(beginning?);
            }
            Some(Before::PageRequested(slot)) => {
                let Some(page) = slot.lock().take() else { return Ok(false) };
                self.before = None;
                self.before = Some(Box::new(Before::Page(page?)));
            }
            Some(Before::Gap(_) | Before::Page(_)) | None => {}
        }
        Ok(true)
    }

    fn publish_position(&self) {
        self.state.next.store(self.position.next, Ordering::Relaxed);
    }

    /// Ready once the first offset is known. Until then the cursor means nothing, and the waker is
    /// kept; it is woken then. A reader with a simple start begins at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store could not be read.
    pub fn poll_begun(&mut self, waker: &Waker) -> Poll<Result<(), StoreError>> {
        if !matches!(self.before.as_deref(), Some(Before::Search(_) | Before::Beginning(_))) {
            return Poll::Ready(Ok(()));
        }
        self.state.slot.register(waker);
        match self.prepare() {
            Ok(false) => Poll::Pending,
            Ok(true) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Unique among the readers of this log.
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// The client whose inbox it reads.
    pub fn client(&self) -> Option<&ClientId> {
        self.state.client.as_ref()
    }

    /// The next offset to read.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.core.ids.current(), next: Offset::new(self.position.next) }
    }

    /// The id of an event that it has read, as [`Log::id_of`](crate::Log::id_of) gives it.
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.core.ids.id_of(offset.get())
    }

    /// Evicts events that are too old now, as [`Log::expire`](crate::Log::expire) does.
    pub fn expire(&self, now: Timestamp) {
        self.core.settle(self.core.history.expire(now));
    }

    /// A number that readers of the same topics share, and other readers rarely do. A server of
    /// many readers uses it to let topics take turns.
    pub fn lane(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        Arc::as_ptr(&self.core).hash(&mut hasher);
        let topics = self.seats.named().map(|seat| Arc::as_ptr(&seat.topic).addr());
        let patterns = self.seats.patterns().iter().map(|seat| Arc::as_ptr(&seat.pattern).addr());
        topics.chain(patterns).min().hash(&mut hasher);
        // Half of the hash is enough.
        hasher.finish() as u32
    }

    /// The lag of a reader at `next`: the newest offset of its topics less the last one before
    /// `next`.
    pub fn lag(&self, next: Offset) -> u64 {
        (self.seats.newest() + 1).saturating_sub(next.get())
    }

    /// Fetches the memory of the next wake-up and read into the processor's cache. For a server of
    /// many readers that is about to poll some. The result means nothing.
    pub fn prefetch(&self) -> bool {
        self.state.slot.is_awake()
    }

    /// Whether all its topics are finished and it has read all of them.
    pub fn is_at_end(&self) -> bool {
        if let Some(at_end) = self.position.at_end {
            return at_end;
        }
        self.before.is_none()
            && self.seats.all_finished()
            && self.position.hole(&self.seats).is_none()
            && self
                .seats
                .topics
                .iter()
                .all(|seat| seat.topic.ring.read().next_from(self.position.next).is_none())
    }

    /// Reads what there is, at most a batch, into an empty buffer. Never waits.
    ///
    /// # Limits
    ///
    /// One call looks at about a millisecond's worth of other topics' events, and at some more if
    /// events are evicted meanwhile. If there is more to look at, it says [`Read::Fetching`] and wakes
    /// the reader.
    pub fn read(&mut self, now: Timestamp, batch: Batch, out: &mut Vec<Entry<P>>) -> Read {
        // The end is loaded before the tail, so events appended before the end are read before it.
        let end = self.state.slot.ended();
        if end == Some(EndReason::Disconnected) {
            return Read::Ended(EndReason::Disconnected);
        }
        self.expire(now);
        for _ in 0..LOOKS_MAX {
            let Ok(is_known) = self.prepare() else {
                // Without a log's handle the store is closed, and the reader is about to be.
                let stopped = self.replays.as_ref().is_some_and(|replays| replays.is_stopped());
                let reason = if stopped { EndReason::Closed } else { EndReason::Unreadable };
                return Read::Ended(end.unwrap_or(reason));
            };
            match self.before.as_deref() {
                // An ending reader does not wait for the store: a client that comes back goes on
                // here.
                Some(Before::Beginning(_) | Before::PageRequested(_)) if !is_known => {
                    return end.map_or(Read::Fetching, Read::Ended);
                }
                Some(&Before::Gap(gap)) => {
                    self.before = None;
                    return Read::Gap(gap);
                }
                _ if !is_known => return Read::Fetching,
                _ => {}
            }
            let found = self.look(batch, out, end);
            self.publish_position();
            if let Some(read) = found {
                return read;
            }
        }
        self.wake_itself();
        Read::Fetching
    }

    /// Looks at a page of the store, or at memory. `None`: look again.
    fn look(
        &mut self,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
        end: Option<EndReason>,
    ) -> Option<Read> {
        let of_page = match self.before.as_deref_mut() {
            Some(Before::Page(page)) => page.read(&mut self.position, batch, out),
            _ => None,
        };
        let position = &mut self.position;
        let look = || look(&self.core.history, &self.seats, position, batch, out);
        match of_page.unwrap_or_else(look) {
            LookResult::Gap(gap) => Some(Read::Gap(gap)),
            LookResult::Taken { .. } if !out.is_empty() => Some(Read::Events),
            // An eviction interrupted the look.
            LookResult::Taken { caught_up: false } => None,
            LookResult::Taken { caught_up: true } => {
                self.before = None;
                let end = end.or_else(|| self.finished());
                Some(end.map_or(Read::CaughtUp, Read::Ended))
            }
            LookResult::More => {
                self.wake_itself();
                Some(Read::Fetching)
            }
            LookResult::Behind => {
                self.ask(batch);
                None
            }
        }
    }

    /// Asks the store for the next page.
    fn ask(&mut self, batch: Batch) {
        let Some(replays) = &self.replays else { return };
        let replay = match self.before.take().map(|before| *before) {
            Some(Before::Page(page)) => page.replay,
            _ => replays.reader.replay(self.seats.wanted()),
        };
        let evicted = self.position.past.as_ref().and_then(|past| past.evicted);
        let mut request = PageRequest {
            core: Arc::clone(&self.core),
            decoder: Arc::clone(&replays.decoder),
            batch,
            evicted: evicted.unwrap_or(EvictionNumber::NONE),
            until: Offset::new(self.core.history.tail()),
            page: Some(Replayed::new(self.position.next, replay)),
            pages: 0,
        };
        let slot = replays.ask(&self.state, move || request.step());
        self.before = Some(Box::new(Before::PageRequested(slot)));
    }

    fn wake_itself(&self) {
        let mut batch = WakeBatch::default();
        self.state.slot.take(&mut batch);
        batch.wake();
    }

    /// Whether an event was appended, to any topic, that the reader has not passed.
    pub fn is_behind(&self) -> bool {
        self.position.next < self.core.history.tail()
    }

    /// Whether it has other work than reading new events from memory.
    fn is_elsewhere(&self) -> bool {
        self.state.slot.ended().is_some() || self.before.is_some()
    }

    /// Whether a [`read_next`](Self::read_next) would find nothing, as far as can be seen without a
    /// look at the topics. After [`register`](Self::register), a reader that keeps up may wait if
    /// this is true, instead of reading once more. It does not count events that the caller has
    /// read and not used.
    pub fn is_idle(&self) -> bool {
        !self.is_elsewhere()
            && !self.is_behind()
            && self.core.history.finishes() == self.position.finishes_seen
    }

    /// Reads the next event by itself, for a reader of few topics that keeps up. Never waits, and
    /// allocates nothing.
    ///
    /// `now` is called only if there is an event to read and some event or mark has a deadline.
    pub fn read_next(&mut self, now: impl FnOnce() -> Timestamp) -> Next<P> {
        self.read_next_as(now, P::clone)
    }

    /// The same for a caller that needs only a part of the payload, or another form of it: the
    /// entry's payload is what `take` makes of it. The topic's history is locked meanwhile, so
    /// `take` must be quick and must not call the log.
    pub fn read_next_as<Q>(
        &mut self,
        now: impl FnOnce() -> Timestamp,
        take: impl Fn(&P) -> Q,
    ) -> Next<Q> {
        // The end is loaded before the tail, so events appended before the end are read before it.
        if self.is_elsewhere() {
            return Next::Other;
        }
        if self.is_behind() {
            self.core.settle(self.core.history.expire_by(now));
            let found = read_next(&self.core.history, &self.seats, &mut self.position, take);
            self.publish_position();
            if !matches!(found, Next::CaughtUp) {
                return found;
            }
        }
        self.position.reason = GapReason::Lagged;
        if self.finished().is_some() { Next::Other } else { Next::CaughtUp }
    }

    /// The end, if all topics are finished and read up to their marks.
    fn finished(&mut self) -> Option<EndReason> {
        // Loaded before the look: a finish that the look misses changes the count after this.
        let finishes = self.core.history.finishes();
        if finishes == self.position.finishes_seen {
            return None;
        }
        if !self.seats.all_finished() {
            self.position.finishes_seen = finishes;
            return None;
        }
        let next = self.position.next;
        let is_read = self
            .seats
            .topics
            .iter()
            .all(|seat| seat.topic.finished().is_none_or(|offset| offset < next));
        is_read.then_some(EndReason::Finished)
    }

    /// Registers a waker for the next append to one of its topics, or its end.
    ///
    /// It is used once; a later one replaces it. A reader may be woken for nothing. Registrations,
    /// in this or the other way, must not run at the same time.
    pub fn register(&self, waker: &Waker) {
        self.state.slot.register(waker);
    }

    /// The same for a server of many readers that knows this one by a key. A wake-up passes the key
    /// to the server, so no waker is needed. `false` if the reader was registered under another key
    /// before, or at another server; then the caller [`register`](Self::register)s a waker.
    ///
    /// As with wakers, the last registration counts. The reader keeps its first server.
    #[must_use = "if it is refused, register a waker"]
    pub fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        self.state.slot.register_with(many, key)
    }

    /// Leaves now. The reader reads nothing more and no longer counts. Dropping it does the same.
    pub fn leave(&mut self) {
        let (topics, patterns) = self.seats.take();
        // Every reader has a seat, that of everyone, until it leaves.
        if !topics.is_empty() {
            let history = &self.core.history;
            if !patterns.is_empty() {
                history.patterns.leave(&patterns);
            }
            history.topics.leave(topics, |address, lost| history.patterns.note_lost(address, lost));
        }
    }
}

impl<P: Payload> Drop for Reader<P> {
    fn drop(&mut self) {
        self.leave();
    }
}
