//! Trimming evicts events so that the file stays within its limits. Each step of trimming reads and
//! evicts a bounded number of events.
//!
//! A topic evicts its oldest events first. The floor of a topic is the offset after its last
//! evicted event, so the topic has all of its events from its floor on. An eviction removes an
//! event and raises the floor in the same transaction. All evictions of a transaction have the same
//! eviction number.
//!
//! An event may belong to several topics. The event is deleted when all of its topics have evicted
//! it. Each topic has a row in the table `topics`. When a topic has no events any more, its row
//! stays and stores the floor. The number of rows of such topics is limited. All topic names
//! without a row share one floor. When trimming deletes a row, this shared floor rises at least to
//! the floor in the row. A reader of a name without a row may then get a gap although it missed no
//! event. But a reader that missed events always gets a gap.
//!
//! For each maximum age in the retention rules, trimming remembers how far it has checked the
//! events. The next step continues there, and does not read the earlier events again.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use downlink_log::{
    Address, Floor, KEY_WINDOW, KEYS_MAX, RetentionRules, Timestamp,
    store::{Losses, Trimmed},
};
use rusqlite::Connection;

use crate::{
    fault::Result,
    sql::{Sql as _, TopicNumbers, address, indexed, keepers, lost, meta, set_meta},
    topics::{TopicCache, members_from},
};

/// The number of rows that one step reads or evicts. Such a step takes about five milliseconds, and
/// publishers wait during this time. After a commit of many rows, the next step may touch twice as
/// many rows as the commit. So trimming keeps up with publishers that never pause.
const STEP_ROWS: usize = 512;

/// The table `memberships` lists the events of each topic. Commits do not add rows to this table,
/// because a commit would have to write a page for each of its topics. When this many rows are
/// missing, trimming adds them in the order of topics, so that many rows share a page. While rows
/// are missing, every read of a topic has to read all events without rows. This takes up to two
/// milliseconds. With a larger number, each such read would take longer.
///
/// One step adds at most this many rows, or half of the missing rows, whichever is more. Without
/// this limit, a step after a large batch would take too long.
const INDEX_ROWS: usize = 4_096;

/// The number of events that are evicted between two checks of the size of the file. These events
/// are small compared with any sensible limit for this size, so one check for all of them is
/// enough.
const SIZE_EVENTS: usize = 64;

/// The number of newest events whose topics trimming checks after a store is opened. A topic that
/// has only older events is within its rule, because trimming ran after the commits of the older
/// events.
const WRITTEN_LAST: i64 = 1_024;

/// The settings of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How much each topic keeps. A topic may have up to an eighth more events than its rule says.
    /// Trimming lets events accumulate, because evicting several events at once writes fewer pages
    /// than evicting one event with each commit.
    pub retention: RetentionRules,
    /// The maximum number of bytes in use in the database. Above this number, the oldest events of
    /// all topics are evicted, but never the newest event. The write-ahead log takes additional
    /// space: some 16 MiB, or more during a long read by another program. If you lower this limit,
    /// trimming frees pages inside the file, but only `VACUUM` makes the file smaller.
    pub bytes_max: u64,
    /// The maximum number of floors that the store remembers for topics without events. The floor
    /// of a topic is the offset after its last evicted event. For all other topics without events,
    /// the store remembers only the highest of their floors.
    pub floors_max: usize,
    /// How long to wait if another process has the file open. If a new process may start before the
    /// old process has ended, allow at least the time that the old process needs to end.
    pub wait_for: Duration,
}

impl Default for SqliteOptions {
    /// The log's default retention, 16 GiB, a million floors (about 100 MiB), and no waiting.
    fn default() -> Self {
        Self {
            retention: RetentionRules::default(),
            bytes_max: 16 << 30,
            floors_max: 1_000_000,
            wait_for: Duration::ZERO,
        }
    }
}

/// The work that trimming still has to do. If a transaction fails, the caller restores the earlier
/// value.
#[derive(Clone, Debug)]
pub(crate) struct Trimming {
    options: Arc<SqliteOptions>,
    /// The numbers of topics that exceed their rule.
    pub(crate) over: VecDeque<i64>,
    /// Each maximum age in the rules, with the first offset that was not checked for this age.
    ages: Vec<(Duration, u64)>,
    /// The number of topics with no events and no finish mark (the record that a topic is
    /// finished).
    pub(crate) emptied: usize,
    pub(crate) keys: usize,
    /// The number of events that were committed since the last step. An event with several topics
    /// counts once for each topic.
    pub(crate) added: usize,
    /// The number of the next topic to compare with its rule. `None` when all topics were compared.
    unchecked: Option<i64>,
    /// Whether the file may have grown since trimming last checked its size.
    pub(crate) grown: bool,
}

