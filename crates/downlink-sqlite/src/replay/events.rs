//! Reads the events that a replay wants, in order of their offsets. The table `memberships` has a
//! list of the events of each topic; trimming adds new events to these lists later. There are two
//! ways to read the wanted events: to merge the lists of the wanted topics, or to walk all events
//! and skip the unwanted events. This module takes the way that reads fewer rows.

use std::collections::BTreeSet;

use downlink_log::{
    Batch, Offset, Timestamp,
    store::{Range, StoredEntry},
};
use rusqlite::CachedStatement;

use crate::{
    fault::{Fault, Result},
    sql::{Sql as _, column, verified},
};

use super::target::{ROWS_MAX, ReplayTopics, Snapshot};

/// The maximum number of offsets that one query takes from the list of a topic.
const CHUNK_MAX: usize = 256;

/// Reads the wanted events of a range. Returns the events, and the offset where the next page
/// begins.
pub(super) fn read_page(
    snapshot: &mut Snapshot<'_>,
    range: Range,
    batch: Batch,
) -> Result<(Vec<StoredEntry>, Offset)> {
    let batch = Batch { events_max: batch.events_max.clamp(1, ROWS_MAX), ..batch };
    let sql = "SELECT id, payload, checksum, at FROM events WHERE offset = ?";
    let select = snapshot.db.prepare_cached(sql)?;
    let mut page = PageBuilder { select, batch, events: Vec::new(), bytes: 0 };
    let next = page.fill(snapshot, range.from.get(), range.until.get())?;
    Ok((page.events, next.map_or(range.until.max(range.from), Offset::new)))
}

/// A page that is being read.
struct PageBuilder<'a> {
    select: CachedStatement<'a>,
    batch: Batch,
    events: Vec<StoredEntry>,
    bytes: usize,
}

impl PageBuilder<'_> {
    /// Adds the events of a range to the page. If the page is full before the end of the range,
    /// returns the offset where the next page begins.
    fn fill(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        mut from: u64,
        until: u64,
    ) -> Result<Option<u64>> {
        let topics = match &*snapshot.target {
            ReplayTopics::Few(few) if few.numbers.is_empty() => return Ok(None),
            ReplayTopics::Few(few) => few.numbers.len() as u64,
            ReplayTopics::Many(_) => u64::MAX,
        };
        let high = until.min(snapshot.indexed);
        // A look-up in the list of one topic takes about as long as reading one row. So if there
        // are more topics than offsets in the range, walking all events is faster.
        if topics < high.saturating_sub(from) {
            let limit = self.batch.events_max.min(CHUNK_MAX);
            let (found, end) = listed(snapshot, from..high, limit, false)?;
            if end == high || found.len() >= limit || end - from >= ROWS_MAX as u64 {
                for offset in found {
                    if !self.push(snapshot, offset)? {
                        return Ok(Some(offset + 1));
                    }
                }
                if end < high {
                    return Ok(Some(end));
                }
                from = high;
            }
        }
        scan(snapshot, from..until, false, |snapshot, offset| self.push(snapshot, offset))
    }

    /// Adds an event. Returns `false` when the page is full.
    fn push(&mut self, snapshot: &mut Snapshot<'_>, offset: u64) -> Result<bool> {
        snapshot.spend(1);
        let mut rows = self.select.query([offset])?;
        let missing = || Fault::corrupt(format!("event {offset} is listed but missing"));
        let row = rows.next()?.ok_or_else(missing)?;
        let (id, payload) = verified(offset, row)?.unzip();
        self.bytes += payload.as_ref().map_or(0, Vec::len);
        let (offset, at) = (Offset::new(offset), Timestamp::from_millis(row.get(3)?));
        self.events.push(StoredEntry { offset, at, id: id.flatten(), payload });
        let Batch { events_max, bytes_max } = self.batch;
        let is_full = self.events.len() >= events_max || self.bytes >= bytes_max;
        Ok(!is_full && snapshot.rows_left > 0)
    }
}

fn order(is_down: bool) -> &'static str {
    if is_down { "DESC" } else { "ASC" }
}

