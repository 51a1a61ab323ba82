//! A replay reads old events of some topics from the file, because these events are no longer in
//! memory. It returns the events in pages. A page has a list of events and the end of the hole. The
//! hole is the range of evicted events that the reader has missed. Between two calls, a replay
//! remembers its topics and how far it has searched for the hole.
//!
//! Each call reads in a new transaction, and the file may have changed since the last call. Each
//! topic has a number and a row in the table `topics`. The row stores the floor of the topic, which
//! is the offset after its last evicted event. Trimming may delete the row of a topic without
//! events. The replay recognises three kinds of changes by these rules:
//!
//! - A new topic has a higher number than all earlier topics.
//! - A new eviction has a higher number than all earlier evictions.
//! - All topic names that have no row share one floor. When a row is deleted, the shared floor
//!   rises at least to the floor in the row.

mod events;
mod floors;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use downlink_log::{
    Batch, EvictionNumber, Floor, Offset,
    store::{Page, Range, Step, StoreError, StoreReplay, Wanted},
};

use crate::file::Pool;

use self::{
    events::{NewestSearch, read_page},
    floors::{FloorWalk, Holes},
    target::{ReplayTopics, Snapshot, Wants},
};

#[derive(Debug)]
pub(crate) struct Replay {
    pool: Arc<Pool>,
    wants: Wants,
    target: Option<ReplayTopics>,
    holes: Option<Holes>,
    floor: Option<(FloorWalk, Floor)>,
    search: Option<NewestSearch>,
}

impl Replay {
    pub(crate) fn new(pool: Arc<Pool>, wanted: Wanted) -> Self {
        let wants = Wants::new(wanted);
        Self { pool, wants, target: None, holes: None, floor: None, search: None }
    }
}

impl StoreReplay for Replay {
    fn page(
        &mut self,
        range: Range,
        evicted_after: EvictionNumber,
        batch: Batch,
    ) -> Result<Step<Page>, StoreError> {
        let Self { pool, wants, target, holes, .. } = self;
        let (from, after) = (range.from.get(), evicted_after.get());
        Snapshot::read(pool, wants, target, |snapshot| {
            let begun = holes.take().filter(|holes| holes.is_continued_by(from, after));
            let mut looked = begun.unwrap_or_else(|| Holes::new(from, after));
            // If this call fails, `holes` stays empty, and the next call begins a new search.
            let hole = looked.look(snapshot, from)?;
            *holes = Some(looked);
            let Some(hole) = hole else { return Ok(Step::More) };
            let (events, next) = read_page(snapshot, range, batch)?;
            Ok(Step::Done(Page { events, next, hole }))
        })
    }

    fn floor(&mut self) -> Result<Step<Floor>, StoreError> {
        let Self { pool, wants, target, floor, .. } = self;
        Snapshot::read(pool, wants, target, |snapshot| {
            let (mut walk, mut highest) = floor.take().unwrap_or((FloorWalk::new(0), Floor::NONE));
            let complete = walk.advance(snapshot, highest.offset.get(), |_, row| {
                highest = highest.max(row.floor);
                Ok(highest.offset.get())
            })?;
            if complete {
                return Ok(Step::Done(highest));
            }
            *floor = Some((walk, highest));
            Ok(Step::More)
        })
    }

    fn nth_newest(
        &mut self,
        count: usize,
        until: Offset,
    ) -> Result<Step<Option<Offset>>, StoreError> {
        let Self { pool, wants, target, search, .. } = self;
        Snapshot::read(pool, wants, target, |snapshot| {
            let begun = search.take().filter(|search| search.asked == (count, until.get()));
            let mut going = begun.unwrap_or_else(|| NewestSearch::new(count, until.get()));
            if going.go_on(snapshot)? {
                return Ok(Step::Done(going.oldest.map(Offset::new)));
            }
            *search = Some(going);
            Ok(Step::More)
        })
    }
}
