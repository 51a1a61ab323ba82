//! A page of events, by whichever way looks at fewer rows: each topic's own list, merged, or all
//! events in order.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use rusqlite::{Connection, Row};

use crate::{
    merge::Batch,
    offset::{Offset, Timestamp},
    store::{
        Page, StoreError, StoredEntry, StoredFloor, Wanted,
        sqlite::{
            fault::{column, number},
            target::{Target, resolve},
            topics::{indexed, keepers},
        },
    },
};

/// Events looked at for one page: about ten milliseconds if none of them is wanted.
pub(super) const SCAN_ROWS: usize = 4_096;

/// Offsets taken from a topic's list at a time, at most.
const CHUNK_MAX: usize = 256;

/// Which part of the log, and how much of it.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) batch: Batch,
}

/// Reads a page; the caller has begun a transaction.
pub(super) fn page(
    connection: &Connection,
    wanted: &Wanted,
    range: Range,
) -> Result<Page, StoreError> {
    let (target, floor) = resolve(connection, wanted, Offset::new(range.from))?;
    let mut taken = Taken::new(range, floor, indexed(connection)?);
    match target {
        Target::Few(numbers) if numbers.is_empty() => {}
        Target::Few(numbers) => taken.read_few(connection, &numbers)?,
        Target::Many(mut many) => {
            let mut wants = |connection: &Connection, number| many.wants(connection, number);
            taken.scan(connection, range.from, &mut wants)?;
        }
    }
    Ok(taken.page)
}

/// At most so many rows are in the range.
fn rows(connection: &Connection, range: Range) -> Result<u64, StoreError> {
    let newest: Option<i64> = connection
        .prepare_cached("SELECT max(offset) FROM events")?
        .query_row([], |row| row.get(0))?;
    let end = newest.map_or(0, |newest| number(newest) + 1).min(range.until);
    Ok(end.saturating_sub(range.from))
}

/// A page in the making.
struct Taken {
    range: Range,
    page: Page,
    bytes: usize,
    /// From here on, topics have no lists yet.
    indexed: u64,
}

impl Taken {
    fn new(range: Range, floor: StoredFloor, indexed: u64) -> Self {
        let next = Offset::new(range.until.max(range.from));
        Self { range, page: Page { events: Vec::new(), next, floor }, bytes: 0, indexed }
    }

    /// Whether nothing more fits.
    fn is_full(&self) -> bool {
        let Batch { events_max, bytes_max } = self.range.batch;
        !self.page.events.is_empty()
            && (self.page.events.len() >= events_max || self.bytes >= bytes_max)
    }

    fn push(&mut self, offset: u64, row: &Row<'_>) -> Result<(), StoreError> {
        let entry = StoredEntry {
            offset: Offset::new(offset),
            at: Timestamp::from_millis(number(row.get("at")?)),
            id: row.get("id")?,
            payload: row.get("payload")?,
        };
        self.bytes += entry.payload.len();
        self.page.events.push(entry);
        Ok(())
    }

    /// Reads from the lists of some topics, then what is on no list yet.
    fn read_few(&mut self, connection: &Connection, numbers: &[i64]) -> Result<(), StoreError> {
        let mut from = self.range.from;
        let listed = Range { until: self.range.until.min(self.indexed), ..self.range };
        // Asking a topic for its next event costs about as much as looking at one row.
        if (numbers.len() as u64) < rows(connection, listed)? {
            if self.merge(connection, numbers, listed)? {
                return Ok(());
            }
            from = from.max(self.indexed);
        }
        let mut wants = |_: &Connection, number| Ok(numbers.binary_search(&number).is_ok());
        self.scan(connection, from, &mut wants)
    }

