//! The writer of a store. Each commit of events is one transaction, and so is each step of
//! trimming, which evicts old events.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use downlink_log::{
    ClockState, Epoch, Fingerprint, IdempotencyKey, Offset, RetentionRules, Timestamp,
    store::{Durability, Opened, Store, StoreError, StoreReader, StoredEvent, Trimmed},
};
use rusqlite::{Connection, TransactionBehavior, config::DbConfig, hooks::Wal, params};

use crate::{
    fault::{Fault, Result},
    file::{Backup, Pool, begin_epoch, connect_writer, read_opened},
    lock::WriterLock,
    reader::SqliteReader,
    schema::{STEPS, is_present, migrate},
    sql::{OfSameId, Sql as _, checksum, column, find_id, find_key, set_meta, topics_column},
    topics::{TopicCache, cost},
    trim::{SqliteOptions, Trimming, trim_step},
};

/// When the write-ahead log has this many pages (16 MiB), a checkpoint moves them into the file.
/// With SQLite's default of 1,000, pages that change frequently would be moved four times as often.
/// With double the number, opening the store after a crash would take longer.
const CHECKPOINT_PAGES: usize = 4_000;

/// The maximum number of bytes that a probe writes to find out whether a full disk has room again.
/// This number is the default maximum size of an event. A batch may be larger, but most batches fit
/// on a disk that has room for this many bytes.
const PROBE_BYTES_MAX: usize = 1 << 20;

/// After this time without a commit, the writer frees its cache: the pages of the file that it
/// keeps in memory. A few hundred commits fill the cache again. With a shorter time, the writer
/// would free the cache during short pauses of the publishers, and then read the same pages again.
const CACHE_IDLE: Duration = Duration::from_secs(5);

/// The writer of a store in one SQLite file.
///
/// ```
/// use downlink_log::{Epoch, Timestamp, store::{Store, StoreError}};
/// use downlink_sqlite::{SqliteOptions, SqliteStore};
/// # let folder = std::env::temp_dir().join(format!("downlink-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|_| StoreError::ReadOnly)?;
/// # let path = folder.join("example.db");
/// let now = Timestamp::from_millis(1_700_000_000_000);
/// let store = SqliteStore::open(&path, Epoch::from_random(7), now, SqliteOptions::default())?;
/// assert_eq!(store.opened().next_offset.get(), 1);
/// # drop(store);
/// # std::fs::remove_dir_all(&folder).map_err(|_| StoreError::ReadOnly)?;
/// # Ok::<(), StoreError>(())
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    pool: Arc<Pool>,
    opened: Opened,
    opening: OpenParameters,
    /// `None` if the disk was full when the store was opened, and at every attempt since then.
    writer: Option<SqliteWriter>,
    /// Dropped after the connections, so that the next process finds the file closed.
    _lock: WriterLock,
}

/// The parameters of an opening.
#[derive(Debug)]
struct OpenParameters {
    epoch: Epoch,
    now: Timestamp,
    options: SqliteOptions,
}

/// The connection that writes, and the state that belongs to it.
#[derive(Debug)]
pub(crate) struct SqliteWriter {
    pub(crate) connection: Connection,
    pub(crate) topics: TopicCache,
    pub(crate) trimming: Trimming,
    pub(crate) written: Written,
    /// The difference between the wall clock and the time stamps, in milliseconds. The next
    /// transaction stores it in `meta.clock_delta`.
    pub(crate) clock_delta: i64,
    /// An upper bound for the number of pages in the write-ahead log that are not in the file yet.
    wal_pages: Arc<AtomicUsize>,
    /// The durability that the connection is set to; `None` if unknown.
    flushes: Option<Durability>,
    cache: Cache,
    stopped: bool,
}

/// The pages that the writing connection keeps in memory.
#[derive(Clone, Copy, Debug)]
enum Cache {
    /// Something was committed since the last step of trimming.
    Busy,
    /// Nothing was committed since this time.
    Idle(Timestamp),
    Freed,
}

/// The state of the file after the last transaction. If a transaction fails, the writer restores
/// the earlier value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) next_offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) clock_delta: i64,
    /// Whether a committed event has not been flushed to the disk yet.
    pub(crate) unflushed: bool,
}

