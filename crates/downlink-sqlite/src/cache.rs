//! The cache of a replica, in one SQLite file. A replica is a log that follows another log, its
//! upstream. The feed is the content of the upstream, and the replica receives it in chunks. The
//! cache has the tables of a store, and is read like a store. Each chunk is one transaction, which
//! also writes the position: the offset up to which the replica has everything. So even after a
//! power cut, the position and the events agree.
//!
//! A mark is a hash of everything up to a position of a cluster's journal. A link is a mark with
//! its position and time. A finish mark is something else: it records that a topic is finished.
//!
//! Everything in a cache can be fetched again. So a cache that is damaged, or that another version
//! has written, is emptied. The application id in the file's header tells a cache from a store, so
//! the history of a store is never emptied.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use downlink_log::{
    Address, ClockState, Epoch, Fingerprint, Floor, IdempotencyKey, LINKS_MAX, MARKS_MAX, Offset,
    RetentionRules, Timestamp,
    store::{
        Cache, Durability, FeedChunk, Link, Losses, Mark, Marks, NodeState, OpenedCache,
        StoreError, StoreReader, StoredEvent, Trimmed,
    },
};
use rusqlite::{Connection, TransactionBehavior, config::DbConfig};

use crate::{
    cut::cut,
    fault::{Fault, Result},
    file::{EPOCHS_MAX, Pool, connect_writer, read_end, read_epochs},
    lock::WriterLock,
    reader::SqliteReader,
    schema::{CACHE_LAYOUT, CacheFile, check_cache, create_cache},
    sql::{OfSameId, Sql as _, TopicEvictions, find_id, find_key, kind_and_name, meta, set_meta},
    store::{SqliteWriter, Writing, count_wal_pages},
    trim::{SqliteOptions, Trimming, index_all, lose},
};

/// The writer of a cache in one SQLite file.
///
/// ```
/// use downlink_log::store::{Cache, StoreError};
/// use downlink_sqlite::{SqliteCache, SqliteOptions};
/// # let folder = std::env::temp_dir().join(format!("downlink-cache-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|_| StoreError::ReadOnly)?;
/// # let path = folder.join("cache.db");
/// let cache = SqliteCache::open(&path, SqliteOptions::default())?;
/// assert_eq!(cache.opened().position, None);
/// # drop(cache);
/// # std::fs::remove_dir_all(&folder).map_err(|_| StoreError::ReadOnly)?;
/// # Ok::<(), StoreError>(())
/// ```
#[derive(Debug)]
pub struct SqliteCache {
    pool: Arc<Pool>,
    opened: OpenedCache,
    options: SqliteOptions,
    writer: SqliteWriter,
    /// The epochs that the next chunk writes.
    epochs: Option<Vec<(Epoch, Offset)>>,
    /// Whether the next chunk first discards the contents.
    discards: bool,
    /// The numbers of the topics that may have a finish mark.
    finished: HashSet<i64>,
    /// The positions of the marks in the file.
    marks: Marked,
    /// Whether the file says that a chunk was applied.
    is_applied: bool,
    /// Dropped after the connections, so that the next process finds the file closed.
    lock: WriterLock,
}

/// The positions of the marks in the file, as a half-open range.
#[derive(Clone, Copy, Debug, Default)]
struct Marked {
    first: u64,
    until: u64,
}

impl SqliteCache {
    /// Opens the file, or creates it. Opening takes the same time for any number of events.
    ///
    /// A cache that is damaged or has another layout is emptied. [`OpenedCache::discarded`] then
    /// says why. Deleting the file while no process has it open has the same effect.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: [`IsStore`](StoreError::IsStore) if the file is an ordinary store, and
    /// [`NotAStore`](StoreError::NotAStore) if the file belongs to another program. The file is
    /// then unchanged.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        // The path is made absolute because the working folder may change later.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let lock = WriterLock::take(&path, options.wait_for)?;
        let mut connection = connect_writer(&path)?;
        let discarded = match check_cache(&connection)? {
            CacheFile::New => None,
            CacheFile::Current => read_all(&connection, &options).err().map(StoreError::from),
            CacheFile::Other(found) => {
                Some(StoreError::NewerVersion { found, known: CACHE_LAYOUT })
            }
        };
        let is_new = check_cache(&connection)? == CacheFile::New;
        if let Some(error) = &discarded {
            if !is_damage(error) {
                return Err(error.clone());
            }
            empty(&mut connection)?;
        }
        if is_new || discarded.is_some() {
            create_cache(&mut connection, 1)?;
        }
        let Contents { opened, next, clock, finished, marks, life } =
            read_all(&connection, &options)?;
        let pool = Arc::new(Pool::of_cache(path, &lock, life));
        let wal_pages = count_wal_pages(&mut connection)?;
        let writer = SqliteWriter::new(connection, wal_pages, (next, clock), &options)?;
        let opened = OpenedCache { discarded, ..opened };
        let is_applied = opened.position.is_some();
        let (epochs, discards) = (None, false);
        Ok(Self {
            pool,
            opened,
            options,
            writer,
            epochs,
            discards,
            finished,
            marks,
            is_applied,
            lock,
        })
    }

    /// Empties the file, and makes new tables. The number of their contents, `meta.life`, is the
    /// one that `pool` expects, so `pool` can read them.
    fn discard(&mut self) -> Result<()> {
        let Self { writer, options, pool, .. } = self;
        empty(&mut writer.connection)?;
        create_cache(&mut writer.connection, pool.life.unwrap_or_default())?;
        writer.topics.clear();
        writer.trimming = Trimming::new(&writer.connection, options.clone())?;
        writer.written.next_offset = 1;
        writer.written.at = Timestamp::default();
        writer.written.clock_delta = 0;
        self.finished.clear();
        self.marks = Marked::default();
        self.is_applied = false;
        self.discards = false;
        Ok(())
    }

    /// The connections for the contents of the file after the next change of `meta.life`.
    fn next_pool(&self) -> Arc<Pool> {
        let life = self.pool.life.unwrap_or_default() + 1;
        Arc::new(Pool::of_cache(self.pool.path.clone(), &self.lock, life))
    }
}