impl Trimming {
    pub(crate) fn new(db: &Connection, options: SqliteOptions) -> Result<Self> {
        let ages = unchecked_ages(&options.retention);
        let is_checked = meta::<String>(db, "rules")? == rules_text(&options.retention);
        // When the store was last closed, topics of the newest events may have exceeded their rule.
        let select = "SELECT topics FROM events ORDER BY offset DESC LIMIT ?";
        let newest: Vec<(TopicNumbers,)> = db.all(select, [WRITTEN_LAST])?;
        let over: BTreeSet<i64> = newest.into_iter().flat_map(|(TopicNumbers(all),)| all).collect();
        let count = |sql| db.first(sql, []).map(|rows| rows.map_or(0, |(rows,)| rows));
        Ok(Self {
            options: Arc::new(options),
            over: over.into_iter().collect(),
            ages,
            emptied: count("SELECT count(*) FROM topics WHERE emptied IS NOT NULL")?,
            keys: count("SELECT count(*) FROM keys")?,
            added: 0,
            unchecked: (!is_checked).then_some(0),
            grown: true,
        })
    }

    /// Replaces the retention rules. If a rule has changed, the next steps compare every topic with
    /// its new rule.
    pub(crate) fn set_retention(&mut self, retention: RetentionRules) {
        if rules_text(&retention) != rules_text(&self.options.retention) {
            self.ages = unchecked_ages(&retention);
            self.unchecked = Some(0);
        }
        Arc::make_mut(&mut self.options).retention = retention;
    }
}

/// Each maximum age in the rules. No event was checked for this age yet.
fn unchecked_ages(retention: &RetentionRules) -> Vec<(Duration, u64)> {
    let ages: BTreeSet<_> = retention.all().filter_map(|rule| rule.age_max).collect();
    ages.into_iter().map(|age| (age, 0)).collect()
}

/// Returns the rules as text. The file stores this text. If the text has changed when a store is
/// opened, trimming compares every topic with its rule. The text does not contain the time for
/// which topics stay finished, because this time does not limit the events of a topic.
fn rules_text(retention: &RetentionRules) -> String {
    let RetentionRules { rules, default, inbox, everyone, .. } = retention;
    format!(
        "RetentionRules {{ rules: {rules:?}, default: {default:?}, inbox: {inbox:?}, \
         everyone: {everyone:?} }}"
    )
}

/// One transaction of trimming.
struct TrimStep<'a> {
    db: &'a Connection,
    topics: &'a mut TopicCache,
    trimming: &'a mut Trimming,
    /// The number of rows that this step may still touch. If this number is 0 at the end of the
    /// step, the next step may have work to do.
    rows_left: usize,
    /// The eviction number that all evictions of this step get.
    eviction: u64,
    /// Whether this step has evicted anything.
    evicted: bool,
    /// The earliest time at which an event, a finish mark or an idempotency key reaches its maximum
    /// age.
    next: Option<Timestamp>,
}

/// For each topic, the last offset to evict.
type LastToEvict = BTreeMap<i64, u64>;

/// Runs one step of trimming. Returns when the next step is due, and whether this step evicted
/// anything.
pub(crate) fn trim_step(
    db: &Connection,
    topics: &mut TopicCache,
    trimming: &mut Trimming,
    now: Timestamp,
) -> Result<(Trimmed, bool)> {
    let eviction = meta::<u64>(db, "evictions")? + 1;
    let rows_left = STEP_ROWS.max(2 * std::mem::take(&mut trimming.added));
    let mut step =
        TrimStep { db, topics, trimming, rows_left, eviction, evicted: false, next: None };
    step.run(now)?;
    let trimmed = if step.rows_left == 0 { Trimmed::More } else { Trimmed::Until(step.next) };
    Ok((trimmed, step.evicted))
}