impl SqliteStore {
    /// Opens the file, or creates it, and begins an epoch. The epoch lasts until the next opening.
    ///
    /// If the file has the current layout, opening takes the same time for any number of events. If
    /// the file has an older layout, this function changes it to the current layout, and lowers
    /// every time stamp after `now` to `now`. `now` is the time of the wall clock.
    ///
    /// If the disk is full, a store with the current layout can still be opened and read. The
    /// store's [`Opened::refuses`] says why the store accepts no events.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`InUse`](StoreError::InUse) if another process still has the file open
    /// after `wait_for`. After an error, the file is unchanged, with one exception: an older layout
    /// may already have been changed to the current layout.
    pub fn open(
        path: &Path,
        epoch: Epoch,
        now: Timestamp,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        // The path is made absolute because the working folder may change later.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let lock = WriterLock::take(&path, options.wait_for)?;
        let pool = Arc::new(Pool::new(path, &lock));
        let opening = OpenParameters { epoch, now, options };
        let (writer, opened) = match opening.begin(&pool) {
            Ok((writer, opened)) => (Some(writer), opened),
            Err(Fault(StoreError::DiskFull)) => (None, opening.read(&pool)?),
            Err(Fault(error)) => return Err(error),
        };
        Ok(Self { pool, opened, opening, writer, _lock: lock })
    }

    /// A handle that makes backups from another thread.
    pub fn backup(&self) -> Backup {
        Backup { path: self.pool.path.clone(), _file: self.pool.file.clone() }
    }

    /// The writer. If the disk was full at the last attempt, this tries to open the writer again.
    fn writer(&mut self) -> Result<&mut SqliteWriter, StoreError> {
        if self.writer.is_none() {
            let (writer, opened) = self.opening.begin(&self.pool)?;
            if opened.next_offset != self.opened.next_offset {
                // The next offset has changed although this store holds the lock. So another
                // program wrote to the file and ignored the lock.
                return Err(StoreError::Corrupt {
                    reason: "another program wrote to its file while this program had it open"
                        .into(),
                });
            }
            self.writer = Some(writer);
        }
        self.writer.as_mut().ok_or(StoreError::Stopped)
    }
}

impl OpenParameters {
    /// Opens the writer and begins the epoch.
    fn begin(&self, pool: &Pool) -> Result<(SqliteWriter, Opened)> {
        let Self { epoch, now, options } = self;
        pool.or_alone(|| {
            let mut connection = connect_writer(&pool.path)?;
            migrate(&mut connection, STEPS, *now)?;
            let wal_pages = count_wal_pages(&mut connection)?;
            let opened = begin_epoch(&mut connection, *epoch)?;
            let clock = opened.clock.unwrap_or_default();
            let next_offset = opened.next_offset.get();
            let writer = SqliteWriter::new(connection, wal_pages, (next_offset, clock), options)?;
            Ok((writer, opened))
        })
    }

    /// Reads the state that the log needs at its start. The disk is full, so the file can be read
    /// but not written.
    fn read(&self, pool: &Pool) -> Result<Opened, StoreError> {
        let full = StoreError::DiskFull;
        // Only a file with the current layout can be read without writing to it. A new file has no
        // tables yet, and a file with an older layout must be migrated first.
        pool.read(|db| match is_present(db)? {
            true => Ok(Opened { refuses: Some(full), ..read_opened(db, self.epoch)? }),
            false => Err(full.into()),
        })
    }
}

impl SqliteWriter {
    /// The writer of a file whose next offset and clock are given.
    pub(crate) fn new(
        connection: Connection,
        wal_pages: Arc<AtomicUsize>,
        (next_offset, clock): (u64, ClockState),
        options: &SqliteOptions,
    ) -> Result<Self> {
        let ClockState { at, delta_ms: clock_delta } = clock;
        Ok(Self {
            topics: TopicCache::new(options.retention.clone()),
            trimming: Trimming::new(&connection, options.clone())?,
            connection,
            written: Written { next_offset, at, clock_delta, unflushed: false },
            clock_delta,
            wal_pages,
            flushes: None,
            cache: Cache::Freed,
            stopped: false,
        })
    }

    /// Notes a commit. The page cache is then kept for a while.
    pub(crate) fn note_busy(&mut self) {
        self.cache = Cache::Busy;
    }

    /// Flushes all commits, if any was not flushed.
    pub(crate) fn flush_all(&mut self) -> Result<(), StoreError> {
        self.write(|writer| if writer.written.unflushed { writer.flush_log() } else { Ok(()) })
    }

    /// Does one step of trimming, of checkpoints, and of freeing memory.
    pub(crate) fn trim_all(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        let trimmed = self.write(|writer| writer.trim_batch(now))?;
        self.write(Self::checkpoint)?;
        self.write(|writer| writer.free_idle_cache(trimmed, now))
    }

    pub(crate) fn set_retention(&mut self, retention: RetentionRules) {
        self.topics.set_retention(retention.clone());
        self.trimming.set_retention(retention);
    }