/// Walks all events of a range in order, upwards or downwards. Calls `each` with each wanted event,
/// and stops if `each` returns `false`. If the walk stops before the end of the range, returns the
/// offset where another walk can continue.
fn scan<'a>(
    snapshot: &mut Snapshot<'a>,
    range: std::ops::Range<u64>,
    is_down: bool,
    mut each: impl FnMut(&mut Snapshot<'a>, u64) -> Result<bool>,
) -> Result<Option<u64>> {
    snapshot.begin_events();
    let sql = "SELECT offset, topics FROM events WHERE offset >= ? AND offset < ? ORDER BY offset";
    let mut select = snapshot.db.prepare_cached(&format!("{sql} {}", order(is_down)))?;
    let mut rows = select.query((column(range.start), column(range.end)))?;
    while let Some(row) = rows.next()? {
        let offset: u64 = row.get(0)?;
        if snapshot.rows_left == 0 {
            return Ok(Some(offset + u64::from(is_down)));
        }
        snapshot.spend(1);
        if snapshot.wants_event(offset, row.get(1)?)? && !each(snapshot, offset)? {
            return Ok(Some(offset + u64::from(!is_down)));
        }
    }
    Ok(None)
}

/// Merges the lists of a replay's topics. Returns the first offsets of the range, and a boundary.
/// The result has all wanted offsets below the boundary. If the boundary is the end of the range,
/// the result has all wanted offsets of the range.
///
/// If `is_down` is true, this function returns the last offsets of the range. The result then has
/// all wanted offsets at or above the boundary. If the boundary is the start of the range, the
/// result has all wanted offsets of the range.
fn listed(
    snapshot: &mut Snapshot<'_>,
    range: std::ops::Range<u64>,
    limit: usize,
    is_down: bool,
) -> Result<(BTreeSet<u64>, u64)> {
    snapshot.begin_events();
    let sql = format!(
        "SELECT offset FROM memberships WHERE topic = ? AND offset >= ? AND offset < ?
         ORDER BY offset {} LIMIT ?",
        order(is_down)
    );
    let (mut low, mut high) = (range.start, range.end);
    let (mut found, mut looked) = (BTreeSet::new(), 0);
    if let ReplayTopics::Few(few) = &*snapshot.target {
        let chunk = (snapshot.rows_left / few.numbers.len().max(1)).clamp(1, limit.max(1));
        for &topic in &few.numbers {
            let offsets: Vec<(u64,)> =
                snapshot.db.all(&sql, (topic, column(low), column(high), chunk))?;
            looked += offsets.len().max(1);
            match offsets.last().filter(|_| offsets.len() == chunk) {
                Some(&(last,)) if is_down => low = last,
                Some(&(last,)) => high = last + 1,
                None => {}
            }
            found.extend(offsets.into_iter().map(|(offset,)| offset));
        }
    }
    found.retain(|offset| (low..high).contains(offset));
    snapshot.spend(looked);
    snapshot.begin_events();
    Ok((found, if is_down { low } else { high }))
}

/// A search for the nth newest event. Each call of the replay continues the search.
#[derive(Debug)]
pub(crate) struct NewestSearch {
    pub(super) asked: (usize, u64),
    /// The number of events that are still to be found.
    left: usize,
    /// The offset below which the search continues.
    below: u64,
    /// The oldest offset found so far. When the search is over, this offset is the result.
    pub(super) oldest: Option<u64>,
}

impl NewestSearch {
    pub(super) fn new(count: usize, until: u64) -> Self {
        Self { asked: (count, until), left: count, below: until, oldest: None }
    }

    /// Continues the search until this call has read as many rows as one call may read. Returns
    /// `true` when the search is over.
    pub(super) fn go_on(&mut self, snapshot: &mut Snapshot<'_>) -> Result<bool> {
        if self.left == 0 {
            return Ok(true);
        }
        // The newest events are not on the lists of their topics yet. So the search walks these
        // events, even if it uses the lists for older events.
        let end = match &*snapshot.target {
            ReplayTopics::Few(_) => snapshot.indexed,
            ReplayTopics::Many(_) => 0,
        };
        let stopped = scan(snapshot, end..self.below, true, |_, offset| Ok(self.found(offset)))?;
        if let Some(below) = stopped {
            self.below = below;
            return Ok(self.left == 0);
        }
        if end == 0 {
            return Ok(true);
        }
        let (found, low) = listed(snapshot, 0..self.below, self.left.min(CHUNK_MAX), true)?;
        self.below = low;
        Ok(found.into_iter().rev().any(|offset| !self.found(offset)) || low == 0)
    }

    /// Counts an event. Returns `false` if this event was the last one to find.
    fn found(&mut self, offset: u64) -> bool {
        self.left -= 1;
        self.oldest = Some(offset);
        self.left > 0
    }
}
