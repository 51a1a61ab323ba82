//! Opening: the lock, the settings of the connection, the layout, a new epoch.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    offset::{Epoch, Offset, Timestamp},
    store::{
        Opened, SqliteOptions, SqliteStore, StoreError,
        sqlite::{
            Written, absolute, count_wal_pages,
            fault::{column, number},
            lock::WriterLock,
            reader::SqliteReader,
            schema::{STEPS, migrate},
            topics::{Topics, forgotten, meta},
            trim::Trimming,
        },
    },
};

/// How long to wait for a lock that another program holds on the database, such as a shell in a
/// transaction: long enough for what a person's query takes, short enough to tell the publishers.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// SQLite's own page size too. With larger pages a commit of one event writes more, since each page
/// it touches goes to the log whole; with smaller ones payloads overflow.
const PAGE_BYTES: i64 = 4_096;

/// Pages the writer keeps in memory, in KiB: the right edges of all indexes and the neighbourhood of
/// several thousand busy topics.
const WRITER_CACHE_KIB: i64 = 16 * 1_024;

/// Of the write-ahead log, what stays on the disk after it was emptied: as much as it has between
/// two checkpoints, some times over. What a long reader made it grow beyond is given back.
const WAL_KEPT_BYTES: i64 = 32 << 20;

/// Statements kept compiled: all there are.
const STATEMENTS_MAX: usize = 64;

/// Lives of the log that are remembered. With ten restarts a day, a year; an id of an older one is
/// answered as that of an unknown epoch.
const EPOCHS_MAX: i64 = 4_096;

pub(super) fn open(
    path: &Path,
    epoch: Epoch,
    options: SqliteOptions,
) -> Result<SqliteStore, StoreError> {
    let path = absolute(path);
    let lock = WriterLock::take(&path, options.wait_for)?;
    let mut connection = connect_writer(&path)?;
    migrate(&mut connection, STEPS)?;
    let wal_pages = count_wal_pages(&mut connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let opened = begin_epoch(&transaction, epoch)?;
    let written = Written {
        next_offset: opened.next_offset.get(),
        at: opened.at,
        unflushed: false,
        forgotten: forgotten(&transaction)?,
    };
    transaction.commit()?;
    let trimming = Trimming::new(&connection, &options)?;
    let reader = SqliteReader::open(path, options.replay_readers_max)?.into();
    let topics = Topics::new(options.retention);
    Ok(SqliteStore {
        connection,
        reader,
        opened,
        topics,
        trimming,
        written,
        wal_pages,
        flushes: None,
        stopped: false,
        _lock: lock,
    })
}

fn connect_writer(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let reason = "its file system cannot share memory between connections".into();
        return Err(StoreError::CannotOpen { reason });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    // Trimming moves the pages, at a moment when nobody waits, and sees how that ends.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// A connection that reads, and can do nothing else.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Gives the new epoch a row: it begins after every offset that the file has ever seen.
fn begin_epoch(transaction: &Transaction<'_>, epoch: Epoch) -> Result<Opened, StoreError> {
    let newest = transaction.query_row(
        "SELECT offset, at FROM events ORDER BY offset DESC LIMIT 1",
        [],
        |row| Ok((number(row.get(0)?), number(row.get(1)?))),
    );
    let newest = match newest {
        Err(rusqlite::Error::QueryReturnedNoRows) => (0, 0),
        other => other?,
    };
    let next_offset = (newest.0 + 1).max(meta(transaction, "next_offset")?);
    let at = Timestamp::from_millis(newest.1.max(meta(transaction, "newest_at")?));
    let mut epochs = known_epochs(transaction)?;
    if epochs.iter().any(|(known, _)| *known == epoch) {
        return Err(StoreError::EpochTaken);
    }
    transaction.execute(
        "INSERT INTO epochs (epoch, first_offset) VALUES (?, ?)",
        (epoch.as_str(), column(next_offset)),
    )?;
    transaction.execute(
        "DELETE FROM epochs WHERE number <= (SELECT max(number) FROM epochs) - ?",
        [EPOCHS_MAX],
    )?;
    epochs.push((epoch, Offset::new(next_offset)));
    let surplus = epochs.len().saturating_sub(EPOCHS_MAX as usize);
    epochs.drain(..surplus);
    let fingerprint_key = transaction.query_row(
        "SELECT value FROM meta WHERE name = 'fingerprint_key'",
        [],
        |row| row.get(0),
    )?;
    Ok(Opened { epochs, next_offset: Offset::new(next_offset), at, fingerprint_key })
}

fn known_epochs(transaction: &Transaction<'_>) -> Result<Vec<(Epoch, Offset)>, StoreError> {
    let mut select =
        transaction.prepare("SELECT epoch, first_offset FROM epochs ORDER BY number")?;
    let mut rows = select.query([])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let Some(epoch) = Epoch::parse(&text) else {
            return Err(StoreError::Corrupt { reason: "an epoch has another form".into() });
        };
        epochs.push((epoch, Offset::new(number(row.get(1)?))));
    }
    Ok(epochs)
}