    fn commit_batch(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<()> {
        let Some(last) = batch.last() else { return Ok(()) };
        check_rising(batch, self.written.next_offset)?;
        self.set_flushing(durability)?;
        self.cache = Cache::Busy;
        let Self { connection, topics, trimming, written, clock_delta, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        topics.unindexed(&transaction)?;
        let mut writing = Writing { db: &transaction, topics, trimming };
        batch.iter().try_for_each(|event| writing.write(event))?;
        written.next_offset = last.offset.get() + 1;
        written.at = written.at.max(last.at);
        written.unflushed = durability == Durability::Relaxed;
        // An event without recipients or without a payload has no row in `events`, so its offset
        // and time are stored in `meta` for the next opening.
        let is_bare = last.to.is_empty() || last.payload.is_none();
        written.note(&transaction, is_bare, *clock_delta)?;
        Ok(transaction.commit()?)
    }

    /// Makes a durable transaction, which also flushes everything before it to the disk.
    fn flush_log(&mut self) -> Result<()> {
        self.set_flushing(Durability::Commit)?;
        self.connection.run("UPDATE meta SET value = value + 1 WHERE name = 'flushes'", [])?;
        self.written.unflushed = false;
        Ok(())
    }

    /// Writes about this many bytes and frees them again, to find out whether the disk has room.
    fn write_and_free(&mut self, bytes: usize) -> Result<()> {
        self.set_flushing(Durability::Commit)?;
        let sql = "INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))";
        self.connection.run(sql, [column(bytes.clamp(1, PROBE_BYTES_MAX))])?;
        self.connection.run("DELETE FROM meta WHERE name = 'probe'", [])?;
        self.written.unflushed = false;
        Ok(())
    }

    fn trim_batch(&mut self, now: Timestamp) -> Result<Trimmed> {
        self.set_flushing(Durability::Relaxed)?;
        let Self { connection, topics, trimming, written, clock_delta, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (trimmed, evicted) = trim_step(&transaction, topics, trimming, now)?;
        // This step may have evicted the newest event. Its offset is stored, so that the store does
        // not assign the same offset again after the next opening.
        written.note(&transaction, evicted, *clock_delta)?;
        transaction.commit()?;
        self.cache = if evicted || trimmed == Trimmed::More { Cache::Busy } else { self.cache };
        Ok(trimmed)
    }

    /// Moves the pages of the write-ahead log into the file if there are enough of them.
    fn checkpoint(&mut self) -> Result<()> {
        if self.wal_pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            return Ok(());
        }
        // The checkpoint does not wait for readers. Pages that a reader still needs stay in the
        // write-ahead log, and a later step tries again.
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        self.wal_pages.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Frees the cache if the store has been idle for [`CACHE_IDLE`]. Returns the time of the next
    /// step.
    fn free_idle_cache(&mut self, trimmed: Trimmed, now: Timestamp) -> Result<Trimmed> {
        let Trimmed::Until(next) = trimmed else { return Ok(trimmed) };
        let since = match self.cache {
            Cache::Busy => now,
            Cache::Idle(since) => since,
            Cache::Freed => return Ok(trimmed),
        };
        let due = since.after(CACHE_IDLE);
        if now < due {
            self.cache = Cache::Idle(since);
            return Ok(Trimmed::Until(Some(next.map_or(due, |next| next.min(due)))));
        }
        self.connection.execute_batch("PRAGMA shrink_memory")?;
        self.cache = Cache::Freed;
        Ok(trimmed)
    }

    /// Sets whether the next transaction is flushed to the disk.
    pub(crate) fn set_flushing(&mut self, durability: Durability) -> Result<()> {
        if self.flushes != Some(durability) {
            let level = match durability {
                Durability::Commit => "FULL",
                Durability::Relaxed => "NORMAL",
            };
            self.flushes = None;
            self.connection.pragma_update(None, "synchronous", level)?;
            self.flushes = Some(durability);
        }
        Ok(())
    }

    /// Calls `write`. If `write` fails, this restores the earlier state, and stops the store if the
    /// error is final. If an earlier error has stopped the store, this only returns
    /// [`StoreError::Stopped`].
    pub(crate) fn write<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T, StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        let before = (self.trimming.clone(), self.written);
        let result = write(self).map_err(StoreError::from);
        if let Err(error) = &result {
            self.topics.clear();
            (self.trimming, self.written) = before;
            if error.is_final() {
                self.stopped = true;
                // The state of some pages is unknown, so SQLite must not move pages into the file
                // when the connection is closed. SQLite recovers the pages when the store is opened
                // again.
                let _ =
                    self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
        }
        result
    }
}

impl Written {
    /// Stores the values that are needed when the store is opened the next time. If `newest` is
    /// true, this stores the next offset and the newest time stamp. If the difference between the
    /// wall clock and the time stamps has changed, this stores the difference.
    pub(crate) fn note(&mut self, db: &Connection, newest: bool, clock_delta: i64) -> Result<()> {
        if newest {
            set_meta(db, "next_offset", self.next_offset)?;
            set_meta(db, "newest_at", self.at.as_millis())?;
        }
        if self.clock_delta != clock_delta {
            set_meta(db, "clock_delta", clock_delta)?;
        }
        self.clock_delta = clock_delta;
        Ok(())
    }
}

impl Drop for SqliteWriter {
    /// Moves all pages of the write-ahead log into the file, even if readers are still in use.
    /// After that, a copy of this one file is complete.
    fn drop(&mut self) {
        if !self.stopped {
            // If this checkpoint fails, nothing is lost. SQLite moves the pages when the store is
            // opened again.
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }
}

impl Store for SqliteStore {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        Arc::new(SqliteReader(Arc::clone(&self.pool)))
    }

    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        Ok(find_id(&self.writer()?.connection, id, OfSameId::Newest)?)
    }

    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        Ok(find_key(&self.writer()?.connection, key)?)
    }

    fn set_clock_delta(&mut self, delta_ms: i64) {
        if let Some(writer) = &mut self.writer {
            writer.clock_delta = delta_ms;
        }
    }

    fn commit(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<(), StoreError> {
        self.writer()?.write(|writer| writer.commit_batch(batch, durability))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.flush_all()
    }

    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(Trimmed::Until(None)) };
        writer.trim_all(now)
    }

