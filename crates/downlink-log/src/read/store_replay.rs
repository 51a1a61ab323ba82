//! Pages of the store, for a reader whose next events are no longer in memory. A page is a bounded
//! list of events.
//!
//! A reader requests a page only after it has returned all events of the previous page. So a reader
//! holds at most one page.

use std::{collections::VecDeque, sync::Arc};

use crate::core::Core;
use crate::read::{LookResult, Position, report};
use crate::sequence::PayloadDecoder;
use crate::store::{Range, Step, StoreError, StoreReplay, StoredEntry};
use crate::types::{Batch, Entry, EvictionNumber, Gap, GapReason, Offset, Payload};

/// The maximum number of pages without an event that one request reads. After them, the reader gets
/// an empty page, and its next request continues.
const EMPTY_PAGES_MAX: usize = 16;

/// A page of the store, and the replay that reads the next page.
#[derive(Debug)]
pub(crate) struct Replayed<P> {
    /// The events in offset order. An event that is damaged or cannot be decoded has no payload.
    items: VecDeque<Entry<Option<P>>>,
    /// The offset where the next page begins. All events below it are in this page or in an earlier
    /// page.
    next: u64,
    /// The highest offset at which an event is known to be missing, if any.
    hole: Option<Offset>,
    /// Reads the pages of this reader from the store, and keeps the place where the next page
    /// begins.
    pub(crate) replay: Box<dyn StoreReplay>,
}

impl<P: Payload> Replayed<P> {
    /// Makes an empty page. The page after it begins at `next`.
    pub(crate) fn new(next: u64, replay: Box<dyn StoreReplay>) -> Self {
        Self { items: VecDeque::new(), next, hole: None, replay }
    }

    /// Takes events up to the first event without a payload. For missing events, and for an event
    /// without a payload, this reports a gap instead. Returns `None` if the page has nothing left.
    pub(crate) fn read(
        &mut self,
        position: &mut Position,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
    ) -> Option<LookResult> {
        if self.items.is_empty() && self.next <= position.next {
            return None;
        }
        let unreported = position.next.max(position.reported_below);
        if let Some(hole) = self.hole.take().map(Offset::get).filter(|hole| *hole >= unreported) {
            let oldest = self.items.front().map(|item| item.offset.get());
            return Some(LookResult::Gap(report(position, hole, oldest, self.next)));
        }
        let (mut bytes, mut last) = (0, None);
        while out.len() < batch.events_max.max(1) && bytes < batch.bytes_max.max(1) {
            let item = self.items.pop_front_if(|item| item.payload.is_some());
            let Some(Entry { offset, at, payload: Some(payload) }) = item else { break };
            bytes += payload.bytes();
            last = Some(offset.get());
            out.push(Entry { offset, at, payload });
        }
        let unreadable = if out.is_empty() { self.items.pop_front() } else { None };
        let gap = unreadable.map(|item| Gap {
            reason: GapReason::Unreadable,
            after: Some(Offset::new(position.next - 1)),
            until: Some(item.offset),
            oldest: self.items.front().map(|item| item.offset),
            next: Offset::new(item.offset.get() + 1),
        });
        last = gap.and_then(|gap| gap.until).map_or(last, |until| Some(until.get()));
        let behind = last.map_or(position.next, |last| last + 1);
        position.advance(last, self.items.is_empty().then_some(self.next.max(behind)));
        let taken = (!out.is_empty()).then_some(LookResult::Taken { caught_up: false });
        gap.map(LookResult::Gap).or(taken)
    }
}

/// A request for a page that has no answer yet.
pub(crate) struct PageRequest<P: Payload> {
    pub(crate) core: Arc<Core<P>>,
    pub(crate) decoder: Arc<PayloadDecoder<P>>,
    pub(crate) batch: Batch,
    pub(crate) evicted: EvictionNumber,
    pub(crate) until: Offset,
    pub(crate) page: Option<Replayed<P>>,
    pub(crate) pages: usize,
}

impl<P: Payload> PageRequest<P> {
    /// Does one step. Returns `None` if the request needs more steps.
    pub(crate) fn step(&mut self) -> Result<Option<Replayed<P>>, StoreError> {
        let Some(page) = &mut self.page else { return Ok(None) };
        let range = Range { from: Offset::new(page.next), until: self.until };
        let Step::Done(found) = page.replay.page(range, self.evicted, self.batch)? else {
            return Ok(None);
        };
        if found.next <= range.from {
            return Err(StoreError::Corrupt {
                reason: "a page of the store does not advance".into(),
            });
        }
        page.hole = page.hole.max(found.hole);
        page.next = found.next.get();
        page.items.extend(found.events.into_iter().map(|event| {
            let StoredEntry { offset, at, id, payload } = event;
            let payload = self.decoder.decode(&self.core.ids, offset, at, id, payload);
            Entry { offset, at, payload }
        }));
        self.pages += 1;
        // A gap names the next event. So if events are missing, the request reads on until it has
        // found the next event or has reached the end of the range.
        let is_long = self.pages >= EMPTY_PAGES_MAX && page.hole.is_none();
        let is_done = !page.items.is_empty() || found.next >= self.until || is_long;
        Ok(if is_done { self.page.take() } else { None })
    }
}