impl Marked {
    fn read(db: &Connection) -> Result<Self> {
        let sql = "SELECT min(position), max(position) + 1 FROM marks";
        let ends: Option<(Option<u64>, Option<u64>)> = db.first(sql, [])?;
        let (first, until) = ends.unwrap_or_default();
        Ok(Self { first: first.unwrap_or_default(), until: until.unwrap_or_default() })
    }
}

/// The contents of a cache that its writer needs.
struct Contents {
    opened: OpenedCache,
    next: u64,
    clock: ClockState,
    finished: HashSet<i64>,
    marks: Marked,
    life: i64,
}

/// Whether an error shows that the contents of a cache cannot be used.
fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. } | StoreError::NewerVersion { .. })
}

fn read_all(db: &Connection, options: &SqliteOptions) -> Result<Contents> {
    let is_applied = meta::<u64>(db, "applied")? > 0;
    let (next, clock) = read_end(db)?;
    let (marks, known, links) = read_marks(db)?;
    let hub = db.first("SELECT state FROM hub", [])?.map(|(state,)| state);
    let finished = read_finished(db)?;
    // These values are read when the writer is made. If they are missing, the cache is damaged.
    let _ = (Trimming::new(db, options.clone())?, TopicEvictions::forgotten(db)?);
    let opened = OpenedCache {
        epochs: read_epochs(db)?,
        marks: Marks { base: meta(db, "base")?, first: marks.first, marks: known },
        node: NodeState { hub, links },
        unknown_below: Some(Offset::new(meta(db, "unknown_below")?))
            .filter(|at| *at > Offset::FIRST),
        position: is_applied.then_some(Offset::new(next)),
        clock: is_applied.then_some(clock),
        fingerprint_key: meta(db, "fingerprint_key")?,
        discarded: None,
    };
    Ok(Contents { opened, next, clock, finished, marks, life: meta(db, "life")? })
}

/// The marks and the newest links.
fn read_marks(db: &Connection) -> Result<(Marked, Vec<Mark>, Vec<Link>)> {
    let marked = Marked::read(db)?;
    let mut select = db.prepare("SELECT position, mark, time FROM marks ORDER BY position")?;
    let (mut rows, mut marks, mut links) = (select.query([])?, Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (position, mark) = (row.get::<_, u64>(0)?, row.get::<_, i64>(1)?.cast_unsigned());
        if position != marked.first + marks.len() as u64 {
            return Err(Fault::corrupt("a mark is missing"));
        }
        marks.push(Mark::new(mark));
        match row.get::<_, Option<i64>>(2)? {
            // The links must have no holes. So the links before a position without a time are
            // dropped.
            None => links.clear(),
            Some(_) if marked.until - position > LINKS_MAX as u64 => {}
            Some(time) => {
                links.push(Link {
                    position,
                    mark,
                    time: Timestamp::from_millis(time.cast_unsigned()),
                });
            }
        }
    }
    Ok((marked, marks, links))
}

/// The numbers of the topics with a finish mark.
fn read_finished(db: &Connection) -> Result<HashSet<i64>> {
    let sql = "SELECT number FROM topics WHERE finished IS NOT NULL";
    Ok(db.all(sql, [])?.into_iter().map(|(number,)| number).collect())
}

/// Removes everything from a file, even if the file is damaged. The file is not replaced, so its
/// lock stays valid.
fn empty(connection: &mut Connection) -> Result<()> {
    connection.flush_prepared_statement_cache();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
    let emptied = connection.execute_batch("VACUUM");
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false)?;
    emptied?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode == "wal" { Ok(()) } else { Err(Fault::corrupt("the file is not in WAL mode")) }
}