    /// Looks at all events in order and takes the wanted.
    fn scan(
        &mut self,
        connection: &Connection,
        from: u64,
        wants: &mut impl FnMut(&Connection, i64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut select = connection.prepare_cached(
            "SELECT offset, at, topics, id, payload FROM events
             WHERE offset >= ? AND offset < ? ORDER BY offset",
        )?;
        let mut rows = select.query((column(from), column(self.range.until)))?;
        let mut looked = 0;
        while let Some(row) = rows.next()? {
            let offset = number(row.get(0)?);
            if self.is_full() || looked == SCAN_ROWS {
                self.page.next = Offset::new(offset);
                return Ok(());
            }
            looked += 1;
            let numbers = keepers(connection, offset, row.get_ref(2)?, self.indexed)?;
            if any(connection, &numbers, wants)? {
                self.push(offset, row)?;
            }
        }
        Ok(())
    }

    /// Merges the lists of some topics; `true` if the page is full before their end.
    fn merge(
        &mut self,
        connection: &Connection,
        numbers: &[i64],
        listed: Range,
    ) -> Result<bool, StoreError> {
        let mut merge = Merge::new(connection, numbers, listed)?;
        let mut select =
            connection.prepare_cached("SELECT at, id, payload FROM events WHERE offset = ?")?;
        while let Some(offset) = merge.next()? {
            if self.is_full() {
                self.page.next = Offset::new(offset);
                return Ok(true);
            }
            let mut rows = select.query([column(offset)])?;
            let row = rows.next()?.ok_or_else(|| missing(offset))?;
            self.push(offset, row)?;
        }
        Ok(false)
    }
}

/// Whether any of some topics is wanted.
pub(super) fn any(
    connection: &Connection,
    numbers: &[i64],
    wants: &mut impl FnMut(&Connection, i64) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    for &number in numbers {
        if wants(connection, number)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn missing(offset: u64) -> StoreError {
    StoreError::Corrupt { reason: format!("event {offset} is listed and missing").into() }
}

/// Offsets of several topics, in order, each once.
struct Merge<'a> {
    connection: &'a Connection,
    until: u64,
    chunk: usize,
    lists: Vec<List>,
    /// The next offset of each list that has one.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
}

struct List {
    topic: i64,
    read: VecDeque<u64>,
    /// The first offset not read yet; `None` when there are no more.
    from: Option<u64>,
}

impl<'a> Merge<'a> {
    fn new(connection: &'a Connection, numbers: &[i64], range: Range) -> Result<Self, StoreError> {
        let chunk = (range.batch.events_max / numbers.len().max(1)).clamp(1, CHUNK_MAX);
        let list = |&topic| List { topic, read: VecDeque::new(), from: Some(range.from) };
        let lists: Vec<List> = numbers.iter().map(list).collect();
        let heads = BinaryHeap::with_capacity(lists.len());
        let mut merge = Self { connection, until: range.until, chunk, lists, heads };
        (0..numbers.len()).try_for_each(|index| merge.advance(index))?;
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<u64>, StoreError> {
        let Some(Reverse((offset, _))) = self.heads.peek().copied() else { return Ok(None) };
        while let Some(&Reverse((head, index))) = self.heads.peek()
            && head == offset
        {
            self.heads.pop();
            self.advance(index)?;
        }
        Ok(Some(offset))
    }

    /// Makes the next offset of a list its head.
    fn advance(&mut self, index: usize) -> Result<(), StoreError> {
        let Some(list) = self.lists.get_mut(index) else { return Ok(()) };
        if let (true, Some(from)) = (list.read.is_empty(), list.from) {
            let mut select = self.connection.prepare_cached(
                "SELECT offset FROM memberships
                 WHERE topic = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?",
            )?;
            let range = (list.topic, column(from), column(self.until), self.chunk as i64);
            let mut rows = select.query(range)?;
            while let Some(row) = rows.next()? {
                list.read.push_back(number(row.get(0)?));
            }
            let full = list.read.len() == self.chunk;
            list.from = list.read.back().filter(|_| full).map(|last| last + 1);
        }
        if let Some(offset) = list.read.pop_front() {
            self.heads.push(Reverse((offset, index)));
        }
        Ok(())
    }
}
