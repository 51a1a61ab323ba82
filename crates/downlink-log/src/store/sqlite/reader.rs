//! The read side. Each call is one short read transaction, or a few in a row.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use smallvec::SmallVec;

use crate::{
    address::Address,
    given::{Fingerprint, IdempotencyKey},
    merge::Batch,
    offset::{Offset, Timestamp},
    store::{
        Finished, Page, StoreError, StoreReader, StoredEvent, StoredFloor, Wanted,
        sqlite::{
            fault::{column, number},
            newest::Search,
            open::connect_reader,
            page::{Range, page},
            target::resolve,
            topics::{address, address_of, forgotten, indexed, keepers, kind_and_name, lost},
            turns::Turns,
        },
    },
};

#[derive(Debug)]
pub(super) struct SqliteReader {
    path: PathBuf,
    replays: Turns,
    /// For look-ups: held for tens of microseconds, so nobody waits long for it.
    lookups: Mutex<Connection>,
}

impl SqliteReader {
    pub(super) fn open(path: PathBuf, replay_readers_max: usize) -> Result<Self, StoreError> {
        let readers = (0..replay_readers_max.max(1))
            .map(|_| connect_reader(&path))
            .collect::<Result<_, _>>()?;
        let lookups = Mutex::new(connect_reader(&path)?);
        Ok(Self { path, replays: Turns::new(readers), lookups })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads within one transaction, when its turn comes.
    fn read<T>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let turn = self.replays.wait();
        read(&turn.unchecked_transaction()?)
    }
}

impl StoreReader for SqliteReader {
    fn page(
        &self,
        wanted: &Wanted,
        from: Offset,
        until: Offset,
        batch: Batch,
    ) -> Result<Page, StoreError> {
        let range = Range { from: from.get(), until: until.get(), batch };
        self.read(|transaction| page(transaction, wanted, range))
    }

    fn floor(&self, wanted: &Wanted) -> Result<StoredFloor, StoreError> {
        self.read(|transaction| Ok(resolve(transaction, wanted, Offset::FIRST)?.1))
    }

    fn highest_floor(&self) -> Result<Offset, StoreError> {
        self.read(|transaction| {
            let highest: Option<i64> = transaction
                .prepare_cached("SELECT max(floor) FROM topics WHERE floor > 1")?
                .query_row([], |row| row.get(0))?;
            let highest = Offset::new(highest.map_or(0, number)).max(Offset::FIRST);
            Ok(highest.max(forgotten(transaction)?.offset))
        })
    }

    fn floors_above(
        &self,
        from: Offset,
        each: &mut dyn FnMut(Address, Offset),
    ) -> Result<(), StoreError> {
        self.read(|transaction| {
            // The index has no floors of 1.
            let from = from.max(Offset::FIRST);
            let mut select = transaction.prepare_cached(
                "SELECT kind, name, floor, number FROM topics WHERE floor > 1 AND floor > ?",
            )?;
            let mut rows = select.query([column(from.get())])?;
            while let Some(row) = rows.next()? {
                let (kind, name, topic): (_, String, _) = (row.get(0)?, row.get(1)?, row.get(3)?);
                let address = address(kind, &name).ok_or_else(|| lost(topic))?;
                each(address, Offset::new(number(row.get(2)?)));
            }
            Ok(())
        })
    }

