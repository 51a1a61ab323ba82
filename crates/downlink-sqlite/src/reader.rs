//! The read side of the store. Each call is one short read transaction.

use std::sync::Arc;

use downlink_log::{
    Address, Batch, ClockState, EvictionNumber, Fingerprint, Floor, Offset, Timestamp,
    store::{
        FeedChunk, Finished, Marks, Range, StoreError, StoreReader, StoreReplay, StoredEvent,
        Wanted,
    },
};
use rusqlite::{Connection, Row};
use smallvec::SmallVec;

use crate::{
    fault::Result,
    file::Pool,
    replay::Replay,
    sql::{
        OfSameId, Sql as _, TopicEvictions, address, address_of, column, find_id, first_since,
        indexed, keepers, kind_and_name, lost, meta, verified,
    },
};

#[derive(Debug)]
pub(crate) struct SqliteReader(pub(crate) Arc<Pool>);

impl StoreReader for SqliteReader {
    fn close(&self) {
        self.0.close();
    }

    fn replay(&self, wanted: Wanted) -> Box<dyn StoreReplay> {
        Box::new(Replay::new(Arc::clone(&self.0), wanted))
    }

    fn newest_eviction(&self) -> Result<EvictionNumber, StoreError> {
        self.0.read(|db| meta(db, "evictions").map(EvictionNumber::new))
    }

    fn highest_floor(&self) -> Result<Offset, StoreError> {
        self.0.read(|db| {
            let highest = db.first("SELECT max(floor) FROM topics WHERE floor <> 1", [])?;
            let highest = highest.and_then(|(floor,): (Option<u64>,)| floor).unwrap_or(1);
            Ok(TopicEvictions::forgotten(db)?.floor.offset.max(Offset::new(highest)))
        })
    }

    fn floor_of(&self, address: &Address) -> Result<Floor, StoreError> {
        self.0.read(|db| {
            let sql = "SELECT floor, floor_at, lower_floor, evicted FROM topics
                       WHERE kind = ? AND name = ?";
            let found = db.first(sql, kind_and_name(address))?.map(TopicEvictions::new);
            Ok(found.map_or_else(|| TopicEvictions::forgotten(db), Ok)?.floor)
        })
    }

    fn floors_above(
        &self,
        from: Offset,
        each: &mut dyn FnMut(Address, Floor),
    ) -> Result<(), StoreError> {
        self.0.read(|db| each_floor(db, FLOORS_ABOVE, from, each))
    }

    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError> {
        self.0.read(|db| Ok(first_since(db, since.as_millis())?.map(Offset::new)))
    }

    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError> {
        self.0.read(|db| newest(db, batch))
    }

    fn feed(&self, range: Range, batch: Batch) -> Result<FeedChunk, StoreError> {
        self.0.read(|db| feed(db, range, batch))
    }

    fn publisher_id(&self, id: &str) -> Result<Option<Offset>, StoreError> {
        self.0.read(|db| {
            // A cache may have two events with the same id. A client with this id then continues
            // after the older one, so it may get events twice, but misses none.
            let is_cache = self.0.life.is_some();
            let which = if is_cache { OfSameId::Oldest } else { OfSameId::Newest };
            Ok(find_id(db, id, which)?.map(|(_, offset)| offset))
        })
    }

    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError> {
        self.0.read(|db| {
            let rows: Vec<(i64, String, i64, u64, u64)> = db.all(
                "SELECT kind, name, number, finished, finished_at FROM topics
                 WHERE finished IS NOT NULL ORDER BY finished_at DESC LIMIT ?",
                [column(topics_max)],
            )?;
            let finished = rows.into_iter().map(|(kind, name, topic, offset, at)| {
                let (offset, at) = (Offset::new(offset), Timestamp::from_millis(at));
                Ok((address(kind, &name, topic)?, Finished { offset, at }))
            });
            finished.collect()
        })
    }
}

/// Selects the addresses in the file whose floor is above a number. The floor of an address is the
/// offset after its last evicted event.
const FLOORS_ABOVE: &str =
    "SELECT kind, name, number, floor, floor_at FROM topics WHERE floor <> 1 AND floor > ?";

/// Selects all addresses in the file. The parameter has no effect.
const FLOORS: &str = "SELECT kind, name, number, floor, floor_at FROM topics WHERE ? >= 0";

