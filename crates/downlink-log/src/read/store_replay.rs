//! Pages of the store: what memory has lost, for a reader that is behind.
//!
//! One request at a time is under way, and its answer is used up before the next is made. So a reader
//! holds one page at most.

use std::{collections::VecDeque, sync::Arc};

use crate::core::Core;
use crate::read::{Beginning, Position, Promise, Replays, Slot};
use crate::readers::ReaderState;
use crate::sequence::Decoder;
use crate::store::{Page, Range, Step, StoreError, StoreReplay, StoredEntry};
use crate::types::{Batch, Entry, EvictionNumber, Gap, GapReason, Hole, Offset, Payload};

/// Pages that one request may take without finding anything.
const EMPTY_PAGES_MAX: usize = 16;

/// The state of one reader in a log with a store.
pub(crate) struct StoreReading<P> {
    pub(crate) replays: Arc<Replays<P>>,
    pub(crate) source: Source<P>,
    /// How the store reads for it, kept from page to page.
    replay: Option<Box<dyn StoreReplay>>,
    /// Whether the store has what memory has lost.
    pub(crate) is_reachable: bool,
    /// Whether its finished topics have nothing more for it, as the store said when it began.
    pub(crate) at_end: Option<bool>,
}

/// Where a reader reads.
pub(crate) enum Source<P> {
    Memory,
    /// It is not known yet where it begins.
    Beginning(Arc<Slot<Beginning>>),
    /// A page is under way.
    Asked(Arc<Slot<Answer<P>>>),
    Page(Replayed<P>),
}

/// The answer to a request for a page.
#[derive(Debug)]
pub(crate) struct Answer<P> {
    page: Replayed<P>,
    replay: Box<dyn StoreReplay>,
}

/// What follows a cursor in the store.
#[derive(Debug)]
pub(crate) struct Replayed<P> {
    items: VecDeque<Item<P>>,
    /// Below this nothing else follows.
    next: u64,
    hole: Option<Hole>,
}

/// One event of a page.
#[derive(Debug)]
enum Item<P> {
    Entry(Entry<P>),
    /// It is kept, and cannot be read.
    Unreadable(u64),
}

impl<P> Item<P> {
    fn offset(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.offset.get(),
            Self::Unreadable(offset) => *offset,
        }
    }
}

impl<P> StoreReading<P> {
    pub(crate) fn new(replays: Arc<Replays<P>>) -> Self {
        Self { replays, source: Source::Memory, replay: None, is_reachable: true, at_end: None }
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory)
    }
}

impl<P: Payload> StoreReading<P> {
    /// Asks for a page of what follows a position.
    pub(crate) fn ask(
        &mut self,
        core: &Arc<Core<P>>,
        reader: &Arc<ReaderState>,
        wanted: impl FnOnce() -> crate::store::Wanted,
        position: &Position,
        batch: Batch,
    ) {
        let replay = self.replay.take();
        let replay = replay.unwrap_or_else(|| self.replays.reader.replay(wanted()));
        let (promise, slot) = Promise::new(Arc::clone(reader));
        let mut request = Request {
            core: Arc::clone(core),
            decoder: Arc::clone(&self.replays.decoder),
            promise,
            replay: Some(replay),
            batch,
            evicted: position.past.as_ref().and_then(|past| past.evicted),
            until: core.history.tail(),
            page: Replayed { items: VecDeque::new(), next: position.next, hole: None },
            from: position.next,
            pages: 0,
        };
        self.replays.ask(Box::new(move || request.step()));
        self.source = Source::Asked(slot);
    }

    /// Takes a page that has come.
    pub(crate) fn take_page(&mut self, answer: Answer<P>, position: &mut Position) -> Option<Gap> {
        let Answer { page, replay } = answer;
        self.replay = Some(replay);
        let from = position.next;
        if page.next <= from {
            // The store ends before what memory has lost: that is missing for good.
            self.is_reachable = false;
            self.source = Source::Memory;
            return None;
        }
        let is_new = |hole: &Hole| hole.until.get() >= from.max(position.reported_below);
        let gap = page.hole.filter(is_new).map(|hole| {
            let oldest = page.items.front().map(Item::offset);
            let gap = Gap {
                reason: position.reason,
                after: Some(Offset::new(from - 1)),
                until: Some(hole.until),
                oldest: oldest.map(Offset::new),
                next: Offset::new(oldest.unwrap_or(page.next)),
            };
            position.reported_below = position.reported_below.max(hole.until.get() + 1);
            position.next = gap.next.get();
            gap
        });
        self.source = Source::Page(page);
        gap
    }

