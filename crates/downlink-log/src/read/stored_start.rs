//! Where a new reader begins in a log with a store: what the memory does not know is asked there.

use std::sync::Arc;

use crate::{
    durable::Located,
    log::{Payload, Shared},
    merge::{Batch, Gap, GapReason},
    offset::{Cursor, Offset, Timestamp},
    replay::wanted,
    start::{Beginning, Start, all_finished, floor_max},
    store::{StoreError, StoreReader, StoredFloor, Wanted},
    watcher::Watcher,
};

/// A look for one event.
const ONE: Batch = Batch { events_max: 1, bytes_max: 1 };

/// A store, and what one reader wants of it, up to an offset.
struct Look<'a> {
    reader: &'a dyn StoreReader,
    wanted: Wanted,
    floor: StoredFloor,
    tail: u64,
}

impl<P: Payload> Shared<P> {
    /// Where a reader begins, if that is known without the store. The reader is attached already.
    pub(crate) fn begin_known(&self, start: &Start, watcher: &Watcher<P>) -> Option<Beginning> {
        let Some(durable) = &self.durable else { return Some(self.begin(start, watcher)) };
        let attached = &watcher.attached.lock();
        let exact = watcher.patterns().is_empty();
        let tail = self.tail();
        let next = match start {
            Start::Live if exact && all_finished(attached) => return None,
            Start::Live => return Some(Beginning { asked: false, ..Beginning::at(tail) }),
            Start::After(id) => match Cursor::parse_id(id) {
                Some(cursor) => match durable.epochs.locate(cursor, tail) {
                    Located::At(next) => next,
                    Located::Beyond(_) | Located::Unknown => return None,
                },
                None => self.given.lock().get(id)?.answer.offset.get() + 1,
            },
            _ => return None,
        };
        // Whether anything is left to read of finished topics, the rings know only above their floors.
        let unsure = exact && all_finished(attached) && floor_max(attached) > next;
        (!unsure).then(|| Beginning::at(next))
    }

    /// Where a reader begins, as the store says. Waits for the disk.
    pub(crate) fn begin_stored(
        &self,
        start: &Start,
        watcher: &Watcher<P>,
    ) -> Result<Beginning, StoreError> {
        let Some(durable) = &self.durable else { return Ok(self.begin(start, watcher)) };
        let tail = self.tail();
        let tail = tail.min(self.await_commit(tail));
        let reader = Arc::clone(&durable.reader);
        let wanted = wanted(watcher);
        let floor = reader.floor(&wanted)?;
        let look = Look { reader: &*reader, wanted, floor, tail };
        let mut beginning = match start {
            Start::Live => look.retained_topics()?,
            Start::Earliest => look.told(look.first_from(&look.wanted, 1)?),
            Start::Last(count) => look.told(look.newest(*count)?),
            Start::Since(since) => look.since(*since)?,
            Start::After(id) => self.after_stored(&look, id)?,
        };
        let is_finished = watcher.patterns().is_empty() && all_finished(&watcher.attached.lock());
        beginning.at_end = Some(is_finished && look.is_over(&beginning)?);
        Ok(beginning)
    }

    fn after_stored(&self, look: &Look<'_>, id: &str) -> Result<Beginning, StoreError> {
        let Some(durable) = &self.durable else { return Ok(Beginning::at(look.tail)) };
        let reason = match Cursor::parse_id(id) {
            Some(cursor) => match durable.epochs.locate(cursor, self.tail()) {
                Located::At(next) => return Ok(Beginning::at(next)),
                Located::Beyond(end) => {
                    let gap = look.gap(GapReason::Lost, end)?;
                    return Ok(Beginning { gap: Some(gap), ..Beginning::at(end) });
                }
                Located::Unknown => GapReason::NewEpoch,
            },
            None => match look.reader.given(id)? {
                Some((_, offset)) => return Ok(Beginning::at(offset.get() + 1)),
                None => GapReason::UnknownId,
            },
        };
        let beginning = look.told(look.newest(self.options.gap_replay_max)?);
        let gap = look.gap(reason, beginning.next)?;
        Ok(Beginning { gap: Some(gap), ..beginning })
    }
}

impl Look<'_> {
    /// Begins at an offset, or with what comes; what is gone is no news.
    fn told(&self, next: Option<u64>) -> Beginning {
        let told = self.floor.offset.get().min(self.tail);
        Beginning { told, ..Beginning::at(next.unwrap_or(self.tail)) }
    }

    /// Begins where the named topics do.
    fn retained_topics(&self) -> Result<Beginning, StoreError> {
        let topics = self.wanted.addresses.iter().filter(|address| address.topic().is_some());
        let topics = Wanted { addresses: topics.cloned().collect(), patterns: Vec::new() };
        Ok(self.told(self.first_from(&topics, 1)?))
    }

    fn newest(&self, count: usize) -> Result<Option<u64>, StoreError> {
        if count == 0 {
            return Ok(None);
        }
        let until = Offset::new(self.tail);
        Ok(self.reader.nth_newest(&self.wanted, count, until)?.map(Offset::get))
    }

    fn since(&self, since: Timestamp) -> Result<Beginning, StoreError> {
        let first = self.reader.first_since(since)?.filter(|first| first.get() < self.tail);
        let first = first.map(|first| self.first_from(&self.wanted, first.get())).transpose()?;
        let beginning = self.told(first.flatten());
        let missed = self.floor.offset > Offset::FIRST && self.floor.at >= since;
        let gap = missed.then(|| self.gap(GapReason::Evicted, beginning.next)).transpose()?;
        let until = Some(Offset::new(beginning.told.saturating_sub(1)));
        Ok(Beginning { gap: gap.map(|gap| Gap { until, ..gap }), ..beginning })
    }

    fn gap(&self, reason: GapReason, next: u64) -> Result<Gap, StoreError> {
        let oldest = self.first_from(&self.wanted, next)?.map(Offset::new);
        Ok(Gap { reason, after: None, until: None, oldest, next: Offset::new(next) })
    }

    /// Whether nothing is left to read, nor to be told.
    fn is_over(&self, beginning: &Beginning) -> Result<bool, StoreError> {
        let Beginning { next, told, .. } = *beginning;
        let hole = self.floor.offset.get() > next.max(told) || beginning.gap.is_some();
        Ok(!hole && self.first_from(&self.wanted, next)?.is_none())
    }

    /// The first offset of some topics at or above one.
    fn first_from(&self, wanted: &Wanted, from: u64) -> Result<Option<u64>, StoreError> {
        let (mut from, until) = (Offset::new(from), Offset::new(self.tail));
        while from < until {
            let page = self.reader.page(wanted, from, until, ONE)?;
            if let Some(first) = page.events.first() {
                return Ok(Some(first.offset.get()));
            }
            from = page.next;
        }
        Ok(None)
    }
}