/// Calls `each` for the addresses that a query selects, with their floors.
fn each_floor(
    db: &Connection,
    sql: &str,
    from: Offset,
    each: &mut dyn FnMut(Address, Floor),
) -> Result<()> {
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([column(from.get())])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let offset = Offset::new(row.get(3)?);
        let floor = Floor { offset, at: Timestamp::from_millis(row.get(4)?) };
        each(address(row.get(0)?, &name, row.get(2)?)?, floor);
    }
    Ok(())
}

/// A part of a feed. The caller reads it in one transaction.
fn feed(db: &Connection, range: Range, batch: Batch) -> Result<FeedChunk> {
    let (from, until) = (range.from.get(), range.until.get());
    let mut select = db.prepare_cached(
        "SELECT id, payload, checksum, offset, at, topics, fingerprint, finish FROM events
         WHERE offset >= ? AND offset < ? ORDER BY offset LIMIT ?",
    )?;
    let events_max = batch.events_max.max(1);
    let mut rows = select.query((column(from), column(until), column(events_max)))?;
    let indexed = indexed(db)?;
    let (mut events, mut bytes, mut next) = (Vec::new(), 0, until);
    while let Some(row) = rows.next()? {
        let offset: u64 = row.get(3)?;
        let (id, payload) = verified(offset, row)?.unwrap_or_default();
        bytes += payload.len();
        events.push(event(db, row, id, payload, indexed)?);
        if bytes >= batch.bytes_max || events.len() == events_max {
            next = offset + 1;
            break;
        }
    }
    let forgotten = TopicEvictions::forgotten(db)?.floor;
    let others = if forgotten.offset > range.from { forgotten } else { Floor::NONE };
    // `others` is the floor of each address that the chunk does not list. Addresses without a row
    // have this floor. So if there is such a floor, the chunk lists every address that has a row.
    let mut floors = Vec::new();
    let sql = if others == Floor::NONE { FLOORS_ABOVE } else { FLOORS };
    each_floor(db, sql, range.from, &mut |address, floor| floors.push((address, floor)))?;
    let mut marks = db.prepare_cached(
        "SELECT kind, name, number, finished, finished_at FROM topics
         WHERE finished IS NOT NULL AND finished >= ? AND finished < ?",
    )?;
    let mut rows = marks.query((column(from), column(next)))?;
    let mut finished = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let offset = Offset::new(row.get(3)?);
        let mark = Finished { offset, at: Timestamp::from_millis(row.get(4)?) };
        finished.push((address(row.get(0)?, &name, row.get(2)?)?, mark));
    }
    let (clock, marks) = (ClockState::default(), Marks::default());
    let next = Offset::new(next);
    let mut chunk = FeedChunk { floors, others, events, next, clock, marks, node: None };
    chunk.add_finish_marks(finished);
    Ok(chunk)
}

/// The event in a row of `events`, with the addresses that still keep it.
fn event(
    db: &Connection,
    row: &Row<'_>,
    id: Option<Box<str>>,
    payload: Vec<u8>,
    indexed: u64,
) -> Result<StoredEvent> {
    let offset = row.get(3)?;
    let mut to = SmallVec::new();
    for topic in keepers(db, offset, row.get(5)?, indexed) {
        let topic = topic?;
        to.push(address_of(db, topic)?.ok_or_else(|| lost(topic))?.0);
    }
    let fingerprint: Option<[u8; 16]> = row.get(6)?;
    Ok(StoredEvent {
        offset: Offset::new(offset),
        at: Timestamp::from_millis(row.get(4)?),
        to,
        id,
        key: None,
        fingerprint: fingerprint.map(Fingerprint::from_bytes).unwrap_or_default(),
        finish: row.get(7)?,
        payload: Some(payload),
    })
}

/// The newest events, in the order of their offsets. If an event is damaged, the result has only
/// the events after it.
fn newest(db: &Connection, batch: Batch) -> Result<Vec<StoredEvent>> {
    let mut select = db.prepare_cached(
        "SELECT id, payload, checksum, offset, at, topics, fingerprint, finish FROM events
         ORDER BY offset DESC LIMIT ?",
    )?;
    let mut rows = select.query([column(batch.events_max.max(1))])?;
    let indexed = indexed(db)?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while (events.is_empty() || bytes < batch.bytes_max)
        && let Some(row) = rows.next()?
    {
        let offset = row.get(3)?;
        let Some((id, payload)) = verified(offset, row)? else { break };
        bytes += payload.len();
        events.push(event(db, row, id, payload, indexed)?);
    }
    events.reverse();
    Ok(events)
}
