//! Trimming: what keeps the file within its limits, in bounded steps.
//!
//! What is evicted raises the floor of its topic in the same transaction, so at every moment a topic
//! has exactly its events from the floor on. A topic that keeps nothing leaves a row with its floor;
//! of these rows too there is a bound, and what is dropped raises the floor of all unknown names. A
//! gap that is none may then be reported; a gap that is one is never hidden.
//!
//! Age is followed by one cursor through the events for each age that a rule names: every event is
//! looked at once for each.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};

use crate::{
    offset::Timestamp,
    retention::RetentionRules,
    store::{
        Durability, SqliteOptions, SqliteStore, StoreError, Trimmed,
        sqlite::{
            fault::{column, number},
            topics::{Topics, forgotten, indexed, keepers, lost, set_meta, topic_numbers},
        },
    },
};

/// Rows looked at or evicted in one step: about five milliseconds. Publishers wait behind a step.
const STEP_ROWS: usize = 512;

/// Events without rows in `memberships` at which they get them. A commit would touch a page for each
/// of its topics; many events together, in the order of topics, share these pages. Every read of a
/// topic looks at these events, so there are no more of them than it looks at anyway, in about two
/// milliseconds.
const INDEX_ROWS: usize = 4_096;

/// Pages in the write-ahead log at which they are moved into the file, 16 MiB. With SQLite's own 1,000
/// busy pages are written four times as often; with more, opening after a crash takes longer.
const CHECKPOINT_PAGES: usize = 4_000;

/// What is left to trim. All of it can be found again by looking through the file.
#[derive(Debug)]
pub(super) struct Trimming {
    rules: RetentionRules,
    bytes_max: u64,
    pub(super) finished_keep: Duration,
    pub(super) floors_max: usize,
    /// Numbers of topics that are over their rule.
    over: VecDeque<i64>,
    ages: Vec<AgeCursor>,
    /// Rows without events and marks, and keys; `None` if they have to be counted.
    pub(super) emptied: Option<usize>,
    pub(super) keys: Option<usize>,
    /// The number of the next topic to be compared with its rule; `None` when all were.
    unchecked: Option<i64>,
    /// Whether a mark may be kept.
    pub(super) finishes: bool,
    /// Whether the file may have grown since its size was looked at.
    grown: bool,
}

/// How far events were looked at for one age.
#[derive(Debug)]
struct AgeCursor {
    age: Duration,
    next: u64,
}

impl Trimming {
    pub(super) fn new(
        connection: &Connection,
        options: &SqliteOptions,
    ) -> Result<Self, StoreError> {
        let rules = options.retention.clone();
        let mut ages: Vec<Duration> = rules.all().filter_map(|rule| rule.age_max).collect();
        ages.sort_unstable();
        ages.dedup();
        let found: String =
            connection
                .query_row("SELECT value FROM meta WHERE name = 'rules'", [], |row| row.get(0))?;
        let unchecked = (found != format!("{rules:?}")).then_some(0);
        Ok(Self {
            rules,
            bytes_max: options.bytes_max,
            finished_keep: options.finished_keep,
            floors_max: options.floors_max,
            over: written_last(connection)?,
            ages: ages.into_iter().map(|age| AgeCursor { age, next: 0 }).collect(),
            emptied: None,
            keys: None,
            unchecked,
            finishes: true,
            grown: true,
        })
    }

    /// Looks through everything again: after a failed transaction nothing here is certain.
    pub(super) fn restart(&mut self) {
        self.over.clear();
        self.ages.iter_mut().for_each(|cursor| cursor.next = 0);
        (self.emptied, self.keys, self.unchecked) = (None, None, Some(0));
        (self.finishes, self.grown) = (true, true);
    }

    pub(super) fn note_event(&mut self, over: Option<i64>) {
        self.over.extend(over);
        self.grown = true;
    }

    pub(super) fn note_key(&mut self) {
        self.keys = self.keys.map(|keys| keys + 1);
    }

    pub(super) fn note_filled(&mut self) {
        self.emptied = self.emptied.map(|rows| rows.saturating_sub(1));
    }

    pub(super) fn note_finish(&mut self) {
        self.finishes = true;
    }
}