/// Removes the events from an offset on, in one transaction.
fn cut_writer(
    writer: &mut SqliteWriter,
    options: &SqliteOptions,
    until: Offset,
) -> Result<Vec<Box<str>>> {
    writer.set_flushing(Durability::Relaxed)?;
    let SqliteWriter { connection, topics, trimming, written, .. } = writer;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    index_all(&transaction, topics, trimming)?;
    let ids = cut(&transaction, until.get())?;
    set_meta(&transaction, "newest_at", written.at.as_millis())?;
    topics.clear();
    *trimming = Trimming::new(&transaction, options.clone())?;
    transaction.commit()?;
    written.next_offset = until.get();
    written.unflushed = true;
    Ok(ids)
}

/// One chunk, and the state of the cache that it changes.
struct ChunkWrite<'a> {
    chunk: &'a FeedChunk,
    losses: &'a Losses,
    epochs: Option<&'a [(Epoch, Offset)]>,
    finished: &'a mut HashSet<i64>,
    marks: &'a mut Marked,
    is_applied: &'a mut bool,
}

impl ChunkWrite<'_> {
    fn run(&mut self, writer: &mut SqliteWriter) -> Result<()> {
        writer.set_flushing(Durability::Relaxed)?;
        writer.note_busy();
        let SqliteWriter { connection, topics, trimming, written, .. } = writer;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(epochs) = self.epochs {
            write_epochs(&transaction, epochs)?;
        }
        if !self.losses.is_empty() {
            lose(&transaction, topics, trimming, self.losses)?;
        }
        if let Some(Floor { offset, .. }) =
            self.losses.others.filter(|_| self.losses.known.is_empty())
        {
            let sql = "UPDATE meta SET value = max(value, ?) WHERE name = 'unknown_below'";
            transaction.run(sql, [offset.get()])?;
        }
        self.write_marks(&transaction)?;
        if let Some(state) = self.chunk.node.as_ref().and_then(|node| node.hub.as_ref()) {
            transaction.run("INSERT OR REPLACE INTO hub VALUES (1, ?)", [state])?;
        }
        topics.unindexed(&transaction)?;
        let mut writing = Writing { db: &transaction, topics, trimming };
        let (next, mut newest) = (written.next_offset, None);
        for event in self.chunk.events.iter().filter(|event| event.offset.get() >= next) {
            if self.write_event(&mut writing, event)? {
                newest = Some(event.offset.get() + 1);
            }
            written.at = written.at.max(event.at);
        }
        written.next_offset = next.max(self.chunk.next.get());
        written.unflushed = true;
        // If the chunk ends with its newest event, the row of this event contains the position and
        // the time. Otherwise they are stored in `meta`. They are also stored there after losses,
        // because losses may have evicted the row of an earlier event.
        let is_bare = newest != Some(written.next_offset) || !self.losses.is_empty();
        if is_bare {
            written.at = written.at.max(self.chunk.clock.at);
        }
        written.note(&transaction, is_bare, self.chunk.clock.delta_ms)?;
        if !std::mem::replace(self.is_applied, true) {
            set_meta(&transaction, "applied", 1)?;
        }
        Ok(transaction.commit()?)
    }

    /// Writes an event. Returns whether the event has a row in `events` now. An event without a
    /// payload, such as a finish mark, has no row.
    fn write_event(&mut self, writing: &mut Writing<'_>, event: &StoredEvent) -> Result<bool> {
        let rest = self.above_floors(writing.db, event)?;
        match &rest {
            None => writing.write(event)?,
            Some(rest) => {
                if !rest.to.is_empty() {
                    writing.write(rest)?;
                }
                if event.finish {
                    writing.write(&StoredEvent { payload: None, id: None, ..event.clone() })?;
                }
            }
        }
        let to = rest.as_ref().map_or(&event.to, |rest| &rest.to);
        let has_row = event.payload.is_some() && !to.is_empty();
        if !event.finish && self.finished.is_empty() {
            return Ok(has_row);
        }
        for address in &event.to {
            let number = writing.topics.topic_of(writing.db, address)?.number;
            if event.finish {
                self.finished.insert(number);
            } else if self.finished.remove(&number) {
                // The upstream knows which topics are finished. So an event reopens a topic that is
                // still finished here.
                let sql = "UPDATE topics SET finished = NULL, finished_at = NULL WHERE number = ?";
                writing.db.run(sql, [number])?;
            }
        }
        Ok(has_row)
    }

    /// If a chunk raises floors, an event may be below the floor of one of its topics. Then this
    /// returns the event without such topics. Returns `None` if the event is above all floors.
    fn above_floors(&self, db: &Connection, event: &StoredEvent) -> Result<Option<StoredEvent>> {
        if self.losses.is_empty() {
            return Ok(None);
        }
        let mut rest = event.clone();
        rest.to.clear();
        for address in &event.to {
            if floor_of(db, address)? <= event.offset.get() {
                rest.to.push(address.clone());
            }
        }
        Ok((rest.to.len() < event.to.len()).then_some(rest))
    }

    fn write_marks(&mut self, db: &Connection) -> Result<()> {
        let Marks { base, first, marks } = &self.chunk.marks;
        if marks.is_empty() {
            return Ok(());
        }
        if *first > self.marks.until || meta::<u64>(db, "base")? != *base {
            db.run("DELETE FROM marks", [])?;
            set_meta(db, "base", *base)?;
            *self.marks = Marked { first: *first, until: *first };
        }
        let links = self.chunk.node.as_ref().map_or(&[][..], |node| node.links.as_slice());
        let links = links.iter().map(Some).chain(std::iter::repeat(None));
        for ((mark, link), position) in marks.iter().zip(links).zip(*first..) {
            if position >= self.marks.until {
                let mark = link.map_or(mark.get(), |link| link.mark).cast_signed();
                let time = link.map(|link| link.time.as_millis().cast_signed());
                db.run("INSERT INTO marks VALUES (?, ?, ?)", (position, mark, time))?;
                self.marks.until = position + 1;
            }
        }
        let oldest = self.marks.until.saturating_sub(MARKS_MAX as u64);
        if self.marks.first < oldest {
            db.run("DELETE FROM marks WHERE position < ?", [oldest])?;
            self.marks.first = oldest;
        }
        Ok(())
    }
}