    fn nth_newest(
        &self,
        wanted: &Wanted,
        count: usize,
        until: Offset,
    ) -> Result<Option<Offset>, StoreError> {
        let mut search = Search::new(count, until.get());
        while search.left.is_some() {
            self.read(|transaction| {
                let (mut target, _) = resolve(transaction, wanted, until_floor())?;
                search.go_on(transaction, &mut target)
            })?;
        }
        Ok(search.oldest.map(Offset::new))
    }

    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError> {
        self.read(|transaction| first_since(transaction, since.as_millis()))
    }

    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(|transaction| newest(transaction, batch))
    }

    fn given(&self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        let connection = self.lookups.lock();
        let mut select = connection.prepare_cached(
            "SELECT fingerprint, offset FROM events WHERE id = ? ORDER BY offset DESC LIMIT 1",
        )?;
        Ok(select.query_row([id], answer).optional()?)
    }

    fn key(&self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        let connection = self.lookups.lock();
        let mut select = connection.prepare_cached(
            "SELECT fingerprint, offset FROM keys WHERE credential = ? AND key = ?",
        )?;
        Ok(select.query_row((&key.credential, &key.key), answer).optional()?)
    }

    fn finished(&self, address: &Address) -> Result<Option<Finished>, StoreError> {
        let connection = self.lookups.lock();
        let mut select = connection.prepare_cached(
            "SELECT finished, finished_at FROM topics
             WHERE kind = ? AND name = ? AND finished IS NOT NULL",
        )?;
        let finished = |row: &rusqlite::Row<'_>| {
            let at = Timestamp::from_millis(number(row.get(1)?));
            Ok(Finished { offset: Offset::new(number(row.get(0)?)), at })
        };
        Ok(select.query_row(kind_and_name(address), finished).optional()?)
    }

    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError> {
        self.read(|transaction| finished_topics(transaction, topics_max))
    }
}

/// No floor is above it: floors are of no interest.
fn until_floor() -> Offset {
    Offset::new(u64::MAX)
}

fn answer(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Fingerprint, Offset)> {
    Ok((Fingerprint::from_bytes(row.get(0)?), Offset::new(number(row.get(1)?))))
}

/// Time stamps rise with offsets: halves the range until one event is left.
fn first_since(connection: &Connection, since: u64) -> Result<Option<Offset>, StoreError> {
    let ends: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT (SELECT min(offset) FROM events), (SELECT max(offset) FROM events)",
        )?
        .query_row([], |row| Ok(row.get::<_, Option<_>>(0)?.zip(row.get(1)?)))?;
    let Some((mut from, newest)) = ends else { return Ok(None) };
    let mut until = newest + 1;
    let mut select = connection.prepare_cached(
        "SELECT offset, at FROM events WHERE offset >= ? ORDER BY offset LIMIT 1",
    )?;
    // Everything below `from` is too old; everything from `until` on is not.
    while from < until {
        let middle = from + (until - from) / 2;
        let (offset, at): (i64, i64) =
            select.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if number(at) < since {
            from = offset + 1;
        } else {
            until = middle;
        }
    }
    let found = select.query_row([from], |row| row.get(0)).optional()?;
    Ok(found.map(|offset| Offset::new(number(offset))))
}

fn finished_topics(
    connection: &Connection,
    topics_max: usize,
) -> Result<Vec<(Address, Finished)>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT number, finished, finished_at FROM topics WHERE finished IS NOT NULL
         ORDER BY finished_at DESC LIMIT ?",
    )?;
    let mut rows = select.query([column(topics_max as u64)])?;
    let mut topics = Vec::new();
    while let Some(row) = rows.next()? {
        let topic = row.get(0)?;
        let (address, _) = address_of(connection, topic)?.ok_or_else(|| lost(topic))?;
        let at = Timestamp::from_millis(number(row.get(2)?));
        topics.push((address, Finished { offset: Offset::new(number(row.get(1)?)), at }));
    }
    Ok(topics)
}

fn newest(connection: &Connection, batch: Batch) -> Result<Vec<StoredEvent>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT offset, at, topics, id, fingerprint, finish, payload FROM events
         ORDER BY offset DESC LIMIT ?",
    )?;
    let mut rows = select.query([column(batch.events_max as u64)])?;
    let indexed = indexed(connection)?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < batch.bytes_max
        && let Some(row) = rows.next()?
    {
        let payload: Vec<u8> = row.get(6)?;
        bytes += payload.len();
        let offset = number(row.get(0)?);
        let mut to = SmallVec::new();
        for number in keepers(connection, offset, row.get_ref(2)?, indexed)? {
            to.push(address_of(connection, number)?.ok_or_else(|| lost(number))?.0);
        }
        let fingerprint: Option<[u8; 16]> = row.get(4)?;
        events.push(StoredEvent {
            offset: Offset::new(offset),
            at: Timestamp::from_millis(number(row.get(1)?)),
            to,
            id: row.get(3)?,
            key: None,
            fingerprint: fingerprint.map(Fingerprint::from_bytes).unwrap_or_default(),
            finish: row.get(5)?,
            payload: Some(payload),
        });
    }
    events.reverse();
    Ok(events)
}
