//! A reader: its cursor, its seats, and its wake-up.
//!
//! A seat is the reader's entry in the list of readers of one topic or pattern.

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

/// The maximum number of looks at memory in one call of `read`. An eviction during a look causes
/// another look; two looks are rare. Without the maximum, a publisher that evicts all the time
/// could keep the reader's thread in one call.
const LOOKS_MAX: usize = 8;

/// Up to this many patterns, `open` also does the first step of the search for the first offset.
const FEW_PATTERNS: usize = 64;

/// The result of a read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Read {
    /// Events were put into the buffer. There may be more.
    Events,
    /// Events are missing before the next event. Each gap is reported once. The buffer is empty.
    Gap(Gap),
    /// There is nothing to read now.
    CaughtUp,
    /// The reader is still searching for the next events, in memory or in the store. It is woken
    /// when it should read again.
    Fetching,
    /// The reader has ended. No event will follow.
    Ended(EndReason),
}

/// Reads a log from a cursor on. A dropped reader leaves the log. A reader does not keep the
/// threads of a store running; only the handles of the log do.
///
/// Call [`read`](Self::read) until it returns [`Read::CaughtUp`] or [`Read::Fetching`]. Then call
/// [`register`](Self::register), then `read` once more, and only then wait. A wake-up carries no
/// event: it only tells the caller to read again.
pub struct Reader<P: Payload> {
    core: Arc<Core<P>>,
    /// The read side of the log's store.
    replays: Option<Arc<StoreReplays<P>>>,
    /// The part of the reader that publishers and overviews use. Its `next` is a copy of the
    /// position's `next`.
    state: Arc<ReaderState>,
    seats: Seats<P>,
    position: Position,
    /// The work to do before the reader reads memory. Most readers have none, and no reader has any
    /// once it has caught up.
    before: Option<Box<Before<P>>>,
}

/// The work to do before a reader reads memory.
enum Before<P> {
    /// The search in memory for the reader's first offset.
    Search(Box<StartSearch<P>>),
    /// The search in the store for the reader's first offset.
    Beginning(Arc<Slot<Beginning>>),
    /// The gap to report before the first event.
    Gap(Gap),
    /// A page of the store is requested and not answered yet.
    PageRequested(Arc<Slot<Replayed<P>>>),
    /// A page of the store. A used-up page is kept, because its replay reads the next page.
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
    /// Makes a reader that is already registered with its topics and patterns, and begins at
    /// `start`.
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
                    // With many patterns, `open` has already taken long, so the first `read` begins
                    // the search.
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

    /// Moves the reader to its beginning.
    fn begin_at(&mut self, beginning: Beginning) {
        let Beginning { next, gap, asked, past, at_end } = beginning;
        // A reader that begins live can miss events only because it reads too slowly.
        let reason = if asked { GapReason::Evicted } else { GapReason::Lagged };
        let reported_below = gap.and_then(|gap| gap.until).map_or(0, |until| until.get() + 1);
        let position = &mut self.position;
        *position = Position { next, reported_below, reason, past, at_end, ..*position };
        self.before = gap.map(|gap| Box::new(Before::Gap(gap)));
        self.publish_position();
    }

    /// Continues the work before the first look at memory. Returns `false` if it is not done yet.
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

    /// Ready once the first offset is known. Until then the cursor has no meaning. While this is
    /// pending, the waker is kept, and is woken when the caller should poll again. A reader with a
    /// simple start is ready at once.
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

    /// The reader's number, unique among the readers of this log.
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// The client whose inbox the reader reads.
    pub fn client(&self) -> Option<&ClientId> {
        self.state.client.as_ref()
    }

