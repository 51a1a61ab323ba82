//! The part of a reader that is about the store: where it begins, and pages of what the rings have lost.
//!
//! One request at a time is under way, and its answer is used up before the next is made: what a
//! reader holds is one page at most.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::{
    log::{Payload, Shared},
    merge::{Batch, Entry, Gap, GapReason, Read},
    offset::Offset,
    reader::Reader,
    replay::{Item, Replayed, Slot, wanted},
    start::Beginning,
    store::StoreError,
    sync::Ordering,
    watcher::Watcher,
};

/// What a reader is about with the store.
pub(crate) struct OverStore<P> {
    source: Source<P>,
    /// Whether the store has what the rings have lost.
    pub(crate) reachable: bool,
    /// What the store has said of its end when it began.
    pub(crate) at_end: Option<bool>,
}

/// Where a reader reads.
enum Source<P> {
    Rings,
    /// It is not known yet where it begins.
    Beginning(Arc<Slot<Beginning>>),
    /// A page is under way.
    Asked(Arc<Slot<Replayed<P>>>),
    Page(Replayed<P>),
}

impl<P> OverStore<P> {
    pub(crate) fn rings() -> Self {
        Self { source: Source::Rings, reachable: true, at_end: None }
    }

    pub(crate) fn is_at_rings(&self) -> bool {
        matches!(self.source, Source::Rings)
    }
}

impl<P: Payload> Reader<P> {
    /// A reader that begins where the store will say.
    pub(crate) fn to_begin(
        log: Arc<Shared<P>>,
        watcher: Arc<Watcher<P>>,
        slot: Arc<Slot<Beginning>>,
    ) -> Self {
        let tail = log.tail();
        let mut reader = Self::new(log, watcher, Beginning::at(tail));
        if let Some(over) = &mut reader.over {
            over.source = Source::Beginning(slot);
        }
        reader
    }

    /// Whether it is known where the reader begins; until then its cursor means nothing, and the
    /// waker is kept and woken then. Without a store it is known at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store could not be read.
    pub fn poll_begun(&mut self, waker: &Waker) -> Poll<Result<(), StoreError>> {
        let begins = |over: &OverStore<P>| matches!(over.source, Source::Beginning(_));
        if !self.over.as_deref().is_some_and(begins) {
            return Poll::Ready(Ok(()));
        }
        self.watcher.wake.register(waker);
        match self.take_answer() {
            Ok(false) => Poll::Pending,
            Ok(true) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes what the store has said. `false`: that is still to come.
    pub(crate) fn take_answer(&mut self) -> Result<bool, StoreError> {
        let Some(over) = &mut self.over else { return Ok(true) };
        match &over.source {
            Source::Beginning(slot) => {
                let Some(beginning) = slot.take() else { return Ok(false) };
                over.source = Source::Rings;
                self.begin(beginning?);
            }
            Source::Asked(slot) => {
                let Some(page) = slot.take() else { return Ok(false) };
                over.source = Source::Rings;
                self.take_page(page?);
            }
            Source::Rings | Source::Page(_) => {}
        }
        Ok(true)
    }

    fn take_page(&mut self, page: Replayed<P>) {
        let from = self.next();
        if page.next > from && page.floor > from.max(self.told) {
            let oldest = page.items.front().map(Item::offset);
            let gap = Gap {
                reason: self.reason,
                after: Some(Offset::new(from - 1)),
                until: Some(Offset::new(page.floor - 1)),
                oldest: oldest.map(Offset::new),
                next: Offset::new(oldest.unwrap_or(page.next)),
            };
            self.told = page.floor;
            self.watcher.next.store(gap.next.get(), Ordering::Relaxed);
            self.gap = Some(Box::new(gap));
        }
        let Some(over) = &mut self.over else { return };
        if page.next > from {
            over.source = Source::Page(page);
        } else {
            // The store ends before what the rings have lost: that is missing for good.
            over.reachable = false;
        }
    }

    pub(crate) fn ask_for_page(&mut self, batch: Batch) {
        let (from, told) = (self.next(), self.told);
        let slot = self.log.ask(&self.watcher, move |shared, watcher| {
            shared.replay(&wanted(watcher), from, told, batch)
        });
        if let Some(over) = &mut self.over {
            over.source = Source::Asked(slot);
        }
    }

    /// Takes events of a page, up to one that can not be read. `None`: there is none, or no more.
    pub(crate) fn read_page(&mut self, batch: Batch, out: &mut Vec<Entry<P>>) -> Option<Read> {
        let mut next = self.next();
        let over = self.over.as_mut()?;
        let Source::Page(page) = &mut over.source else { return None };
        let mut bytes = 0;
        while out.len() < batch.events_max.max(1) && bytes < batch.bytes_max.max(1) {
            match page.items.pop_front_if(|item| matches!(item, Item::Entry(_))) {
                Some(Item::Entry(entry)) => {
                    bytes += entry.payload.bytes();
                    next = entry.offset.get() + 1;
                    out.push(entry);
                }
                _ => break,
            }
        }
        let broken = if out.is_empty() { page.items.pop_front() } else { None };
        let gap = broken.map(|broken| {
            let after = next - 1;
            next = broken.offset() + 1;
            Gap {
                reason: GapReason::Lost,
                after: Some(Offset::new(after)),
                until: Some(Offset::new(broken.offset())),
                oldest: page.items.front().map(|item| Offset::new(item.offset())),
                next: Offset::new(next),
            }
        });
        if page.items.is_empty() {
            next = next.max(page.next);
            over.source = Source::Rings;
        }
        self.reason = GapReason::Lagged;
        self.watcher.next.store(next, Ordering::Relaxed);
        match gap {
            Some(gap) => Some(Read::Gap(gap)),
            None => (!out.is_empty()).then_some(Read::Events),
        }
    }
}