/// Raises the floors of addresses whose events are missing in a feed, and evicts the events below
/// the new floors. All evictions get the same number.
pub(crate) fn lose(
    db: &Connection,
    topics: &mut TopicCache,
    trimming: &mut Trimming,
    losses: &Losses,
) -> Result<()> {
    let eviction = meta::<u64>(db, "evictions")? + 1;
    let rows_left = usize::MAX;
    let mut step =
        TrimStep { db, topics, trimming, rows_left, eviction, evicted: false, next: None };
    if let Some(others) = losses.others {
        step.lose_others(&losses.known, others)?;
    }
    for (address, floor) in &losses.floors {
        let number = step.row_of(address)?;
        step.lose_topic(number, *floor)?;
    }
    set_meta(db, "evictions", eviction)
}

/// Adds the missing rows of all events to `memberships`.
pub(crate) fn index_all(
    db: &Connection,
    topics: &mut TopicCache,
    trimming: &mut Trimming,
) -> Result<()> {
    let (rows_left, eviction) = (usize::MAX, 0);
    let mut step =
        TrimStep { db, topics, trimming, rows_left, eviction, evicted: false, next: None };
    while step.topics.unindexed(db)?.rows > 0 {
        step.index()?;
    }
    Ok(())
}

impl TrimStep<'_> {
    /// The number of the topic of an address. If the topic has no row, makes a row without events.
    fn row_of(&mut self, address: &Address) -> Result<i64> {
        let number = self.topics.topic_of(self.db, address)?.number;
        let emptied = self.mark_emptied(number)?;
        self.topics.evicted(number, 0, 0, emptied);
        Ok(number)
    }

    /// Raises the floor of a topic, and evicts its events below the floor.
    fn lose_topic(&mut self, number: i64, floor: Floor) -> Result<()> {
        let last = floor.offset.get() - 1;
        while self.topics.has_unindexed(self.db, number)?
            && self.topics.unindexed(self.db)?.from <= last
        {
            self.index()?;
        }
        self.evict(number, last)?;
        self.db.run(
            "UPDATE topics SET floor = ?2 + 1, lower_floor = max(lower_floor, ?2), evicted = ?3,
             floor_at = max(floor_at, ?4) WHERE number = ?1 AND floor <= ?2",
            (number, last, self.eviction, floor.at.as_millis()),
        )?;
        // Among the rows of topics without events, `emptied` gives the order of their floors.
        let sql = "UPDATE topics SET emptied = floor - 1 WHERE number = ? AND emptied IS NOT NULL";
        self.db.run(sql, [number])?;
        Ok(())
    }

    /// Raises the floors of all names that are not in `known`.
    fn lose_others(&mut self, known: &HashSet<Address>, floor: Floor) -> Result<()> {
        // Each name in `known` needs a row, because all names without a row get the new floor.
        for address in known {
            self.row_of(address)?;
        }
        let raise = "UPDATE meta SET value = max(value, ?) WHERE name = ?";
        self.db.run(raise, (floor.offset.get(), "forgotten"))?;
        self.db.run(raise, (floor.at.as_millis(), "forgotten_at"))?;
        self.db.run(raise, (self.eviction, "forgotten_evicted"))?;
        let mut after = 0;
        loop {
            let rows: Vec<(i64, i64, String)> = self.db.all(
                "SELECT number, kind, name FROM topics WHERE number > ? ORDER BY number LIMIT 512",
                [after],
            )?;
            let Some((last, ..)) = rows.last() else { return Ok(()) };
            after = *last;
            for (number, kind, name) in rows {
                if !known.contains(&address(kind, &name, number)?) {
                    self.lose_topic(number, floor)?;
                }
            }
        }
    }

    /// Trims by every rule until the step has no rows left.
    fn run(&mut self, now: Timestamp) -> Result<()> {
        // Topics that exceed their own rule use at most half of the step. The other half is left
        // for the other rules.
        self.trim_topics(self.rows_left / 2)?;
        let mut ages = std::mem::take(&mut self.trimming.ages);
        for (age, next) in &mut ages {
            *next = self.trim_age(*age, *next, now)?;
        }
        self.trimming.ages = ages;
        self.trim_bytes()?;
        self.forget_finishes(now)?;
        self.forget_keys(now)?;
        self.forget_floors()?;
        self.check_rules()?;
        self.trim_topics(0)?;
        if self.topics.unindexed(self.db)?.rows >= INDEX_ROWS {
            self.index()?;
        }
        if self.evicted { set_meta(self.db, "evictions", self.eviction) } else { Ok(()) }
    }

    /// Evicts events of the topics that exceed their rule, until this step has only `rows_kept`
    /// rows left.
    fn trim_topics(&mut self, rows_kept: usize) -> Result<()> {
        while self.rows_left > rows_kept
            && let Some(&topic) = self.trimming.over.front()
        {
            if self.trim_topic(topic)? {
                self.trimming.over.pop_front();
            }
        }
        Ok(())
    }

    fn spend(&mut self, rows: usize) {
        self.rows_left = self.rows_left.saturating_sub(rows);
    }

    /// Whether an item with the time stamp `at` is younger than `keep`. If so, this function also
    /// makes the next step run when the item reaches that age.
    fn is_kept(&mut self, at: u64, keep: Duration, now: Timestamp) -> bool {
        let until = Timestamp::from_millis(at).after(keep);
        if until > now {
            self.next = Some(self.next.map_or(until, |next| next.min(until)));
        }
        until > now
    }

    /// Adds the rows of the next events to `memberships`, in the order of topics. If some events
    /// still have no rows afterwards, this step ends, and the next step continues.
    fn index(&mut self) -> Result<()> {
        let unindexed = self.topics.unindexed(self.db)?;
        let mut members =
            members_from(self.db, unindexed.from, INDEX_ROWS.max(unindexed.rows / 2))?;
        let Some(&(_, last, _)) = members.last() else { return Ok(()) };
        members.sort_unstable();
        for member in &members {
            self.db.run("INSERT INTO memberships VALUES (?, ?, ?)", *member)?;
        }
        set_meta(self.db, "indexed", last + 1)?;
        unindexed.remove(&members, last + 1);
        if unindexed.rows > 0 {
            self.rows_left = 0;
        }
        Ok(())
    }

    /// Evicts events of one topic until the topic is within its rule or this step has no rows left.
    /// Returns `true` if the topic is within its rule.
    fn trim_topic(&mut self, number: i64) -> Result<bool> {
        let Some(topic) = self.topics.get(self.db, number)? else { return Ok(true) };
        topic.queued = false;
        let (rule, mut events, mut bytes) = (topic.retention, topic.events, topic.bytes);
        let is_over = |events, bytes| events > rule.events_max || bytes > rule.bytes_max;
        let mut through = None;
        let sql = "SELECT offset, bytes FROM memberships WHERE topic = ? ORDER BY offset LIMIT ?";
        let surplus = events.saturating_sub(rule.events_max).max(SIZE_EVENTS);
        let limit = surplus.min(self.rows_left);
        let members: Vec<(u64, usize)> = self.db.all(sql, (number, limit))?;
        for (offset, size) in members {
            if events <= 1 || !is_over(events, bytes) {
                break;
            }
            through = Some(offset);
            events -= 1;
            bytes = bytes.saturating_sub(size);
        }
        if let Some(through) = through {
            self.evict(number, through)?;
        } else if self.topics.has_unindexed(self.db, number)? {
            self.index()?;
        }
        self.spend(1);
        Ok(events <= 1 || !is_over(events, bytes))
    }

    /// After the rules have changed, finds the topics that now exceed their rule.
    fn check_rules(&mut self) -> Result<()> {
        let Some(from) = self.trimming.unchecked else { return Ok(()) };
        if from == 0 {
            // The program may end before all topics are checked. By then, topics may have grown
            // beyond the rules in the file. So the next opening must check all topics, even if it
            // has the rules that are in the file.
            set_meta(self.db, "rules", "")?;
        }
        let sql = "SELECT number, emptied IS NULL FROM topics WHERE number >= ? ORDER BY number";
        let mut select = self.db.prepare_cached(sql)?;
        let mut rows = select.query([from])?;
        while self.rows_left > 0 {
            let Some(row) = rows.next()? else {
                self.trimming.unchecked = None;
                // If this step has found topics that exceed their rule, it ends here. The next step
                // trims these topics.
                self.rows_left *= usize::from(self.trimming.over.is_empty());
                let rules = rules_text(&self.trimming.options.retention);
                return set_meta(self.db, "rules", rules);
            };
            let (number, keeps_events): (i64, bool) = (row.get(0)?, row.get(1)?);
            // Counting the events of a topic takes about as long as evicting 32 events.
            self.spend(if keeps_events { 32 } else { 1 });
            if keeps_events
                && self.topics.get(self.db, number)?.is_some_and(|topic| topic.is_over())
            {
                self.trimming.over.push_back(number);
            }
            self.trimming.unchecked = Some(number + 1);
        }
        Ok(())
    }

    /// Evicts the events that are older than `age`, from the topics whose rule has this maximum
    /// age. Returns the first offset that was not checked.
    fn trim_age(&mut self, age: Duration, mut next: u64, now: Timestamp) -> Result<u64> {
        let (mut due, indexed) = (LastToEvict::new(), indexed(self.db)?);
        let sql = "SELECT offset, at, topics FROM events WHERE offset >= ? ORDER BY offset";
        let mut select = self.db.prepare_cached(sql)?;
        let mut rows = select.query([next])?;
        while self.rows_left > 0
            && let Some(row) = rows.next()?
        {
            if self.is_kept(row.get(1)?, age, now) {
                break;
            }
            let offset = row.get(0)?;
            for number in keepers(self.db, offset, row.get(2)?, indexed) {
                let number = number?;
                self.spend(1);
                let topic = self.topics.get(self.db, number)?.ok_or_else(|| lost(number))?;
                if topic.retention.age_max == Some(age) {
                    due.insert(number, offset);
                }
            }
            next = offset + 1;
        }
        drop(rows);
        let highest = due.values().copied().max();
        self.evict_all(due)?;
        let indexed = self.topics.unindexed(self.db)?.from;
        // Events without rows in `memberships` cannot be evicted. If this step could not add the
        // rows of all events, the next step checks these events again.
        Ok(if highest.is_some_and(|highest| highest >= indexed) { indexed } else { next })
    }

    /// Evicts the oldest events of all topics while the file exceeds its limit. The newest event
    /// stays.
    fn trim_bytes(&mut self) -> Result<()> {
        while self.rows_left > 0 && self.trimming.grown {
            let is_over = used_bytes(self.db)? > self.trimming.options.bytes_max;
            let due = if is_over { self.oldest()? } else { LastToEvict::new() };
            self.trimming.grown = !due.is_empty();
            self.evict_all(due)?;
        }
        Ok(())
    }

    /// Finds some of the oldest events. For each of their topics, returns the last offset to evict.
    fn oldest(&mut self) -> Result<LastToEvict> {
        let rows: Vec<(u64, TopicNumbers)> = self.db.all(
            "SELECT offset, topics FROM events
             WHERE offset < (SELECT max(offset) FROM events) ORDER BY offset LIMIT ?",
            [SIZE_EVENTS.min(self.rows_left)],
        )?;
        let (mut due, indexed) = (LastToEvict::new(), indexed(self.db)?);
        for (offset, topics) in rows {
            for number in keepers(self.db, offset, topics, indexed) {
                self.spend(1);
                due.insert(number?, offset);
            }
        }
        Ok(due)
    }

    /// Evicts the events of each topic up to an offset. Events stay if this step cannot add their
    /// rows to `memberships`.
    fn evict_all(&mut self, due: LastToEvict) -> Result<()> {
        let indexed = self.topics.unindexed(self.db)?.from;
        if due.values().any(|&through| through >= indexed) {
            self.index()?;
        }
        due.into_iter().try_for_each(|(number, through)| self.evict(number, through))
    }

    /// Evicts the events of a topic up to an offset, except for events without a row in
    /// `memberships`. Raises the topic's floor above the evicted events.
    fn evict(&mut self, topic: i64, through: u64) -> Result<()> {
        let members: Vec<(u64, usize)> = self.db.all(
            "SELECT offset, bytes FROM memberships WHERE topic = ? AND offset <= ? ORDER BY offset",
            (topic, through),
        )?;
        let Some(&(last, _)) = members.last() else { return Ok(()) };
        let second_to_last = members.iter().rev().nth(1).map(|&(offset, _)| offset + 1);
        self.db.run("DELETE FROM memberships WHERE topic = ? AND offset <= ?", (topic, last))?;
        self.db.run(
            "UPDATE topics SET floor = ?2 + 1, lower_floor = coalesce(?3, floor), evicted = ?4,
             floor_at = (SELECT at FROM events WHERE offset = ?2) WHERE number = ?1",
            (topic, last, second_to_last, self.eviction),
        )?;
        for &(offset, _) in &members {
            self.delete_event(topic, offset)?;
        }
        let emptied = self.mark_emptied(topic)?;
        let bytes = members.iter().map(|&(_, bytes)| bytes).sum();
        self.topics.evicted(topic, members.len(), bytes, emptied);
        self.spend(members.len());
        self.evicted = true;
        Ok(())
    }

    /// Deletes an event if no other topic keeps it. The rows of the event must have been added to
    /// `memberships` before.
    fn delete_event(&self, topic: i64, offset: u64) -> Result<()> {
        if self.db.run("DELETE FROM events WHERE offset = ? AND topics = ?", (offset, topic))? > 0 {
            return Ok(());
        }
        let topics = self.db.first("SELECT topics FROM events WHERE offset = ?", [offset])?;
        let topics = topics.map_or_else(TopicNumbers::default, |(topics,)| topics);
        // Usually, the last topic in the list evicts the event last. So the search for a topic that
        // still keeps the event begins at the end of the list.
        if keepers(self.db, offset, topics, u64::MAX).next_back().transpose()?.is_none() {
            self.db.run("DELETE FROM events WHERE offset = ?", [offset])?;
        }
        Ok(())
    }

    /// If a topic has no events and no finish mark any more, records this in its row.
    fn mark_emptied(&mut self, topic: i64) -> Result<bool> {
        if self.topics.has_unindexed(self.db, topic)? {
            return Ok(false);
        }
        let emptied = self.db.run(
            "UPDATE topics SET emptied = floor - 1
             WHERE number = ?1 AND finished IS NULL AND emptied IS NULL
             AND NOT EXISTS (SELECT 1 FROM memberships WHERE topic = ?1)",
            [topic],
        )?;
        self.trimming.emptied += emptied;
        Ok(emptied > 0)
    }

    /// Drops the finish marks that have reached their maximum age.
    fn forget_finishes(&mut self, now: Timestamp) -> Result<()> {
        let oldest = "SELECT number, finished_at FROM topics WHERE finished IS NOT NULL
                      ORDER BY finished_at LIMIT 1";
        while self.rows_left > 0
            && let Some((topic, at)) = self.db.first(oldest, [])?
            && !self.is_kept(at, self.trimming.options.retention.finished_keep, now)
        {
            let sql = "UPDATE topics SET finished = NULL, finished_at = NULL WHERE number = ?";
            self.db.run(sql, [topic])?;
            let emptied = self.mark_emptied(topic)?;
            self.topics.evicted(topic, 0, 0, emptied);
            self.spend(1);
        }
        Ok(())
    }

    /// Drops the idempotency keys that have reached their maximum age, and the oldest keys if there
    /// are too many.
    fn forget_keys(&mut self, now: Timestamp) -> Result<()> {
        while self.rows_left > 0 && self.trimming.keys > 0 {
            let oldest =
                self.db.first("SELECT offset, at FROM keys ORDER BY offset LIMIT 1", [])?;
            let Some((offset, at)): Option<(u64, u64)> = oldest else {
                // There are no rows left. The count was too high, because a key that is used again
                // replaces its old row.
                self.trimming.keys = 0;
                break;
            };
            if self.trimming.keys <= KEYS_MAX && self.is_kept(at, KEY_WINDOW, now) {
                break;
            }
            self.trimming.keys -= self.db.run("DELETE FROM keys WHERE offset = ?", [offset])?;
            self.spend(1);
        }
        Ok(())
    }

    /// If there are too many rows of topics without events, drops some of these rows. The floor
    /// that all names without a row share rises at least to the highest floor in the dropped rows.
    fn forget_floors(&mut self) -> Result<()> {
        let Trimming { emptied, options, .. } = &*self.trimming;
        let surplus = emptied.saturating_sub(options.floors_max).min(self.rows_left);
        let oldest: Vec<(i64, u64, u64, u64)> = self.db.all(
            "SELECT number, floor, floor_at, evicted FROM topics WHERE emptied IS NOT NULL
             ORDER BY emptied LIMIT ?",
            [surplus],
        )?;
        for &(topic, floor, at, evicted) in &oldest {
            let raise = "UPDATE meta SET value = max(value, ?) WHERE name = ?";
            self.db.run(raise, (floor, "forgotten"))?;
            self.db.run(raise, (at, "forgotten_at"))?;
            self.db.run(raise, (evicted, "forgotten_evicted"))?;
            self.db.run("DELETE FROM topics WHERE number = ?", [topic])?;
            self.topics.forget(topic);
        }
        self.trimming.emptied -= oldest.len();
        self.spend(oldest.len());
        Ok(())
    }
}

/// The bytes of the pages that are in use.
fn used_bytes(db: &Connection) -> Result<u64> {
    let value = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    Ok(value("page_count")?.saturating_sub(value("freelist_count")?) * value("page_size")?)
}