fn write_epochs(db: &Connection, epochs: &[(Epoch, Offset)]) -> Result<()> {
    db.run("DELETE FROM epochs", [])?;
    let surplus = epochs.len().saturating_sub(EPOCHS_MAX);
    for (epoch, first) in epochs.iter().skip(surplus) {
        let sql = "INSERT INTO epochs (epoch, first_offset) VALUES (?, ?)";
        db.run(sql, (epoch.as_str(), first.get()))?;
    }
    Ok(())
}

fn floor_of(db: &Connection, address: &Address) -> Result<u64> {
    let sql = "SELECT floor FROM topics WHERE kind = ? AND name = ?";
    match db.first(sql, kind_and_name(address))? {
        Some((floor,)) => Ok(floor),
        None => Ok(TopicEvictions::forgotten(db)?.floor.offset.get()),
    }
}

impl Cache for SqliteCache {
    fn opened(&self) -> &OpenedCache {
        &self.opened
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        Arc::new(SqliteReader(Arc::clone(&self.pool)))
    }

    fn begin(&mut self, epochs: &[(Epoch, Offset)], discards: bool) {
        self.epochs = Some(epochs.to_vec());
        if discards {
            self.discards = true;
            self.pool = self.next_pool();
        }
    }

    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        if self.discards {
            return Ok(None);
        }
        Ok(find_id(&self.writer.connection, id, OfSameId::Oldest)?)
    }

    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        if self.discards {
            return Ok(None);
        }
        Ok(find_key(&self.writer.connection, key)?)
    }

    fn cut_to(&mut self, until: Offset) -> Result<Vec<Box<str>>, StoreError> {
        let Self { writer, options, .. } = self;
        let ids = writer.write(|writer| cut_writer(writer, options, until))?;
        let db = &self.writer.connection;
        (self.finished, self.marks) = (read_finished(db)?, Marked::read(db)?);
        self.pool = self.next_pool();
        Ok(ids)
    }

    fn apply(&mut self, chunk: &FeedChunk, losses: &Losses) -> Result<(), StoreError> {
        // The pool of earlier contents may have set this flag when it was closed. But this cache
        // keeps the file open, so another store of the file must not wait for it to close.
        self.lock.is_closing.store(false, Ordering::Relaxed);
        (self.opened.marks, self.opened.node) = (Marks::default(), NodeState::default());
        if self.discards {
            self.discard()?;
        }
        let Self { writer, epochs, finished, marks, is_applied, .. } = self;
        let epochs = epochs.as_deref();
        // After an error, these values may no longer agree with the file. This does no harm,
        // because the log then drops the cache.
        let mut write = ChunkWrite { chunk, losses, epochs, finished, marks, is_applied };
        writer.write(|writer| write.run(writer))?;
        self.epochs = None;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.writer.flush_all()
    }

    fn trim(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        // Until the next chunk, the file has contents that are about to be discarded.
        if self.discards { Ok(Trimmed::Until(None)) } else { self.writer.trim_all(now) }
    }

    fn set_retention(&mut self, rules: RetentionRules) {
        self.writer.set_retention(rules.clone());
        self.options.retention = rules;
    }
}
