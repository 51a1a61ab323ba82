//! A reader reads the events of its topics and patterns, beginning at its cursor. The cursor is the
//! next offset to read. The reader is woken when there are new events.
//!
//! A replica is a log that copies another log, its upstream. A seat is the reader's entry in the
//! list of readers of one topic or pattern. A look is one attempt to read events in memory.

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
use crate::readers::{ReaderOverview, ReaderState, WakeBatch, WakeMany};
use crate::store::StoreError;
use crate::sync::Ordering;
use crate::types::{
    Batch, ClientId, Cursor, EndReason, Entry, EvictionNumber, Gap, GapReason, Offset, Payload,
    Selection, Timestamp, TopicSelector,
};

/// The maximum number of looks in one call of `read`. If an event is evicted during a look, another
/// look is needed. A second look is rare. But publishers may cause evictions all the time, and
/// without this limit, one call of `read` could then go on forever.
const LOOKS_MAX: usize = 8;

/// If a reader has at most this many patterns, `open` also does the first step of the search for
/// the offset where the reader begins.
const FEW_PATTERNS: usize = 64;

/// The result of a read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub enum Read {
    /// Events were put into the buffer. There may be more.
    Events,
    /// Events are missing before the next event. Each gap is reported once. No event was put into
    /// the buffer.
    Gap(Gap),
    /// There is nothing to read now.
    CaughtUp,
    /// The reader is still searching for the next events, in memory or in the store. A registered
    /// waker is woken when the caller should read again.
    Fetching,
    /// The reader has ended. No event will follow.
    Ended(EndReason),
}

/// Reads a log, beginning at a cursor. Dropping a reader removes it from the log. The threads of a
/// store end when the last handle of the log is dropped, even if there are still readers.
///
/// Call [`read`](Self::read) until it returns [`Read::CaughtUp`] or [`Read::Fetching`]. Then call
/// [`register`](Self::register), and call `read` once more, because an event may have come before
/// the registration. If `read` returns [`Read::CaughtUp`] or [`Read::Fetching`] again, wait. A
/// wake-up carries no event: it only tells the caller to read again.
pub struct Reader<P: Payload> {
    core: Arc<Core<P>>,
    /// The read side of the log's store.
    replays: Option<Arc<StoreReplays<P>>>,
    /// The part of the reader that publishers and overviews use. Its field `next` is a copy of
    /// `position.next`.
    state: Arc<ReaderState>,
    seats: Seats<P>,
    position: Position,
    /// The task that the reader must do before it reads memory. `None` for most readers, and for
    /// every reader that has caught up.
    before: Option<Box<Before<P>>>,
}

/// The start that a reader of a replica asked for. The reader keeps it while the replica may know
/// too little to find the offset of this start. `None` in a log that is not a replica. This value
/// is a part of the task in `before`, because a field of the reader would cost every idle reader
/// eight bytes.
type Unconfirmed = Option<Box<Start>>;