    /// The next offset to read.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.core.ids.current(), next: Offset::new(self.position.next) }
    }

    /// The id of an event that the reader has read. See [`Log::id_of`](crate::Log::id_of).
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.core.ids.id_of(offset.get())
    }

    /// Evicts events that are too old at `now`, like [`Log::expire`](crate::Log::expire).
    pub fn expire(&self, now: Timestamp) {
        self.core.settle(self.core.history.expire(now));
    }

    /// A number that is the same for readers of the same topics and patterns, and rarely the same
    /// for other readers. A server of many readers uses it to serve topics in turn.
    pub fn lane(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        Arc::as_ptr(&self.core).hash(&mut hasher);
        let topics = self.seats.named().map(|seat| Arc::as_ptr(&seat.topic).addr());
        let patterns = self.seats.patterns().iter().map(|seat| Arc::as_ptr(&seat.pattern).addr());
        topics.chain(patterns).min().hash(&mut hasher);
        // 32 bits of the hash are enough.
        hasher.finish() as u32
    }

    /// The lag if the reader's next offset is `next`: the newest offset of its topics and patterns,
    /// minus the offset before `next`.
    pub fn lag(&self, next: Offset) -> u64 {
        (self.seats.newest() + 1).saturating_sub(next.get())
    }

    /// Loads the memory that the next wake-up and read need into the processor's cache. A server of
    /// many readers calls this for the readers that it is about to poll. The returned value has no
    /// meaning.
    pub fn prefetch(&self) -> bool {
        self.state.slot.is_awake()
    }

    /// Whether all topics of the reader are finished and it has read all their events. If the store
    /// was asked when the reader began, this returns the store's answer from that time.
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

    /// Reads the next events, at most a batch, into `out`, which must be empty. Never waits.
    ///
    /// # Limits
    ///
    /// One call spends about a millisecond on skipping events of other topics, and more if events
    /// are evicted during the call. If the call does not reach the tail in this time, it wakes the
    /// reader and returns [`Read::Fetching`].
    pub fn read(&mut self, now: Timestamp, batch: Batch, out: &mut Vec<Entry<P>>) -> Read {
        // The end reason is loaded before the tail. So events that were appended before the end are
        // read before the reader ends.
        let end = self.state.slot.ended();
        if end == Some(EndReason::Disconnected) {
            return Read::Ended(EndReason::Disconnected);
        }
        self.expire(now);
        for _ in 0..LOOKS_MAX {
            let Ok(is_known) = self.prepare() else {
                // If the last handle of the log was dropped, the store is closed, and the reader
                // ends.
                let stopped = self.replays.as_ref().is_some_and(|replays| replays.is_stopped());
                let reason = if stopped { EndReason::Closed } else { EndReason::Unreadable };
                return Read::Ended(end.unwrap_or(reason));
            };
            match self.before.as_deref() {
                // A reader that must end does not wait for the store. Its client can come back and
                // continue at the same cursor.
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

    /// Reads a page of the store, or memory. Returns `None` if the caller must look again.
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

    /// Whether the log has an event, of any topic, at or above the reader's cursor.
    pub fn is_behind(&self) -> bool {
        self.position.next < self.core.history.tail()
    }

    /// Whether the reader has other work than to read new events from memory.
    fn is_elsewhere(&self) -> bool {
        self.state.slot.ended().is_some() || self.before.is_some()
    }

    /// Whether [`read_next`](Self::read_next) would surely find nothing. This does not look at the
    /// topics, so it may be false although there is nothing to read. After
    /// [`register`](Self::register), if this is true, the caller may wait without another read.
    /// Events that the caller has read and not yet used do not matter here.
    pub fn is_idle(&self) -> bool {
        !self.is_elsewhere()
            && !self.is_behind()
            && self.core.history.finishes() == self.position.finishes_seen
    }

    /// Reads a single event without a buffer, for a reader that reads few topics and keeps up.
    /// Never waits, and allocates nothing.
    ///
    /// `now` is called only if the log has new events and some event or finish mark has a deadline.
    pub fn read_next(&mut self, now: impl FnOnce() -> Timestamp) -> Next<P> {
        self.read_next_as(now, P::clone)
    }

    /// Like [`read_next`](Self::read_next), for a caller that needs only a part of the payload or
    /// another form of it. `take` makes the payload of the returned entry. While `take` runs, the
    /// topic's history is locked, so `take` must be quick and must not call the log.
    pub fn read_next_as<Q>(
        &mut self,
        now: impl FnOnce() -> Timestamp,
        take: impl Fn(&P) -> Q,
    ) -> Next<Q> {
        // The end reason is loaded before the tail. So events that were appended before the end are
        // read before the reader ends.
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

    /// The end reason, if all topics are finished and the reader has read up to their finish marks.
    fn finished(&mut self) -> Option<EndReason> {
        // Load the count before checking the topics. If a topic is finished after its check, the
        // count differs at the next call.
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

    /// Registers a waker for the next append to one of the reader's topics, or for the reader's
    /// end.
    ///
    /// The waker is woken at most once. A later registration replaces it. A reader may be woken
    /// although there is nothing to read. Calls of this function and of
    /// [`register_with`](Self::register_with) must not run at the same time.
    pub fn register(&self, waker: &Waker) {
        self.state.slot.register(waker);
    }

    /// Registers the reader with a server of many readers, which knows the reader by a key. A
    /// wake-up passes the key to the server, so no waker is needed. Returns `false` if the reader
    /// was registered before with another key or another server. In that case the caller must
    /// [`register`](Self::register) a waker.
    ///
    /// As with wakers, the last registration counts. A reader keeps its first server and key.
    #[must_use = "if this returns `false`, register a waker"]
    pub fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        self.state.slot.register_with(many, key)
    }

    /// Leaves the log now. After this, the reader gets no events and no longer counts as a reader.
    /// Dropping a reader does the same.
    pub fn leave(&mut self) {
        let (topics, patterns) = self.seats.take();
        // Every reader has a seat in everyone's topic until it leaves.
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