    fn set_retention(&mut self, retention: RetentionRules) {
        if let Some(writer) = &mut self.writer {
            writer.set_retention(retention.clone());
        }
        self.opening.options.retention = retention;
    }

    fn probe(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.writer()?.write(|writer| writer.write_and_free(bytes))
    }
}

/// Counts the pages in the write-ahead log after each commit of a connection.
pub(crate) fn count_wal_pages(connection: &mut Connection) -> Result<Arc<AtomicUsize>> {
    let pages = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&pages);
    // Relaxed ordering is enough, because the same thread writes and reads the number.
    connection.wal_hook(Some(move |_: &mut Wal, count: std::ffi::c_int| {
        seen.store(usize::try_from(count).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

/// Checks that the offsets of a batch rise and that the first is at least `next_offset`.
fn check_rising(batch: &[StoredEvent], next_offset: u64) -> Result<()> {
    let next = batch.iter().try_fold(next_offset, |least, event| match event.offset.get() {
        offset if offset < least => Err(StoreError::OffsetNotRising { offset, least }),
        offset => Ok(offset + 1),
    });
    Ok(next.map(|_| ())?)
}

/// A transaction that writes events.
pub(crate) struct Writing<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) topics: &'a mut TopicCache,
    pub(crate) trimming: &'a mut Trimming,
}

impl Writing<'_> {
    pub(crate) fn write(&mut self, event: &StoredEvent) -> Result<()> {
        let (offset, at) = (event.offset.get(), event.at.as_millis());
        let is_kept = event.payload.is_some() || event.finish;
        let numbers = if is_kept { self.numbers(event)? } else { Vec::new() };
        if let Some(payload) = event.payload.as_deref().filter(|_| !numbers.is_empty()) {
            let id = event.id.as_deref();
            let fingerprint = id.map(|_| event.fingerprint.to_bytes());
            let sum = checksum(offset, id.map(str::as_bytes), payload);
            let topics = topics_column(&numbers);
            self.db.run(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![offset, at, topics, id, fingerprint, event.finish, payload, sum],
            )?;
            for &number in &numbers {
                let over = self.topics.add(self.db, number, cost(payload.len()))?;
                self.trimming.over.extend(over);
            }
            self.trimming.grown = true;
            self.trimming.added += numbers.len();
        }
        if event.finish {
            for number in numbers {
                let sql = "UPDATE topics SET finished = ?, finished_at = ? WHERE number = ?";
                self.db.run(sql, (offset, at, number))?;
            }
        }
        if let Some(key) = &event.key {
            let fingerprint = event.fingerprint.to_bytes();
            let sql = "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)";
            self.db.run(sql, (offset, at, &key.credential, &key.key, fingerprint))?;
            self.trimming.keys += 1;
        }
        Ok(())
    }

    /// The numbers of the topics of an event. The row of a topic may say that the topic has no
    /// events and no finish mark (the record that the topic is finished). This function changes
    /// such a row, because the topic now gets an event.
    fn numbers(&mut self, event: &StoredEvent) -> Result<Vec<i64>> {
        let mut numbers = Vec::with_capacity(event.to.len());
        for address in &event.to {
            let topic = self.topics.topic_of(self.db, address)?;
            numbers.push(topic.number);
            if std::mem::take(&mut topic.emptied) {
                let filled = "UPDATE topics SET emptied = NULL WHERE number = ?";
                self.db.run(filled, [topic.number])?;
                self.trimming.emptied = self.trimming.emptied.saturating_sub(1);
            }
        }
        Ok(numbers)
    }
}