/// A task that a reader must do before it reads memory.
enum Before<P> {
    /// Continue the search in memory for the offset where the reader begins.
    Search(Box<StartSearch<P>>, Unconfirmed),
    /// Wait until the store's threads have found the offset where the reader begins.
    Beginning(Arc<Slot<Beginning>>, Unconfirmed),
    /// Wait for the answer to the question with this number, and then begin at this start. A
    /// replica asks where the log of its upstream ends. The wait is over when the replica has
    /// reached this end.
    Confirmation(u64, Box<Start>),
    /// Report this gap before the first event.
    Gap(Gap),
    /// Wait for a page of events that the store's threads are reading.
    PageRequested(Arc<Slot<Replayed<P>>>),
    /// Return the events of this page. A page without further events is kept, because it holds the
    /// replay that reads the next page.
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
        if reader.core.confirmations.is_some() {
            reader.begin_in_replica(start);
        } else {
            reader.find_beginning(start, None);
        }
        reader
    }

    /// Begins in a replica. While the replica is not complete, the reader waits. Once the replica
    /// is complete, the reader waits only before a gap that may be a mistake: the replica may not
    /// know the reader's id yet.
    #[cold]
    fn begin_in_replica(&mut self, start: &Start) {
        let Some(confirmations) = &self.core.confirmations else { return };
        let is_complete = confirmations.is_complete();
        let wanted = Box::new(start.clone());
        if is_complete {
            self.find_beginning(start, Some(wanted));
        } else {
            self.await_confirmation(wanted);
        }
    }

    fn await_confirmation(&mut self, wanted: Box<Start>) {
        if let Some(confirmations) = &self.core.confirmations {
            let question = confirmations.wait(&self.state);
            self.before = Some(Box::new(Before::Confirmation(question, wanted)));
        }
    }

    fn find_beginning(&mut self, start: &Start, unconfirmed: Unconfirmed) {
        let Some(replays) = &self.replays else {
            match StartSearch::begin(&self.core, &self.seats, start) {
                Ok(beginning) => self.begin_at(beginning, unconfirmed),
                Err(opening) => {
                    self.before = Some(Box::new(Before::Search(opening, unconfirmed)));
                    // With many patterns, `open` has already taken a long time. So `open` does no
                    // step of the search, and the first call of `poll_begun` or `read` begins it.
                    if self.seats.patterns().len() <= FEW_PATTERNS {
                        let _ = self.prepare();
                    }
                }
            }
            return;
        };
        if let Some(beginning) = begin_known(&self.core, &self.seats, start) {
            return self.begin_at(beginning, unconfirmed);
        }
        let (core, start) = (Arc::clone(&self.core), start.clone());
        let mut opening = StoreStartSearch::new(core, Arc::clone(replays), &self.seats, start);
        let slot = replays.ask(&self.state, move || opening.step());
        self.before = Some(Box::new(Before::Beginning(slot, unconfirmed)));
    }

    /// Moves the reader to the offset where it begins.
    fn begin_at(&mut self, beginning: Beginning, unconfirmed: Unconfirmed) {
        if let Some(wanted) = unconfirmed
            && beginning.gap.is_some_and(|gap| gap.reason.may_be_unconfirmed())
        {
            return self.await_confirmation(wanted);
        }
        let Beginning { next, mut gap, asked, past, at_end } = beginning;
        // A replica that does not have the whole history cannot know whether there was an event
        // with this id.
        if let Some(gap) = gap.as_mut().filter(|gap| gap.reason == GapReason::UnknownId)
            && self.core.ids.is_partial()
        {
            gap.reason = GapReason::Evicted;
        }
        // A reader that requested no old events can miss events only because it reads too slowly.
        let reason = if asked { GapReason::Evicted } else { GapReason::Lagged };
        let reported_below = gap.and_then(|gap| gap.until).map_or(0, |until| until.get() + 1);
        let position = &mut self.position;
        *position = Position { next, reported_below, reason, past, at_end, ..*position };
        self.before = gap.map(|gap| Box::new(Before::Gap(gap)));
        self.publish_position();
    }

    /// Continues the task in `before`. Returns `false` if the reader cannot go on yet, because a
    /// search is not finished or the store has not answered.
    fn prepare(&mut self) -> Result<bool, StoreError> {
        match self.before.as_deref_mut() {
            Some(Before::Search(opening, unconfirmed)) => {
                let Some(beginning) = opening.step(&self.core, &self.seats) else {
                    self.wake_itself();
                    return Ok(false);
                };
                let unconfirmed = unconfirmed.take();
                self.begin_at(beginning, unconfirmed);
                return Ok(self.has_begun() || self.look_again());
            }
            Some(Before::Beginning(slot, unconfirmed)) => {
                let Some(beginning) = slot.lock().take() else { return Ok(false) };
                let unconfirmed = unconfirmed.take();
                // If the search of a replica's reader has failed, the task stays in `before`. The
                // reader then has not begun, so its client gets no id.
                if beginning.is_ok() || self.core.confirmations.is_none() {
                    self.before = None;
                }
                self.begin_at(beginning?, unconfirmed);
                return Ok(self.has_begun() || self.look_again());
            }
            Some(Before::Confirmation(question, wanted)) => {
                let confirmations = self.core.confirmations.as_ref();
                if !confirmations.is_some_and(|known| known.is_confirmed(*question)) {
                    return Ok(false);
                }
                // The replica now knows at least as much as the upstream knew after this reader was
                // opened. So the result of this search is final.
                let wanted = std::mem::replace(wanted, Box::new(Start::Live));
                self.before = None;
                self.find_beginning(&wanted, None);
                return Ok(self.has_begun() || self.look_again());
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

    /// Whether the reader knows the offset where it begins.
    pub fn has_begun(&self) -> bool {
        !matches!(
            self.before.as_deref(),
            Some(Before::Search(..) | Before::Beginning(..) | Before::Confirmation(..))
        )
    }

    /// Makes the caller poll again. The task in `before` has changed, and the result that the new
    /// task waits for may already be there. Returns `false`.
    fn look_again(&self) -> bool {
        self.wake_itself();
        false
    }

    fn publish_position(&self) {
        self.state.next.store(self.position.next, Ordering::Relaxed);
    }

    /// Ready once the reader knows the offset where it begins. Until then, [`cursor`](Self::cursor)
    /// has no meaning. While this is pending, the reader keeps the waker, and the log wakes it when
    /// the caller should poll again. A reader that begins at the end of the log is usually ready at
    /// once.
    ///
    /// A reader of a [replica](crate::Log::replica) may be told to end before it has begun. This
    /// call is then ready, and [`has_begun`](Self::has_begun) is false. The client must not get the
    /// cursor as an id. It should connect again with the id that it has.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store could not be read.
    pub fn poll_begun(&mut self, waker: &Waker) -> Poll<Result<(), StoreError>> {
        if self.has_begun() {
            return Poll::Ready(Ok(()));
        }
        self.state.slot.register(waker);
        match self.prepare() {
            // A replica that begins again tells its readers to end, and then closes its cache.
            Ok(false) | Err(_)
                if self.core.confirmations.is_some() && self.told_to_end().is_some() =>
            {
                Poll::Ready(Ok(()))
            }
            Ok(false) => Poll::Pending,
            Ok(true) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Why the reader was told to end; `None` if it was not. It may still have events to read.
    pub fn told_to_end(&self) -> Option<EndReason> {
        self.state.slot.ended()
    }

    /// The reader's number, unique among the readers of this log.
    pub fn number(&self) -> u64 {
        self.state.number
    }

    /// Gives the reader two numbers for overviews, such as a number that stands for the address of
    /// a peer. The log does not use them.
    pub fn set_tag(&self, tag: [u64; 2]) {
        self.state.set_tag(tag);
    }

    /// Adds to the events and bytes that overviews show for the reader. The log does not know the
    /// size of a payload on its way to a client, so the program counts them.
    pub fn note_read(&mut self, events: usize, bytes: usize) {
        self.state.note_read(events, bytes);
    }

    /// An overview of this reader. Its age is the time from the opening of the reader to `now`.
    pub fn overview(&self, now: Timestamp) -> ReaderOverview {
        self.state.overview(now)
    }

    /// The topics, the patterns and the client that the reader was opened with. A topic that was
    /// named twice appears once.
    pub fn selection(&self) -> Selection {
        let topics = self.seats.named().filter_map(|seat| seat.topic.address.topic());
        let topics = topics.map(|topic| TopicSelector::from(topic.clone()));
        let patterns = self.seats.patterns().iter().map(|seat| seat.pattern.selector.clone());
        Selection { selectors: topics.chain(patterns).collect(), client: self.client().cloned() }
    }

    /// The client whose inbox the reader reads.
    pub fn client(&self) -> Option<&ClientId> {
        self.state.client.as_ref()
    }

    /// The next offset to read.
    pub fn cursor(&self) -> Cursor {
        self.core.ids.cursor(self.position.next)
    }

    /// The cursor that this reader would have if `next` were its next offset. In the log of a
    /// cluster, an id has a mark, which belongs to a range of offsets. So the ids of two cursors of
    /// one reader may have different marks.
    pub fn cursor_at(&self, next: Offset) -> Cursor {
        self.core.ids.cursor(next.get())
    }

    /// The id of the event at an offset, as a cursor. See [`Log::id_of`](crate::Log::id_of).
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.core.ids.id_of(offset.get())
    }

    /// Evicts events that are too old at `now`, like [`Log::expire`](crate::Log::expire).
    pub fn expire(&self, now: Timestamp) {
        self.core.settle(self.core.history.expire(now));
    }

    /// A number that is equal for readers of the same topics and patterns. It may be equal for
    /// readers that have one topic or pattern in common, and is rarely equal for other readers. A
    /// server of many readers can use the number to alternate between readers of different topics.
    /// Then a busy topic does not delay the readers of other topics.
    pub fn lane(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        Arc::as_ptr(&self.core).hash(&mut hasher);
        let topics = self.seats.named().map(|seat| Arc::as_ptr(&seat.topic).addr());
        let patterns = self.seats.patterns().iter().map(|seat| Arc::as_ptr(&seat.pattern).addr());
        topics.chain(patterns).min().hash(&mut hasher);
        // 32 bits of the hash are enough.
        hasher.finish() as u32
    }

    /// The lag of the reader, if the next offset that it reads is `next`. The lag is the newest
    /// offset of the reader's topics and patterns, minus the offset before `next`.
    pub fn lag(&self, next: Offset) -> u64 {
        (self.seats.newest() + 1).saturating_sub(next.get())
    }

    /// Loads the data for the next wake-up and the next read into the processor's cache. A server
    /// of many readers calls this for the readers that it is about to poll. The returned value has
    /// no meaning.
    pub fn prefetch(&self) -> bool {
        self.state.slot.is_awake()
    }

    /// Whether all topics of the reader are finished and the reader has read all their events. If a
    /// search in the store found the reader's beginning, the result is from the time of that
    /// search.
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

    /// Reads the next events into `out`, within the limits of `batch`. `out` must be empty. The
    /// call never waits.
    ///
    /// # Limits
    ///
    /// A reader of patterns may have to skip many events of other topics. One call skips events for
    /// about a millisecond, or longer if events are evicted during the call. If the call has then
    /// found no event and has not reached the end of the log, it wakes the reader and returns
    /// [`Read::Fetching`].
    pub fn read(&mut self, now: Timestamp, batch: Batch, out: &mut Vec<Entry<P>>) -> Read {
        // The end reason is loaded before the tail (the end of the log). So the reader reads all
        // events that were appended before the end reason was set.
        let end = self.state.slot.ended();
        if end == Some(EndReason::Disconnected) {
            return Read::Ended(EndReason::Disconnected);
        }
        self.expire(now);
        for _ in 0..LOOKS_MAX {
            let Ok(is_known) = self.prepare() else {
                // The store could not be read. If the reason is that the last handle of the log was
                // dropped, the log counts as closed.
                let stopped = self.replays.as_ref().is_some_and(|replays| replays.is_stopped());
                let reason = if stopped { EndReason::Closed } else { EndReason::Unreadable };
                // A replica that begins again tells its readers to end, and then stops reading.
                let end = end.or_else(|| self.state.slot.ended());
                return Read::Ended(end.unwrap_or(reason));
            };
            match self.before.as_deref() {
                // A reader that must end does not wait for the store. Its client can open a new
                // reader and continue at the same cursor.
                Some(
                    Before::Beginning(..) | Before::PageRequested(_) | Before::Confirmation(..),
                ) if !is_known => {
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

    /// Takes events from the current page of the store, or from memory if there is no page. Returns
    /// `None` if the caller must call this again.
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
            LookResult::Gap(gap) => Some(Read::Gap(self.with_reason(gap))),
            LookResult::Taken { .. } if !out.is_empty() => Some(Read::Events),
            // The look took no event, because the next event was evicted during the look.
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

    /// A replica cannot keep an event in memory that it cannot decode. A gap that ends with such an
    /// event gets the reason [`GapReason::Unreadable`].
    fn with_reason(&self, gap: Gap) -> Gap {
        let is_unreadable = |until: Offset| self.core.history.unreadable.contains(until.get());
        if self.core.confirmations.is_some() && gap.until.is_some_and(is_unreadable) {
            return Gap { reason: GapReason::Unreadable, ..gap };
        }
        gap
    }

    /// Requests the next page from the store.
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

    /// Whether the log has an event at or above the reader's cursor. The event may belong to a
    /// topic that the reader does not read.
    pub fn is_behind(&self) -> bool {
        self.position.next < self.core.history.tail()
    }

    /// Whether the reader must do something other than read new events in memory: end, search,
    /// report a gap, or read from the store.
    fn is_elsewhere(&self) -> bool {
        self.state.slot.ended().is_some() || self.before.is_some()
    }

    /// Whether [`read_next`](Self::read_next) would certainly find nothing. If the result is
    /// `false`, there may still be nothing to read, because this call does not check the reader's
    /// topics. If the result is `true` after [`register`](Self::register), the caller may wait
    /// without another read. The result says nothing about events that earlier reads have returned.
    /// The caller may still have to use them.
    pub fn is_idle(&self) -> bool {
        !self.is_elsewhere()
            && !self.is_behind()
            && self.core.history.finishes() == self.position.finishes_seen
    }

    /// Reads a single event without a buffer, for a reader that reads few topics and keeps up. The
    /// call never waits and allocates no memory.
    ///
    /// `now` must return the log time. It is called only if the log has new events, and also has
    /// something that will become too old: an event with a maximum age, or the mark of a finished
    /// topic.
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
        // The end reason is loaded before the tail (the end of the log). So the reader reads all
        // events that were appended before the end reason was set.
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

    /// [`EndReason::Finished`], if all topics are finished and the reader has read everything up to
    /// the offsets at which they were finished.
    fn finished(&mut self) -> Option<EndReason> {
        // The count of finish marks is loaded before the topics are checked. If a topic is finished
        // after its check, the next call finds a higher count and checks the topics again.
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

    /// Registers a waker. It is woken when an event is appended to one of the reader's topics, or
    /// when the reader must end.
    ///
    /// The waker is woken at most once. It may be woken although there is nothing to read. A later
    /// registration replaces this one. Calls of this function and of
    /// [`register_with`](Self::register_with) must not run at the same time.
    pub fn register(&self, waker: &Waker) {
        self.state.slot.register(waker);
    }

    /// Registers the reader with a server of many readers, which knows the reader by `key`. A
    /// wake-up passes the key to the server, so no waker is needed. Returns `false` if the reader
    /// was registered before with another key or another server. In that case the caller must
    /// [`register`](Self::register) a waker.
    ///
    /// Only the last registration is used, whether it was with a server or with a waker. After a
    /// registration with a server, the reader can never be registered with another server or
    /// another key.
    #[must_use = "if this returns `false`, register a waker"]
    pub fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        self.state.slot.register_with(many, key)
    }

    /// Leaves the log now. After this, the reader gets no events and no longer counts as a reader.
    /// Dropping a reader does the same.
    pub fn leave(&mut self) {
        if let (Some(confirmations), false) = (&self.core.confirmations, self.has_begun()) {
            confirmations.leave(&self.state);
        }
        let (topics, patterns) = self.seats.take();
        // Every reader reads the topic of the events for everyone. So a reader has at least one
        // seat in a topic until it leaves. A reader without such a seat has already left.
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