    /// Takes events of a page, up to one that cannot be read. `None`: there is no page, or no more
    /// of it. The gap tells of an event that cannot be read.
    pub(crate) fn read_page(
        &mut self,
        position: &mut Position,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
    ) -> Option<Option<Gap>> {
        let Source::Page(page) = &mut self.source else { return None };
        let (mut bytes, mut last) = (0, None);
        while out.len() < batch.events_max.max(1) && bytes < batch.bytes_max.max(1) {
            match page.items.pop_front_if(|item| matches!(item, Item::Entry(_))) {
                Some(Item::Entry(entry)) => {
                    bytes += entry.payload.bytes();
                    last = Some(entry.offset.get());
                    out.push(entry);
                }
                _ => break,
            }
        }
        let unreadable = if out.is_empty() { page.items.pop_front() } else { None };
        let gap = unreadable.map(|item| Gap {
            reason: GapReason::Unreadable,
            after: Some(Offset::new(position.next - 1)),
            until: Some(Offset::new(item.offset())),
            oldest: page.items.front().map(|item| Offset::new(item.offset())),
            next: Offset::new(item.offset() + 1),
        });
        if let Some(gap) = &gap {
            last = gap.until.map(Offset::get);
        }
        let behind = last.map_or(position.next, |last| last + 1);
        let complete = page.items.is_empty().then_some(page.next.max(behind));
        position.advance(last, complete);
        if complete.is_some() {
            self.source = Source::Memory;
        }
        match gap {
            Some(gap) => Some(Some(gap)),
            None => (!out.is_empty()).then_some(None),
        }
    }
}

/// A request for a page, until it is answered.
struct Request<P: Payload> {
    core: Arc<Core<P>>,
    decoder: Arc<Decoder<P>>,
    promise: Promise<Answer<P>>,
    replay: Option<Box<dyn StoreReplay>>,
    batch: Batch,
    evicted: Option<EvictionNumber>,
    until: u64,
    page: Replayed<P>,
    from: u64,
    pages: usize,
}

impl<P: Payload> Request<P> {
    /// Does a step; whether it is done.
    fn step(&mut self) -> bool {
        if self.promise.is_abandoned() {
            return true;
        }
        match self.try_step() {
            Ok(false) => return false,
            Ok(true) => {
                let next = self.page.next;
                let empty = Replayed { items: VecDeque::new(), next, hole: None };
                let page = std::mem::replace(&mut self.page, empty);
                if let Some(replay) = self.replay.take() {
                    self.promise.keep(Ok(Answer { page, replay }));
                }
            }
            Err(error) => self.promise.keep(Err(error)),
        }
        true
    }

    fn try_step(&mut self) -> Result<bool, StoreError> {
        let (from, until) = (Offset::new(self.page.next), Offset::new(self.until));
        if from >= until {
            return Ok(true);
        }
        let Some(replay) = &mut self.replay else { return Ok(true) };
        let evicted = self.evicted.unwrap_or(EvictionNumber::NONE);
        let Step::Done(page) = replay.page(Range { from, until }, evicted, self.batch)? else {
            return Ok(false);
        };
        self.add(page);
        self.pages += 1;
        // Before a hole is told, it is known what follows it.
        let is_long = self.pages >= EMPTY_PAGES_MAX && self.page.hole.is_none();
        Ok(!self.page.items.is_empty() || self.page.next >= self.until || is_long)
    }

    fn add(&mut self, page: Page) {
        let hole = page.hole.filter(|hole| hole.below.get() > self.from);
        self.page.hole = match (self.page.hole, hole) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.page.next = page.next.get();
        let items = page.events.into_iter().map(|event| {
            let StoredEntry { offset, at, id, payload } = event;
            match self.decoder.decode(&self.core.ids, offset, at, id, payload) {
                Some(payload) => Item::Entry(Entry { offset, at, payload }),
                None => Item::Unreadable(offset.get()),
            }
        });
        self.page.items.extend(items);
    }
}