impl SqliteStore {
    pub(super) fn trim_step(&mut self, now: Timestamp) -> Result<Trimmed, StoreError> {
        self.set_flushing(Durability::Relaxed)?;
        let Self { connection, topics, trimming, written, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut step = Step {
            connection: &transaction,
            topics,
            trimming,
            rows_left: STEP_ROWS,
            evicted: false,
            next: None,
        };
        step.run(now)?;
        let (more, next, evicted) = (step.rows_left == 0, step.next, step.evicted);
        if evicted {
            // The newest event may be among them: the next opening must not give its offset again.
            set_meta(&transaction, "next_offset", column(written.next_offset))?;
            set_meta(&transaction, "newest_at", column(written.at.as_millis()))?;
        }
        let forgotten = forgotten(&transaction)?;
        transaction.commit()?;
        written.forgotten = forgotten;
        self.checkpoint()?;
        Ok(if more { Trimmed::More } else { Trimmed::Until(next) })
    }

    /// Moves the pages of the write-ahead log into the file, if there are enough of them.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.wal_pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            return Ok(());
        }
        // Readers are not waited for: what they still need stays, and the next step tries again.
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        self.wal_pages.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// One transaction of trimming.
pub(super) struct Step<'a> {
    pub(super) connection: &'a Connection,
    pub(super) topics: &'a mut Topics,
    pub(super) trimming: &'a mut Trimming,
    /// How much more this step may do; 0: there may be more for the next.
    pub(super) rows_left: usize,
    pub(super) evicted: bool,
    /// When something falls due that is not due now.
    next: Option<Timestamp>,
}

/// Up to which offset each of some topics is to be evicted.
type Due = BTreeMap<i64, u64>;

