//! Opening a file: the settings of the connection, and a new epoch.

use std::path::Path;

use downlink_log::{
    ClockState, Epoch, Offset, Timestamp,
    store::{Opened, StoreError},
};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{
    fault::{Fault, Result},
    pool::connect,
    sql::{Sql as _, meta},
};

/// SQLite's own page size too. With larger pages a commit of one event writes more, since each page
/// it touches goes to the log whole; with smaller ones payloads overflow.
const PAGE_BYTES: i64 = 4_096;

/// Pages the writer keeps in memory, in KiB: the right edges of all indexes and the neighbourhood of
/// several thousand busy topics.
const WRITER_CACHE_KIB: i64 = 16 * 1_024;

/// Bytes of the write-ahead log that stay on the disk after it was emptied: several times its size
/// between two checkpoints. A long reader can make it grow beyond; that part is given back.
const WAL_KEPT_BYTES: i64 = 32 << 20;

/// Lives of the log that are remembered: with ten restarts a day, a year. An id of an older one is
/// answered like an id of an unknown epoch.
const EPOCHS_MAX: usize = 4_096;

/// A connection that writes. Makes the file if there is none.
pub(crate) fn connect_writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let db = connect(path, flags)?;
    db.pragma_update(None, "page_size", PAGE_BYTES)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let reason = "its file system cannot share memory between connections".into();
        return Err(StoreError::CannotOpen { reason }.into());
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    db.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    // Trimming moves the pages, while no publisher waits, and checks the result.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(db)
}

/// Begins an epoch after every offset that the file has ever seen, and reads what the log needs.
pub(crate) fn begin_epoch(connection: &mut Connection, epoch: Epoch) -> Result<Opened> {
    let db = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // The newest event, and the notes of the last transaction without an event.
    let newest = "SELECT offset + 1, at FROM events ORDER BY offset DESC LIMIT 1";
    let (next, at): (u64, u64) = db.first(newest, [])?.unwrap_or_default();
    let next_offset = Offset::new(next.max(meta(&db, "next_offset")?));
    let at = Timestamp::from_millis(at.max(meta(&db, "newest_at")?));
    let clock = ClockState { at, delta_ms: meta(&db, "clock_delta")? };
    let rows: Vec<(String, u64)> =
        db.all("SELECT epoch, first_offset FROM epochs ORDER BY number", [])?;
    let mut epochs = Vec::with_capacity(rows.len() + 1);
    for (text, first) in rows {
        let known =
            Epoch::parse(&text).ok_or_else(|| Fault::corrupt("an epoch of another form"))?;
        epochs.push((known, Offset::new(first)));
    }
    if epochs.iter().any(|(known, _)| *known == epoch) {
        return Err(StoreError::EpochTaken.into());
    }
    db.run(
        "INSERT INTO epochs (epoch, first_offset) VALUES (?, ?)",
        (epoch.as_str(), next_offset.get()),
    )?;
    db.run(
        "DELETE FROM epochs WHERE number <= (SELECT max(number) FROM epochs) - ?",
        [EPOCHS_MAX],
    )?;
    epochs.push((epoch, next_offset));
    epochs.drain(..epochs.len().saturating_sub(EPOCHS_MAX));
    let clock = (clock != ClockState::default()).then_some(clock);
    let fingerprint_key = meta(&db, "fingerprint_key")?;
    db.commit()?;
    Ok(Opened { epochs, next_offset, clock, fingerprint_key })
}