impl Step<'_> {
    fn run(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.topics.unindexed(self.connection)?.rows >= INDEX_ROWS {
            self.index()?;
        }
        self.trim_over()?;
        self.check_rules()?;
        for index in 0..self.trimming.ages.len() {
            self.trim_age(index, now)?;
        }
        self.trim_bytes()?;
        self.forget_finishes(now)?;
        self.forget_keys(now)?;
        self.forget_floors()
    }

    pub(super) fn spend(&mut self, rows: usize) {
        self.rows_left = self.rows_left.saturating_sub(rows);
    }

    pub(super) fn due_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Brings topics within their count and bytes.
    fn trim_over(&mut self) -> Result<(), StoreError> {
        while self.rows_left > 0
            && let Some(&topic) = self.trimming.over.front()
        {
            if self.trim_topic(topic)? {
                self.trimming.over.pop_front();
            }
        }
        Ok(())
    }

    /// Evicts what is too much of one topic; `true` when nothing is any more.
    fn trim_topic(&mut self, number: i64) -> Result<bool, StoreError> {
        let Some(topic) = self.topics.get(self.connection, number)? else { return Ok(true) };
        topic.queued = false;
        let (rule, mut events, mut bytes) = (topic.retention, topic.events, topic.bytes);
        let mut select = self.connection.prepare_cached(
            "SELECT offset, bytes FROM memberships WHERE topic = ? ORDER BY offset LIMIT ?",
        )?;
        let mut rows = select.query((number, self.rows_left as i64))?;
        let mut through = None;
        while events > 1
            && (events > rule.events_max || bytes > rule.bytes_max)
            && let Some(row) = rows.next()?
        {
            through = Some(self::number(row.get(0)?));
            events -= 1;
            bytes = bytes.saturating_sub(row.get::<_, i64>(1)? as usize);
        }
        drop(rows);
        if let Some(through) = through {
            self.evict(number, through)?;
        } else if self.topics.has_unindexed(self.connection, number)? {
            self.index()?;
        }
        self.spend(1);
        Ok(events <= 1 || (events <= rule.events_max && bytes <= rule.bytes_max))
    }

    /// After rules have changed, finds the topics that are now over theirs.
    fn check_rules(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.trimming.unchecked else { return Ok(()) };
        if self.rows_left == 0 {
            return Ok(());
        }
        // A topic costs a count of its events: as many rows as an eviction of some.
        let topics_max = (self.rows_left / 32).max(1);
        let mut select = self.connection.prepare_cached(
            "SELECT number FROM topics WHERE number >= ? ORDER BY number LIMIT ?",
        )?;
        let numbers: Vec<i64> = select
            .query_map((from, topics_max as i64), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for &number in &numbers {
            if self.topics.get(self.connection, number)?.is_some_and(|topic| topic.is_over()) {
                self.trimming.over.push_back(number);
            }
        }
        match numbers.last() {
            Some(last) if numbers.len() == topics_max => {
                self.trimming.unchecked = Some(last + 1);
                self.rows_left = 0;
            }
            _ => {
                self.trimming.unchecked = None;
                set_meta(self.connection, "rules", format!("{:?}", self.trimming.rules))?;
                self.rows_left *= usize::from(self.trimming.over.is_empty());
            }
        }
        Ok(())
    }

    /// Evicts what is older than one of the ages, from the topics whose rule it is.
    fn trim_age(&mut self, index: usize, now: Timestamp) -> Result<(), StoreError> {
        let Some(AgeCursor { age, next }) = self.trimming.ages.get(index) else { return Ok(()) };
        let (age, mut next) = (*age, *next);
        let (mut due, indexed) = (Due::new(), indexed(self.connection)?);
        let mut select = self.connection.prepare_cached(
            "SELECT offset, at, topics FROM events WHERE offset >= ? ORDER BY offset",
        )?;
        let mut rows = select.query([column(next)])?;
        while self.rows_left > 0
            && let Some(row) = rows.next()?
        {
            let until = Timestamp::from_millis(number(row.get(1)?)).after(age);
            if until > now {
                self.due_at(until);
                break;
            }
            let offset = number(row.get(0)?);
            let numbers = keepers(self.connection, offset, row.get_ref(2)?, indexed)?;
            self.spend(numbers.len().max(1));
            for number in numbers {
                let topic = self.topics.get(self.connection, number)?;
                if topic.ok_or_else(|| lost(number))?.retention.age_max == Some(age) {
                    due.insert(number, offset);
                }
            }
            next = offset + 1;
        }
        drop(rows);
        self.evict_all(due)?;
        if let Some(cursor) = self.trimming.ages.get_mut(index) {
            cursor.next = next;
        }
        Ok(())
    }

    /// Evicts the oldest events of all while the file is over its bound. The newest stays.
    fn trim_bytes(&mut self) -> Result<(), StoreError> {
        while self.rows_left > 0 && self.trimming.grown {
            if used_bytes(self.connection)? <= self.trimming.bytes_max {
                self.trimming.grown = false;
                return Ok(());
            }
            let due = self.oldest()?;
            if due.is_empty() {
                self.trimming.grown = false;
                return Ok(());
            }
            self.evict_all(due)?;
        }
        Ok(())
    }

    /// Some of the oldest events, by topic.
    fn oldest(&mut self) -> Result<Due, StoreError> {
        /// Between two looks at the size: what these free is little against any sensible bound.
        const EVENTS: usize = 64;
        let mut select = self.connection.prepare_cached(
            "SELECT offset, topics FROM events
             WHERE offset < (SELECT max(offset) FROM events) ORDER BY offset LIMIT ?",
        )?;
        let mut rows = select.query([EVENTS.min(self.rows_left) as i64])?;
        let (mut due, indexed) = (Due::new(), indexed(self.connection)?);
        while let Some(row) = rows.next()? {
            let offset = number(row.get(0)?);
            let numbers = keepers(self.connection, offset, row.get_ref(1)?, indexed)?;
            self.rows_left = self.rows_left.saturating_sub(numbers.len().max(1));
            for topic in numbers {
                due.insert(topic, offset);
            }
        }
        Ok(due)
    }

    fn evict_all(&mut self, due: Due) -> Result<(), StoreError> {
        let indexed = self.topics.unindexed(self.connection)?.from;
        if due.values().any(|&through| through >= indexed) {
            self.index()?;
        }
        due.into_iter().try_for_each(|(number, through)| self.evict(number, through))
    }
}

/// The topics of the newest events: those among them that were over their rule when the store was
/// last closed have not been trimmed.
fn written_last(connection: &Connection) -> Result<VecDeque<i64>, StoreError> {
    /// Trimming follows each commit, so what it left behind is in the last few batches.
    const EVENTS: i64 = 1_024;
    let mut select =
        connection.prepare("SELECT topics FROM events ORDER BY offset DESC LIMIT ?")?;
    let mut rows = select.query([EVENTS])?;
    let mut numbers = BTreeSet::new();
    while let Some(row) = rows.next()? {
        numbers.extend(topic_numbers(row.get_ref(0)?));
    }
    Ok(numbers.into_iter().collect())
}

/// Bytes of the pages that are in use.
fn used_bytes(connection: &Connection) -> Result<u64, StoreError> {
    let value = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let pages = value("page_count")? - value("freelist_count")?;
    Ok(number(pages * value("page_size")?))
}
